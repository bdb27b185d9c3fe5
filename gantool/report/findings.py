"""What a search found, in the recipe's own values, and how its numbers are written."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from gantool.tune.race import Confirmed
from gantool.tune.space import COMPLEMENT, names
from gantool.tune.study import Study, disqualified
from gantool.tune.verdict import Verdict

# With fewer measured trials an importance is called a guess: of mere noise one parameter gets half as well.
MIN_TRIALS_FOR_IMPORTANCE = 20


@dataclass(frozen=True)
class Parameter:
    """A key that was searched.

    Args:
        key: its dotted key in a recipe.
        name: the short name of the key.
        span: its range, as Optuna has it.
        complement: whether Optuna has 1 - value.
    """

    key: str
    name: str
    span: BaseDistribution
    complement: bool = False

    def place(self, value: Any) -> float:
        """Return where in the range a value lies, from 0 to 1."""
        if isinstance(self.span, CategoricalDistribution):
            return self.span.choices.index(value) / max(1, len(self.span.choices) - 1)
        assert isinstance(self.span, FloatDistribution | IntDistribution)
        ends = (self.span.low, self.span.high, 1 - value if self.complement else value)
        low, high, at = map(math.log, ends) if self.span.log else ends
        place = (at - low) / ((high - low) or 1)
        return 1 - place if self.complement else place

    def ticks(self) -> dict[float, str]:
        """Return places in the range with the values that belong there, as text."""
        if isinstance(self.span, CategoricalDistribution):
            return {self.place(choice): figure(choice) for choice in self.span.choices}
        assert isinstance(self.span, FloatDistribution | IntDistribution)
        low, high = self.span.low, self.span.high
        values = [low + part * (high - low) / 4 for part in range(5)]
        if self.span.log:
            values = round_values(low, high)
        values = [1 - value if self.complement else value for value in values]
        return {self.place(value): figure(value, 3) for value in values}


@dataclass(frozen=True)
class Findings:
    """The trials of a search; the lower their metric, the better.

    Args:
        metric: its name.
        trials: with this version's names of their parameters.
        confirmed: trainings with new seeds, the winner and then the lowest mean first.
        winner: the number of the trial that the search recommends.
        verdict: what the search can say about its best setting.
        made_with: versions and machine.
        name: of the study.
    """

    metric: str
    trials: list[FrozenTrial]
    confirmed: list[Confirmed]
    winner: int | None = None
    verdict: Verdict | None = None
    made_with: str = ""
    name: str = ""

    @cached_property
    def parameters(self) -> list[Parameter]:
        """The keys that were searched, in the order in which they first appear."""
        spans = {name: span for trial in self.trials for name, span in trial.distributions.items()}
        called = names(name.removeprefix(COMPLEMENT) for name in spans)
        keys = zip(called, spans.items(), strict=True)
        return [Parameter(key, called[key], span, name.startswith(COMPLEMENT)) for key, (name, span) in keys]

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return a trial's values by dotted key; a key is missing where a condition leaves it out."""
        found = {}
        for name, value in trial.params.items():
            key = name.removeprefix(COMPLEMENT)
            found[key] = value if name == key else 1 - value
        return found

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that are over."""
        return [trial for trial in self.trials if trial.state.is_finished()]

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that reached their last epoch with a number."""
        return [trial for trial in self.trials if math.isfinite(result(trial))]

    @property
    def stopped(self) -> list[FrozenTrial]:
        """The trials that were stopped early."""
        return [trial for trial in self.ended if trial.state == TrialState.PRUNED]

    @property
    def measured(self) -> list[FrozenTrial]:
        """The trials that finished or were stopped early, with a number."""
        return self.finished + [trial for trial in self.stopped if math.isfinite(score(trial))]

    @property
    def ranked(self) -> list[FrozenTrial]:
        """The finished trials whose metric counts, the lowest metric first.

        The metric does not count where the images are copies, unless those of the recipe's own values are copies too.
        """
        all_copy = any(disqualified(trial) for trial in self.trials if trial.number == self.own)
        sound = [trial for trial in self.finished if all_copy or not disqualified(trial)]
        return sorted(sound or self.finished, key=lambda trial: (result(trial), trial.number))

    @property
    def own(self) -> int | None:
        """The number of the trial with the recipe's own values."""
        return next((trial.number for trial in self.trials if trial.user_attrs.get("own")), None)

    def called(self, number: int) -> str:
        """Return the name of a trial in a sentence."""
        return "your recipe" if number == self.own else f"trial {number}"


def result(trial: FrozenTrial) -> float:
    """Return the metric of a finished trial, and NaN for any other."""
    return trial.value if trial.state == TrialState.COMPLETE and trial.value is not None else math.nan


def score(trial: FrozenTrial) -> float:
    """Return the metric of a trial at its best, or NaN if it was never measured."""
    known = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return result(trial) if math.isfinite(result(trial)) else min(known, default=math.nan)


def round_values(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis from one positive value to another."""
    decades = math.log10(high / low)
    leads = (1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, 1 + math.floor(decades / 8))
    found = [float(f"{lead}e{power}") for power in powers for lead in leads]
    found = [value for value in found if low <= value <= high]
    return found if len(found) > 1 else [low, high]


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
    """Return what a study found."""
    winner = study.winner()
    trials = []
    for trial in study.trials():
        renamed = copy.copy(trial)
        renamed.params, renamed.distributions = map(study.space.renamed, (trial.params, trial.distributions))
        trials.append(renamed)
    return Findings(
        study.recipe.metric,
        trials,
        study.confirmed(),
        None if winner is None else winner.number,
        study.verdict(),
        study.made_with,
        study.path.name,
    )
