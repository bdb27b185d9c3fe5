"""The commands that list what exists: runs and studies, and recipes."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument

from gantool.cli.commands import Command, Group
from gantool.cli.options import AsJson, OutputFile, Overwrite, RecipeName, check_overwrite
from gantool.errors import GantoolError
from gantool.files import is_file, is_locked, write
from gantool.runs import STUDY, Run, numbered

recipes_app = typer.Typer(
    cls=Group, help="List, show and copy the recipes.", no_args_is_help=True, rich_markup_mode=None
)
DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Row:
    """A run or a study in the list."""

    name: str
    recipe: str
    done: str  # `30/150 epochs`, or the trials of a study that have ended
    metric: str
    best: float | None
    deviation: float | None
    state: str  # a study's verdict, once it is reached
    bytes: int
    changed: float  # seconds since 1970


def list_all(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="A folder of runs and studies.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List runs and studies, the newest first."""
    from gantool import terminal

    if not folder.is_dir():
        raise GantoolError(f"{folder}: no such folder; make a run with: gantool train RECIPE")
    rows = [_row(path) for path in numbered(folder)]
    if as_json:
        terminal.as_json([asdict(row) for row in rows])
        return
    if not rows:
        raise GantoolError(f"{folder}: no run and no study in it; make a run with: gantool train RECIPE")
    headings = ("name", "recipe", "done", "best", "state", "size", "changed")
    orders = (0, 3, 1, 0, 2, 5, 4)
    columns = [
        terminal.Column(heading, heading in {"done", "size"}, order, heading == "state")
        for heading, order in zip(headings, orders, strict=True)
    ]
    terminal.table(columns, [_texts(row) for row in rows])


def _texts(row: Row) -> tuple[str, ...]:
    from gantool import terminal

    best = "" if row.best is None else f"{row.metric} {terminal.spread(row.best, row.deviation)}"
    age = max(0.0, time.time() - row.changed)
    changed = f"{terminal.duration(age)} ago" if age < DAY else time.strftime("%Y-%m-%d", time.localtime(row.changed))
    return row.name, row.recipe, row.done, best, row.state, f"{row.bytes / 1e6:,.1f} MB", changed


def _row(path: Path) -> Row:
    """Return the row of a directory; one that cannot be read says so."""
    try:
        known: dict[str, Any] = _study(path) if is_file(path / STUDY) else _run(path)
    except GantoolError as error:
        known = {"recipe": "", "done": "", "metric": "", "best": None, "deviation": None, "state": f"damaged: {error}"}
    files = [file for file in path.rglob("*") if file.is_file()]
    sizes, times = [], [0.0]
    for file in files:
        with contextlib.suppress(OSError):  # a search may just remove it
            status = file.stat()
            sizes.append(status.st_size)
            times.append(status.st_mtime)
    return Row(name=path.name, bytes=sum(sizes), changed=max(times), **known)


def _run(path: Path) -> dict[str, Any]:
    from gantool.recipe import strict_yaml

    try:
        text = strict_yaml.parse((path / "recipe.yaml").read_bytes(), str(path / "recipe.yaml"))[0]
        name, epochs = str(text["name"]), int(text["train"]["epochs"])
    except (OSError, KeyError, TypeError, ValueError):
        raise GantoolError(f"{path / 'recipe.yaml'}: is not the recipe of a run; restore a copy") from None
    entries = Run(path).entries()
    last: dict[str, Any] = entries[-1] if entries else {"epoch": 0}
    metric = "error" if any("metrics/error" in entry for entry in entries) else "fd"
    best = Run(path).best(metric)
    state = "finished" if last["epoch"] >= epochs else "stopped"
    if is_locked(path / "lock"):
        state = "running"
    return {
        "recipe": name,
        "done": f"{last['epoch']}/{epochs} epochs",
        "metric": metric,
        "best": best.get(f"metrics/{metric}"),
        "deviation": best.get(f"metrics/{metric}_deviation"),
        "state": ", ".join([state, *last.get("diagnoses", [])]),
    }


def _study(path: Path) -> dict[str, Any]:
    from gantool.tune.study import Study

    study = Study(path)
    verdict, winner = study.verdict(), study.winner()
    best = None if winner is None else study.best_run(winner.number)
    state = "running" if is_locked(path / "lock") else "interrupted"
    return {
        "recipe": study.recipe.name,
        "done": f"{len(study.spent())}/{study.wanted} trials",
        "metric": study.recipe.metric,
        "best": None if best is None else best.value,
        "deviation": None,
        "state": verdict.sentence().partition(":")[0] if study.is_done() and verdict is not None else state,
    }


@recipes_app.command("list", cls=Command)
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that come with gantool."""
    from gantool import terminal
    from gantool.recipe.load import shipped

    rows = [(name, _head(path)) for name, path in shipped().items()]
    if as_json:
        terminal.as_json([{"name": name, "summary": text, "file": shipped()[name]} for name, text in rows])
        return
    terminal.table((terminal.Column("name"), "what it is"), rows)
    terminal.hint("recipes", "show", "NAME")


@recipes_app.command("show", cls=Command)
def show_recipe(recipe: RecipeName) -> None:
    """Print a recipe: what it is, how to run it, and its keys."""
    from gantool import terminal
    from gantool.recipe.load import find_recipe

    terminal.result(find_recipe(recipe).read_text(encoding="utf-8-sig").rstrip())


@recipes_app.command("copy", cls=Command)
def copy_recipe(
    recipe: RecipeName,
    output: OutputFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Copy a recipe into a file of your own, to edit it."""
    from gantool import terminal
    from gantool.recipe.load import find_recipe

    path = find_recipe(recipe)
    target = output or Path(f"{path.stem}.yaml")
    check_overwrite(target, overwrite)
    write(target, path.read_text(encoding="utf-8-sig"))
    terminal.result(f"{target}: edit it, then:")
    terminal.hint("train", target)


def _head(path: Path) -> str:
    """Return the first sentence of the comment at the head of a recipe."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# ") or line.startswith("#  "):
            break
        lines.append(line.removeprefix("# "))
        if line.endswith("."):
            break
    return " ".join(lines)
