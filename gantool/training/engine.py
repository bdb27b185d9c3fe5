"""Training, put together: an iterator of reports. Whoever loops over it decides when to stop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gantool import devices, models
from gantool.batches import DataSpec, Examples, Labeled, Paired
from gantool.data.loader import rows_of
from gantool.data.prepare import describe, prepare, table
from gantool.data.sheet import pair_sheet
from gantool.data.sources.catalog import SOURCES
from gantool.data.store import Store
from gantool.data.tables import Table
from gantool.errors import ResourceError, RunError, ShapeError
from gantool.files import write
from gantool.metrics.classification import Exam
from gantool.metrics.evaluate import Ask, Evaluator
from gantool.metrics.reference import FEW, Reality, learn
from gantool.models import KINDS
from gantool.models import shapes as tracing
from gantool.models.base import Generative
from gantool.recipe import load as recipes
from gantool.recipe import schema
from gantool.recipe.blocks import Recipe
from gantool.runs import Run
from gantool.training.loop import Report, Training

PAIRS = "pairs.png"  # in a run's directory: the first pairs that it learns from
FREE = {
    "name",
    "train.epochs",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.keep_every",
}  # when resuming


def open_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe by path or name, with dotted changes; a source that is a path is made absolute."""
    recipe = recipes.load(name, changes or {}, KINDS)
    place = os.path.expanduser(recipe.data.source)  # noqa: PTH111  Path.expanduser raises on an unknown user
    if recipe.data.source in SOURCES or not os.path.exists(place):  # noqa: PTH110  Path.exists raises on a long name
        return recipe
    data = recipe.data.model_copy(update={"source": str(Path(place).absolute())})
    return recipe.model_copy(update={"data": data})


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Give the recipe with new values at dotted keys, checked."""
    return recipes.override(recipe, changes, KINDS)


def begin(name: str | None, changes: Mapping[str, Any], *, out: Path | None, resume: bool) -> tuple[Recipe, Run]:
    """Give the recipe and the run, new or old, that training starts or goes on with.

    Args:
        name: of a recipe; with `resume` also of a run, and the newest run where it is None.
        changes: of the recipe, by dotted key.
        out: the run's directory; without it `runs/<recipe>-<NNN>`.
        resume: go on with a run at `out`, of this name, or the newest of this recipe; a new one where there is none.

    Raises:
        RunError: there is nothing to start or to go on with, or the run was started with something else.
    """
    run = _old_run(name, out) if resume else None
    if name is None and run is None:
        raise RunError("train: name a recipe, such as: gantool train gan14; or go on with --resume")
    is_run = run is not None and (name is None or run.path in (Path(name), Path("runs") / name))
    recipe = None if is_run else open_recipe(name or "", changes)
    if run is not None:
        return resumed(run, recipe, changes), run
    assert recipe is not None
    return recipe, Run.create(recipes.dump(recipe), name=recipe.name, out=out)


def resumed(run: Run, given: Recipe | None, changes: Mapping[str, Any]) -> Recipe:
    """Give the recipe that a run goes on with: its own, with changes of what may change on the way.

    Args:
        run: the run.
        given: the whole recipe that the person named, if any; it must be the run's.
        changes: dotted changes of the run's own recipe.

    Raises:
        RunError: something else would change, which would make it another run.
    """
    own = open_recipe(str(run.path / "recipe.yaml"))
    wanted = given or change(own, changes)
    before, after = _flat(schema.plain(own)), _flat(schema.plain(wanted))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and key not in FREE and not key.startswith("tune"):
            raise RunError(
                f"{run.path}: was started with {key}={before.get(key)}, not {after.get(key)}; start a new run for that"
            )
    wanted = wanted.model_copy(update={"name": own.name})
    if wanted != own:
        write(run.path / "recipe.yaml", recipes.dump(wanted))
    return wanted


def shapes(recipe: Recipe, data_dir: Path, device: str = "meta") -> list[tracing.Layer]:
    """List the layers of a recipe's networks.

    Raises:
        ShapeError: they do not fit; says what does not, and which image sizes would.
        RecipeError: a layer cannot learn from batches of one image.
    """
    spec = describe(recipe.data, data_dir, models.find(recipe.model["name"]).consumes)
    try:
        return tracing.trace(lambda: models.build(recipe, spec), device, min(2, recipe.train.batch_size))
    except ShapeError as error:
        if not isinstance(spec, DataSpec):
            raise
        sizes = tracing.fitting_sizes(lambda data: models.build(recipe, data), spec)
        if sizes:
            advice = f"data.size={' or '.join(map(str, sizes[:6]))} would fit"
        else:
            advice = "no image size up to 128 fits these layers; change a kernel, stride or padding"
        raise ShapeError(f"{error}; {advice}") from None


def train(
    recipe: Recipe,
    run: Run,
    *,
    data_dir: Path,
    device: str = "auto",
    materials: Materials | None = None,
    passing: bool = False,
    keep_end: bool = False,
    wait: float = 0.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Generator[Report, None, None]:
    """Train a recipe in a run's directory, and go on where its last checkpoint stands if it has one.

    Close the iterator (`contextlib.closing`) to stop: the state is saved where it stands, even inside of an epoch, and
    training goes on from there bit for bit.

    Args:
        recipe: what to train.
        run: where.
        data_dir: where fetched and decoded data are.
        device: see `devices.choose`.
        materials: the decoded data and what measures, where the caller has them; found in `data_dir` without.
        passing: a trial of a search, which keeps fewer checkpoints to go on from; see `Training`.
        keep_end: whether such a trial keeps a checkpoint of its last epoch.
        wait: seconds to wait for another process that still works in the run's directory.
        tell: is told what happens before the first step.

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
            materials = gather(recipe, data_dir, tell=tell)
        training = Training(
            recipe, run, materials.store, materials.evaluator, place, passing=passing, keep_end=keep_end
        )
        training.restore(tell)
        if isinstance(materials.store, Store) and training.model.consumes is Paired and not passing:
            pair_sheet(materials.store, run.path / PAIRS)
        try:
            yield from training.epochs()
        except GeneratorExit:
            training.save_where_it_stands()
            raise


class Materials(NamedTuple):
    """What training needs besides a recipe: the decoded data, and what measures models of them."""

    store: Store | Table
    evaluator: Evaluator | Exam


def gather(
    recipe: Recipe, data_dir: Path, *, store: Store | Table | None = None, tell: Callable[[str], None] = lambda _: None
) -> Materials:
    """Give what training a recipe needs, found or made once in the data directory.

    Args:
        recipe: what is to be trained.
        data_dir: where fetched and decoded data, and learned extractors, are.
        store: the recipe's decoded data, where they are open already.
        tell: is told what happens.
    """
    if store is None:
        store = data_of(recipe, data_dir, tell=tell)
    tell(counted(recipe, store))
    return Materials(store, evaluator_of(recipe, store, data_dir, tell=tell))


def data_of(recipe: Recipe, data_dir: Path, *, tell: Callable[[str], None] = lambda _: None) -> Store | Table:
    """Give the decoded data that a recipe's model learns from: pictures, or a table."""
    kind = models.find(recipe.model["name"]).consumes
    return (
        table(recipe.data, data_dir, tell=tell) if kind is Examples else prepare(recipe.data, data_dir, kind, tell=tell)
    )


def evaluator_of(
    recipe: Recipe, store: Store | Table, data_dir: Path, *, tell: Callable[[str], None] = lambda _: None
) -> Evaluator | Exam:
    """Give what measures a recipe's models; extractors that are learned from the pictures are learned once."""
    model, share = models.find(recipe.model["name"]), recipe.data.held_out
    if isinstance(store, Table):
        return Exam.of_table(store)
    rows = rows_of(store.labels, share, model.consumes)
    if not issubclass(model, Generative):
        return Exam.of_pictures(store, rows)
    reality = Reality.of(store, rows, model.consumes)
    folder, key = data_dir / "extractors", f"{store.path.name}-{round(100 * share)}"
    extractors = learn(reality, recipe.train.extractors, folder, key, tell)
    asked: int | Ask = recipe.train.evaluate_images
    if model.consumes is not Labeled:
        asked = Ask.translations(store, rows, model.consumes, recipe.train.evaluate_images)
    return Evaluator(reality, extractors, asked, conditional=model.conditional)


def counted(recipe: Recipe, store: Store | Table) -> str:
    """Say how much is learned from, and what little means."""
    if isinstance(store, Table):
        kept = f"{len(store.held_out):,} more are held out" if len(store.held_out) else "none are held out"
        return f"learning from {len(store.train):,} rows; {kept}"
    kind = models.find(recipe.model["name"]).consumes
    train, held_out = map(len, rows_of(store.labels, recipe.data.held_out, kind))
    thing = "pair" if kind is Paired else "picture"
    what = f"{thing}s"
    kept = f"{held_out:,} more are held out" if held_out else "none are held out, so that copying cannot be told"
    few = f"; with fewer than {FEW} {what} fd ranks settings, and is no measure of quality"
    return f"learning from {train:,} {thing if train == 1 else what}; {kept}{few if train + held_out < FEW else ''}"


@contextlib.contextmanager
def _memory(place: torch.device, batch_size: int) -> Iterator[None]:
    """Say what to do when the block runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        # The CPU's allocator has no exception of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        advice = f"try --set train.batch_size={max(1, batch_size // 2)}, or a smaller model"
        raise ResourceError(f"{place}: out of memory; {advice}") from None


def _old_run(name: str | None, out: Path | None) -> Run | None:
    """Give the run to go on with: at `out`, of this name, or the newest of this recipe; None where there is none."""
    if out is not None:
        return Run(out) if (out / "recipe.yaml").is_file() else None
    if name is None:
        return Run.open(None)
    try:
        return Run.open(name)
    except RunError:
        return Run.newest(Path(name).stem)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested blocks as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
