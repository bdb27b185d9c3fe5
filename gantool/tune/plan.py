"""How many trials, seeds and epochs fit into a time."""

from __future__ import annotations

import time

import torch

from gantool import devices, models, terminal
from gantool.recipe.blocks import Recipe
from gantool.schedule import trial_epochs
from gantool.training.loop import loader_of
from gantool.training.monitor import Monitor
from gantool.training.setup import TrainingSetup
from gantool.training.trainer import Trainer
from gantool.tune.race import SEEDS_PER_LOOK, SELECTION_SEEDS
from gantool.tune.study import ENDED, Study
from gantool.tune.verdict import MIN_SEEDS

TRAINED_SHARE = 0.6  # of a search's epochs that are trained; the others are saved by stopping trials early
CONFIRM, FINISH = 0.4, 0.25  # of the time, that new seeds and the full length may take at most
TIME_MARGIN = 0.03  # of the time, left for reports and for ending
TRAINING_OVERHEAD = 0.5  # seconds of a training besides its epochs: its files, its last measurement
PROBE_SECONDS = 1.5  # seconds of training, from which the seconds of an epoch are estimated
PARALLEL_SLOWDOWN = 1.25  # an epoch beside other trials takes so many times as long as a single one


class Plan:
    """How the time of a search is divided among trials, trainings with new seeds, and the full length.

    The new seeds of the study are reduced to those that fit. `epoch` is the estimated seconds of an epoch.
    """

    def __init__(self, study: Study, seconds: float, epoch: float, slots: int) -> None:
        self.study, self.epoch, self.slots = study, epoch, slots
        self.seconds = max(0.0, (1 - TIME_MARGIN) * seconds)
        self.end = time.monotonic() + self.seconds
        self.wanted_epochs = study.full_epochs  # to which trainings continue if there is time
        confirm = study.tune.confirm
        if confirm is not None:
            affordable = int(CONFIRM * self.seconds * slots / self._training_seconds(study.confirm_epochs))
            # With few trainings the best trial is the contender.
            top = confirm.top if affordable >= confirm.top * SELECTION_SEEDS + 2 * MIN_SEEDS else 1
            left = affordable - (top > 1) * top * SELECTION_SEEDS
            seeds = max(1, min(confirm.seeds, left // 2))
            confirm = confirm.model_copy(update={"top": top, "seeds": seeds})
        study.replan(confirm=confirm)

    def learn(self) -> None:
        """Take the seconds of an epoch from the newest trainings that ended."""
        known = [
            (run.user_attrs["seconds"], run.last_step)
            for run in [*self.study.trials(), *self.study.runs()]
            if run.state in ENDED and run.last_step and "seconds" in run.user_attrs
        ][-2 * self.slots :]
        if known:
            self.epoch = sum(seconds for seconds, _ in known) / sum(epochs for _, epochs in known)

    def has_time_for_a_trial(self) -> bool:
        """Return whether another trial of the search may start."""
        trial = TRAINED_SHARE * self._training_seconds(self.study.epochs)
        return time.monotonic() + trial < self.end - self._confirm_seconds() - self._finish_seconds()

    def has_time_for_a_seed(self) -> bool:
        """Return whether another training with a new seed may start."""
        return time.monotonic() + self._training_seconds(self.study.confirm_epochs) < self.end - self._finish_seconds()

    def full_epochs(self) -> int:
        """Return to how many epochs the winner and the recipe's own values can continue."""
        if not self.epoch:
            return self.wanted_epochs
        seconds = (self.end - time.monotonic()) * min(2, self.slots) / 2
        return min(self.wanted_epochs, self.study.confirm_epochs + max(0, int(seconds / self.epoch)))

    def sentence(self) -> str:
        """Return the plan in one line."""
        study, finish, confirm = self.study, self._finish_seconds(), self._confirm_seconds()
        search = self.seconds - finish - confirm
        trials = max(1, int(search * self.slots / (TRAINED_SHARE * self._training_seconds(study.epochs))))
        parts = [
            f"about {terminal.several(trials, 'trial')} of up to {terminal.several(study.epochs, 'epoch')} in "
            f"{terminal.duration(search)}"
        ]
        if study.tune.confirm is not None:
            seeds = terminal.several(study.tune.confirm.seeds, "new seed")
            parts.append(f"up to {seeds} in {terminal.duration(confirm)}")
        if finish:
            parts.append(f"the winner trained on for {terminal.duration(finish)}")
        return f"plan: {', '.join(parts)}"

    def _training_seconds(self, epochs: int) -> float:
        return epochs * self.epoch + TRAINING_OVERHEAD

    def _finish_seconds(self) -> float:
        """Return the seconds that are kept for the full length."""
        if self.study.tune.finish is None:
            return 0.0
        epochs = max(0, self.wanted_epochs - self.study.confirm_epochs)
        return min(FINISH * self.seconds, 2 / min(2, self.slots) * epochs * self.epoch)

    def _confirm_seconds(self) -> float:
        """Return the seconds that are kept for trainings with new seeds."""
        confirm = self.study.tune.confirm
        if confirm is None:
            return 0.0
        # Most races are decided by the fewest seeds that can decide; another look is kept in reserve.
        selection = confirm.top * SELECTION_SEEDS if confirm.top > 1 else 0
        trainings = selection + 2 * min(confirm.seeds, MIN_SEEDS + SEEDS_PER_LOOK)
        took = -(-trainings // self.slots) * self._training_seconds(self.study.confirm_epochs)
        return min(CONFIRM * self.seconds, took)


def epoch_seconds(recipe: Recipe, epochs: int, materials: TrainingSetup, device: str, threads: int) -> float:
    """Return the seconds that an epoch of a trial will take, by training for a moment and measuring once."""
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
