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
    """Images with the index of their class.

    Shape:
        images: [N, C, H, W], float, -1 to 1. labels: [N], int64, 0 to classes - 1.
    """

    images: Tensor
    labels: Tensor


class Paired(NamedTuple):
    """Images, each with the image that it should become.

    Shape:
        source, target: [N, C, H, W], float, -1 to 1.
    """

    source: Tensor
    target: Tensor


class Unpaired(NamedTuple):
    """Images of two kinds; those in one row do not belong together.

    Shape:
        a, b: [N, C, H, W], float, -1 to 1.
    """

    a: Tensor
    b: Tensor


class TableBatch(NamedTuple):
    """Rows of a table, or sentences, with the index of their class.

    Shape:
        inputs: [N, D], float, the columns of each row; or [N, L], int64, the numbers of a sentence's words, then 0.
        labels: [N], int64, 0 to classes - 1.
    """

    inputs: Tensor
    labels: Tensor


Batch = Labeled | Paired | Unpaired | TableBatch


@dataclass(frozen=True)
class ImageSpec:
    """The shape of a dataset's images.

    Args:
        channels: 1 for grey, 3 for colour.
        height: of every image, in pixels.
        width: of every image, in pixels.
        classes: the names of the classes, in the order of their labels. For pairs, the source's and the target's; for
            two kinds without pairs, both.
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
    """A column of a table, and how its values become numbers of about unit size.

    Args:
        name: as in the head of the table.
        categories: the texts that it may hold, each encoded by its index; empty for a column of numbers.
        mean: is subtracted.
        deviation: is divided by, above 0.
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
    """The vocabulary of a dataset of sentences.

    Args:
        words: in the order of their numbers, from 2; 0 is no word, and 1 any other.
        length: words in the longest sentence of the training data.
        classes: the names of the classes, in the order of their labels.
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
