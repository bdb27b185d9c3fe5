"""What every model is: networks, and the game between them.

`Generative` models make images: from noise (`UnconditionalGAN`), of a class that they are told (`ConditionalGAN`), or
from other images (`Translator`). A `Classifier` is a game with one player.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from gantool.batches import Batch, ImageSpec, Labeled, Paired, RowSpec, Spec, TableBatch, TextSpec, Unpaired
from gantool.errors import RecipeError, ShapeError
from gantool.models.losses import Adversarial


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


class GeneratorInput(NamedTuple):
    """What an image is made from.

    Shape:
        source: latents [N, latent_dim], or the images that are translated, [N, C, H, W]. labels: [N], int64, the
        classes that the images shall show. seeds: [N], int64, one an image, of what else is random in it.
    """

    source: Tensor
    labels: Tensor
    seeds: Tensor


class Model(nn.Module, ABC):
    """The networks and the game between them. Knows no optimizer, device, file or log.

    The keyword-only parameters of a model's constructor are the keys of its recipe block. Its children that have
    weights are its players; what another child holds in buffers is part of the state that training goes on from.
    """

    consumes: ClassVar[type[Batch]] = Labeled

    def __init__(self, data: Spec) -> None:
        super().__init__()
        self.data = data

    def blank(self, count: int) -> Batch:
        """Return a batch of this size without content, as the model consumes it."""
        labels = torch.zeros(count, dtype=torch.int64)
        if isinstance(self.data, RowSpec):
            return TableBatch(torch.zeros(count, len(self.data.columns)), labels)
        if isinstance(self.data, TextSpec):
            return TableBatch(torch.zeros(count, self.data.length, dtype=torch.int64), labels)
        images = torch.zeros(count, *self.data.shape)
        if self.consumes is Labeled:
            return Labeled(images, labels)
        return Paired(images, images) if self.consumes is Paired else Unpaired(images, images)

    @abstractmethod
    def play(self, batch: Batch) -> Iterator[Turn | tuple[Turn, ...]]:
        """Play one training step.

        Each turn is applied before the generator goes on, so what follows a `yield` sees new weights. Turns that are
        yielded together are applied together: all their gradients are taken before any weight changes.
        """


class Generative(Model):
    """A model that makes images."""

    data: ImageSpec
    conditional: ClassVar[bool] = False  # whether the labels of a prompt decide what an image shows
    stride: int = 1  # what the sides of a translated image must be multiples of

    def __init__(self, data: ImageSpec, loss: Adversarial) -> None:
        super().__init__(data)
        self.loss = loss

    @abstractmethod
    def sample(self, prompt: GeneratorInput) -> Tensor:
        """Make one image of each row of a prompt: [N, C, H, W], -1 to 1."""


class LatentModel(Generative):
    """A model whose images are made from latents."""

    def __init__(self, data: ImageSpec, loss: Adversarial, *, latent_dim: int) -> None:
        super().__init__(data, loss)
        self.latent_dim = latent_dim

    @abstractmethod
    def plain_logits(self, batch: Labeled) -> Tensor:
        """Return logits of images without augmentation, each as one of its label's class: [N, 1]."""

    def prompt(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> GeneratorInput:
        """Return the latents and labels of images; a seed is one latent, whatever the others are.

        Args:
            seeds: one an image.
            labels: one an image; without them the classes take turns.
        """
        if labels is None:
            labels = [index % len(self.data.classes) for index in range(len(seeds))]
        rows = [torch.randn(self.latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return GeneratorInput(torch.stack(rows), torch.tensor(labels), torch.tensor(seeds))

    def latents(self, images: Tensor) -> Tensor:
        """Draw as many latents as there are images: [N, latent_dim], standard normal."""
        return torch.randn(len(images), self.latent_dim, device=images.device, dtype=images.dtype)

    def check_fit(self, real: Tensor, fake: Tensor) -> None:
        """Raise ShapeError where fake images are not of the data's shape."""
        if fake.shape[1:] != real.shape[1:]:
            made, wanted = "x".join(map(str, fake.shape[1:])), "x".join(map(str, real.shape[1:]))
            raise ShapeError(f"generator: makes images of {made}, but the data's are {wanted}")


class UnconditionalGAN(LatentModel):
    """The game of every model that turns noise into images: D's move, then G's. Goodfellow et al. 2014, alg. 1.

    One generator pass serves both turns. A model of this kind sets `generator` ([N, latent_dim] to images) and
    `discriminator` (images to scores [N, 1]).
    """

    generator: nn.Module
    discriminator: nn.Module

    def play(self, batch: Batch) -> Iterator[Turn | tuple[Turn, ...]]:
        """Play one step: the discriminator on real and fake images, then the generator against the new one."""
        assert isinstance(batch, Labeled)
        real = batch.images
        fake = self.generator(self.latents(real))
        yield self.discriminators_turn(real, fake.detach())
        yield self.generators_turn(real, fake)

    def discriminators_turn(self, real: Tensor, fake: Tensor) -> Turn:
        """Return the discriminator's move against fake images that hold no graph."""
        pair = self.logits_pair(real, fake)
        return Turn(self.discriminator, *self.loss.discriminator(*pair, self.logits, real, fake))

    def generators_turn(self, real: Tensor, fake: Tensor) -> Turn:
        """Return the generator's move, by which it made the fake images."""
        loss = self.loss.generator(fake=self.logits(fake), real=lambda: self.logits(real))
        return Turn(self.generator, {"adversarial": loss})

    def logits(self, images: Tensor) -> Tensor:
        """Return the discriminator's logits of images after augmentation: [N, 1]."""
        scores: Tensor = self.discriminator(self.loss.augmented(images))
        return scores

    def sample(self, prompt: GeneratorInput) -> Tensor:
        """Make one image of each row of a prompt: [N, C, H, W], -1 to 1."""
        images: Tensor = self.generator(prompt.source)
        return images

    def plain_logits(self, batch: Labeled) -> Tensor:
        """Return the discriminator's logits of images without augmentation: [N, 1]."""
        scores: Tensor = self.discriminator(batch.images)
        return scores

    def logits_pair(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Score real and fake images, in one pass where that gives the same scores.

        BatchNorm sees a batch as a whole, and real and fake ones must not mix in it.

        Raises:
            ShapeError: the fake images are not of the data's shape, or there is not one score an image.
        """
        self.check_fit(real, fake)
        if any(isinstance(module, _BatchNorm) for module in self.discriminator.modules()):
            scores = (self.logits(real), self.logits(fake))
        else:
            both = torch.split(self.logits(torch.cat([real, fake])), len(real))
            scores = (both[0], both[1])
        if scores[0].shape[1:].numel() != 1:
            ends = "x".join(map(str, scores[0].shape[1:]))
            raise ShapeError(f"discriminator: ends in {ends} numbers an image, but a score is one")
        return scores[0], scores[1]


@contextlib.contextmanager
def frozen(player: nn.Module) -> Iterator[None]:
    """Compute what the block computes without gradients of a player's weights."""
    weights = [weight for weight in player.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


class ConditionalGAN(LatentModel):
    """The same game where both players are told the class. Mirza and Osindero 2014, arXiv:1411.1784.

    Fake labels are drawn from the classes that the run keeps: were they drawn from others, the discriminator would
    win by the label alone. A model of this kind sets `generator` ([N, latent_dim] and labels [N] to images) and
    `discriminator` (images and labels to scores [N, 1]).
    """

    conditional = True
    generator: nn.Module
    discriminator: nn.Module

    def play(self, batch: Batch) -> Iterator[Turn]:
        """Play one step: the discriminator on real and fake pairs of image and class, then the generator."""
        assert isinstance(batch, Labeled)
        real, labels = batch
        fake_labels = torch.randint(len(self.data.classes), labels.shape, device=labels.device)
        fake = self.generator(self.latents(real), fake_labels)
        pair = self.logits_pair(real, labels, fake.detach(), fake_labels)
        score = partial(self.logits, labels=labels)
        yield Turn(self.discriminator, *self.loss.discriminator(*pair, score, real, fake))
        with frozen(self.discriminator):
            loss = self.loss.generator(fake=self.logits(fake, fake_labels), real=lambda: self.logits(real, labels))
        yield Turn(self.generator, {"adversarial": loss})

    def logits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the discriminator's logits of images after augmentation: [N, 1]."""
        scores: Tensor = self.discriminator(self.loss.augmented(images), labels)
        return scores

    def logits_pair(self, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Score real and fake images; as `UnconditionalGAN.logits_pair`."""
        self.check_fit(real, fake)
        if any(isinstance(module, _BatchNorm) for module in self.discriminator.modules()):
            return self.logits(real, labels), self.logits(fake, fake_labels)
        both = self.logits(torch.cat([real, fake]), torch.cat([labels, fake_labels]))
        real_scores, fake_scores = torch.split(both, len(real))
        return real_scores, fake_scores

    def sample(self, prompt: GeneratorInput) -> Tensor:
        """Make one image of each row of a prompt: [N, C, H, W], -1 to 1."""
        images: Tensor = self.generator(prompt.source, prompt.labels)
        return images

    def plain_logits(self, batch: Labeled) -> Tensor:
        """Return the discriminator's logits of pairs of image and class without augmentation: [N, 1]."""
        scores: Tensor = self.discriminator(batch.images, batch.labels)
        return scores


class Translator(Generative):
    """A model whose images are made from other images; `consumes` is Paired or Unpaired.

    `sample` takes prompts whose `source` are images with sides that are multiples of `stride`, and gives images of
    the same sides. An image must not depend on which others are beside it.
    """


class Classifier(Model):
    """A game with one player: a network that answers to which class its input belongs.

    A model of this kind sets `classifier`, from inputs to raw answers (logits): [N, classes], or [N, 1] for the second
    of two classes.

    Raises:
        RecipeError: there is one class only.
    """

    classifier: nn.Module

    def __init__(self, data: Spec) -> None:
        super().__init__(data)
        if len(data.classes) < 2:
            raise RecipeError(
                f"data.classes: there is only {data.classes[0]!r}, "
                "and telling classes apart needs two; keep more of them"
            )

    def play(self, batch: Batch) -> Iterator[Turn]:
        """Play one step: the network lowers the cross-entropy of its answers."""
        assert isinstance(batch, Labeled | TableBatch)
        inputs, labels = batch
        answers = self.classifier(inputs)
        if answers.shape[1] == 1:
            loss = binary_cross_entropy_with_logits(answers[:, 0], labels.to(answers.dtype))
            right = (answers[:, 0] > 0) == (labels == 1)
        else:
            loss = cross_entropy(answers, labels)
            right = answers.argmax(1) == labels
        yield Turn(self.classifier, {"cross_entropy": loss}, {"accuracy": right.float().mean()})

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the probability of each class: [N, classes], rows that add up to 1."""
        answers: Tensor = self.classifier(inputs)
        if answers.shape[1] == 1:
            second = answers.sigmoid()
            return torch.cat([1 - second, second], dim=1)
        return answers.softmax(1)
