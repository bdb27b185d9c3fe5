"""The events of a search, which `search` yields: everything that a table, a log or another program shows of it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial

from gantool.tune import results
from gantool.tune.race import Confirmed
from gantool.tune.study import Study, lowest


@dataclass(frozen=True)
class TrialStatus:
    """A trial at one moment, or a further training of it."""

    label: str  # the trial's number; of a further training with `seed 7` or `to the end`
    values: dict[str, Any]  # of the keys that are searched
    state: str = "running"  # or complete, pruned, fail
    best: float = math.inf
    epoch: int = 0  # the last one that was measured
    scores: tuple[float, ...] = ()
    why: str = ""  # it failed or was stopped
    diagnoses: tuple[str, ...] = ()
    folder: Path | None = None
    epochs: int = 0  # at its end
    first_epoch: int = 0  # at its start
    start: float = field(default_factory=lambda: time.monotonic())

    @classmethod
    def of(cls, study: Study, trial: FrozenTrial, phase: optuna.Study | None = None, epochs: int = 0) -> TrialStatus:
        """Return the status of a trial as the database has it; by default it is one of the search."""
        best = lowest(trial)
        return cls(
            study.label(phase or study.search, trial),
            study.space.changes(trial.params),
            trial.state.name.lower(),
            math.inf if best is None else best,
            trial.last_step or 0,
            tuple(trial.intermediate_values.values()),
            str(trial.user_attrs.get("why", "")),
            tuple(trial.user_attrs.get("diagnoses", ())),
            study.folder_of(trial),
            epochs or study.epochs,
        )

    @property
    def is_further(self) -> bool:
        """Whether it is a further training of a trial: with a new seed, or to the recipe's full length."""
        return " " in self.label

    def reached(self) -> int:
        """Return the last epoch that a running trial has trained, by its log, which also has unmeasured epochs."""
        if self.folder is None or self.state != "running":
            return self.epoch
        with contextlib.suppress(OSError, ValueError, KeyError), (self.folder / "log.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            return max(self.epoch, int(json.loads(file.read().splitlines()[-1])["epoch"]))
        return self.epoch


@dataclass(frozen=True)
class SearchProgress:
    """The state of a search."""

    wanted: int  # all trials
    done: int  # trials that have ended
    reseeded: int  # trainings with new seeds that have ended
    summary: str  # the result so far, in a few words
    confirmed: tuple[Confirmed, ...]  # means over new seeds
    winner: int | None  # the trial that the search would recommend now
    own: int | None  # the trial with the recipe's own values
    todo: float = 0.0  # epochs of trainings that have not started
    slots: int = 1  # trials at once
    gpus: float = 0.0  # of each trial
    gpu_seconds: float = 0.0  # of trainings that ended
    planned: bool = False  # whether the number of trials depends on the time
    deadline: float = math.inf  # of the budgets of time, on the monotonic clock

    @classmethod
    def of(cls, study: Study, **more: Any) -> SearchProgress:
        """Return the state of a study; `more` are the fields with a default."""
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
                **more,
            )


@dataclass(frozen=True)
class SearchStarted:
    """A search has started, which must be stopped to be saved. Or a study is shown."""

    study: Study
    trials: tuple[TrialStatus, ...]  # that have ended; of a study that is shown, all
    progress: SearchProgress
    interrupted: int = 0  # trainings that will resume

    @classmethod
    def of(cls, study: Study, *, resumes: bool = False) -> SearchStarted:
        """Return the event for a search that resumes, or for a study that is only shown."""
        trials = tuple(TrialStatus.of(study, trial) for trial in (study.spent() if resumes else study.trials()))
        return cls(study, trials, SearchProgress.of(study), len(study.unended()) if resumes else 0)


@dataclass(frozen=True)
class TrialEvent:
    """A trial has started or resumed, was measured, was saved before its end, or has ended."""

    kind: Literal["started", "measured", "interrupted", "ended"]
    trial: TrialStatus
    progress: SearchProgress


@dataclass(frozen=True)
class SearchEnded:
    """A search has ended: it is done, it was `interrupted`, or a `budget` is spent."""

    study: Study
    interrupted: bool = False
    budget: str = ""


Event = SearchStarted | TrialEvent | SearchEnded
