"""An image on the way from its source to the store, and the two that stand side by side in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantool.data import decode


class SourceImage(NamedTuple):
    """An image as its source has it.

    Args:
        name: for messages.
        class_name: the class that it belongs to.
        content: pixels, uint8 [H, W] or [H, W, 3], or the file that holds them.
    """

    name: str
    class_name: str
    content: NDArray[np.uint8] | Path


SIDES = ("A", "B")  # what the left and the right half of a side-by-side image are called


def side_by_side(name: str, file: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Return the halves of a file, decoded now, in the order of `classes`, which are some of SIDES.

    Of a file that cannot be read both are the file itself, so that its next reader says why.
    """
    try:
        contents: tuple[NDArray[np.uint8] | Path, ...] = decode.halves(file)
    except decode.Unreadable:
        contents = (file, file)
    for class_name in classes:
        yield SourceImage(name, class_name, contents[SIDES.index(class_name)])
