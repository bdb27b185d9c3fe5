"""Output of the events of a search: a live table on a terminal, a line for each trial elsewhere, or JSON."""

from __future__ import annotations

import logging
import math
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gantool import terminal
from gantool.recipe.blocks import Recipe
from gantool.tune import results
from gantool.tune.events import Event, SearchEnded, SearchProgress, SearchStarted, TrialEvent, TrialStatus
from gantool.tune.space import names

logger = logging.getLogger(__name__)

TOP_TRIALS = 10  # in the table while the search runs
INLINE_GAIN = 1.2  # times the seconds of the trials; a search with workers that takes longer was too short
_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "fail": "red"}
_WORDS = {"complete": "finished", "pruned": "stopped early", "fail": "failed", "running": "running"}


def as_object(event: Event, metric: str) -> dict[str, Any]:
    """Return an event as plain values, for programs."""
    if isinstance(event, SearchStarted):
        done, wanted = event.progress.done, event.progress.wanted
        counts = {"done": done, "trials": max(wanted, done), "interrupted": event.interrupted}
        return {"event": "begin", "study": str(event.study.shown), **counts}
    if isinstance(event, SearchEnded):
        known = results.summary(event.study)
        return {
            "event": "end",
            "study": str(event.study.shown),
            "interrupted": event.interrupted,
            "spent_budget": event.budget or None,
            **{name: known[name] for name in ("best", "sentence", "verdict")},
        }
    trial = event.trial
    fields: dict[str, Any] = {"event": event.kind, "trial": trial.label}
    if event.kind == "started":
        return fields | {"values": trial.values}
    if event.kind == "interrupted":
        return fields | {"epoch": trial.reached()}
    if event.kind == "measured":
        return fields | {"epoch": trial.epoch, metric: trial.scores[-1], "best": trial.best}
    best = trial.best if math.isfinite(trial.best) else None
    fields |= {"state": trial.state, "epoch": trial.epoch, metric: best}
    return fields | {"why": trial.why or None, "diagnoses": list(trial.diagnoses)}


class Board:
    """Shows the events of a search, with trials ranked by their metric, or as JSON on standard output."""

    def __init__(self, recipe: Recipe, *, as_json: bool = False) -> None:
        self.as_json, self.metric = as_json, recipe.metric
        self.keys = list(recipe.tune.space) if recipe.tune else []
        self.start = time.monotonic()
        self.rows: dict[str, TrialStatus] = {}
        self.interrupted = False  # whether trials that have not ended wait for the next start
        self.progress = SearchProgress(0, 0, 0, "", (), None, None)
        self.spent: list[tuple[float, int]] = []  # seconds and epochs of the trainings that ended since the start
        self.search_start = self.start
        self.live = Live(get_renderable=self._live_view, console=terminal.err, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.live.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, SearchStarted):
            self._start(event)
        elif isinstance(event, TrialEvent):
            self._update(event)
        if self.as_json:
            terminal.event(as_object(event, self.metric))
        if isinstance(event, SearchEnded):
            self._end(event)

    def _start(self, event: SearchStarted) -> None:
        self.progress, self.search_start = event.progress, time.monotonic()
        self.rows = {trial.label: trial for trial in event.trials}
        done, resumed = event.progress.done, event.interrupted
        line = f"study {event.study.shown}"
        if done or resumed:
            line += f": {done} of {max(event.progress.wanted, done)} trials done"
        logger.info(line + (f"; {terminal.several(resumed, 'interrupted training')} resumed" if resumed else ""))

    def _update(self, event: TrialEvent) -> None:
        trial, self.progress = event.trial, event.progress
        if terminal.is_live() and not self.as_json:
            self.live.start()
        self.rows[trial.label] = trial
        if event.kind == "interrupted":
            self.rows.pop(trial.label)
        if event.kind != "ended":
            return
        self.spent.append((time.monotonic() - trial.start, trial.epoch - trial.first_epoch))
        if not terminal.err.is_terminal and not self.as_json:
            found = "; ".join(filter(None, (self._score(trial), trial.why)))
            state = f"{_WORDS[trial.state]} at epoch {trial.epoch}"
            own = " (your recipe)" if trial.label.split()[0] == str(self.progress.own) else ""
            logger.info(f"trial {trial.label}{own} {state}: {found}; {'; '.join(self._header())}")

    def _end(self, event: SearchEnded) -> None:
        self.live.stop()
        self.progress = SearchProgress.of(event.study)
        if self.as_json:
            return
        rows = [row for row in self.rows.values() if not row.is_further]
        self.interrupted = event.interrupted
        if rows:
            terminal.wide(self.table(rows))
        if rows and self.progress.confirmed:
            logger.info(f"{self.metric} is of one seed; new seeds: mean ± standard deviation (number of seeds)")
        if event.budget:
            logger.info(f"{event.budget} is spent; with more of it, the same command resumes the search")
        trained = sum(seconds for seconds, _ in self.spent)
        took = time.monotonic() - self.search_start
        too_long = event.study.settings.get("engine") == "ray" and trained and INLINE_GAIN * trained < took
        if too_long and not (event.interrupted or event.budget):
            logger.info(
                f"the search was too short for workers: it took {terminal.duration(took)}, and would have taken about "
                f"{terminal.duration(trained)} with --engine inline"
            )

    def _live_view(self) -> Group:
        parts: list[RenderableType] = [Text("\n".join(self._header()), style="bold"), self.table()]
        running = [row for row in self.rows.values() if row.state == "running"]
        if running:
            table = Table.grid(padding=(0, 2))
            for row in running:
                reached = row.reached()
                bar, epochs = ProgressBar(row.epochs, reached, width=24), f"{reached}/{row.epochs}"
                table.add_row(f"trial {row.label}", bar, epochs, self._score(row), sparkline(row.scores))
            parts += [Text(), table]
        return Group(*parts)

    def _score(self, row: TrialStatus) -> str:
        return f"{self.metric} {terminal.number(row.best)}" if math.isfinite(row.best) else ""

    def _header(self) -> tuple[str, str]:
        """Return the numbers of trials, and the time used and left with the best result so far."""
        states = [row.state for row in self.rows.values() if not row.is_further]
        counts = ", ".join(f"{states.count(state)} {word}" for state, word in _WORDS.items() if states.count(state))
        trials = counts or "0"
        if not self.progress.planned:
            trials += f" of {self.progress.wanted}"
        if self.progress.reseeded or any(" seed " in label for label in self.rows):
            trials += f"; {terminal.several(self.progress.reseeded, 'training')} with new seeds done"
        parts = [f"{terminal.duration(time.monotonic() - self.start)} so far{self._left()}"]
        if self.progress.gpus:
            running = sum(time.monotonic() - row.start for row in self.rows.values() if row.state == "running")
            parts.append(f"{(self.progress.gpu_seconds + running * self.progress.gpus) / 3600:.2f} GPU hours")
        if self.progress.summary:
            parts.append(self.progress.summary)
        return trials, "; ".join(parts)

    def _left(self) -> str:
        """Return the estimated time left: the remaining epochs on all slots times the mean seconds of an epoch."""
        trained = sum(epochs for _, epochs in self.spent)
        if not trained:
            return ""
        running = [max(0, row.epochs - row.reached()) for row in self.rows.values() if row.state == "running"]
        epochs = max((self.progress.todo + sum(running)) / self.progress.slots, *running, 0)
        left = epochs * sum(seconds for seconds, _ in self.spent) / trained
        allowed = max(0.0, self.progress.deadline - time.monotonic())
        return f", about {terminal.duration(min(left, allowed))} left"

    def table(self, rows: list[TrialStatus] | None = None) -> Table:
        """Return the table of `rows`, or by default of the best trials that have ended."""
        final = rows is not None
        rows = rows or [row for row in self.rows.values() if row.state != "running" and not row.is_further]
        order = {str(one.number): place for place, one in enumerate(self.progress.confirmed)}
        rows = sorted(rows, key=lambda row: (order.get(row.label, len(order)), row.best, int(row.label.split()[0])))
        columns = [
            terminal.Column("trial", right=True),
            terminal.Column(self.metric, right=True),
            *([terminal.Column("new seeds", right=True, order=1)] if order else []),
            terminal.Column("epoch", right=True, order=len(self.keys) + 2),
            terminal.Column("", order=len(self.keys) + 3),  # the sparkline
            *(terminal.Column(name, order=2 + index) for index, name in enumerate(names(self.keys).values())),
            terminal.Column("state", wraps=True),
        ]
        cells = [self._cells(row, final=final) for row in (rows if final else rows[:TOP_TRIALS])]
        console = terminal.out if final else terminal.err
        return terminal.fitted(columns, cells, console.width if console.is_terminal else terminal.PIPED_COLUMNS)

    def _cells(self, row: TrialStatus, *, final: bool) -> list[str]:
        """Return the cells of a trial, with markup."""
        progress, words = self.progress, _WORDS | ({"fail": row.why} if row.why else {})
        words |= {"running": "interrupted"} if self.interrupted else {}
        marks = ["winner"] if row.label == str(progress.winner) and final else []
        marks += ["your recipe"] if row.label == str(progress.own) else []
        state = ", ".join([*marks, words.get(row.state, row.state), *(row.diagnoses if row.state != "fail" else ())])
        one = next((one for one in progress.confirmed if str(one.number) == row.label), None)
        count = f" ({len(one.values)})" if one and math.isfinite(one.mean) else ""
        return [
            escape(row.label),
            terminal.number(row.best) if math.isfinite(row.best) else "",
            *([f"{one or ''}{count}"] if progress.confirmed else []),
            f"{row.reached()}/{row.epochs}",
            sparkline(row.scores),
            *(escape(_value(row.values.get(key, ""))) for key in self.keys),
            f"[{_COLOURS[row.state]}]{escape(state)}[/]",
        ]


def sparkline(scores: tuple[float, ...], width: int = 8) -> str:
    """Draw the last values of a metric.

    >>> sparkline((3.0, 2.0, 1.0))
    '█▄▁'
    """
    shown = scores[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    return "".join(_BARS[int((score - low) / span * (len(_BARS) - 1))] for score in shown)


def _value(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if 0.9 <= value < 1 else f"{value:.3g}"  # a second beta differs late
