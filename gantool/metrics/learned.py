"""Features that a small network learns from a dataset, once: from its labels, or from the images alone.

Everything runs on the CPU, so that a score does not depend on the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval, Predicate
from pydantic import BaseModel, ConfigDict, Strict, ValidationError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gantool import checkpoints
from gantool.devices import one_thread, rng_scope, rng_states
from gantool.errors import CheckpointError
from gantool.files import exclusive_lock, make_folder, sweep
from gantool.images import to_float
from gantool.metrics.features import FEATURES, LARGE_SIDE, clamped, digest
from gantool.models.blocks import ConvolutionalClassifier
from gantool.recipe.schema import Size

STEPS, BATCH, RATE, NOISE = 200, 64, 2e-3, 0.05  # of training; the noise is a deviation, for pixels of -1 to 1
MIN_IMAGES_TO_SCALE = 250  # training images from which each feature has its own scale
CHUNK = 256  # images computed at a time
LOCK_TIMEOUT = 1800.0  # seconds to wait for another process that learns the same
VERSION = 2  # raise if training gives other weights; files of another version are replaced

CPU = torch.device("cpu")
Task = Callable[[Tensor], tuple[Tensor, Tensor]]  # rows -> their images, -1 to 1, and the right answers


class _Network(ConvolutionalClassifier):
    """Two convolutions and a linear layer with 64 outputs, the features; then a linear head.

    It has no BatchNorm, since an image's features must not depend on others in its batch. From 64 pixels on the first
    convolution strides, so that the second sees 16 to 24 pixels on the shorter side. Its kernel is twice as wide as its
    stride, so that every pixel is seen equally often. Features are taken before their activation, where a ReLU would
    set half of them to 0.
    """

    def __init__(self, channels: int, side: int, outputs: int) -> None:
        stride = side // (LARGE_SIDE // 2) if side >= LARGE_SIDE else 1
        kernel, padding = (2 * stride, stride - 1) if stride > 1 else (3, 1)
        super().__init__(
            channels,
            convolutions=[(16, kernel, stride, padding), (32, 3, 1, 1)],
            pools=[nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveMaxPool2d(4)],
            area=4 * 4,
            hidden=[FEATURES],
            outputs=outputs,
            slope=0.2,
        )
        self.sizes = (channels, side, outputs)
        self.to(memory_format=torch.channels_last)  # takes a third off the time


@dataclass(frozen=True, eq=False)
class Learned:
    """`pretext`: 64 features of a network that has learned to tell six views of an image apart, without labels.

    Rotations as in Gidaris et al. 2018, arXiv:1803.07728, and shifts by half of the image. Features trained on the
    data themselves rank generators better than those of ImageNet if the images are not photographs (Liu et al. 2018,
    arXiv:1803.07474).

    The mean and deviation, [64], are those of each feature over the training images. The accuracy is the share of right
    answers about held-out images, the mean over classes or views, or nan without any; guessing reaches `chance`.
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
        weights = (*self.network.state_dict().values(), self.mean, self.deviation)
        return f"{self.name}-{digest(*weights, text=repr(self.network.sizes))}"

    @property
    def usable(self) -> bool:
        """Whether the network answers well above chance, so that its features mean something."""
        return self.accuracy >= 1.5 * self.chance

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images: [N, C, H, W], -1 to 1 -> [N, 64], float32, on the CPU."""
        raw = torch.cat([self.network.features(chunk.cpu().float()) for chunk in torch.split(images, CHUNK)])
        return (raw - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class Judge(Learned):
    """`judge`: 64 features of a network that has learned the classes; it sees best which of them are missing."""

    name: ClassVar[str] = "judge"

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return class probabilities: [N, C, H, W], -1 to 1 -> [N, classes], rows that add up to 1."""
        chunks = [self.network(chunk.cpu().float()) for chunk in torch.split(images, CHUNK)]
        return torch.cat(chunks).softmax(1)


@one_thread()
def learn_views(train: Tensor, held_out: Tensor, *, seed: int = 0) -> Learned:
    """Learn features from images alone, uint8 [N, C, H, W]; equal on the same machine for equal images and seed."""
    views = len(_views(train[:1]))
    network = _trained(train, _view_task(train), views, BATCH // views, seed)
    accuracy = _accuracy(network, _view_task(held_out), len(held_out))
    return Learned(network, *_scale(network, train), accuracy, 1 / views)


@one_thread()
def learn_labels(
    train: Tensor, train_labels: Tensor, held_out: Tensor, held_out_labels: Tensor, classes: int, *, seed: int = 0
) -> Judge:
    """Learn features from images and their labels, 0 to classes - 1; otherwise as `learn_views`."""
    network = _trained(train, _label_task(train, train_labels), classes, BATCH, seed)
    accuracy = _accuracy(network, _label_task(held_out, held_out_labels), len(held_out))
    return Judge(network, *_scale(network, train), accuracy, 1 / classes)


def cached(folder: Path, key: str, make: Callable[[], Learned]) -> Learned:
    """Return the extractor in `folder / f"{key}.pt"`; learn it if that file is missing, damaged or of another version.

    If several processes need it at once, one learns it and the others wait.

    Raises:
        RunError: another process still learns it after half an hour; the message names the process.
        DiskError: the directory cannot be written.
    """
    path = folder / f"{key}.pt"
    if found := _read(path):
        return found
    make_folder(folder)
    with exclusive_lock(folder / f"{key}.lock", wait=LOCK_TIMEOUT):
        if found := _read(path):  # the previous holder of the lock has made it
            return found
        sweep(path)
        made = make()
        numbers = {name: getattr(made, name) for name in ("mean", "deviation", "accuracy", "chance")}
        network = {"sizes": list(made.network.sizes), "network": dict(made.network.state_dict())}
        checkpoints.save(path, {"version": VERSION, "name": made.name, **network, **numbers})
    return made


class _File(BaseModel):
    """What the file of an extractor holds."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    version: Annotated[int, Interval(ge=VERSION, le=VERSION)]
    name: Literal["pretext", "judge"]
    sizes: Annotated[
        tuple[Annotated[int, Interval(ge=1, le=3)], Size, Annotated[int, Interval(ge=2, le=2**20)]], Strict(False)
    ]
    network: dict[str, Tensor]
    mean: Tensor
    deviation: Tensor
    accuracy: Annotated[float, Predicate(lambda share: not (share < 0 or share > 1))]  # may be nan
    chance: Annotated[float, Interval(gt=0, lt=1)]


def _read(path: Path) -> Learned | None:
    """Return the extractor in a file; None if it is missing or not what this version writes."""
    try:
        file = _File.model_validate(checkpoints.load(path))
        with torch.device("meta"):  # draws no random weights
            network = _Network(*file.sizes)
            scale = dict.fromkeys(("mean", "deviation"), torch.zeros(FEATURES))
        given = {"network": file.network, "mean": file.mean, "deviation": file.deviation}
        checkpoints.check_shapes(given, {"network": network.state_dict(), **scale}, path)
        checkpoints.check_values(given, path)
    except (CheckpointError, ValidationError):
        return None
    if float(file.deviation.min()) <= 0:
        return None
    network.load_state_dict(file.network, assign=True)
    network = network.requires_grad_(False).to(memory_format=torch.channels_last)
    kind = {"pretext": Learned, "judge": Judge}[file.name]
    return kind(network, file.mean, file.deviation, file.accuracy, file.chance)


def _trained(images: Tensor, task: Task, outputs: int, rows: int, seed: int) -> _Network:
    """Train a network with `STEPS` batches of so many rows."""
    with rng_scope(CPU, rng_states(CPU, seed)), torch.enable_grad():
        network = _Network(images.shape[1], min(images.shape[2:]), outputs)
        optimizer = torch.optim.Adam(network.parameters(), RATE)
        rounds = math.ceil(STEPS * rows / len(images))
        order = torch.cat([torch.randperm(len(images)) for _ in range(rounds)])
        for chosen in torch.split(order[: STEPS * rows], rows):
            samples, right = task(chosen)
            loss = cross_entropy(network(samples + NOISE * torch.randn_like(samples)), right)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return network.requires_grad_(False)


def _scale(network: _Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and deviation of each feature over images, [64] and [64]; few images share one deviation."""
    raw = torch.cat([network.features(to_float(chunk)) for chunk in torch.split(images, CHUNK)])
    deviation = raw.std(0, correction=0)
    if len(images) < MIN_IMAGES_TO_SCALE:
        deviation = deviation.square().mean().sqrt().expand(FEATURES)
    return raw.mean(0), clamped(deviation)


def _accuracy(network: _Network, task: Task, count: int) -> float:
    """Return the mean over the classes of the share of right answers, 0 to 1: guessing reaches 1 / answers."""
    if not count:
        return math.nan
    answers, hits = [], []
    for rows in torch.split(torch.arange(count), BATCH):
        images, right = task(rows)
        answers.append(right)
        hits.append(network(images).argmax(1) == right)
    every, hit = torch.cat(answers), torch.cat(hits).float()
    return float(torch.stack([hit[every == answer].mean() for answer in torch.unique(every)]).mean())


def _view_task(images: Tensor) -> Task:
    """Return a task that shows every view of each image; the answer is the view."""

    def task(rows: Tensor) -> tuple[Tensor, Tensor]:
        views = _views(to_float(images[rows]))
        return torch.cat(views), torch.arange(len(views)).repeat_interleave(len(rows))

    return task


def _label_task(images: Tensor, labels: Tensor) -> Task:
    """Return a task that shows images; the answer is their class."""
    return lambda rows: (to_float(images[rows]), labels[rows])


def _views(images: Tensor) -> list[Tensor]:
    """Return the six views of images [N, C, H, W]; four if a quarter turn would change their shape."""
    height, width = images.shape[2:]
    views = [images, images.rot90(2, (2, 3)), images.roll(height // 2, 2), images.roll(width // 2, 3)]
    return views + [images.rot90(turns, (2, 3)) for turns in (1, 3)] if height == width else views
