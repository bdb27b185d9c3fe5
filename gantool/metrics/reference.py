"""The real images that generated ones are compared with, and the extractors that are fitted to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gantool.batches import Batch, Labeled, Paired
from gantool.data.loader import Dataset, Split
from gantool.devices import one_thread
from gantool.errors import RecipeError
from gantool.images import to_float
from gantool.metrics.features import Extractor, RandomFeatures, TextureFeatures
from gantool.metrics.learned import cached, learn_labels, learn_views

logger = logging.getLogger(__name__)

MAX_REAL = 5000  # real images that a measurement compares with
MAX_HELD_OUT = 1000  # held-out images that a measurement uses
SEED = 20_240_805  # of the evaluation's own random numbers, the same in every run
MIN_IMAGES_TO_LEARN = 60  # images below which nothing is learned from them
MIN_IMAGES_FOR_JUDGE = 250  # images from which a judge learns their classes
BATCH = 256
FD_WEIGHTS = {"rand": 4, "texture": 1, "pretext": 2, "judge": 2}
"""The weight of each extractor's distance in `fd`, a weighted geometric mean. They were chosen by `nox -s ranking` and
`nox -s ladder`: more weight on `texture` worsens the ranking of generators by their content, and with less weight noise
and JPEG blocks are lost in the deviation of the others."""


@dataclass(frozen=True)
class ReferenceSet:
    """The real images that a generator is measured against, uint8 [N, C, H, W] in random order, and their labels, [N].

    Training sees the images in `train` and never those in `held_out`. `shares` are the frequencies of the classes in
    the training data, and `split` is the share of all images that is held out, see `loader.split`. `part` says how many
    images `data.limit` left of how many.
    """

    train: Tensor
    held_out: Tensor
    train_labels: Tensor
    held_out_labels: Tensor
    classes: tuple[str, ...]
    shares: Tensor
    split: float
    part: str = ""

    @classmethod
    def of(cls, store: Dataset, rows: Split, kind: type[Batch] = Labeled) -> ReferenceSet:
        """Take at most `MAX_REAL` and `MAX_HELD_OUT` images of a dataset; if `kind` is Paired, the targets."""
        labels, classes = store.labels, store.spec.classes
        if kind is Paired:
            rows, labels, classes = Split(rows.train + 1, rows.held_out + 1), np.zeros_like(labels), classes[1:]
        generator = torch.Generator().manual_seed(SEED)
        train, held_out = (
            part[torch.randperm(len(part), generator=generator)[:most].numpy()]
            for part, most in ((rows.train, MAX_REAL), (rows.held_out, MAX_HELD_OUT))
        )
        train = np.tile(train, 2) if len(train) == 1 else train  # one image has no deviation
        counts = np.bincount(labels[rows.train], minlength=len(classes))
        return cls(
            train=torch.from_numpy(store.inputs[train]),
            held_out=torch.from_numpy(store.inputs[held_out]),
            train_labels=torch.from_numpy(labels[train]),
            held_out_labels=torch.from_numpy(labels[held_out]),
            classes=classes,
            shares=torch.from_numpy(counts / counts.sum()),
            split=len(rows.held_out) / (len(rows.train) + len(rows.held_out)),
            part=store.part,
        )


def learn(
    reality: ReferenceSet, wanted: Literal["auto"] | Sequence[str], folder: Path, key: str
) -> dict[str, Extractor]:
    """Return the extractors for these images, by name; learned ones are kept in `folder`, where `key` names the images.

    `auto` is `rand` and `texture`, from 60 images on `pretext` if it can tell the views apart, and from 250 images of
    two classes on a `judge`. A RecipeError is raised if a judge is wanted for a single class.
    """
    count, several = len(reality.train) + len(reality.held_out), len(reality.classes) > 1
    if wanted != "auto" and "judge" in wanted and not several:
        raise RecipeError(
            f"train.extractors: judge learns to tell classes apart, but there is only {reality.classes[0]!r}; use "
            "rand or pretext"
        )
    least = {"rand": 0, "texture": 0, "pretext": MIN_IMAGES_TO_LEARN, "judge": MIN_IMAGES_FOR_JUDGE}
    possible = {name for name in FD_WEIGHTS if count >= least[name] and (name != "judge" or several)}
    found: dict[str, Extractor] = {}
    for name in FD_WEIGHTS:
        if name not in (possible if wanted == "auto" else wanted):
            continue
        extractor = _extractor(name, reality, folder, key)
        if wanted != "auto" or getattr(extractor, "usable", True):
            found[name] = extractor
    return found


@one_thread()
def _extractor(name: str, reality: ReferenceSet, folder: Path, key: str) -> Extractor:
    def make() -> Any:
        logger.info(f"learning the features of `{name}` from the images, once")
        if name == "pretext":
            return learn_views(reality.train, reality.held_out)
        labels = (reality.train_labels, reality.held_out_labels)
        return learn_labels(reality.train, labels[0], reality.held_out, labels[1], len(reality.classes))

    if name == "rand":
        return RandomFeatures.fit([to_float(part) for part in torch.split(reality.train, BATCH)])
    return TextureFeatures() if name == "texture" else cached(folder, f"{key}-{name}", make)
