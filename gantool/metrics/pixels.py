"""Comparisons of pictures by their pixels: pure functions, on the CPU, in float64.

Pictures are [N, C, H, W], -1 to 1. Those with a number that is not finite get the worst value that there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

RANGE = 2.0  # of a pixel, from -1 to 1
SMALLEST = 16  # pixels on the shorter side of a pyramid's smallest level
PATCHES, PATCH = 16, 7  # a picture and level; pixels on a side
REPEATS, DIRECTIONS = 4, 128
FLAT_DEVIATION = 1e-3  # the deviation below which a channel counts as constant: 8 bits have steps of 8e-3
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
WINDOW, SIGMA = 11, 1.5  # of the structural similarity, in pixels
CHUNK = 64  # pictures worked on at a time: few enough for a processor's cache


def sliced_wasserstein(real: Tensor, fake: Tensor, *, seed: int = 0) -> float:
    """Distance of small patches' distributions, over all scales. Karras et al. 2018, arXiv:1710.10196, sec. 5.

    Each picture becomes a Laplacian pyramid, each level 16 patches of 7x7 pixels at random places, and patches are
    compared along 4 x 128 random directions: the mean distance of the values there, sorted. The mean over levels is
    multiplied by 1000, as in the paper.

    Unlike in the paper, where each set is normalised by its own mean and deviation of each channel, both are by the
    real set's: the other way a picture with half the contrast, or in other colours, would be as good as a real one.
    Fewer patches a picture than the paper's 128 make the value of two real sets higher: compare equal numbers of
    pictures only. Infinity where a number is not finite.

    Args:
        real: real pictures.
        fake: generated pictures, of the same size. As many of each are compared as the smaller set has: the first ones.
        seed: of places and directions; places are the same in both sets.
    """
    count = min(len(real), len(fake))
    real, fake = real[:count].detach().cpu(), fake[:count].detach().cpu()
    if not (real.isfinite().all() and fake.isfinite().all()):
        return math.inf
    directions = torch.Generator().manual_seed(seed)
    levels = zip(_patches(real, seed), _patches(fake, seed), strict=True)
    distances = [_sliced(*_normalised(some, others), directions) for some, others in levels]
    return 1e3 * math.fsum(distances) / len(distances)


def l1(image: Tensor, target: Tensor) -> float:
    """Mean absolute difference, 0 to 2; infinity where a number is not finite."""
    return _number(_difference(image, target).abs().mean(), math.inf)


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, 10 log10 (2^2 / mean squared difference), the mean over pictures.

    Infinity where a picture is equal to its target, minus infinity where a number is not finite.
    """
    errors = _difference(image, target).square().flatten(1).mean(1)
    return _number(10 * torch.log10(RANGE**2 / errors).mean(), -math.inf)


def ssim(image: Tensor, target: Tensor) -> float:
    """Structural similarity, -1 to 1, the mean over pictures and channels. Wang et al. 2004, IEEE TIP 13(4), sec. III.

    A Gaussian window of 11 pixels with sigma 1.5 (the largest odd size that fits into a smaller picture), K1 = 0.01 and
    K2 = 0.03. Windows at the border see the picture mirrored there, as torchmetrics has it; the paper leaves them out.
    -1 where a number is not finite.
    """
    size = min(WINDOW, *image.shape[-2:])
    window = _gaussian(size - (size + 1) % 2)
    pairs = zip(torch.split(image, CHUNK), torch.split(target, CHUNK), strict=True)
    similarities = torch.cat([_similarity(some, others, window) for some, others in pairs])
    return _number(similarities.mean(), -1.0)


def _number(value: Tensor, worst: float) -> float:
    """Return the number, or the worst there is where it is none."""
    number = float(value)
    return worst if math.isnan(number) else number


def _difference(image: Tensor, target: Tensor) -> Tensor:
    return image.detach().cpu().double() - target.detach().cpu().double()


def _similarity(image: Tensor, target: Tensor, window: Sequence[float]) -> Tensor:
    """Return the structural similarity of each picture and its target, [N]."""
    image, target = image.detach().cpu().double(), target.detach().cpu().double()
    one, other = _smooth(image, window), _smooth(target, window)
    squares = one.square() + other.square()
    variances = _smooth(image.square() + target.square(), window) - squares
    covariance = _smooth(image * target, window) - one * other
    small, tiny = (0.03 * RANGE) ** 2, (0.01 * RANGE) ** 2
    luminance = (2 * one * other + tiny) / (squares + tiny)
    structure = (2 * covariance + small) / (variances.clamp_min(0) + small)
    return (luminance * structure).flatten(1).mean(1)


def _gaussian(size: int) -> list[float]:
    """Return the weights of a Gaussian window of `size` pixels, which add up to 1."""
    weights = [math.exp(-((place - size // 2) ** 2) / (2 * SIGMA**2)) for place in range(size)]
    return [weight / math.fsum(weights) for weight in weights]


def _smooth(images: Tensor, weights: Sequence[float]) -> Tensor:
    """Average over a window, first down and then across, with pictures mirrored at their borders."""
    # Shifted sums: in float64 far faster than a convolution.
    smoothed = pad(images, (len(weights) // 2,) * 4, mode="reflect")
    for axis in (2, 3):
        padded, size = smoothed, images.shape[axis]
        smoothed = padded.narrow(axis, 0, size) * weights[0]
        for shift, weight in enumerate(weights[1:], start=1):
            smoothed.add_(padded.narrow(axis, shift, size), alpha=weight)
    return smoothed


def _pyramid(images: Tensor) -> list[Tensor]:
    """Split pictures into what each scale adds, the finest first; the last level is the small picture that is left."""
    levels = []
    while (min(images.shape[-2:]) + 1) // 2 >= SMALLEST:
        smaller = _smooth(images, BINOMIAL)[..., ::2, ::2]
        spread = torch.zeros_like(images)
        spread[..., ::2, ::2] = 4 * smaller  # of four pixels three are 0 before smoothing
        levels.append(images - _smooth(spread, BINOMIAL))
        images = smaller
    return [*levels, images]


def _patches(images: Tensor, seed: int) -> list[Tensor]:
    """Cut 16 patches from each level of each picture: [N, C, H, W] -> [16 N, C, 7, 7] for each level."""
    generator = torch.Generator().manual_seed(seed)
    chunks = [[_cut(level, generator) for level in _pyramid(chunk.double())] for chunk in torch.split(images, CHUNK)]
    return [torch.cat(level) for level in zip(*chunks, strict=True)]


def _cut(images: Tensor, generator: torch.Generator) -> Tensor:
    height, width = (min(PATCH, side) for side in images.shape[-2:])
    windows = images.unfold(2, height, 1).unfold(3, width, 1)
    top, left = (torch.randint(many, (len(images), PATCHES), generator=generator) for many in windows.shape[2:4])
    return windows[torch.arange(len(images))[:, None], :, top, left].flatten(0, 1)


def _normalised(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Scale both sets of patches by the real one's mean and deviation of each channel: [P, C, 7, 7] -> [P, 49 C]."""
    mean = real.mean((0, 2, 3), keepdim=True)
    deviation = real.std((0, 2, 3), correction=0, keepdim=True).clamp_min(FLAT_DEVIATION)
    return ((real - mean) / deviation).flatten(1), ((fake - mean) / deviation).flatten(1)


def _sliced(real: Tensor, fake: Tensor, generator: torch.Generator) -> float:
    """Return the mean Wasserstein-1 distance along random directions: [P, D] and [P, D] -> number."""
    distances = []
    for _ in range(REPEATS):
        directions = torch.randn(DIRECTIONS, real.shape[1], generator=generator, dtype=torch.float64)
        directions /= directions.norm(dim=1, keepdim=True)
        # NumPy sorts ten times as fast as torch.
        one, other = (np.sort((directions @ patches.T).numpy(), axis=1) for patches in (real, fake))
        distances.append(float(np.abs(one - other).mean()))
    return math.fsum(distances) / REPEATS
