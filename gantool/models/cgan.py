"""Conditional GAN of two multilayer perceptrons. Mirza and Osindero 2014, arXiv:1411.1784."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gantool.batches import ImageSpec
from gantool.models.base import ConditionalGAN
from gantool.models.blocks import ClassLinear
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count


class CGAN(ConditionalGAN):
    """Both players see the class, as an embedding beside their input.

    Args:
        latent_dim: numbers in a latent, and in the generator's embedding of a class.
    """

    def __init__(self, data: ImageSpec, loss: Adversarial, *, latent_dim: Count = 100) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        self.generator = Generator(data, latent_dim)
        self.discriminator = Discriminator(data)


class Generator(nn.Module):
    """Latents [N, latent_dim] and labels [N] to images [N, C, H, W], -1 to 1."""

    def __init__(self, data: ImageSpec, latent_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(data.classes), latent_dim)
        self.layers = nn.Sequential(
            nn.Linear(2 * latent_dim, 128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, data.pixels),
            nn.Tanh(),
            nn.Unflatten(1, data.shape),
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.layers(torch.cat([self.embedding(labels), latents], dim=1))  # [N, 2 * latent_dim]


class Discriminator(nn.Module):
    """Images [N, C, H, W] and labels [N] to logits [N, 1]."""

    def __init__(self, data: ImageSpec) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(data.classes), data.pixels)
        self.flatten = nn.Flatten()
        self.layers = nn.Sequential(
            nn.Linear(2 * data.pixels, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        if images.device.type == "cpu" and not first._forward_hooks:  # `gantool shapes` sees every layer
            # The embedding's half of the first layer is the same for all images of a class.
            hidden = ClassLinear.apply(self.flatten(images), labels, self.embedding.weight, first.weight, first.bias)
            return self.layers[1:](hidden)
        return self.layers(torch.cat([self.embedding(labels), self.flatten(images)], dim=1))  # [N, 2 * pixels]
