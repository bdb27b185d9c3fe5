"""The trainings of a search: what is trained next, and what becomes of the results, for any backend."""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import TrialState

from gantool import terminal
from gantool.errors import ResourceError
from gantool.files import make_folder, write
from gantool.recipe import load as recipes
from gantool.training import engine
from gantool.tune import results
from gantool.tune.events import Event, SearchProgress, TrialEvent, TrialStatus
from gantool.tune.plan import Plan
from gantool.tune.samplers import BatchPruner
from gantool.tune.study import Study, best_epoch_of
from gantool.tune.trial import TrialConfig, TrialResult

OVERTIME_SHARE = 0.07  # of the planned time, after which a search stops at once
SECONDS_PER_SAVE = 5.0  # between two saves of the time that a search has taken


@dataclass
class RunningTrial:
    """A training that runs."""

    trial: optuna.Trial
    study: optuna.Study  # of the trial
    status: TrialStatus  # that is shown
    seen: set[int]  # epochs that were measured
    last: TrialResult | None = None


@dataclass(frozen=True)
class TrialEnvironment:
    """The place where trials run."""

    data_dir: Path  # the data directory
    store: str  # the directory of the decoded data; empty if the data are searched
    device: str  # see `devices.choose`
    gpus: float = 0.0  # of each trial
    slots: int = 1  # trials at once


class _Artifacts(FileSystemArtifactStore):
    """Optuna's folder of artifacts, in which a file is whole or absent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write a file."""
        make_folder(self.folder)
        write(self.folder / artifact_id, content_body.read())


class Trials:
    """The trainings of a search, in this order: interrupted trials, new trials, new seeds, the recipe's full length.

    A backend asks for the `next` training and reports what was `measured` and `ended`. Events are in the queue
    `events`. An error is kept in `failure` and stops the search, because Ray would swallow it. The search also stops
    as soon as `stopped` is not empty. Without a plan, the recipe says how many trials there are.
    """

    def __init__(
        self, study: Study, environment: TrialEnvironment, stopped: list[int], plan: Plan | None = None
    ) -> None:
        self.study, self.environment, self.stopped = study, environment, stopped
        self.plan, self.planned_all = plan, False
        self.live: dict[str, RunningTrial] = {}
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.failure: Exception | None = None
        self.start = self.saved = time.monotonic()
        self.before = float(study.search.user_attrs.get("seconds", 0.0))
        self.gpu_seconds = float(study.search.user_attrs.get("gpu_seconds", 0.0))
        self.count = len(study.trials())
        self.waiting = {
            phase: [
                optuna.Trial(phase, old._trial_id)
                for old in phase.get_trials(deepcopy=False)
                if old.state == TrialState.RUNNING
            ]
            for phase in study.phases
        }
        if plan is not None:
            plan.learn()
        if study.tune.deterministic:
            study.search.pruner = BatchPruner(study.search.pruner)
        self.progress = self._look()

    def pending_events(self) -> Iterator[Event]:
        """Yield the events that are in the queue."""
        while not self.events.empty():
            yield self.events.get()

    # Budgets

    def spent_seconds(self) -> float:
        """Return the wall time of the search, in all of its starts."""
        return self.before + time.monotonic() - self.start

    def gpu_hours(self) -> float:
        """Return the hours of GPUs that ended and running trials have used."""
        running = sum(time.monotonic() - one.status.start for one in list(self.live.values()))
        return (self.gpu_seconds + running * self.environment.gpus) / 3600

    def over(self) -> str:
        """Return the budget that is spent, or an empty string."""
        tune = self.study.tune
        if tune.hours and self.spent_seconds() > 3600 * tune.hours:
            return f"tune.hours {tune.hours:g}"
        if tune.gpu_hours and self.gpu_hours() > tune.gpu_hours:
            return f"tune.gpu_hours {tune.gpu_hours:g}"
        if self.plan and time.monotonic() > self.plan.end + OVERTIME_SHARE * self.plan.seconds:
            return "--minutes"
        return ""

    def deadline(self) -> float:
        """Return the end of the budgets of time, on the monotonic clock."""
        hours = self.study.tune.hours
        end = self.start - self.before + 3600 * hours if hours else math.inf
        return min(end, self.plan.end) if self.plan else end

    def save_time(self) -> None:
        """Write how long the search has taken so far, for its budget."""
        self.study.search.set_user_attr("seconds", round(self.spent_seconds(), 1))
        self.saved = time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether the search stops before it is done."""
        return bool(self.stopped) or self.failure is not None or bool(self.over())

    # What a backend calls

    def next(self, key: str) -> TrialConfig | None:
        """Return the configuration of the next training, which `key` then names; None if none can start now."""
        started_by = (self._new_trials, self._new_seed, self._longer_trainings)
        with self._errors_kept():
            for phase, start in () if self.stopping else zip(self.study.phases, started_by, strict=True):
                self.waiting[phase] = self.waiting[phase] or start()
                if self.waiting[phase]:
                    return self._begin(key, self.waiting[phase].pop(0), phase)
        return None

    def measured(self, key: str, result: TrialResult) -> bool:
        """Take a result, and return whether the trial is to stop early."""
        with self._errors_kept():
            return self._measured(key, result)
        return False

    def ended(self, key: str, *, died: bool) -> None:
        """Take the end of a trial; `died`: its process died too often."""
        with self._errors_kept():
            self._ended(key, died)

    @property
    def finished(self) -> bool:
        """Whether no training runs and none will follow."""
        if self.live:
            return False
        with self.study.cached_trials():
            waiting = any(self.waiting.values()) or self._left() or self._missing_seeds() or self._to_finish()
        return self.stopping or not waiting

    @contextlib.contextmanager
    def _errors_kept(self) -> Iterator[None]:
        try:
            with self.study.database_errors():
                yield
        except Exception as error:
            self.failure = self.failure or error

    # The next trainings

    def _new_trials(self) -> list[optuna.Trial]:
        """Start a new trial, or a batch of them, none of which knows the results of the others.

        With `tune.parallel` a batch has the same size on every machine, however many trials run at once.
        """
        left, is_batch = self._left(), self.study.tune.deterministic
        if not left or (is_batch and self.live):
            return []
        attributes = {"batch": self.count} if is_batch else {}
        size = min(left, self.study.tune.parallel or self.environment.slots) if is_batch else 1
        found = [self.study.ask(**attributes) for _ in range(size)]
        self.count += len(found)
        return found

    def _left(self) -> int:
        """Return how many trials of the search have not started; with a plan 1 as long as time is left."""
        if self.plan is None or self.planned_all:
            return max(0, self.study.wanted - self.count)
        if self.count == self.study.taken or self.plan.has_time_for_a_trial():
            return 1
        self.planned_all = True
        self.study.replan(trials=self.count - self.study.taken)
        return 0

    def _searching(self) -> bool:
        search = self.study.search
        return any(live.study is search for live in self.live.values()) or bool(self.waiting[search] or self._left())

    def _new_seed(self) -> list[optuna.Trial]:
        study = self.study
        return [
            study.begin_further(study.confirmation, number, seed, epochs=study.confirm_epochs)
            for number, seed in self._missing_seeds()[:1]
        ]

    def _missing_seeds(self) -> list[tuple[int, int]]:
        """Return the trials and new seeds to train next; none before the search itself is done."""
        if self._searching():
            return []
        study = self.study
        if self.plan and not self.plan.has_time_for_a_seed():
            if not self.live and not self.waiting[study.confirmation]:
                study.adopt_runs()
            return []
        started = {
            (run.user_attrs["of"], run.user_attrs["seed"])
            for run in study.runs()
            if study.epochs_of_run(run) == study.confirm_epochs
        }
        with study.cached_trials():
            return [pair for pair in study.race().pending if pair not in started]

    def _longer_trainings(self) -> list[optuna.Trial]:
        return [self.study.begin_further(self.study.finishing, *training) for training in self._to_finish()]

    def _to_finish(self) -> list[tuple[int, int | None]]:
        """Return the trials and seeds whose trainings continue to the recipe's full length; none before a verdict."""
        study = self.study
        if self._searching() or self.live or self.waiting[study.confirmation] or self._missing_seeds():
            return []
        if self.plan and not self.waiting[study.finishing]:
            study.full_epochs = self.plan.full_epochs()
        running = [run for run in study.finishes() if run.state == TrialState.RUNNING]
        started = {(run.user_attrs["of"], run.user_attrs["seed"]) for run in running}
        with study.cached_trials():
            return [pair for pair in study.to_finish() if pair not in started]

    def _begin(self, key: str, trial: optuna.Trial, phase: optuna.Study) -> TrialConfig:
        study, environment, finishing = self.study, self.environment, phase is self.study.finishing
        seed = trial.user_attrs.get("seed")
        # All trials have the same number of epochs, so they are measured after the same ones and can be compared.
        epochs = study.full_epochs if finishing else study.epochs_of_run(trial)
        found = phase.get_trials(deepcopy=False)[trial.number]
        status = TrialStatus.of(study, found, phase, epochs)
        if finishing:
            best = study.best_run(found.user_attrs["of"])
            status = replace(status, epoch=max(status.epoch, best.epochs if best else 0))
        status = replace(status, first_epoch=status.epoch)
        self.live[key] = RunningTrial(trial, phase, status, set(found.intermediate_values))
        self.progress = replace(self.progress, todo=self._todo_epochs())
        self._emit("started", status)
        may_continue = study.tune.finish is not None and (study.tune.confirm is None or phase is study.confirmation)
        fixed = {"train.epochs": epochs, "train.keep_every": 0} | ({} if seed is None else {"train.seed": seed})
        return TrialConfig(
            status.label,
            recipes.dump(engine.change(study.recipe, {**status.values, **fixed})),
            str(status.folder),
            str(environment.data_dir),
            environment.store,
            environment.device,
            keep_end=finishing or (may_continue and epochs < study.full_epochs),
            new_latents=phase is not study.search,
        )

    # Their results

    def _measured(self, key: str, result: TrialResult) -> bool:
        live = self.live.get(key)
        if live is None:
            return False
        if result.state == "disk full":
            self.failure = self.failure or ResourceError(
                f"{result.why.partition(';')[0]}; make room, then run the same command"
            )
        if not math.isfinite(result.score):  # an end without a measurement
            live.last = replace(live.last or result, state=result.state, why=result.why)
            return False
        live.last = result
        if result.resumed and live.trial.user_attrs.get("resumed") != result.resumed:
            live.trial.set_user_attr("resumed", result.resumed)
        if result.epoch in live.seen:
            return False
        live.seen.add(result.epoch)
        live.trial.report(result.score, result.epoch)
        live.status = replace(
            live.status, epoch=result.epoch, best=result.best, scores=(*live.status.scores, result.score)
        )
        self._emit("measured", live.status)
        # The recipe's own values run to the end, because all others are compared with them.
        return result.state != "finished" and "own" not in live.trial.user_attrs and live.trial.should_prune()

    def _ended(self, key: str, died: bool) -> None:
        live = self.live.pop(key, None)
        if live is None:
            return
        if self.environment.gpus:
            self.gpu_seconds += (time.monotonic() - live.status.start) * self.environment.gpus
            self.study.search.set_user_attr("gpu_seconds", round(self.gpu_seconds, 1))
        result = live.last or TrialResult(state="failed", why="its worker process died")
        # After an error not all of its measurements may be in the database.
        is_cut = self.failure is not None or (self.stopping and result.state != "finished")
        if is_cut or result.state in ("interrupted", "disk full"):
            self._emit("interrupted", live.status)  # it stays RUNNING, and the next start resumes it
            return
        state, value, why = self._outcome(live, result, died)
        if why:
            live.trial.set_user_attr("why", why)
        codes = result.diagnoses
        if result.copies and "memorised" not in codes:
            codes = (*codes, "memorised")  # the reason for its rank
        if math.isfinite(result.score):
            for name, found in (("seconds", result.seconds), ("diagnoses", list(codes)), ("copies", result.copies)):
                live.trial.set_user_attr(name, found)
        self._keep_image(live)
        live.study.tell(live.trial, value, state)
        if time.monotonic() - self.saved > SECONDS_PER_SAVE:
            self.save_time()
        with self.study.cached_trials():
            if self.plan is not None:
                self.plan.learn()
            results.write(self.study)
            self.progress = self._look()
        best = live.status.best if value is None else value
        self._emit("ended", replace(live.status, state=state.name.lower(), best=best, why=why, diagnoses=tuple(codes)))

    def _outcome(self, live: RunningTrial, result: TrialResult, died: bool) -> tuple[TrialState, float | None, str]:
        """Return the state, the value and the reason of a training that ended."""
        if result.state == "failed" or died:
            return TrialState.FAIL, None, result.why or "its worker process died"
        if result.state == "finished":
            value = result.best if result.value is None else result.value
            if not math.isfinite(value):  # Optuna would take infinity for a result, and its samplers learn from it
                return TrialState.FAIL, None, f"its {self.study.recipe.metric} was never finite"
            return TrialState.COMPLETE, value, ""
        own, epoch = live.trial.number, max(live.seen, default=0)
        others = [
            (score, trial.number)
            for trial in self.study.trials()
            for at, score in trial.intermediate_values.items()
            if trial.number != own and at <= epoch
        ]
        if not others:
            return TrialState.PRUNED, None, "stopped by the pruner"
        lowest, number = min(others)
        return TrialState.PRUNED, None, f"trial {number} had {terminal.number(lowest)} by epoch {epoch}"

    def _keep_image(self, live: RunningTrial) -> None:
        """Keep the images of a trial's best epoch, which `optuna-dashboard --artifact-dir` shows."""
        trial = live.study.get_trials(deepcopy=False)[live.trial.number]
        if live.study is not self.study.search or not trial.intermediate_values:
            return
        grid = self.study.folder_of(trial) / "samples" / f"epoch-{best_epoch_of(trial):04d}.png"
        if grid.is_file():
            store = _Artifacts(self.study.path / "artifacts")
            upload_artifact(artifact_store=store, file_path=str(grid), study_or_trial=live.trial)

    def _emit(self, kind: Literal["started", "measured", "interrupted", "ended"], status: TrialStatus) -> None:
        self.events.put(TrialEvent(kind, status, self.progress))

    def _look(self) -> SearchProgress:
        return SearchProgress.of(
            self.study,
            todo=self._todo_epochs(),
            slots=self.environment.slots,
            gpus=self.environment.gpus,
            gpu_seconds=self.gpu_seconds,
            planned=self.plan is not None,
            deadline=self.deadline(),
        )

    def _todo_epochs(self) -> float:
        live = [one.study for one in self.live.values()]
        finishing = {one.trial.user_attrs["of"] for one in self.live.values() if one.study is self.study.finishing}
        with self.study.cached_trials():
            return self.study.todo_epochs(live, finishing)
