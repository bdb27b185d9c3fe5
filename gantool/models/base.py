"""What every model is: networks, and the game between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gantool.batches import DataSpec, Labeled
from gantool.errors import ShapeError
from gantool.losses import Adversarial


class Turn(NamedTuple):
    """One player's move: the network to update and the named losses whose sum it minimises.

    Args:
        player: a child of the model, such as its generator.
        losses: scalars, already weighted; the names go to the log as `<player>/<name>`.
        scores: scalars that are logged as `scores/<name>` and minimised by nobody.
    """

    player: nn.Module
    losses: Mapping[str, Tensor]
    scores: Mapping[str, Tensor] = {}


class Prompt(NamedTuple):
    """What a picture is made from.

    Shape:
        latents: [N, latent_dim], float. labels: [N], int64.
    """

    latents: Tensor
    labels: Tensor


class Model(nn.Module, ABC):
    """The networks and the game between them. Knows no optimizer, device, file or log.

    The keyword-only parameters of a model's constructor are the keys of its recipe block.
    """

    consumes: ClassVar[type] = Labeled
    conditional: ClassVar[bool] = False  # whether the labels of a prompt decide what a picture shows

    def __init__(self, data: DataSpec, loss: Adversarial, *, latent_dim: int) -> None:
        super().__init__()
        self.data = data
        self.loss = loss
        self.latent_dim = latent_dim

    @abstractmethod
    def play(self, batch: Labeled) -> Iterator[Turn | tuple[Turn, ...]]:
        """Play one training step.

        Each turn is applied before the generator goes on, so what follows a `yield` sees new weights. Turns that are
        yielded together are applied together: all their gradients are taken before any weight changes.
        """

    @abstractmethod
    def sample(self, prompt: Prompt) -> Tensor:
        """Make one picture of each row of a prompt: [N, C, H, W], -1 to 1."""

    @abstractmethod
    def scores(self, batch: Labeled) -> Tensor:
        """Give the discriminator's scores of images, each taken as one of its label's class: [N, 1]."""

    def prompt(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Prompt:
        """Give the latents and labels of pictures; a seed is one latent, whatever the others are.

        Args:
            seeds: one a picture.
            labels: one a picture; without them the classes take turns.
        """
        if labels is None:
            labels = [index % len(self.data.classes) for index in range(len(seeds))]
        rows = [torch.randn(self.latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return Prompt(torch.stack(rows), torch.tensor(labels))

    def latents(self, images: Tensor) -> Tensor:
        """Draw as many latents as there are images: [N, latent_dim], standard normal."""
        return torch.randn(len(images), self.latent_dim, device=images.device, dtype=images.dtype)


class NoiseModel(Model):
    """The game of every model that turns noise into pictures: D's move, then G's. Goodfellow et al. 2014, alg. 1.

    One generator pass serves both turns. A model of this kind sets `generator` ([N, latent_dim] to images) and
    `discriminator` (images to scores [N, 1]).
    """

    generator: nn.Module
    discriminator: nn.Module

    def play(self, batch: Labeled) -> Iterator[Turn | tuple[Turn, ...]]:
        """Play one step: the discriminator on real and fake images, then the generator against the new one."""
        real = batch.images
        fake = self.generator(self.latents(real))
        real_scores, fake_scores = self.score_both(real, fake.detach())
        yield Turn(
            self.discriminator,
            {
                "adversarial": self.loss(real=real_scores, fake=fake_scores),
                **self.loss.penalties(self.discriminator, real, fake),
            },
            self.loss.answers(real=real_scores, fake=fake_scores),
        )
        yield Turn(self.generator, {"adversarial": self.loss(fake=self.discriminator(fake))})

    def sample(self, prompt: Prompt) -> Tensor:
        """Make one picture of each row of a prompt: [N, C, H, W], -1 to 1."""
        images: Tensor = self.generator(prompt.latents)
        return images

    def scores(self, batch: Labeled) -> Tensor:
        """Give the discriminator's scores of images: [N, 1]."""
        scores: Tensor = self.discriminator(batch.images)
        return scores

    def score_both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Score real and fake images, in one pass where that gives the same scores.

        BatchNorm sees a batch as a whole, and real and fake ones must not mix in it.

        Raises:
            ShapeError: the fake images are not of the data's shape, or there is not one score an image.
        """
        if fake.shape[1:] != real.shape[1:]:
            made, wanted = "x".join(map(str, fake.shape[1:])), "x".join(map(str, real.shape[1:]))
            raise ShapeError(f"generator: makes images of {made}, but the data's are {wanted}")
        if any(isinstance(module, _BatchNorm) for module in self.discriminator.modules()):
            scores = (self.discriminator(real), self.discriminator(fake))
        else:
            scores = self.discriminator(torch.cat([real, fake])).split(len(real))
        if scores[0].shape[1:].numel() != 1:
            ends = "x".join(map(str, scores[0].shape[1:]))
            raise ShapeError(f"discriminator: ends in {ends} numbers an image, but a score is one")
        return scores[0], scores[1]
