"""Training, put together: an iterator of reports. Whoever loops over it decides when to stop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantool import checkpoints, devices, images, losses, models, schema
from gantool import recipe as recipes
from gantool import shapes as tracing
from gantool.batches import DataSpec
from gantool.data.prepare import describe, prepare
from gantool.data.store import Store
from gantool.data.stream import Stream
from gantool.errors import CheckpointError, DataError, ResourceError, RunError, ShapeError, TrainingError
from gantool.metrics.evaluate import Evaluator
from gantool.models.base import Prompt
from gantool.recipe import Recipe
from gantool.runs import Run, write
from gantool.trainer import Trainer

KINDS: Mapping[str, recipes.Find] = {"model": models.find, "loss": losses.find}
GRID = 16  # fixed latents, whose pictures are saved each epoch
FREE = {
    "name",
    "train.epochs",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.keep_every",
}  # when resuming
PATIENCE = 0.5  # seconds between reports inside of an epoch


@dataclass(frozen=True)
class Report:
    """How training stands.

    Args:
        epoch: the epoch that is running, or has just ended; from 1.
        finished: whether it has ended; only then are there metrics, and only then is the log written.
        share: of the epoch that is done, 0 to 1.
        images: real images shown so far, in all epochs.
        seconds: spent on training so far, before an interruption too.
        images_per_second: in this epoch.
        losses: means over this epoch, as `generator/<name>` and `discriminator/<name>`.
        scores: D(x) as `scores/real` and D(G(z)) as `scores/fake`, means over this epoch.
        metrics: such as `fd`, in the epochs in which they are measured.
        best: the lowest metric so far; infinite before the first.
    """

    epoch: int
    finished: bool
    share: float
    images: int
    seconds: float
    images_per_second: float
    losses: dict[str, float]
    scores: dict[str, float]
    metrics: dict[str, float]
    best: float

    def entry(self) -> dict[str, Any]:
        """Give the line of the log."""
        metrics = {f"metrics/{name}": value for name, value in self.metrics.items()}
        head = {"epoch": self.epoch, "images": self.images, "seconds": round(self.seconds, 3)}
        return {
            **head,
            "images_per_second": round(self.images_per_second, 1),
            **self.losses,
            **self.scores,
            **metrics,
        }


def open_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe by path or name, with dotted changes."""
    return recipes.load(name, changes or {}, KINDS)


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Give the recipe with new values at dotted keys, checked."""
    return recipes.override(recipe, changes, KINDS)


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
    spec = describe(recipe.data, data_dir)
    try:
        return tracing.trace(lambda: models.build(recipe, spec), device, min(2, recipe.train.batch_size))
    except ShapeError as error:
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
    resumable: bool = True,
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
        resumable: keep checkpoints to go on from; a trial that nobody continues saves their cost.
        tell: is told what happens before the first step.

    Yields:
        a report at least every half second or step, and one at the end of each epoch.

    Raises:
        TrainingError: a loss is no longer finite.
    """
    place = devices.choose(device)
    with run.lock(), _memory(place, recipe.train.batch_size):
        shapes(recipe, data_dir, "cpu")  # a recipe that does not fit is refused before its data are fetched
        store = prepare(recipe.data, data_dir, tell=tell)
        training = _Training(recipe, run, store, place, resumable)
        training.restore(tell)
        try:
            yield from training.epochs()
        except GeneratorExit:
            training.save_where_it_stands()
            raise


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


class _Training:
    """A training run under way: everything that a checkpoint holds, and what moves it."""

    def __init__(self, recipe: Recipe, run: Run, store: Store, device: torch.device, resumable: bool) -> None:
        self.recipe, self.settings, self.run, self.store = recipe, recipe.train, run, store
        self.device, self.resumable = device, resumable
        random = devices.seeded(device, self.settings.seed)
        with devices.randomness(device, random):
            self.model = models.build(recipe, store.spec).to(device)
        self.trainer = Trainer(self.model, self.settings, device)
        self.stream = Stream(store, self.settings.batch_size, self.settings.seed, device)
        self.evaluate = Evaluator(store, self.settings.evaluate_images, device)
        self.epoch, self.batch, self.images, self.seconds = 1, 0, 0, 0.0
        self.sums: dict[str, Tensor] = {}
        self.epoch_seconds = 0.0
        self.best, self.best_epoch = math.inf, 0
        self.saved: tuple[int, int] | None = None  # epoch and batch of the newest checkpoint

    def epochs(self) -> Iterator[Report]:
        while self.epoch <= self.settings.epochs:
            batches = self.stream.epoch(self.epoch, self.batch)
            while self.batch < len(self.stream):
                self._steps(batches)
                yield self._report({}, finished=False)
            yield self._end_epoch()

    def _steps(self, batches: Iterator[Any]) -> None:
        """Step for half a second or to the end of the epoch, on the run's own random numbers."""
        start = time.perf_counter()
        with devices.randomness(self.device, self.trainer.randomness):
            for batch in batches:
                for name, value in self.trainer.step(batch).items():
                    self.sums[name] = value + self.sums[name] if name in self.sums else value
                self.batch += 1
                self.images += len(batch.labels)
                if time.perf_counter() - start > PATIENCE:
                    break
        self.epoch_seconds += time.perf_counter() - start

    def _end_epoch(self) -> Report:
        start = time.perf_counter()
        settings, epoch = self.settings, self.epoch
        last = epoch == settings.epochs
        metrics = {}
        if last or epoch == 1 or epoch % settings.evaluate_every == 0:
            metrics = self.evaluate(lambda seeds, labels: self._sample(self.model.prompt(seeds, labels)))
        grid = images.grid(self._sample(self.model.prompt(range(GRID))))
        images.save(grid, self.run.samples / f"epoch-{epoch:04d}.png")
        improved = metrics.get("fd", math.inf) < self.best
        if improved:
            self.best, self.best_epoch = metrics["fd"], epoch
        self.seconds += self.epoch_seconds + time.perf_counter() - start
        report = self._report(metrics, finished=True)
        self.run.log(report.entry())
        self.epoch, self.batch, self.sums, self.epoch_seconds = epoch + 1, 0, {}, 0.0
        if improved:
            checkpoints.save(self.run.checkpoints / "best.pt", self._weights(epoch))
        if self.resumable and (last or epoch % settings.checkpoint_every == 0):
            self._save()
        if settings.keep_every and epoch % settings.keep_every == 0:
            checkpoints.save(self.run.checkpoints / f"epoch-{epoch:04d}.pt", self._state())
        return report

    @torch.no_grad()
    def _sample(self, prompt: Prompt) -> Tensor:
        self.model.eval()
        try:
            return self.model.sample(Prompt(*(part.to(self.device) for part in prompt)))
        finally:
            self.model.train()

    def _report(self, metrics: dict[str, float], *, finished: bool) -> Report:
        batches = self.batch or len(self.stream)
        means = {name: float(value) / batches for name, value in self.sums.items()}
        scores = {name: value for name, value in means.items() if name.startswith("scores/")}
        named = {name: value for name, value in means.items() if name not in scores}
        for name, value in {**named, **metrics}.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.run.path}: {name} became {value} in epoch {self.epoch}; {self._good()}, and try a lower "
                    "train.optimizer.lr"
                )
        rate = batches * self.stream.batch_size / max(self.epoch_seconds, 1e-9)
        seconds = self.seconds + (0 if finished else self.epoch_seconds)
        share = batches / len(self.stream)
        return Report(self.epoch, finished, share, self.images, seconds, rate, named, scores, metrics, self.best)

    def _good(self) -> str:
        if self.best_epoch:
            return f"the best checkpoint, of epoch {self.best_epoch}, is kept: sample it"
        return "no checkpoint was reached"

    def _weights(self, epoch: int) -> dict[str, Any]:
        spec = self.store.spec
        return {
            "recipe": recipes.dump(self.recipe),
            "spec": {"channels": spec.channels, "height": spec.height, "width": spec.width},
            "classes": list(spec.classes),
            "epoch": epoch,
            "fd": self.best if epoch == self.best_epoch else None,
            "model": self.model.state_dict(),
        }

    def _state(self) -> dict[str, Any]:
        position = ("epoch", "batch", "images", "seconds", "epoch_seconds", "best", "best_epoch", "sums")
        return {
            **self._weights(self.epoch - 1),
            "trainer": self.trainer.state_dict(),
            "position": {name: getattr(self, name) for name in position},
        }

    def _save(self) -> None:
        """Write `last.pt`; the one before it becomes `previous.pt`, so that one of them is whole at any moment."""
        checkpoints.save(self.run.checkpoints / "next.pt", self._state())
        self._promote()
        self.saved = (self.epoch, self.batch)

    def _promote(self) -> None:
        """Give `next.pt` its name; a kill may come between any two lines here."""
        last = self.run.checkpoints / "last.pt"
        if last.exists():
            last.replace(self.run.checkpoints / "previous.pt")
        (self.run.checkpoints / "next.pt").replace(last)

    def save_where_it_stands(self) -> None:
        """Write a checkpoint, if there is anything new and its losses are finite."""
        finite = all(bool(value.isfinite()) for value in self.sums.values())
        if self.resumable and finite and self.saved != (self.epoch, self.batch):
            self._save()

    def restore(self, tell: Callable[[str], None]) -> None:
        """Take the newest whole checkpoint of the run, if it has any."""
        files = [self.run.checkpoints / f"{name}.pt" for name in ("next", "last", "previous")]
        found = [file for file in files if file.exists()]
        for index, file in enumerate(found):
            try:
                state = checkpoints.load(file, self.device)
                self._take(state, file)
            except CheckpointError as error:
                if index == len(found) - 1:
                    raise
                tell(f"{error}; going on from {found[index + 1].name}")
            else:
                if file.stem == "next":
                    self._promote()
                self.run.rewind(self.epoch - 1)
                tell(f"going on after epoch {self.epoch - 1}" + (f", batch {self.batch}" if self.batch else ""))
                return
        if self.run.entries():
            self.run.rewind(0)  # it was killed between its first line and its first checkpoint

    def _take(self, state: dict[str, Any], file: Path) -> None:
        missing = [name for name in ("trainer", "position", "classes") if name not in state]
        if missing:
            raise CheckpointError(f"{file}: lacks {', '.join(missing)}; it holds weights only, use last.pt")
        if tuple(state["classes"]) != self.store.spec.classes:
            before, now = ", ".join(state["classes"]), ", ".join(self.store.spec.classes)
            raise DataError(
                f"{file}: was trained on classes {before}, but the data have {now}; bring them back, or start a new run"
            )
        fit(self.model, state["model"], file)
        self.trainer.load_state_dict(state["trainer"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        self.saved = (self.epoch, self.batch)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested blocks as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def fit(model: torch.nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Load weights into a model.

    Raises:
        CheckpointError: a weight is missing, has another shape or is not finite; the first such one is named.
    """
    own = model.state_dict()
    for name in dict.fromkeys([*own, *state]):
        if name not in own or name not in state:
            who = "the model" if name not in own else "the checkpoint"
            raise CheckpointError(f"{file}: of another model: {who} has no {name}")
        if own[name].shape != state[name].shape:
            shape, wanted = list(state[name].shape), list(own[name].shape)
            raise CheckpointError(f"{file}: of another model: {name} is {shape}, but the recipe makes it {wanted}")
        if not bool(state[name].isfinite().all()):
            raise CheckpointError(f"{file}: {name} is not finite; use another checkpoint of the run")
    model.load_state_dict(state)


def spec_of(state: Mapping[str, Any]) -> DataSpec:
    """Give what the data were like that a checkpoint was trained on."""
    return DataSpec(**state["spec"], classes=tuple(state["classes"]))
