"""`nox -s bench`, second part: the time of a search besides the training of its trials, and whether it is worth it.

The trials of the first part only sleep. The second part is a whole search, compared with a notebook that trains the
recipe's own values once; the pace of the notebook is measured in the same run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

import torch
from gantool.recipe.blocks import Recipe
from gantool.training import engine, setup
from gantool.tune.results import sentence
from gantool.tune.search import SearchBackend, search
from gantool.tune.trial import Objective, TrialConfig, TrialResult

from bench import RACES, prepared, rival_of

NAP = 0.05  # seconds that a trial sleeps
WORKERS, TRIALS = 2, 30
FIXED, ALL, MARGINAL = 12.0, 25.0, 0.1  # seconds: until both workers have torch; 30 trials in all; of each trial


def napping(log: str, nap: float) -> Objective:
    """Return an objective that sleeps, and writes its process and the time of its start to a file."""

    def objective(config: TrialConfig, interrupted: Callable[[], bool]) -> Generator[TrialResult, None, None]:
        import torch  # as a trial's worker has to

        torch.zeros(1).sum().item()
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {time.time()}\n")
        time.sleep(nap)
        yield TrialResult(1.0, 1.0, 1, nap, state="finished")

    return objective


def searched(recipe: Recipe, folder: Path, name: str, objective: Objective) -> float:
    """Search with an objective, and return the seconds."""
    start = time.perf_counter()
    backend = SearchBackend("ray")
    for _ in search(recipe, out=folder / name, data_dir=folder / "data", backend=backend, objective=objective):
        pass
    return time.perf_counter() - start


def overhead() -> bool:
    """Measure the time of a search besides its trials, and return whether the goals are reached."""
    wanted = {"tune.confirm": None, "tune.finish": None, "tune.epochs": 1, "tune.parallel": WORKERS}
    recipe = engine.open_recipe(
        "gan14", {**wanted, "train.extractors": ["rand"], "data.source": "eggs", "data.channels": 1}
    )
    with tempfile.TemporaryDirectory() as place:
        folder, log = Path(place), Path(place) / "pids"
        searched(engine.change(recipe, {"tune.trials": 1}), folder, "warm", napping(str(log), 0))  # renders the data
        log.unlink()
        start = time.time()
        searched(engine.change(recipe, {"tune.trials": WORKERS}), folder, "fixed", napping(str(log), 5.0))
        fixed = max(float(line.split()[1]) for line in log.read_text(encoding="utf-8").splitlines()) - start
        log.unlink()
        whole = searched(engine.change(recipe, {"tune.trials": TRIALS}), folder, "many", napping(str(log), NAP))
        pids, times = zip(*(line.split() for line in log.read_text(encoding="utf-8").splitlines()), strict=True)
        later = sorted(map(float, times))[TRIALS // 2 :]  # the first trials of a worker wait for its imports
        marginal = (later[-1] - later[0]) / (len(later) - 1) * WORKERS - NAP
    rows = [
        ("until every worker has torch, s", fixed, FIXED),
        (f"{TRIALS} trials of {NAP} s on {WORKERS} workers, s", whole, ALL),
        ("each trial beside its own time, s", marginal, MARGINAL),
        ("worker processes", float(len(set(pids))), float(WORKERS)),
    ]
    print(f"{'a search':44} {'':>8} {'goal':>8}")
    for name, spent, goal in rows:
        print(f"{name:44} {spent:8.2f} {goal:8.2f}{'' if spent <= goal else '  above its goal'}", flush=True)
    return all(spent <= goal for _, spent, goal in rows)


def worth(seconds: float) -> bool:
    """Run a whole search, and return whether it finds something better in less time than a notebook trains once."""
    recipe = engine.open_recipe("cgan_egg")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dataset, _ = prepared(recipe, RACES["cgan_egg"].images, folder)
        step = rival_of("cgan_egg", dataset)
        next(step)
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            images += next(step)
        pace = images / (time.perf_counter() - start)
        start = time.perf_counter()
        *_, end = search(recipe, out=folder / "study", data_dir=folder / "data")
        study, took = end.study, time.perf_counter() - start
        materials = setup.prepare_training(recipe, folder / "data")
        learned = len(materials.evaluator.reality.train)
        notebook = recipe.train.epochs * learned / pace
        verdict, result = study.verdict(), sentence(study)
    print(f"cgan_egg: a notebook's {recipe.train.epochs} epochs at {pace:.0f} images/s: {notebook:.0f} s")
    print(f"cgan_egg: gantool tune: {took:.0f} s, {took / notebook:.2f} times that (goal: below 1)")
    print(f"cgan_egg: {result} (goal: better than your recipe)")
    return took < notebook and verdict is not None and verdict.kind == "better"


def main() -> None:
    """Measure, and fail if a goal is not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring the notebook's pace")
    parser.add_argument("--quick", action="store_true", help="without the main job")
    chosen = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"{cores} cores, torch {torch.__version__}")
    cheap = overhead()
    if not cheap or not (chosen.quick or worth(chosen.seconds)):
        raise SystemExit("bench_tune: a goal was not reached")


if __name__ == "__main__":
    main()
