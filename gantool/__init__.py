"""gantool: train, search, sample and understand generative adversarial networks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# torch's threads spin while they wait for each other, which is 20 to 60 times slower as soon as another process uses
# the same cores (docs/measured.md). OpenMP reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from pathlib import Path

    from gantool.inference.sampling import TrainedModel

__version__ = "0.2.0"


def load(run: str | Path | None = None, checkpoint: str = "best", device: str = "auto") -> TrainedModel:
    """Load the generator of a run.

    >>> gantool.load("runs/cgan_egg-001").sample(seeds=range(4), class_name="Egg")  # doctest: +SKIP

    Args:
        run: its directory or its name; None is the newest one.
        checkpoint: `best`, `last`, or the number of a kept epoch.
        device: `auto`, `cpu`, `cuda` or `mps`.
    """
    from gantool.inference.sampling import TrainedModel
    from gantool.runs import Run

    return TrainedModel(Run.open(None if run is None else str(run)), checkpoint, device)
