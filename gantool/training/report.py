"""The reports of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gantool.training.rule import Diagnosis


@dataclass(frozen=True)
class Report:
    """The state of a training, within an epoch or at its end."""

    epoch: int  # from 1
    finished: bool  # whether the epoch has ended. Only then are there metrics and a line of the log
    share: float  # of the epoch that is done, 0 to 1
    images: int  # real images shown so far, in all epochs
    seconds: float  # spent on training so far, before an interruption too
    images_per_second: float  # in this epoch
    losses: dict[str, float]  # means over this epoch, as `generator/<name>` and `discriminator/<name>`
    scores: dict[str, float]  # D(x) as `scores/real` and D(G(z)) as `scores/fake`, means over this epoch
    metrics: dict[str, float]  # such as `fd`, in the epochs in which they are measured
    best: float  # the lowest value so far of the recipe's metric; infinite before the first
    measured_with: Mapping[str, Any] = field(default_factory=dict)  # conditions of the metrics
    diagnoses: tuple[str, ...] = ()  # codes of the present problems, see `diagnoses`
    news: tuple[Diagnosis, ...] = ()  # diagnoses that began or ended with this report
    measured_seconds: float = 0.0  # of `seconds`, the time of measurements

    def entry(self) -> dict[str, Any]:
        """Return the line of the log."""
        return {
            "epoch": self.epoch,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "measured_seconds": round(self.measured_seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
            **self.losses,
            **self.scores,
            **{f"metrics/{name}": value for name, value in self.metrics.items()},
            **({"measured_with": dict(self.measured_with)} if self.metrics else {}),
            "diagnoses": list(self.diagnoses),
        }
