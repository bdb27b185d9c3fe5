"""Searches replayed on a table of trainings, to measure a sampler, a pruner and a budget within minutes.

A table (`nox -s gan-table`) has the learning curves of many configurations of one recipe with several seeds. A replay
draws values with Optuna's sampler, takes the nearest configuration of the table that was not tried yet, and shows its
curve with one seed to the pruner. The truth about a configuration is its best metric in the table, as the geometric
mean over all seeds. Trials run one after the other; with several at once a sampler knows a little less.
"""

from __future__ import annotations

import csv
import gzip
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from gantool.errors import DataError, RecipeError
from gantool.recipe.blocks import Recipe
from gantool.schedule import trial_epochs
from gantool.tune.samplers import derived, pruner, sampler
from gantool.tune.space import Space

BUDGET_SHARES = (0.25, 0.5, 0.75, 1.0)  # shares of a search's seconds after which its pick is judged
QUANTILES = (0.1, 0.5, 0.9)
SHORT_LENGTHS = (5, 10, 20, 30, 50, 75)  # epochs of shorter trials that are compared with whole ones
STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "last": lambda curve: curve[-1],
    "best": min,
    "mean of the last 3": lambda curve: statistics.fmean(curve[-3:]),
    "median of the last 3": lambda curve: statistics.median(curve[-3:]),
}  # ways to make one number of a trial's measurements


@dataclass(frozen=True)
class Table:
    """Learning curves of configurations with several seeds."""

    points: list[dict[str, Any]]  # Optuna's values of each configuration; number 0 has the recipe's own
    epochs: tuple[int, ...]  # that were measured
    curves: npt.NDArray[np.float64]  # the metric, [configurations, seeds, epochs]; infinite after a training failed
    seconds: npt.NDArray[np.float64]  # of training so far, in the same shape

    @classmethod
    def read(cls, path: Path, recipe: Recipe) -> Table:
        """Read a table and check that it has the keys that the recipe searches.

        Raises:
            DataError: it cannot be read, or lacks a key that the recipe searches, or the recipe's metric.
        """
        try:
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path}: is no table of trainings ({error}); make one with: nox -s gan-table") from None
        space, metric = Space(recipe), recipe.metric
        missing = [key for key in (*space.ranges, metric, "epoch", "seconds") if not rows or key not in rows[0]]
        if missing:
            raise DataError(f"{path}: has no column {missing[0]}, which the recipe searches or is measured by")
        rows = [row for row in rows if int(row["epoch"])]  # epoch 0: it failed before it was measured
        known = {int(row["configuration"]): row for row in rows}
        keys = [[int(row[name]) for row in rows] for name in ("configuration", "seed", "epoch")]
        axes, at = zip(*(np.unique(key, return_inverse=True) for key in keys), strict=True)
        curves = np.full([len(axis) for axis in axes], np.inf)
        seconds = np.full_like(curves, np.nan)
        curves[at] = [float(row[metric]) for row in rows]
        seconds[at] = [float(row["seconds"]) for row in rows]
        pace = seconds[:, :, :1] / axes[2][0]  # after a training failed, seconds pass as before
        seconds = np.where(np.isnan(seconds), pace * axes[2], seconds)
        whole = ~np.isnan(seconds).any(axis=(1, 2))
        points = [_point(space, known[number]) for number in axes[0][whole]]
        return cls(points, tuple(axes[2].tolist()), curves[whole], seconds[whole])

    def truth(self) -> npt.NDArray[np.float64]:
        """Return the geometric mean over seeds of each configuration's best measurement."""
        return np.exp(np.log(self.curves.min(axis=2)).mean(axis=1))


class Replay(NamedTuple):
    """One replayed search."""

    truths: tuple[float, ...]  # of its pick after each of `BUDGET_SHARES`
    rank: float  # of its final pick among all configurations, as a share, 0 for the best
    early: bool  # whether the best configuration that it tried was stopped early
    saved: float  # share of its trials' epochs that were not trained
    rival: float  # truth of the pick of random search in as many seconds
    rival_trials: float  # truth of the pick of random search with a given number of trials; NaN without one
    seconds: float  # of training


class Tried(NamedTuple):
    """A trial of a replayed search."""

    configuration: int  # its number in the table
    value: float  # its lowest metric; infinite if it was stopped or failed
    seconds: float  # that it was trained
    epochs: int  # that it was trained
    stopped: bool  # or failed


def searched(recipe: Recipe, table: Table, number: int, seed: int, first: Sequence[int] = ()) -> list[Tried]:
    """Replay the trials of one search.

    `number` decides the values that the sampler draws, and `seed` is the index of the trainings' seed in the table.
    The configurations `first` are tried after the recipe's own values.
    """
    space = Space(recipe)
    tune, length = space.tune, space.epochs
    places = np.array([_place(space, point) for point in table.points])
    settings = tune.model_copy(update={"seed": derived(tune.seed, "replay", number)})
    # Hyperband draws its brackets from the name.
    study = optuna.create_study(study_name="search", sampler=sampler(settings, 0), pruner=pruner(tune, length))
    left, tried = list(range(len(table.points))), list[Tried]()
    for index in range(min(tune.trials, len(left))):
        if index <= len(first):
            chosen = (0, *first)[index]
        else:
            proposal = space.ask(study)
            study.tell(proposal, state=TrialState.FAIL)  # only its values are needed
            distances = ((places[left] - _place(space, proposal.params)) ** 2).sum(axis=1)
            chosen = left[int(np.argmin(distances))]
        left.remove(chosen)
        study.enqueue_trial(table.points[chosen])
        tried.append(_trained(study, space, table, chosen, seed, length, whole=index == 0))
    return tried


def _trained(
    study: optuna.Study, space: Space, table: Table, chosen: int, seed: int, length: int, *, whole: bool
) -> Tried:
    """Show the curve of a configuration to the pruner, which may stop it unless it must be `whole`."""
    trial, best = space.ask(study), math.inf
    for epoch in trial_epochs(length):
        at = (chosen, seed, table.epochs.index(epoch))
        value = float(table.curves[at])
        stopped = not math.isfinite(value)
        if not stopped:
            best = min(best, value)
            trial.report(value, epoch)
            stopped = not whole and epoch != length and trial.should_prune()
        if stopped:
            study.tell(trial, state=TrialState.PRUNED if math.isfinite(best) else TrialState.FAIL)
            return Tried(chosen, math.inf, float(table.seconds[at]), epoch, stopped)
    study.tell(trial, best)
    return Tried(chosen, best, float(table.seconds[at]), epoch, stopped)


def replays(recipe: Recipe, table: Table, count: int, rival_trials: int | None = None) -> Iterator[Replay]:
    """Replay a search many times, and compare each with random search, perhaps also with one of `rival_trials` trials.

    Raises:
        RecipeError: the table was not measured after the epochs that a trial of this recipe is measured after.
    """
    length = Space(recipe).epochs
    missing = [epoch for epoch in trial_epochs(length) if epoch not in table.epochs]
    if missing:
        raise RecipeError(
            f"tune.epochs: {length}: its trials are measured after {missing[0]} epochs, but the table is not; choose "
            f"one whose quarters are among {', '.join(map(str, table.epochs))}"
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number in range(count):
        yield _replay(recipe, table, number, rival_trials)


def _replay(recipe: Recipe, table: Table, number: int, rival_trials: int | None) -> Replay:
    space, truth = Space(recipe), table.truth()
    drawn, length = np.random.default_rng([space.tune.seed, number]), space.epochs
    seed = int(drawn.integers(table.curves.shape[1]))
    tried = searched(recipe, table, number, seed)
    spent = np.cumsum([one.seconds for one in tried])
    truths = []
    for share in BUDGET_SHARES:
        within = [one for one, at in zip(tried, spent, strict=True) if at <= share * spent[-1] + 1e-9] or tried[:1]
        truths.append(float(truth[min(within, key=lambda one: one.value).configuration]))
    best = min(tried, key=lambda one: truth[one.configuration])
    order, last = drawn.permutation(len(table.points)), table.epochs.index(length)
    values = table.curves[order, seed, : last + 1].min(axis=1)
    full = np.cumsum(table.seconds[order, seed, last])

    def picked(count: int) -> float:
        return float(truth[order[int(np.argmin(values[: max(1, count)]))]])

    return Replay(
        tuple(truths),
        float((truth < truths[-1]).mean()),
        best.stopped,
        1 - sum(one.epochs for one in tried) / (len(tried) * length),
        picked(int(np.searchsorted(full, spent[-1] + 1e-9, side="right"))),
        picked(rival_trials) if rival_trials else math.nan,
        float(spent[-1]),
    )


def summary(replays: Sequence[Replay]) -> dict[str, Any]:
    """Return statistics of many replays, as plain values."""
    truths, final = np.array([one.truths for one in replays]), np.array([one.truths[-1] for one in replays])
    rivals = np.array([[one.rival, one.rival_trials] for one in replays])
    wins = (final[:, None] < rivals) + (final[:, None] == rivals) / 2
    bands = np.quantile(truths, QUANTILES, axis=0).T
    found: dict[str, Any] = {
        "replays": len(replays),
        "best_found": {str(share): band.tolist() for share, band in zip(BUDGET_SHARES, bands, strict=True)},
        "seconds": statistics.fmean(one.seconds for one in replays),
        "better_than_random_at_equal_seconds": _with_interval(wins[:, 0]),
        "best_stopped_early": _with_interval(np.array([one.early for one in replays])),
        "epochs_saved": statistics.fmean(one.saved for one in replays),
        "rank_of_the_pick": np.quantile([one.rank for one in replays], (0.5, 0.9)).tolist(),
    }
    if np.isfinite(rivals[:, 1]).all():
        found["better_than_random_with_more_trials"] = _with_interval(wins[:, 1])
    return found


def _with_interval(wins: npt.NDArray[Any]) -> dict[str, Any]:
    """Return a share with its 95 % interval (Wilson 1927)."""
    share, count, z = float(wins.mean()), len(wins), 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return {"share": share, "interval": [max(0.0, middle - half), min(1.0, middle + half)]}


def about(table: Table) -> dict[str, Any]:
    """Return how noisy the trainings of a table are and what short trials are worth, as plain values.

    `noise` is the deviation between seeds of the logarithm of the best measurement. `statistics` is how well one number
    of one seed predicts the rank of the other seeds in the end (Spearman), and `lengths` the same for shorter trials.
    """
    logs = np.log(table.curves.min(axis=2))
    count, seeds = logs.shape
    found: dict[str, Any] = {"configurations": count, "seeds": seeds, "noise": {}, "statistics": {}, "lengths": {}}
    if seeds < 2:
        return found
    best, deviation = np.argsort(logs.mean(axis=1))[: max(2, count // 20)], logs.std(axis=1, ddof=1)
    found["noise"] = {
        "best twentieth": float(np.sqrt((deviation[best] ** 2).mean())),
        "all": float(np.median(deviation)),
    }
    for name, reduce in STATISTICS.items():
        numbers = np.array([[reduce(list(curve)) for curve in curves] for curves in table.curves])
        found["statistics"][name] = _agreement(numbers, logs)
    for index, epoch in enumerate(table.epochs):
        if epoch in {*SHORT_LENGTHS, table.epochs[-1]}:
            found["lengths"][str(epoch)] = _agreement(table.curves[:, :, : index + 1].min(axis=2), logs)
    return found


def _agreement(numbers: npt.NDArray[np.float64], logs: npt.NDArray[np.float64]) -> float:
    """Return the mean rank correlation of one seed's numbers with the mean of the other seeds' best ones."""
    found = []
    for seed in range(numbers.shape[1]):
        others = np.delete(logs, seed, axis=1).mean(axis=1)
        found.append(float(np.corrcoef(_ranks(numbers[:, seed]), _ranks(others))[0, 1]))
    return statistics.fmean(found)


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks; equal values have their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _place(space: Space, point: Mapping[str, Any]) -> list[float]:
    """Return the position of a point in its ranges, each from 0 to 1; each value of a choice is one dimension."""
    found: list[float] = []
    for key, span in space.distributions.items():
        if isinstance(span, CategoricalDistribution):
            found += [float(point.get(key) == choice) / math.sqrt(2) for choice in span.choices]
        elif isinstance(span, FloatDistribution | IntDistribution):
            ends = (span.low, span.high, point.get(key, span.low))
            low, high, at = map(math.log, ends) if span.log else ends
            found.append((at - low) / ((high - low) or 1.0))
    return found


def _point(space: Space, row: Mapping[str, str]) -> dict[str, Any]:
    """Return Optuna's point of a row of a table."""
    found: dict[str, Any] = {}
    for key in space.ranges:
        name, text = space.parameter(key), row[key]
        span = space.distributions[name]
        if isinstance(span, CategoricalDistribution):
            found[name] = _choice(key, span.choices, text)
        elif isinstance(span, FloatDistribution | IntDistribution):
            value = float(text) if name == key else 1 - float(text)
            value = round(value) if isinstance(span, IntDistribution) else value
            found[name] = min(span.high, max(span.low, value))
    return found


def _choice(key: str, choices: Sequence[Any], text: str) -> Any:
    """Return the choice that a table has as text, in which 10.0 may be written as 10."""
    for choice in choices:
        if text in {str(choice), f"{choice:g}" if isinstance(choice, float) else ""}:
            return choice
    raise DataError(f"{key}: the table has {text}, which is not among {list(choices)}; search the space of the table")
