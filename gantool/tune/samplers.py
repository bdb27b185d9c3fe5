"""Samplers choose the values of the next trial, and pruners stop a trial early: those of Optuna, and one more."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, cast

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from gantool.errors import RecipeError
from gantool.recipe.blocks import Tune

STARTUP = 5  # trials at random before a sampler learns from them
REDUCTION = 3  # one trial of three continues at each rung
_NEEDS = {"gp": "scipy", "cmaes": "cmaes"}


def derived(seed: int, *purpose: str | int) -> int:
    """Return a seed for one purpose, from 0 to 2**32 - 1, by SHA-256; other purposes draw other random numbers."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def sampler(tune: Tune, count: int) -> BaseSampler:
    """Return the sampler for the trial of number `count`. It depends only on that and on the recipe.

    Raises:
        RecipeError: it needs a package that is not installed.
    """
    needed = _NEEDS.get(tune.sampler)
    if needed and find_spec(needed) is None:
        raise RecipeError(f"tune.sampler: {tune.sampler} needs {needed}; pip install 'gantool[samplers]'")
    seed = derived(tune.seed, "sampler", tune.sampler, count)
    kinds: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed, n_startup_trials=STARTUP),
        "random": lambda: RandomSampler(seed=seed),
        "gp": lambda: GPSampler(seed=seed, n_startup_trials=STARTUP),
        "cmaes": lambda: CmaEsSampler(seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kinds[tune.sampler]()


def pruner(tune: Tune, epochs: int) -> BasePruner:
    """Return the pruner of a study whose trials have this many epochs."""
    grace = max(1, epochs // 5)  # the first epochs of a GAN predict little
    kinds: dict[str, Callable[[], BasePruner]] = {
        "successive_halving": lambda: SuccessiveHalvingPruner(
            min_resource=max(1, epochs // 4), reduction_factor=REDUCTION
        ),
        "hyperband": lambda: HyperbandPruner(min_resource=grace, max_resource=epochs, reduction_factor=REDUCTION),
        "median": lambda: MedianPruner(n_startup_trials=STARTUP - 1, n_warmup_steps=grace),
        "ratio": lambda: RatioPruner(epochs),
        "none": NopPruner,
    }
    return kinds[tune.pruner]()


class RatioPruner(BasePruner):
    """A pruner that stops a trial whose metric is many times the lowest one.

    After `n` of `epochs` epochs it stops a trial whose lowest value so far is more than `epochs / n` times the lowest
    value of any other trial by then: 4 times after a quarter, twice after a half. Other pruners decide by ranks, which
    change too much between the first epochs of a GAN and its last ones.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to stop a trial."""
        step = trial.last_step
        if step is None:
            return False
        others = study.get_trials(deepcopy=False)
        lowest = min((_lowest(other, step) for other in others if other.number != trial.number), default=math.inf)
        return _lowest(trial, step) > lowest * self.epochs / step


def _lowest(trial: FrozenTrial, step: int) -> float:
    return min((value for at, value in trial.intermediate_values.items() if at <= step), default=math.inf)


class BatchPruner(BasePruner):
    """A pruner that ignores the other trials of a trial's batch, so that their speed does not matter.

    The attribute `batch` of a trial is the number of the first trial of its batch.
    """

    def __init__(self, inner: BasePruner) -> None:
        self.inner = inner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to stop a trial."""
        before = copy.copy(study)
        before._storage = cast(BaseStorage, _Before(study, int(trial.user_attrs.get("batch", 0)), trial.number))
        before.study_name = "search"  # from which Hyperband draws brackets; the true one may have a random part
        return self.inner.prune(before, trial)


class _Before:
    """A storage without the trials of a batch and later ones, except for one trial."""

    def __init__(self, study: optuna.Study, first: int, own: int) -> None:
        self._storage, self._study_id, self._first, self._own = study._storage, study._study_id, first, own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._study_id

    def get_all_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        found = self._storage.get_all_trials(*arguments, **options)
        return [trial for trial in found if trial.number < self._first or trial.number == self._own]
