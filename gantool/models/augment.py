"""Differentiable augmentation: what a discriminator is shown in place of images, real and fake alike.

Zhao et al. 2020, arXiv:2006.10738 (DiffAugment). Of few images a discriminator learns every one by heart; it cannot
if it never sees one twice. As fake images are changed in the same ways, and gradients pass through the changes, the
generator does not learn to make changed images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Augmentation = Literal["color", "translation", "cutout"]

MAX_SHIFT = 1 / 8  # of a side, by which an image is moved at the most
HOLE_SIDE = 1 / 2  # of a side, that is cut out


def augmented(images: Tensor, kinds: Sequence[Augmentation]) -> Tensor:
    """Change every image at random, each in its own way.

    Shape:
        images: [N, C, H, W], -1 to 1 -> the same.
    """
    for kind in kinds:
        images = _KINDS[kind](images)
    return images


def color(images: Tensor) -> Tensor:
    """Shift brightness by up to 0.5, multiply saturation by 0 to 2 and contrast by 0.5 to 1.5."""
    images = brightened(images, _uniform(images) - 0.5)
    images = saturated(images, 2 * _uniform(images))
    return contrasted(images, 0.5 + _uniform(images))


def translation(images: Tensor) -> Tensor:
    """Move by up to an eighth of each side; what comes in from outside is 0."""
    height, width = (_pixels(side, MAX_SHIFT) for side in images.shape[2:])
    return moved(images, _whole(images, -height, height), _whole(images, -width, width))


def cutout(images: Tensor) -> Tensor:
    """Set a square of half of each side to 0, anywhere, also in part outside."""
    height, width = (_pixels(side, HOLE_SIDE) for side in images.shape[2:])
    top = _whole(images, 0, images.shape[2] - height % 2) - height // 2
    left = _whole(images, 0, images.shape[3] - width % 2) - width // 2
    return cut(images, top, left, height, width)


_KINDS: dict[str, Callable[[Tensor], Tensor]] = {change.__name__: change for change in (color, translation, cutout)}


def brightened(images: Tensor, by: Tensor) -> Tensor:
    """Add a number to every pixel.

    Shape:
        images: [N, C, H, W]. by: [N, 1, 1, 1].
    """
    return images + by


def saturated(images: Tensor, times: Tensor) -> Tensor:
    """Multiply each pixel's distance from its own grey; shapes as `brightened`."""
    grey = images.mean(dim=1, keepdim=True)
    return grey + (images - grey) * times


def contrasted(images: Tensor, times: Tensor) -> Tensor:
    """Multiply each number's distance from its image's mean; shapes as `brightened`."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * times


def moved(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move each image by whole pixels; what comes in from outside is 0.

    Shape:
        images: [N, C, H, W]. down, right: [N, 1], int64.
    """
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) - down  # of the image, for each row of the moved one: [N, H]
    columns = torch.arange(width, device=images.device) - right
    from_rows = rows.clamp(0, height - 1)[:, None, :, None].expand(count, channels, height, width)
    from_columns = columns.clamp(0, width - 1)[:, None, None, :].expand(count, channels, height, width)
    inside = _crossed((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    return images.gather(2, from_rows).gather(3, from_columns) * inside


def cut(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Set a rectangle of each image to 0, as far as it is inside.

    Shape:
        images: [N, C, H, W]. top, left: [N, 1], int64.
    """
    rows = torch.arange(images.shape[2], device=images.device) - top
    columns = torch.arange(images.shape[3], device=images.device) - left
    return images * ~_crossed((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))


def _crossed(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels in both a marked row and a marked column: [N, H] and [N, W] to [N, 1, H, W]."""
    return rows[:, None, :, None] & columns[:, None, None, :]


def _uniform(images: Tensor) -> Tensor:
    """Draw one number of 0 to 1 for each image: [N, 1, 1, 1]."""
    return torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)


def _whole(images: Tensor, low: int, high: int) -> Tensor:
    """Draw one whole number for each image, `low` and `high` among them: [N, 1]."""
    return torch.randint(low, high + 1, (len(images), 1), device=images.device)


def _pixels(side: int, share: float) -> int:
    """Return a share of a side in pixels."""
    return int(side * share + 0.5)
