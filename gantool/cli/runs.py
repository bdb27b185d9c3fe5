"""The commands on recipes and runs."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gantool.cli.options import (
    Changes,
    Checkpoint,
    ClassName,
    DataDir,
    Device,
    Images,
    Out,
    Overwrite,
    RecipeName,
    RunName,
    SourceImage,
    check_overwrite,
    data_root,
    find_run,
    read_seeds,
    stopping,
    typed,
)
from gantool.errors import DataError, GantoolError, RunError, TrainingError

if TYPE_CHECKING:
    from gantool.inference.sampling import TrainedModel
    from gantool.recipe.blocks import Recipe
    from gantool.runs import Run

logger = logging.getLogger(__name__)


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe's path or name; with --resume also a run."),
    ] = None,
    changes: Changes = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run stands.")] = False,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Train a recipe. Ctrl-C saves and says how to go on."""
    from gantool.recipe.load import parse_changes
    from gantool.training.resume import begin

    chosen, run = begin(recipe, parse_changes(changes or []), out=out, resume=resume)
    follow(chosen, run, new=not resume, device=device, data_dir=data_root(data_dir, run))


def follow(chosen: Recipe, run: Run, *, new: bool, device: str, data_dir: Path) -> None:
    """Train in a run's directory with the live line, until it is done or stopped, and say what comes next.

    Raises:
        TrainingError: a loss is no longer finite, or the run ended diverged, with all that it made kept.
    """
    from gantool import terminal
    from gantool.progress import TrainingProgress
    from gantool.training.engine import train as training

    logger.info(f"run {run.path}")
    report = None
    with (
        _taken_back(run, new=new),
        stopping(lambda: report is not None) as stopped,
        TrainingProgress(chosen.train.epochs) as line,
        contextlib.closing(training(chosen, run, data_dir=data_dir, device=device)) as reports,
    ):
        for report in reports:
            line.update(report)
            if stopped:
                break
    if stopped and not (report and report.finished and report.epoch == chosen.train.epochs):
        terminal.result(f"stopped in epoch {report.epoch if report else 1}; go on with:")
        terminal.hint(f"gantool train {typed(run.path)} --resume")
        raise typer.Exit(128 + stopped[0])
    if report is None:
        terminal.result(f"{run.path} has all of its {chosen.train.epochs} epochs; more with: --set train.epochs=N")
        return
    line.summary()
    accuracy = f" (accuracy {terminal.number(1 - report.best)})" if chosen.metric == "error" else ""
    found = next((entry for entry in run.entries() if entry.get(f"metrics/{chosen.metric}") == report.best), {})
    value = terminal.spread(report.best, found.get(f"metrics/{chosen.metric}_deviation"))
    best = f"best {chosen.metric} {value}{accuracy}"
    terminal.result(f"{run.path}: {best}, {terminal.duration(report.seconds)}")
    if "diverged" in report.diagnoses:
        raise TrainingError(
            f"{run.path}: the run ended diverged; start a new run with a lower train.optimizer.lr than "
            f"{chosen.train.optimizer.lr:g} (gantool explain diverged)"
        )
    terminal.hint(f"gantool sample {typed(run.path)}")
    terminal.hint(f"gantool animate {typed(run.path)}")


@contextlib.contextmanager
def _taken_back(run: Run, *, new: bool) -> Iterator[None]:
    """Remove the directory of a new run that fails before its first step, such as for want of its data."""
    try:
        yield
    except TrainingError:
        raise
    except (GantoolError, KeyboardInterrupt, SystemExit):
        if new and not run.entries() and not any(run.checkpoints.iterdir()):
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def sample(
    run: RunName = None,
    given: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE|FOLDER", help="Images to translate, or what to answer to."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="SEEDS", help="Such as 7, 0-15 or 1,5,9-12; 0-15 without it.")
    ] = None,
    class_name: ClassName = None,
    output: SourceImage = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Make samples: one seed is one entry. FILE.png is a grid, any other name a folder of single files.

    A model that translates images shows examples, or translates --input; one that answers prints its answers, or
    writes them to -o FILE.csv.
    """
    from gantool import load, terminal

    found = find_run(run)
    trained = load(found.path, checkpoint, device)
    if trained.answers:
        for option, value in (("--class", class_name), ("--seeds", seeds)):
            if value is not None:
                raise GantoolError(f"{option} {value}: {trained.name} answers, and makes no images; leave it out")
        _answer(found, trained, given, output, overwrite)
        return
    if given is not None:
        _translate(found, trained, given, output, read_seeds("0" if seeds is None else seeds), class_name, overwrite)
        return
    from gantool import images
    from gantool.training.monitor import sheet

    shown = trained.shown
    if shown is not None and seeds is None and class_name is None:
        path = output or found.path / "sample.png"
        check_overwrite(path, overwrite or output is None)
        images.save(sheet(shown, trained.images(shown), trained.data.classes), path)
        terminal.result(f"{path}: {terminal.several(len(shown), 'example')}, as translated in epoch {trained.epoch}")
        terminal.hint(f"gantool sample {typed(found.path)} --input FILE")
        return
    seeds = "0-15" if seeds is None else seeds
    numbers = read_seeds(seeds)
    path = output or found.path / f"sample{'-' + class_name if class_name else ''}-{seeds}.png"
    names = [f"seed-{seed:06d}" for seed in numbers]
    for file in [path] if path.suffix else [path / f"{name}.png" for name in names]:
        check_overwrite(file, overwrite or output is None)
    samples, request = trained.sample(numbers, class_name), trained.request(numbers, class_name)
    if path.suffix:
        drawn = images.grid(samples) if request is None else sheet(request, samples, trained.data.classes)
        images.save(drawn, path)
        terminal.result(f"{path}: {terminal.several(len(numbers), 'image')} of epoch {trained.epoch}")
    else:
        images.save_each(samples, path, names)
        terminal.result(f"{path}{os.sep}: {terminal.several(len(numbers), 'image')} of epoch {trained.epoch}")


def _translate(
    run: Run,
    trained: TrainedModel,
    given: Path,
    output: Path | None,
    seeds: list[int],
    class_name: str | None,
    over: bool,
) -> None:
    """Translate the images of a file or folder, each into one file a seed."""
    from gantool import terminal
    from gantool.inference.inputs import targets, translate

    files = targets(trained, given, output or run.path / "translated", seeds, single=output is not None)
    for _, _, target in files:
        check_overwrite(target, over or output is None)
    skipped = list(translate(trained, files, class_name))
    for name, reason in skipped:
        logger.info(f"{name}: skipped ({reason})")
    made = len(files) - len(skipped)
    if not made:
        raise DataError(f"--input {given}: none of its {len(files)} files can be read as an image")
    place = files[0][2] if len(files) == 1 else f"{files[0][2].parent}{os.sep}"
    way = f" into {class_name or trained.data.classes[-1]}" if trained.generator.conditional else ""
    terminal.result(f"{place}: {terminal.several(made, 'image')}, translated{way} in epoch {trained.epoch}")


def _answer(run: Run, trained: TrainedModel, given: Path | None, output: Path | None, over: bool) -> None:
    """Print predictions for a file, a folder of images, or the examples that the run keeps; a CSV file with -o."""
    from gantool import terminal
    from gantool.inference.inputs import predictions, write_predictions

    if output is not None and output.suffix.lower() != ".csv":
        raise GantoolError(f"-o {output}: {trained.name}'s answers are a table; name a file that ends in .csv")
    rows = predictions(trained, given)
    if output is None:
        terminal.predictions(rows)
        if given is None:
            terminal.hint(f"gantool sample {typed(run.path)} --input FILE")
        return
    check_overwrite(output, over)
    write_predictions(rows, output)
    terminal.result(f"{output}: {terminal.several(len(rows), 'answer')} of epoch {trained.epoch}")


def animate(
    run: RunName = None,
    walk: Annotated[bool, typer.Option("--walk", help="Walk through latent space, in place of the training.")] = False,
    seeds: Annotated[str, typer.Option("--seeds", metavar="SEEDS", help="Where a walk comes by.")] = "0-5",
    frames: Annotated[int, typer.Option("--frames", min=2, max=1000, help="Images from seed to seed of a walk.")] = 20,
    class_name: ClassName = None,
    output: SourceImage = None,
    checkpoint: Checkpoint = "best",
    overwrite: Overwrite = False,
) -> None:
    """Animate the training of a run, or a walk through its latent space; GIF, WebP or MP4 by the file's ending."""
    from gantool import terminal
    from gantool.inference.animate import animate_training, animate_walk

    found = find_run(run)
    path = output or found.path / ("walk.gif" if walk else "training.gif")
    if output:
        check_overwrite(path, overwrite)
    if walk:
        count = animate_walk(found, path, read_seeds(seeds), frames, class_name, checkpoint)
    else:
        count = animate_training(found, path)
    terminal.result(f"{path}: {terminal.several(count, 'frame')}")


def score(
    what: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run, or a folder of images.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FOLDER", help="Real images; a run is measured against its own without it."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="NAMES", help="Such as fd,kd,coverage; all without it.")
    ] = None,
    count: Images = None,
    checkpoint: Checkpoint = "best",
    as_json: Annotated[bool, typer.Option("--json", help="One object, for programs.")] = False,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Measure how good a run's images are, or those of a folder: distances, coverage, copying, support."""
    from gantool import terminal
    from gantool.inference import scoring
    from gantool.metrics.reference import MIN_IMAGES_TO_LEARN

    names = scoring.chosen(metrics)
    if what is not None and against is not None and _holds_images(what):
        if count is not None:
            raise GantoolError(f"--images {count}: a folder is measured with all of its images; leave it out")
        found = scoring.score_folder(Path(what), against, names, data_dir=data_root(data_dir))
    else:
        run = find_run(what)
        found = scoring.score_run(
            run,
            names,
            against=against,
            count=count,
            checkpoint=checkpoint,
            device=device,
            data_dir=data_root(data_dir, run),
        )
    if as_json:
        terminal.as_json(found.entry())
    else:
        terminal.score(found, scoring.METRICS | scoring.PARTS, MIN_IMAGES_TO_LEARN)


def _holds_images(place: str) -> bool:
    """Return whether the argument is a folder of images and not a run."""
    path = Path(place)
    return path.is_dir() and not (path / "recipe.yaml").is_file()


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs.")],
    output: SourceImage = None,
    count: Images = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure runs alike: one table, and one sheet of what each makes of the same seeds."""
    from gantool import terminal
    from gantool.inference import compare as comparison

    if len(runs) < 2:
        raise RunError(f"compare: {len(runs)} run given; name two or more")
    path = output or Path("compare.png")
    if output:
        check_overwrite(path, overwrite)
    found = [find_run(name) for name in runs]
    rows = comparison.compare(found, path, count=count, device=device, data_dir=data_root(data_dir, *found))
    terminal.comparison(rows)
    terminal.result(f"{path}: the same 8 seeds or sources, a row a run")


def nearest(
    run: RunName = None,
    output: SourceImage = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw generated images beside the training images that are nearest to them: does it copy?"""
    from gantool import terminal
    from gantool.inference import compare as comparison

    found = find_run(run)
    path = output or found.path / "nearest.png"
    if output:
        check_overwrite(path, overwrite)
    root = data_root(data_dir, found)
    numbers = comparison.nearest(found, path, checkpoint=checkpoint, device=device, data_dir=root)
    terminal.copying(numbers)
    terminal.result(
        f"{path}: generated images on the left, the nearest training images beside each, with their distances"
    )


def explain(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="A diagnosis, such as mode-collapse.")] = None,
) -> None:
    """Explain a diagnosis: what was seen, why it happens, what to try. Without a code, list them."""
    from gantool import terminal
    from gantool.training import diagnoses

    if code is None:
        terminal.out.print(terminal.table("", ("code", "what it says"), diagnoses.SUMMARIES.items()))
    else:
        terminal.result(diagnoses.explain(code))


def shapes(
    recipe: RecipeName,
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show every layer's size and the arithmetic behind it. Needs no data, no GPU and no memory for weights."""
    from dataclasses import asdict

    from gantool import terminal
    from gantool.recipe.load import parse_changes
    from gantool.training.engine import open_recipe
    from gantool.training.engine import shapes as trace

    layers = trace(open_recipe(recipe, parse_changes(changes or [])), data_root(data_dir))
    if as_json:
        terminal.as_json([asdict(layer) for layer in layers])
    else:
        terminal.layers(layers)
