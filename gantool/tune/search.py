"""Ray's view of an Optuna study: what to try next, and what to stop. The study alone remembers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optuna import Study, Trial
from optuna.trial import TrialState
from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from gantool.tune.space import Space

if TYPE_CHECKING:
    from gantool.tune.board import Board


class StudySearch(Searcher):
    """Asks the study for each trial's values, and tells it how each one went.

    A trial that the pruner stops is PRUNED, one that diverges or fails is FAIL with a reason, and one that is under way
    when the search is interrupted stays RUNNING, for the next start to take up.

    Args:
        study: the study.
        space: what it searches.
        configure: gives the configuration of a trial's worker from its number and values.
        board: is told of every event.
        stopped: not empty as soon as the search is interrupted.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        configure: Callable[[int, dict[str, Any]], dict[str, Any]],
        board: Board,
        stopped: list[int],
    ) -> None:
        super().__init__(metric="score", mode="min")
        self.study, self.space, self.configure = study, space, configure
        self.board, self.stopped = board, stopped
        self.live: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Start a trial."""
        trial = self.study.ask(self.space.distributions)
        self.live[trial_id] = trial
        values = self.space.changes(trial.params)
        self.board.started(trial.number, values)
        return self.configure(trial.number, values)

    def judge(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Take a measurement, and tell whether the trial is not worth going on with."""
        trial, score = self.live.get(trial_id), result.get("score", math.nan)
        if trial is None or not math.isfinite(score):
            return False
        trial.report(score, result["epoch"])
        self.board.measured(trial.number, result["epoch"], score, result["best"])
        # The recipe's own values are what the rest is compared with: they run to the end.
        return not result["finished"] and "own" not in trial.user_attrs and trial.should_prune()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: Tune asks the scheduler first, and skips this for a trial that it stops."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        trial = self.live.pop(trial_id, None)
        if trial is None or (self.stopped and not (result or {}).get("finished")):
            return
        result = result or {}
        why = result.get("why") or ("its worker process died" if error or not result else None)
        for name in ("best_epoch", "epoch", "seconds", "diagnoses"):
            if name in result:
                trial.set_user_attr(name, result[name])
        if why:
            trial.set_user_attr("why", why)
            state, value = TrialState.FAIL, None
        elif result["finished"]:
            state, value = TrialState.COMPLETE, result["best"]
        else:
            state, value = TrialState.PRUNED, None
        self.study.tell(trial, value, state)
        self.board.ended(trial.number, state, value, why, result.get("diagnoses", []))

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a search always starts from the study."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyScheduler(FIFOScheduler):
    """Stops what the study's pruner would prune, so that pruning survives a restart as the study does."""

    def __init__(self, search: StudySearch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a trial after each of its reports."""
        stop = self.search.judge(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Interrupted(Stopper):
    """Ends the whole search once a signal has come."""

    def __init__(self, stopped: list[int]) -> None:
        self.stopped = stopped

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tell whether a trial ends after this report."""
        return bool(self.stopped)

    def stop_all(self) -> bool:
        """Tell whether all trials end now."""
        return bool(self.stopped)
