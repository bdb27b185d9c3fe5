"""How many trials, seeds and epochs fit into a time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from gantool import devices, models, terminal
from gantool.recipe.blocks import Recipe
from gantool.schedule import trial_epochs
from gantool.training.loop import loader_of
from gantool.training.monitor import Monitor
from gantool.training.setup import TrainingSetup
from gantool.training.trainer import Trainer
from gantool.tune.race import SEEDS_PER_LOOK, SELECTION_SEEDS
from gantool.tune.record import finish_epochs
from gantool.tune.verdict import MIN_SEEDS

TRAINED_SHARE = 0.6  # of a search's epochs that are trained; the others are saved by stopping trials early
CONFIRM, FINISH = 0.4, 0.25  # of the time, that new seeds and the full length may take at the most
TIME_MARGIN = 0.03  # of the time, left for reports and for ending
TRAINING_OVERHEAD = 0.5  # seconds of a training besides its epochs: its files, its last measurement
PROBE_SECONDS = 1.5  # seconds of training, from which the seconds of an epoch are estimated
PARALLEL_SLOWDOWN = 1.25  # times as long as alone takes an epoch beside other trials, with measurements


@dataclass(frozen=True)
class Plan:
    """What a search does with its time.

    Args:
        recipe: with a `tune` block whose new seeds fit into the time.
        slots: trials at once.
        seconds: that it may take.
        end: the moment at which it ends, on the monotonic clock.
        epoch: estimated seconds of an epoch, until trials have shown it.
    """

    recipe: Recipe
    slots: int
    seconds: float
    end: float
    epoch: float

    @classmethod
    def of(cls, recipe: Recipe, seconds: float, epoch: float, slots: int) -> Plan:
        """Return what fits into a time.

        Args:
            recipe: with a `tune` block.
            seconds: that are left.
            epoch: seconds of one epoch of one trial.
            slots: trials at once.
        """
        tune, usable = recipe.tune, (1 - TIME_MARGIN) * seconds
        assert tune is not None
        if tune.confirm is not None:
            training = _confirm_epochs(recipe) * epoch + TRAINING_OVERHEAD
            affordable = int(CONFIRM * usable * slots / training)
            top, seeds = tune.confirm.top, tune.confirm.seeds
            if affordable < top * SELECTION_SEEDS + 2 * MIN_SEEDS:
                top = 1  # the best trial is the contender
            left = affordable - (top > 1) * top * SELECTION_SEEDS
            confirm = tune.confirm.model_copy(update={"top": top, "seeds": max(1, min(seeds, left // 2))})
            recipe = recipe.model_copy(update={"tune": tune.model_copy(update={"confirm": confirm})})
        return cls(recipe, slots, usable, time.monotonic() + usable, epoch)

    def training_seconds(self, epochs: int, epoch: float) -> float:
        """Return the seconds of a training of so many epochs, each of which takes `epoch` seconds."""
        return epochs * epoch + TRAINING_OVERHEAD

    def finish_seconds(self, epoch: float) -> float:
        """Return the seconds that are kept for the full length."""
        tune = self.recipe.tune
        if tune is None or tune.finish is None:
            return 0.0
        epochs = max(0, finish_epochs(self.recipe) - _confirm_epochs(self.recipe))
        return min(FINISH * self.seconds, 2 / min(2, self.slots) * epochs * epoch)

    def confirm_seconds(self, epoch: float) -> float:
        """Return the seconds that are kept for trainings with new seeds."""
        tune = self.recipe.tune
        if tune is None or tune.confirm is None:
            return 0.0
        # Most races are decided by the fewest seeds that can decide; another look is kept in reserve.
        selection = tune.confirm.top * SELECTION_SEEDS if tune.confirm.top > 1 else 0
        trainings = selection + 2 * min(tune.confirm.seeds, MIN_SEEDS + SEEDS_PER_LOOK)
        took = -(-trainings // self.slots) * self.training_seconds(_confirm_epochs(self.recipe), epoch)
        return min(CONFIRM * self.seconds, took)

    def has_time_for_a_trial(self, epoch: float) -> bool:
        """Return whether another trial of the search may begin; `epoch` is what an epoch has taken so far."""
        trial = TRAINED_SHARE * self.training_seconds(_trial_epochs(self.recipe), epoch)
        return time.monotonic() + trial < self.end - self.confirm_seconds(epoch) - self.finish_seconds(epoch)

    def has_time_for_a_seed(self, epoch: float) -> bool:
        """Return whether another training with a new seed may begin."""
        training = self.training_seconds(_confirm_epochs(self.recipe), epoch)
        return time.monotonic() + training < self.end - self.finish_seconds(epoch)

    def full_epochs(self, epoch: float) -> int:
        """Return to how many epochs the winner and the recipe's own values can go on."""
        seconds = (self.end - time.monotonic()) * min(2, self.slots) / 2
        full = finish_epochs(self.recipe)
        return min(full, _confirm_epochs(self.recipe) + max(0, int(seconds / epoch) if epoch else full))

    def sentence(self) -> str:
        """Return the plan in one line."""
        tune = self.recipe.tune
        assert tune is not None
        finish, confirm = self.finish_seconds(self.epoch), self.confirm_seconds(self.epoch)
        search = self.seconds - finish - confirm
        epochs = _trial_epochs(self.recipe)
        trials = max(1, int(search * self.slots / (TRAINED_SHARE * self.training_seconds(epochs, self.epoch))))
        parts = [
            f"about {terminal.several(trials, 'trial')} of up to {terminal.several(epochs, 'epoch')} in "
            f"{terminal.duration(search)}"
        ]
        if tune.confirm is not None:
            parts.append(f"up to {terminal.several(tune.confirm.seeds, 'new seed')} in {terminal.duration(confirm)}")
        if finish:
            parts.append(f"the winner trained on for {terminal.duration(finish)}")
        return f"plan: {', '.join(parts)}"


def _trial_epochs(recipe: Recipe) -> int:
    return (recipe.tune and recipe.tune.epochs) or recipe.train.epochs


def _confirm_epochs(recipe: Recipe) -> int:
    confirm = recipe.tune and recipe.tune.confirm
    return (confirm and confirm.epochs) or _trial_epochs(recipe)


def epoch_seconds(recipe: Recipe, materials: TrainingSetup, device: str, threads: int) -> float:
    """Return the seconds that an epoch of a trial will take, by training for a moment and measuring once.

    Args:
        recipe: of the trial.
        materials: its data.
        device: `cpu` or `cuda`.
        threads: of each trial.
    """
    epochs = _trial_epochs(recipe)
    place = torch.device("cuda" if device == "cuda" and torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(), devices.threads(threads):
        model = models.build(recipe, materials.store.spec).to(place)
        trainer = Trainer(model, recipe.train, place)
        stream = loader_of(recipe, materials.store, place)
        steps, start = -1, 0.0  # the first step also loads what torch needs
        for batch in stream.epoch(1, 0):
            trainer.step(batch)
            steps += 1
            if steps == 0:
                start = time.perf_counter()
            elif time.perf_counter() - start > PROBE_SECONDS:
                break
        training = len(stream) * (time.perf_counter() - start) / max(1, steps)
        start = time.perf_counter()
        Monitor.of(materials.evaluator, model, place).measure()
        measuring = (time.perf_counter() - start) * len(trial_epochs(epochs))
    return PARALLEL_SLOWDOWN * (training + measuring / epochs)
