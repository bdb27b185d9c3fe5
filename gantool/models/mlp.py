"""GAN of two multilayer perceptrons. Goodfellow et al. 2014, arXiv:1406.2661."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import MinLen
from torch import nn

from gantool.batches import ImageSpec
from gantool.models.base import UnconditionalGAN
from gantool.models.blocks import FastDropout
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count, Fraction

Widths = Annotated[list[Count], MinLen(1)]


class MLP(UnconditionalGAN):
    """Fully connected generator and discriminator, for images of any size.

    Args:
        latent_dim: numbers in a latent.
        generator: width of each hidden layer.
        generator_activation: after each hidden layer; `leaky_relu` has slope 0.2.
        discriminator: width of each hidden layer, each followed by LeakyReLU 0.2 and dropout.
        dropout: share of the discriminator's hidden activations that is dropped.
    """

    def __init__(
        self,
        data: ImageSpec,
        loss: Adversarial,
        *,
        latent_dim: Count = 100,
        generator: Widths = [256, 512, 1024],  # noqa: B006  read only; a tuple would not be YAML
        generator_activation: Literal["relu", "leaky_relu"] = "relu",
        discriminator: Widths = [1024, 512, 256],  # noqa: B006
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        self.generator = nn.Sequential(
            *_generator([latent_dim, *generator], leaky=generator_activation == "leaky_relu"),
            nn.Linear(generator[-1], data.pixels),
            nn.Tanh(),
            nn.Unflatten(1, data.shape),
        )
        self.discriminator = nn.Sequential(
            nn.Flatten(),
            *_discriminator([data.pixels, *discriminator], dropout),
            nn.Linear(discriminator[-1], 1),
        )


def _generator(widths: Sequence[int], *, leaky: bool) -> Iterator[nn.Module]:
    for inputs, outputs in pairwise(widths):
        yield nn.Linear(inputs, outputs)
        yield nn.LeakyReLU(0.2) if leaky else nn.ReLU()


def _discriminator(widths: Sequence[int], dropout: float) -> Iterator[nn.Module]:
    for inputs, outputs in pairwise(widths):
        yield nn.Linear(inputs, outputs)
        yield nn.LeakyReLU(0.2)
        if dropout:
            yield FastDropout(dropout)
