"""The commands that measure generated images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gantool.cli.options import (
    AsJson,
    Checkpoint,
    DataDir,
    Device,
    Images,
    OutputFile,
    Overwrite,
    RunName,
    check_overwrite,
    find_run,
)
from gantool.errors import GantoolError, RunError
from gantool.runs import data_root


def score(
    what: Annotated[str | None, typer.Argument(metavar="RUN", help="A run, or a folder of images.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FOLDER", help="Real images. Default: those that the run was trained on."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="NAMES", help="Such as fd,kd,coverage. Default: all.")
    ] = None,
    count: Images = None,
    checkpoint: Checkpoint = "best",
    details: Annotated[
        bool, typer.Option("--all", help="Also print the seed and the identity of the features.")
    ] = False,
    as_json: AsJson = False,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Measure how good the images of a run or of a folder are."""
    from gantool import terminal
    from gantool.inference import scoring, verdicts

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
            data_dir=data_root(data_dir, run.data_dir),
        )
    verdict = verdicts.of_score(found)
    if as_json:
        terminal.as_json({"verdict": verdict, **found.entry()})
    else:
        terminal.score(found, verdict, scoring.METRICS | scoring.PARTS, details=details)


def _holds_images(place: str) -> bool:
    """Return whether the argument is a folder of images and not a run."""
    path = Path(place)
    return path.is_dir() and not (path / "recipe.yaml").is_file()


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs.")],
    output: OutputFile = None,
    count: Images = None,
    as_json: AsJson = False,
    device: Device = "auto",
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure runs in the same way, and draw what each makes of the same seeds."""
    from gantool import terminal
    from gantool.inference import compare as comparison
    from gantool.inference import verdicts

    if len(runs) < 2:
        raise RunError(f"compare: {len(runs)} run given; name two or more")
    path = output or Path("compare.png")
    if output:
        check_overwrite(path, overwrite)
    found = [find_run(name) for name in runs]
    root = data_root(data_dir, found[0].data_dir)
    rows = comparison.compare(found, path, count=count, device=device, data_dir=root)
    verdict = verdicts.of_comparison(rows)
    if as_json:
        terminal.as_json({"verdict": verdict, "runs": [row._asdict() for row in rows], "file": str(path)})
    else:
        terminal.comparison(rows, verdict)
        terminal.result(f"{path}: images of the same 8 seeds or sources, one row for each run")


def nearest(
    run: RunName = None,
    output: OutputFile = None,
    checkpoint: Checkpoint = "best",
    as_json: AsJson = False,
    device: Device = "auto",
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Look for copies: draw generated images beside the training images nearest to them."""
    from gantool import terminal
    from gantool.inference import compare as comparison
    from gantool.inference import verdicts

    found = find_run(run)
    path = output or found.path / "nearest.png"
    if output:
        check_overwrite(path, overwrite)
    root = data_root(data_dir, found.data_dir)
    numbers = comparison.nearest(found, path, checkpoint=checkpoint, device=device, data_dir=root)
    sentences = verdicts.of_copying(numbers)
    if as_json:
        terminal.as_json({"verdict": sentences[0], **numbers, "file": str(path)})
        return
    for sentence in sentences:
        terminal.result(sentence)
    terminal.result(f"{path}: generated images on the left; the nearest training images, with their distances, beside")
