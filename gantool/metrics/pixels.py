"""Comparisons of images by their pixels: pure functions, on the CPU, in float64.

Images are [N, C, H, W], -1 to 1. Each function has a worst value for images with a number that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

RANGE = 2.0  # of a pixel, from -1 to 1
WINDOW, SIGMA = 11, 1.5  # of the structural similarity, in pixels
CHUNK = 64  # images computed at a time: few enough for a processor's cache


def l1(image: Tensor, target: Tensor) -> float:
    """Compute the mean absolute difference, 0 to 2, at worst infinity."""
    return _number(_difference(image, target).abs().mean(), math.inf)


def psnr(image: Tensor, target: Tensor) -> float:
    """Compute the peak signal-to-noise ratio, 10 log10 (2^2 / mean squared difference) dB, the mean over images.

    Infinity if an image is equal to its target, at worst minus infinity.
    """
    errors = _difference(image, target).square().flatten(1).mean(1)
    return _number(10 * torch.log10(RANGE**2 / errors).mean(), -math.inf)


def ssim(image: Tensor, target: Tensor) -> float:
    """Compute the structural similarity, -1 to 1, the mean over images and channels, at worst -1.

    Wang et al. 2004, IEEE TIP 13(4), sec. III, with a Gaussian window of 11 pixels (the largest odd size that fits into
    a smaller image), sigma 1.5, K1 = 0.01 and K2 = 0.03. The image is mirrored at its borders as in torchmetrics, where
    the paper leaves the border out.
    """
    size = min(WINDOW, *image.shape[-2:])
    window = _gaussian(size - (size + 1) % 2)
    pairs = zip(torch.split(image, CHUNK), torch.split(target, CHUNK), strict=True)
    similarities = torch.cat([_similarity(some, others, window) for some, others in pairs])
    return _number(similarities.mean(), -1.0)


def _number(value: Tensor, worst: float) -> float:
    number = float(value)
    return worst if math.isnan(number) else number


def _difference(image: Tensor, target: Tensor) -> Tensor:
    return image.detach().cpu().double() - target.detach().cpu().double()


def _similarity(image: Tensor, target: Tensor, window: Sequence[float]) -> Tensor:
    """Return the structural similarity of each image and its target, [N]."""
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
    """Average over a window, first down and then across, with images mirrored at their borders."""
    # Shifted sums: in float64 far faster than a convolution.
    smoothed = pad(images, (len(weights) // 2,) * 4, mode="reflect")
    for axis in (2, 3):
        padded, size = smoothed, images.shape[axis]
        smoothed = padded.narrow(axis, 0, size) * weights[0]
        for shift, weight in enumerate(weights[1:], start=1):
            smoothed.add_(padded.narrow(axis, shift, size), alpha=weight)
    return smoothed
