"""Decoded datasets that are made in memory, and a check that nothing draws random numbers."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import torch
from gantool.batches import ImageSpec
from gantool.data.store import Store


def store_of(images, labels=None, classes=("image",)):
    """Return a store of uint8 images [N, C, H, W], all of the first class unless labels are given."""
    labels = np.zeros(len(images), np.int64) if labels is None else np.asarray(labels, np.int64)
    return Store(Path("nowhere"), images, labels, ImageSpec(*images.shape[1:], tuple(classes)), {"skipped": []})


@contextlib.contextmanager
def no_random_numbers():
    """Fail if the block changes the random numbers, threads or gradient mode of its caller."""

    def outside():
        generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
        return *generators, torch.get_num_threads(), torch.is_grad_enabled()

    before = outside()
    yield
    assert outside() == before
