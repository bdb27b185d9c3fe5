"""What data yields and models consume.

Letters in tensor shapes, here and everywhere: N images in a batch, C channels, H height, W width, D features,
L words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Labeled(NamedTuple):
    """Images, [N, C, H, W], float, -1 to 1, with the index of their class, [N], int64."""

    images: Tensor
    labels: Tensor


class Paired(NamedTuple):
    """Images, each with the image that it should become: both [N, C, H, W], float, -1 to 1."""

    source: Tensor
    target: Tensor


class Unpaired(NamedTuple):
    """Images of two kinds, both [N, C, H, W], float, -1 to 1; those in one row do not belong together."""

    a: Tensor
    b: Tensor


class TableBatch(NamedTuple):
    """Rows of a table, or sentences, with the index of their class, [N], int64.

    The inputs are the columns of each row, [N, D], float, or the numbers of a sentence's words, then 0, [N, L], int64.
    """

    inputs: Tensor
    labels: Tensor


Batch = Labeled | Paired | Unpaired | TableBatch


@dataclass(frozen=True)
class ImageSpec:
    """The shape of a dataset's images, with 1 channel or 3, and the names of its classes in the order of their labels.

    The classes of pairs are the source's and the target's; those of two kinds without pairs are both.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ("image",)

    @property
    def pixels(self) -> int:
        """Numbers in one image: channels times height times width."""
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        return (self.channels, self.height, self.width)


class Column(NamedTuple):
    """A column of a table: its name, and how its values become numbers of about unit size.

    A column of texts encodes each as its index in `categories`, which are empty for a column of numbers. Then the mean
    is subtracted and the result divided by the deviation.
    """

    name: str
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class RowSpec:
    """The columns of a table, without the class, and the names of its classes in the order of their labels."""

    columns: tuple[Column, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class TextSpec:
    """The words of a dataset of sentences, in the order of their numbers from 2: 0 is no word, and 1 any other.

    `length` is the number of words in the longest training sentence.
    """

    words: tuple[str, ...]
    length: int
    classes: tuple[str, ...]


Spec = ImageSpec | RowSpec | TextSpec


def plain(spec: Spec) -> dict[str, Any]:
    """Return a spec without its classes as the texts, numbers, lists and mappings that a checkpoint holds."""
    if isinstance(spec, RowSpec):
        return {"columns": [[name, list(kinds), mean, deviation] for name, kinds, mean, deviation in spec.columns]}
    if isinstance(spec, TextSpec):
        return {"words": list(spec.words), "length": spec.length}
    return {"channels": spec.channels, "height": spec.height, "width": spec.width}


def spec_of(values: Mapping[str, Any], classes: tuple[str, ...]) -> Spec:
    """Return the spec that `plain` wrote."""
    if "columns" in values:
        columns = (Column(name, tuple(kinds), mean, deviation) for name, kinds, mean, deviation in values["columns"])
        return RowSpec(tuple(columns), classes)
    if "words" in values:
        return TextSpec(tuple(values["words"]), values["length"], classes)
    return ImageSpec(**values, classes=classes)
