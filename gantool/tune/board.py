"""How a search stands: a live table on a terminal, a line an event elsewhere, objects for programs, a ranked table."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from optuna.trial import TrialState
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gantool import terminal
from gantool.recipe.blocks import Recipe
from gantool.tune import results
from gantool.tune.race import Confirmed
from gantool.tune.space import names
from gantool.tune.study import lowest

if TYPE_CHECKING:
    from gantool.tune.study import Study
    from gantool.tune.trials import Trials

logger = logging.getLogger(__name__)

TOP_TRIALS = 10  # trials in the table while the search runs
_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "fail": "red"}
_WORDS = {"complete": "finished", "pruned": "stopped early", "fail": "failed", "running": "running"}


@dataclass
class Row:
    """What is known of a trial, or of its training with another seed."""

    label: str
    values: dict[str, Any]
    state: str = "running"
    best: float = math.inf
    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    why: str = ""
    diagnoses: tuple[str, ...] = ()
    folder: Path | None = None
    epochs: int = 0  # that it will have in the end
    begun: int = 0  # epochs that it had when it started
    start: float = field(default_factory=time.monotonic)

    @property
    def again(self) -> bool:
        """Whether it is a further training of a trial: with a new seed, or to the recipe's full length."""
        return " " in self.label

    def reached(self) -> int:
        """Return the epoch that a running trial has ended, by its log, which is written more often than it reports."""
        if self.folder is None or self.state != "running":
            return self.epoch
        with contextlib.suppress(OSError, ValueError, KeyError), (self.folder / "log.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            return max(self.epoch, int(json.loads(file.read().splitlines()[-1])["epoch"]))
        return self.epoch


class Board:
    """Shows a search. Rows are ranked by their metric, the best first.

    Args:
        recipe: what is searched.
        as_json: an object a line on standard output, in place of tables.
    """

    def __init__(self, recipe: Recipe, *, as_json: bool = False) -> None:
        self.tune, self.as_json = recipe.tune, as_json
        self.epochs = (recipe.tune.epochs if recipe.tune else None) or recipe.train.epochs
        self.rows: dict[str, Row] = {}
        self.study: Study | None = None
        self.trials: Trials | None = None
        self.start = time.monotonic()
        self.confirmed: dict[str, Confirmed] = {}
        self.reseeded = 0  # trainings with new seeds that are over
        self.interim_summary = ""  # what the search can say so far
        self.own = ""  # label of the trial with the recipe's own values
        self.winner = ""  # label of the trial that it would recommend now
        self.todo = 0.0  # epochs of trainings that have not started
        self.wanted = recipe.tune.trials if recipe.tune else 0
        self.spent: list[tuple[float, int]] = []  # seconds and epochs of the trainings that ended in this search
        self.quicker = ""
        self._metric = recipe.metric
        self.live = Live(get_renderable=self._image, console=terminal.err, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.live.stop()

    @property
    def _terminal(self) -> bool:
        return terminal.err.is_terminal

    def begin(self, study: Study, trials: Trials | None = None) -> None:
        """Start to show a study, with the trials that it already has; without `trials` none will run."""
        self.study, self.trials = study, trials
        self._read(study)
        self._look()
        done, total = len(study.spent()), max(study.wanted, len(study.spent()))
        taken = len(trials.waiting) + len(trials.unconfirmed) + len(trials.unfinished) if trials else 0
        again = f"; {taken} interrupted go on" if taken else ""
        logger.info(
            f"study {study.shown}: {done} of {total} trials done{again}" if done or taken else f"study {study.shown}"
        )
        self._event("begin", study=str(study.shown), done=done, trials=total, interrupted=taken)
        if trials and terminal.is_live() and not self.as_json:
            self.live.start()

    def _read(self, study: Study) -> None:
        """Take the trials that a study already has."""
        for trial in study.spent() if self.trials else study.trials():
            row = Row(
                str(trial.number), study.space.changes(trial.params), trial.state.name.lower(), epochs=study.epochs
            )
            row.scores = list(trial.intermediate_values.values())
            best = lowest(trial)
            row.best = math.inf if best is None else best
            row.epoch, row.folder = trial.last_step or 0, study.folder(trial.number)
            row.why = str(trial.user_attrs.get("why", ""))
            row.diagnoses = tuple(trial.user_attrs.get("diagnoses", ()))
            self.rows[row.label] = row

    def _look(self) -> None:
        """Take from the study what the table shows besides rows; the drawing itself must not ask a database."""
        if self.study is None:
            return
        with self.study.cached_trials():
            self.confirmed = {str(one.number): one for one in self.study.confirmed()}
            self.reseeded = sum(run.state.is_finished() for run in self.study.runs())
            self.interim_summary = results.interim_summary(self.study)
            winner = self.study.winner()
            self.winner = "" if winner is None else str(winner.number)
            own = self.study.own()
            self.own = "" if own is None else str(own.number)
            self.todo = self.trials.todo_epochs() if self.trials else 0.0
            self.wanted = self.study.wanted

    def started(
        self,
        label: str,
        values: dict[str, Any],
        folder: Path,
        scores: Sequence[float] = (),
        epochs: int = 0,
        begun: int = 0,
    ) -> None:
        """A trial has started, or goes on after these measurements and epochs."""
        best = min(scores, default=math.inf)
        epochs = epochs or self.epochs
        self.rows[label] = Row(
            label, values, folder=folder, scores=list(scores), best=best, epoch=begun, epochs=epochs, begun=begun
        )
        self.todo = self.trials.todo_epochs() if self.trials else 0.0
        self._event("started", trial=label, values=values)

    def measured(self, label: str, result: dict[str, Any]) -> None:
        """A trial has been measured."""
        row = self.rows[label]
        row.epoch, row.best = result["epoch"], result["best"]
        row.scores.append(result["score"])
        self._event("measured", trial=label, epoch=row.epoch, **{self._metric: result["score"]}, best=row.best)

    def interrupted(self, label: str) -> None:
        """A trial has saved where it stands."""
        row = self.rows.pop(label)
        self._event("interrupted", trial=label, epoch=row.reached())

    def ended(
        self, label: str, state: TrialState, value: float | None, why: str | None, diagnoses: Sequence[str]
    ) -> None:
        """A trial has ended."""
        row = self.rows[label]
        row.diagnoses, row.state, row.why = tuple(diagnoses), state.name.lower(), why or ""
        row.best = value if value is not None else row.best
        self.spent.append((time.monotonic() - row.start, row.epoch - row.begun))
        self._look()
        metric = {self._metric: row.best if math.isfinite(row.best) else None}
        self._event(
            "ended", trial=label, state=row.state, epoch=row.epoch, **metric, why=why, diagnoses=list(diagnoses)
        )
        if not self._terminal and not self.as_json:
            score = f"{self._metric} {terminal.number(row.best)}" if math.isfinite(row.best) else ""
            told = "; ".join(part for part in (score, row.why) if part)
            logger.info(f"trial {label} {_WORDS[row.state]} at epoch {row.epoch}: {told}; {'; '.join(self._header())}")

    def log_if_quicker_inline(self, seconds: float) -> None:
        """Log a hint if the search would have ended sooner without Ray; `seconds` is the time that it took with it."""
        alone = sum(seconds for seconds, _ in self.spent)
        if self.spent and 1.2 * alone < seconds:
            self.quicker = (
                f"too short a search for workers: it took {terminal.duration(seconds)}, and would have taken about "
                f"{terminal.duration(alone)} with --engine inline"
            )

    def finish(self, *, interrupted: bool, over: str) -> None:
        """Show how it ended."""
        self.live.stop()
        assert self.study is not None
        winner = self.study.winner()
        self._event(
            "end",
            study=str(self.study.shown),
            interrupted=interrupted,
            spent_budget=over or None,
            best=None if winner is None else winner.number,
            sentence=results.sentence(self.study),
            verdict=results.summary(self.study)["verdict"],
        )
        if self.as_json:
            return
        rows = [row for row in self.rows.values() if not row.again]
        if rows:
            self._print(self._table(rows))
        if over:
            logger.info(f"{over} is spent; more of it, and the same command goes on")
        if self.quicker:
            logger.info(self.quicker)

    def _event(self, what: str, **told: Any) -> None:
        if self.as_json:
            self._send({"event": what, **told})

    def _print(self, table: Table) -> None:
        terminal.wide(table)

    def _send(self, event: dict[str, Any]) -> None:
        terminal.event(event)

    def _image(self) -> Group:
        stopping = "stopping: trials save where they stand; " if self.trials and self.trials.stopping else ""
        parts: list[RenderableType] = [Text(stopping + "\n".join(self._header()), style="bold")]
        parts.append(self._table(None))
        running = [row for row in self.rows.values() if row.state == "running"]
        if running:
            table = Table.grid(padding=(0, 2))
            for row in running:
                reached = row.reached()
                score = f"{self._metric} {terminal.number(row.best)}" if math.isfinite(row.best) else ""
                bar = ProgressBar(row.epochs, reached, width=24)
                table.add_row(f"trial {row.label}", bar, f"{reached}/{row.epochs}", score, sparkline(row.scores))
            parts += [Text(), table]
        return Group(*parts)

    def _header(self) -> tuple[str, str]:
        """Return the header: trials by state, time used and left, and the best result so far."""
        states = [row.state for row in self.rows.values() if not row.again]
        counts = ", ".join(f"{states.count(state)} {word}" for state, word in _WORDS.items() if states.count(state))
        planned = self.trials is not None and self.trials.plan is not None  # as many as there is time for
        where = counts or "0"
        where += "" if planned or self.study is None else f" of {self.wanted}"
        if self.reseeded or any(" seed " in label for label in self.rows):
            where += f"; {terminal.several(self.reseeded, 'training')} with new seeds done"
        parts = [f"{terminal.duration(time.monotonic() - self.start)} so far{self._left()}"]
        if self.trials and self.trials.place.gpus:
            parts.append(f"{self.trials.gpu_hours():.2f} GPU hours")
        if self.interim_summary:
            parts.append(self.interim_summary)
        return where, "; ".join(parts)

    def _left(self) -> str:
        """Estimate the time left: the epochs to come on all slots, at what an epoch took so far."""
        trained = sum(epochs for _, epochs in self.spent)
        if not trained or self.trials is None:
            return ""
        running = [max(0, row.epochs - row.reached()) for row in self.rows.values() if row.state == "running"]
        epochs = max((self.todo + sum(running)) / self.trials.place.slots, *running, 0)
        left = epochs * sum(seconds for seconds, _ in self.spent) / trained
        return f", about {terminal.duration(min(left, self.trials.allowed_seconds()))} left"

    def _table(self, rows: list[Row] | None) -> Table:
        """Return the table of trials: the best ones while the search runs, or all of `rows` at its end."""
        ended = [row for row in self.rows.values() if row.state != "running" and not row.again]
        chosen = sorted(ended if rows is None else rows, key=_rank)
        console = terminal.err if rows is None else terminal.out
        confirmed = self.confirmed
        if confirmed:
            order = list(confirmed)
            chosen.sort(key=lambda row: order.index(row.label) if row.label in confirmed else len(order))
        keys = list(self.tune.space) if self.tune else []
        columns = [
            terminal.Column("trial", right=True),
            terminal.Column(self._metric, right=True),
            *([terminal.Column("new seeds", right=True, order=1)] if confirmed else []),
            terminal.Column("epoch", right=True, order=len(keys) + 2),
            terminal.Column("", order=len(keys) + 3),  # the sparkline
            *(terminal.Column(name, order=2 + index) for index, name in enumerate(names(keys).values())),
            terminal.Column("state", wraps=True),
        ]
        cells = [
            self._cells(row, keys, final=rows is not None)
            for row in (chosen if rows is not None else chosen[:TOP_TRIALS])
        ]
        return terminal.fitted(columns, cells, console.width if console.is_terminal else terminal.PIPED_COLUMNS)

    def _cells(self, row: Row, keys: list[str], *, final: bool) -> list[str]:
        """Return the cells of a trial, with markup."""
        words = {"complete": "finished", "pruned": "stopped", "fail": row.why or "failed"}
        one = self.confirmed.get(row.label)
        marks = ["winner"] if row.label == self.winner and final else []
        marks += ["your recipe"] if row.label == self.own else []
        state = ", ".join([*marks, words.get(row.state, row.state), *(row.diagnoses if row.state != "fail" else ())])
        count = f" ({len(one.values)})" if one and math.isfinite(one.mean) else ""
        return [
            escape(row.label),
            terminal.number(row.best) if math.isfinite(row.best) else "",
            *([f"{one or ''}{count}"] if self.confirmed else []),
            f"{row.reached()}/{row.epochs}",
            sparkline(row.scores),
            *(escape(_value(row.values.get(key, ""))) for key in keys),
            f"[{_COLOURS[row.state]}]{escape(state)}[/]",
        ]


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


def _rank(row: Row) -> tuple[float, int]:
    return row.best, int(row.label.split()[0])


def _value(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if 0.9 <= value < 1 else f"{value:.3g}"  # a second beta differs late
