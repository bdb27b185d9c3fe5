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

import optuna
import torch
from gantool import devices, models
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.training import engine, setup
from gantool.training.loop import loader_of
from gantool.training.monitor import Monitor
from gantool.training.setup import TrainingSetup
from gantool.training.trainer import Trainer
from gantool.tune.space import Space

METRICS = ("fd", "fd_rand", "fd_texture", "fd_pretext", "fd_judge", "coverage", "support", "copied")


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
    """Train a recipe like `gantool train`, and yield its measurements until a weight is not finite."""
    store, evaluator = materials
    device = torch.device("cpu")
    torch.manual_seed(recipe.train.seed)
    model = models.build(recipe, store.spec).to(device)
    stream = loader_of(recipe, store, device)
    trainer, monitor = Trainer(model, recipe.train, device), Monitor.of(evaluator, model, device)
    seconds = 0.0
    for epoch in range(1, recipe.train.epochs + 1):
        start = time.process_time()
        with devices.rng_scope(device, trainer.rng_states):
            for index, batch in enumerate(stream.epoch(epoch, 0)):
                trainer.step(batch, epoch - 1 + index / len(stream))
        seconds += time.process_time() - start
        if not torch.nn.utils.get_total_norm(model.parameters()).isfinite():
            return
        if epoch % every == 0 or epoch == recipe.train.epochs:
            with trainer.ema_weights():
                metrics = monitor.measure().metrics
            yield {"epoch": epoch, "seconds": seconds, **{name: metrics[name] for name in METRICS if name in metrics}}


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train one configuration with one seed, in its own process."""
    torch.set_num_threads(1)
    recipe = engine.open_recipe(job["recipe"], {**job["changes"], "train.seed": job["seed"]})
    shared = _materials(job["data"], job["data_dir"])
    return {**job, "curve": list(curve(recipe, shared, job["every"]))}


def table(done: list[dict[str, Any]]) -> str:
    """Return the trainings as CSV, with a line for each measurement."""
    text = io.StringIO()
    keys = list(done[0]["values"])
    columns = ("epoch", "seconds", *METRICS)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["configuration", "seed", *keys, *columns])
    for job in sorted(done, key=lambda job: (job["number"], job["seed"])):
        values = [f"{job['values'][key]:.6g}" for key in keys]
        for point in job["curve"] or [{"epoch": 0}]:
            cells = [f"{point[name]:.4g}" if name in point else "" for name in columns]
            writer.writerow([job["number"], job["seed"], *values, *cells])
    return text.getvalue()


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
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    kept = chosen.work / "trainings.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("}")]
    known = {(job["number"], job["seed"]) for job in done}
    fixed = {"data.source": chosen.source, "train.epochs": chosen.epochs}
    recipe = engine.open_recipe(chosen.recipe, fixed)
    plain = chosen.work / "recipe.yaml"
    plain.write_text(recipes.dump(recipe), encoding="utf-8")
    jobs = [
        {
            **{"number": number, "seed": seed, "values": values, "changes": values, "every": chosen.every},
            **{"recipe": str(plain), "data": str(plain), "data_dir": str(chosen.work / "data")},
        }
        for seed in range(1, chosen.seeds + 1)
        for number, values in enumerate(configurations(recipe, chosen.configurations))
        if (number, seed) not in known
    ]
    setup.prepare_training(recipe, chosen.work / "data")  # once, before two processes want it
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool, kept.open("a", encoding="utf-8") as file:
        for count, job in enumerate(pool.imap_unordered(train, jobs), 1):
            done.append(job)
            file.write(json.dumps(job) + "\n")
            file.flush()
            took = time.monotonic() - start
            last = job["curve"][-1]["fd"] if job["curve"] else float("nan")
            print(f"{count}/{len(jobs)}: {job['number']} seed {job['seed']}: fd {last:.3g}; {took:.0f} s", flush=True)
            if took > 60 * chosen.minutes:
                pool.terminate()
                break
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_bytes(gzip.compress(table(done).encode(), mtime=0))


if __name__ == "__main__":
    main()
