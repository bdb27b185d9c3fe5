"""The trials of a search on Ray Tune, whose own memory of them is thrown away: the study's is the true one."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from gantool.errors import ResourceError
from gantool.tune.cluster.connect import Slots
from gantool.tune.inline import Objective
from gantool.tune.trials import Trials

RETRIES = 3  # of a trial whose worker process or machine died; a trial that merely fails is not tried again
GRACE = 30.0  # seconds for workers to save where they stand, when a search ends before it is done


def run_trials(trials: Trials, slots: Slots, objective: Objective) -> None:
    """Run all trials that are left on the cluster that this process is connected to."""
    study, stop = trials.study.path, trials.study.path / "stop"
    searcher = StudySearch(trials, str(stop))
    _clean(study)
    try:
        tune.Tuner(
            tune.with_resources(_carried(objective), {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the study says when it is enough
                search_alg=ConcurrencyLimiter(searcher, slots.count),
                scheduler=StudyScheduler(searcher),
                reuse_actors=True,  # a worker with torch loaded costs seconds
                trial_dirname_creator=lambda trial: trial.config["label"].replace(" ", "-"),
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(study),
                verbose=0,
                stop=Ending(trials, stop),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    except OSError as error:  # Tune cannot write what it keeps for itself
        trials.failure = trials.failure or ResourceError(
            f"{study}: {error.strerror or error}; make room, then run the same command"
        )
    finally:
        _clean(study)


def _carried(objective: Objective) -> Any:
    """Return the function that a worker calls with the configuration of each trial."""

    def carry(config: dict[str, Any]) -> None:
        with contextlib.closing(objective(config, Path(config["stop"]).exists)) as results:
            for result in results:
                tune.report(result)  # does not return where the trial is stopped early

    return carry


def _clean(study: Path) -> None:
    shutil.rmtree(study / "ray", ignore_errors=True)
    with contextlib.suppress(OSError):
        (study / "stop").unlink()


class StudySearch(Searcher):
    """Tune's way to the next trial.

    Args:
        trials: of the study.
        stop: path of the file that tells workers to save and end.
    """

    def __init__(self, trials: Trials, stop: str) -> None:
        super().__init__()
        self.trials, self.stop = trials, stop

    def suggest(self, trial_id: str) -> Any:
        """Return a trial's configuration, None while there is none, or that there will be no more."""
        config = self.trials.next(trial_id)
        if config is not None:
            return {**config, "stop": self.stop}
        return str(Searcher.FINISHED) if self.trials.finished else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: Tune asks the scheduler first, and skips this for a trial that it stops."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the end of a trial."""
        self.trials.ended(trial_id, died=error)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a search always starts from the study."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyScheduler(FIFOScheduler):
    """Stops what the study's pruner would prune, so that pruning survives a restart as the study does."""

    def __init__(self, searcher: StudySearch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a trial after each of its reports."""
        stop = self.searcher.trials.measured(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Ending(Stopper):
    """Ends a search before it is done: workers are asked to save, and after a grace are ended.

    Args:
        trials: tell whether it is ending.
        stop: the file whose being there asks the workers, on whatever machine they are.
    """

    def __init__(self, trials: Trials, stop: Path) -> None:
        self.trials, self.stop = trials, stop
        self.stop_requested = 0.0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave single trials to the scheduler."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials end now."""
        if not self.trials.stopping:
            return False
        if not self.stop_requested:
            self.stop_requested = time.monotonic()
            try:
                self.stop.touch()
            except OSError:  # a full disk: then they cannot save either
                return True
        return time.monotonic() - self.stop_requested > GRACE

    def __getstate__(self) -> dict[str, Any]:
        return {}
