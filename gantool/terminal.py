"""Everything that prints: progress, tables, errors. Results go to standard output, the rest to standard error."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gantool.errors import command_line

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape control characters, which a terminal obeys, marks that turn the direction of writing, and invalid letters.

    A file or a folder may have any of them in its name. Tabs and ends of lines are kept.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text for printing, without control characters."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Leave it to `cli.main` to end quietly when the reader of a pipe has had enough."""
        raise BrokenPipeError


PIPED_COLUMNS = 240  # columns of what is not shown on a terminal

out = _Console(highlight=False, soft_wrap=True, emoji=False)
err = _Console(highlight=False, soft_wrap=True, stderr=True, emoji=False)
quiet = False  # whether only results, warnings and errors are printed (`-q`)


def is_live() -> bool:
    """Return whether live lines are shown: on a terminal, unless `-q` was given."""
    return err.is_terminal and not quiet


def error(message: str) -> None:
    """Show why a command failed, a line a problem."""
    for line in message.splitlines():
        err.print(f"[bold red]error:[/] {escape(line)}")


def status(sentence: str) -> None:
    """Print what is being done, on the error stream."""
    err.print(escape(sentence), style="dim")


def result(*sentences: str) -> None:
    """Print results on the output stream, each on its line."""
    for sentence in sentences:
        out.print(escape(sentence))


def hint(*words: object) -> None:
    """Print a gantool command that may come next, given as its words."""
    if not quiet:
        out.print(f"  [cyan]{escape(command_line(*words))}[/]")


def number(value: float) -> str:
    """Write a measured number with four digits.

    >>> number(13.6789), number(0.00031415), number(1234567.0)
    ('13.68', '0.0003142', '1234567')
    """
    if not math.isfinite(value):
        return str(value)
    digits = 0 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 8)}f}"


def spread(value: float, deviation: float | None) -> str:
    """Write a measured number with its standard deviation, where that is known.

    >>> spread(9.4123, 0.61), spread(752.8, 12.3), spread(1.0312, 0.024), spread(13.6789, None)
    ('9.4 ± 0.6', '753 ± 12', '1.03 ± 0.02', '13.68')
    """
    if not deviation or not (math.isfinite(value) and math.isfinite(deviation)):
        return number(value)
    digits = min(8, max(0, -math.floor(math.log10(deviation))))
    return f"{value:.{digits}f} ± {deviation:.{digits}f}"


def several(count: int, thing: str) -> str:
    """Return a count with its noun.

    >>> several(1, "class"), several(3, "class"), several(1200, "frame")
    ('1 class', '3 classes', '1,200 frames')
    """
    plural = "" if count == 1 else "es" if thing.endswith("s") else "s"
    return f"{count:,} {thing}{plural}"


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(4.2), duration(95), duration(7380)
    ('4s', '1m35s', '2h03m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def as_json(rows: Any) -> None:
    """Print plain JSON."""
    out.out(json.dumps(rows, indent=2, ensure_ascii=False, default=str), highlight=False)


def event(values: Mapping[str, Any]) -> None:
    """Print one object as one line of JSON, at once."""
    out.out(json.dumps(values, ensure_ascii=False), highlight=False)
    out.file.flush()


class Column(NamedTuple):
    """A column of a table that is fitted to a terminal.

    Args:
        heading: its name.
        right: whether numbers stand in it, which are justified to the right.
        order: the columns with the highest number are left out first; one with 0 never is.
        wraps: whether its text may take several lines.
    """

    heading: str
    right: bool = False
    order: int = 0
    wraps: bool = False


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Return a table of the columns that fit; no number is cut, and a line names the columns that are left out.

    Args:
        columns: all columns.
        rows: a text with rich's markup for each column.
        width: of the terminal.
    """
    widths = []
    for index, column in enumerate(columns):
        texts = [column.heading, *(Text.from_markup(row[index]).plain for row in rows)]
        natural = max(map(cell_len, texts))
        widths.append(min(natural, max(12, len(column.heading))) if column.wraps else natural)
    kept = list(range(len(columns)))
    while sum(widths[index] + 2 for index in kept) - 2 > width and any(columns[index].order for index in kept):
        kept.remove(max(kept, key=lambda index: columns[index].order))
    missing = ", ".join(column.heading for index, column in enumerate(columns) if index not in kept and column.heading)
    caption = f"a wider terminal shows {missing}" if missing else None
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption=caption, caption_justify="left")
    for index in kept:
        column = columns[index]
        made.add_column(
            escape(column.heading),
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(row[index] for index in kept))
    return made


def wide(rows: Table) -> None:
    """Print a table, in a pipe with lines as long as needed."""
    if out.is_terminal:
        out.print(rows, soft_wrap=False)
    else:
        _Console(highlight=False, width=PIPED_COLUMNS, emoji=False).print(rows)


def table(headings: Sequence[str | Column], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table of plain texts below its title. A column given by its heading alone may wrap."""
    columns = [Column(heading, wraps=True) if isinstance(heading, str) else heading for heading in headings]
    cells = [[escape(text) for text in row] for row in rows]
    if title:
        out.print(f"[bold]{escape(title)}[/]")
    wide(fitted(columns, cells, out.width if out.is_terminal else PIPED_COLUMNS))
