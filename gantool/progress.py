"""Progress on a terminal: the live line and the kept rows of a training, and the bars of downloads."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gantool import terminal
from gantool.terminal import duration, hint, number, spread

if TYPE_CHECKING:
    from types import TracebackType

    from gantool.training.report import Report

KEPT_ROWS = 20  # rows of a training that stay on a terminal, at most
KEPT_LINES = 50  # lines of a training without a terminal, at most
WIDE = 80  # columns of a terminal from which the bar has 20 columns, and not 10
TIME_LEFT = 10  # columns of the time left, as in "12m05s left"
WIDTHS = {"fd": 11, "accuracy": 8, "L1": 6, "D(x)": 5, "D(G(z))": 7, "images/s": 8}  # columns of a row's numbers


class _Bars:
    """Bars on a terminal while the block runs; without a terminal, or with `-q`, nothing.

    Args:
        columns: of rich's progress.
    """

    def __init__(self, *columns: ProgressColumn) -> None:
        self.progress = Progress(*columns, console=terminal.err, transient=True)

    def __enter__(self) -> Self:
        if terminal.is_live():
            self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if terminal.is_live():  # else it would print an empty line
            self.progress.stop()


class TrainingProgress(_Bars):
    """Shows a training: a live line and at most 20 rows that stay; without a terminal, at most 50 lines.

    The live line has a spinner, a bar, the percentage and the time left, which always fit. Numbers follow as long as
    there is room. Neither they nor the columns of the rows are ever cut: those that do not fit are left out.

    Args:
        epochs: of the recipe.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.start, self.first = 0.0, -1.0  # when the first report came, and how many epochs were done then
        self.metrics: dict[str, float] = {}
        self.measured = 0  # the epoch of these metrics
        self.kept = 0  # the epoch of the last row that stays
        self.columns: dict[str, int] = {}  # of the rows that stay, with their widths
        self.seen: dict[str, list[str]] = {}  # messages of each diagnosis
        self.active: tuple[str, ...] = ()
        self.bar = 20 if terminal.err.width >= WIDE else 10
        percentage, left = TextColumn("{task.percentage:>3.0f}%"), TextColumn(f"{{task.fields[left]:>{TIME_LEFT}}}")
        super().__init__(SpinnerColumn(), BarColumn(self.bar), percentage, left, TextColumn("{task.description}"))
        self.task = self.progress.add_task("starting", total=epochs, left="")

    def update(self, report: Report) -> None:
        """Show a report."""
        done = report.epoch - 1 + (1 if report.finished else report.share)
        if self.first < 0:
            self.start, self.first = time.monotonic(), done
        elapsed = time.monotonic() - self.start
        left = elapsed / max(done - self.first, 1e-9) * (self.epochs - done) if done > self.first else math.nan
        if report.metrics:
            self.metrics, self.measured = report.metrics, report.epoch
        self.active = report.diagnoses
        for diagnosis in report.news:
            self.seen.setdefault(diagnosis.code, []).append(diagnosis.message)
            mark = "[bold yellow]warning:[/]" if diagnosis.began else "[green]over:[/]"
            terminal.err.print(f"{mark} epoch {diagnosis.epoch}: {escape(diagnosis.message)}")
        time_left = "" if math.isnan(left) else f"{duration(left)} left"
        self.progress.update(self.task, completed=done, left=time_left, description=escape(self._live(report)))
        every = max(1, self.epochs // (KEPT_ROWS if terminal.err.is_terminal else KEPT_LINES))
        if not terminal.quiet and report.finished and (report.epoch % every == 0 or report.epoch == self.epochs):
            if terminal.err.is_terminal:
                self._row(report)
            else:
                terminal.err.print(escape("  ".join(self._parts(report, time_left))))
            self.kept = report.epoch

    def summary(self) -> None:
        """Print the diagnoses of the run, once it has ended."""
        if self.seen:
            rows = []
            for code, messages in self.seen.items():
                message = messages[-1 if code in self.active else 0].removeprefix(f"{code}: ")
                state = "at the end too" if code in self.active else "over"
                rows.append((code, state, message.removesuffix(f"; gantool explain {code}")))
            terminal.table(("code", "state", "what was seen, and what to try"), rows, "diagnoses")
            hint("explain", next(iter(self.seen)))

    def _live(self, report: Report) -> str:
        """Return as many of the numbers as have room behind the time left."""
        room = terminal.err.width - (2 + self.bar + 1 + 4 + 1 + TIME_LEFT + 1) - 1
        line = ""
        for part in self._parts(report, ""):
            longer = f"{line}  {part}" if line else part
            if len(longer) > room:
                break
            line = longer
        return line

    def _parts(self, report: Report, time_left: str) -> list[str]:
        """Return the numbers of a report with their names, the most important first."""
        scores = report.scores
        parts = [
            f"epoch {report.epoch}/{self.epochs}",
            self._distance(report.epoch),
            *(_answer(name, scores, key) for name, key in (("D(x)", "real"), ("D(G(z))", "fake"))),
            time_left,
            *(f"{name} {_short(value)}" for name, value in _losses(report).items()),
            f"{report.images_per_second:,.0f} {'examples' if 'accuracy' in self.metrics else 'images'}/s",
        ]
        return [part for part in parts if part]

    def _distance(self, epoch: int) -> str:
        """Return the last measured fd or accuracy, with its epoch where it is older than a tenth of the run."""
        if not self.metrics:
            return ""
        name = "fd" if "fd" in self.metrics else "accuracy"
        notes = [f"L1 {number(self.metrics['l1'])}"] if "l1" in self.metrics else []
        notes += [f"of epoch {self.measured}"] if 10 * (epoch - self.measured) > self.epochs else []
        value = spread(self.metrics[name], self.metrics.get(f"{name}_deviation"))
        return f"{name} {value}" + (f" ({', '.join(notes)})" if notes else "")

    def _row(self, report: Report) -> None:
        """Print a row of the table that stays; a metric is in the first row after its measurement."""
        new = self.metrics if self.measured > self.kept else {}
        name = "accuracy" if "accuracy" in self.metrics else "fd"
        cells = {
            "epoch": f"{report.epoch}/{self.epochs}",
            name: spread(new[name], new.get(f"{name}_deviation")) if name in new else "",
            **({"L1": number(new["l1"]) if new else ""} if "l1" in self.metrics else {}),
            **{
                label: _short(report.scores[f"scores/{key}"], 2)
                for label, key in (("D(x)", "real"), ("D(G(z))", "fake"))
                if f"scores/{key}" in report.scores
            },
            **{label: _short(value) for label, value in _losses(report).items()},
            "images/s": f"{report.images_per_second:,.0f}",
            "time": duration(report.seconds),
        }
        if not self.columns:
            self._heading(cells)
        terminal.err.print(
            escape("  ".join(f"{cells.get(label, ''):>{width}}" for label, width in self.columns.items()))
        )

    def _heading(self, cells: Mapping[str, str]) -> None:
        """Choose the columns that fit, the first ones first, and print their heading."""
        widths = {label: max(len(label), WIDTHS.get(label, 6)) for label in cells}
        widths["epoch"] = max(5, len(f"{self.epochs}/{self.epochs}"))
        used = 0
        for label, width in widths.items():
            used += width + (2 if used else 0)
            if used > terminal.err.width:
                break
            self.columns[label] = width
        heading = "  ".join(f"{label:>{width}}" for label, width in self.columns.items())
        terminal.err.print(f"[bold]{escape(heading)}[/]")
        missing = [label for label in cells if label not in self.columns]
        if missing:
            more = f"(a wider terminal shows {', '.join(missing)})"
            terminal.err.print(escape(more), style="dim", soft_wrap=False)


def _losses(report: Report) -> dict[str, float]:
    """Return the sum of each player's losses, as `loss G` and `loss D`."""
    sums: dict[str, float] = {}
    for name, value in report.losses.items():
        label = f"loss {name.partition('/')[0][:1].upper()}"
        sums[label] = sums.get(label, 0.0) + value
    return sums


def _answer(name: str, scores: Mapping[str, float], key: str) -> str:
    """Write the discriminator's mean answer, and how far it is from the 0.5 of a perfect generator."""
    if f"scores/{key}" not in scores:
        return ""
    off, value = scores.get(f"scores/{key}_from_half"), scores[f"scores/{key}"]
    return f"{name} {_short(value, 2)}" + (f" ({_short(off, 2, '+')})" if off is not None else "")


def _short(value: float, digits: int = 3, sign: str = "") -> str:
    """Write a number of a line that is always there.

    >>> _short(1.38629), _short(0.1, 2, "+"), _short(5.4e19)
    ('1.386', '+0.10', '5.4e+19')
    """
    return f"{value:{sign}.{digits}f}" if abs(value) < 10_000 else f"{value:{sign}.1e}"


class Downloads(_Bars):
    """Progress bars of downloads; without a terminal, nothing."""

    def __init__(self) -> None:
        name = TextColumn("{task.description}")
        super().__init__(name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self.tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Show how far the download of a file is, in bytes."""
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(escape(name), total=total)
        self.progress.update(self.tasks[name], completed=done, total=total)
