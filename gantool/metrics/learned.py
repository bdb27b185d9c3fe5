"""Features that a small network learns from a dataset, once: from labels, or from the images alone.

Everything runs on the CPU: a score must not depend on who has a GPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gantool import checkpoints
from gantool.devices import one_thread, rng_scope, rng_states
from gantool.errors import CheckpointError
from gantool.files import disk, exclusive_lock
from gantool.metrics.features import FEATURES, LARGE_SIDE, clamped
from gantool.models.blocks import ConvolutionalClassifier

STEPS, BATCH, RATE, NOISE = 200, 64, 2e-3, 0.05  # of training; noise as a deviation, images being -1 to 1
MIN_IMAGES_TO_SCALE = 250  # training images from which each feature has a scale of its own
CHUNK = 256  # images computed at a time
LOCK_TIMEOUT = 1800.0  # seconds to wait for another process that learns the same
VERSION = 2  # raise when training gives other weights: files of another version are made anew

CPU = torch.device("cpu")
Task = Callable[[Tensor], tuple[Tensor, Tensor]]  # rows -> images of them, -1 to 1, and the right answers


class _Network(ConvolutionalClassifier):
    """Two convolutions and a linear layer, whose 64 outputs are the features; a linear head after them answers.

    No BatchNorm: an image's features must not depend on which others are beside it. From 64 pixels on the first
    convolution strides, so that the second sees 16 to 24 of them on that side. Its kernel is twice as wide as its
    stride: no pixel is left out, and each is seen as often as the others. The features are taken before their
    activation, behind which half of them would be dead were it a ReLU.

    Args:
        channels: of the images.
        side: pixels of their shorter side.
        answers: outputs of the head.
    """

    def __init__(self, channels: int, side: int, answers: int) -> None:
        stride = side // (LARGE_SIDE // 2) if side >= LARGE_SIDE else 1
        kernel, padding = (2 * stride, stride - 1) if stride > 1 else (3, 1)
        super().__init__(
            channels,
            convolutions=[(16, kernel, stride, padding), (32, 3, 1, 1)],
            pools=[nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveMaxPool2d(4)],
            area=4 * 4,
            hidden=[FEATURES],
            answers=answers,
            slope=0.2,
        )
        self.sizes = (channels, side, answers)
        self.to(memory_format=torch.channels_last)  # takes a third off the time


@dataclass(frozen=True, eq=False)
class Learned:
    """`pretext`: 64 features of a network that has learned to tell six views of an image apart, without labels.

    Rotations as in Gidaris et al. 2018, arXiv:1803.07728, and rolls by half of the image. Features trained on the
    data themselves rank generators better than those of ImageNet where the images are not photographs (Liu et al.
    2018, arXiv:1803.07474).

    Args:
        network: the trained network.
        mean: of each feature over the training images, [64].
        deviation: what each feature is divided by, [64].
        accuracy: share of right answers about images that were held out, 0 to 1, every class or view counting alike;
            nan where none were.
        chance: what guessing would reach.
    """

    name: ClassVar[str] = "pretext"

    network: _Network
    mean: Tensor
    deviation: Tensor
    accuracy: float
    chance: float

    @property
    def identity(self) -> str:
        """See `Extractor`."""
        digest = hashlib.sha256(repr(self.network.sizes).encode())
        for values in (*self.network.state_dict().values(), self.mean, self.deviation):
            digest.update(values.numpy().tobytes())
        return f"{self.name}-{digest.hexdigest()[:12]}"

    @property
    def usable(self) -> bool:
        """Whether the features mean something: what they were learned for can be told well above chance."""
        return self.accuracy >= 1.5 * self.chance

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images: [N, C, H, W], -1 to 1 -> [N, 64], float32, on the CPU."""
        raw = torch.cat([self.network.features(chunk.cpu().float()) for chunk in torch.split(images, CHUNK)])
        return (raw - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class Judge(Learned):
    """`judge`: 64 features of a network that has learned the classes; it sees best which of them are lost."""

    name: ClassVar[str] = "judge"

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return class probabilities: [N, C, H, W], -1 to 1 -> [N, classes], rows that add up to 1."""
        chunks = [self.network(chunk.cpu().float()) for chunk in torch.split(images, CHUNK)]
        return torch.cat(chunks).softmax(1)


@one_thread()
def learn_views(train: Tensor, held_out: Tensor, *, seed: int = 0) -> Learned:
    """Learn features from images alone: the same ones from the same images and seed, on the same machine.

    Args:
        train: images to learn from, uint8 [N, C, H, W], at least one.
        held_out: images to measure the accuracy on, uint8 [M, C, H, W]; M may be 0.
        seed: decides the first weights, the order and the noise; nobody else's random numbers change.
    """
    views = len(_views(train[:1]))
    network = _trained(train, _about_views(train), views, BATCH // views, seed)
    accuracy = _accuracy(network, _about_views(held_out), len(held_out))
    return Learned(network, *_scale(network, train), accuracy, 1 / views)


@one_thread()
def learn_labels(
    train: Tensor, train_labels: Tensor, held_out: Tensor, held_out_labels: Tensor, classes: int, *, seed: int = 0
) -> Judge:
    """Learn features from labelled images; as `learn_views`.

    Args:
        train: images to learn from, uint8 [N, C, H, W], at least one.
        train_labels: their classes, 0 to classes - 1, [N].
        held_out: images to measure the accuracy on, uint8 [M, C, H, W]; M may be 0.
        held_out_labels: their classes, [M].
        classes: how many there are.
        seed: see `learn_views`.
    """
    network = _trained(train, _about_labels(train, train_labels), classes, BATCH, seed)
    accuracy = _accuracy(network, _about_labels(held_out, held_out_labels), len(held_out))
    return Judge(network, *_scale(network, train), accuracy, 1 / classes)


def cached(folder: Path, key: str, make: Callable[[], Learned]) -> Learned:
    """Return what `folder / f"{key}.pt"` holds; made and written if it is not there, damaged or of another version.

    Of several processes that ask at once, one makes it and the others wait.

    Args:
        folder: created if missing.
        key: names the images, the seed and what is learned of them.
        make: learns it.

    Raises:
        RunError: another process still makes it after half an hour; the message names the process.
        ResourceError: the folder cannot be written.
    """
    path = folder / f"{key}.pt"
    if found := _read(path):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk(folder, error) from None
    with exclusive_lock(folder / f"{key}.lock", wait=LOCK_TIMEOUT):
        if found := _read(path):  # who held the lock has made it
            return found
        made = make()
        content = {name: getattr(made, name) for name in ("mean", "deviation", "accuracy", "chance")}
        weights = {"sizes": made.network.sizes, "network": dict(made.network.state_dict())}
        checkpoints.save(path, {"version": VERSION, "name": made.name, **weights, **content})
    return made


def _read(path: Path) -> Learned | None:
    """Return what a file holds; None if it is not there or of no use."""
    kinds = {kind.name: kind for kind in (Learned, Judge)}
    try:
        content: dict[str, Any] = checkpoints.load(path)
        if content.pop("version") != VERSION:
            return None
        kind = kinds[content.pop("name")]
        with torch.device("meta"):  # draws no random weights, which the file's would replace
            network = _Network(*content.pop("sizes"))
        network.load_state_dict(content.pop("network"), assign=True)
        return kind(network.requires_grad_(False), **content)
    except (CheckpointError, AttributeError, KeyError, TypeError, RuntimeError):  # whole, but not what is written here
        return None


def _trained(images: Tensor, lesson: Task, answers: int, rows: int, seed: int) -> _Network:
    """Train a network with `STEPS` batches of so many rows."""
    with rng_scope(CPU, rng_states(CPU, seed)), torch.enable_grad():
        network = _Network(images.shape[1], min(images.shape[2:]), answers)
        optimizer = torch.optim.Adam(network.parameters(), RATE)
        rounds = math.ceil(STEPS * rows / len(images))
        order = torch.cat([torch.randperm(len(images)) for _ in range(rounds)])
        for chosen in torch.split(order[: STEPS * rows], rows):
            samples, right = lesson(chosen)
            loss = cross_entropy(network(samples + NOISE * torch.randn_like(samples)), right)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return network.requires_grad_(False)


def _scale(network: _Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and deviation of each feature over images, [64] and [64].

    One deviation for all where there are few images: a feature's own is too uncertain then.
    """
    raw = torch.cat([network.features(_numbers(chunk)) for chunk in torch.split(images, CHUNK)])
    deviation = raw.std(0, correction=0)
    if len(images) < MIN_IMAGES_TO_SCALE:
        deviation = deviation.square().mean().sqrt().expand(FEATURES)
    return raw.mean(0), clamped(deviation)


def _accuracy(network: _Network, exam: Task, count: int) -> float:
    """Return the mean accuracy over the right answers that occur among `count` images, 0 to 1.

    So guessing reaches 1 / answers, however unequal the classes are.
    """
    if not count:
        return math.nan
    asked, hits = [], []
    for rows in torch.split(torch.arange(count), BATCH):
        images, right = exam(rows)
        asked.append(right)
        hits.append(network(images).argmax(1) == right)
    every, hit = torch.cat(asked), torch.cat(hits).float()
    return float(torch.stack([hit[every == answer].mean() for answer in torch.unique(every)]).mean())


def _about_views(images: Tensor) -> Task:
    """Ask which view of an image it is: every view of each."""

    def lesson(rows: Tensor) -> tuple[Tensor, Tensor]:
        views = _views(_numbers(images[rows]))
        return torch.cat(views), torch.arange(len(views)).repeat_interleave(len(rows))

    return lesson


def _about_labels(images: Tensor, labels: Tensor) -> Task:
    """Ask which class an image shows."""
    return lambda rows: (_numbers(images[rows]), labels[rows])


def _views(images: Tensor) -> list[Tensor]:
    """Return the six views of images [N, C, H, W]; four where a quarter turn would change their shape."""
    height, width = images.shape[2:]
    views = [images, images.rot90(2, (2, 3)), images.roll(height // 2, 2), images.roll(width // 2, 3)]
    return views + [images.rot90(turns, (2, 3)) for turns in (1, 3)] if height == width else views


def _numbers(images: Tensor) -> Tensor:
    """Scale uint8 images to -1 to 1."""
    return images.float() / 127.5 - 1
