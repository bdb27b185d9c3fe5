"""What a search tells while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import TrialState


class Listener(Protocol):
    """Is told of every event of a search's trials."""

    def started(
        self, label: str, values: dict[str, Any], folder: Path, scores: Sequence[float], epochs: int, begun: int
    ) -> None:
        """A trial has started, or goes on after these measurements and epochs."""

    def measured(self, label: str, result: dict[str, Any]) -> None:
        """A trial has been measured."""

    def interrupted(self, label: str) -> None:
        """A trial has saved where it stands."""

    def ended(
        self, label: str, state: TrialState, value: float | None, why: str | None, diagnoses: Sequence[str]
    ) -> None:
        """A trial has ended."""
