"""Whether a setting beats the recipe's own values: exact rank statistics of a few trainings with new seeds.

The test is the two-sided Mann-Whitney test on the logarithm of the metric. The effect is the median of all ratios of a
training with the setting to one with the recipe's own values, and two of these ratios bound its interval (Hodges and
Lehmann 1963). The test assumes that trainings are independent and that the setting multiplies the metric by a
factor. It assumes no normal distribution. A training that failed counts as infinitely bad.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from gantool import terminal

LEVEL = 0.95  # of the intervals
MIN_SEEDS = 4  # with fewer the interval at this level is infinite
MAX_SEEDS = 100  # more are not worth training
_POWER = 1.96 + 0.84  # normal quantiles of a two-sided test at 0.05 that finds the effect in 80 of 100


@dataclass(frozen=True)
class Effect:
    """The factor by which a setting multiplies the metric, with its interval; below 1 the setting is better."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """What a search can say about its best setting.

    `better`: the setting beats the recipe's own values. `keep`: no setting did. `unsure`: the trainings cannot decide.
    `unconfirmed`: one training each, with the search's own seed.
    """

    kind: Literal["better", "keep", "unsure", "unconfirmed"]
    number: int | None  # the trial with the setting; None if only the recipe's own values finished
    metric: str
    values: tuple[float, ...] = ()  # the metric with the setting, for each seed
    own: tuple[float, ...] = ()  # the metric with the recipe's own values; empty if they did not finish
    effect: Effect | None = None  # None if there are no trainings with new seeds
    epochs: int = 0  # of these trainings
    copies: bool = False  # whether the setting is refused because its images are copies of training images

    @property
    def leads(self) -> bool:
        """Whether every training with the setting was better than every one with the recipe's own values."""
        return self.kind == "unsure" and max(self.values) < min(self.own)

    def sentence(self) -> str:
        """Return the verdict as a sentence, with its effect and interval."""
        trial = f"trial {self.number}"
        if self.number is None:
            has = f", which has {self.in_words(self.own)}" if self.own else ""
            return f"no other setting finished, so keep your recipe{has}"
        if not self.own:
            return f"your recipe has not finished; {trial} has {self.in_words(self.values)}"
        own = shown(self.own) if any(map(math.isfinite, self.values)) else self.in_words(self.own)
        has = f"has {self.in_words(self.values)} and your recipe {own}"
        seeds = "with one seed" if self.kind == "unconfirmed" else f"over {terminal.several(len(self.own), 'new seed')}"
        if self.copies:
            return f"{trial} copies its training images, so keep your recipe: {seeds}, it {has}"
        if self.kind == "unconfirmed" and self.values < self.own:
            return f"{trial} beat your recipe with one seed, which may be luck: it {has}"
        if self.kind in {"keep", "unconfirmed"}:
            return f"no setting beat your recipe, so keep it: {seeds}, {trial} {has}"
        return self._compared(f"{seeds}, it {has}")

    def _compared(self, numbers: str) -> str:
        assert self.effect is not None
        lower, least, most = (100 * (1 - ratio) for ratio in (self.effect.ratio, self.effect.high, self.effect.low))
        claim = f"trial {self.number} is better than your recipe"
        if self.kind == "unsure":
            interval = f"the effect lies between {most:.0f} % lower and {-least:.0f} % higher (95 % interval)"
            interval = interval if math.isfinite(least) else "these are too few results for an interval"
            return f"cannot tell yet whether {claim}: {numbers}; {interval}"
        if not math.isfinite(mean(self.own)):
            return f"{claim}: {numbers}"
        return (
            f"{claim}: {self.metric} is {lower:.0f} % lower (95 % interval {least:.0f} to {most:.0f} %) over "
            f"{len(self.own)} new seeds, {shown(self.values)} instead of {shown(self.own)}"
        )

    def in_words(self, values: Sequence[float]) -> str:
        """Return the mean of trainings in words, with the name of the metric."""
        return f"{self.metric} {shown(values)}" if any(map(math.isfinite, values)) else shown(values)

    @property
    def spread(self) -> float | None:
        """The standard deviation of the metric's logarithm between seeds; None if the seeds are too few."""
        parts = (self.values, self.own)
        if len(self.values) < MIN_SEEDS or not all(0 < value < math.inf for part in parts for value in part):
            return None
        return math.sqrt(statistics.fmean(statistics.variance(map(math.log, part)) for part in parts))

    def seeds_to_decide(self) -> int | None:
        """Return how many seeds would probably decide; None if the difference is too small, or is decided."""
        if self.kind != "unsure" or self.effect is None:
            return None
        least = max(MIN_SEEDS, len(self.values) + 2)
        if self.spread is None:
            return least
        effect = abs(math.log(self.effect.ratio))
        if effect <= 0:
            return None
        efficiency = 3 / math.pi  # of the rank test beside the t-test on normal data
        needed = max(least, math.ceil(2 * (_POWER * self.spread / effect) ** 2 / efficiency))
        return needed if needed <= MAX_SEEDS else None


def effect(values: Sequence[float], own: Sequence[float]) -> Effect:
    """Return the factor between two samples of a metric, with its interval, which is infinite for few values."""
    ratios = sorted(_log_ratio(value, other) for value in values for other in own)
    cut = critical_rank(len(values), len(own))
    low, high = (ratios[cut - 1], ratios[-cut]) if cut else (-math.inf, math.inf)
    return Effect(*(math.exp(part) if part < math.inf else math.inf for part in (statistics.median(ratios), low, high)))


@cache
def critical_rank(count: int, other: int) -> int:
    """Return which of the sorted ratios of two samples, counted from either end, bound the interval; 0 if none does."""
    ways = _ways(count, other)
    total, below, rank = math.comb(count + other, count), 0, 0
    while rank < len(ways) and 2 * (below + ways[rank]) <= (1 - LEVEL) * total:
        below += ways[rank]
        rank += 1
    return rank


@cache
def _ways(count: int, other: int) -> tuple[int, ...]:
    """Return in how many orders of two samples the Mann-Whitney statistic is 0, 1, 2 and so on."""
    if not count or not other:
        return (1,)
    found = [0] * (count * other + 1)
    for shift, part in ((other, _ways(count - 1, other)), (0, _ways(count, other - 1))):
        for index, ways in enumerate(part):
            found[index + shift] += ways
    return tuple(found)


def decide(metric: str, number: int, values: Sequence[float], own: Sequence[float], epochs: int, last: bool) -> Verdict:
    """Return the verdict on trainings with a setting and with the recipe's own values; no seeds follow the `last`."""
    found = effect(values, own)
    is_kept = found.ratio >= 1 and (last or len(values) >= 2)
    kind: Literal["better", "keep", "unsure"] = "better" if found.high < 1 else "keep" if is_kept else "unsure"
    return Verdict(kind, number, metric, tuple(values), tuple(own), found, epochs)


def log(value: float) -> float:
    """Return the logarithm, which is infinite for 0."""
    return math.log(value) if value > 0 else -math.inf


def _log_ratio(value: float, other: float) -> float:
    return 0.0 if value == other else log(value) - log(other)  # equal values may be infinite, or 0


def mean(values: Sequence[float]) -> float:
    """Return the geometric mean, or the median if a training failed or reached 0."""
    if all(math.isfinite(value) and value > 0 for value in values):
        return statistics.geometric_mean(values)
    return statistics.median(values)


def shown(values: Sequence[float]) -> str:
    """Return the mean of trainings in words, with the number of those that failed.

    >>> shown([2.0, 8.0]), shown([2.0, math.inf, 2.0]), shown([math.inf, math.inf])
    ('4.000', '2.000 (1 of 3 failed)', 'no result (2 of 2 failed)')
    """
    finite = list(filter(math.isfinite, values))
    if len(finite) == len(values):
        return terminal.number(mean(values))
    result = terminal.number(statistics.median(finite)) if finite else "no result"
    return f"{result} ({len(values) - len(finite)} of {len(values)} failed)"
