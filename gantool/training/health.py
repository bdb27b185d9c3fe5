"""The health of a run: which diagnoses begin and end from one observation to the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gantool.training.diagnoses import (
    _RULES,
    FORMED_FD_SHARE,
    Diagnosis,
    Observation,
    Verdict,
    _difference,
    _less,
    _not,
    _ratio,
    _Rule,
)


class Health:
    """Judges a run from one observation to the next, which come after every epoch.

    A rule looks at every epoch, or at those that were measured. A state begins when its condition was true at as many
    of them in a row as its rule says, and ends when it was false at two in a row; where a value is not known it is
    neither. Not a median over the last five: a row needs no more observations than its rule does, and errs towards
    silence, since one good observation among them breaks it.
    """

    def __init__(self) -> None:
        self._states = {rule.code: _State() for rule in _RULES}
        longest = max(rule.stalls for rule in _RULES)
        self._best: deque[float | None] = deque(maxlen=longest + 1)  # the lowest fd until each measurement
        self._first: float | None = None  # fd

    def observe(self, observation: Observation) -> list[Diagnosis]:
        """Take the next observation, and give the states that begin or end with it."""
        if observation.measured:
            self._first = observation.fd if self._first is None else self._first
            known = [fd for fd in (observation.fd, *self._best) if fd is not None]
            self._best.append(min(known, default=None))
        judged = [self._judge(rule, observation) for rule in _RULES if observation.measured or rule.every_epoch]
        return [diagnosis for diagnosis in judged if diagnosis is not None]

    @property
    def active(self) -> tuple[str, ...]:
        """Codes of the states that hold now, in the order of `CODES`."""
        return tuple(rule.code for rule in _RULES if self._states[rule.code].active)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next answers depend on, as plain values that are JSON too."""
        states = {code: asdict(state) for code, state in self._states.items()}
        return {"best": list(self._best), "first": self._first, "states": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state that `state_dict` gave."""
        self._best.clear()
        self._best.extend(state["best"])
        self._first = state["first"]
        self._states = {code: _State(**values) for code, values in state["states"].items()}

    def _judge(self, rule: _Rule, observation: Observation) -> Diagnosis | None:
        state, epoch = self._states[rule.code], observation.epoch
        holds = rule.holds(observation)
        stalled = not rule.stalls or self._stalled(rule.stalls, observation.floor_deviation)
        fails, before = holds is False or (rule.until_better and stalled is False), state.failed_at
        state.held = state.held + 1 if holds else 0
        state.failed_at = epoch if fails else None
        ripe = stalled or (rule.plain(observation) and _less(_ratio(self._best[-1], self._first), FORMED_FD_SHARE))
        if not state.active and state.held >= rule.length and ripe:
            state.active = True
            return Diagnosis(rule.code, True, epoch, rule.message(observation))
        if state.active and fails and before is not None:
            state.active = False
            return Diagnosis(rule.code, False, epoch, f"{rule.code}: is over since epoch {before}")
        return None

    def _stalled(self, count: int, deviation: float | None) -> Verdict:
        """Return whether the last `count` measurements left the lowest fd where it was, but for one deviation."""
        if len(self._best) <= count:
            return None
        return _not(_less(self._best[-1], _difference(self._best[-1 - count], deviation)))


@dataclass
class _State:
    """Where a rule stands.

    Args:
        held: epochs or measurements in a row, up to the last, at which its condition was true.
        failed_at: epoch of the last of them, if the condition was false there.
        active: whether its state has begun and not ended.
    """

    held: int = 0
    failed_at: int | None = None
    active: bool = False
