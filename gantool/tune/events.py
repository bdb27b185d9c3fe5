"""The events of a search, which `search` yields: all that a table, a log or another program needs to show it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial

from gantool.tune import results
from gantool.tune.race import Confirmed
from gantool.tune.study import Study, lowest


@dataclass(frozen=True)
class TrialStatus:
    """A trial at one moment, or a further training of it.

    Args:
        label: the trial's number; a further training adds `seed 7` or `to the end`.
        values: of the keys that are searched.
        state: `running`, `complete`, `pruned` or `fail`.
        best: the lowest metric so far.
        epoch: the last one that was measured.
        scores: the metric at each measurement.
        why: why it failed or was stopped.
        diagnoses: the codes of its last measurement.
        folder: the directory of its run.
        epochs: the epochs that it is to have.
        first_epoch: the epochs that it had when it started.
        start: when it started, on the monotonic clock.
    """

    label: str
    values: dict[str, Any]
    state: str = "running"
    best: float = math.inf
    epoch: int = 0
    scores: tuple[float, ...] = ()
    why: str = ""
    diagnoses: tuple[str, ...] = ()
    folder: Path | None = None
    epochs: int = 0
    first_epoch: int = 0
    start: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, study: Study, trial: FrozenTrial) -> TrialStatus:
        """Return the status of a trial of the search as the database has it."""
        best = lowest(trial)
        return cls(
            str(trial.number),
            study.space.changes(trial.params),
            trial.state.name.lower(),
            math.inf if best is None else best,
            trial.last_step or 0,
            tuple(trial.intermediate_values.values()),
            str(trial.user_attrs.get("why", "")),
            tuple(trial.user_attrs.get("diagnoses", ())),
            study.folder(trial.number),
            study.epochs,
        )

    @property
    def is_further(self) -> bool:
        """Whether it is a further training of a trial: with a new seed, or to the recipe's full length."""
        return " " in self.label

    def reached(self) -> int:
        """Return the last epoch that a running trial has trained, by its log, which has also unmeasured epochs."""
        if self.folder is None or self.state != "running":
            return self.epoch
        with contextlib.suppress(OSError, ValueError, KeyError), (self.folder / "log.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            return max(self.epoch, int(json.loads(file.read().splitlines()[-1])["epoch"]))
        return self.epoch


@dataclass(frozen=True)
class Standing:
    """How a search stands.

    Args:
        wanted: the number of trials in all.
        done: the trials that have ended.
        reseeded: the trainings with new seeds that have ended.
        summary: the result so far, in a few words.
        confirmed: the means over new seeds, in their order.
        winner: the trial that the search would recommend now.
        own: the trial with the recipe's own values.
        todo: epochs of trainings that have not started.
        gpu_seconds: seconds of GPUs that ended trainings took.
    """

    wanted: int
    done: int
    reseeded: int
    summary: str
    confirmed: tuple[Confirmed, ...]
    winner: int | None
    own: int | None
    todo: float = 0.0
    gpu_seconds: float = 0.0

    @classmethod
    def of(cls, study: Study, todo: float = 0.0, gpu_seconds: float = 0.0) -> Standing:
        """Read how a study stands."""
        with study.cached_trials():
            winner, own = study.winner(), study.own()
            return cls(
                study.wanted,
                len(study.spent()),
                sum(run.state.is_finished() for run in study.runs()),
                results.interim_summary(study),
                tuple(study.confirmed()),
                None if winner is None else winner.number,
                None if own is None else own.number,
                todo,
                gpu_seconds,
            )


@dataclass(frozen=True)
class WorkersStarting:
    """Ray is being started or joined. From here on, a search must be stopped and not cut off."""


@dataclass(frozen=True)
class SearchStarted:
    """A search has started, or a study is shown.

    Args:
        study: the study.
        trials: the trials that it has.
        standing: how it stands.
        interrupted: the number of trainings that resume.
        slots: how many trials run at once; 0 if none will run.
        gpus: of each trial.
        planned: whether the number of trials depends on the time.
        deadline: when the time is over, on the monotonic clock.
    """

    study: Study
    trials: tuple[TrialStatus, ...]
    standing: Standing
    interrupted: int = 0
    slots: int = 0
    gpus: float = 0.0
    planned: bool = False
    deadline: float = math.inf

    @classmethod
    def of(cls, study: Study) -> SearchStarted:
        """Return the event of a study of which no trial will run."""
        return cls(study, tuple(TrialStatus.of(study, trial) for trial in study.trials()), Standing.of(study))


@dataclass(frozen=True)
class TrialEvent:
    """A trial has started or resumed, was measured, was saved before its end, or has ended."""

    kind: Literal["started", "measured", "interrupted", "ended"]
    trial: TrialStatus
    standing: Standing


@dataclass(frozen=True)
class SearchEnded:
    """A search has ended.

    Args:
        study: the study.
        interrupted: whether it was stopped.
        budget: the budget that is spent although trials are left, else empty.
    """

    study: Study
    interrupted: bool = False
    budget: str = ""


Event = WorkersStarting | SearchStarted | TrialEvent | SearchEnded
