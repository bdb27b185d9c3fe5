"""What data yield and models consume: the one vocabulary that both sides share.

Letters in tensor shapes, here and everywhere: N images in a batch, C channels, H height, W width, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Labeled(NamedTuple):
    """Images with the index of each one's class.

    Shape:
        images: [N, C, H, W], float, -1 to 1. labels: [N], int64, 0 to classes - 1.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class DataSpec:
    """What a model is told about its data before it sees any.

    Args:
        channels: 1 for grey, 3 for colour.
        height: of every image, in pixels.
        width: of every image, in pixels.
        classes: the names of the classes, in the order of their labels.
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
