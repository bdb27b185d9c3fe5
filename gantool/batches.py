"""What data yield and models consume: the one vocabulary that both sides share.

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
    """Images with the index of each one's class.

    Shape:
        images: [N, C, H, W], float, -1 to 1. labels: [N], int64, 0 to classes - 1.
    """

    images: Tensor
    labels: Tensor


class Paired(NamedTuple):
    """Images and what each one is to become.

    Shape:
        source, target: [N, C, H, W], float, -1 to 1.
    """

    source: Tensor
    target: Tensor


class Unpaired(NamedTuple):
    """Images of two kinds; those in one row have nothing to do with each other.

    Shape:
        a, b: [N, C, H, W], float, -1 to 1.
    """

    a: Tensor
    b: Tensor


class TableBatch(NamedTuple):
    """Rows of a table, or sentences, with the index of each one's class.

    Shape:
        inputs: [N, D], float, a row's columns; or [N, L], int64, the numbers of a sentence's words, 0 where it is over.
        labels: [N], int64, 0 to classes - 1.
    """

    inputs: Tensor
    labels: Tensor


Batch = Labeled | Paired | Unpaired | TableBatch


@dataclass(frozen=True)
class ImageSpec:
    """What a model is told about its images before it sees any.

    Args:
        channels: 1 for grey, 3 for colour.
        height: of every image, in pixels.
        width: of every image, in pixels.
        classes: the names of the classes, in the order of their labels. Of pairs, the source's and the target's; of two
            kinds without pairs, both.
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
        """One image's shape, (C, H, W)."""
        return (self.channels, self.height, self.width)


class Column(NamedTuple):
    """A column of a table, and how its values become numbers of about unit size.

    Args:
        name: as in the table's head.
        categories: the texts that it may hold, each of which stands for its index; empty for a column of numbers.
        mean: what is subtracted.
        deviation: what is divided by, above 0.
    """

    name: str
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class RowSpec:
    """What a model is told about its table.

    Args:
        columns: of a row, without the class.
        classes: the names of the classes, in the order of their labels.
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class TextSpec:
    """What a model is told about its sentences.

    Args:
        words: that have a number of their own, in the order of their numbers, from 2 on: 0 is no word, and 1 any other.
        length: words in the longest sentence that it learns from.
        classes: the names of the classes, in the order of their labels.
    """

    words: tuple[str, ...]
    length: int
    classes: tuple[str, ...]


Spec = ImageSpec | RowSpec | TextSpec


def plain(spec: Spec) -> dict[str, Any]:
    """Return a spec as the texts, numbers, lists and mappings that a checkpoint holds; `classes` apart."""
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
