"""The commands that look into a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from gantool import files
from gantool.cli.commands import Command, Group
from gantool.cli.options import AsJson, Changes, DataDir, Device, Out, Overwrite, check_overwrite
from gantool.cli.training import follow
from gantool.errors import GantoolError, RunError, command_line
from gantool.files import is_file, is_locked
from gantool.runs import STUDY, Run, data_root, find_directory

if TYPE_CHECKING:
    from gantool.recipe.blocks import Recipe
    from gantool.tune.study import Study

study_app = typer.Typer(
    cls=Group, help="Look into a search, and train what it found.", no_args_is_help=True, rich_markup_mode=None
)

StudyName = Annotated[
    str | None, Argument(metavar="STUDY", help="Directory or name of a study. Default: the newest one.")
]


def print_result(study: Study) -> None:
    """Print the verdict, and what would decide if it is open."""
    from gantool import terminal
    from gantool.report import insight
    from gantool.report.findings import findings
    from gantool.tune import results

    terminal.result(results.sentence(study))
    edge = insight.at_an_end(findings(study))
    if edge:
        terminal.result(edge)
    advice = results.advice(study)
    if advice.startswith("--"):
        option, value, effect = advice.split(" ", 2)
        terminal.result(f"this {effect}:")
        terminal.hint("tune", study.shown, option, value)
    elif advice:
        terminal.result(advice)


@study_app.command(cls=Command)
def status(
    study: StudyName = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of a search, during or after it."""
    from gantool import terminal
    from gantool.tune import results
    from gantool.tune.board import Board
    from gantool.tune.events import SearchEnded, SearchStarted

    found = open_study(study)
    if as_json:
        terminal.as_json(results.summary(found))
        return
    board = Board(found.recipe)
    interrupted = not is_locked(found.path / "lock") and not found.is_done()
    for event in (SearchStarted.of(found), SearchEnded(found, interrupted)):
        board.show(event)
    if interrupted:
        labels = found.unended()
        what = f"interrupted: trial {', '.join(labels)}" if labels else "not finished"
        terminal.result(f"{what}; to resume:")
        terminal.hint("tune", found.shown)
    if found.winner():
        print_result(found)


@study_app.command(cls=Command)
def report(
    study: StudyName = None,
    output: Annotated[Path | None, Option("-o", "--output", metavar="FOLDER", help="The folder of index.html.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain what a search found, and write a page with charts and all trials."""
    from gantool import terminal
    from gantool.report import insight
    from gantool.report.findings import findings
    from gantool.report.page import write_page

    opened = open_study(study)
    if not opened.spent():
        raise RunError(f"{opened.shown}: no trial has ended yet; wait for the first one")
    found = findings(opened)
    weights = insight.importances(found)
    sentences = insight.sentences(found, weights)
    write_page(found, weights, sentences, (output or opened.path / "report") / "index.html")
    page = (opened.shown / "report" if output is None else output) / "index.html"
    if as_json:
        terminal.as_json({"sentences": sentences, "page": page})
    else:
        terminal.result(*sentences, f"{page}: a page with all charts, for any browser")


@study_app.command(cls=Command)
def promote(
    study: StudyName = None,
    trial: Annotated[
        int | None, Option("--trial", metavar="NUMBER", min=0, help="Train this trial and not the winner.")
    ] = None,
    changes: Changes = None,
    out: Out = None,
    as_json: AsJson = False,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Train the winner for the recipe's full number of epochs, as a new run."""
    from gantool.recipe import load as recipes
    from gantool.recipe.load import parse_changes
    from gantool.training import engine
    from gantool.tune import results

    found = open_study(study)
    if trial is not None and trial >= len(found.trials()):
        raise RunError(f"{found.shown}: has no trial {trial}; its {len(found.trials())} trials count from 0")
    number = _winner_of(found) if trial is None else trial
    chosen = engine.change(results.recipe_of(found, number), parse_changes(changes or []))
    root = data_root(data_dir, found.data_dir)
    run = Run.create(recipes.dump(chosen), name=chosen.name, out=out)
    follow(chosen, run, new=True, device=device, data_dir=root, as_json=as_json)


@study_app.command(cls=Command)
def export(
    study: StudyName = None,
    output: Annotated[
        Path,
        Option("-o", "--output", metavar="FILE", help="FILE.csv or FILE.json: all trials. FILE.yaml: the best recipe."),
    ] = Path("trials.csv"),
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Write all trials as a table, or the best recipe."""
    from gantool import terminal
    from gantool.recipe import load as recipes
    from gantool.tune import results

    found = open_study(study)
    check_overwrite(output, overwrite)
    kind = "the best recipe" if output.suffix in {".yaml", ".yml"} else "all trials"
    if output.suffix == ".csv":
        files.output(output, results.table(found))
    elif output.suffix == ".json":
        files.output(output, json.dumps(results.summary(found), indent=2, ensure_ascii=False) + "\n")
    elif kind == "the best recipe":
        files.output(output, recipes.dump(results.recipe_of(found, _winner_of(found))))
    else:
        raise GantoolError(f"{output}: expected a name that ends in .csv, .json or .yaml")
    if as_json:
        terminal.as_json({"file": output, "contents": kind})
    else:
        terminal.result(f"{output}: {kind} of {found.shown}")


def _winner_of(study: Study) -> int:
    """Return the number of the winner."""
    winner = study.winner()
    if winner is None:
        raise RunError(f"{study.shown}: no trial has finished yet; continue with: {command_line('tune', study.shown)}")
    return winner.number


@study_app.command(cls=Command)
def compare(
    studies: Annotated[list[str], Argument(metavar="STUDY STUDY...", help="Two or more studies.")],
    as_json: AsJson = False,
) -> None:
    """Compare searches: the lowest metric over time, and the verdicts."""
    from gantool import terminal
    from gantool.tune import results

    if len(studies) < 2:
        raise RunError(f"study compare: {len(studies)} study given; name two or more")
    rows = results.side_by_side_of([open_study(name) for name in studies])
    if as_json:
        terminal.as_json(rows)
    else:
        _print_comparison(rows)


def _print_comparison(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what several searches found, a row for each."""
    from gantool import terminal

    quarters = [f"lowest {rows[0]['metric']} at 1/4", "1/2", "3/4", "end"]
    numbers = [terminal.Column(heading, right=True) for heading in ("trials", "time", *quarters)]
    seed = terminal.Column("seed", right=True)
    lines = []
    for row in rows:
        lowest = ["" if value is None else terminal.number(value) for value in row["lowest"]]
        verdict = "" if row["verdict"] is None else f"{row['verdict']} (trial {row['winner']})"
        times = [str(row["trials"]), terminal.duration(row["seconds"]), *lowest]
        lines.append((row["study"], *times, row["sampler"], row["pruner"], str(row["seed"]), verdict))
    terminal.table(("study", *numbers, "sampler", "pruner", seed, "verdict"), lines)
    for row in rows:
        if row["same_points"]:
            other, count = row["same_points"]
            points = terminal.several(count, "point")
            terminal.result(f"{row['study']} tried {points} that {other} tried: they are not independent")
        if row["sentence"]:
            terminal.result(f"{row['study']}: {row['sentence']}")


@study_app.command(cls=Command)
def simulate(
    recipe: Annotated[str, Argument(metavar="RECIPE", help="Path or name of a recipe with the model of the table.")],
    table: Annotated[Path, Option("--table", metavar="FILE", help="Learning curves, made by nox -s gan-table.")],
    changes: Changes = None,
    repeats: Annotated[int, Option("--repeats", min=10, metavar="N", help="Number of searches to replay.")] = 200,
    rival_trials: Annotated[
        int | None,
        Option("--rival-trials", min=1, metavar="N", help="Also compare with a random search of N full trials."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay searches on a table of trainings, to compare samplers, pruners and budgets."""
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
        _print_simulation(chosen, found)


def _print_simulation(recipe: Recipe, found: Mapping[str, Any]) -> None:
    """Print what replayed searches have in common."""
    from gantool import terminal

    tune, metric, about = recipe.tune, recipe.metric, found["table"]
    assert tune is not None
    searches = f"{tune.sampler}, {tune.pruner}, {terminal.several(tune.trials, 'trial')}"
    terminal.result(
        f"{about['configurations']:,} configurations, {terminal.several(about['seeds'], 'seed')} each; "
        f"{found['replays']:,} replays",
        f"{searches} of {tune.epochs or recipe.train.epochs} epochs",
    )
    headings = ("share of the time", f"{metric} of the pick: best tenth", "median", "worst tenth")
    bands = [(f"{float(share):.0%}", *map(terminal.number, values)) for share, values in found["best_found"].items()]
    terminal.table([terminal.Column(heading, right=True) for heading in headings], bands)
    for label, key in (
        ("at least as good as random search in equal time", "better_than_random_at_equal_seconds"),
        ("at least as good as the longer random search", "better_than_random_with_more_trials"),
        ("best configuration stopped early", "best_stopped_early"),
    ):
        share = found.get(key)
        if share is not None:
            low, high = share["interval"]
            terminal.result(f"{label}: {share['share']:.1%} of replays (95 % interval {low:.1%} to {high:.1%})")
    median, most = found["rank_of_the_pick"]
    terminal.result(
        f"epochs saved: {found['epochs_saved']:.0%}; seconds of training: {found['seconds']:.0f}",
        f"the pick is within the best {median:.1%} of the table in half of the replays, {most:.1%} in nine of ten",
    )
    if about["statistics"]:
        near, all_over = about["noise"]["best twentieth"], about["noise"]["all"]
        terminal.result(f"seeds differ by {near:.1%} near the best, {all_over:.1%} elsewhere (log deviation)")
        for label, agreement in {
            **about["statistics"],
            **{f"{n} epochs": v for n, v in about["lengths"].items()},
        }.items():
            terminal.result(f"  {label}: rank correlation with other seeds at the end {agreement:.3f}")


def open_study(name: str | None) -> Study:
    """Return the study of this name or path, or the newest one for None."""
    from gantool.tune.study import Study

    for path in (Path(name), Path("runs") / name) if name else ():
        if is_file(path / "recipe.yaml") and not is_file(path / STUDY):
            raise RunError(f"{path}: is a run, not a study; a search makes a study: gantool tune RECIPE")
    return Study(find_directory(name, STUDY, "study", "gantool tune RECIPE"))
