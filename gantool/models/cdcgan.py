"""Conditional GAN of convolutions: Mirza and Osindero 2014, arXiv:1411.1784, on the networks of `dcgan`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gantool.batches import ImageSpec
from gantool.models.base import ConditionalGAN
from gantool.models.blocks import (
    Convolution,
    Convolutions,
    check_ends,
    downsampling_layers,
    init_generator,
    upsampling_layers,
)
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count, Fraction


class CDCGAN(ConditionalGAN):
    """Both players see the class: the generator beside its latent, the discriminator as one more channel of the image.

    The class takes few numbers beside a latent. If it took as many, the generator would depend on little else and make
    one image of each class (docs/measured.md).

    Args:
        latent_dim: numbers in a latent.
        embedding_dim: numbers that stand for a class beside a latent.
        generator: the transposed convolutions; BatchNorm and ReLU follow all but the last, Tanh the last.
        discriminator: the convolutions; LeakyReLU 0.2 and dropout follow all but the last, BatchNorm stands before
            each LeakyReLU but the first.
        dropout: share of the discriminator's hidden activations that is dropped.
    """

    def __init__(
        self,
        data: ImageSpec,
        loss: Adversarial,
        *,
        latent_dim: Count = 100,
        embedding_dim: Count = 10,
        generator: Convolutions,
        discriminator: Convolutions,
        dropout: Fraction = 0.25,
    ) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        check_ends(data, generator, discriminator)
        self.generator = Generator(data, latent_dim, embedding_dim, generator)
        self.discriminator = Discriminator(data, discriminator, dropout)
        self.generator.apply(init_generator)


class Generator(nn.Module):
    """Latents [N, latent_dim] and labels [N] to images [N, C, H, W], -1 to 1."""

    def __init__(self, data: ImageSpec, latent_dim: int, embedding_dim: int, convolutions: list[Convolution]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(data.classes), embedding_dim)
        self.layers = nn.Sequential(*upsampling_layers(latent_dim + embedding_dim, convolutions))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.layers(torch.cat([latents, self.embedding(labels)], dim=1))  # [N, latent_dim + embedding_dim]


class Discriminator(nn.Module):
    """Images [N, C, H, W] and labels [N] to logits [N, 1]."""

    def __init__(self, data: ImageSpec, convolutions: list[Convolution], dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(data.classes), data.height * data.width)
        self.unflatten = nn.Unflatten(1, (1, data.height, data.width))
        self.layers = nn.Sequential(*downsampling_layers(data.channels + 1, convolutions, norm=True, dropout=dropout))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        channel = self.unflatten(self.embedding(labels))  # [N, 1, H, W]
        return self.layers(torch.cat([images, channel], dim=1))  # [N, C + 1, H, W]
