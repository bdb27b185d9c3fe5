"""The health of a run: which diagnoses begin and end from one observation to the next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gantool.training.diagnoses import RULES
from gantool.training.rule import FORMED_FD_SHARE, Diagnosis, Observation, Rule


@dataclass
class _State:
    """The state of a rule."""

    held: int = 0  # epochs or measurements in a row, up to the last, at which its condition was true
    failed_at: int | None = None  # epoch of the last one, if the condition was false there
    active: bool = False  # whether its problem began and did not end


class Health:
    """Judges a run after every epoch.

    A problem begins if its condition was true at as many epochs or measurements in a row as its rule says, and ends if
    it was false at two in a row. An observation that lacks what the condition needs counts as neither. A median over
    the last five would need more observations; a row errs towards silence, since one good observation breaks it.
    """

    def __init__(self) -> None:
        self._states = {rule.code: _State() for rule in RULES}
        longest = max(rule.stalls for rule in RULES)
        self._best: deque[float | None] = deque(maxlen=longest + 1)  # the lowest fd until each measurement
        self._first: float | None = None  # fd

    def observe(self, now: Observation) -> list[Diagnosis]:
        """Return the problems that begin or end with the next observation."""
        if now.measured:
            fd = now["fd"] if now.knows("fd") else None
            self._first = fd if self._first is None else self._first
            known = [each for each in (fd, *self._best) if each is not None]
            self._best.append(min(known, default=None))
        changes = [self._judge(rule, now) for rule in RULES if now.measured or rule.every_epoch]
        return [diagnosis for diagnosis in changes if diagnosis is not None]

    @property
    def active(self) -> tuple[str, ...]:
        """Codes of the problems that the run has now, in the order of `CODES`."""
        return tuple(code for code, state in self._states.items() if state.active)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next answers depend on, as plain values that are JSON too."""
        states = {code: asdict(state) for code, state in self._states.items()}
        return {"best": list(self._best), "first": self._first, "states": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state that `state_dict` returned."""
        self._best.clear()
        self._best.extend(state["best"])
        self._first = state["first"]
        self._states = {rule.code: _State(**state["states"][rule.code]) for rule in RULES}

    def _judge(self, rule: Rule, now: Observation) -> Diagnosis | None:
        state, known = self._states[rule.code], now.knows(*rule.needs)
        holds = known and rule.holds(now)
        stalled = not rule.stalls or self._stalled(rule.stalls, now["floor_deviation"])
        fails, before = (known and not holds) or (rule.until_better and stalled is False), state.failed_at
        state.held = state.held + 1 if holds else 0
        state.failed_at = now.epoch if fails else None
        if not state.active and state.held >= rule.length and (stalled or (rule.formed(now) and self._has_formed())):
            state.active = True
            return Diagnosis(rule.code, True, now.epoch, rule.message(now))
        if state.active and fails and before is not None:
            state.active = False
            return Diagnosis(rule.code, False, now.epoch, f"{rule.code}: is over since epoch {before}")
        return None

    def _stalled(self, count: int, deviation: float) -> bool | None:
        """Return whether the best fd fell by one deviation at most in `count` measurements; None if unknown."""
        if len(self._best) <= count or math.isnan(deviation):
            return None
        best, before = self._best[-1], self._best[-1 - count]
        return None if best is None or before is None else best >= before - deviation

    def _has_formed(self) -> bool:
        """Return whether fd has fallen so far that images are not alike because they are young."""
        best, first = self._best[-1], self._first
        return best is not None and first is not None and first > 0 and best / first < FORMED_FD_SHARE
