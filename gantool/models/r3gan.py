"""Residual networks without normalisation, for a relativistic loss. Huang et al. 2024, arXiv:2501.05441 (R3GAN)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gantool.batches import DataSpec
from gantool.errors import RecipeError
from gantool.losses import Adversarial
from gantool.models.base import NoiseModel
from gantool.models.blocks import ConvTranspose2d
from gantool.schema import Count

SLOPE = 0.2  # of every LeakyReLU


class R3GAN(NoiseModel):
    """Residual blocks and bilinear resampling up to an image, and the mirror of it down to one score (sec. 3.4).

    Nothing is normalised: what keeps the signal's size is that each block starts as the identity. The loss that
    belongs to it is `relativistic` with `r1` and `r2` (sec. 3.1). Departs from the paper: the discriminator shrinks by
    means of 2x2 pixels, the generator ends in Tanh, and with a `patch` the largest images have no blocks.

    Args:
        data: channels and size of the images.
        loss: the adversarial loss.
        latent_dim: numbers in a latent.
        channels: widths, from the smallest images to the largest; each is for images twice as large.
        blocks: residual blocks for each width.
        patch: pixels on a side of the image for each pixel of the last width's images; 1 as in the paper, 2 saves more
            than half of the work.
        expansion: how many times wider a block is inside.
        group: channels that a block's 3x3 convolution mixes, at the most; more groups are quicker.

    Raises:
        RecipeError: the data's sides cannot be halved so often.
    """

    def __init__(
        self,
        data: DataSpec,
        loss: Adversarial,
        *,
        latent_dim: Count = 64,
        channels: Annotated[list[Count], MinLen(1)],
        blocks: Count = 1,
        patch: Literal[1, 2, 4] = 1,
        expansion: Count = 2,
        group: Count = 16,
    ) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        height, width = _smallest(data, len(channels), patch)
        ends = (1, 1, 0) if patch == 1 else (2 * patch, patch, patch // 2)  # kernel, stride, padding
        count = len(channels) * blocks  # residual blocks in a network

        def stage(width: int) -> Iterator[nn.Module]:
            yield from (Residual(width, expansion, group, count) for _ in range(blocks))

        self.generator = nn.Sequential(
            nn.Linear(latent_dim, channels[0]),
            Basis(channels[0], height, width),
            *_grow(channels, stage),
            ConvTranspose2d(channels[-1], data.channels, *ends),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(data.channels, channels[-1], *ends),
            *_shrink(channels[::-1], stage),
            nn.Conv2d(channels[0], channels[0], (height, width), groups=channels[0], bias=False),
            nn.Flatten(),
            nn.Linear(channels[0], 1),
        )


def _smallest(data: DataSpec, widths: int, patch: int) -> tuple[int, int]:
    """Give the sides of the smallest images of a network."""
    factor = patch * 2 ** (widths - 1)
    if data.height % factor or data.width % factor:
        near = max(1, round(data.height / factor)) * factor
        raise RecipeError(
            f"model.channels: {widths} widths and patch {patch} take sides that are multiples of {factor}, not "
            f"{data.height}x{data.width}; give fewer widths, or try data.size {near}"
        )
    return data.height // factor, data.width // factor


def _grow(channels: Sequence[int], stage: Callable[[int], Iterator[nn.Module]]) -> Iterator[nn.Module]:
    for index, width in enumerate(channels):
        if index:
            # The paper resamples first. Of bilinear resampling and a 1x1 convolution the order changes no number.
            if width != channels[index - 1]:
                yield nn.Conv2d(channels[index - 1], width, 1, bias=False)
            yield Up()
        yield from stage(width)


def _shrink(channels: Sequence[int], stage: Callable[[int], Iterator[nn.Module]]) -> Iterator[nn.Module]:
    for index, width in enumerate(channels):
        if index:
            yield nn.AvgPool2d(2)
            if width != channels[index - 1]:
                yield nn.Conv2d(channels[index - 1], width, 1, bias=False)
        yield from stage(width)


class Basis(nn.Module):
    """Learned images, of which a latent says how much there is of each. Huang et al. 2024, sec. 3.4.

    Shape:
        [N, C] -> [N, C, H, W].
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.images = nn.Parameter(torch.randn(channels, height, width))

    def forward(self, amounts: Tensor) -> Tensor:
        """Give the learned images, each as strong as it shall be."""
        return amounts[:, :, None, None] * self.images


class Up(nn.Module):
    """Images twice as large: [N, C, H, W] -> [N, C, 2H, 2W]."""

    def forward(self, images: Tensor) -> Tensor:
        """Resample bilinearly."""
        return interpolate(images, scale_factor=2, mode="bilinear")


class Residual(nn.Module):
    """x + W3 a(W2 a(W1 x)): 1x1 to more channels, 3x3 in groups, 1x1 back; `a` is LeakyReLU. Sec. 3.4.

    It starts as the identity, and its first layers the smaller the more blocks there are: fix-up, Zhang et al. 2019,
    arXiv:1901.09321, sec. 3.2, of three layers.

    Args:
        width: channels of the images.
        expansion: how many times wider the 3x3 convolution is.
        group: channels that it mixes, at the most.
        blocks: residual blocks in the network.
    """

    def __init__(self, width: int, expansion: int, group: int, blocks: int) -> None:
        super().__init__()
        inner = expansion * width
        groups = next(count for count in range(-(-inner // group), inner + 1) if inner % count == 0)
        last = nn.Conv2d(inner, width, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(
            _small(nn.Conv2d(width, inner, 1), blocks),
            nn.LeakyReLU(SLOPE),
            _small(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), blocks),
            nn.LeakyReLU(SLOPE),
            last,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Add to the images what the layers make of them."""
        return images + self.layers(images)


def _small(layer: nn.Conv2d, blocks: int) -> nn.Conv2d:
    """Start a layer of a branch that is one of so many."""
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    with torch.no_grad():
        layer.weight.mul_(blocks**-0.25)
    return layer
