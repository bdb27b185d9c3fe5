"""The commands on datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gantool.cli.options import Changes, DataDir, Overwrite, SourceImage, check_overwrite, data_root
from gantool.errors import RecipeError

if TYPE_CHECKING:
    from gantool.batches import Batch

data_app = typer.Typer(help="Fetch, list and look at datasets.", no_args_is_help=True, rich_markup_mode=None)


@data_app.command()
def fetch(
    what: Annotated[
        str, typer.Argument(help="A source, a recipe, the https address of a zip or tar of images, or inception.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="What data.source will call the images of an address.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Fetch a dataset, and say how to use it."""
    from gantool import terminal
    from gantool.data.prepare import fetch as get
    from gantool.progress import Downloads

    with Downloads() as progress:
        source = get(_source_of(what), name, data_root(data_dir), progress=progress)
    if source == "inception":
        terminal.result("the weights of Inception are here; use them with: gantool score RUN --metrics fid")
    else:
        terminal.result(f"{source} is here; use it with: --set data.source={source}")


@data_app.command("list")
def list_sources(data_dir: DataDir = None) -> None:
    """List the datasets that are on this machine and those that can be fetched."""
    from gantool import terminal
    from gantool.data.prepare import available

    root = data_root(data_dir)
    rows = [(name, "here" if here else "", summary) for name, here, summary in available(root)]
    terminal.out.print(terminal.table("", ("source", "", "what it is"), rows))
    terminal.out.print(f"data directory: {root}")


@data_app.command("show")
def show_source(
    source: Annotated[str, typer.Argument(help="A source, a recipe, or a path to a folder or an archive.")],
    output: SourceImage = None,
    changes: Changes = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw a labelled contact sheet of a dataset, or print rows of a table.

    --set data.size, data.classes and data.folder choose.
    Name a recipe to see its data as its model does, such as pairs.
    """
    from gantool import terminal
    from gantool.batches import Paired, TableBatch
    from gantool.data.prepare import prepare, table
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
    if kind is TableBatch:
        terminal.examples(table(data, root))
        return
    store = prepare(data, root, kind)
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
    """Return what a source holds, or what the model of a recipe learns from."""
    from gantool.batches import Labeled, TableBatch
    from gantool.data.sources.catalog import SOURCES
    from gantool.data.sources.tables import TABLES

    if what in TABLES:
        return TableBatch
    if what in SOURCES:
        return SOURCES[what].kind
    if _data_block(what) is None:
        return Labeled
    from gantool import models
    from gantool.training.engine import open_recipe

    return models.find_model(open_recipe(what).model["name"]).consumes


def _source_of(what: str) -> str:
    block = _data_block(what)
    return block["source"] if block else what


def _data_block(what: str) -> dict[str, Any] | None:
    """Return the data block of what may be a recipe's name or path."""
    from gantool.data.sources.catalog import SOURCES
    from gantool.data.sources.tables import TABLES
    from gantool.recipe.load import shipped

    if what in SOURCES or what in TABLES or (what not in shipped() and not what.endswith((".yaml", ".yml"))):
        return None
    from gantool.recipe.schema import plain
    from gantool.training.engine import open_recipe

    return plain(open_recipe(what).data)
