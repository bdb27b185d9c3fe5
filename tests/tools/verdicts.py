"""`nox -s verdicts`: how often a search says `better` if no setting is, and if one is.

Simulated races draw the metric of each training from a log-normal distribution. The real searches train `gan14` on
digits for a few epochs over a space that does not matter: latents of 97 to 103 numbers, which draw other random
numbers. Replays on a table of trainings show the worth of the values of an earlier study.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from gantool.training import engine
from gantool.tune.race import SELECTION_SEEDS, Outcome, Race, race
from gantool.tune.search import SearchBackend, search
from gantool.tune.simulate import Table, searched

CANDIDATES, SEEDS = 3, 8  # as `tune.confirm` has them
NOTHING = {
    "data.source": "digits",
    "train.epochs": 12,
    "tune.epochs": 12,
    "tune.trials": 6,
    "tune.finish": None,
    "tune.sampler": "random",
    "tune.space": {"model.latent_dim": {"choice": [97, 98, 99, 100, 101, 102, 103]}},
}


def raced(deviation: float, factor: float, drawn: random.Random) -> tuple[Race, int]:
    """Simulate one race, in which all candidates have the same true factor; return it and its trainings."""
    outcomes: dict[tuple[int, int], Outcome] = {}
    seeds = range(SELECTION_SEEDS + SEEDS)
    while not (found := race("fd", 0, range(1, CANDIDATES + 1), outcomes, seeds, 1)).over:
        number, seed = found.pending[0]
        value = (factor if number else 1.0) * math.exp(drawn.gauss(0, deviation))
        outcomes[number, seed] = Outcome(value)
    return found, len(outcomes)


def simulated(repeats: int) -> None:
    """Print how often each verdict ends a race, as a table for docs/measured.md."""
    print("| deviation between seeds | true factor | `better` | cannot tell | `keep` | trainings |")
    print("|---|---|---|---|---|---|")
    for deviation in (0.1, 0.2, 0.4):
        for factor in (1.0, 0.85, 0.7):
            drawn, kinds, trainings = random.Random(1), Counter[str](), 0
            for _ in range(repeats):
                found, count = raced(deviation, factor, drawn)
                assert found.verdict is not None
                kinds[found.verdict.kind] += 1
                trainings += count
            shares = [f"{kinds[kind] / repeats:.1%}" for kind in ("better", "unsure", "keep")]
            print(f"| {deviation:.0%} | {factor:g} | {' | '.join(shares)} | {trainings / repeats:.1f} |", flush=True)


def real(count: int, first: int) -> None:
    """Run real searches over settings that do not matter, and print their verdicts."""
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            changes: dict[str, Any] = {**NOTHING, "tune.seed": seed, "train.seed": seed}
            recipe, start = engine.open_recipe("gan14", changes), time.monotonic()
            place = Path(folder)
            *_, end = search(
                recipe, out=place / str(seed), data_dir=place / "data", backend=SearchBackend(engine="inline")
            )
            verdict = end.study.verdict()
            assert verdict is not None
            kinds[verdict.kind] += 1
            print(f"search {seed}: {verdict.kind}: {verdict.sentence()}; {time.monotonic() - start:.0f} s", flush=True)
    print(f"{count} real searches over settings that do not matter: {dict(kinds)}")


def warm(repeats: int, file: Path) -> None:
    """Print the effect of the three best values of an earlier study, and of misleading ones.

    The earlier study is a search of 24 trials on the same table, if possible with another seed of the trainings.
    Misleading values are three of the worse half of the table.
    """
    recipe = engine.open_recipe("gan14", {"tune.epochs": 100, "tune.trials": 24})
    short = engine.open_recipe("gan14", {"tune.epochs": 100, "tune.trials": 12})
    table = Table.read(file, recipe)
    truth, seeds = table.truth(), table.curves.shape[1]
    worse = np.flatnonzero(truth > np.median(truth[np.isfinite(truth)]))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cases = ("24 trials", "12 trials", "12 after another study", "24 after a misleading one")
    logs: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeats):
        chance = np.random.default_rng([7, number])
        seed = int(chance.integers(seeds))
        before = searched(recipe, table, repeats + number, (seed + 1) % seeds)
        best = [one.configuration for one in sorted(before, key=lambda one: one.value) if one.configuration][:3]
        bad = [int(one) for one in chance.choice(worse[worse > 0], 3, replace=False)]
        for name, chosen, first in zip(cases, (recipe, short, short, recipe), ((), (), best, bad), strict=True):
            pick = min(searched(chosen, table, number, seed, first), key=lambda one: one.value)
            logs[name].append(math.log(truth[pick.configuration]))
    cold = np.array(logs["24 trials"])
    for name, values in logs.items():
        ratios = np.array(values) - cold
        half = 1.96 * ratios.std(ddof=1) / math.sqrt(repeats)
        low, middle, high = (math.exp(ratios.mean() + side) for side in (-half, 0, half))
        print(
            f"{name}: fd of the pick {math.exp(np.mean(values)):.2f}, {middle:.3f} times that of 24 trials (95 % "
            f"interval {low:.3f} to {high:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=2000, help="simulated races of each row")
    parser.add_argument("--searches", type=int, default=20, help="real searches")
    parser.add_argument("--first", type=int, default=0, help="seed of the first real search; the others follow")
    parser.add_argument("--replays", type=int, default=500, help="replayed searches on the table")
    parser.add_argument("--table", type=Path, default=Path(__file__).parents[1] / "files" / "gan14-digits.csv.gz")
    chosen = parser.parse_args()
    if chosen.races:
        simulated(chosen.races)
    if chosen.replays:
        warm(chosen.replays, chosen.table)
    real(chosen.searches, chosen.first)
