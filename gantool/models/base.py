"""What models share: networks, and the game that trains them.

`Generative` models make images: from noise (`UnconditionalGAN`), from noise and a class (`ConditionalGAN`), or from
other images (`Translator`). A `Classifier` is a game with one player.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from gantool.batches import Batch, ImageSpec, Labeled, Paired, RowSpec, Spec, TableBatch, TextSpec, Unpaired
from gantool.errors import RecipeError, ShapeError
from gantool.models.losses import Adversarial


class Turn(NamedTuple):
    """One update of one player."""

    player: nn.Module  # a child of the model, such as its generator
    losses: Mapping[str, Tensor]  # weighted scalars, whose sum the player minimises; logged as `<player>/<name>`
    scores: Mapping[str, Tensor] = {}  # scalars that are only logged, as `scores/<name>`


class GeneratorInput(NamedTuple):
    """The input of a generator.

    Shape:
        source: latents [N, latent_dim], or the images to translate, [N, C, H, W]. labels: [N], int64, the classes that
        the images are to show. seeds: [N], int64, one for each image's other random numbers.
    """

    source: Tensor
    labels: Tensor
    seeds: Tensor


class Model(nn.Module, ABC):
    """The networks and the game between them, without optimizer, device, file or log.

    The keyword-only parameters of a model's constructor are the keys of its recipe block. Children with weights are its
    players. The buffers of other children are part of the state that a checkpoint saves. `data` has the sizes and
    classes of the data.
    """

    consumes: ClassVar[type[Batch]] = Labeled

    def __init__(self, data: Spec) -> None:
        super().__init__()
        self.data = data

    def blank(self, count: int) -> Batch:
        """Return a batch of zeros, of the type that the model consumes."""
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

        Each turn is applied before the iterator resumes, so the code after a `yield` sees new weights. Turns that are
        yielded together are applied together: all their gradients are computed before any weight changes.
        """


class Generative(Model):
    """A model that makes images, with an adversarial loss."""

    data: ImageSpec
    conditional: ClassVar[bool] = False  # whether labels decide the images' content
    stride: int = 1  # the sides of a translated image must be multiples of it

    def __init__(self, data: ImageSpec, loss: Adversarial) -> None:
        super().__init__(data)
        self.loss = loss

    @abstractmethod
    def sample(self, prompt: GeneratorInput) -> Tensor:
        """Make one image of each row of the input: [N, C, H, W], -1 to 1."""


class LatentModel(Generative):
    """A model that makes images from latents, with one `generator` and one `discriminator`.

    A conditional model's networks take the labels [N] as a second argument.
    """

    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, data: ImageSpec, loss: Adversarial, *, latent_dim: int) -> None:
        super().__init__(data, loss)
        self.latent_dim = latent_dim

    def prompt(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> GeneratorInput:
        """Return one latent for each seed, which does not depend on the other seeds; None cycles through the labels."""
        if labels is None:
            labels = [index % len(self.data.classes) for index in range(len(seeds))]
        rows = [torch.randn(self.latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return GeneratorInput(torch.stack(rows), torch.tensor(labels), torch.tensor(seeds))

    def latents(self, images: Tensor) -> Tensor:
        """Draw as many latents as `images` has rows: [N, latent_dim], standard normal."""
        return torch.randn(len(images), self.latent_dim, device=images.device, dtype=images.dtype)

    def sample(self, prompt: GeneratorInput) -> Tensor:
        return self.generator(prompt.source, *self._condition(prompt.labels))

    def plain_logits(self, batch: Labeled) -> Tensor:
        """Return the discriminator's logits of images without augmentation: [N, 1]."""
        return self.discriminator(batch.images, *self._condition(batch.labels))

    def logits(self, images: Tensor, *labels: Tensor) -> Tensor:
        """Return the discriminator's logits of images after augmentation: [N, 1]."""
        return self.discriminator(self.loss.augmented(images), *labels)

    def logits_pair(self, real: Tensor, fake: Tensor, *labels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits of real and fake images, in one pass unless BatchNorm would mix the two.

        A conditional model also takes the labels of both.

        Raises:
            ShapeError: the fake images do not have the data's shape, or the discriminator's output is not one number.
        """
        self.check_fit(real, fake)
        if any(isinstance(module, _BatchNorm) for module in self.discriminator.modules()):
            real_labels, fake_labels = zip(*labels, strict=True) if labels else ((), ())
            of_real, of_fake = self.logits(real, *real_labels), self.logits(fake, *fake_labels)
        else:
            both = self.logits(torch.cat([real, fake]), *(torch.cat(pair) for pair in labels))
            of_real, of_fake = torch.split(both, len(real))
        if of_real.shape[1:].numel() != 1:
            ends = "x".join(map(str, of_real.shape[1:]))
            raise ShapeError(f"discriminator: ends in {ends} numbers an image, but a score is one")
        return of_real, of_fake

    def check_fit(self, real: Tensor, fake: Tensor) -> None:
        """Raise ShapeError if fake images do not have the data's shape."""
        if fake.shape[1:] != real.shape[1:]:
            made, wanted = ("x".join(map(str, images.shape[1:])) for images in (fake, real))
            raise ShapeError(f"generator: makes images of {made}, but the data's are {wanted}")

    def _condition(self, labels: Tensor) -> tuple[Tensor, ...]:
        return (labels,) if self.conditional else ()


class UnconditionalGAN(LatentModel):
    """The game between a generator and a discriminator. Goodfellow et al. 2014, alg. 1.

    One pass of the generator serves both turns. A subclass sets `generator` ([N, latent_dim] to images) and
    `discriminator` (images to logits [N, 1]).
    """

    def play(self, batch: Batch) -> Iterator[Turn | tuple[Turn, ...]]:
        """Play one step: the discriminator on real and fake images, then the generator against the new one."""
        assert isinstance(batch, Labeled)
        real = batch.images
        fake = self.generator(self.latents(real))
        yield self.discriminators_turn(real, fake.detach())
        yield self.generators_turn(real, fake)

    def discriminators_turn(self, real: Tensor, fake: Tensor) -> Turn:
        """Return the discriminator's turn; `fake` holds no graph."""
        pair = self.logits_pair(real, fake)
        return Turn(self.discriminator, *self.loss.discriminator(*pair, self.logits, real, fake))

    def generators_turn(self, real: Tensor, fake: Tensor) -> Turn:
        """Return the turn of the generator that made `fake`."""
        loss = self.loss.generator(fake=self.logits(fake), real=lambda: self.logits(real))
        return Turn(self.generator, {"adversarial": loss})


class ConditionalGAN(LatentModel):
    """The same game where both players see the class. Mirza and Osindero 2014, arXiv:1411.1784.

    Fake labels are drawn from the run's own classes; with others the discriminator would win by the label alone. A
    subclass sets `generator` ([N, latent_dim] and labels [N] to images) and `discriminator` (images and labels to
    logits [N, 1]).
    """

    conditional = True

    def play(self, batch: Batch) -> Iterator[Turn]:
        """Play one step: the discriminator on real and fake pairs of image and class, then the generator."""
        assert isinstance(batch, Labeled)
        real, labels = batch
        fake_labels = torch.randint(len(self.data.classes), labels.shape, device=labels.device)
        fake = self.generator(self.latents(real), fake_labels)
        pair = self.logits_pair(real, fake.detach(), (labels, fake_labels))
        losses, scores = self.loss.discriminator(*pair, lambda images: self.logits(images, labels), real, fake)
        yield Turn(self.discriminator, losses, scores)
        self.discriminator.requires_grad_(False)  # spares the gradients of its weights
        loss = self.loss.generator(fake=self.logits(fake, fake_labels), real=lambda: self.logits(real, labels))
        self.discriminator.requires_grad_(True)
        yield Turn(self.generator, {"adversarial": loss})


class Translator(Generative):
    """A model that makes images from other images; `consumes` is Paired or Unpaired.

    `sample` takes images whose sides are multiples of `stride` and returns images of the same sides. An image must not
    depend on the others in its batch.
    """


class Classifier(Model):
    """A game with one player: a network that finds the class of its input.

    A subclass sets `classifier`, from inputs to logits: [N, classes], or [N, 1] for the second of two classes.

    Raises:
        RecipeError: the data have only one class.
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
        logits = self.classifier(inputs)
        if logits.shape[1] == 1:
            loss = binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
            right = (logits[:, 0] > 0) == (labels == 1)
        else:
            loss = cross_entropy(logits, labels)
            right = logits.argmax(1) == labels
        yield Turn(self.classifier, {"cross_entropy": loss}, {"accuracy": right.float().mean()})

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the probability of each class: [N, classes], rows that add up to 1."""
        logits: Tensor = self.classifier(inputs)
        if logits.shape[1] == 1:
            second = logits.sigmoid()
            return torch.cat([1 - second, second], dim=1)
        return logits.softmax(1)
