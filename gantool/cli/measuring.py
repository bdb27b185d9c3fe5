"""The commands that measure generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from gantool.cli.options import AsJson, Checkpoint, DataDir, Device, Images, OutputFile, Overwrite, RunName, output_file
from gantool.errors import GantoolError, RunError, command_line
from gantool.files import is_file
from gantool.runs import Run, data_root

if TYPE_CHECKING:
    from gantool.inference.compare import Row
    from gantool.inference.scoring import Score


def score(
    what: Annotated[
        str | None,
        Argument(metavar="RUN", help="A run, or a folder of images with --against. Default: the newest run."),
    ] = None,
    against: Annotated[
        Path | None,
        Option("--against", metavar="FOLDER", help="Real images. Default: those that the run was trained on."),
    ] = None,
    metrics: Annotated[
        str | None, Option("--metrics", metavar="NAMES", help="Such as fd,kd,coverage. Default: all.")
    ] = None,
    count: Images = None,
    checkpoint: Checkpoint = "best",
    details: Annotated[
        bool, Option("--all", help="Also print metrics for information, the seed and the identity of the features.")
    ] = False,
    as_json: AsJson = False,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Measure how good the images of a run or of a folder are."""
    from gantool import terminal
    from gantool.inference import scoring, verdicts

    names = scoring.chosen(metrics)
    if what is not None and _is_folder(what):
        if against is None:
            raise GantoolError(
                f"{what}: is no run; a folder is measured against real images: "
                f"{command_line('score', what, '--against', 'FOLDER')}"
            )
        if count is not None:
            raise GantoolError(f"--images {count}: a folder is measured with all of its images; leave it out")
        found = scoring.score_folder(Path(what), against, names, data_dir=data_root(data_dir))
    else:
        run = Run.open(what)
        root = data_root(data_dir, run.data_dir)
        found = scoring.score_run(
            run, names, against=against, count=count, checkpoint=checkpoint, device=device, data_dir=root
        )
    verdict = verdicts.of_score(found)
    if as_json:
        terminal.as_json({"verdict": verdict, **found.entry()})
        return
    if verdict:
        terminal.result(verdict)
    hidden = () if details or metrics is not None else scoring.FOR_INFORMATION
    _print_score(found, {name: text for name, text in (scoring.METRICS | scoring.PARTS).items() if name not in hidden})
    if details and "fake" in found.about:
        terminal.result(f"seed {found.about['seed']}; extractors {', '.join(found.about['extractors'])}")


def _is_folder(what: str) -> bool:
    """Return whether `what` is a directory which is no run."""
    return Path(what).is_dir() and not any(is_file(path / "recipe.yaml") for path in (Path(what), Path("runs") / what))


def _print_score(found: Score, meanings: Mapping[str, str]) -> None:
    """Print each metric that has a meaning here, and what was measured."""
    from gantool import terminal

    about = found.about
    against = f" against {about['against']}" if "against" in about else ""
    rows = []
    for name, value, perfect, deviation in found.values:
        best = "" if perfect is None else terminal.number(perfect)
        if name in meanings:
            rows.append((name, _measured(name, value, deviation), best, meanings[name]))
    terminal.table(("metric", "value", "real", "meaning"), rows, f"{found.what}{against}")
    if "fake" in about:
        terminal.result(
            f"{about['fake']:,} generated against {about['real']:,} real images of {about['size']}, "
            f"{about['held_out']:,} more held out"
        )
        if about["floor_deviation"] is not None and "fd" in {row.name for row in found.values}:
            terminal.result(
                "± is a standard deviation over other draws of images; differences of less than two are noise"
            )
    elif about["held_out"]:
        terminal.result(
            f"measured on {about['held_out']:,} examples that training never saw; it learned from {about['train']:,}"
        )
    else:
        terminal.result(f"measured on the {about['train']:,} examples that it learned from; none are held out")
    if "part" in about:
        terminal.result(f"the data are a fixed part of their source, {about['part']} (data.limit)")
    if found.missing:
        terminal.result(f"not measured, because classes or images are too few: {', '.join(found.missing)}")


def _measured(name: str, value: float, deviation: float | None = None) -> str:
    """Write a metric; a support without any collision is only known to be large."""
    from gantool.terminal import spread

    if name == "support":
        return "many" if value > 100_000 else f"{value:,.0f}"
    return f"{value:+.1f}" if name == "copying" else spread(value, deviation)


def compare(
    runs: Annotated[list[str], Argument(metavar="RUN RUN...", help="Two or more runs.")],
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
    path = output_file(output, Path("compare.png"), overwrite)
    found = [Run.open(name) for name in runs]
    root = data_root(data_dir, found[0].data_dir)
    rows = comparison.compare(found, path, count=count, device=device, data_dir=root)
    verdict = verdicts.of_comparison(rows)
    if as_json:
        terminal.as_json({"verdict": verdict, "runs": [row._asdict() for row in rows], "file": path})
        return
    terminal.result(verdict)
    _print_comparison(rows)
    terminal.result(f"{path}: images of the same 8 seeds or sources, one row for each run")


def _print_comparison(rows: Sequence[Row]) -> None:
    """Print a row for each run, the best first, and what the rows leave open."""
    from gantool import terminal

    lines = []
    for row in rows:
        values = row.values
        fd = terminal.spread(values["fd"], values["fd_deviation"]) + ("" if row.same else " *")
        shares = [f"{values[name]:.2f}" for name in ("coverage", "nearest_neighbour")]
        counts = [_measured(name, values[name]) if name in values else "" for name in ("copying", "support")]
        lines.append((row.name, row.model, str(row.epoch), fd, *shares, *counts))
    terminal.table(("run", "model", "epoch", "fd", "coverage", "1-NN", "C_T", "support"), lines)
    counts = [f"{count:,}" for count in sorted({row.fakes for row in rows})]
    terminal.result(f"{' and '.join(counts)} generated images of each run; real images get an fd of 1")
    terminal.result(*(f"{row.name} ended with: {', '.join(row.diagnoses)}" for row in rows if row.diagnoses))
    if not all(row.same for row in rows):
        terminal.result("* measured on other images, or in another way, than the run named first; not comparable")


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

    found = Run.open(run)
    path = output_file(output, found.path / "nearest.png", overwrite)
    root = data_root(data_dir, found.data_dir)
    numbers = comparison.nearest(found, path, checkpoint=checkpoint, device=device, data_dir=root)
    sentences = verdicts.of_copying(numbers)
    if as_json:
        terminal.as_json({"verdict": sentences[0], **numbers, "file": path})
    else:
        drawn = "generated images on the left; the nearest training images, with their distances, beside"
        terminal.result(*sentences, f"{path}: {drawn}")
