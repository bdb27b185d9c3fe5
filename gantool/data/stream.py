"""Seeded batches on the training device: an index into the store, a copy, a scaling. No loader processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gantool.batches import Labeled
from gantool.data.store import Store

LEAST_HELD_OUT, LEAST_TRAINED = 12, 8  # pictures
RESIDENT = 0.25  # of a GPU's free memory, which a store may take to live there


class Split(NamedTuple):
    """Rows of a store, sorted: those that a run learns from, and those that its training never sees."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split(labels: NDArray[np.int64], share: float) -> Split:
    """Hold out a share of every class, the same pictures in every run.

    Args:
        labels: of all pictures, [N].
        share: of the pictures, 0 to 0.5, but at least 12 of them: fewer say nothing about copying (Meehan et al. 2020,
            arXiv:2004.05675). Nothing is held out for 0, or where fewer than 8 would be left to learn from. The first
            picture of a class is never held out.
    """
    rows = np.lexsort((_scattered(len(labels)), labels))
    others = rows[1:][labels[rows[1:]] == labels[rows[:-1]]]
    count = max(LEAST_HELD_OUT, round(share * len(labels)))
    if not share or len(labels) - count < LEAST_TRAINED or len(others) < count:
        return Split(np.arange(len(labels)), np.arange(0))
    held_out = others[((np.arange(count) + 0.5) * len(others) / count).astype(np.int64)]
    return Split(np.setdiff1d(rows, held_out), np.sort(held_out))


class Stream:
    """The batches of a store, each decided by the seed and its number alone, so that a resumed run sees the same ones.

    Args:
        store: the decoded dataset.
        batch_size: images in a batch; where there are fewer, one batch has them all.
        seed: decides the order.
        device: where batches are.
        rows: of the store that batches are made of; all without them.
    """

    def __init__(
        self, store: Store, batch_size: int, seed: int, device: torch.device, rows: NDArray[np.int64] | None = None
    ) -> None:
        self.rows = torch.arange(len(store)) if rows is None else torch.from_numpy(rows)
        self.count = len(self.rows)
        self.seed = seed
        self.device = device
        # BatchNorm cannot learn from one picture alone: where there is one, a batch has it twice.
        self.batch_size = max(2, min(batch_size, self.count)) if batch_size > 1 else 1
        self.images = tensor(store.images)
        self.labels = tensor(store.labels)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if store.images.nbytes < RESIDENT * free:
                self.images = self.images.to(device)
                self.labels = self.labels.to(device)

    def __len__(self) -> int:
        """Give the batches in an epoch; the last, smaller one is left out."""
        return max(1, self.count // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Labeled]:
        """Give the batches of epoch `number` (from 1), from batch `start` (from 0) on."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = self.rows[torch.randperm(self.count, generator=generator)]
        if self.count < self.batch_size:
            order = order.repeat(2)
        order = order.to(self.images.device)
        for index in range(start, len(self)):
            yield self.take(order[index * self.batch_size : (index + 1) * self.batch_size])

    def take(self, rows: Tensor) -> Labeled:
        """Give the images and labels of these rows, on the device.

        Shape:
            rows: [N], int64 -> images [N, C, H, W] float -1 to 1, labels [N].
        """
        images = self.images.index_select(0, rows).to(self.device)
        labels = self.labels.index_select(0, rows).to(self.device)
        return Labeled(images.float().div_(127.5).sub_(1), labels)


def _scattered(count: int) -> NDArray[np.uint64]:
    """Give numbers in no order, which no library version can change: [count]."""
    bits = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((32, 0xD6E8FEB86659FD93), (32, 0xD6E8FEB86659FD93)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(32))


def tensor(array: np.ndarray) -> Tensor:
    """Share an array's memory with a tensor. A memory map is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
