"""Every recipe, made small, trains and is sampled; one of each kind of model is resumed, scored and searched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from gantool import checkpoints, load
from gantool.cli import app
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, loop, setup
from PIL import Image
from typer.testing import CliRunner

from small import RECIPES, offline, small
from trained import assert_same_end, run_in, train, weights

KINDS = ("gan14", "cdcgan28", "pix2pix", "cyclegan", "mlp_xor")  # one of each kind of model
STEPS = 3  # in an epoch, about


def quick(name, data_dir, **more):
    """The recipe, small and offline, with batches so large that an epoch has about `STEPS`."""
    changes = {"train.evaluate_images": 16, "train.evaluate_every": 1, "train.checkpoint_every": 1, **offline(name)}
    recipe = engine.open_recipe(name, {**small(name), **changes, "train.extractors": ["rand"], "train.epochs": 2})
    count = loop.loader_of(recipe, setup.data_of(recipe, data_dir), torch.device("cpu")).count
    return engine.change(recipe, {"train.batch_size": max(1, count // STEPS), **more})


def cli(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """Runs that were never stopped, made when they are first asked for."""
    made = {}

    def of(name):
        if name not in made:
            recipe = quick(name, data_dir)
            made[name] = run_in(tmp_path_factory.mktemp("runs") / name, recipe)
            train(recipe, made[name], data_dir)
        return made[name]

    return of


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_its_run_is_sampled_without_its_data(name, data_dir, tmp_path, trained):
    run = trained(name)
    assert sorted(path.name for path in run.samples.iterdir()) == [f"epoch-{epoch:04d}.png" for epoch in (1, 2)]
    metric = engine.open_recipe(str(run.path)).metric
    lowest = min(entry[f"metrics/{metric}"] for entry in run.entries())
    assert checkpoints.load(run.checkpoints / "best.pt")["metric"] == {metric: lowest}
    target = tmp_path / ("answers.csv" if load(run.path, device="cpu").is_classifier else "sample.png")
    cli("sample", run.path, "-o", target)
    assert target.stat().st_size > 0


@pytest.mark.parametrize("name", KINDS)
def test_a_run_killed_or_stopped_inside_of_an_epoch_resumes_bit_for_bit(name, trained, tmp_path, data_dir, monkeypatch):
    whole = trained(name)
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)  # a report after every step
    recipe = quick(name, data_dir)
    stopped = run_in(tmp_path / "stopped", recipe)
    reports = engine.train(recipe, stopped, data_dir=data_dir, device="cpu")
    while (report := next(reports)).epoch < 2 or report.finished:
        pass
    # A kill leaves the files as they are at that moment; a stop saves first.
    killed = Run(Path(shutil.copytree(stopped.path, tmp_path / "killed")))
    reports.close()
    positions = [checkpoints.load(run.checkpoints / "last.pt")["position"] for run in (killed, stopped)]
    assert [(position["epoch"], position["batch"]) for position in positions] == [(2, 0), (2, 1)]
    for run in (killed, stopped):
        train(recipe, run, data_dir)
        assert_same_end(run, whole)


@pytest.mark.parametrize("name", KINDS)
def test_a_run_is_animated_and_scored(name, trained, tmp_path, data_dir):
    run = trained(name)
    cli("animate", run.path, "-o", tmp_path / "training.gif")
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames == 2
    result = cli("score", run.path, "--data-dir", data_dir)
    assert "accuracy" in result or "fd" in result


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_is_searched(name, tmp_path, data_dir):
    recipe = quick(name, data_dir)
    sizes = recipe.tune.space.get("train.batch_size")
    if isinstance(sizes, list):  # choices, which the recipe's own value has to be among
        recipe = engine.change(recipe, {"train.batch_size": max(sizes)})
    path, study = tmp_path / f"{name}.yaml", tmp_path / "study"
    path.write_text(dump(engine.change(recipe, {"tune.trials": 2, "tune.epochs": 1, "tune.confirm": None})), "utf-8")
    cli("tune", path, "--engine", "inline", "--out", study, "--data-dir", data_dir)
    assert engine.open_recipe(str(study / "best.yaml")).model.name == recipe.model.name


def test_the_mean_of_a_generators_weights_makes_the_images_and_is_not_trained(data_dir, tmp_path):
    recipe = quick("gan14", data_dir, **{"train.ema": 0.9})
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    state = checkpoints.load(run.checkpoints / "last.pt")["trainer"]
    moved, shown = state["model"], weights(run)
    for key, value in state["ema_generator"].items():
        assert torch.equal(shown[f"generator.{key}"], value)
    assert any(not torch.equal(moved[key], shown[key]) for key in moved if key.startswith("generator."))
    assert all(torch.equal(moved[key], shown[key]) for key in moved if key.startswith("discriminator."))
