"""What a search found, in the recipe's own values, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gantool.tune.race import Confirmed
from gantool.tune.space import COMPLEMENT
from gantool.tune.study import Study, disqualified
from gantool.tune.verdict import Verdict

MIN_TRIALS_FOR_IMPORTANCE = (
    20  # measured trials, below which an importance is called a guess: of mere noise one parameter gets half as well
)


@dataclass(frozen=True)
class Findings:
    """The trials of a search; the lower their metric, the better."""

    metric: str
    trials: list[FrozenTrial]
    values: list[dict[str, Any]]  # of each trial by dotted key; a key is missing where a condition leaves it out
    logarithmic: frozenset[str]  # keys whose orders of magnitude were searched
    complements: frozenset[str]  # keys of which 1 - value was searched, in orders of magnitude
    confirmed: list[Confirmed]  # the winner and then the lowest mean first
    winner: int | None = None  # the number of the trial that the search recommends
    verdict: Verdict | None = None
    made_with: str = ""  # versions and machine
    name: str = ""  # of the study

    @property
    def keys(self) -> list[str]:
        """The parameters, in the order in which they first appear."""
        return list(dict.fromkeys(key for values in self.values for key in values))

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that are over."""
        return [trial for trial in self.trials if trial.state.is_finished()]

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that came to their last epoch with a number."""
        return [trial for trial in self.trials if math.isfinite(result(trial))]

    @property
    def measured(self) -> list[FrozenTrial]:
        """The trials that did finished, or were stopped early, with a number."""
        stopped = [trial for trial in self.ended if trial.state == TrialState.PRUNED and math.isfinite(score(trial))]
        return self.finished + stopped

    @property
    def unmeasured(self) -> list[FrozenTrial]:
        """The trials that failed, or finished without a number."""
        lost = (TrialState.FAIL, TrialState.COMPLETE)
        return [trial for trial in self.ended if trial.state in lost and not math.isfinite(result(trial))]

    def counts(self, trial: FrozenTrial) -> bool:
        """Return whether a trial's metric counts: not where its images are copies, unless the recipe's own are too."""
        own = next((trial for trial in self.trials if trial.number == self.own), None)
        return not disqualified(trial) or (own is not None and disqualified(own))

    @property
    def ranked(self) -> list[FrozenTrial]:
        """The finished trials whose metric counts, or all where none does, the lowest metric first."""
        sound = [trial for trial in self.finished if self.counts(trial)]
        return sorted(sound or self.finished, key=lambda trial: (result(trial), trial.number))

    @property
    def best(self) -> FrozenTrial | None:
        """The trial that the search recommends."""
        return next((trial for trial in self.trials if trial.number == self.winner), None)

    @property
    def caveat(self) -> str:
        """What is added where importances rest on few trials."""
        count = len(self.measured)
        return f"; a guess from {count} trials" if count < MIN_TRIALS_FOR_IMPORTANCE else ""

    @property
    def own(self) -> int | None:
        """The number of the trial with the recipe's own values."""
        return next((trial.number for trial in self.trials if trial.user_attrs.get("own")), None)

    def called(self, number: int) -> str:
        """Return the name of a trial in a sentence."""
        return "the recipe's own values" if number == self.own else f"trial {number}"


def result(trial: FrozenTrial) -> float:
    """Return the metric of a finished trial, and NaN of any other."""
    return trial.value if trial.state == TrialState.COMPLETE and trial.value is not None else math.nan


def score(trial: FrozenTrial) -> float:
    """Return the metric of a trial at its best, or NaN if it was never measured."""
    known = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return result(trial) if math.isfinite(result(trial)) else min(known, default=math.nan)


def by_key(values: Mapping[str, Any], key: str) -> Any:
    """Return Optuna's value or distribution of a key; of 1 - value it has another name."""
    return values.get(key, values.get(f"{COMPLEMENT}{key}"))


def is_number(value: Any) -> bool:
    """Return whether a recipe's value is a number that can be compared."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def figure(value: Any, digits: int = 4) -> str:
    """Return a recipe's value as text, with about four digits.

    >>> figure(0.00123456), figure(0.5), figure(0.99985), figure(64), figure(True)
    ('1.235e-3', '0.5', '0.99985', '64', 'true')
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if not isinstance(value, float):
        return str(value)
    digits = max(digits, 6) if 0.99 < value < 1 else digits  # for an Adam's beta 0.9995 and 0.9999 are far apart
    text = f"{value:.{digits}g}"
    if "e" not in text and (value == 0 or abs(value) >= 0.01 or not math.isfinite(value)):
        return text
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def findings(study: Study) -> Findings:
    """Return a study for `insight` to make sense of."""
    winner = study.winner()
    return Findings(
        study.recipe.metric,
        study.trials(),
        [study.space.changes(trial.params) for trial in study.trials()],
        study.space.logarithmic(),
        study.space.complements(),
        study.confirmed(),
        None if winner is None else winner.number,
        study.verdict(),
        study.made_with,
        study.path.name,
    )
