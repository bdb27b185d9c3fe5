"""How a search stands: a live table on a terminal, a line an event elsewhere, a ranked table at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gantool import show
from gantool.recipe import Recipe

if TYPE_CHECKING:
    from gantool.tune.study import Study

TOP = 10  # trials in the table while the search runs
_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "fail": "red"}


@dataclass
class Row:
    """What is known of a trial."""

    number: int
    values: dict[str, Any]
    state: str = "running"
    best: float = math.inf
    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    why: str = ""
    diagnoses: tuple[str, ...] = ()
    start: float = field(default_factory=time.monotonic)


class Board:
    """Shows a search. Rows are ranked by their metric, the best first."""

    def __init__(self, recipe: Recipe) -> None:
        self.tune = recipe.tune
        self.epochs = (recipe.tune.epochs if recipe.tune else None) or recipe.train.epochs
        self.rows: dict[int, Row] = {}
        self.home: Study | None = None
        self.start = time.monotonic()
        self.spent: list[float] = []  # seconds of the trials that ended in this search
        self._metric = recipe.metric
        self.live = Live(get_renderable=self._picture, console=show.err, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.live.stop()

    def tell(self, sentence: str) -> None:
        """Say what is being done."""
        show.tell(sentence)

    def begin(self, home: Study, old: list[FrozenTrial]) -> None:
        """Start to show a study, with the trials that it already has."""
        self.home = home
        for trial in old:
            row = Row(trial.number, home.space.changes(trial.params), trial.state.name.lower())
            row.scores = list(trial.intermediate_values.values())
            row.best = trial.value if trial.value is not None else min(row.scores, default=math.inf)
            row.epoch = max(trial.intermediate_values, default=0)
            row.why = str(trial.user_attrs.get("why", ""))
            row.diagnoses = tuple(trial.user_attrs.get("diagnoses", ()))
            self.rows[trial.number] = row
        total = home.tune.trials
        self.tell(
            f"study {home.shown}: {len(old)} of {total} trials done" if old else f"study {home.shown}: {total} trials"
        )
        if show.err.is_terminal and len(old) < total:
            self.live.start()

    def started(self, number: int, values: dict[str, Any]) -> None:
        """A trial has started."""
        self.rows[number] = Row(number, values)

    def measured(self, number: int, epoch: int, score: float, best: float) -> None:
        """A trial has been measured."""
        row = self.rows[number]
        row.epoch, row.best = epoch, best
        row.scores.append(score)

    def ended(
        self, number: int, state: TrialState, value: float | None, why: str | None, diagnoses: Sequence[str]
    ) -> None:
        """A trial has ended."""
        row = self.rows[number]
        row.diagnoses = tuple(diagnoses)
        row.state, row.why = state.name.lower(), why or ""
        row.best = value if value is not None else row.best
        self.spent.append(time.monotonic() - row.start)
        if self.home is not None:
            self.home.write_results()
        if not show.err.is_terminal:
            score = f"{self._metric} {show.number(row.best)}" if math.isfinite(row.best) else row.why
            best = min((r.best for r in self.rows.values() if r.state == "complete"), default=math.inf)
            self.tell(
                f"trial {number} {row.state} at epoch {row.epoch}: {score}; best so far {show.number(best)}; "
                f"{self._counts()}{self._left()}"
            )

    def finish(self) -> None:
        """Show the final table."""
        self.live.stop()
        show.out.print(self._table(list(self.rows.values())))

    def _picture(self) -> Group:
        elapsed = show.duration(time.monotonic() - self.start)
        return Group(Text(f"{self._counts()}   {elapsed} so far{self._left()}", style="bold"), self._table(None))

    def _counts(self) -> str:
        states = [row.state for row in self.rows.values()]
        words = {"complete": "finished", "pruned": "stopped early", "fail": "failed", "running": "running"}
        parts = [f"{states.count(state)} {word}" for state, word in words.items() if states.count(state)]
        return f"{', '.join(parts)} of {self.tune.trials if self.tune else 0}"

    def _left(self) -> str:
        done = sum(row.state != "running" for row in self.rows.values())
        if not self.spent or self.tune is None:
            return ""
        rate = (time.monotonic() - self.start) / len(self.spent)
        return f"   about {show.duration(rate * max(0, self.tune.trials - done))} left"

    def _table(self, rows: list[Row] | None) -> Table:
        chosen = sorted(self.rows.values() if rows is None else rows, key=lambda row: (row.best, row.number))
        table = Table(box=None, pad_edge=False)
        keys = list(self.tune.space) if self.tune else []
        for heading in ("trial", self._metric, "epoch", "", *map(_short, keys), "state"):
            justify: Literal["left", "right"] = "right" if heading in {"trial", self._metric, "epoch"} else "left"
            table.add_column(escape(heading), justify=justify, no_wrap=heading != "state")
        for row in chosen if rows is not None else chosen[:TOP]:
            colour = _COLOURS[row.state]
            words = {"complete": "finished", "pruned": "stopped", "fail": row.why or "failed"}
            told = ", ".join([words.get(row.state, row.state), *(row.diagnoses if row.state != "fail" else ())])
            table.add_row(
                str(row.number),
                show.number(row.best) if math.isfinite(row.best) else "",
                f"{row.epoch}/{self.epochs}",
                sparkline(row.scores),
                *(_value(row.values.get(key)) for key in keys),
                f"[{colour}]{escape(told)}[/]",
            )
        return table


def sparkline(scores: list[float], width: int = 8) -> str:
    """Draw how a metric went, lowest at the bottom.

    >>> sparkline([3.0, 2.0, 1.0])
    '█▄▁'
    """
    shown = scores[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    return "".join(_BARS[int((score - low) / span * (len(_BARS) - 1))] for score in shown)


def _short(key: str) -> str:
    """Name a dotted key by its end: train.optimizer.betas.0 is betas.0."""
    parts = key.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
