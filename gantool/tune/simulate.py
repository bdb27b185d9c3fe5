"""Searches replayed on a table of trainings: what a sampler, a pruner and a budget are worth, in minutes.

A table (`nox -s gan-table`) has the learning curves of many configurations of one recipe with several seeds. A replay
asks Optuna's real sampler for values, takes the nearest configuration of the table that was not tried yet, and lets
Optuna's real pruner see its curve with one seed. The truth about a configuration is its metric at the table's end, as
the geometric mean over all seeds. Trials run one after the other: with several at once a sampler knows a little less.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from gantool.errors import DataError, RecipeError
from gantool.recipe.blocks import Recipe
from gantool.schedule import trial_epochs
from gantool.tune.samplers import derived, pruner, sampler
from gantool.tune.space import Space

BUDGET_SHARES = (0.25, 0.5, 0.75, 1.0)  # shares of a search's seconds after which its pick is looked at
QUANTILES = (0.1, 0.5, 0.9)
STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "last": lambda curve: curve[-1],
    "best": min,
    "mean of the last 3": lambda curve: statistics.fmean(curve[-3:]),
    "median of the last 3": lambda curve: statistics.median(curve[-3:]),
}
"""How one number can be made of a trial's measurements."""


@dataclass(frozen=True)
class Table:
    """Learning curves of configurations with several seeds.

    Args:
        points: Optuna's values of each configuration; number 0 has the recipe's own.
        epochs: that were measured.
        curves: the metric, [configurations, seeds, epochs]; infinite where a training failed.
        seconds: of training up to there, in the same shape.
    """

    points: list[dict[str, Any]]
    epochs: tuple[int, ...]
    curves: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]

    @classmethod
    def read(cls, path: Path, recipe: Recipe) -> Table:
        """Read a table and check that it has what the recipe searches.

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
        numbers, seeds, epochs = (
            sorted({int(row[name]) for row in rows if int(row["epoch"])}) for name in ("configuration", "seed", "epoch")
        )
        shape = (len(numbers), len(seeds), len(epochs))
        curves, seconds = np.full(shape, np.inf), np.full(shape, np.nan)
        places = [{value: index for index, value in enumerate(part)} for part in (numbers, seeds, epochs)]
        own: dict[int, dict[str, Any]] = {}
        for row in rows:
            number = int(row["configuration"])
            if not int(row["epoch"]) or number not in places[0]:
                continue
            at = tuple(
                place[int(row[name])] for place, name in zip(places, ("configuration", "seed", "epoch"), strict=True)
            )
            curves[at], seconds[at] = float(row[metric]), float(row["seconds"])
            own.setdefault(number, {key: row[key] for key in space.ranges})
        points = [_point(space, own[number]) for number in numbers]
        whole = np.isfinite(seconds).any(axis=(1, 2)) & ~np.isnan(seconds[:, :, 0]).any(axis=1)
        kept = [index for index in range(len(numbers)) if whole[index]]
        return cls([points[index] for index in kept], tuple(epochs), curves[kept], _filled(seconds[kept], epochs))

    def truth(self) -> npt.NDArray[np.float64]:
        """Return what each configuration is worth: the geometric mean over seeds of its best measurement."""
        return np.exp(np.log(self.curves.min(axis=2)).mean(axis=1))


class Replay(NamedTuple):
    """One replayed search.

    Args:
        truths: of its pick after each of `BUDGET_SHARES`.
        rank: of its final pick among all configurations, as a share, 0 for the best.
        early: whether the best configuration that it touched was stopped early.
        saved: share of its trials' epochs that were not trained.
        rival: truth of what random search picks in as many seconds.
        rival_trials: truth of what random search picks with a given number of trials; not a number without one.
        seconds: of training.
    """

    truths: tuple[float, ...]
    rank: float
    early: bool
    saved: float
    rival: float
    rival_trials: float
    seconds: float


class Tried(NamedTuple):
    """A trial of a replayed search.

    Args:
        configuration: its number in the table.
        value: its lowest metric; infinite where it was stopped or failed.
        seconds: that it was trained.
        epochs: that it was trained.
        stopped: whether it was stopped, or failed.
    """

    configuration: int
    value: float
    seconds: float
    epochs: int
    stopped: bool


def searched(recipe: Recipe, table: Table, number: int, seed: int, first: Sequence[int] = ()) -> list[Tried]:
    """Replay the trials of one search.

    Args:
        recipe: with a `tune` block.
        table: of its trainings.
        number: of the replay, which decides what the sampler draws.
        seed: index of the training's seed in the table.
        first: configurations that are tried after the recipe's own values, such as an earlier study's best.
    """
    tune = recipe.tune
    assert tune is not None
    space, length = Space(recipe), tune.epochs or recipe.train.epochs
    measured = [table.epochs.index(epoch) for epoch in _measured(table, length)]
    places = np.array([_place(space.distributions, point) for point in table.points])
    settings = tune.model_copy(update={"seed": derived(tune.seed, "replay", number)})
    study = optuna.create_study(sampler=sampler(settings, 0), pruner=pruner(tune, length))
    left, tried = set(range(len(table.points))), list[Tried]()
    for index in range(min(tune.trials, len(left))):
        if index <= len(first):
            chosen = (0, *first)[index]
        else:
            chosen = _nearest(places, left, _place(space.distributions, _sampled(space, study)))
        left.discard(chosen)
        study.enqueue_trial(table.points[chosen])
        trial, values, stopped = space.ask(study), list[float](), False
        for step in measured:
            values.append(float(table.curves[chosen, seed, step]))
            if not math.isfinite(values[-1]):
                stopped = True
                break
            trial.report(values[-1], table.epochs[step])
            if index and step != measured[-1] and trial.should_prune():
                stopped = True
                break
        last = measured[len(values) - 1]
        if stopped:
            state = optuna.trial.TrialState
            study.tell(trial, state=state.PRUNED if any(map(math.isfinite, values)) else state.FAIL)
        else:
            study.tell(trial, min(values))
        value, seconds = math.inf if stopped else min(values), float(table.seconds[chosen, seed, last])
        tried.append(Tried(chosen, value, seconds, table.epochs[last], stopped))
    return tried


def replay(recipe: Recipe, table: Table, number: int, rival_trials: int | None = None) -> Replay:
    """Replay one search, and compare it with random search.

    Args:
        recipe: with a `tune` block.
        table: of its trainings.
        number: of the replay, which decides its random numbers.
        rival_trials: of a random search to compare with besides.
    """
    tune = recipe.tune
    assert tune is not None
    length = tune.epochs or recipe.train.epochs
    chance = np.random.default_rng([tune.seed, number])
    seed, last = int(chance.integers(table.curves.shape[1])), table.epochs.index(_measured(table, length)[-1])
    tried = searched(recipe, table, number, seed)
    trained = sum(one.epochs for one in tried) / (len(tried) * length)
    return _judged(table, tried, seed, last, trained, chance, rival_trials)


def _judged(
    table: Table,
    tried: list[Tried],
    seed: int,
    last: int,
    trained: float,
    chance: np.random.Generator,
    rival_trials: int | None,
) -> Replay:
    truth = table.truth()
    spent = np.cumsum([one.seconds for one in tried])
    truths = []
    for share in BUDGET_SHARES:
        within = [one for one, at in zip(tried, spent, strict=True) if at <= share * spent[-1] + 1e-9] or tried[:1]
        truths.append(float(truth[min(within, key=lambda one: one.value).configuration]))
    pick = min(tried, key=lambda one: one.value).configuration
    best = min(tried, key=lambda one: truth[one.configuration])
    order = chance.permutation(len(table.points))
    full = table.seconds[order, seed, last]
    values = table.curves[order, seed, : last + 1].min(axis=1)

    def picked(count: int) -> float:
        count = max(1, count)
        return float(truth[order[int(np.argmin(values[:count]))]])

    in_time = int(np.searchsorted(np.cumsum(full), spent[-1] + 1e-9, side="right"))
    return Replay(
        tuple(truths),
        float((truth < truth[pick]).mean()),
        best.stopped,
        1 - trained,
        picked(in_time),
        picked(rival_trials) if rival_trials else math.nan,
        float(spent[-1]),
    )


def summary(replays: Sequence[Replay]) -> dict[str, Any]:
    """Return what many replays have in common, as plain values."""
    final = np.array([one.truths[-1] for one in replays])
    found: dict[str, Any] = {
        "replays": len(replays),
        "best_found": {
            str(share): [float(value) for value in np.quantile([one.truths[index] for one in replays], QUANTILES)]
            for index, share in enumerate(BUDGET_SHARES)
        },
        "seconds": statistics.fmean(one.seconds for one in replays),
        "better_than_random_at_equal_seconds": _share(final, np.array([one.rival for one in replays])),
        "best_stopped_early": _share_of([one.early for one in replays]),
        "epochs_saved": statistics.fmean(one.saved for one in replays),
        "rank_of_the_pick": [float(value) for value in np.quantile([one.rank for one in replays], (0.5, 0.9))],
    }
    if all(math.isfinite(one.rival_trials) for one in replays):
        rivals = np.array([one.rival_trials for one in replays])
        found["better_than_random_with_more_trials"] = _share(final, rivals)
    return found


def about(table: Table) -> dict[str, Any]:
    """Return what a table says of noise and of short trials, as plain values.

    `noise` is the deviation of the logarithm of the best measurement from one seed to another, of the best twentieth
    and of the other configurations. `statistics` is how well one number of one seed, made in different ways, predicts
    the rank of what the other seeds reach in the end (Spearman). `lengths` is the same for the best measurement of
    shorter trials.
    """
    logs = np.log(table.curves.min(axis=2))
    order = np.argsort(logs.mean(axis=1))
    best = order[: max(2, len(order) // 20)]
    seeds = range(table.curves.shape[1])
    found: dict[str, Any] = {
        "configurations": len(table.points),
        "seeds": len(seeds),
        "noise": {},
        "statistics": {},
        "lengths": {},
    }
    if len(seeds) < 2:
        return found
    deviation = logs.std(axis=1, ddof=1)
    found["noise"] = {
        "best twentieth": float(np.sqrt((deviation[best] ** 2).mean())),
        "all": float(np.median(deviation)),
    }
    for name, reduce in STATISTICS.items():
        numbers = np.array([[reduce(list(curve)) for curve in curves] for curves in table.curves])
        found["statistics"][name] = _agreement(numbers, logs)
    for index, epoch in enumerate(table.epochs):
        if index == len(table.epochs) - 1 or epoch in {5, 10, 20, 30, 50, 75}:
            found["lengths"][str(epoch)] = _agreement(table.curves[:, :, : index + 1].min(axis=2), logs)
    return found


def _agreement(numbers: npt.NDArray[np.float64], logs: npt.NDArray[np.float64]) -> float:
    """Return the mean rank correlation of one seed's numbers with the mean of what the other seeds reach."""
    found = []
    for seed in range(numbers.shape[1]):
        others = np.delete(logs, seed, axis=1).mean(axis=1)
        found.append(float(np.corrcoef(_ranks(numbers[:, seed]), _ranks(others))[0, 1]))
    return statistics.fmean(found)


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks, of equal values their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _share(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return how often ours is at least as good, where equal ones count half, with a 95 % interval."""
    return _with_interval(float((ours < theirs).mean() + (ours == theirs).mean() / 2), len(ours))


def _share_of(flags: Sequence[bool]) -> dict[str, Any]:
    return _with_interval(sum(flags) / len(flags), len(flags))


def _with_interval(share: float, count: int) -> dict[str, Any]:
    """Return a share with the interval of Wilson 1927."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return {"share": share, "interval": [max(0.0, middle - half), min(1.0, middle + half)]}


def replays(recipe: Recipe, table: Table, count: int, rival_trials: int | None = None) -> Iterator[Replay]:
    """Replay a search many times.

    Raises:
        RecipeError: the table was not measured after the epochs that a trial of this recipe is measured after.
    """
    _measured(table, (recipe.tune and recipe.tune.epochs) or recipe.train.epochs)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number in range(count):
        yield replay(recipe, table, number, rival_trials)


def _measured(table: Table, length: int) -> list[int]:
    wanted = trial_epochs(length)
    missing = [epoch for epoch in wanted if epoch not in table.epochs]
    if missing:
        raise RecipeError(
            f"tune.epochs: {length}: its trials are measured after {missing[0]} epochs, but the table is not; choose "
            f"one whose quarters are among {', '.join(map(str, table.epochs))}"
        )
    return list(wanted)


def _sampled(space: Space, study: optuna.Study) -> dict[str, Any]:
    """Return a point as the sampler suggests it; the trial that it takes is not one of the search."""
    trial = space.ask(study)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return trial.params


def _nearest(places: npt.NDArray[np.float64], left: set[int], place: Sequence[float]) -> int:
    rows = sorted(left)
    return rows[int(np.argmin(((places[rows] - np.array(place)) ** 2).sum(axis=1)))]


def _place(distributions: Mapping[str, BaseDistribution], point: Mapping[str, Any]) -> list[float]:
    """Return where a point lies in its ranges, each from 0 to 1; a choice has a side of its own for each value."""
    found: list[float] = []
    for key, span in distributions.items():
        if isinstance(span, CategoricalDistribution):
            found += [float(point.get(key) == choice) / math.sqrt(2) for choice in span.choices]
        elif isinstance(span, FloatDistribution | IntDistribution):
            low, high, at = (
                math.log(one) if span.log else float(one) for one in (span.low, span.high, point.get(key, span.low))
            )
            found.append((at - low) / ((high - low) or 1.0))
    return found


def _point(space: Space, texts: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, text in texts.items():
        name = space.parameter(key)
        span = space.distributions[name]
        if isinstance(span, CategoricalDistribution):
            found[name] = _choice(key, span.choices, text)
        elif isinstance(span, IntDistribution):
            found[name] = min(span.high, max(span.low, round(float(text))))
        elif isinstance(span, FloatDistribution):
            value = 1 - float(text) if name != key else float(text)
            found[name] = min(span.high, max(span.low, value))
    return found


def _choice(key: str, choices: Sequence[Any], text: str) -> Any:
    """Return the choice that a table has as text, in which 10.0 may be written as 10."""
    for choice in choices:
        numbers = isinstance(choice, int | float) and not isinstance(choice, bool) and re.fullmatch(r"[-+.\de]+", text)
        if str(choice) == text or (numbers and float(text) == choice):
            return choice
    raise DataError(f"{key}: the table has {text}, which is not among {list(choices)}; search the space of the table")


def _filled(seconds: npt.NDArray[np.float64], epochs: Sequence[int]) -> npt.NDArray[np.float64]:
    """Fill in the seconds after a training failed, at its pace before."""
    pace = seconds[:, :, :1] / epochs[0]
    return np.where(np.isnan(seconds), pace * np.array(epochs), seconds)
