"""The commands on datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gantool.cli.options import Changes, DataDir, Overwrite, Picture, data_root, refuse_old
from gantool.errors import RecipeError

data_app = typer.Typer(help="Fetch, list and look at datasets.", no_args_is_help=True, rich_markup_mode=None)


@data_app.command()
def fetch(
    what: Annotated[
        str, typer.Argument(help="A source, a recipe, the https address of a zip or tar of images, or inception.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="What data.source will call the pictures of an address.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Fetch a dataset, and say how to use it."""
    from gantool import show
    from gantool.data.prepare import fetch as get

    with show.Downloads() as progress:
        source = get(_source_of(what), name, data_root(data_dir), tell=show.tell, progress=progress)
    if source == "inception":
        show.result("the weights of Inception are here; use them with: gantool score RUN --metrics fid")
    else:
        show.result(f"{source} is here; use it with: --set data.source={source}")


@data_app.command("list")
def list_sources(data_dir: DataDir = None) -> None:
    """Say which datasets are here and which can be had."""
    from gantool import show
    from gantool.data.prepare import available

    root = data_root(data_dir)
    rows = [(name, "here" if here else "", summary) for name, here, summary in available(root)]
    show.out.print(show.table("", ("source", "", "what it is"), rows))
    show.out.print(f"data directory: {root}")


@data_app.command("show")
def show_source(
    source: Annotated[str, typer.Argument(help="A source, a recipe, or a path to a folder or an archive.")],
    output: Picture = None,
    changes: Changes = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw a labelled contact sheet of a dataset. --set data.size, data.classes and data.folder choose."""
    from gantool import show
    from gantool.data.prepare import prepare
    from gantool.data.sheet import contact_sheet
    from gantool.recipe import Data, parse_changes
    from gantool.schema import Mismatch, check

    root = data_root(data_dir)
    path = output or Path("sheet.png")
    wanted = {key.removeprefix("data."): value for key, value in parse_changes(changes or []).items()}
    block = _data_block(source) or {"source": source, "size": 64}
    try:
        data = check(Data, {**block, **wanted}, ("data",))
    except Mismatch as error:
        rows = (f"--set {'.'.join(map(str, place))}: {message}" for place, message in error.problems)
        raise RecipeError("\n".join(rows)) from None
    store = prepare(data, root, tell=show.tell)
    refuse_old(path, overwrite)
    contact_sheet(store, path, rendered=data.source == "eggs")
    show.result(f"{path}: {len(store)} pictures in {len(store.spec.classes)} classes")


def _source_of(what: str) -> str:
    block = _data_block(what)
    return block["source"] if block else what


def _data_block(what: str) -> dict[str, Any] | None:
    """Give the data block of what may be a recipe's name or path."""
    from gantool.data.sources import SOURCES
    from gantool.recipe import shipped

    if what in SOURCES or (what not in shipped() and not what.endswith((".yaml", ".yml"))):
        return None
    from gantool.engine import open_recipe
    from gantool.schema import plain

    return plain(open_recipe(what).data)
