"""The commands that train a recipe and explain its layers and its problems."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from gantool.cli.options import AsJson, Changes, DataDir, Device, Out, RecipeName, stopping
from gantool.errors import GantoolError, TrainingError, command_line
from gantool.files import BusyError
from gantool.runs import Run, data_root

if TYPE_CHECKING:
    from gantool.recipe.blocks import Recipe

SAVING = "stopping: the run is being saved; Ctrl-C again exits at once"


def train(
    recipe: Annotated[
        str | None, Argument(metavar="RECIPE", help="Path or name of a recipe. With --resume also of a run.")
    ] = None,
    changes: Changes = None,
    out: Out = None,
    resume: Annotated[bool, Option("--resume", help="Resume a run that was stopped.")] = False,
    as_json: AsJson = False,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Train a recipe. Ctrl-C saves the run and prints the command that resumes it."""
    from gantool.recipe.load import parse_changes
    from gantool.training.resume import begin

    chosen, run = begin(recipe, parse_changes(changes or []), out=out, resume=resume, data_dir=data_dir)
    root = data_root(data_dir, run.data_dir)
    follow(chosen, run, new=not resume, device=device, data_dir=root, as_json=as_json)


def follow(chosen: Recipe, run: Run, *, new: bool, device: str, data_dir: Path, as_json: bool) -> None:
    """Train in a run's directory until it is done or stopped, and print the result and the next commands.

    Raises:
        TrainingError: a loss is no longer finite, or the run ended as diverged. Its files are kept.
    """
    from gantool import terminal

    report = None
    with _removed_on_failure(run, new=new), stopping(lambda: report is not None, SAVING) as stopped:
        from gantool.progress import TrainingProgress
        from gantool.training.engine import train as training

        with (
            TrainingProgress(chosen.train.epochs) as line,
            contextlib.closing(training(chosen, run, data_dir=data_dir, device=device)) as reports,
        ):
            for report in reports:
                line.update(report)
                if stopped:
                    break
    done = report is None or (report.finished and report.epoch == chosen.train.epochs)
    found = _summary(chosen, run, done)
    if as_json:
        terminal.as_json(found)
    elif report is None:
        terminal.result(f"{run.path} already has its {chosen.train.epochs} epochs; to train it longer:")
        _print_longer(chosen, run)
    elif done:
        line.summary()
        _print_result(chosen, run, found)
    else:
        terminal.result(f"stopped in epoch {report.epoch}; to resume:")
        terminal.hint("train", run.path, "--resume")
    if not done:
        raise typer.Exit(128 + stopped[0])
    if report is not None and "diverged" in report.diagnoses:
        raise TrainingError(
            f"{run.path}: the run ended diverged; start a new run with a lower train.optimizer.lr than "
            f"{chosen.train.optimizer.lr:g} ({command_line('explain', 'diverged')})"
        )
    if report is not None and not as_json:
        terminal.hint("sample", run.path)
        terminal.hint("animate", run.path)


def _summary(chosen: Recipe, run: Run, done: bool) -> dict[str, Any]:
    """Return the result of a training as plain values."""
    entries, key = run.entries(), f"metrics/{chosen.metric}"
    best, last = run.best(chosen.metric), entries[-1] if entries else {}
    return {
        "run": run.path,
        "finished": done,
        "epoch": last.get("epoch", 0),
        "seconds": last.get("seconds", 0.0),
        "metric": chosen.metric,
        "best": best.get(key),
        "best_deviation": best.get(f"{key}_deviation"),
        "best_epoch": best.get("epoch"),
        "diagnoses": last.get("diagnoses", []),
    }


def _print_result(chosen: Recipe, run: Run, found: dict[str, Any]) -> None:
    """Print the best value, and how to train longer if the metric still fell at the end."""
    from gantool import terminal

    metric, best = chosen.metric, found["best"]
    value = "none measured"
    if best is not None:
        accuracy = f" (accuracy {terminal.number(1 - best)})" if metric == "error" else ""
        value = f"{terminal.spread(best, found['best_deviation'])}{accuracy} in epoch {found['best_epoch']}"
    terminal.result(f"{run.path}: best {metric} {value}, {terminal.duration(found['seconds'])}")
    if still_falls(run.entries(), metric, chosen.train.epochs) and not terminal.quiet:
        terminal.result(
            f"{metric} still fell in the last third of the epochs, by more than its noise; to train longer:"
        )
        _print_longer(chosen, run)


def still_falls(entries: Sequence[Mapping[str, Any]], metric: str, epochs: int) -> bool:
    """Return whether a metric fell in the last third of the epochs by more than two standard deviations.

    Args:
        entries: the log of the run.
        metric: its name. Without a known deviation nothing can be said.
        epochs: of the whole run.
    """
    key = f"metrics/{metric}"
    measured = [entry for entry in entries if math.isfinite(entry.get(f"{key}_deviation") or math.nan)]
    early = [entry for entry in measured if 3 * entry["epoch"] <= 2 * epochs]
    late = [entry for entry in measured if 3 * entry["epoch"] > 2 * epochs]
    if not early or not late:
        return False
    before, after = (min(part, key=lambda entry: entry[key]) for part in (early, late))
    noise = 2 * math.hypot(before[f"{key}_deviation"], after[f"{key}_deviation"])
    return bool(before[key] - after[key] > noise)


def _print_longer(chosen: Recipe, run: Run) -> None:
    from gantool import terminal

    terminal.hint("train", run.path, "--resume", "--set", f"train.epochs={2 * chosen.train.epochs}")


@contextlib.contextmanager
def _removed_on_failure(run: Run, *, new: bool) -> Iterator[None]:
    """Remove the directory of a new run that fails before its first step, for example because its data are missing."""
    try:
        yield
    except (TrainingError, BusyError):  # another process may train there
        raise
    except (GantoolError, OSError, KeyboardInterrupt, SystemExit):
        if new:
            run.discard()
        raise


def explain(
    code: Annotated[
        str | None, Argument(metavar="CODE", help="A diagnosis, such as mode-collapse. Default: list them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a diagnosis of a failing run: what was seen, why it happens, and what to try."""
    from gantool import terminal
    from gantool.training import diagnoses

    if code is None and as_json:
        terminal.as_json(dict(diagnoses.SUMMARIES))
    elif code is None:
        terminal.table(("code", "meaning"), diagnoses.SUMMARIES.items())
    elif as_json:
        terminal.as_json({"code": code, "text": diagnoses.explain(code)})
    else:
        terminal.result(diagnoses.explain(code))


def shapes(recipe: RecipeName, changes: Changes = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the size of every layer and its arithmetic. Needs no data, no GPU and no memory for weights."""
    from dataclasses import asdict

    from gantool import terminal
    from gantool.recipe.load import parse_changes
    from gantool.training.engine import open_recipe
    from gantool.training.engine import shapes as trace

    layers = trace(open_recipe(recipe, parse_changes(changes or [])), data_root(data_dir))
    if as_json:
        terminal.as_json([asdict(layer) for layer in layers])
        return
    numbers = [terminal.Column(heading, right=True) for heading in ("input", "output", "parameters")]
    columns = (terminal.Column("layer"), terminal.Column("kind"), *numbers, terminal.Column("formula", wraps=True))
    for network in dict.fromkeys(layer.network for layer in layers):
        own = [layer for layer in layers if layer.network == network]
        rows = []
        for layer in own:
            sizes = ["x".join(map(str, size)) or "1" for size in (layer.input, layer.output)]
            count = f"{layer.parameters:,}" if layer.parameters else ""
            rows.append((layer.layer, layer.kind, *sizes, count, layer.formula))
        terminal.table(columns, rows, network)
        terminal.result(f"{sum(layer.parameters for layer in own):,} parameters in {network}", "")
