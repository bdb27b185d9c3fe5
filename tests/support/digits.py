"""scikit-learn's real digits, enlarged to 14x14 pixels."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn.functional import interpolate


@functools.cache
def digits():
    """Images, uint8 [1797, 1, 14, 14], and their classes, in a fixed order that mixes them."""
    loaded = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.from_numpy(loaded.images).float().unsqueeze(1) * (255 / 16)
    large = interpolate(images, size=(14, 14), mode="bilinear", align_corners=False).round().to(torch.uint8)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0))
    return large[order], torch.from_numpy(loaded.target)[order]
