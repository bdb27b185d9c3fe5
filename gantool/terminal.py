"""Everything that prints: progress, tables, errors. Results go to standard output, the rest to standard error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gantool.batches import TableBatch
from gantool.errors import command_line

if TYPE_CHECKING:
    from gantool.data.loader import Dataset
    from gantool.inference.compare import Row
    from gantool.inference.scoring import Score
    from gantool.models.shapes import Layer
    from gantool.recipe.blocks import Recipe


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `cli.main` to end quietly when the reader of a pipe has had enough."""
        raise BrokenPipeError


MAX_ROWS = 8  # of each class of a table that are shown
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


def result(sentence: str) -> None:
    """Print a result on the output stream."""
    out.print(escape(sentence))


def hint(*words: object) -> None:
    """Print a gantool command that may come next, given as its words."""
    if not quiet:
        out.print(f"  [cyan]{escape(command_line(*words))}[/]")


def wide(rows: Table) -> None:
    """Print a table, in a pipe with lines as long as they have to be."""
    if out.is_terminal:
        out.print(rows, soft_wrap=False)
    else:
        _Console(highlight=False, width=PIPED_COLUMNS, emoji=False).print(rows)


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


def score(found: Score, verdict: str, meanings: Mapping[str, str], *, details: bool) -> None:
    """Print the verdict and the table of `gantool score`.

    Args:
        found: the result.
        verdict: a sentence that stands before the table.
        meanings: of each metric, in a few words.
        details: whether to print the identity of the extractors and the seed.
    """
    if verdict:
        result(verdict)
    rows = []
    for row in found.values:
        best = "" if row.perfect is None else number(row.perfect)
        rows.append((row.name, _measured(row.name, row.value, row.deviation), best, meanings.get(row.name, "")))
    against = f" against {found.about['against']}" if "against" in found.about else ""
    out.print(table(f"{found.what}{against}", ("metric", "value", "real images get", "meaning"), rows))
    about = found.about
    if "fake" not in about:
        out.print(escape(asked(about)))
        return
    out.print(
        escape(
            f"{about['fake']:,} generated against {about['real']:,} real images of {about['size']}, "
            f"{about['held_out']:,} more held out"
        )
    )
    if details:
        out.print(escape(f"seed {about['seed']}; extractors {', '.join(about['extractors'])}"))
    if any(row.name == "fd" for row in found.values) and about["floor_deviation"] is not None:
        out.print("± is a standard deviation over other draws of images; differences of less than two are noise")
    if found.missing:
        out.print(f"not measured, because classes or images are too few: {', '.join(found.missing)}")


def asked(about: Mapping[str, Any]) -> str:
    """Return which examples a classifier was measured on."""
    if about["held_out"]:
        return f"asked about {about['held_out']:,} examples that training never saw; it learned from {about['train']:,}"
    return f"asked about the {about['train']:,} examples that it learned from; none are held out"


def _measured(name: str, value: float, deviation: float | None = None) -> str:
    """Write a metric; a support without any collision is only known to be large."""
    if name == "support":
        return "many" if value > 100_000 else f"{value:,.0f}"
    return f"{value:+.1f}" if name == "copying" else spread(value, deviation)


def comparison(rows: Sequence[Row], verdict: str) -> None:
    """Print the verdict and the table of `gantool compare`, the best run first."""
    result(verdict)
    lines = []
    for row in rows:
        values = row.values
        lines.append(
            (
                row.name,
                row.model,
                str(row.epoch),
                spread(values["fd"], values["fd_deviation"]) + ("" if row.same else " *"),
                f"{values['coverage']:.2f}",
                f"{values['nearest_neighbour']:.2f}",
                _measured("copying", values["copying"]) if "copying" in values else "",
                _measured("support", values["support"]),
            )
        )
    heads = ("run", "model", "epoch", "fd", "coverage", "1-NN", "C_T", "support")
    out.print(table("", heads, lines))
    counts = sorted({row.fakes for row in rows})
    out.print(
        f"{' and '.join(f'{count:,}' for count in counts)} generated images of each run; real images get an fd of 1"
    )
    for row in rows:
        if row.diagnoses:
            out.print(escape(f"{row.name} ended with: {', '.join(row.diagnoses)}"))
    if not all(row.same for row in rows):
        out.print("* measured on other images, or in another way, than the run named first; not comparable")


def examples(name: str, found: Dataset) -> None:
    """Print some rows of a table, or sentences, of every class."""
    train, held_out = found.split(0, TableBatch)  # a table has its own split
    lines: list[tuple[str, str, str]] = []
    for label, class_name in enumerate(found.spec.classes):
        own = [row for row in range(len(found)) if found.labels[row] == label][:MAX_ROWS]
        lines += [(found.texts[row], class_name, "held out" if row in held_out else "") for row in own]
    out.print(table("", (name, "class", ""), lines))
    out.print(f"{len(train):,} rows to learn from, {len(held_out):,} held out")


def predictions(rows: Sequence[tuple[str, str, float, str]]) -> None:
    """Draw answers: what was asked, the answer, its probability, and what is right where that is known."""
    known = any(row[3] for row in rows)
    heads = ("asked", "answer", "probability", *(("right",) if known else ()))
    lines = []
    for asked_about, answer, probability, right in rows:
        line = [asked_about, answer, f"{probability:.2f}"]
        if known:
            line.append(right + (" (wrong)" if right and right != answer else ""))
        lines.append(line)
    out.print(table("", heads, lines))


def shape(size: Sequence[int]) -> str:
    """Write a shape.

    >>> shape((256, 7, 7))
    '256x7x7'
    """
    return "x".join(map(str, size)) or "1"


def layers(rows: Iterable[Layer]) -> None:
    """Draw the table of `gantool shapes`, a block a network, with totals."""
    rows = list(rows)
    for network in dict.fromkeys(row.network for row in rows):
        own = [row for row in rows if row.network == network]
        table = Table(title=f"{network}", title_justify="left", title_style="bold", box=None, pad_edge=False)
        for heading, justify in (
            ("layer", "left"),
            ("kind", "left"),
            ("input", "right"),
            ("output", "right"),
        ):
            table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("parameters", justify="right", no_wrap=True)
        table.add_column("formula", overflow="fold")
        for row in own:
            count = f"{row.parameters:,}" if row.parameters else ""
            formula = escape(row.formula)
            table.add_row(row.layer, row.kind, shape(row.input), shape(row.output), count, formula)
        wide(table)
        out.print(f"[bold]{sum(row.parameters for row in own):,}[/] parameters in {network}\n")


def as_json(rows: Any) -> None:
    """Print plain JSON."""
    out.out(json.dumps(rows, indent=2, ensure_ascii=False), highlight=False)


def event(told: Mapping[str, Any]) -> None:
    """Print one object as one line of JSON, at once."""
    out.out(json.dumps(told, ensure_ascii=False), highlight=False)
    out.file.flush()


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Make a plain table."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


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


def searches(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what several searches came to, see `tune.results.side_by_side_of`."""
    table = Table(box=None, pad_edge=False)
    quarters = [f"lowest {rows[0]['metric']} at 1/4", "1/2", "3/4", "end"]
    for heading in ("study", "trials", "time", *quarters, "sampler", "pruner", "seed", "verdict"):
        table.add_column(heading, justify="left" if heading in {"study", "sampler", "pruner", "verdict"} else "right")
    for row in rows:
        lowest = [number(value) if value is not None else "" for value in row["lowest"]]
        told = "" if row["verdict"] is None else f"{row['verdict']} (trial {row['winner']})"
        numbers = [str(row["trials"]), duration(row["seconds"]), *lowest]
        table.add_row(row["study"], *numbers, row["sampler"], row["pruner"], str(row["seed"]), told)
    wide(table)
    for row in rows:
        if row["same_points"]:
            other, count = row["same_points"]
            result(f"{row['study']} tried {several(count, 'point')} that {other} tried: they are not independent")
        if row["sentence"]:
            result(f"{row['study']}: {row['sentence']}")


def simulation(recipe: Recipe, found: Mapping[str, Any]) -> None:
    """Print what replayed searches have in common, see `tune.simulate`."""
    tune, metric = recipe.tune, recipe.metric
    assert tune is not None
    told = found["table"]
    result(
        f"{told['configurations']:,} configurations, {several(told['seeds'], 'seed')} each; "
        f"{found['replays']:,} replays"
    )
    result(
        f"{tune.sampler}, {tune.pruner}, {several(tune.trials, 'trial')} of {tune.epochs or recipe.train.epochs} epochs"
    )
    bands = Table(box=None, pad_edge=False)
    for heading in ("share of the time", f"{metric} of the pick: best tenth", "median", "worst tenth"):
        bands.add_column(heading, justify="right")
    for share, values in found["best_found"].items():
        bands.add_row(f"{float(share):.0%}", *map(number, values))
    wide(bands)
    rows = {
        "at least as good as random search in equal time": found["better_than_random_at_equal_seconds"],
        "at least as good as the longer random search": found.get("better_than_random_with_more_trials"),
        "best configuration stopped early": found["best_stopped_early"],
    }
    for label, share in rows.items():
        if share is not None:
            low, high = share["interval"]
            result(f"{label}: {share['share']:.1%} of replays (95 % interval {low:.1%} to {high:.1%})")
    median, most = found["rank_of_the_pick"]
    result(f"epochs saved: {found['epochs_saved']:.0%}; seconds of training: {found['seconds']:.0f}")
    result(f"the pick is within the best {median:.1%} of the table in half of the replays, {most:.1%} in nine of ten")
    if told["statistics"]:
        noise = told["noise"]
        result(
            f"seeds differ by {noise['best twentieth']:.1%} near the best, {noise['all']:.1%} elsewhere (log deviation)"
        )
        for label, agreement in (
            *told["statistics"].items(),
            *((f"{key} epochs", value) for key, value in told["lengths"].items()),
        ):
            result(f"  {label}: rank correlation with other seeds at the end {agreement:.3f}")
