"""The commands that make images, translations, answers and animations with a trained model."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from gantool.cli import options
from gantool.cli.options import AsJson, Checkpoint, ClassName, Device, OutputFile, Overwrite, RunName
from gantool.errors import DataError, GantoolError, command_line
from gantool.runs import Run

if TYPE_CHECKING:
    from gantool.inference.inputs import Prediction
    from gantool.inference.sampling import TrainedModel

logger = logging.getLogger(__name__)


def sample(
    run: RunName = None,
    given: Annotated[
        Path | None, Option("--input", metavar="PATH", help="A file or folder to translate, or to classify.")
    ] = None,
    seeds: Annotated[
        str | None, Option("--seeds", metavar="SEEDS", help="Such as 7, 0-15 or 1,5,9-12. Default: 0-15.")
    ] = None,
    class_name: ClassName = None,
    output: OutputFile = None,
    checkpoint: Checkpoint = "best",
    as_json: AsJson = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Generate images, translate images or classify inputs. One seed is one image.

    An output with a suffix, such as FILE.png, is a grid. Without a suffix it is a folder of single files. A model that
    translates images shows examples, or translates --input. A classifier prints its answers, or writes them to
    -o FILE.csv.
    """
    from gantool import load, terminal

    found = Run.open(run)
    trained = load(found.path, checkpoint, device)
    _warn_of_early_best(found, trained, checkpoint)
    if trained.is_classifier:
        for option, value in (("--class", class_name), ("--seeds", seeds)):
            if value is not None:
                raise GantoolError(
                    f"{option} {value}: {trained.name} is a classifier; it makes no images; leave it out"
                )
        made = _predict(trained, given, output, overwrite, as_json)
    elif given is not None:
        numbers = read_seeds("0" if seeds is None else seeds)
        made = _translate(found, trained, given, output, numbers, class_name, overwrite)
    elif trained.shown is not None and seeds is None and class_name is None:
        made = _show_examples(found, trained, output, overwrite)
    else:
        made = _generate(found, trained, output, "0-15" if seeds is None else seeds, class_name, overwrite)
    if as_json:
        terminal.as_json({**made, "epoch": trained.epoch})
    elif "text" in made:
        terminal.result(made["text"])


def _warn_of_early_best(run: Run, trained: TrainedModel, checkpoint: str) -> None:
    """Log that a run is still training, and that its best checkpoint is an early one."""
    entries = run.entries()
    last = entries[-1]["epoch"] if entries else 0
    if checkpoint == "best" and 4 * trained.epoch < last < trained.recipe.train.epochs:
        logger.info(
            f"the best checkpoint is of epoch {trained.epoch}, but the run is in epoch {last}: "
            f"{command_line('sample', run.path, '--checkpoint', 'last')} uses the newest one"
        )


def _generate(
    run: Run, trained: TrainedModel, output: Path | None, seeds: str, class_name: str | None, overwrite: bool
) -> dict[str, Any]:
    """Write one image for each seed: a grid, or single files in a folder."""
    from gantool import images
    from gantool.terminal import several
    from gantool.training.monitor import sheet

    numbers = read_seeds(seeds)
    path = output or run.path / f"sample{'-' + class_name if class_name else ''}-{seeds}.png"
    names = [f"seed-{seed:06d}" for seed in numbers]
    files = [path] if path.suffix else [path / f"{name}.png" for name in names]
    for file in files:
        options.check_overwrite(file, overwrite or output is None)
    samples, request = trained.sample(numbers, class_name), trained.request(numbers, class_name)
    if path.suffix:
        drawn = images.grid(samples) if request is None else sheet(request, samples, trained.data.classes)
        images.save(drawn, path)
    else:
        images.save_each(samples, path, names)
    place = path if path.suffix else f"{path}{os.sep}"
    return {"text": f"{place}: {several(len(numbers), 'image')} of epoch {trained.epoch}", "files": files}


def _show_examples(run: Run, trained: TrainedModel, output: Path | None, overwrite: bool) -> dict[str, Any]:
    """Draw the example translations of a run."""
    from gantool import images
    from gantool.terminal import several
    from gantool.training.monitor import sheet

    shown = trained.shown
    assert shown is not None
    path = options.output_file(output, run.path / "sample.png", overwrite)
    images.save(sheet(shown, trained.images(shown), trained.data.classes), path)
    text = f"{path}: {several(len(shown), 'example')} of epoch {trained.epoch}; --input translates your own images"
    return {"text": text, "files": [path]}


def _translate(
    run: Run,
    trained: TrainedModel,
    given: Path,
    output: Path | None,
    seeds: list[int],
    class_name: str | None,
    overwrite: bool,
) -> dict[str, Any]:
    """Translate the images of a file or folder, each into one file for each seed."""
    from gantool.inference.inputs import targets, translate
    from gantool.terminal import several

    files = targets(trained, given, output or run.path / "translated", seeds, single=output is not None)
    for _, _, target in files:
        options.check_overwrite(target, overwrite or output is None)
    skipped = list(translate(trained, files, class_name))
    for name, reason in skipped:
        logger.info(f"{name}: skipped ({reason})")
    made = len(files) - len(skipped)
    if not made:
        raise DataError(f"--input {given}: none of its {len(files)} files can be read as an image")
    place = files[0][2] if len(files) == 1 else f"{files[0][2].parent}{os.sep}"
    way = f" into {class_name or trained.data.classes[-1]}" if trained.generator.conditional else ""
    return {
        "text": f"{place}: {several(made, 'image')}, translated{way} in epoch {trained.epoch}",
        "files": [target for _, _, target in files if target.is_file()],
        "skipped": [{"file": name, "reason": reason} for name, reason in skipped],
    }


def _predict(
    trained: TrainedModel, given: Path | None, output: Path | None, overwrite: bool, as_json: bool
) -> dict[str, Any]:
    """Classify a file, a folder of images or the examples of the run, and print the answers or write a CSV file."""
    from gantool import terminal
    from gantool.inference.inputs import predictions, write_predictions

    if output is not None and output.suffix.lower() != ".csv":
        raise GantoolError(f"-o {output}: the answers of {trained.name} are a table; name a file that ends in .csv")
    rows = predictions(trained, given)
    if output is not None:
        options.check_overwrite(output, overwrite)
        write_predictions(rows, output)
        text = f"{output}: {terminal.several(len(rows), 'answer')} of epoch {trained.epoch}"
        return {"text": text, "files": [output]}
    if not as_json:
        _print_answers(rows)
    return {"answers": [row._asdict() for row in rows]}


def _print_answers(rows: Sequence[Prediction]) -> None:
    """Print answers, with the right ones where they are known."""
    from gantool import terminal

    headings = ("input", "answer", "probability", "right")[: 4 if any(row.right for row in rows) else 3]
    lines = []
    for given, answer, probability, right in rows:
        wrong = " (wrong)" if right and right != answer else ""
        lines.append((given, answer, f"{probability:.2f}", f"{right}{wrong}")[: len(headings)])
    terminal.table(headings, lines)


def animate(
    run: RunName = None,
    walk: Annotated[bool, Option("--walk", help="Animate a walk through latent space and not the training.")] = False,
    seeds: Annotated[str, Option("--seeds", metavar="SEEDS", help="The latents of a walk.")] = "0-5",
    frames: Annotated[
        int, Option("--frames", min=2, max=1000, help="Frames of a walk from seed to seed, 2 to 1000.")
    ] = 20,
    class_name: ClassName = None,
    output: OutputFile = None,
    checkpoint: Checkpoint = "best",
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Animate the training of a run, or a walk through latent space. The file is a GIF, WebP or MP4."""
    from gantool import terminal
    from gantool.inference.animate import animate_training, animate_walk

    found = Run.open(run)
    path = options.output_file(output, found.path / ("walk.gif" if walk else "training.gif"), overwrite)
    if walk:
        count = animate_walk(found, path, read_seeds(seeds), frames, class_name, checkpoint)
    else:
        count = animate_training(found, path)
    if as_json:
        terminal.as_json({"file": path, "frames": count})
    else:
        terminal.result(f"{path}: {terminal.several(count, 'frame')}")


def read_seeds(text: str) -> list[int]:
    """Read `7`, `0-15` or `1,5,9-12`."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise GantoolError(f"--seeds {text}: expected whole numbers such as 7, 0-15 or 1,5,9-12")
        count = len(numbers) + last - first + 1
        if count > 100_000:
            raise GantoolError(f"--seeds {text}: {count:,} images are too many at once; the limit is 100,000")
        numbers += range(first, last + 1)
    return numbers
