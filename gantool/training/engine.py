"""Training as an iterator of reports. The caller decides when to stop."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from gantool import devices, models
from gantool.batches import ImageSpec, Paired
from gantool.data.prepare import describe
from gantool.data.sheet import pair_sheet
from gantool.data.sources.catalog import SOURCES
from gantool.errors import ResourceError, ShapeError
from gantool.models import KINDS
from gantool.models import shapes as tracing
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.runs import Run
from gantool.training.loop import Training
from gantool.training.report import Report
from gantool.training.setup import TrainingSetup, prepare_training

logger = logging.getLogger(__name__)

PAIRS_FILE = "pairs.png"  # in a run's directory: the first training pairs


def open_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe by path or name, with dotted changes.

    A source that is a path is made absolute. It is looked for here and, if the recipe names it, beside the recipe.
    """
    recipe = recipes.load(name, changes or {}, KINDS)
    if recipe.data.source in SOURCES:
        return recipe
    place = os.path.expanduser(recipe.data.source)  # noqa: PTH111  Path.expanduser raises on an unknown user
    places = [Path(place)]
    if "data.source" not in (changes or {}):
        places.append(recipes.find_recipe(name).parent / place)
    found = next((path for path in places if os.path.exists(path)), None)  # noqa: PTH110  Path.exists raises on a long name
    if found is None:
        return recipe
    data = recipe.data.model_copy(update={"source": str(found.absolute())})
    return recipe.model_copy(update={"data": data})


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with new values at dotted keys, checked."""
    return recipes.override(recipe, changes, KINDS)


def shapes(recipe: Recipe, data_dir: Path, device: str = "meta") -> list[tracing.Layer]:
    """List the layers of a recipe's networks.

    Raises:
        ShapeError: they do not fit. The message names the layer, and what would fit.
        RecipeError: a layer cannot learn from batches of one image.
    """
    spec = describe(recipe.data, data_dir, recipe.batch_type)
    try:
        return tracing.trace(lambda: models.build(recipe, spec), device, min(2, recipe.train.batch_size))
    except ShapeError as error:
        if not isinstance(spec, ImageSpec):
            raise
        raise ShapeError(f"{error}; {tracing.remedy(recipe, spec)}") from None


def train(
    recipe: Recipe,
    run: Run,
    *,
    data_dir: Path,
    device: str = "auto",
    materials: TrainingSetup | None = None,
    is_trial: bool = False,
    keep_end: bool = False,
    wait: float = 0.0,
) -> Generator[Report, None, None]:
    """Train a recipe in a run's directory, from its last checkpoint if it has one.

    Close the iterator (`contextlib.closing`) to stop. The state is saved, even within an epoch, and training resumes
    from it bit for bit.

    Args:
        recipe: what to train.
        run: where.
        data_dir: where downloaded and prepared data are.
        device: see `devices.choose`.
        materials: the data and the evaluator, if the caller has them.
        is_trial: whether it is a trial of a search, see `Training`.
        keep_end: see `Training`.
        wait: seconds to wait for another process that works in the run's directory.

    Yields:
        a report at least every half second or step, and one at the end of each epoch.

    Raises:
        TrainingError: a loss is no longer finite.
    """
    place = devices.choose(device)
    if place.type == "cpu":
        devices.keep_freed_memory()
    with run.lock(wait), _memory(place, recipe.train.batch_size), devices.threads(recipe.train.threads):
        if materials is None:
            shapes(recipe, data_dir, "cpu")  # a recipe that does not fit is refused before its data are fetched
            materials = prepare_training(recipe, data_dir)
            logger.info(f"run {run.path}")
        training = Training(
            recipe, run, materials.store, materials.evaluator, place, is_trial=is_trial, keep_end=keep_end
        )
        training.restore()
        different = run.remember(data_dir, devices.numerics(place))
        if different and not is_trial:
            logger.warning(
                f"{run.path}: was trained with {', '.join(different)} before, so its last digits may differ from those "
                "of a run that never stopped"
            )
        if training.model.consumes is Paired and not is_trial:
            pair_sheet(materials.store, run.path / PAIRS_FILE)
        try:
            yield from training.epochs()
        except GeneratorExit:
            training.save_now()
            raise


@contextlib.contextmanager
def _memory(place: torch.device, batch_size: int) -> Iterator[None]:
    """Raise ResourceError with a remedy if the block runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        # The CPU's allocator has no exception of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        advice = f"try --set train.batch_size={max(1, batch_size // 2)}, or a smaller model"
        raise ResourceError(f"{place}: out of memory; {advice}") from None
