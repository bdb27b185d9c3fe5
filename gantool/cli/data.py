"""The commands on datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from gantool.cli.commands import Command, Group
from gantool.cli.options import AsJson, Changes, DataDir, OutputFile, Overwrite, check_overwrite
from gantool.errors import DataError, RecipeError, command_line
from gantool.runs import data_root

if TYPE_CHECKING:
    from gantool.batches import Batch
    from gantool.data.check import Report
    from gantool.data.loader import Dataset
    from gantool.recipe.blocks import Data

SHOWN_ROWS = 8  # of each class of a table

SourceName = Annotated[
    str, Argument(metavar="WHAT", help="A dataset, a recipe, or a path: a folder, an archive, arrays, parquet, CSV.")
]
MAX_SHOWN = 5  # sizes and modes that are listed

data_app = typer.Typer(
    cls=Group, help="Fetch, list, check and look at datasets.", no_args_is_help=True, rich_markup_mode=None
)


@data_app.command(cls=Command)
def fetch(
    what: Annotated[
        str,
        Argument(
            metavar="WHAT", help="A dataset, a recipe, the https address of a zip or tar of images, or inception."
        ),
    ],
    name: Annotated[
        str | None, Option("--name", metavar="NAME", help="The name that data.source will use for an address.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Download a dataset, and print how to use it."""
    from gantool import terminal
    from gantool.data.prepare import fetch as get
    from gantool.progress import Downloads

    with Downloads() as progress:
        source = get(_data_of(what)[0]["source"], name, data_root(data_dir), progress=progress)
    if as_json:
        terminal.as_json({"source": source, "data_dir": data_root(data_dir)})
    elif source == "inception":
        terminal.result(f"inception is downloaded; use it with: {command_line('score', '--metrics', 'fid')}")
    else:
        terminal.result(f"{source} is downloaded; use it with: --set data.source={source}")


@data_app.command("list", cls=Command)
def list_sources(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the datasets that are on this machine and those that can be downloaded."""
    from gantool import terminal
    from gantool.data.prepare import available

    root = data_root(data_dir)
    found = available(root)
    if as_json:
        terminal.as_json([{"name": name, "here": here, "summary": summary} for name, here, summary in found])
    else:
        terminal.table(("name", "", "contents"), [(name, "here" if here else "", text) for name, here, text in found])
        terminal.result(f"data directory: {root}")


@data_app.command("show", cls=Command)
def show_source(
    source: SourceName,
    output: OutputFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw a contact sheet of a dataset, or print rows of a table.

    --set data.size, data.classes, data.folder and data.limit select images. A recipe shows its data as its model sees
    them, for example as pairs.
    """
    from gantool import terminal
    from gantool.batches import Paired, TableBatch
    from gantool.data.prepare import prepare
    from gantool.data.sheet import MAX_PAIRS, contact_sheet, pair_sheet
    from gantool.data.sources.catalog import SOURCES

    data, kind = _changed(source, changes)
    found = prepare(data, data_root(data_dir), kind)
    about: dict[str, Any] = {"source": data.source, "examples": len(found), "classes": found.spec.classes}
    about |= {"part": found.part} if found.part else {}
    if kind is TableBatch:
        if not as_json:
            _print_rows(data.source, found)
    else:
        path = about["file"] = output or Path("sheet.png")
        check_overwrite(path, overwrite)
        if kind is Paired:
            pair_sheet(found, path)
            count = about["examples"] = len(found) // 2
            text = f"{min(MAX_PAIRS, count)} of {found.part or format(count, ',')} pair{'' if count == 1 else 's'}"
        else:
            contact_sheet(found, path, rendered=data.source in SOURCES and SOURCES[data.source].rendered)
            classes = terminal.several(len(found.spec.classes), "class")
            text = f"{found.part + ' images' if found.part else terminal.several(len(found), 'image')} in {classes}"
        if not as_json:
            terminal.result(f"{path}: {text}")
    if as_json:
        terminal.as_json(about)


@data_app.command("check", cls=Command)
def check_source(
    source: SourceName,
    changes: Changes = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Read every image of a dataset, and report what is odd: duplicates, images of one colour, unreadable files.

    --set data.classes and data.folder select images; data.limit is ignored. --json names every image that is
    reported.
    """
    from gantool import terminal
    from gantool.data.check import check
    from gantool.data.prepare import fetch as get
    from gantool.data.prepare import find_source
    from gantool.data.sources.images import ImageSource, keep
    from gantool.progress import Downloads

    data, kind = _changed(source, changes)
    root = data_root(data_dir)
    images = find_source(data, root, kind)
    if not isinstance(images, ImageSource):
        raise DataError(f"{data.source}: is a table, but this command looks at images; see: gantool data show")
    if not images.exists(root):
        with Downloads() as progress:
            get(data.source, None, root, progress=progress)
    report = check(images, root, keep(data.source, images.classes, data.classes))
    if as_json:
        terminal.as_json({"source": data.source, **report.entry()})
    else:
        _print_report(data.source, report)


def _print_report(source: str, report: Report) -> None:
    """Print what is in a source, with an example of each finding."""
    from gantool import terminal

    found = report.findings
    classes = [
        (name, f"{count:,}", "one image" if count == 1 else "" if count else "no image")
        for name, count in found.classes.items()
    ]
    terminal.table(("class", "images", ""), classes, source)
    for title, counts in (("sizes", report.sizes), ("modes", report.modes)):
        shown = [f"{name} ({count:,})" for name, count in list(counts.items())[:MAX_SHOWN]]
        more = f" and {len(counts) - MAX_SHOWN:,} more" if len(counts) > MAX_SHOWN else ""
        terminal.result(f"{title}: {', '.join(shown) or 'none'}{more}")
    rows = [
        ("exact duplicates", [" = ".join(group) for group in found.duplicates]),
        ("near-duplicates", [" ~ ".join(pair) for pair in found.near_duplicates]),
        ("nearly constant", found.constant),
        ("unreadable", [f"{name}: {reason}" for name, reason in report.unreadable]),
        ("used in part", [f"{name}: {reason}" for name, reason in report.partly]),
        ("ignored", [f"{name}: {reason}" for name, reason in report.ignored]),
    ]
    terminal.table(
        ("finding", "count", "such as"), [(name, f"{len(all_):,}", "; ".join(all_[:2])) for name, all_ in rows]
    )


def _print_rows(name: str, found: Dataset) -> None:
    """Print some rows of a table, or sentences, of every class."""
    from gantool import terminal
    from gantool.batches import TableBatch

    train, held_out = found.split(0, TableBatch)  # a table has its own split
    rows: list[tuple[str, str, str]] = []
    for label, class_name in enumerate(found.spec.classes):
        own = [row for row in range(len(found)) if found.labels[row] == label][:SHOWN_ROWS]
        rows += [(found.texts[row], class_name, "held out" if row in held_out else "") for row in own]
    terminal.table((name, "class", ""), rows)
    part = f" ({found.part} rows)" if found.part else ""
    terminal.result(f"{len(train):,} rows to learn from, {len(held_out):,} held out{part}")


def _changed(source: str, changes: list[str] | None) -> tuple[Data, type[Batch]]:
    """Return the checked `data` block of a source or a recipe with `--set`, and the batches that it is for."""
    from gantool.recipe.blocks import Data
    from gantool.recipe.load import parse_changes
    from gantool.recipe.schema import Mismatch, check

    wanted = {key.removeprefix("data."): value for key, value in parse_changes(changes or []).items()}
    block, kind = _data_of(source)
    try:
        return check(Data, {**block, **wanted}, ("data",)), kind
    except Mismatch as error:
        rows = (f"--set {'.'.join(map(str, place))}: {message}" for place, message in error.problems)
        raise RecipeError("\n".join(rows)) from None


def _data_of(what: str) -> tuple[dict[str, Any], type[Batch]]:
    """Return the `data` block of a recipe and the batches of its model; for anything else those of a source."""
    from gantool.batches import Labeled, TableBatch
    from gantool.data.sources.catalog import SOURCES
    from gantool.recipe.load import shipped
    from gantool.recipe.schema import plain
    from gantool.training.engine import open_recipe

    if what not in SOURCES and (what in shipped() or what.endswith((".yaml", ".yml"))):
        recipe = open_recipe(what)
        return plain(recipe.data), recipe.batch_type
    kind = SOURCES[what].kind if what in SOURCES else Labeled
    return {"source": what, **({} if kind is TableBatch else {"size": 64})}, kind
