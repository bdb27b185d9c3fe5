"""Every shipped recipe, made small: trained, killed, resumed, sampled, animated, scored and searched."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import torch
from gantool import checkpoints, load
from gantool.cli import app
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, loop, setup
from gantool.training.trainer import Trainer
from PIL import Image
from typer.testing import CliRunner

from small import RECIPES, offline, small

each = pytest.mark.parametrize("name", RECIPES)
STEPS = 3  # in an epoch, about


def quick(name, **more):
    """The recipe, small and offline, with a few steps in an epoch."""
    changes = {"train.evaluate_images": 16, "train.evaluate_every": 1, "train.checkpoint_every": 1, **offline(name)}
    first = engine.open_recipe(name, {**small(name), **changes, "train.extractors": ["rand"]})
    return engine.change(first, {"train.epochs": 2, **more})


def steps_of(recipe, data_dir):
    """Return the recipe with batches so large that an epoch has about `STEPS`."""
    store = setup.data_of(recipe, data_dir)
    count = loop.loader_of(recipe, store, torch.device("cpu")).count
    return engine.change(recipe, {"train.batch_size": max(1, count // STEPS)})


def train(recipe, run, data_dir, stop_after=None):
    told = 0
    with contextlib.closing(engine.train(recipe, run, data_dir=data_dir, device="cpu")) as reports:
        for _ in reports:
            told += 1
            if told == stop_after:
                break
    return told


def state(run):
    """All tensors of the last checkpoint, and the log without what a clock says."""
    content = checkpoints.load(run.checkpoints / "last.pt")
    clocks = {"seconds", "measured_seconds", "images_per_second"}
    log = [{key: value for key, value in entry.items() if key not in clocks} for entry in run.entries()]
    return tensors(content["trainer"]), tensors(content["model"]), log


def tensors(state, prefix=""):
    found = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found |= tensors(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            found[f"{prefix}{key}"] = value
    return found


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """Runs that were never stopped, made when they are first asked for."""
    made = {}

    def of(name):
        if name not in made:
            recipe = steps_of(quick(name), data_dir)
            made[name] = Run.create(dump(recipe), name=name, out=tmp_path_factory.mktemp("runs") / name)
            train(recipe, made[name], data_dir)
        return made[name]

    return of


@each
def test_a_run_killed_or_stopped_inside_of_an_epoch_and_resumed_ends_bit_for_bit_as_one_that_never_stopped(
    name, trained, tmp_path, data_dir, monkeypatch
):
    whole = trained(name)
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)  # a report after every step
    recipe = steps_of(quick(name), data_dir)
    stopped = Run.create(dump(recipe), name=name, out=tmp_path / "stopped")
    reports = engine.train(recipe, stopped, data_dir=data_dir, device="cpu")
    for report in reports:
        if report.epoch == 2 and not report.finished:
            break
    # A kill leaves the files as they are at that moment; a stop saves first.
    killed = Run(Path(shutil.copytree(stopped.path, tmp_path / "killed")))
    reports.close()
    positions = [checkpoints.load(run.checkpoints / "last.pt")["position"] for run in (killed, stopped)]
    assert [(position["epoch"], position["batch"]) for position in positions] == [(2, 0), (2, 1)]
    for run in (killed, stopped):
        train(recipe, run, data_dir)
        for mine, theirs in zip(state(run)[:2], state(whole)[:2], strict=True):
            assert same(mine, theirs)
        assert state(run)[2] == state(whole)[2]
        for grid in whole.samples.iterdir():
            assert (run.samples / grid.name).read_bytes() == grid.read_bytes()


@each
def test_its_run_keeps_a_image_an_epoch_and_animates_them(name, trained, tmp_path):
    run = trained(name)
    assert sorted(path.name for path in run.samples.iterdir()) == [f"epoch-{epoch:04d}.png" for epoch in (1, 2)]
    target = tmp_path / "training.gif"
    told = CliRunner().invoke(app, ["animate", str(run.path), "-o", str(target)])
    assert told.exit_code == 0, told.output
    with Image.open(target) as animation:
        assert animation.n_frames == 2


@each
def test_its_run_is_sampled_without_its_data(name, trained, tmp_path):
    run = trained(name)
    is_answering = load(run.path, device="cpu").answers
    target = tmp_path / ("answers.csv" if is_answering else "sample.png")
    told = CliRunner().invoke(app, ["sample", str(run.path), "-o", str(target)])
    assert told.exit_code == 0, told.output
    assert target.stat().st_size > 0


@each
def test_its_run_is_scored(name, trained, data_dir):
    told = CliRunner().invoke(app, ["score", str(trained(name).path), "--data-dir", str(data_dir)])
    assert told.exit_code == 0, told.output
    assert "accuracy" in told.output or "fd" in told.output


@each
def test_the_metric_that_decides_is_in_its_log_and_its_best_checkpoint(name, trained):
    run = trained(name)
    metric = quick(name).metric
    lowest = min(entry[f"metrics/{metric}"] for entry in run.entries())
    assert checkpoints.load(run.checkpoints / "best.pt")["metric"] == {metric: lowest}


@each
def test_it_is_searched(name, tmp_path, data_dir):
    recipe = steps_of(quick(name), data_dir)
    sizes = recipe.tune.space.get("train.batch_size")
    if isinstance(sizes, list):  # choices, which the recipe's own value has to be among
        recipe = engine.change(recipe, {"train.batch_size": max(sizes)})
    path = tmp_path / f"{name}.yaml"
    path.write_text(dump(engine.change(recipe, {"tune.trials": 2, "tune.epochs": 1, "tune.confirm": None})), "utf-8")
    told = CliRunner().invoke(
        app, ["tune", str(path), "--engine", "inline", "--out", str(tmp_path / "study"), "--data-dir", str(data_dir)]
    )
    assert told.exit_code == 0, told.output
    assert (tmp_path / "study" / "best.yaml").is_file()
    assert engine.open_recipe(str(tmp_path / "study" / "best.yaml")).model.name == recipe.model.name


def test_the_mean_of_a_generators_weights_makes_the_images_and_is_not_what_moves(data_dir, tmp_path):
    recipe = steps_of(quick("gan14", **{"train.ema": 0.9}), data_dir)
    run = Run.create(dump(recipe), name="gan14", out=tmp_path / "run")
    train(recipe, run, data_dir)
    content = checkpoints.load(run.checkpoints / "last.pt")
    moved, shown = content["trainer"]["model"], content["model"]
    for key, value in content["trainer"]["average"].items():
        assert torch.equal(shown[f"generator.{key}"], value)
    assert any(not torch.equal(moved[key], shown[key]) for key in moved if key.startswith("generator."))
    assert all(torch.equal(moved[key], shown[key]) for key in moved if key.startswith("discriminator."))


def test_learning_rates_stay_and_then_fall_evenly_to_nothing(data_dir):
    recipe = engine.change(quick("gan14"), {"train.epochs": 4, "train.decay_after": 2})
    store = setup.data_of(recipe, data_dir)
    trainer = Trainer(engine.models.build(recipe, store.spec), recipe.train, torch.device("cpu"))
    stream = loop.loader_of(recipe, store, torch.device("cpu"))
    batch = next(iter(stream.epoch(1)))
    found = []
    for epochs in (0.0, 1.9, 2.0, 3.0, 3.5, 4.0):
        trainer.step(batch, epochs)
        found += {group["lr"] / 2e-4 for optimizer in trainer.optimizers.values() for group in optimizer.param_groups}
    assert found == pytest.approx([1, 1, 1, 0.5, 0.25, 0])
