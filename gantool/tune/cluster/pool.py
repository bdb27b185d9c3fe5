"""The trials of a search on Ray Tune, whose own record of them is deleted: the study is the only record."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from gantool.errors import DiskError, ResourceError
from gantool.files import remove, write
from gantool.tune.cluster.connect import Slots
from gantool.tune.events import Event
from gantool.tune.trial import Objective, TrialConfig, TrialResult
from gantool.tune.trials import Trials

RETRIES = 3  # of a trial whose worker process or machine died; a trial that fails is not tried again
GRACE = 30.0  # seconds for workers to save their state if a search ends before it is done
POLL = 0.5  # seconds between two checks for the end; Windows handles a signal only between them


def run_trials(trials: Trials, slots: Slots, objective: Objective) -> Iterator[Event]:
    """Run all remaining trials on the cluster that this process is connected to, and yield their events.

    Tune runs in a thread, so that this one handles a signal at once. Closing the iterator waits until trials are saved.
    """
    thread = threading.Thread(target=_run, args=(trials, slots, objective), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                yield trials.events.get(timeout=POLL)
    except GeneratorExit:
        trials.stopped.append(0)
        thread.join()
        raise
    yield from trials.pending_events()


def _run(trials: Trials, slots: Slots, objective: Objective) -> None:
    study, stop = trials.study.path, trials.study.path / "stop"
    searcher = StudySearch(trials, stop)
    _clean(study)
    try:
        tune.Tuner(
            tune.with_resources(_trainable(objective), {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the study decides when it is enough
                search_alg=ConcurrencyLimiter(searcher, slots.count),
                scheduler=StudyScheduler(searcher),
                reuse_actors=True,  # a new worker takes seconds to load torch
                trial_dirname_creator=lambda trial: trial.config["label"].replace(" ", "-"),
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(study),
                verbose=0,
                stop=GracefulStop(trials, stop),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    except OSError as error:  # Tune cannot write its own files
        trials.failure = trials.failure or ResourceError(
            f"{study}: {error.strerror or error}; make room, then run the same command"
        )
    except Exception as error:  # raised by the search
        trials.failure = trials.failure or error
    finally:
        _clean(study)


def _trainable(objective: Objective) -> Any:
    """Return the function that a worker calls with the configuration of each trial."""

    def train(config: dict[str, Any]) -> None:
        given = TrialConfig(**{name: value for name, value in config.items() if name != "stop"})
        with contextlib.closing(objective(given, Path(config["stop"]).exists)) as results:
            for result in results:
                tune.report(asdict(result))  # does not return if the trial is stopped early

    return train


def _clean(study: Path) -> None:
    remove(study / "ray")
    remove(study / "stop")


class _NotSaved:
    """A part of Tune whose state is not saved, because a search always starts from the study."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearch(_NotSaved, Searcher):
    """Suggests the next trial to Tune; workers save and end when the file `stop` exists."""

    def __init__(self, trials: Trials, stop: Path) -> None:
        super().__init__()
        self.trials, self.stop = trials, stop

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of a trial, None if none can start now, or that no more will follow."""
        config = self.trials.next(trial_id)
        if config is not None:
            return {**asdict(config), "stop": str(self.stop)}
        return str(Searcher.FINISHED) if self.trials.finished else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: Tune asks the scheduler first, and skips this for a trial that it stops."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the end of a trial."""
        self.trials.ended(trial_id, died=error)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class StudyScheduler(_NotSaved, FIFOScheduler):
    """Stops the trials that the study's pruner prunes."""

    def __init__(self, searcher: StudySearch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a trial after each of its reports."""
        own = TrialResult(**{field.name: result[field.name] for field in fields(TrialResult)})
        stop = self.searcher.trials.measured(trial.trial_id, own)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


class GracefulStop(_NotSaved, Stopper):
    """Ends a search before it is done: the file `stop` asks workers to save, and after `GRACE` they are ended."""

    def __init__(self, trials: Trials, stop: Path) -> None:
        self.trials, self.stop, self.deadline = trials, stop, 0.0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave single trials to the scheduler."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials end now."""
        if not self.trials.stopping:
            return False
        if not self.deadline:
            self.deadline = time.monotonic() + GRACE
            try:
                write(self.stop, "")
            except DiskError:  # on a full disk they cannot save either
                return True
        return time.monotonic() > self.deadline
