"""The command that searches."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from gantool.cli.options import Changes, DataDir, stopping

if TYPE_CHECKING:
    from gantool.tune.study import Study

SAVING = "stopping: running trials are being saved; Ctrl-C again exits at once"


class Engine(StrEnum):
    """What runs trials."""

    RAY = "ray"
    INLINE = "inline"


Source = Annotated[str | None, Option("--from", metavar="STUDY", help="Try the best values of another study first.")]
StudyDir = Annotated[
    Path | None,
    Option("--out", metavar="DIR", help="The study. Default: the newest of this recipe in runs/, or a new one."),
]
EngineName = Annotated[
    Engine | None,
    Option("--engine", metavar="ENGINE", help="ray (the default), or inline: one trial at a time, without Ray."),
]
Address = Annotated[
    str | None, Option("--address", metavar="WHERE", help="Ray: local (the default), auto or HOST:PORT.")
]
Minutes = Annotated[
    float | None, Option("--minutes", min=0.5, metavar="N", help="Plan the search so that it takes N minutes.")
]
Trials = Annotated[
    int | None, Option("--trials", min=1, metavar="N", help="Number of trials in total. Extends a study with fewer.")
]


def tune(
    recipe: Annotated[str, Argument(metavar="RECIPE", help="Path or name of a recipe, or a study to resume.")],
    changes: Changes = None,
    trials: Trials = None,
    minutes: Minutes = None,
    source: Source = None,
    out: StudyDir = None,
    fresh: Annotated[bool, Option("--fresh", help="Start a new study. A study at --out is moved aside.")] = False,
    deterministic: Annotated[
        bool, Option("--deterministic", help="Run trials in batches, so that a seed always tries the same values.")
    ] = False,
    address: Address = None,
    engine: EngineName = None,
    device: Annotated[
        str | None, Option("--device", metavar="DEVICE", help="auto (the default), cpu, cuda or mps.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print a JSON object for each event.")] = False,
    verbose: Annotated[bool, Option("--verbose", help="Show the messages of Ray and Optuna.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Search for better settings with Ray and Optuna. After Ctrl-C the same command resumes the search."""
    from gantool import terminal
    from gantool.cli.studies import open_study, print_result
    from gantool.recipe.load import parse_changes
    from gantool.training.engine import open_recipe
    from gantool.tune.board import Board
    from gantool.tune.events import SearchEnded
    from gantool.tune.search import SearchBackend, search

    out, recipe = _study_of(out, recipe)
    wanted = parse_changes(changes or []) | ({"tune.trials": trials} if trials else {})
    wanted |= {"tune.deterministic": True} if deterministic else {}
    chosen = open_recipe(recipe, wanted)
    other = open_study(source).path if source else None
    backend = SearchBackend(engine.value if engine else "", address or "", device or "", verbose)
    event = None
    with Board(chosen, as_json=as_json) as board, stopping(lambda: event is not None, SAVING) as stopped:
        events = search(
            chosen,
            out=out,
            fresh=fresh,
            data_dir=data_dir,
            backend=backend,
            minutes=minutes,
            source=other,
            stopped=stopped,
        )
        for event in events:
            board.show(event)
    assert isinstance(event, SearchEnded)
    study = event.study
    if not as_json:
        if stopped:
            terminal.result("stopped; to resume:")
            terminal.hint("tune", study.shown)
        elif (study.path / "best.yaml").is_file():
            print_result(study)
            _print_files(study)
    if stopped:
        raise typer.Exit(128 + stopped[0])


def _study_of(out: Path | None, recipe: str) -> tuple[Path | None, str]:
    """Return the directory and the recipe of a search; a study may be named in place of a recipe."""
    from gantool.files import is_file
    from gantool.recipe.load import shipped
    from gantool.runs import STUDY

    places = [Path(recipe)] if recipe in shipped() else [Path(recipe), Path("runs") / recipe]
    old = next((path for path in places if is_file(path / STUDY)), None)
    return (old, str(old)) if out is None and old is not None else (out, recipe)


def _print_files(study: Study) -> None:
    from gantool import terminal
    from gantool.tune import results

    terminal.result(f"recipe: {study.shown / 'best.yaml'}   images: {study.shown / 'best.png'}")
    if (study.path / results.COMPARISON).is_file():
        terminal.result(f"beside your recipe's own values: {study.shown / results.COMPARISON}")
    terminal.hint("sample", study.shown)
    terminal.hint("study", "report", study.shown)
