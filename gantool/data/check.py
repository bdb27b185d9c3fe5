"""Look at every image of a source at its own size, and report what is in it and what is odd: `gantool data check`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantool.data import decode
from gantool.data.sources.images import ImageSource, SourceImage
from gantool.data.survey import Findings, Survey


class Report(NamedTuple):
    """What is in a source.

    Args:
        findings: what is odd about its images, and the number of images of each class.
        sizes: how many images have each size, such as "64x48" (width and height), the most frequent first.
        modes: how many have each format and mode, the most frequent first.
        unreadable: name and reason of each image that cannot be read.
        partly: name of each file that is used in part, and what is not used.
        ignored: files and folders that are left out, each with the reason.
    """

    findings: Findings
    sizes: dict[str, int]
    modes: dict[str, int]
    unreadable: list[tuple[str, str]]
    partly: list[tuple[str, str]]
    ignored: list[tuple[str, str]]

    def entry(self) -> dict[str, Any]:
        """Return it as plain values."""
        rest = self._asdict()
        return rest.pop("findings")._asdict() | rest


def check(source: ImageSource, root: Path, classes: Sequence[str]) -> Report:
    """Read every image of these classes.

    Args:
        source: of the images.
        root: the data directory.
        classes: those to look at.
    """
    survey, sizes, modes = Survey(), Counter[str](), Counter[str]()
    unreadable, partly = [], []
    for item in source.items(root, classes):
        try:
            pixels, mode, mark, unused = _read(item)
        except decode.Unreadable as error:
            unreadable.append((item.name, error.reason))
            continue
        survey.add(item.name, item.class_name, pixels, mark)
        sizes[f"{pixels.shape[1]}x{pixels.shape[0]}"] += 1
        modes[mode] += 1
        if unused:
            partly.append((item.name, unused))
    found = survey.findings()
    found = found._replace(classes={name: found.classes.get(name, 0) for name in classes})
    return Report(
        found, dict(sizes.most_common()), dict(modes.most_common()), unreadable, partly, list(source.problems)
    )


def _read(item: SourceImage) -> tuple[NDArray[np.uint8], str, bytes, str]:
    """Return pixels, format and mode, a mark that is equal for equal images, and what is not used of the file."""
    content = item.content
    if isinstance(content, str):
        raise decode.Unreadable(content)
    if isinstance(content, Path | bytes):
        pixels, _ = decode.whole(content)
        return pixels, decode.mode(content), decode.digest(content), decode.unused(content)
    pixels = content() if callable(content) else content
    mode = "array L" if pixels.ndim == 2 else "array RGB"
    return pixels, mode, hashlib.sha256(np.ascontiguousarray(pixels).data).digest(), ""
