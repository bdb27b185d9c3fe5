"""`nox -s verdicts`: how often a search says `better` where nothing is, and where something is.

Simulated races draw the metric of each training from a log-normal distribution. The real searches train `gan14` on
digits for a few epochs over a space in which nothing matters: latents of 97 to 103 numbers, which train alike but draw
other random numbers.
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

from gantool import engine
from gantool.tune.board import Board
from gantool.tune.race import SELECTION, Outcome, Race, race
from gantool.tune.search import Way, search

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


class Quiet(Board):
    """A board that says nothing."""

    def tell(self, sentence: str) -> None:
        """Say nothing."""

    def finish(self, **told: Any) -> None:
        """Say nothing."""


def raced(deviation: float, factor: float, drawn: random.Random) -> tuple[Race, int]:
    """Simulate one race, in which all candidates have the same true factor; return it and its trainings."""
    outcomes: dict[tuple[int, int], Outcome] = {}
    seeds = range(SELECTION + SEEDS)
    while not (found := race("fd", 0, range(1, CANDIDATES + 1), outcomes, seeds, 1)).over:
        number, seed = found.pending[0]
        value = (factor if number else 1.0) * math.exp(drawn.gauss(0, deviation))
        outcomes[number, seed] = Outcome(value)
    return found, len(outcomes)


def simulated(repeats: int) -> None:
    """Print how often each verdict ends a race, as the table of docs/measured.md has it."""
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


def real(count: int) -> None:
    """Run real searches in which nothing matters, and print the verdict of each and how often it is `better`."""
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            changes: dict[str, Any] = {**NOTHING, "tune.seed": seed, "train.seed": seed}
            recipe, start = engine.open_recipe("gan14", changes), time.monotonic()
            with Quiet(recipe, as_json=False) as board:
                study = search(
                    recipe,
                    out=Path(folder) / str(seed),
                    fresh=False,
                    data_dir=Path(folder) / "data",
                    board=board,
                    stopped=[],
                    way=Way(engine="inline"),
                )
            verdict = study.verdict()
            assert verdict is not None
            kinds[verdict.kind] += 1
            print(f"search {seed}: {verdict.kind}: {verdict.sentence()}; {time.monotonic() - start:.0f} s", flush=True)
    print(f"{count} real searches in which nothing matters: {dict(kinds)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=2000, help="simulated races of each row")
    parser.add_argument("--searches", type=int, default=20, help="real searches")
    chosen = parser.parse_args()
    simulated(chosen.races)
    real(chosen.searches)
