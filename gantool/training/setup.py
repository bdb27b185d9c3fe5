"""What training needs besides a recipe: the decoded data, and what measures models of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from gantool.batches import Labeled, Paired, TableBatch
from gantool.data.loader import rows_of
from gantool.data.prepare import prepare, table
from gantool.data.store import Store
from gantool.data.tables import Table
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import Evaluator, SampleRequest
from gantool.metrics.reference import MIN_IMAGES_TO_LEARN, ReferenceSet, learn
from gantool.models.base import Generative
from gantool.recipe.blocks import Recipe

logger = logging.getLogger(__name__)


class TrainingSetup(NamedTuple):
    """What training needs besides a recipe: the decoded data, and what measures models of them."""

    store: Store | Table
    evaluator: Evaluator | ClassifierEvaluator


def prepare_training(recipe: Recipe, data_dir: Path, *, store: Store | Table | None = None) -> TrainingSetup:
    """Return what training a recipe needs, found or made once in the data directory.

    Args:
        recipe: what is to be trained.
        data_dir: where fetched and decoded data, and learned extractors, are.
        store: the recipe's decoded data, where they are open already.
    """
    if store is None:
        store = data_of(recipe, data_dir)
    logger.info(describe_split(recipe, store))
    return TrainingSetup(store, evaluator_of(recipe, store, data_dir))


def data_of(recipe: Recipe, data_dir: Path) -> Store | Table:
    """Return the decoded data that a recipe's model learns from: images, or a table."""
    kind = recipe.batch_type
    return table(recipe.data, data_dir) if kind is TableBatch else prepare(recipe.data, data_dir, kind)


def evaluator_of(recipe: Recipe, store: Store | Table, data_dir: Path) -> Evaluator | ClassifierEvaluator:
    """Return what measures a recipe's models; extractors that are learned from the images are learned once."""
    model, share = recipe.model.target, recipe.data.held_out
    if isinstance(store, Table):
        return ClassifierEvaluator.of_table(store)
    rows = rows_of(store.labels, share, recipe.batch_type)
    if not issubclass(model, Generative):
        return ClassifierEvaluator.of_images(store, rows)
    reality = ReferenceSet.of(store, rows, recipe.batch_type)
    folder, key = data_dir / "extractors", f"{store.path.name}-{round(100 * share)}"
    extractors = learn(reality, recipe.train.extractors, folder, key)
    request: int | SampleRequest = recipe.train.evaluate_images
    if recipe.batch_type is not Labeled:
        request = SampleRequest.translations(store, rows, recipe.batch_type, recipe.train.evaluate_images)
    return Evaluator(reality, extractors, request, conditional=model.conditional)


def describe_split(recipe: Recipe, store: Store | Table) -> str:
    """Return how many examples training has, and what it means if they are few."""
    if isinstance(store, Table):
        kept = f"{len(store.held_out):,} more are held out" if len(store.held_out) else "none are held out"
        return f"learning from {len(store.train):,} rows; {kept}"
    kind = recipe.batch_type
    train, held_out = map(len, rows_of(store.labels, recipe.data.held_out, kind))
    thing = "pair" if kind is Paired else "image"
    what = f"{thing}s"
    kept = f"{held_out:,} more are held out" if held_out else "none are held out, so that copying cannot be told"
    few = ""
    if train + held_out < MIN_IMAGES_TO_LEARN:
        few = f"; with fewer than {MIN_IMAGES_TO_LEARN} {what} fd ranks settings, and is no measure of quality"
    return f"learning from {train:,} {thing if train == 1 else what}; {kept}{few}"
