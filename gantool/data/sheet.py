"""Contact sheets of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gantool import images
from gantool.data.loader import Dataset

COLUMNS = 8
MAX_CLASSES = 12  # on one sheet
MAX_PAIRS = 8


def contact_sheet(store: Dataset, path: Path, *, rendered: bool) -> None:
    """Draw a row of images of each class, above its name and its number of images, which may be `rendered` ones."""
    rows: list[int] = []
    captions: list[str] = []
    for label, name in enumerate(store.spec.classes[:MAX_CLASSES]):
        own = np.flatnonzero(store.labels == label)
        rows += (_spread(own, COLUMNS).tolist() * COLUMNS)[:COLUMNS]
        captions += [name, f"{len(own):,} {'rendered' if rendered else 'images'}"] + [""] * (COLUMNS - 2)
    _save(store, rows, captions, path)


def pair_sheet(store: Dataset, path: Path) -> None:
    """Draw up to eight pairs, each target beside its source, above the names of their classes."""
    chosen = 2 * _spread(np.arange(len(store) // 2), MAX_PAIRS)
    rows = np.stack((chosen, chosen + 1), 1).ravel().tolist()
    _save(store, rows, [store.spec.classes[label] for label in store.labels[rows]], path)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]


def _save(store: Dataset, rows: Sequence[int], captions: Sequence[str], path: Path) -> None:
    samples = images.to_float(torch.from_numpy(store.inputs[rows]))
    images.save(images.grid(samples, columns=COLUMNS, captions=captions), path)
