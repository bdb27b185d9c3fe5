"""A training: everything that a checkpoint holds, and the loop over its epochs."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantool import batches, checkpoints, devices, files, images, models, schedule
from gantool.batches import Batch
from gantool.checkpoints import check_shapes
from gantool.data.loader import Dataset, Loader
from gantool.errors import CheckpointError, DataError, TrainingError
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import Evaluator
from gantool.models import shapes
from gantool.models.base import Generative, Model
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.runs import Run
from gantool.training.health import Health
from gantool.training.monitor import Measurement, Monitor
from gantool.training.report import Report
from gantool.training.rule import Diagnosis, Observation
from gantool.training.setup import check_same_data
from gantool.training.state import Checkpoint, Progress, read
from gantool.training.trainer import Trainer, initial_state

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5  # seconds between reports inside of an epoch
REFERENCE_STEPS = 50  # steps whose gradients later ones are compared with
CHECKPOINT_TIME_SHARE = 0.05  # of a trial's time that its checkpoints may take
DISK_SPEED = 100e6  # bytes a second, until a checkpoint has been timed


class Training:
    """A recipe's networks, their trainer and data, the health of the run, and its progress.

    A trial of a search writes checkpoints as often as `CHECKPOINT_TIME_SHARE` of its time allows, and measures the same
    epochs as every other trial, whatever its networks cost. With `keep_end` it also keeps a checkpoint of its last
    epoch, to be trained further.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        store: Dataset,
        evaluator: Evaluator | ClassifierEvaluator,
        device: torch.device,
        *,
        is_trial: bool,
        keep_end: bool = False,
    ) -> None:
        self.recipe, self.settings, self.run, self.spec = recipe, recipe.train, run, store.spec
        self.store = store
        self.device, self.is_trial, self.keep_end = device, is_trial, keep_end
        with devices.rng_scope(device, devices.rng_states(device, self.settings.seed)):
            self.model: Model = models.build(recipe, store.spec).to(device)
        self.trainer = Trainer(self.model, self.settings, device)
        self.stream = loader_of(recipe, store, device)
        self.monitor = Monitor.of(evaluator, self.model, device)
        self.health = Health()
        self.measured = frozenset(self._schedule())
        self.progress = Progress()
        self.optimum = self.model.loss.optimum if isinstance(self.model, Generative) else None
        self.unsynced: list[Path] = []  # images that may not be on the disk yet
        self.saved: tuple[int, int] | None = None  # epoch and batch of the newest checkpoint
        self.saved_at = time.perf_counter()
        # The weights and Adam's two means of each; once a checkpoint was written, its own time.
        self.save_cost = sum(12 * part.numel() for part in self.model.parameters()) / DISK_SPEED

    def epochs(self) -> Iterator[Report]:
        """Train to the recipe's last epoch; see `engine.train`."""
        while self.progress.epoch <= self.settings.epochs:
            stream = self.stream.epoch(self.progress.epoch, self.progress.batch)
            while self.progress.batch < len(self.stream):
                self._steps(stream)
                if self._worth_saving() and self.progress.batch < len(self.stream):
                    self.save_now()
                yield self._report()
            yield self._end_epoch()

    def _steps(self, stream: Iterator[Batch]) -> None:
        """Step for half a second or to the end of the epoch, on the run's own random numbers."""
        start, logs = time.perf_counter(), []
        with devices.rng_scope(self.device, self.trainer.rng_states):
            for batch in stream:
                logs.append(self.trainer.step(batch, self.progress.epoch - 1 + self.progress.batch / len(self.stream)))
                self.progress.batch += 1
                self.progress.images += len(batch[0])
                if time.perf_counter() - start > REPORT_SECONDS:
                    break
        self._read(logs)
        self.progress.epoch_seconds += time.perf_counter() - start

    def _read(self, logs: list[dict[str, Tensor]]) -> None:
        """Add the logs of steps to the sums of the epoch, in order, so that it does not matter when they are read.

        Raises:
            TrainingError: a value is not finite.
        """
        first = self.trainer.steps - len(logs)
        named = [(index, name) for index, log in enumerate(logs) for name in log]
        values = torch.stack([value for log in logs for value in log.values()]).double().tolist()
        for (index, name), value in zip(named, values, strict=True):
            if not math.isfinite(value):
                raise self._failure(f"{name} became {value}", self.progress.batch - len(logs) + index + 1)
            total = self.progress.sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
            if name == "gradients/generator" and first + index < REFERENCE_STEPS:
                self.progress.first_gradients.append(value)

    def _end_epoch(self) -> Report:
        start = time.perf_counter()
        settings, epoch, progress = self.settings, self.progress.epoch, self.progress
        if not self._is_finite():
            raise self._failure("the weights are no longer finite", progress.batch)
        measurement = Measurement({}, {})
        with self.trainer.ema_weights():
            if epoch in self.measured:
                measurement = self.monitor.measure()
                progress.measured_seconds += time.perf_counter() - start
            image, values = self.monitor.draw()
        images.save_sample(image, self.run.samples / f"epoch-{epoch:04d}.png")
        news = self._diagnose(measurement._replace(values=values | measurement.values))
        metrics = measurement.metrics
        score = metrics.get(self.recipe.metric, math.inf), metrics.get("cross_entropy", math.inf)
        improved = score < (progress.best, progress.tie)
        if improved:
            (progress.best, progress.tie), progress.best_epoch = score, epoch
        save = epoch == settings.epochs or epoch % settings.checkpoint_every == 0
        if self.is_trial:
            save = self.keep_end if epoch == settings.epochs else self._worth_saving()
        progress.seconds += progress.epoch_seconds + time.perf_counter() - start
        report = self._report(metrics, tuple(news), finished=True)
        self.run.log(report.entry())
        progress.next_epoch()
        self.unsynced.append(self.run.samples / f"epoch-{epoch:04d}.png")
        if improved:
            checkpoints.save(self.run.checkpoints / "best.pt", self._weights(epoch))
        if settings.keep_every and epoch % settings.keep_every == 0:  # before `last.pt`, after which it is not repeated
            checkpoints.save(self.run.checkpoints / f"epoch-{epoch:04d}.pt", self._state())
        if save:
            self._save()
        elif epoch == settings.epochs:
            self._sync()
        return report

    def _sync(self) -> None:
        """Wait until the log and the images of the epochs so far are on the disk."""
        files.sync([self.run.path / "log.jsonl", *self.unsynced])
        self.unsynced.clear()

    def _is_finite(self) -> bool:
        return math.isfinite(float(torch.nn.utils.get_total_norm(self.model.parameters())))

    def _worth_saving(self) -> bool:
        """Return whether a trial has trained so long that a checkpoint costs little beside it."""
        return self.is_trial and time.perf_counter() - self.saved_at > self.save_cost / CHECKPOINT_TIME_SHARE

    def _schedule(self) -> tuple[int, ...]:
        """Return the epochs that end with a measurement. They do not depend on a clock."""
        settings, stream, every = self.settings, self.stream, self.settings.evaluate_every
        if every is not None:
            return schedule.measured_epochs(settings.epochs, every=every)
        if self.is_trial:
            return schedule.trial_epochs(settings.epochs)
        work = shapes.work(lambda: models.build(self.recipe, self.spec), min(2, settings.batch_size))
        training = schedule.training_seconds(settings.epochs * len(stream), stream.batch_size, work)
        measurement = schedule.measurement_seconds(self.monitor.count, self.monitor.pixels, work)
        return schedule.measured_epochs(settings.epochs, schedule.allowed(training, measurement))

    def _diagnose(self, measurement: Measurement) -> list[Diagnosis]:
        """Judge the epoch by the logs of its steps and by what was seen of the model after it."""
        means, values = self._means(), measurement.values
        values["train_images"] = self.stream.count
        self.progress.gradient = means.get("gradients/generator", self.progress.gradient)
        if first := max(self.progress.first_gradients, default=0.0):
            values["gradient_left"] = self.progress.gradient / first
        if "scores/fake" in means:
            values["accuracy"] = means.get("scores/accuracy", math.nan)
            values["fake_answer"] = math.nan if self.optimum is None else means["scores/fake"]
        return self.health.observe(
            Observation(
                epoch=self.progress.epoch,
                step=self.trainer.steps,
                measured=self.progress.epoch in self.measured,
                losses=_losses(means),
                drifting=self.optimum is None,
                rates={name: self.settings.optimizer_of(name).lr for name in self.trainer.names.values()},
                lost_classes=measurement.lost_classes,
                values=values,
            )
        )

    def _means(self) -> dict[str, float]:
        """Return the means of this epoch's logs, and the distances of D's answers from the optimum's 1/2."""
        means = {name: total / count for name, (total, count) in self.progress.sums.items()}
        if self.optimum is not None:
            scores = [name for name in ("scores/real", "scores/fake") if name in means]
            means |= {f"{name}_from_half": means[name] - self.optimum for name in scores}
        return means

    def _report(
        self, metrics: dict[str, float] | None = None, news: tuple[Diagnosis, ...] = (), *, finished: bool = False
    ) -> Report:
        batches = self.progress.batch or len(self.stream)
        means = self._means()
        losses = _losses(means)
        return Report(
            epoch=self.progress.epoch,
            finished=finished,
            share=batches / len(self.stream),
            images=self.progress.images,
            seconds=self.progress.seconds + (0 if finished else self.progress.epoch_seconds),
            images_per_second=batches * self.stream.batch_size / max(self.progress.epoch_seconds, 1e-9),
            losses=losses,
            scores={name: value for name, value in means.items() if name not in losses},
            metrics=metrics or {},
            best=self.progress.best,
            measured_with=self.monitor.about if metrics else {},
            diagnoses=self.health.active,
            news=news,
            measured_seconds=self.progress.measured_seconds,
        )

    def _failure(self, what: str, batch: int) -> TrainingError:
        """Rewind the run to its last good checkpoint, log the failure, and return the exception."""
        if self.saved:
            good = self.saved[0] - 1
            self.run.rewind(good)
            back = f"rolled back to the checkpoint of epoch {good}"
        elif self.progress.best_epoch:
            back = f"the best checkpoint, of epoch {self.progress.best_epoch}, is kept"
        else:
            back = "no checkpoint was reached"
        where = f"epoch {self.progress.epoch}, batch {batch}"
        self.run.log({"epoch": self.progress.epoch, "batch": batch, "diagnoses": ["nonfinite"], "failed": what})
        return TrainingError(
            f"{self.run.path}: {what} in {where}; {back}; start a new run with a lower train.optimizer.lr than "
            f"{self.settings.optimizer.lr:g} (gantool explain nonfinite)"
        )

    def _shared(self, epoch: int) -> dict[str, Any]:
        """Return what every checkpoint holds; `training.state` has its schema."""
        return {
            "recipe": recipes.dump(self.recipe),
            "spec": batches.plain(self.spec),
            "classes": list(self.spec.classes),
            "epoch": epoch,
            "metric": {self.recipe.metric: self.progress.best} if epoch == self.progress.best_epoch else {},
            "examples": self.monitor.examples,
            "data": {"digest": self.store.digest, "count": len(self.store)},
        }

    def _weights(self, epoch: int) -> dict[str, Any]:
        with self.trainer.ema_weights():
            return {**self._shared(epoch), "model": self.model.state_dict()}

    def _state(self) -> dict[str, Any]:
        return {
            **self._shared(self.progress.epoch - 1),
            "trainer": self.trainer.state_dict(),
            "health": self.health.state_dict(),
            "position": dataclasses.asdict(self.progress),
            "threads": torch.get_num_threads(),
        }

    def _save(self) -> None:
        """Write `last.pt`, and keep the one before as `previous.pt`, in case the disk damages a file."""
        start, last = time.perf_counter(), self.run.checkpoints / "last.pt"
        self._sync()  # training resumes after these epochs
        if last.exists():
            files.keep(last, last.with_name("previous.pt"))
        checkpoints.save(last, self._state())
        self.saved, self.saved_at = (self.progress.epoch, self.progress.batch), time.perf_counter()
        self.save_cost = self.saved_at - start

    def save_now(self) -> None:
        """Write a checkpoint, if the state is new and finite."""
        if self._is_finite() and self.saved != (self.progress.epoch, self.progress.batch):
            self._save()

    def restore(self) -> None:
        """Load the newest whole checkpoint of the run, if it has any."""
        last, previous = (self.run.checkpoints / f"{name}.pt" for name in ("last", "previous"))
        found = [file for file in (last, previous) if file.exists()]
        for index, file in enumerate(found):
            try:
                self._take(read(file), file)
            except CheckpointError as error:
                if index == len(found) - 1:
                    raise
                logger.warning(f"{error}; resuming from {found[index + 1].name}")
            else:
                if file != last:
                    files.rename(file, last)  # not to be replaced by a damaged one
                self.run.rewind(self.progress.epoch - 1)
                if not self.is_trial:
                    batch = f", batch {self.progress.batch}" if self.progress.batch else ""
                    logger.info(f"resuming after epoch {self.progress.epoch - 1}{batch}")
                return
        if (self.run.path / "log.jsonl").exists():
            self.run.rewind(0)  # it was killed before its first checkpoint, perhaps within its first line

    def _take(self, saved: Checkpoint, file: Path) -> None:
        state = saved.resumable
        if state is None:
            raise CheckpointError(f"{file}: holds weights only, and no training resumes from them; use last.pt")
        # A class that is only called otherwise, such as a flat folder that moved, is the same one.
        same = saved.data is not None and saved.data.digest == self.store.digest != ""
        if not same and saved.spec.classes != self.spec.classes:
            before, now = ", ".join(saved.spec.classes), ", ".join(self.spec.classes)
            raise DataError(
                f"{file}: was trained on classes {before}, but the data have {now}; bring them back, or start a new run"
            )
        check_same_data(saved.data, file, self.store, "start a new run")
        trainer = vars(state.trainer)
        for name, own in initial_state(self.model, self.settings).items():
            check_shapes(trainer[name] or {}, own or {}, file, "" if name == "model" else f"{name}.")
        if state.position.batch > len(self.stream):
            raise CheckpointError(f"{file}: position.batch is beyond the {len(self.stream)} batches of an epoch")
        self.trainer.load_state_dict(trainer)
        self.health.load_state_dict(state.health.model_dump())
        self.progress = state.position
        self.saved = (self.progress.epoch, self.progress.batch)
        # A checkpoint of version 0.1 lacks the number. `engine.train` restores this process's own.
        torch.set_num_threads(state.threads or torch.get_num_threads())


def _losses(means: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in means.items() if not name.startswith(("scores/", "gradients/"))}


def loader_of(recipe: Recipe, store: Dataset, device: torch.device) -> Loader:
    """Return the loader of a training."""
    data, train, kind = recipe.data, recipe.train, recipe.batch_type
    rows = store.split(data.held_out, kind).train
    return Loader(store, train.batch_size, train.seed, device, rows, kind, flip=data.flip, jitter=data.jitter)
