"""A search under way: hands out trials and takes what comes back, for whatever runs them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from gantool import terminal
from gantool.errors import ResourceError
from gantool.recipe import load as recipes
from gantool.training import engine
from gantool.tune import results
from gantool.tune.events import Listener
from gantool.tune.plan import Plan
from gantool.tune.race import most
from gantool.tune.samplers import Blind
from gantool.tune.study import ENDED, Study, best_epoch_of
from gantool.tune.trial import finite

OVERTIME_SHARE = 0.07  # of a search's time, after which it ends where it stands
SECONDS_PER_SAVE = 5.0  # seconds between two notes of how long a search has taken


@dataclass
class RunningTrial:
    """A trial that is running.

    Args:
        trial: Optuna's.
        study: the one that it is of, the search or its confirmation.
        label: what people call it.
        seen: epochs that were measured before this start, which it may measure again from its checkpoint.
        start: when it was handed out.
        last: its newest result.
    """

    trial: optuna.Trial
    study: optuna.Study
    label: str
    seen: frozenset[int]
    start: float = field(default_factory=time.monotonic)
    last: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialEnvironment:
    """What every trial's configuration says of where it runs.

    Args:
        data_dir: where data and learned extractors are.
        store: directory of the decoded data; empty where the data are searched.
        device: see `devices.choose`.
        gpus: of each trial, for the count of GPU hours.
        slots: trials at once.
    """

    data_dir: Path
    store: str
    device: str
    gpus: float = 0.0
    slots: int = 1


class Trials:
    """The trainings of a search, in this order: interrupted trials, new trials, new seeds, the recipe's full length.

    Whatever goes wrong inside of it is kept in `failure` and ends the search: an engine calls it from its own loop, and
    would make of an error what it likes.

    Args:
        study: the study.
        board: is told of every event.
        place: where trials run.
        stopped: not empty as soon as somebody ends the search.
        plan: of its time, by which it has as many trials as fit; None where the recipe says how many.
    """

    def __init__(
        self, study: Study, board: Listener, place: TrialEnvironment, stopped: list[int], plan: Plan | None = None
    ) -> None:
        self.study, self.board, self.place, self.stopped = study, board, place, stopped
        self.plan, self.searched = plan, False
        self.live: dict[str, RunningTrial] = {}
        self.failure: Exception | None = None
        self.start = self.saved = time.monotonic()
        self.before = float(study.search.user_attrs.get("seconds", 0.0))
        self.gpu_seconds = float(study.search.user_attrs.get("gpu_seconds", 0.0))
        self.count = len(study.trials())
        self.waiting = self._taken_up(study.search)
        self.unconfirmed = self._taken_up(study.confirmation)
        self.unfinished = self._taken_up(study.finishing)
        if study.tune.deterministic:
            study.search.pruner = Blind(study.search.pruner, lambda trial: int(trial.user_attrs.get("batch", 0)))

    def _taken_up(self, study: optuna.Study) -> list[optuna.Trial]:
        """Return the trials that an earlier search began and did not end."""
        found = []
        for old in study.get_trials(deepcopy=False):
            if old.state == TrialState.RUNNING:
                found.append(optuna.Trial(study, old._trial_id))  # asked for, it would be another one
        return found

    def spent_seconds(self) -> float:
        """Return the wall time of the search, in all of its starts."""
        return self.before + time.monotonic() - self.start

    def over(self) -> str:
        """Name the budget that is spent, or nothing."""
        tune = self.study.tune
        if tune.hours and self.spent_seconds() > 3600 * tune.hours:
            return f"tune.hours {tune.hours:g}"
        if tune.gpu_hours and self.gpu_hours() > tune.gpu_hours:
            return f"tune.gpu_hours {tune.gpu_hours:g}"
        if self.plan and time.monotonic() > self.plan.end + OVERTIME_SHARE * self.plan.seconds:
            return "--minutes"
        return ""

    def allowed_seconds(self) -> float:
        """Return the seconds that the budgets of time leave."""
        tune, found = self.study.tune, math.inf
        if tune.hours:
            found = 3600 * tune.hours - self.spent_seconds()
        if self.plan:
            found = min(found, self.plan.end - time.monotonic())
        return max(0.0, found)

    def gpu_hours(self) -> float:
        """Return the hours of GPUs that trials have used, those that are running too."""
        running = sum(time.monotonic() - one.start for one in list(self.live.values())) * self.place.gpus
        return (self.gpu_seconds + running) / 3600

    @property
    def stopping(self) -> bool:
        """Whether the search is ending before it is done."""
        return bool(self.stopped) or self.failure is not None or bool(self.over())

    def guarded(self, action: Callable[[], Any]) -> Any:
        """Do something to the study; an error of it ends the search, and is raised when the engine has stopped."""
        try:
            with self.study.database_errors():
                return action()
        except Exception as error:
            self.failure = self.failure or error
            return None

    def next(self, key: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial, which `key` then names; None while there is none to hand out."""
        return None if self.stopping else self.guarded(lambda: self._next(key))

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none will be handed out."""
        if self.live:
            return False
        waiting = self.waiting or self.unconfirmed or self.unfinished
        return self.stopping or not (waiting or self._left() or self._missing() or self._to_finish())

    def _left(self) -> int:
        if self.plan is None or self.searched:
            return max(0, self.study.wanted - self.count)
        if self.count == self.study.taken or self.plan.has_time_for_a_trial(self._epoch_seconds()):
            return 1
        self.searched = True
        self.study.replan(self.study.tune.model_copy(update={"trials": self.count - self.study.taken}))
        return 0

    def _searching(self) -> bool:
        """Return whether trials of the search itself run or are still to be run."""
        return any(live.study is self.study.search for live in self.live.values()) or bool(self.waiting or self._left())

    def _missing(self) -> list[tuple[int, int]]:
        """Return the trials and new seeds to train next; none before the search itself is done."""
        if self._searching():
            return []
        epochs = self.study.confirm_epochs
        if self.plan and not self.plan.has_time_for_a_seed(self._epoch_seconds()):
            if not self.live and not self.unconfirmed:
                self.study.adopt_runs()
            return []
        there = {
            (run.user_attrs["of"], run.user_attrs["seed"])
            for run in self.study.runs()
            if run.user_attrs.get("epochs", self.study.epochs) == epochs
        }
        return [pair for pair in self.study.race().pending if pair not in there]

    def _to_finish(self) -> list[tuple[int, int | None]]:
        """Return the trials and seeds whose trainings go on to the recipe's full length; none before it is decided."""
        if self._searching() or self.live or self.unconfirmed or self._missing():
            return []
        if self.plan and not self.unfinished:
            self.study.full_epochs = self.plan.full_epochs(self._epoch_seconds())
        there = {
            (run.user_attrs["of"], run.user_attrs["seed"])
            for run in self.study.finishes()
            if run.state == TrialState.RUNNING
        }
        return [pair for pair in self.study.to_finish() if pair not in there]

    def _epoch_seconds(self) -> float:
        """Return the seconds of an epoch, by the newest trainings that ended, or by the plan before one has."""
        ended = [run for run in [*self.study.trials(), *self.study.runs()] if run.state in ENDED]
        told = [
            (run.user_attrs["seconds"], run.last_step) for run in ended if run.last_step and "seconds" in run.user_attrs
        ]
        recent = told[-2 * self.place.slots :]
        return (
            sum(seconds for seconds, _ in recent) / sum(epochs for _, epochs in recent)
            if recent
            else self.plan.epoch
            if self.plan
            else 0.0
        )

    def _next(self, key: str) -> dict[str, Any] | None:
        if not self.waiting and self._left() and not (self.study.tune.deterministic and self.live):
            self._ask(min(self._left(), self.place.slots if self.study.tune.deterministic else 1))
        if self.waiting:
            return self._begin(key, self.waiting.pop(0), self.study.search)
        if not self.unconfirmed:
            for number, seed in self._missing()[:1]:
                params, epochs = self.study.trials()[number].params, self.study.confirm_epochs
                self.unconfirmed.append(
                    self.study.begin(self.study.confirmation, params, of=number, seed=seed, epochs=epochs)
                )
        if self.unconfirmed:
            return self._begin(key, self.unconfirmed.pop(0), self.study.confirmation)
        if not self.unfinished:
            for one, with_seed in self._to_finish():
                params = self.study.trials()[one].params
                self.unfinished.append(self.study.begin(self.study.finishing, params, of=one, seed=with_seed))
        if self.unfinished:
            return self._begin(key, self.unfinished.pop(0), self.study.finishing)
        return None

    def _ask(self, count: int) -> None:
        """Ask the study for new trials: a batch of them all at once, so that none knows how another one went."""
        batch = {"batch": self.count} if self.study.tune.deterministic else {}
        for _ in range(count):
            self.waiting.append(self.study.ask(**batch))
            self.count += 1

    def _begin(self, key: str, trial: optuna.Trial, study: optuna.Study) -> dict[str, Any]:
        number, seed = trial.user_attrs.get("of", trial.number), trial.user_attrs.get("seed")
        label = str(number) if seed is None else f"{number} seed {seed}"
        values = self.study.space.changes(trial.params)
        recipe, finish = self.study.recipe, self.study.tune.finish is not None
        # All trials have as many epochs, and so are measured after the same ones, by which they are compared.
        epochs, longer = self.study.epochs, finish and self.study.tune.confirm is None
        if study is self.study.confirmation:
            epochs, longer = trial.user_attrs.get("epochs", self.study.epochs), finish
        elif study is self.study.finishing:
            epochs, longer, label = self.study.full_epochs, True, f"{label} to the end"
        fixed = {"train.epochs": epochs, "train.keep_every": 0}
        if seed is not None:
            fixed["train.seed"] = seed
        folder = self.study.folder(number, seed)
        before = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.live[key] = RunningTrial(trial, study, label, frozenset(before))
        begun = max(before, default=0)
        if study is self.study.finishing:
            best = self.study.best_run(number)
            begun = max(begun, best.epochs if best else 0)
        self.board.started(label, values, folder, list(before.values()), epochs, begun)
        return {
            "label": label,
            "recipe": recipes.dump(engine.change(recipe, {**values, **fixed})),
            "folder": str(folder),
            "data_dir": str(self.place.data_dir),
            "store": self.place.store,
            "device": self.place.device,
            "keep_end": longer and (epochs < self.study.full_epochs or study is self.study.finishing),
            "judged": study is not self.study.search,
        }

    def measured(self, key: str, result: dict[str, Any]) -> bool:
        """Take a result, and tell whether the trial is not worth going on with."""
        return bool(self.guarded(lambda: self._measured(key, result)))

    def _measured(self, key: str, result: dict[str, Any]) -> bool:
        live = self.live.get(key)
        if live is None:
            return False
        if "halt" in result:
            what = result["halt"].partition(";")[0]
            self.failure = self.failure or ResourceError(f"{what}; make room, then run the same command")
        live.last = {**live.last, **result}
        if not finite(result):
            return False
        if result["resumed"] and live.trial.user_attrs.get("resumed") != result["resumed"]:
            live.trial.set_user_attr("resumed", result["resumed"])
        if result["epoch"] in live.seen:
            return False
        live.seen |= {result["epoch"]}  # its process may die, too
        live.trial.report(result["score"], result["epoch"])
        self.board.measured(live.label, result)
        # The recipe's own values are what the rest is compared with: they run to the end.
        return not result["finished"] and "own" not in live.trial.user_attrs and live.trial.should_prune()

    def ended(self, key: str, *, died: bool) -> None:
        """Take the end of a trial; `died`: its process did, more often than it is tried again."""
        self.guarded(lambda: self._ended(key, died))

    def _ended(self, key: str, died: bool) -> None:
        live = self.live.pop(key, None)
        if live is None:
            return
        if self.place.gpus:
            self.gpu_seconds += (time.monotonic() - live.start) * self.place.gpus
            self.study.search.set_user_attr("gpu_seconds", round(self.gpu_seconds, 1))
        result, behind = live.last, None
        if "interrupted" in result or "halt" in result or (self.stopping and not result.get("finished")):
            self.board.interrupted(live.label)
            return  # it stays RUNNING, and the next start takes it up
        why = result.get("why") or ("its worker process died" if died or not result else None)
        if why:
            live.trial.set_user_attr("why", why)
            state, value = TrialState.FAIL, None
        elif result["finished"]:
            state, value = TrialState.COMPLETE, result.get("value", result["best"])
        else:
            state, value, behind = TrialState.PRUNED, None, self._behind(live)
            live.trial.set_user_attr("why", behind)
        if result.get("copies") and "memorised" not in result["diagnoses"]:
            result["diagnoses"] = [*result["diagnoses"], "memorised"]  # the reason for its rank, whatever has begun yet
        for name in ("seconds", "diagnoses", "copies"):
            if name in result:
                live.trial.set_user_attr(name, result[name])
        self._keep_image(live)
        live.study.tell(live.trial, value, state)
        if time.monotonic() - self.saved > SECONDS_PER_SAVE:
            self.save_time()
        with self.study.cached_trials():
            results.write(self.study)
            self.board.ended(live.label, state, value, why or behind, result.get("diagnoses", []))

    def _behind(self, live: RunningTrial) -> str:
        """Return which trial had the lowest metric by the epoch at which one was stopped."""
        own, epoch = live.trial.number, max(live.seen, default=0)
        found = [
            (min(scores), trial.number)
            for trial in self.study.trials()
            if trial.number != own and (scores := [one for at, one in trial.intermediate_values.items() if at <= epoch])
        ]
        if not found:
            return "stopped by the pruner"
        lowest, number = min(found)
        return f"trial {number} had {terminal.number(lowest)} by epoch {epoch}"

    def _keep_image(self, live: RunningTrial) -> None:
        """Let the dashboard show the images of a trial's best epoch."""
        trial = live.study.get_trials(deepcopy=False)[live.trial.number]
        if live.study is self.study.search and trial.intermediate_values:
            grid = self.study.folder_of(trial) / "samples" / f"epoch-{best_epoch_of(trial):04d}.png"
            if grid.is_file():
                self.study.keep_image(live.trial, grid)

    def save_time(self) -> None:
        """Keep how long the search has taken so far, for its budget."""
        self.study.search.set_user_attr("seconds", round(self.spent_seconds(), 1))
        self.saved = time.monotonic()

    def todo_epochs(self) -> float:
        """Return the epochs of the trainings that have not started yet, at the most.

        A trial of the search counts with the epochs that the ended ones had, because many are stopped early.
        """
        study, ended = self.study, self.study.spent()
        live = [one.study for one in self.live.values()]
        usual = sum(trial.last_step or 0 for trial in ended) / len(ended) if ended else study.epochs
        search = max(0, study.wanted - len(ended) - live.count(study.search))
        searching = bool(search or live.count(study.search))
        race, found = study.race(), search * usual
        if searching or not race.over:
            if study.tune.confirm is not None:
                candidates = min(study.tune.confirm.top, study.wanted - 1) if searching else len(study.candidates())
                through = sum(run.state in ENDED for run in study.runs())
                count = max(len(race.pending), most(candidates, len(study.seeds())) - through)
                found += max(0, count - live.count(study.confirmation)) * study.confirm_epochs
            if study.tune.finish is not None:
                found += 2 * max(0, study.full_epochs - (study.confirm_epochs if study.tune.confirm else study.epochs))
            return found
        started = {one.trial.user_attrs["of"] for one in self.live.values() if one.study is study.finishing}
        for number, _ in study.to_finish():
            best = study.best_run(number)
            if best is not None and number not in started:
                found += study.full_epochs - best.epochs
        return found
