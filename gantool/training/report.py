"""What a loop over a training is given: how it stands, within an epoch or at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gantool.training.rule import Diagnosis


@dataclass(frozen=True)
class Report:
    """How training stands.

    Args:
        epoch: the epoch that is running, or has just ended; from 1.
        finished: whether it has ended; only then are there metrics, and only then is the log written.
        share: of the epoch that is done, 0 to 1.
        images: real images shown so far, in all epochs.
        seconds: spent on training so far, before an interruption too.
        images_per_second: in this epoch.
        losses: means over this epoch, as `generator/<name>` and `discriminator/<name>`.
        scores: D(x) as `scores/real` and D(G(z)) as `scores/fake`, means over this epoch.
        metrics: such as `fd`, in the epochs in which they are measured.
        best: the lowest value so far of the metric that decides; infinite before the first.
        measured_with: what the metrics were measured with; empty where there are none.
        diagnoses: what is wrong with the run at the moment, by code; see `diagnoses`.
        news: diagnoses that began or ended with this report.
        measured_seconds: of `seconds`, what measurements took.
    """

    epoch: int
    finished: bool
    share: float
    images: int
    seconds: float
    images_per_second: float
    losses: dict[str, float]
    scores: dict[str, float]
    metrics: dict[str, float]
    best: float
    measured_with: Mapping[str, Any] = field(default_factory=dict)
    diagnoses: tuple[str, ...] = ()
    news: tuple[Diagnosis, ...] = ()
    measured_seconds: float = 0.0

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
