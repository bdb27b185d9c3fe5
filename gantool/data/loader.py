"""Seeded batches on the training device: an index into the data, a copy, a scaling. No loader processes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from gantool.batches import Batch, Labeled, Paired, Spec, TableBatch, Unpaired
from gantool.data.part import scattered
from gantool.images import to_float

MIN_HELD_OUT, MIN_TRAINED = 12, 8  # images
MAX_RESIDENT_SHARE = 0.25  # of a GPU's free memory, which data may take to stay there


class Split(NamedTuple):
    """Rows of the data, sorted: those that a run learns from, and those that its training never sees."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


class Dataset(Protocol):
    """Data that are ready for a model: decoded images, or the rows or sentences of a table."""

    @property
    def spec(self) -> Spec:
        """The specification that a model is built from."""

    @property
    def inputs(self) -> NDArray[Any]:
        """Images, uint8 [N, C, H, W]; rows, float32 [N, D]; or sentences, int64 [N, L]."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each row, [N]."""

    @property
    def texts(self) -> Sequence[str]:
        """Each row of a table as text; empty for images."""

    @property
    def path(self) -> Path | None:
        """The directory of decoded images; None for a table."""

    @property
    def key(self) -> str:
        """A name that changes with the content."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, wherever its files are; empty if it is not known."""

    @property
    def part(self) -> str:
        """How many examples `data.limit` left of how many, such as "5,000 of 60,000"; empty if it left all."""

    @property
    def skipped(self) -> Sequence[Sequence[str]]:
        """File and reason of each image that could not be read."""

    def __len__(self) -> int: ...

    def split(self, share: float, kind: type[Batch]) -> Split:
        """Return the rows that a run learns from and those that it holds out, for batches of this kind."""


def split(labels: NDArray[np.int64], share: float) -> Split:
    """Hold out a share of every class, the same images in every run.

    Args:
        labels: of all images, [N].
        share: of the images, 0 to 0.5, but at least 12 of them, because fewer say nothing about copying (Meehan et al.
            2020, arXiv:2004.05675). None is held out for 0, or if fewer than 8 would be left to learn from. The first
            image of a class is never held out.
    """
    rows = np.lexsort((scattered(len(labels)), labels))
    others = rows[1:][labels[rows[1:]] == labels[rows[:-1]]]
    count = max(MIN_HELD_OUT, round(share * len(labels)))
    if not share or len(labels) - count < MIN_TRAINED or len(others) < count:
        return Split(np.arange(len(labels)), np.arange(0))
    held_out = others[((np.arange(count) + 0.5) * len(others) / count).astype(np.int64)]
    return Split(np.setdiff1d(rows, held_out), np.sort(held_out))


def rows_of(labels: NDArray[np.int64], share: float, kind: type[Batch]) -> Split:
    """Split the rows of images as `split` does; for `Paired`, the rows of sources, each before its target's row."""
    if kind is not Paired:
        return split(labels, share)
    train, held_out = split(np.zeros(len(labels) // 2, np.int64), share)
    return Split(2 * train, 2 * held_out)


class Loader:
    """The batches of a dataset, each decided by the seed and its number alone, so that a resumed run sees the same.

    Args:
        data: images, or a table.
        batch_size: rows in a batch; if the data have fewer, one batch has them all.
        seed: decides the order.
        device: where batches are.
        rows: of the data that batches are made of, see `Dataset.split`; all if None.
        kind: of the batches. An epoch of `Unpaired` ends when every image of the larger class has been seen.
        flip: mirror half of the images, left to right.
        jitter: pixels by which images are enlarged, before a window of their own size is cut at random. Isola et al.
            2017, arXiv:1611.07004, sec. 6.2: from 256 to 286 and back, jitter 30.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        rows: NDArray[np.int64] | None = None,
        kind: type[Batch] = Labeled,
        *,
        flip: bool = False,
        jitter: int = 0,
    ) -> None:
        chosen = torch.from_numpy(data.split(0.0, kind).train if rows is None else rows)
        self.rows = [chosen]
        if kind is Unpaired:
            labels = tensor(data.labels)[chosen]
            self.rows = [chosen[labels == label] for label in (0, 1)]
        self.kind, self.seed, self.device, self.flip, self.jitter = kind, seed, device, flip, jitter
        self.augments = bool(flip or jitter) and kind is not TableBatch
        self.count = max(map(len, self.rows))
        # BatchNorm cannot learn from one image alone: if there is only one, a batch has it twice.
        self.batch_size = max(2, min(batch_size, self.count)) if batch_size > 1 else 1
        self.inputs, self.labels = tensor(data.inputs), tensor(data.labels)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if data.inputs.nbytes < MAX_RESIDENT_SHARE * free:
                self.inputs, self.labels = self.inputs.to(device), self.labels.to(device)

    def __len__(self) -> int:
        """Return the batches in an epoch; the last, smaller one is left out."""
        return max(1, self.count // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of epoch `number` (from 1), from batch `start` (from 0) on."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        orders = [self._order(rows, generator).to(self.inputs.device) for rows in self.rows]
        for index in range(start, len(self)):
            own = slice(index * self.batch_size, (index + 1) * self.batch_size)
            batch = self.take(*(order[own] for order in orders))
            yield self._augmented(batch, number, index) if self.augments else batch

    def take(self, rows: Tensor, others: Tensor | None = None) -> Batch:
        """Return the batch of these rows, on the device; for `Unpaired`, with `others` of the second class.

        Shape:
            rows, others: [N], int64.
        """
        if self.kind is Paired:
            return Paired(self._images(rows), self._images(rows + 1))
        if others is not None:
            return Unpaired(self._images(rows), self._images(others))
        labels = self.labels.index_select(0, rows).to(self.device)
        if self.kind is TableBatch:
            return TableBatch(self.inputs.index_select(0, rows).to(self.device), labels)
        return Labeled(self._images(rows), labels)

    def _images(self, rows: Tensor) -> Tensor:
        return to_float(self.inputs.index_select(0, rows).to(self.device))

    def _order(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Shuffle rows, as often as an epoch needs."""
        rounds = math.ceil(max(self.count, self.batch_size) / len(rows))
        return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)])

    def _augmented(self, batch: Batch, epoch: int, index: int) -> Batch:
        """Mirror and move the images of a batch at random; both images of a pair alike."""
        generator = torch.Generator().manual_seed(((self.seed * 1_000_003 + epoch) * 1_000_003 + index) % 2**63)
        if isinstance(batch, Labeled):
            return Labeled(self._moved(batch.images, *self._moves(len(batch.images), generator)), batch.labels)
        moves = [self._moves(len(batch[0]), generator) for _ in (0, 1)]
        if isinstance(batch, Paired):
            return Paired(*(self._moved(images, *moves[0]) for images in batch))
        return Unpaired(*(self._moved(images, *own) for images, own in zip(batch, moves, strict=True)))

    def _moves(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[list[int]]]:
        """Draw which images are flipped, [N], and the corner of each image's window."""
        flipped = torch.rand(count, generator=generator) < 0.5
        return flipped, torch.randint(self.jitter + 1, (count, 2), generator=generator).tolist()

    def _moved(self, images: Tensor, flipped: Tensor, corners: list[list[int]]) -> Tensor:
        height, width = images.shape[2:]
        if self.flip:
            images = torch.where(flipped.to(images.device)[:, None, None, None], images.flip(3), images)
        if self.jitter:
            larger = interpolate(images, (height + self.jitter, width + self.jitter), mode="bilinear")
            places = enumerate(corners)
            images = torch.stack([larger[row, :, y : y + height, x : x + width] for row, (y, x) in places])
        return images


def tensor(array: np.ndarray) -> Tensor:
    """Share an array's memory with a tensor. A memory map is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
