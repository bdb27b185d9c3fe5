"""`nox -s gan-table`: train many configurations of a recipe with several seeds, and write their learning curves down.

`gantool study simulate` replays searches on the table. The configurations are drawn at random from the recipe's search
space; number 0 has the recipe's own values. Finished trainings are kept in `--work`, so that the same command resumes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import multiprocessing
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from gantool import devices, models
from gantool.metrics.evaluate import SampleRequest
from gantool.recipe.blocks import Recipe
from gantool.training import engine, setup
from gantool.training.loop import loader_of
from gantool.training.monitor import GeneratorMonitor
from gantool.training.setup import TrainingSetup
from gantool.training.trainer import Trainer
from gantool.tune import simulate
from gantool.tune.space import Space

METRICS = ("fd", "fd_rand", "fd_texture", "fd_pretext", "fd_judge", "coverage", "support", "copied")
OTHER_LATENTS = 1_000_000  # added to the seeds of a measurement's latents, for a second measurement
AGAIN = 50  # epochs between two of those


def configurations(recipe: Recipe, count: int) -> list[dict[str, Any]]:
    """Return values of the searched keys: the recipe's own, and random ones. A larger count adds to the same list."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = Space(recipe)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.ask(study).params for _ in range(count - 1)]
    return [space.changes(params) for params in (space.own_point, *drawn)]


@cache
def _materials(recipe_text: str, data_dir: str) -> TrainingSetup:
    return setup.prepare_training(engine.open_recipe(recipe_text), Path(data_dir))


def curve(recipe: Recipe, materials: TrainingSetup, every: int) -> Iterator[dict[str, Any]]:
    """Train a recipe like `gantool train`, and yield its measurements until one is not finite.

    `fd_again` is `fd` of images from other latents.
    """
    store, evaluator = materials
    device = torch.device("cpu")
    torch.manual_seed(recipe.train.seed)
    model = models.build(recipe, store.spec).to(device)
    stream = loader_of(recipe, store, device)
    trainer, gallery = Trainer(model, recipe.train, device), GeneratorMonitor(evaluator, model, device)
    asked, seconds = evaluator.request, 0.0
    other = SampleRequest([seed + OTHER_LATENTS for seed in asked.seeds], asked.labels)
    for epoch in range(1, recipe.train.epochs + 1):
        start = time.process_time()
        with devices.rng_scope(device, trainer.randomness):
            for index, batch in enumerate(stream.epoch(epoch, 0)):
                trainer.step(batch, epoch - 1 + index / len(stream))
        seconds += time.process_time() - start
        if not torch.nn.utils.get_total_norm(model.parameters()).isfinite():
            return
        if epoch % every == 0 or epoch == recipe.train.epochs:
            with trainer.ema_weights():
                metrics = gallery.measure()[0]
                again = {}
                if epoch % AGAIN == 0:
                    evaluator.request = other
                    again = {"fd_again": evaluator(gallery._make).metrics["fd"]}
                    evaluator.request = asked
            known = {name: metrics[name] for name in METRICS if name in metrics}
            yield {"epoch": epoch, "seconds": seconds, **again, **known}


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train one configuration with one seed, in a process of its own."""
    torch.set_num_threads(1)
    recipe = engine.open_recipe(job["recipe"], {**job["changes"], "train.seed": job["seed"]})
    shared = _materials(job["data"], job["data_dir"])
    return {**job, "curve": list(curve(recipe, shared, job["every"]))}


def table(done: list[dict[str, Any]]) -> str:
    """Return the trainings as CSV, with a line for each measurement."""
    text = io.StringIO()
    keys = list(done[0]["values"])
    columns = ("epoch", "seconds", "fd", "fd_again", *METRICS[1:])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["configuration", "seed", *keys, *columns])
    for job in sorted(done, key=lambda job: (job["number"], job["seed"])):
        values = [f"{job['values'][key]:.6g}" for key in keys]
        for point in job["curve"] or [{"epoch": 0}]:
            told = [f"{point[name]:.4g}" if name in point else "" for name in columns]
            writer.writerow([job["number"], job["seed"], *values, *told])
    return text.getvalue()


def ranks(path: Path) -> None:
    """Print Spearman's rank correlation of fd after each number of epochs with fd at the end, over configurations."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["fd"]]
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        curves.setdefault((row["configuration"], row["seed"]), {})[int(row["epoch"])] = float(row["fd"])
    epochs = sorted({epoch for curve in curves.values() for epoch in curve})
    values = np.array([[curve.get(epoch, np.inf) for epoch in epochs] for curve in curves.values()])
    chance = np.random.default_rng(0)
    for index, epoch in enumerate(epochs[:-1]):
        draws = [chance.integers(len(values), size=len(values)) for _ in range(2000)]
        low, high = np.quantile([_spearman(values[draw][:, [index, -1]]) for draw in draws], (0.025, 0.975))
        found = _spearman(values[:, [index, -1]])
        print(f"{epoch} of {epochs[-1]} epochs: {found:.2f} (95 % interval {low:.2f} to {high:.2f})")
    print(f"{len(values)} trainings")


def _spearman(pairs: np.ndarray) -> float:
    first, second = (simulate._ranks(pairs[:, column]) for column in (0, 1))
    return float(np.corrcoef(first, second)[0, 1])


def main() -> None:
    """Run the trainings that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="gan14")
    parser.add_argument("--source", default="digits")
    parser.add_argument("--configurations", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=24 * 60, help="after which no training starts")
    parser.add_argument("--work", type=Path, default=Path(".nox/gan-table"))
    parser.add_argument("--out", type=Path, default=Path("tests/files/gan14-digits.csv.gz"))
    parser.add_argument("--ranks", type=Path, help="print how a table's short trainings rank its long ones, and end")
    told = parser.parse_args()
    if told.ranks:
        ranks(told.ranks)
        return
    told.work.mkdir(parents=True, exist_ok=True)
    kept = told.work / "trainings.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("}")]
    known = {(job["number"], job["seed"]) for job in done}
    fixed = {"data.source": told.source, "train.epochs": told.epochs}
    recipe = engine.open_recipe(told.recipe, fixed)
    plain = told.work / "recipe.yaml"
    from gantool.recipe import load as recipes

    plain.write_text(recipes.dump(recipe), encoding="utf-8")
    jobs = [
        {
            **{"number": number, "seed": seed, "values": values, "changes": values, "every": told.every},
            **{"recipe": str(plain), "data": str(plain), "data_dir": str(told.work / "data")},
        }
        for seed in range(1, told.seeds + 1)
        for number, values in enumerate(configurations(recipe, told.configurations))
        if (number, seed) not in known
    ]
    setup.prepare_training(recipe, told.work / "data")  # once, before two processes want it
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(told.processes) as pool, kept.open("a", encoding="utf-8") as file:
        for count, job in enumerate(pool.imap_unordered(train, jobs), 1):
            done.append(job)
            file.write(json.dumps(job) + "\n")
            file.flush()
            took = time.monotonic() - start
            last = job["curve"][-1]["fd"] if job["curve"] else float("nan")
            print(f"{count}/{len(jobs)}: {job['number']} seed {job['seed']}: fd {last:.3g}; {took:.0f} s", flush=True)
            if took > 60 * told.minutes:
                pool.terminate()
                break
    told.out.parent.mkdir(parents=True, exist_ok=True)
    told.out.write_bytes(gzip.compress(table(done).encode(), mtime=0))


if __name__ == "__main__":
    main()
