"""A contact sheet: what a dataset looks like, at a glance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gantool import images
from gantool.data.store import Store

COLUMNS = 8
CLASSES = 12  # on one sheet


def contact_sheet(store: Store, path: Path, *, rendered: bool) -> None:
    """Draw a row of pictures of each class, with its name and how many it has.

    Args:
        store: the dataset.
        path: the picture to write.
        rendered: whether the pictures were drawn by a program, which the captions then say.
    """
    rows: list[int] = []
    captions: list[str] = []
    for label, name in enumerate(store.spec.classes[:CLASSES]):
        own = np.flatnonzero(store.labels == label)
        chosen = own[np.linspace(0, len(own) - 1, min(COLUMNS, len(own))).round().astype(int)].tolist()
        kind = "rendered" if rendered else "pictures"
        rows += (chosen * COLUMNS)[:COLUMNS]
        captions += [name, f"{len(own):,} {kind}"] + [""] * (COLUMNS - 2)
    pictures = torch.from_numpy(store.images[rows].astype(np.float32)) / 127.5 - 1
    images.save(images.grid(pictures, columns=COLUMNS, captions=captions), path)
