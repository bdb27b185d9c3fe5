"""A contact sheet: what a dataset looks like, at a glance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gantool import images
from gantool.data.loader import Dataset

COLUMNS = 8
MAX_CLASSES = 12  # on one sheet
MAX_PAIRS = 8


def contact_sheet(store: Dataset, path: Path, *, rendered: bool) -> None:
    """Draw a row of images of each class, with its name and how many it has.

    Args:
        store: the dataset.
        path: the image to write.
        rendered: whether the images were drawn by a program, which the captions then say.
    """
    rows: list[int] = []
    captions: list[str] = []
    for label, name in enumerate(store.spec.classes[:MAX_CLASSES]):
        own = np.flatnonzero(store.labels == label)
        chosen = own[np.linspace(0, len(own) - 1, min(COLUMNS, len(own))).round().astype(int)].tolist()
        kind = "rendered" if rendered else "images"
        rows += (chosen * COLUMNS)[:COLUMNS]
        captions += [name, f"{len(own):,} {kind}"] + [""] * (COLUMNS - 2)
    samples = torch.from_numpy(store.inputs[rows].astype(np.float32)) / 127.5 - 1
    images.save(images.grid(samples, columns=COLUMNS, captions=captions), path)


def pair_sheet(store: Dataset, path: Path) -> None:
    """Draw eight pairs, or all where there are fewer: each target beside its source, under both their classes' names.

    Args:
        store: the dataset; row 2i is the source of pair i, and row 2i + 1 its target.
        path: the image to write.
    """
    count = len(store) // 2
    chosen = np.linspace(0, count - 1, min(MAX_PAIRS, count)).round().astype(int)
    rows = np.stack((2 * chosen, 2 * chosen + 1), 1).ravel()
    captions = [store.spec.classes[label] for label in store.labels[rows]]
    samples = torch.from_numpy(store.inputs[rows].astype(np.float32)) / 127.5 - 1
    images.save(images.grid(samples, columns=COLUMNS, captions=captions), path)
