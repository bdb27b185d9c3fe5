"""Extractors: images to feature vectors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d

FEATURES = 64
WIDTHS = (16, 32, 64)
FILTERS = 8  # of the cosine transform on each side
VISIBLE_NOISE = 1e-3  # mean square, of pixels of -1 to 1: white noise of 4 grey levels, the least that the eye sees
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
LARGE_SIDE = 64  # pixels on a side from which the first convolution takes every second pixel: a quarter of the work


class Extractor(Protocol):
    """Turns an image into the numbers by which it is compared with others."""

    @property
    def identity(self) -> str:
        """A name and 12 hexadecimal digits of a hash of the weights, written beside every number."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images: [N, C, H, W], -1 to 1 -> [N, D], float32, on the CPU."""


@dataclass(frozen=True)
class RandomFeatures:
    """`rand`: three convolutions with fixed weights, the same numbers on every machine; nothing is trained.

    The 2x2 average pool and the spatial standard deviation after each convolution are projected to 64 numbers, which
    are scaled by the real images' mean and deviation, [64] each. Random local features rank generators about as well as
    trained ones (Naeem et al. 2020, arXiv:2002.09797).
    """

    mean: Tensor
    deviation: Tensor
    channels: int

    @classmethod
    def fit(cls, real: Sequence[Tensor]) -> RandomFeatures:
        """Scale by these real images: batches of [N, C, H, W], -1 to 1."""
        raw = torch.cat([_raw(batch) for batch in real])
        return cls(raw.mean(0), clamped(raw.std(0)), real[0].shape[1])

    @property
    def identity(self) -> str:
        """See `Extractor`."""
        return f"rand-{digest(*_kernels(self.channels), _projection())}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images: [N, C, H, W], -1 to 1 -> [N, 64], on the CPU."""
        return (_raw(images) - self.mean) / self.deviation


@dataclass(frozen=True)
class TextureFeatures:
    """`texture`: how much of each spatial frequency an image has; nothing is trained or fitted.

    The luminance is filtered with the 63 AC filters of the 8x8 discrete cosine transform (Ahmed et al. 1974, IEEE
    Trans. Comput. C-23). A feature is the logarithm of a filter's mean squared response over all positions. Noise,
    chequers, blur and JPEG blocks change these energies many times over. A shifted or mirrored image keeps them.

    Luminance only: the eye hardly resolves fine patterns of colour, and in a ranking of generators the energies of
    the colour differences agreed less with a judge of content.
    """

    @property
    def identity(self) -> str:
        """See `Extractor`."""
        return f"texture-{digest(text=repr((FILTERS, VISIBLE_NOISE, LUMINANCE)))}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images: [N, C, H, W], -1 to 1 -> [N, 63], float32, on the CPU."""
        height, width = images.shape[2:]
        luminance = images
        if images.shape[1] == 3:
            luminance = (images * images.new_tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)
        cosines = [_cosines(side).to(images) for side in (height, width)]
        gains = [_gains(side).to(images) for side in (height, width)]
        spectrum = (cosines[0] @ luminance @ cosines[1].T).square()
        energies = gains[0] @ spectrum @ gains[1].T / (height * width)  # [N, 1, 8, 8]
        return (energies.flatten(1)[:, 1:] + VISIBLE_NOISE).log().cpu()


def clamped(deviation: Tensor) -> Tensor:
    """Raise the least deviations, [D]: divided by its own, a feature that hardly varies would outweigh the rest."""
    return deviation.clamp_min(0.1 * float(deviation.median()) + 1e-6)


def digest(*weights: Tensor, text: str = "") -> str:
    """Return 12 hexadecimal digits of a hash of a text and of weights."""
    found = hashlib.sha256(text.encode())
    for values in weights:
        found.update(values.numpy().tobytes())
    return found.hexdigest()[:12]


@torch.no_grad()
def _raw(images: Tensor) -> Tensor:
    kept = []
    stride = 2 if min(images.shape[-2:]) >= LARGE_SIDE else 1
    images = images.contiguous(memory_format=torch.channels_last)  # a third quicker on the CPU
    for kernel in _kernels(images.shape[1]):
        kernel = kernel.to(images).contiguous(memory_format=torch.channels_last)
        images = conv2d(images, kernel, stride=stride, padding=1).relu_()
        kept += [adaptive_avg_pool2d(images, 2).flatten(1), images.var((2, 3), correction=0).sqrt()]
        stride = 1
        images = avg_pool2d(images, 2, ceil_mode=True)
    return (torch.cat(kept, 1) @ _projection().to(images)).cpu()


def _cosines(size: int) -> Tensor:
    """Return the orthonormal discrete cosine transform: [size, size], one frequency a row."""
    frequency, place = torch.arange(size).double()[:, None], torch.arange(size).double()
    rows = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


@cache
def _gains(size: int) -> Tensor:
    """Return the squared gain of each filter at each frequency of a mirrored signal: [8, size].

    A signal continued by its mirror image has only cosines, which a filter scales and shifts. So the mean of its
    squared response over all positions is a weighted sum of the squared cosine coefficients (Parseval).
    """
    angles = math.pi * torch.arange(size).double() / size
    waves = torch.exp(-1j * angles[:, None] * torch.arange(FILTERS))
    return (_cosines(FILTERS).to(waves.dtype) @ waves.T).abs().square()


@cache
def _kernels(channels: int) -> tuple[Tensor, ...]:
    """Return unit-norm 3x3 filters times the square root of 2, which keeps the size of activations through a ReLU."""
    kernels = []
    for layer, width in enumerate(WIDTHS):
        normal = _normal((width, channels, 3, 3), stream=layer)
        normal *= math.sqrt(2) / np.linalg.norm(normal.reshape(width, -1), axis=1).reshape(-1, 1, 1, 1)
        kernels.append(torch.from_numpy(normal.astype(np.float32)))
        channels = width
    return tuple(kernels)


@cache
def _projection() -> Tensor:
    """Return orthonormal columns: [560, 64]."""
    orthogonal, triangular = np.linalg.qr(_normal((5 * sum(WIDTHS), FEATURES), stream=100))
    # QR is unique up to signs, which libraries choose differently.
    return torch.from_numpy((orthogonal * np.sign(np.diag(triangular))).astype(np.float32))


def _normal(shape: tuple[int, ...], stream: int) -> NDArray[np.float64]:
    """Return normal numbers that no library version can change: an integer hash of their index, then Box-Muller."""
    count = math.prod(shape)
    with np.errstate(over="ignore"):
        bits = np.arange(2 * count, dtype=np.uint64) + np.uint64(stream + 1) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        bits ^= bits >> np.uint64(31)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    radius = np.sqrt(-2 * np.log(uniform[:count]))
    return np.asarray(radius * np.cos(2 * np.pi * uniform[count:])).reshape(shape)
