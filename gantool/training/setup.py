"""Prepare a training: its data, and the evaluator of its models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from gantool.batches import Labeled, Paired, TableBatch
from gantool.data.loader import Dataset
from gantool.data.prepare import prepare
from gantool.errors import DataError
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import Evaluator, SampleRequest
from gantool.metrics.reference import MIN_IMAGES_TO_LEARN, ReferenceSet, learn
from gantool.models.base import Generative
from gantool.recipe.blocks import Recipe
from gantool.training.state import DataMark

logger = logging.getLogger(__name__)


class TrainingSetup(NamedTuple):
    """The data of a training, and the evaluator of its models."""

    store: Dataset
    evaluator: Evaluator | ClassifierEvaluator


def prepare_training(recipe: Recipe, data_dir: Path, *, store: Dataset | None = None) -> TrainingSetup:
    """Return the data of a recipe, unless they are open already, and its evaluator, made once in the data directory."""
    if store is None:
        store = data_of(recipe, data_dir)
    logger.info(describe_split(recipe, store))
    return TrainingSetup(store, evaluator_of(recipe, store, data_dir))


def data_of(recipe: Recipe, data_dir: Path) -> Dataset:
    """Return the data that a recipe's model learns from."""
    return prepare(recipe.data, data_dir, recipe.batch_type)


def check_same_data(before: DataMark | None, file: Path, store: Dataset, advice: str) -> None:
    """Raise DataError if a checkpoint was trained on other data: other rows would be held out of them.

    Args:
        before: the data of the checkpoint. One of version 0.1 does not know them.
        file: of the checkpoint.
        store: the data.
        advice: what to do besides bringing the old data back.
    """
    if before is not None and before.digest and store.digest and before.digest != store.digest:
        counts = f"{before.count:,} examples" + ("" if before.count == len(store) else f", now {len(store):,}")
        raise DataError(f"{file}: was trained on other data ({counts}); bring the old ones back, or {advice}")


def evaluator_of(recipe: Recipe, store: Dataset, data_dir: Path) -> Evaluator | ClassifierEvaluator:
    """Return the evaluator of a recipe's models. Extractors are learned from the images once."""
    model, share = recipe.model.target, recipe.data.held_out
    rows = store.split(share, recipe.batch_type)
    if not issubclass(model, Generative):
        return ClassifierEvaluator.of(store, rows)
    reality = ReferenceSet.of(store, rows, recipe.batch_type)
    folder, key = data_dir / "extractors", f"{store.key}-{round(100 * share)}"
    extractors = learn(reality, recipe.train.extractors, folder, key)
    request: int | SampleRequest = recipe.train.evaluate_images
    if recipe.batch_type is not Labeled:
        request = SampleRequest.translations(store, rows, recipe.batch_type, recipe.train.evaluate_images)
    return Evaluator(reality, extractors, request, conditional=model.conditional)


def describe_split(recipe: Recipe, store: Dataset) -> str:
    """Return how many examples training has, with a remark if they are few."""
    train, held_out = map(len, store.split(recipe.data.held_out, recipe.batch_type))
    thing = {Paired: "pair", TableBatch: "row"}.get(recipe.batch_type, "image")
    kept = f"{held_out:,} more are held out" if held_out else "none are held out"
    few = ""
    if recipe.batch_type is not TableBatch:
        kept += "" if held_out else ", so copies cannot be recognised"
        if train + held_out < MIN_IMAGES_TO_LEARN:
            few = f"; with fewer than {MIN_IMAGES_TO_LEARN} {thing}s fd ranks settings, and is no measure of quality"
    part = f"; a fixed part, {store.part} (data.limit)" if store.part else ""
    return f"learning from {train:,} {thing}{'' if train == 1 else 's'}; {kept}{part}{few}"
