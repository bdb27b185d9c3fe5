"""What is odd about images: duplicates, near-duplicates, images of one colour, and classes with one image.

The rule for near-duplicates: both images are reduced to 9x8 grey values by averaging. Each value is compared with the
one to its right: 64 bits say whether that is brighter by more than 2 of 255 (a difference hash). Two images are
near-duplicates if at most 3 of these bits differ, and if the grey values differ by at most 3 of 255 on average. Of more
than 20,000 images only those whose bits are all equal are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gantool.terminal import several

MAX_COMPARED = 20_000  # images that are all compared with each other
MAX_BITS, MAX_DIFFERENCE, CONTRAST = 3, 3.0, 2
ONE_COLOUR = 8  # of 255; an image whose values differ by less is nearly constant
_SIDES = (9, 8)
_BLOCK = 256  # images that are compared with all others at once


class Findings(NamedTuple):
    """What is odd about images. All images are named.

    Args:
        classes: the number of images of each class.
        duplicates: groups of images whose files, or pixels in an array, are equal.
        near_duplicates: pairs of images by the rule above.
        constant: images whose values differ by less than 8 of 255.
    """

    classes: dict[str, int]
    duplicates: list[list[str]]
    near_duplicates: list[list[str]]
    constant: list[str]

    def summary(self) -> str:
        """Return the findings in one line; empty if there is none."""
        lone = [name for name, count in self.classes.items() if count == 1]
        copies = sum(len(group) - 1 for group in self.duplicates)
        parts = [
            several(copies, "exact duplicate") if copies else "",
            several(len(self.near_duplicates), "pair") + " of near-duplicates" if self.near_duplicates else "",
            several(len(self.constant), "nearly constant image") if self.constant else "",
            f"{several(len(lone), 'class')} with one image, such as {lone[0]}"
            if lone and len(self.classes) > 1
            else "",
        ]
        return ", ".join(filter(None, parts))


class Survey:
    """Takes images one by one, and finds what is odd about them together."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.class_names: list[str] = []
        self.marks: list[bytes] = []
        self.constant: list[str] = []
        self.small: list[NDArray[np.uint8]] = []

    def add(self, name: str, class_name: str, pixels: NDArray[np.uint8], mark: bytes) -> None:
        """Take an image.

        Args:
            name: the image's, for messages.
            class_name: its class.
            pixels: [H, W] or [H, W, 3].
            mark: equal for equal images.
        """
        self.names.append(name)
        self.class_names.append(class_name)
        self.marks.append(mark)
        if int(np.ptp(pixels.reshape(-1, *pixels.shape[2:]), 0).max()) < ONE_COLOUR:
            self.constant.append(name)
        grey = Image.fromarray(pixels).convert("L").resize(_SIDES, Image.Resampling.BOX)
        self.small.append(np.asarray(grey).ravel())

    def findings(self) -> Findings:
        """Return what is odd about all images so far."""
        groups: dict[bytes, list[str]] = {}
        for mark, name in zip(self.marks, self.names, strict=True):
            groups.setdefault(mark, []).append(name)
        return Findings(
            classes=dict(Counter(self.class_names)),
            duplicates=[group for group in groups.values() if len(group) > 1],
            near_duplicates=[
                [self.names[row], self.names[other]]
                for row, other in self._near()
                if self.marks[row] != self.marks[other]
            ],
            constant=self.constant,
        )

    def _near(self) -> Iterator[tuple[int, int]]:
        """Yield the rows of near-duplicates; images of one colour, which are all alike, are left out."""
        constant = set(self.constant)
        rows = np.array([row for row, name in enumerate(self.names) if name not in constant], np.int64)
        if len(rows) < 2:
            return
        grey = np.stack([self.small[row] for row in rows]).astype(np.int16)
        bits = np.diff(grey.reshape(len(rows), _SIDES[1], _SIDES[0]), axis=2) > CONTRAST
        hashes = np.packbits(bits.reshape(len(rows), -1), axis=1).view(np.uint64).ravel()
        for one, other in _candidates(hashes):
            alike = np.abs(grey[one] - grey[other]).mean(1) <= MAX_DIFFERENCE
            yield from zip(rows[one[alike]].tolist(), rows[other[alike]].tolist(), strict=True)


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the places of hashes that are near each other."""
    if len(hashes) > MAX_COMPARED:
        order = np.argsort(hashes, kind="stable")
        same = hashes[order[1:]] == hashes[order[:-1]]
        yield order[:-1][same], order[1:][same]
        return
    for start in range(0, len(hashes), _BLOCK):
        differing = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ hashes[None, start:])
        one, other = np.nonzero(differing <= MAX_BITS)
        later = other > one
        yield one[later] + start, other[later] + start
