"""One trial, on whatever runs it: a configuration in, its measurements out."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from gantool import models
from gantool.data.store import open_store
from gantool.errors import DiskError, TrainingError
from gantool.files import write
from gantool.images import to_uint8
from gantool.inference.sampling import TrainedModel
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import SampleRequest
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.runs import Run
from gantool.training import diagnoses, engine, setup
from gantool.training.report import Report
from gantool.training.setup import TrainingSetup

NEW_LATENTS = 1_000_000  # added to the seeds of a measurement's latents, for latents that chose nothing
LOCK_TIMEOUT = 60.0  # seconds for a worker of a search that was killed to let go of a trial that this one takes up

_materials: dict[str, TrainingSetup] = {}  # of this process, which runs one trial after the other on the same data


def run_trial(config: dict[str, Any], interrupted: Callable[[], bool]) -> Generator[dict[str, Any], None, None]:
    """Train one configuration, from the start or from where its directory stands.

    What fails with these values would fail again, and ends the trial with the reason, as `why`. A full disk is nobody's
    fault and ends the search, as `halt`. Whoever leaves the loop early drops the trial.

    Args:
        config: `label` of the trial, the text of its `recipe`, `folder` of its run, `data_dir`, `store` with the
            decoded data, `device`, whether to `keep_end` to be trained on from there, and whether it is `judged` with
            new latents in the end. Each is plain data: nothing that is trained on travels with it.
        interrupted: tells whether the search is ending; the trial then saves where it stands.

    Yields:
        at each measurement `score`, `best`, `epoch`, `seconds`, `diagnoses`, whether the images are `copies`, whether
        it is `finished`, and the epochs that were done before (`resumed`); where it is `judged`, `value` at the end; at
        last perhaps `why`, `halt` or `interrupted`.
    """
    try:
        chosen = recipes.parse(config["recipe"], f"trial {config['label']}", models.KINDS)
        run = _run(chosen, config)
        materials = _gathered(chosen, config)
        training = engine.train(
            chosen,
            run,
            data_dir=Path(config["data_dir"]),
            device=config["device"],
            materials=materials,
            is_trial=True,
            keep_end=config["keep_end"],
            wait=LOCK_TIMEOUT,
        )
        begun: int | None = None
        with contextlib.closing(training):
            for report in training:
                try:
                    if begun is None:
                        begun = report.epoch - 1
                        yield from _before(chosen, run, begun)
                    if report.metrics:
                        yield _judged(config, chosen, run, materials, _measurement(chosen, report, begun))
                except GeneratorExit:  # it is not worth going on with, nor saving
                    with contextlib.suppress(TrainingError):
                        training.throw(TrainingError("dropped"))
                    raise
                _check_divergence(report)
                if interrupted() and not (report.finished and report.epoch == chosen.train.epochs):
                    training.close()
                    yield {"interrupted": True}
                    return
        if begun is None:  # its process died after the last epoch, before the search heard of it
            *before, last = _before(chosen, run, chosen.train.epochs)
            yield from [*before, _judged(config, chosen, run, materials, {**last, "finished": True})]
    except DiskError as error:
        yield {"halt": str(error)}
    except Exception as error:  # a search goes on whatever one of its configurations does
        lines = str(error).splitlines() or [""]
        known = error.__class__.__module__.startswith("gantool")
        why = lines[0] if known else f"{type(error).__name__}: {lines[0]}"
        yield {"why": why[:300]}


def _run(chosen: Recipe, config: dict[str, Any]) -> Run:
    """Return the trial's run: a new one, or the one that another process has begun."""
    folder = Path(config["folder"])
    if (folder / "recipe.yaml").is_file():
        write(folder / "recipe.yaml", config["recipe"])  # it may have more epochs than before
        return Run(folder)
    shutil.rmtree(folder, ignore_errors=True)  # what a worker left that died at once
    return Run.create(config["recipe"], name=chosen.name, out=folder)


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Log warnings only while the block runs."""
    logger = logging.getLogger("gantool")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _gathered(chosen: Recipe, config: dict[str, Any]) -> TrainingSetup:
    """Return the data and what measures; the trials of a process share them, unless their data are what is searched."""
    blocks = (chosen.data, chosen.train.extractors, chosen.train.evaluate_images, chosen.model.name)
    key = repr((blocks, config["store"], config["data_dir"]))
    if key not in _materials:
        store = open_store(Path(config["store"])) if config["store"] else None
        with _unlogged():  # the search has logged it
            made = setup.prepare_training(chosen, Path(config["data_dir"]), store=store)
        _materials.clear()
        _materials[key] = made
    return _materials[key]


def _before(chosen: Recipe, run: Run, begun: int) -> Generator[dict[str, Any], None, None]:
    """Return what was measured up to an epoch: whoever searched then may have died before it was told."""
    best = math.inf
    for entry in run.entries():
        score = entry.get(f"metrics/{chosen.metric}")
        if score is None or entry["epoch"] > begun:
            continue
        best = min(best, score)
        yield {
            "score": score,
            "best": best,
            "epoch": entry["epoch"],
            "seconds": entry["seconds"],
            "diagnoses": entry["diagnoses"],
            "copies": _copies(entry),
            "finished": False,
            "resumed": begun,
        }


def _measurement(chosen: Recipe, report: Report, begun: int) -> dict[str, Any]:
    return {
        "score": report.metrics[chosen.metric],
        "best": report.best,
        "epoch": report.epoch,
        "seconds": round(report.seconds, 3),
        "diagnoses": list(report.diagnoses),
        "copies": diagnoses.copies(report.metrics, report.measured_with.get("held_out", 0)),
        "finished": report.epoch == chosen.train.epochs,
        "resumed": begun,
    }


def _copies(entry: Mapping[str, Any]) -> bool:
    """Return whether the measurement of a line of the log says that the images are copies."""
    metrics = {name.removeprefix("metrics/"): value for name, value in entry.items() if name.startswith("metrics/")}
    return diagnoses.copies(metrics, entry.get("measured_with", {}).get("held_out", 0))


def _judged(
    config: dict[str, Any], chosen: Recipe, run: Run, materials: TrainingSetup, result: dict[str, Any]
) -> dict[str, Any]:
    """Add to the last result of a training with a new seed the metric of its best checkpoint with new latents.

    These latents chose neither the setting nor the checkpoint. Models that have no latents keep their best measurement.
    """
    evaluator = materials.evaluator
    if not (config["judged"] and result["finished"]):
        return result
    if isinstance(evaluator, ClassifierEvaluator) or evaluator.request.sources is not None:
        return {**result, "value": result["best"]}
    request = SampleRequest([seed + NEW_LATENTS for seed in evaluator.request.seeds], evaluator.request.labels)
    fake = to_uint8(TrainedModel(run, "best", config["device"]).images(request))
    return {**result, "value": evaluator.measure(fake, request.labels).metrics[chosen.metric]}


def _check_divergence(report: Report) -> None:
    if "diverged" in report.diagnoses:
        message = next((news.message for news in report.news if news.code == "diverged"), "diverged")
        raise TrainingError(message.partition(";")[0])  # a search needs no advice


def finite(result: dict[str, Any]) -> bool:
    """Return whether a result is a measurement that can be compared."""
    return math.isfinite(result.get("score", math.nan))
