"""Where a value stands on the axis of a plot, and which ticks that axis has."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gantool.report.findings import Findings, by_key, figure, is_number

TICKS = 6  # on an axis at most
_WIDEST = 18  # letters of a choice


@dataclass(frozen=True)
class Scale:
    """An axis: `low` and `high` are the places of its ends."""

    kind: Literal["linear", "logarithmic", "mirrored", "choice"]
    low: float
    high: float
    choices: tuple[str, ...] = ()
    whole: bool = False  # only whole numbers are ticks

    def place(self, value: Any) -> float:
        """Give the place of a value; one that has none is not a number."""
        if self.kind == "choice":
            text = figure(value)
            return float(self.choices.index(text)) if text in self.choices else math.nan
        if not is_number(value):
            return math.nan
        if self.kind == "linear":
            return float(value)
        given = value if self.kind == "logarithmic" else 1 - value
        if given <= 0:
            return math.nan
        return math.log10(given) if self.kind == "logarithmic" else -math.log10(given)

    def share(self, value: Any) -> float:
        """Tell how far up the axis a value stands, from 0 to 1."""
        return (self.place(value) - self.low) / (self.high - self.low)

    def ticks(self) -> dict[float, str]:
        """Give the places of the ticks and what is written there."""
        if self.kind == "choice":
            return {float(index): _clipped(choice) for index, choice in enumerate(self.choices)}
        found = self._even() if self.kind == "linear" else self._rough()
        return dict(sorted((self.place(value), figure(value)) for value in found))

    def _even(self) -> list[float]:
        from matplotlib.ticker import MaxNLocator

        ticks = MaxNLocator(TICKS - 1, steps=[1, 2, 5, 10], integer=self.whole).tick_values(self.low, self.high)
        return [float(tick) for tick in ticks if self._holds(tick)]

    def _rough(self) -> list[float]:
        """Give numbers such as 1, 2, 5, 10, as many as there is room for."""
        first, last = math.floor(min(self._exponents())), math.ceil(max(self._exponents()))
        best: list[float] = []
        for leads, step in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 4), ((1,), 10)):
            numbers = [lead * 10.0**power for power in range(first - first % step, last + 1, step) for lead in leads]
            values = [number if self.kind == "logarithmic" else 1 - number for number in numbers]
            held = [value for value in values if self._holds(self.place(value))]
            if len(best) < len(held) <= TICKS:
                best = held
        if len(best) > 1:
            return best
        return [value for value in self._narrow() if self._holds(self.place(value))]

    def _exponents(self) -> tuple[float, float]:
        return (self.low, self.high) if self.kind == "logarithmic" else (-self.high, -self.low)

    def _narrow(self) -> list[float]:
        """Give even ticks for orders of magnitude that are but a part of one."""
        ends = [10**power for power in self._exponents()]
        low, high = ends if self.kind == "logarithmic" else (1 - ends[1], 1 - ends[0])
        return Scale("linear", low, high, whole=self.whole)._even()

    def _holds(self, place: float) -> bool:
        slack = 1e-6 * (self.high - self.low)
        return self.low - slack <= place <= self.high + slack


def scale_of(findings: Findings, key: str) -> Scale:
    """Give the axis of a parameter, as wide as its range."""
    spans = [by_key(trial.distributions, key) for trial in findings.trials]
    span = next((span for span in spans if span is not None), None)
    found = [values[key] for values in findings.values if key in values]
    if isinstance(span, CategoricalDistribution) or not all(map(is_number, found)):
        known = span.choices if isinstance(span, CategoricalDistribution) else ()
        choices = tuple(dict.fromkeys(figure(value) for value in (*known, *found)))
        return Scale("choice", -0.5, len(choices) - 0.5, choices)
    ends: list[float] = found
    if isinstance(span, FloatDistribution | IntDistribution):
        ends = [span.low, span.high]
        if key in findings.mirrored:
            ends = [1 - end for end in ends]
    kind: Literal["linear", "logarithmic", "mirrored"] = "linear"
    if key in findings.mirrored and max(ends) < 1:
        kind = "mirrored"
    elif key in findings.logarithmic and min(ends) > 0:
        kind = "logarithmic"
    return _spanning(kind, ends, whole=all(isinstance(value, int) for value in found))


def metric_scale(scores: Iterable[float]) -> Scale:
    """Give the axis of a metric, logarithmic where its values are more than ten times apart."""
    ends = [score for score in scores if math.isfinite(score)]
    if not ends:
        return Scale("choice", 0.0, 1.0)  # without a tick
    wide = 0 < min(ends) < max(ends) / 10
    return _spanning("logarithmic" if wide else "linear", ends, margin=0.05)


def _spanning(
    kind: Literal["linear", "logarithmic", "mirrored"], ends: list[float], *, whole: bool = False, margin: float = 0.0
) -> Scale:
    places = [Scale(kind, 0, 1).place(end) for end in ends]
    low, high = min(places), max(places)
    room = margin * (high - low) or (0.0 if low < high else abs(low) / 10 or 0.5)  # a range of one value has no width
    return Scale(kind, low - room, high + room, whole=whole)


def _clipped(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
