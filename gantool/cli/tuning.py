"""The commands that search, and those that look into what a search has found."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gantool.cli.options import (
    Changes,
    DataDir,
    Device,
    Out,
    Overwrite,
    check_overwrite,
    data_root,
    stopping,
    typed,
)
from gantool.cli.runs import follow
from gantool.errors import GantoolError, RunError

if TYPE_CHECKING:
    from gantool.tune.study import Study

study_app = typer.Typer(
    help="Look into a search, and train what it found.", no_args_is_help=True, rich_markup_mode=None
)

StudyName = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="A study's directory or name; the newest one when left out.")
]


class Engine(StrEnum):
    """What runs trials."""

    RAY = "ray"
    INLINE = "inline"


def tune(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's path or name, or a study to go on with.")],
    changes: Changes = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Trials in all; a study that has fewer goes on to as many."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.5, help="Plan trials, new seeds and the last training into so many minutes."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STUDY", help="Try the best values of another study first, such as of other data."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="The study; without it the newest of this recipe in runs/, or a new one."
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; a study at --out is moved aside.")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same seed tries the same values, at any speed; in batches.")
    ] = False,
    address: Annotated[
        str, typer.Option("--address", metavar="WHERE", help="Ray: local, auto or HOST:PORT.")
    ] = "local",
    engine: Annotated[
        Engine, typer.Option("--engine", help="inline: one trial after the other, without Ray.")
    ] = Engine.RAY,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="An object a line for each event, for programs.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what Ray and Optuna say, too.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Search a recipe's space with Ray and Optuna. Ctrl-C loses nothing, and the same command goes on."""
    from gantool import terminal
    from gantool.files import is_file
    from gantool.recipe.load import parse_changes, shipped
    from gantool.runs import STUDY
    from gantool.training.engine import open_recipe
    from gantool.tune import results
    from gantool.tune.board import Board
    from gantool.tune.search import SearchBackend, search

    places = [Path(recipe)] if recipe in shipped() else [Path(recipe), Path("runs") / recipe]
    old = next((path for path in places if is_file(path / STUDY)), None)
    if out is None and old is not None:
        out, recipe = old, str(old)
    wanted = parse_changes(changes or []) | ({"tune.trials": trials} if trials else {})
    wanted |= {"tune.deterministic": True} if deterministic else {}
    chosen = open_recipe(recipe, wanted)
    way = SearchBackend(engine.value, address, device, verbose, minutes, _open(source).path if source else None)
    with Board(chosen, as_json=as_json) as board, stopping(lambda: board.study is not None) as stopped:
        study = search(
            chosen, out=out, fresh=fresh, data_dir=data_root(data_dir), board=board, stopped=stopped, way=way
        )
    if stopped:
        if not as_json:
            terminal.result("stopped; go on with:")
            terminal.hint(f"gantool tune {typed(study.shown)}{_options(address, engine, device)}")
        raise typer.Exit(128 + stopped[0])
    if as_json or not (study.path / "best.yaml").is_file():
        return
    _print_result(study)
    terminal.result(f"its recipe: {study.shown / 'best.yaml'}   its images: {study.shown / 'best.png'}")
    if (study.path / results.COMPARISON).is_file():
        terminal.result(f"beside your recipe's own: {study.shown / results.COMPARISON}")
    terminal.hint(f"gantool sample {typed(study.shown)}")
    terminal.hint(f"gantool study report {typed(study.shown)}")


def _print_result(study: Study) -> None:
    """Show the verdict, and what would decide where it is open."""
    from gantool import terminal
    from gantool.report import insight
    from gantool.report.findings import findings
    from gantool.tune import results

    terminal.result(results.sentence(study))
    edge = insight.at_an_edge(findings(study))
    if edge:
        terminal.result(edge)
    advice = results.advice(study)
    if advice.startswith("--"):
        option, value, effect = advice.split(" ", 2)
        terminal.result(f"this {effect}:")
        terminal.hint(f"gantool tune {typed(study.shown)} {option} {value}")
    elif advice:
        terminal.result(advice)


@study_app.command()
def status(
    study: StudyName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object, for programs.")] = False,
) -> None:
    """Show the state of a search, while it runs or afterwards."""
    from gantool import terminal
    from gantool.files import is_locked
    from gantool.tune import results
    from gantool.tune.board import Board

    found = _open(study)
    if as_json:
        terminal.as_json(results.summary(found))
        return
    board = Board(found.recipe)
    board.begin(found)
    board.finish(interrupted=False, over="")
    if not is_locked(found.path / "lock") and not found.is_done():
        labels = found.unended()
        what = f"interrupted: trial {', '.join(labels)}" if labels else "not over yet"
        terminal.result(f"{what}; go on with: gantool tune {typed(found.shown)}")
    if found.winner():
        _print_result(found)


@study_app.command()
def report(
    study: StudyName = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Where index.html is written.")
    ] = None,
) -> None:
    """Show what a search found: which settings matter, how it went, and a page with charts and all trials."""
    from gantool import terminal
    from gantool.report import insight
    from gantool.report.findings import findings
    from gantool.report.page import write_page

    opened = _open(study)
    if not opened.spent():
        raise RunError(f"{opened.shown}: no trial has ended yet; wait for one")
    found = findings(opened)
    weights = insight.importances(found.trials)
    told = insight.sentences(found, weights)
    for sentence in told:
        terminal.result(sentence)
    write_page(found, weights, told, (output or opened.path / "report") / "index.html")
    shown = opened.shown / "report" if output is None else output
    terminal.result(f"{shown / 'index.html'}: one page, with all charts; a browser shows it without a network")


@study_app.command()
def promote(
    study: StudyName = None,
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="NUMBER", min=0, help="Another one than the best.")
    ] = None,
    changes: Changes = None,
    out: Out = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Train the winner for the recipe's full length, as a new run."""
    from gantool.recipe import load as recipes
    from gantool.recipe.load import parse_changes
    from gantool.runs import Run
    from gantool.training import engine
    from gantool.tune import results

    found = _open(study)
    winner = found.winner()
    if trial is not None and trial >= len(found.trials()):
        raise RunError(f"{found.shown}: has no trial {trial}; it has {len(found.trials())}, from 0 on")
    if winner is None and trial is None:
        raise RunError(f"{found.shown}: no trial has finished yet; go on with: gantool tune {typed(found.shown)}")
    number = trial if trial is not None else (winner.number if winner else 0)
    chosen = engine.change(results.recipe_of(found, number), parse_changes(changes or []))
    run = Run.create(recipes.dump(chosen), name=chosen.name, out=out)
    root = data_root(data_dir, Run(found.folder(number)))
    follow(chosen, run, new=True, device=device, data_dir=root)


@study_app.command()
def export(
    study: StudyName = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="FILE.csv or FILE.json: all trials; FILE.yaml: the best."),
    ] = Path("trials.csv"),
    overwrite: Overwrite = False,
) -> None:
    """Write all trials as a table, or the best recipe."""
    from gantool import terminal
    from gantool.files import write
    from gantool.recipe import load as recipes
    from gantool.tune import results

    found = _open(study)
    check_overwrite(output, overwrite)
    if output.suffix == ".csv":
        write(output, results.table(found))
    elif output.suffix == ".json":
        write(output, json.dumps(results.summary(found), indent=2, ensure_ascii=False) + "\n")
    elif output.suffix in {".yaml", ".yml"}:
        winner = found.winner()
        if winner is None:
            raise RunError(f"{found.shown}: no trial has finished yet; go on with: gantool tune {typed(found.shown)}")
        write(output, recipes.dump(results.recipe_of(found, winner.number)))
    else:
        raise GantoolError(f"{output}: expected a name that ends in .csv, .json or .yaml")
    terminal.result(
        f"{output}: {'the best recipe' if output.suffix in {'.yaml', '.yml'} else 'all trials'} of {found.shown}"
    )


@study_app.command()
def compare(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY STUDY …", help="Two or more studies.")],
    as_json: Annotated[bool, typer.Option("--json", help="One array, for programs.")] = False,
) -> None:
    """Set searches side by side: the lowest metric over time, verdicts, and whether they tried the same values."""
    from gantool import terminal
    from gantool.tune import results

    if len(studies) < 2:
        raise RunError(f"study compare: {len(studies)} study given; name two or more")
    rows = results.side_by_side_of([_open(name) for name in studies])
    if as_json:
        terminal.as_json(rows)
    else:
        terminal.searches(rows)


@study_app.command()
def simulate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's path or name, of the table's model.")],
    table: Annotated[
        Path, typer.Option("--table", metavar="FILE", help="Learning curves, as nox -s gan-table has them.")
    ],
    changes: Changes = None,
    repeats: Annotated[int, typer.Option("--repeats", min=10, help="How many searches to replay.")] = 200,
    rival_trials: Annotated[
        int | None,
        typer.Option("--rival-trials", min=1, help="Compare with a random search of so many full trials, too."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object, for programs.")] = False,
) -> None:
    """Replay searches on a table of trainings: what a sampler, a pruner and a budget are worth."""
    from gantool import terminal
    from gantool.recipe.load import parse_changes
    from gantool.training.engine import open_recipe
    from gantool.tune import simulate as simulation

    chosen = open_recipe(recipe, parse_changes(changes or []))
    known = simulation.Table.read(table, chosen)
    found = simulation.summary(list(simulation.replays(chosen, known, repeats, rival_trials)))
    found["table"] = simulation.about(known)
    if as_json:
        terminal.as_json(found)
    else:
        terminal.simulation(chosen, found)


def _open(name: str | None) -> Study:
    from gantool.files import is_file
    from gantool.runs import STUDY, find_directory
    from gantool.tune.study import Study

    for path in (Path(name), Path("runs") / name) if name else ():
        if is_file(path / "recipe.yaml") and not is_file(path / STUDY):
            raise RunError(f"{path}: is a run, not a study; a study is made with: gantool tune RECIPE")
    return Study(find_directory(name, STUDY, "study", "gantool tune RECIPE"))


def _options(address: str, engine: Engine, device: str) -> str:
    """Write the options of a search that its study does not remember."""
    given = {"--address": (address, "local"), "--engine": (engine.value, "ray"), "--device": (device, "auto")}
    return "".join(f" {name} {value}" for name, (value, default) in given.items() if value != default)
