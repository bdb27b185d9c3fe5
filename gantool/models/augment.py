"""Differentiable augmentation of the discriminator's images, real and fake. Zhao et al. 2020, arXiv:2006.10738.

A discriminator memorises a small dataset unless it sees every image changed each time. Fake images are changed in the
same ways and gradients pass through the changes, so the generator does not learn to make changed images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Augmentation = Literal["color", "translation", "cutout"]


def augmented(images: Tensor, kinds: Sequence[Augmentation]) -> Tensor:
    """Change every image at random, each in its own way: [N, C, H, W], -1 to 1."""
    for kind in kinds:
        images = _KINDS[kind](images)
    return images


def color(images: Tensor) -> Tensor:
    """Shift brightness by up to 0.5, multiply saturation by 0 to 2 and contrast by 0.5 to 1.5."""
    images = images + (_uniform(images) - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * _uniform(images))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + _uniform(images))


def translation(images: Tensor) -> Tensor:
    """Move by up to an eighth of each side; pixels from outside are 0."""
    count, channels, height, width = images.shape
    rows = _moved(images, height)  # of the image, for each row of the result: [N, H]
    columns = _moved(images, width)
    from_rows = rows.clamp(0, height - 1)[:, None, :, None].expand(count, channels, height, width)
    from_columns = columns.clamp(0, width - 1)[:, None, None, :].expand(count, channels, height, width)
    inside = _crossed((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    return images.gather(2, from_rows).gather(3, from_columns) * inside


def cutout(images: Tensor) -> Tensor:
    """Set a square of half of each side to 0, anywhere, also in part outside."""
    return images * ~_crossed(_hole(images, images.shape[2]), _hole(images, images.shape[3]))


_KINDS: dict[str, Callable[[Tensor], Tensor]] = {change.__name__: change for change in (color, translation, cutout)}


def _moved(images: Tensor, side: int) -> Tensor:
    """Return the pixels of a side, each image's shifted by its own whole number: [N, side]."""
    most = (side + 4) // 8
    shift = torch.randint(-most, most + 1, (len(images), 1), device=images.device)
    return torch.arange(side, device=images.device) - shift


def _hole(images: Tensor, side: int) -> Tensor:
    """Return which pixels of a side a hole of half of it covers, anywhere in each image: [N, side]."""
    size = (side + 1) // 2
    middle = torch.randint(0, side - size % 2 + 1, (len(images), 1), device=images.device)
    pixels = torch.arange(side, device=images.device) - (middle - size // 2)
    return (pixels >= 0) & (pixels < size)


def _crossed(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels in both a marked row and a marked column: [N, H] and [N, W] to [N, 1, H, W]."""
    return rows[:, None, :, None] & columns[:, None, None, :]


def _uniform(images: Tensor) -> Tensor:
    """Draw one number of 0 to 1 for each image: [N, 1, 1, 1]."""
    return torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
