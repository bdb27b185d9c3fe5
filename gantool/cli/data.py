"""The commands on datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gantool.cli.commands import Command, Group
from gantool.cli.options import AsJson, Changes, DataDir, OutputFile, Overwrite, check_overwrite
from gantool.errors import RecipeError, command_line
from gantool.runs import data_root

if TYPE_CHECKING:
    from gantool.batches import Batch

data_app = typer.Typer(cls=Group, help="Fetch, list and look at datasets.", no_args_is_help=True, rich_markup_mode=None)


@data_app.command(cls=Command)
def fetch(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="A dataset, a recipe, the https address of a zip or tar of images, or inception."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The name that data.source will use for an address.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Download a dataset, and print how to use it."""
    from gantool import terminal
    from gantool.data.prepare import fetch as get
    from gantool.progress import Downloads

    with Downloads() as progress:
        source = get(_source_of(what), name, data_root(data_dir), progress=progress)
    if as_json:
        terminal.as_json({"source": source, "data_dir": str(data_root(data_dir))})
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
    if as_json:
        terminal.as_json([{"name": name, "here": here, "summary": summary} for name, here, summary in available(root)])
        return
    rows = [(name, "here" if here else "", summary) for name, here, summary in available(root)]
    terminal.out.print(terminal.table("", ("name", "", "contents"), rows))
    terminal.out.print(f"data directory: {root}")


@data_app.command("show", cls=Command)
def show_source(
    source: Annotated[
        str, typer.Argument(metavar="WHAT", help="A dataset, a recipe, or the path of a folder or an archive.")
    ],
    output: OutputFile = None,
    changes: Changes = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw a contact sheet of a dataset, or print rows of a table.

    --set data.size, data.classes and data.folder select images. A recipe shows its data as its model sees them, for
    example as pairs.
    """
    from gantool import terminal
    from gantool.batches import Paired, TableBatch
    from gantool.data.prepare import prepare
    from gantool.data.sheet import MAX_PAIRS, contact_sheet, pair_sheet
    from gantool.data.sources.catalog import SOURCES
    from gantool.recipe.blocks import Data
    from gantool.recipe.load import parse_changes
    from gantool.recipe.schema import Mismatch, check

    root = data_root(data_dir)
    path = output or Path("sheet.png")
    wanted = {key.removeprefix("data."): value for key, value in parse_changes(changes or []).items()}
    block, kind = _data_block(source), _kind(source)
    block = block or {"source": source, **({} if kind is TableBatch else {"size": 64})}
    try:
        data = check(Data, {**block, **wanted}, ("data",))
    except Mismatch as error:
        rows = (f"--set {'.'.join(map(str, place))}: {message}" for place, message in error.problems)
        raise RecipeError("\n".join(rows)) from None
    store = prepare(data, root, kind)
    if kind is TableBatch:
        terminal.examples(data.source, store)
        return
    check_overwrite(path, overwrite)
    if kind is Paired:
        pair_sheet(store, path)
        count = len(store) // 2
        terminal.result(f"{path}: {min(MAX_PAIRS, count)} of {terminal.several(count, 'pair')}")
        return
    rendered = data.source in SOURCES and SOURCES[data.source].rendered
    contact_sheet(store, path, rendered=rendered)
    images, classes = terminal.several(len(store), "image"), terminal.several(len(store.spec.classes), "class")
    terminal.result(f"{path}: {images} in {classes}")


def _kind(what: str) -> type[Batch]:
    """Return the type of batch of a source, or of the model of a recipe."""
    from gantool.batches import Labeled
    from gantool.data.sources.catalog import SOURCES

    if what in SOURCES:
        return SOURCES[what].kind
    if _data_block(what) is None:
        return Labeled
    from gantool.training.engine import open_recipe

    return open_recipe(what).batch_type


def _source_of(what: str) -> str:
    block = _data_block(what)
    return block["source"] if block else what


def _data_block(what: str) -> dict[str, Any] | None:
    """Return the data block of a recipe's name or path; None for anything else."""
    from gantool.data.sources.catalog import SOURCES
    from gantool.recipe.load import shipped

    if what in SOURCES or (what not in shipped() and not what.endswith((".yaml", ".yml"))):
        return None
    from gantool.recipe.schema import plain
    from gantool.training.engine import open_recipe

    return plain(open_recipe(what).data)
