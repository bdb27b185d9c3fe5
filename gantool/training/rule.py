"""The state of a run after an epoch, and the rules that judge it. Nothing here measures anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

FORMED_FD_SHARE = 0.2  # of the first fd, below which images have formed


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a run after an epoch.

    `values` holds metrics by name, see `metrics.evaluate`, and these: `train_images` and `held_out_images`, their
    numbers; `accuracy`, the share of images that D classifies correctly; `fake_answer`, the mean D(G(z)), 0 to 1;
    `gradient_left`, the norm of the generator's gradient over its largest in the first steps; `real_train_score`,
    `real_held_out_score` and `fake_score`, mean logits of D; `real_saturated` and `real_change`, the values of real
    images for `saturated` and `change`; and `floor_deviation`.
    """

    epoch: int  # that has ended, from 1
    step: int  # training steps so far
    measured: bool = True  # whether the epoch ended with a measurement; without one, `values` holds less
    losses: Mapping[str, float] = field(default_factory=dict)  # means over the epoch, by the log's names
    drifting: bool = False  # whether a healthy loss may be large, as that of `wasserstein`
    rates: Mapping[str, float] = field(default_factory=dict)  # learning rates by player, for the advice
    lost_classes: tuple[str, ...] = ()  # classes that appear less than a tenth as often as they should
    values: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """Return a value, or NaN if it is unknown or not finite. No condition is true of NaN."""
        value = self.values.get(name, math.nan)
        return value if math.isfinite(value) else math.nan

    def knows(self, *names: str) -> bool:
        """Return whether all these values are known."""
        return not any(math.isnan(self[name]) for name in names)

    def slower(self, player: str) -> str:
        """Return the change of a recipe that makes a player learn more slowly."""
        key, rate = f"train.{player}.lr", self.rates.get(player)
        # The usual rate is that of Radford et al. 2016, arXiv:1511.06434, sec. 4.
        return f"--set {key}={number(2e-4 if rate > 0.01 else rate / 4)}" if rate else key


@dataclass(frozen=True)
class Diagnosis:
    """A problem that began or ended."""

    code: str  # one of `diagnoses.CODES`
    began: bool  # else it ended
    epoch: int  # of the observation that decided it
    message: str  # one line for a person


class Rule:
    """One problem. `diagnoses` has them all."""

    code: str
    manual: str  # a summary in one line, and paragraphs: Seen, Why, Try, Harmless
    advice = ""  # may hold {generator}, {discriminator} and {both}: changes that make players learn more slowly
    length = 0  # epochs or measurements in a row at which the condition is true when the problem begins
    needs: tuple[str, ...] = ()  # values without which the condition is unknown
    every_epoch = False  # whether the condition is checked after every epoch; else at each measurement
    stalls = 0  # measurements in which the best fd must not have fallen for the problem to begin
    until_better = False  # whether the problem also ends when fd falls

    @property
    def row(self) -> str:
        """How long the condition must be true."""
        return f"at {self.length} {'epochs' if self.every_epoch else 'measurements'} in a row"

    def holds(self, now: Observation) -> bool:
        """Return whether the condition is true."""
        raise NotImplementedError

    def formed(self, now: Observation) -> bool:
        """Return whether the condition counts although fd falls, once fd is `FORMED_FD_SHARE` of the first."""
        return False

    def seen(self, now: Observation) -> str:
        """Return the numbers that show the problem."""
        raise NotImplementedError

    def message(self, now: Observation) -> str:
        """Return the line that reports that the problem begins."""
        slower = {name: now.slower(name) for name in ("generator", "discriminator")}
        advice = self.advice.format(**slower, both=" ".join(slower.values()))
        return f"{self.code}: {self.seen(now)} {self.row}; {advice}; gantool explain {self.code}"


def number(value: float) -> str:
    """Return a number with three digits.

    >>> number(9975.2), number(13.69), number(0.00005)
    ('9,975', '13.7', '5e-5')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}".replace("e-0", "e-")
