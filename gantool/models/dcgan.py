"""Deep convolutional GAN with the recipe's own convolutions. Radford et al. 2016, arXiv:1511.06434."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from annotated_types import Interval, MinLen
from torch import nn

from gantool.batches import DataSpec
from gantool.errors import RecipeError
from gantool.losses import Adversarial
from gantool.models.base import NoiseModel
from gantool.models.blocks import ConvTranspose2d, Dropout
from gantool.schema import Count, Fraction

Padding = Annotated[int, Interval(ge=0, le=64)]
Convolution = tuple[Count, Count, Count, Padding]
"""Channels, kernel, stride, padding."""
Convolutions = Annotated[list[Convolution], MinLen(1)]


class DCGAN(NoiseModel):
    """Transposed convolutions from a latent of 1x1 pixels up to an image, convolutions from it down to one score.

    Departs from the paper: dropout in the discriminator, which starts as torch does, and the recipe's own layers.

    Args:
        data: channels and size of the images.
        loss: the adversarial loss.
        latent_dim: numbers in a latent.
        generator: the transposed convolutions; BatchNorm and ReLU follow all but the last, Tanh the last.
        discriminator: the convolutions; LeakyReLU 0.2 and dropout follow all but the last, BatchNorm stands before
            each LeakyReLU but the first.
        dropout: share of the discriminator's hidden activations that is dropped.

    Raises:
        RecipeError: the last transposed convolution has not the data's channels, or the last convolution not one.
    """

    def __init__(
        self,
        data: DataSpec,
        loss: Adversarial,
        *,
        latent_dim: Count = 100,
        generator: Convolutions,
        discriminator: Convolutions,
        dropout: Fraction = 0.25,
    ) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        if generator[-1][0] != data.channels:
            raise RecipeError(
                f"model.generator: the last layer makes {generator[-1][0]} channels, but the data's images have "
                f"{data.channels}; change its first number, or data.channels"
            )
        if discriminator[-1][0] != 1:
            raise RecipeError(
                f"model.discriminator: the last layer makes {discriminator[-1][0]} channels, but a score is 1 number; "
                "change its first number to 1"
            )
        self.generator = nn.Sequential(nn.Unflatten(1, (latent_dim, 1, 1)), *_grow(latent_dim, generator), nn.Tanh())
        self.discriminator = nn.Sequential(*_shrink(data.channels, discriminator, dropout), nn.Flatten())
        self.generator.apply(_start)


def _grow(channels: int, convolutions: Sequence[Convolution]) -> Iterator[nn.Module]:
    for index, (width, kernel, stride, padding) in enumerate(convolutions):
        yield ConvTranspose2d(channels, width, kernel, stride, padding)
        if index < len(convolutions) - 1:
            yield nn.BatchNorm2d(width)
            yield nn.ReLU()
        channels = width


def _shrink(channels: int, convolutions: Sequence[Convolution], dropout: float) -> Iterator[nn.Module]:
    for index, (width, kernel, stride, padding) in enumerate(convolutions):
        yield nn.Conv2d(channels, width, kernel, stride, padding)
        if index < len(convolutions) - 1:
            if index:
                yield nn.BatchNorm2d(width)
            yield nn.LeakyReLU(0.2)
            yield Dropout(dropout)
        channels = width


def _start(module: nn.Module) -> None:
    """Start the generator's convolutions from a normal distribution of deviation 0.02 (sec. 4).

    From torch's own start the discriminator wins before the generator has learned to make smooth pictures. The paper
    starts the discriminator so too; these small ones then answer 0.5 for long (docs/measured.md).
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
