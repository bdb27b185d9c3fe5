"""One trial, for any backend: a configuration in, its results out."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gantool import models
from gantool.data.store import open_store
from gantool.errors import DiskError, TrainingError
from gantool.files import remove, write
from gantool.images import to_uint8
from gantool.inference.sampling import TrainedModel
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import SampleRequest
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.runs import Run
from gantool.training import diagnoses, engine, setup
from gantool.training.setup import TrainingSetup

NEW_LATENTS = 1_000_000  # added to the seeds of a measurement's latents, for latents that chose nothing
LOCK_TIMEOUT = 60.0  # seconds for a killed worker of a search to release a trial that resumes here

_setups: dict[str, TrainingSetup] = {}  # of this process, whose trials have the same data one after the other


@dataclass(frozen=True)
class TrialConfig:
    """What a trial is to do, as plain values that can be sent to a worker."""

    label: str  # the name of the trial
    recipe: str  # the text of its recipe
    folder: str  # the directory of its run
    data_dir: str  # the data directory
    store: str = ""  # the directory of the decoded data; empty if the data are searched
    device: str = "cpu"  # see `devices.choose`
    keep_end: bool = False  # whether to keep a checkpoint of the last epoch, to continue from
    new_latents: bool = False  # whether to measure the best checkpoint with new latents at the end


@dataclass(frozen=True)
class TrialResult:
    """A measurement of a trial, or its end. A trial that failed would fail again. A full disk ends the search."""

    score: float = math.nan  # the metric; NaN if this is an end without a measurement
    best: float = math.inf  # the lowest metric so far
    epoch: int = 0  # that was measured
    seconds: float = 0.0  # of training so far
    diagnoses: tuple[str, ...] = ()  # their codes
    copies: bool = False  # whether the images are copies of training images
    resumed: int = 0  # the epochs that were done when the trial started or resumed
    state: Literal["running", "finished", "failed", "interrupted", "disk full"] = "running"
    value: float | None = None  # the metric of the best checkpoint with new latents, if `new_latents` is set
    why: str = ""  # it failed, or which file cannot be written


Objective = Callable[[TrialConfig, Callable[[], bool]], Generator[TrialResult, None, None]]


def run_trial(config: TrialConfig, interrupted: Callable[[], bool]) -> Generator[TrialResult, None, None]:
    """Train one configuration, from its start or from its last checkpoint.

    Close the iterator to drop the trial: nothing more is saved. If `interrupted` returns True, the trial saves its
    state and ends.

    Yields:
        each measurement; the measurements before the start too, because the process that made them may have died
        before it reported them.
    """
    try:
        recipe = recipes.parse(config.recipe, f"trial {config.label}", models.KINDS)
        run = _run(recipe, config)
        materials = _setup(recipe, config)
        with contextlib.closing(_train(recipe, run, materials, config, interrupted)) as results:
            for result in results:
                is_last = config.new_latents and result.state == "finished"
                yield replace(result, value=_value(recipe, run, materials, config, result)) if is_last else result
    except (DiskError, OSError) as error:  # of this machine, not of the configuration
        yield TrialResult(state="disk full", why=str(error))
    except Exception as error:  # one configuration must not end the search
        first = (str(error).splitlines() or [""])[0]
        is_known = error.__class__.__module__.startswith("gantool")
        yield TrialResult(state="failed", why=(first if is_known else f"{type(error).__name__}: {first}")[:300])


def _train(
    recipe: Recipe, run: Run, materials: TrainingSetup, config: TrialConfig, interrupted: Callable[[], bool]
) -> Generator[TrialResult, None, None]:
    training = engine.train(
        recipe,
        run,
        data_dir=Path(config.data_dir),
        device=config.device,
        materials=materials,
        is_trial=True,
        keep_end=config.keep_end,
        wait=LOCK_TIMEOUT,
    )
    last: int | None = None  # epoch of the start
    with contextlib.closing(training):
        for report in training:
            try:
                if last is None:
                    last = report.epoch - 1
                    yield from _before(recipe, run, last)
                if report.metrics:
                    yield _measurement(recipe, report.entry(), report.best, last)
            except GeneratorExit:  # dropped: the state is not saved
                with contextlib.suppress(TrainingError):
                    training.throw(TrainingError("dropped"))
                raise
            if "diverged" in report.diagnoses:
                message = next((news.message for news in report.news if news.code == "diverged"), "diverged")
                raise TrainingError(message.partition(";")[0])  # without its advice
            if interrupted() and not (report.finished and report.epoch == recipe.train.epochs):
                training.close()
                yield TrialResult(state="interrupted")
                return
    if last is None:  # its process died after the last epoch, before it reported it
        yield from _before(recipe, run, recipe.train.epochs)


def _run(recipe: Recipe, config: TrialConfig) -> Run:
    """Return the trial's run: a new one, or the one that another process has started."""
    folder = Path(config.folder)
    if (folder / "recipe.yaml").is_file():
        write(folder / "recipe.yaml", config.recipe)  # it may have more epochs than before
        return Run(folder)
    if not folder.parent.is_dir():
        raise DiskError(f"{folder.parent}: no longer exists; it was deleted or moved meanwhile, so start anew")
    remove(folder)  # a worker died while it made it
    return Run.create(config.recipe, name=recipe.name, out=folder)


def _setup(recipe: Recipe, config: TrialConfig) -> TrainingSetup:
    """Return the data and the evaluator; the trials of a process share them, unless data are searched."""
    blocks = (recipe.data, recipe.train.extractors, recipe.train.evaluate_images, recipe.model.name)
    key = repr((blocks, config.store, config.data_dir))
    if key not in _setups:
        store = open_store(Path(config.store)) if config.store else None
        logger = logging.getLogger("gantool")
        level = logger.level
        logger.setLevel(logging.WARNING)  # the search has logged the rest
        try:
            made = setup.prepare_training(recipe, Path(config.data_dir), store=store)
        finally:
            logger.setLevel(level)
        _setups.clear()
        _setups[key] = made
    return _setups[key]


def _before(recipe: Recipe, run: Run, last: int) -> Iterator[TrialResult]:
    """Yield the measurements up to an epoch, from the run's log."""
    best = math.inf
    for entry in run.entries():
        score = entry.get(f"metrics/{recipe.metric}")
        if score is not None and entry["epoch"] <= last:
            best = min(best, score)
            yield _measurement(recipe, entry, best, last)


def _measurement(recipe: Recipe, entry: Mapping[str, Any], best: float, resumed: int) -> TrialResult:
    """Return the measurement in a line of a run's log."""
    metrics = {name.removeprefix("metrics/"): value for name, value in entry.items() if name.startswith("metrics/")}
    return TrialResult(
        metrics[recipe.metric],
        best,
        entry["epoch"],
        entry["seconds"],
        tuple(entry["diagnoses"]),
        diagnoses.copies(metrics, entry.get("measured_with", {}).get("held_out", 0)),
        resumed,
        "finished" if entry["epoch"] == recipe.train.epochs else "running",
    )


def _value(recipe: Recipe, run: Run, materials: TrainingSetup, config: TrialConfig, result: TrialResult) -> float:
    """Return the metric of the best checkpoint with latents that chose neither the setting nor the checkpoint."""
    evaluator = materials.evaluator
    if isinstance(evaluator, ClassifierEvaluator) or evaluator.request.sources is not None:  # it has no latents
        return result.best
    request = SampleRequest([seed + NEW_LATENTS for seed in evaluator.request.seeds], evaluator.request.labels)
    fake = to_uint8(TrainedModel(run, "best", config.device).images(request))
    return evaluator.measure(fake, request.labels).metrics[recipe.metric]
