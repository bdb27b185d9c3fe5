"""The command line: parse, call one function, show what it gives. Heavy imports wait inside of the commands."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gantool.errors import GantoolError, RecipeError, RunError, TrainingError

if TYPE_CHECKING:
    from gantool.runs import Run

app = typer.Typer(
    name="gantool",
    help="Train, search, sample and understand generative adversarial networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Fetch, list and look at datasets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's path, or the bare name of a shipped one.")
]
RunName = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's directory or name; the newest one when left out."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, dotted; repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The new directory; runs/<recipe>-<NNN> without it."),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or mps.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", envvar="GANTOOL_DATA", help="Where fetched and decoded data live."),
]
ClassName = Annotated[str | None, typer.Option("--class", metavar="NAME", help="Pictures of this class only.")]
Checkpoint = Annotated[str, typer.Option("--checkpoint", metavar="WHICH", help="best, last, or a kept epoch's number.")]
Picture = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a file that is already there.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 when all went well, else with the code of what did not (see `errors`)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a letter shows `?` for it
            stream.reconfigure(errors="replace")
    try:
        try:
            app(arguments)
        finally:
            if sys.stdout:  # None where it was closed before the start
                sys.stdout.flush()
    except GantoolError as error:
        from gantool import show

        show.error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@app.callback(invoke_without_command=True)
def version(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Train, search, sample and understand generative adversarial networks."""
    if show_version:
        from gantool import __version__

        typer.echo(f"gantool {__version__}")
        raise typer.Exit


@app.command()
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
    from gantool import show
    from gantool.engine import begin
    from gantool.engine import train as training
    from gantool.recipe import parse_changes

    chosen, run = begin(recipe, parse_changes(changes or []), out=out, resume=resume)
    show.tell(f"run {run.path}")
    report = None
    with (
        _taken_back(run, new=not resume),
        stopping(lambda: report is not None) as stopped,
        show.Training(chosen.train.epochs) as line,
        contextlib.closing(
            training(chosen, run, data_dir=_data_dir(data_dir), device=device, tell=show.tell)
        ) as reports,
    ):
        for report in reports:
            line.update(report)
            if stopped:
                break
    if stopped and not (report and report.finished and report.epoch == chosen.train.epochs):
        show.result(f"stopped in epoch {report.epoch if report else 1}; go on with:")
        show.hint(f"gantool train {_typed(run.path)} --resume")
        raise typer.Exit(128 + stopped[0])
    if report is None:
        show.result(f"{run.path} has all of its {chosen.train.epochs} epochs; more with: --set train.epochs=N")
        return
    line.summary()
    show.result(f"{run.path}: best {chosen.metric} {show.number(report.best)}, {show.duration(report.seconds)}")
    show.hint(f"gantool sample {_typed(run.path)}")
    show.hint(f"gantool animate {_typed(run.path)}")


@app.command()
def tune(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's path or name, or a study to go on with.")],
    changes: Changes = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Trials in all; a study that has fewer goes on to as many."),
    ] = None,
    out: Out = None,
    data_dir: DataDir = None,
) -> None:
    """Search a recipe's space with Ray and Optuna. Ctrl-C keeps what was found and says how to go on."""
    from gantool import show
    from gantool.engine import open_recipe
    from gantool.recipe import parse_changes
    from gantool.tune.board import Board
    from gantool.tune.study import DATABASE, search

    if out is None and (Path(recipe) / DATABASE).is_file():
        out = Path(recipe)
    wanted = parse_changes(changes or []) | ({"tune.trials": trials} if trials else {})
    chosen = open_recipe(recipe, wanted)
    with Board(chosen) as board, stopping(lambda: board.home is not None) as stopped:
        study = search(chosen, out=out, data_dir=_data_dir(data_dir), board=board, stopped=stopped)
    if stopped:
        show.result("stopped; go on with:")
        show.hint(f"gantool tune {_typed(study.shown)}")
        raise typer.Exit(128 + stopped[0])
    show.result(study.crowned)
    show.result(f"best recipe: {study.shown / 'best.yaml'}   its pictures: {study.shown / 'best.png'}")
    show.hint(f"gantool train {_typed(study.shown / 'best.yaml')}")


@app.command()
def sample(
    run: RunName = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="SEEDS", help="Such as 7, 0-15 or 1,5,9-12.")] = "0-15",
    class_name: ClassName = None,
    output: Picture = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Make pictures: one seed is one picture. FILE.png is a grid, any other name a folder of single files."""
    from gantool import images, load, show

    numbers = _seeds(seeds)
    found = _find_run(run)
    path = output or found.path / f"sample{'-' + class_name if class_name else ''}-{seeds}.png"
    names = [f"seed-{seed:06d}" for seed in numbers]
    for file in [path] if path.suffix else [path / f"{name}.png" for name in names]:
        _refuse_old(file, overwrite or output is None)
    trained = load(found.path, checkpoint, device)
    pictures = trained.sample(numbers, class_name)
    if path.suffix:
        images.save(images.grid(pictures), path)
        show.result(f"{path}: {len(numbers)} pictures of epoch {trained.epoch}")
    else:
        images.save_each(pictures, path, names)
        show.result(f"{path}{os.sep}: {len(numbers)} pictures of epoch {trained.epoch}")


@app.command()
def animate(
    run: RunName = None,
    walk: Annotated[bool, typer.Option("--walk", help="Walk through latent space, in place of the training.")] = False,
    seeds: Annotated[str, typer.Option("--seeds", metavar="SEEDS", help="Where a walk comes by.")] = "0-5",
    frames: Annotated[
        int, typer.Option("--frames", min=2, max=1000, help="Pictures from seed to seed of a walk.")
    ] = 20,
    class_name: ClassName = None,
    output: Picture = None,
    checkpoint: Checkpoint = "best",
    overwrite: Overwrite = False,
) -> None:
    """Animate the training of a run, or a walk through its latent space; GIF, WebP or MP4 by the file's ending."""
    from gantool import show
    from gantool.sampling import animate_training, animate_walk

    found = _find_run(run)
    path = output or found.path / ("walk.gif" if walk else "training.gif")
    if output:
        _refuse_old(path, overwrite)
    if walk:
        count = animate_walk(found, path, _seeds(seeds), frames, class_name, checkpoint)
    else:
        count = animate_training(found, path)
    show.result(f"{path}: {count} frames")


@app.command()
def score(
    what: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run, or a folder of images.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FOLDER", help="Real images; a run is measured against its own without it."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="NAMES", help="Such as fd,kd,coverage; all without it.")
    ] = None,
    checkpoint: Checkpoint = "best",
    as_json: Annotated[bool, typer.Option("--json", help="One object, for programs.")] = False,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Measure how good a run's pictures are, or those of a folder: distances, coverage, copying, support."""
    from gantool import scoring, show

    names = scoring.chosen(metrics)
    root = _data_dir(data_dir)
    if what is not None and against is not None and _holds_images(what):
        found = scoring.score_folder(Path(what), against, names, data_dir=root, tell=show.tell)
    else:
        found = scoring.score_run(
            _find_run(what),
            names,
            against=against,
            checkpoint=checkpoint,
            device=device,
            data_dir=root,
            tell=show.tell,
        )
    if as_json:
        show.as_json(found.entry())
    else:
        show.score(found)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs.")],
    output: Picture = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure runs alike: one table, and one sheet of what each makes of the same seeds."""
    from gantool import scoring, show

    if len(runs) < 2:
        raise RunError(f"compare: {len(runs)} run given; name two or more")
    path = output or Path("compare.png")
    if output:
        _refuse_old(path, overwrite)
    found = [_find_run(name) for name in runs]
    rows = scoring.compare(found, path, device=device, data_dir=_data_dir(data_dir), tell=show.tell)
    show.comparison(rows)
    show.result(f"{path}: the same 8 seeds, a row a run")


@app.command()
def nearest(
    run: RunName = None,
    output: Picture = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw generated pictures beside the training pictures that are nearest to them: does it copy?"""
    from gantool import scoring, show

    found = _find_run(run)
    path = output or found.path / "nearest.png"
    if output:
        _refuse_old(path, overwrite)
    numbers = scoring.nearest(
        found, path, checkpoint=checkpoint, device=device, data_dir=_data_dir(data_dir), tell=show.tell
    )
    show.copying(numbers)
    show.result(
        f"{path}: generated pictures on the left, the nearest training pictures beside each, with their distances"
    )


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="A diagnosis, such as mode-collapse.")] = None,
) -> None:
    """Explain a diagnosis: what was seen, why it happens, what to try. Without a code, list them."""
    from gantool import health, show

    if code is None:
        show.out.print(show.table("", ("code", "what it says"), health.SUMMARIES.items()))
    else:
        show.result(health.explain(code))


@app.command()
def shapes(
    recipe: RecipeName,
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show every layer's size and the arithmetic behind it. Needs no data, no GPU and no memory for weights."""
    from dataclasses import asdict

    from gantool import show
    from gantool.engine import open_recipe
    from gantool.engine import shapes as trace
    from gantool.recipe import parse_changes

    layers = trace(open_recipe(recipe, parse_changes(changes or [])), _data_dir(data_dir))
    if as_json:
        show.as_json([asdict(layer) for layer in layers])
    else:
        show.layers(layers)


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
        source = get(_source_of(what), name, _data_dir(data_dir), tell=show.tell, progress=progress)
    if source == "inception":
        show.result("the weights of Inception are here; use them with: gantool score RUN --metrics fid")
    else:
        show.result(f"{source} is here; use it with: --set data.source={source}")


@data_app.command("list")
def list_sources(data_dir: DataDir = None) -> None:
    """Say which datasets are here and which can be had."""
    from gantool import show
    from gantool.data.prepare import available

    root = _data_dir(data_dir)
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

    root = _data_dir(data_dir)
    path = output or Path("sheet.png")
    wanted = {key.removeprefix("data."): value for key, value in parse_changes(changes or []).items()}
    block = _data_block(source) or {"source": source, "size": 64}
    try:
        data = check(Data, {**block, **wanted}, ("data",))
    except Mismatch as error:
        rows = (f"--set {'.'.join(map(str, place))}: {message}" for place, message in error.problems)
        raise RecipeError("\n".join(rows)) from None
    store = prepare(data, root, tell=show.tell)
    _refuse_old(path, overwrite)
    contact_sheet(store, path, rendered=data.source == "eggs")
    show.result(f"{path}: {len(store)} pictures in {len(store.spec.classes)} classes")


@contextlib.contextmanager
def stopping(begun: Callable[[], bool]) -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM in the given list, so that a loop can end well; a second one ends at once.

    So does the first, as long as there is nothing to lose because the work has not `begun`.
    """
    caught: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if not begun():
            raise SystemExit(128 + number)
        for kind, old in before.items():
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else old)

    kinds = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
    before: dict[signal.Signals, Any] = {kind: signal.signal(kind, handle) for kind in kinds}
    try:
        yield caught
    finally:
        for kind, old in before.items():
            signal.signal(kind, old)


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


def _find_run(name: str | None) -> Run:
    from gantool.runs import Run

    return Run.open(name)


def _holds_images(place: str) -> bool:
    """Tell a folder of images from a run."""
    path = Path(place)
    return path.is_dir() and not (path / "recipe.yaml").is_file()


def _data_dir(given: Path | None) -> Path:
    if given is not None:
        return given.expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("gantool", appauthor=False)


def _seeds(text: str) -> list[int]:
    """Read `7`, `0-15` or `1,5,9-12`."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise GantoolError(f"--seeds {text}: expected whole numbers such as 7, 0-15 or 1,5,9-12")
        count = len(numbers) + last - first + 1
        if count > 100_000:
            raise GantoolError(f"--seeds {text}: {count:,} pictures are too many at once; the limit is 100,000")
        numbers += range(first, last + 1)
    return numbers


def _typed(path: Path | str) -> str:
    """Write a path as it is typed into a shell."""
    return f'"{path}"' if " " in str(path) else str(path)


def _refuse_old(path: Path, overwrite: bool) -> None:
    if path.is_file() and not overwrite:
        raise GantoolError(f"{path}: is already there; name another file, or add --overwrite")


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
