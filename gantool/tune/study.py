"""A study: the values that a search tries next, and the results of its trials so far."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from gantool.tune.race import SELECTION_SEEDS, Confirmed, Outcome, Race, most, race
from gantool.tune.record import TAKEN, StudyRecord
from gantool.tune.samplers import derived, sampler
from gantool.tune.verdict import Verdict

CONSTRAINTS = "constraints"  # Optuna's name of what makes a trial infeasible
FIRST_POINTS = "first_points"  # attribute of Optuna's study: what is tried after the recipe's own values
EARLIER = "an earlier study"  # the attribute `sampler` of the trials with these values
SEED_LIMIT = 1_000_000  # new seeds are smaller, so that people can type them
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class BestRun(NamedTuple):
    """A finished training of a trial."""

    folder: Path  # of its run
    epochs: int
    value: float  # the metric that it reached
    epoch: int  # of its best checkpoint
    seed: int | None  # the new seed; None for the search's own


class Study(StudyRecord):
    """A study with the results of its trials."""

    # The next trials

    def ask(self, **attributes: Any) -> optuna.Trial:
        """Start a new trial, whose values depend only on the trials so far and on the recipe's seed.

        The values are drawn in memory. On disk a trial appears with all of them at once, or not at all.
        """
        search, trials = self.search, self.search.get_trials(deepcopy=False)
        attributes |= {"sampler": self.tune.sampler, "pruner": self.tune.pruner, "tune_seed": self.tune.seed}
        if not any(trial.user_attrs.get("own") for trial in trials):
            return self.begin(search, self.space.own_point, own=True, **attributes)
        given = search.user_attrs.get(FIRST_POINTS, [])
        tried = sum(trial.user_attrs.get("sampler") == EARLIER for trial in trials[self.taken :])
        if tried < len(given):
            return self.begin(search, given[tried], **attributes | {"sampler": EARLIER})
        self._restore_states(trials)
        return self.begin(search, self._draw(trials).params, **attributes)

    def _draw(self, trials: list[FrozenTrial]) -> FrozenTrial:
        """Return the trial that the sampler draws after others."""
        taken, earlier_trials = self.search.user_attrs.get(TAKEN, (0, 0))
        # The random numbers of trials that were taken over are not used again.
        memory = optuna.create_study(sampler=sampler(self.tune, len(trials) - taken + earlier_trials))
        memory.add_trials([self._for_sampler(trial, trials) for trial in trials])
        self.space.ask(memory)
        drawn = memory.get_trials(deepcopy=False)[-1]
        self._states[drawn.number] = drawn.system_attrs
        return drawn

    def _restore_states(self, trials: list[FrozenTrial]) -> None:
        """Draw the trials of CMA-ES again that an earlier process has drawn, for the state that it keeps in trials.

        Optuna pickles that state. Reading it from a database would run the code that a stranger has put there.
        """
        for trial in trials:
            if trial.number in self._states or not trial.user_attrs.get("sampler") == self.tune.sampler == "cmaes":
                continue
            start = trial.datetime_start or datetime.min
            self._draw([_as_of(start, before) for before in trials[: trial.number]])

    def _for_sampler(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial:
        """Return a trial with the names of this version, without constraints, and with the worst value if it copies."""
        seen = copy.copy(trial)
        seen.system_attrs = self._states.get(trial.number, {})
        seen.params, seen.distributions = map(self.space.renamed, (trial.params, trial.distributions))
        if trial.state == TrialState.COMPLETE and disqualified(trial):
            seen.value = max(_value(one) for one in trials if one.state == TrialState.COMPLETE)
        return seen

    # The trials of the search

    @property
    def wanted(self) -> int:
        """The number of all trials: `tune.trials`, and those that were taken over from an earlier study."""
        return self.tune.trials + self.taken

    def spent(self) -> list[FrozenTrial]:
        """Return the trials that count: finished, stopped early or failed."""
        return [trial for trial in self.trials() if trial.state in ENDED]

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that ran to their end, the best first; disqualified ones come last."""
        found = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        own = self.own()
        # If the recipe's own values copy too, copying does not tell settings apart.
        all_copy = own is not None and disqualified(own)
        return sorted(found, key=lambda trial: (disqualified(trial) and not all_copy, _value(trial), trial.number))

    def own(self) -> FrozenTrial | None:
        """Return the trial with the recipe's own values, once it has started."""
        return next((trial for trial in self.trials() if trial.user_attrs.get("own")), None)

    # Trainings with new seeds

    def candidates(self) -> list[FrozenTrial]:
        """Return the trials that are trained with new seeds, the best first: without the recipe's own values."""
        if self.tune.confirm is None or self.own() is None:
            return []
        others = [trial for trial in self.finished() if not trial.user_attrs.get("own")]
        sound = [trial for trial in others if not disqualified(trial)]
        return (sound or others)[: self.tune.confirm.top]

    @property
    def confirm_epochs(self) -> int:
        """The epochs of the trainings with new seeds."""
        return (self.tune.confirm and self.tune.confirm.epochs) or self.epochs

    def seeds(self) -> list[int]:
        """Return the new seeds: those that choose the contender, then those that decide.

        The search's own seed is not among them: it chose the candidates, so their metrics with it are too low.
        """
        wanted = SELECTION_SEEDS + self.tune.confirm.seeds if self.tune.confirm else 0
        drawn = (derived(self.tune.seed, "confirm", index) % SEED_LIMIT for index in itertools.count())
        found: dict[int, None] = {}
        while len(found) < wanted:
            found[next(drawn)] = None
            found.pop(self.recipe.train.seed, None)
        return list(found)

    def race(self) -> Race:
        """Return the trainings with new seeds that are needed, and what those that ended show."""
        own, candidates = self.own(), self.candidates()
        if own is None or not candidates:
            return Race(())
        numbers = [trial.number for trial in candidates]
        return race(self.recipe.metric, own.number, numbers, self._outcomes(), self.seeds(), self.confirm_epochs)

    def _outcomes(self) -> dict[tuple[int, int], Outcome]:
        """Return the trainings with new seeds that ended and have as many epochs as `tune.confirm` asks for."""
        return {
            (run.user_attrs["of"], run.user_attrs["seed"]): Outcome(_value(run), disqualified(run))
            for run in self.runs()
            if run.state in ENDED and self.epochs_of_run(run) == self.confirm_epochs
        }

    def epochs_of_run(self, run: FrozenTrial | optuna.Trial) -> int:
        """Return the epochs that a training with a new seed is to have."""
        return int(run.user_attrs.get("epochs", self.epochs))

    def adopt_runs(self) -> None:
        """End the race with the decision seeds that the contender and the recipe's own values both have.

        If there are none, the search ends unconfirmed.
        """
        race, confirm, own = self.race(), self.tune.confirm, self.own()
        if race.over or confirm is None:
            return
        ended, seeds = self._outcomes(), self.seeds()[SELECTION_SEEDS:]
        pairs = 0
        if race.contender is not None and own is not None:
            while pairs < len(seeds) and all((one, seeds[pairs]) in ended for one in (race.contender, own.number)):
                pairs += 1
        self.replan(confirm=confirm.model_copy(update={"seeds": pairs}) if pairs else None)

    def confirmed(self) -> list[Confirmed]:
        """Return the means over new seeds of each trial's longest trainings, the winner and then the lowest first."""
        ended = [run for run in self.runs() if run.state in ENDED]
        longest: dict[int, int] = {}
        for run in ended:
            number = run.user_attrs["of"]
            longest[number] = max(longest.get(number, 0), self.epochs_of_run(run))
        means = []
        for number, epochs in longest.items():
            runs = [run for run in ended if run.user_attrs["of"] == number and self.epochs_of_run(run) == epochs]
            means.append(Confirmed(number, tuple(map(_value, runs)), epochs))
        winner = self.winner()
        return sorted(means, key=lambda one: (winner is None or one.number != winner.number, one.mean, one.number))

    # The result

    def verdict(self) -> Verdict | None:
        """Return the verdict on the best setting so far; None before a trial has finished."""
        finished, found, own = self.finished(), self.race().verdict, self.own()
        if not finished:
            return None
        values = (_value(own),) if own is not None and own.state == TrialState.COMPLETE else ()
        if found is not None:
            # A recipe that fails with its own seed cannot be kept, whatever it does with other seeds.
            return found if values else replace(found, kind="unconfirmed", own=(), effect=None, copies=False)
        verdict = Verdict("unconfirmed", None, self.recipe.metric, own=values, epochs=self.epochs)
        best = next((trial for trial in finished if not trial.user_attrs.get("own")), None)
        if best is None:
            return verdict
        copies = bool(values) and best != finished[0] and disqualified(best)
        return replace(verdict, number=best.number, values=(_value(best),), copies=copies)

    def winner(self) -> FrozenTrial | None:
        """Return the trial that the search recommends, which is never known to be worse than the recipe.

        Before trainings with new seeds it is the trial with the lowest metric. Afterwards it is the recipe itself,
        unless another setting is better, or every training with it was better than every one with the recipe.
        """
        finished, own, verdict = self.finished(), self.own(), self.race().verdict
        if verdict is None:
            return finished[0] if finished else None
        if verdict.kind == "better" or verdict.leads or own is None or own.state != TrialState.COMPLETE:
            return self.trials()[verdict.number] if verdict.number is not None else own
        return own

    def best_run(self, number: int) -> BestRun | None:
        """Return the best of the longest finished trainings of a trial, with any seed."""
        found = [trial for trial in self.trials() if trial.number == number]
        found += [run for run in [*self.runs(), *self.finishes()] if run.user_attrs["of"] == number]
        known = [run for run in found if run.state == TrialState.COMPLETE and run.intermediate_values]
        if not known:
            return None
        best = min(known, key=lambda run: (-(run.last_step or 0), _value(run)))
        seed = best.user_attrs.get("seed")
        return BestRun(self.folder_of(best), best.last_step or 0, _value(best), best_epoch_of(best), seed)

    def finalists(self) -> list[int]:
        """Return the trials whose trainings continue to the recipe's full length, once a verdict is reached.

        They are the best other setting, unless it is worse, and the recipe's own values.
        """
        verdict, own = self.verdict(), self.own()
        if self.tune.finish is None or verdict is None or not self.race().over:
            return []
        is_worse = verdict.kind == "keep" or (verdict.kind == "unconfirmed" and self.winner() is own)
        numbers = [] if verdict.number is None or is_worse else [verdict.number]
        return numbers if own is None else [*numbers, own.number]

    def to_finish(self) -> list[tuple[int, int | None]]:
        """Return the finalists, and the seeds of their trainings, that have not reached the recipe's full length."""
        failed = (TrialState.FAIL, TrialState.PRUNED)
        tried = {(run.user_attrs["of"], run.user_attrs["seed"]) for run in self.finishes() if run.state in failed}
        found = [(number, self.best_run(number)) for number in self.finalists()]
        wanted = [(number, best.seed) for number, best in found if best is not None and best.epochs < self.full_epochs]
        return [pair for pair in wanted if pair not in tried]

    def is_done(self) -> bool:
        """Return whether nothing is left to train."""
        return len(self.spent()) >= self.wanted and self.race().over and not self.to_finish()

    def todo_epochs(self, live: Sequence[optuna.Study], finishing: Set[int]) -> float:
        """Return the epochs of the trainings that have not started yet, at most.

        A trial of the search counts with the mean epochs of those that ended, because many are stopped early. `live`
        has the study of each running training, and `finishing` the trials that are being trained to the full length.
        """
        ended = self.spent()
        usual = sum(trial.last_step or 0 for trial in ended) / len(ended) if ended else self.epochs
        search = max(0, self.wanted - len(ended) - live.count(self.search))
        searching = bool(search or live.count(self.search))
        race, found = self.race(), search * usual
        if not searching and race.over:
            runs = [self.best_run(number) for number, _ in self.to_finish() if number not in finishing]
            return found + sum(self.full_epochs - best.epochs for best in runs if best is not None)
        if self.tune.confirm is not None:
            candidates = min(self.tune.confirm.top, self.wanted - 1) if searching else len(self.candidates())
            done = sum(run.state in ENDED for run in self.runs())
            count = max(len(race.pending), most(candidates, len(self.seeds())) - done)
            found += max(0, count - live.count(self.confirmation)) * self.confirm_epochs
        if self.tune.finish is not None:
            found += 2 * max(0, self.full_epochs - (self.confirm_epochs if self.tune.confirm else self.epochs))
        return found

    # For optuna-dashboard

    def agree(self) -> None:
        """Make the winner the `best_trial` of Optuna's study, and describe the study.

        Optuna compares the values, which are of one seed. So every trial whose value is lower than the winner's gets a
        violated constraint. Optuna changes no finished trial, so this is written to its table directly.
        """
        winner, trials = self.winner(), self.trials()
        rank = (-math.inf, 0) if winner is None else (_value(winner), winner.number)
        drop = text("DELETE FROM trial_system_attributes WHERE key = :key AND trial_id = :trial")
        add = text("INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (:trial, :key, '[1.0]')")
        with self.database_errors():
            with self._storage.engine.begin() as connection:
                for trial in trials:
                    row = {"key": CONSTRAINTS, "trial": trial._trial_id}
                    connection.execute(drop, row)
                    if trial.state == TrialState.COMPLETE and (_value(trial), trial.number) < rank:
                        connection.execute(add, row)
            self._describe()

    def _describe(self) -> None:
        """Write the metric's name, the versions and the verdict where the dashboard shows them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.search.set_metric_names([self.recipe.metric])
        verdict, winner = self.verdict(), self.winner()
        note = f"A search of the recipe {self.recipe.name} by gantool. Values are of one seed each; lower is better."
        if self.made_with:
            note = f"{note}\n\n{self.made_with}."
        if verdict is not None and winner is not None:
            note = f"{note}\n\n{verdict.sentence()}. The winner is trial {winner.number}."
        storage, key = self.search._storage, self.search._study_id
        version = storage.get_study_system_attrs(key).get("dashboard:note_ver", 0)
        for name, value in (
            ("dashboard:note_str:0", note[:2045]),
            ("dashboard:note_ver", version + 1 if isinstance(version, int) else 1),
        ):
            storage.set_study_system_attr(key, name, value)


def lowest(trial: FrozenTrial) -> float | None:
    """Return the metric of a trial at its best; Optuna's own value of a stopped trial is its last."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return min(trial.intermediate_values.values(), default=None)


def _as_of(time: datetime, trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as it was at a time: running if it ended later."""
    if trial.datetime_complete is None or trial.datetime_complete <= time:
        return trial
    state, attributes = TrialState.RUNNING, trial.user_attrs
    return optuna.trial.create_trial(
        state=state, params=trial.params, distributions=trial.distributions, user_attrs=attributes
    )


def best_epoch_of(trial: FrozenTrial) -> int:
    """Return the epoch in which a trial was best."""
    return min(trial.intermediate_values, key=lambda epoch: (trial.intermediate_values[epoch], epoch))


def disqualified(trial: FrozenTrial) -> bool:
    """Return whether a trial's images are copies of training images, which `fd` rewards.

    Trials of version 0.1 have only their diagnoses to show it.
    """
    return bool(trial.user_attrs.get("copies", "memorised" in trial.user_attrs.get("diagnoses", ())))


def _value(trial: FrozenTrial) -> float:
    return math.inf if trial.value is None else trial.value
