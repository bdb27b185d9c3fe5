"""Seeded batches on the training device: an index into the store, a copy, a scaling. No loader processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gantool.batches import Labeled
from gantool.data.store import Store

RESIDENT = 0.25  # of a GPU's free memory, which a store may take to live there


class Stream:
    """The batches of a store, each decided by the seed and its number alone, so that a resumed run sees the same ones.

    Args:
        store: the decoded dataset.
        batch_size: images in a batch; a store with fewer gives them all in one.
        seed: decides the order.
        device: where batches are.
    """

    def __init__(self, store: Store, batch_size: int, seed: int, device: torch.device) -> None:
        self.count = len(store)
        self.seed = seed
        self.device = device
        # BatchNorm cannot learn from one picture alone: a store of one gives it twice.
        self.batch_size = max(2, min(batch_size, self.count)) if batch_size > 1 else 1
        self.images = _tensor(store.images)
        self.labels = _tensor(store.labels)
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
        order = torch.randperm(self.count, generator=generator)
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


def _tensor(array: np.ndarray) -> Tensor:
    """Share an array's memory with a tensor. A memory map is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
