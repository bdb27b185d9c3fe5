"""Training as an iterator: what it reports, keeps, refuses, and leaves alone."""

from __future__ import annotations

import contextlib
import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gantool import checkpoints, engine, load
from gantool.data.prepare import prepare
from gantool.errors import (
    CheckpointError,
    GantoolError,
    RecipeError,
    ResourceError,
    RunError,
    ShapeError,
    TrainingError,
)
from gantool.recipe import dump
from gantool.runs import Run

SMALL = {
    "data.source": "digits",
    "data.classes": ["3", "5"],
    "train.batch_size": 64,
    "train.evaluate_images": 64,
    "train.epochs": 3,
}


def recipe_of(**changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return engine.open_recipe("gan14", {**SMALL, **dotted})


def run_in(path, recipe):
    return Run.create(dump(recipe), name=recipe.name, out=path)


def train(recipe, run, data_dir, **rest):
    return list(engine.train(recipe, run, data_dir=data_dir, device="cpu", **rest))


@pytest.fixture
def every_step(monkeypatch):
    """Reports after every step."""
    monkeypatch.setattr(engine, "PATIENCE", 0.0)


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("every_step")
def test_reports_tell_every_step_and_every_epochs_end(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    reports = train(recipe_of(), run, data_dir)
    batches = 365 // 64
    assert [report.epoch for report in reports] == [epoch for epoch in (1, 2, 3) for _ in range(batches + 1)]
    for start in range(0, len(reports), batches + 1):
        inside, end = reports[start : start + batches], reports[start + batches]
        assert [report.share for report in inside] == pytest.approx([(i + 1) / batches for i in range(batches)])
        assert not any(report.finished or report.metrics for report in inside)
        assert end.finished
        assert end.share == 1
        assert end.metrics["fd"] > 0
        assert end.losses == inside[-1].losses
    assert [report.images for report in reports if report.finished] == [320, 640, 960]
    seconds = [report.seconds for report in reports]
    assert seconds == sorted(seconds)
    assert all(report.images_per_second > 0 for report in reports)


def test_without_hurry_an_epoch_is_two_reports(tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 1e9)
    reports = train(recipe_of(), run_in(tmp_path / "run", recipe_of()), data_dir)
    assert [report.finished for report in reports] == [False, True] * 3


def test_the_log_is_the_finished_reports(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    finished = [report for report in train(recipe_of(), run, data_dir) if report.finished]
    entries = run.entries()
    assert entries == [report.entry() for report in finished]
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    assert list(entries[0]) == [
        *("epoch", "images", "seconds", "images_per_second"),
        *("discriminator/adversarial", "generator/adversarial", "scores/real", "scores/fake", "metrics/fd"),
    ]
    for line in (run.path / "log.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)  # nothing that JSON does not know


@pytest.mark.usefixtures("every_step")
def test_losses_of_an_epoch_are_the_means_over_its_steps(tmp_path, data_dir):
    reports = train(recipe_of(train__epochs=1), run_in(tmp_path / "run", recipe_of()), data_dir)[:-1]
    key = "discriminator/adversarial"
    sums = [report.losses[key] * (index + 1) for index, report in enumerate(reports)]
    steps = np.diff([0.0, *sums])
    assert reports[-1].losses[key] == pytest.approx(steps.mean(), rel=1e-5)
    assert len(set(np.round(steps, 6))) == len(steps)


@pytest.mark.usefixtures("every_step")
def test_an_epochs_means_hold_nothing_of_the_epoch_before(tmp_path, data_dir):
    recipe = recipe_of(train__optimizer__lr=1e-9)  # nothing is learned: every step is like the first
    reports = train(recipe, run_in(tmp_path / "run", recipe), data_dir)
    for key, value in reports[0].losses.items():
        assert [report.losses[key] for report in reports] == pytest.approx([value] * len(reports), rel=0.1)


def test_measuring_leaves_the_networks_as_training_needs_them(tmp_path, data_dir):
    recipe = recipe_of()
    run = run_in(tmp_path / "run", recipe)
    training = engine._Training(recipe, run, prepare(recipe.data, data_dir), torch.device("cpu"), resumable=True)
    reports = training.epochs()
    while not next(reports).finished:
        pass
    assert all(module.training for module in training.model.modules())


def test_the_metric_is_measured_in_the_first_the_last_and_every_nth_epoch(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=8, train__evaluate_every=3)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    assert [entry["epoch"] for entry in run.entries() if "metrics/fd" in entry] == [1, 3, 6, 8]


def test_every_epoch_leaves_a_grid_of_sixteen_pictures(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    train(recipe_of(), run, data_dir)
    assert names(run.samples) == {f"epoch-{epoch:04d}.png" for epoch in (1, 2, 3)}
    grids = []
    for path in sorted(run.samples.iterdir()):
        with Image.open(path) as grid:
            assert grid.mode == "L"
            assert grid.size == (4 * 56 + 5 * 2, 4 * 56 + 5 * 2)
            grids.append(np.asarray(grid))
    assert not np.array_equal(grids[0], grids[2])


def test_the_best_checkpoint_is_of_the_epoch_with_the_lowest_metric(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=8, train__optimizer__lr=3e-3, train__evaluate_every=2)
    run = run_in(tmp_path / "run", recipe)
    reports = train(recipe, run, data_dir)
    measured = {entry["metrics/fd"]: entry["epoch"] for entry in run.entries() if "metrics/fd" in entry}
    best = checkpoints.load(run.checkpoints / "best.pt")
    assert best["epoch"] == measured[min(measured)]
    assert best["fd"] == min(measured) == reports[-1].best


def test_checkpoints_to_go_on_from_are_the_last_two_and_best(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    train(recipe_of(), run, data_dir)
    assert names(run.checkpoints) == {"best.pt", "last.pt", "previous.pt"}
    assert checkpoints.load(run.checkpoints / "last.pt")["epoch"] == 3
    assert checkpoints.load(run.checkpoints / "previous.pt")["epoch"] == 2


def test_checkpoints_come_as_often_as_the_recipe_says_and_always_at_the_end(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=5, train__checkpoint_every=2, train__keep_every=2)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    assert names(run.checkpoints) == {"best.pt", "last.pt", "previous.pt", "epoch-0002.pt", "epoch-0004.pt"}
    found = {name: checkpoints.load(run.checkpoints / name)["epoch"] for name in names(run.checkpoints) - {"best.pt"}}
    assert found == {"last.pt": 5, "previous.pt": 4, "epoch-0002.pt": 2, "epoch-0004.pt": 4}


def test_a_kept_checkpoint_holds_both_networks_and_both_optimizers(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=1, train__keep_every=1)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    state = checkpoints.load(run.checkpoints / "epoch-0001.pt")
    assert set(state["trainer"]["optimizers"]) == {"generator", "discriminator"}
    assert all(adam["state"] for adam in state["trainer"]["optimizers"].values())
    assert {name.partition(".")[0] for name in state["model"]} == {"generator", "discriminator"}
    assert engine.spec_of(state).shape == (1, 14, 14)
    assert engine.spec_of(state).classes == ("3", "5")


def test_a_run_that_nobody_continues_keeps_its_best_only(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    train(recipe_of(), run, data_dir, resumable=False)
    assert names(run.checkpoints) == {"best.pt"}


def test_a_run_whose_epochs_are_all_done_has_nothing_to_report(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    train(recipe_of(), run, data_dir)
    before = run.entries()
    assert train(recipe_of(), run, data_dir) == []
    assert run.entries() == before


def test_the_same_recipe_trains_the_same_and_another_seed_another_way(tmp_path, data_dir):
    ends = []
    for index, seed in enumerate((0, 0, 1)):
        recipe = recipe_of(train__epochs=1, train__seed=seed)
        run = run_in(tmp_path / str(index), recipe)
        train(recipe, run, data_dir)
        ends.append(checkpoints.load(run.checkpoints / "last.pt")["model"])
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert not any(torch.equal(ends[0][key], ends[2][key]) for key in ends[0])


def test_how_often_is_measured_or_reported_or_saved_does_not_change_what_is_learned(tmp_path, data_dir, monkeypatch):
    ends = []
    for index, (patience, changes) in enumerate(
        [(0.5, {}), (0.0, {"train__evaluate_every": 2, "train__evaluate_images": 20, "train__checkpoint_every": 3})]
    ):
        monkeypatch.setattr(engine, "PATIENCE", patience)
        recipe = recipe_of(**changes)
        run = run_in(tmp_path / str(index), recipe)
        train(recipe, run, data_dir)
        ends.append(checkpoints.load(run.checkpoints / "last.pt")["model"])
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_training_draws_none_of_the_callers_random_numbers(tmp_path, data_dir):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    recipe = recipe_of(train__epochs=1)
    reports = engine.train(recipe, run_in(tmp_path / "run", recipe), data_dir=data_dir, device="cpu")
    for _ in reports:
        assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


def test_the_callers_random_numbers_do_not_change_training(tmp_path, data_dir):
    ends = []
    for index in range(2):
        recipe = recipe_of(train__epochs=1)
        run = run_in(tmp_path / str(index), recipe)
        for _ in engine.train(recipe, run, data_dir=data_dir, device="cpu"):
            torch.randn(index * 7)
        ends.append(checkpoints.load(run.checkpoints / "last.pt")["model"])
        torch.manual_seed(index)
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.usefixtures("every_step")
def test_a_second_training_of_the_same_run_is_refused_while_the_first_goes_on(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    with contextlib.closing(engine.train(recipe_of(), run, data_dir=data_dir, device="cpu")) as first:
        next(first)
        with pytest.raises(RunError, match="in use by process"):
            train(recipe_of(), run, data_dir)
    assert not (run.path / "lock").exists()


def test_a_recipe_that_does_not_fit_is_refused_before_any_data_are_fetched(tmp_path):
    recipe = engine.open_recipe("dcgan28", {"data.size": 20})
    run = run_in(tmp_path / "run", recipe)
    with pytest.raises(ShapeError, match=r"data\.size=28 would fit"):
        train(recipe, run, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert not (run.path / "lock").exists()


def test_batches_of_one_are_refused_where_they_cannot_be_learned_from_and_work_elsewhere(tmp_path, data_dir):
    recipe = engine.open_recipe("cgan_egg", {"train.batch_size": 1})
    with pytest.raises(RecipeError, match=r"^train\.batch_size: .* use 2 or more$"):
        train(recipe, run_in(tmp_path / "refused", recipe), data_dir)
    recipe = recipe_of(train__batch_size=1, train__epochs=1, data__classes=["3"])
    assert train(recipe, run_in(tmp_path / "run", recipe), data_dir)[-1].images == 183


def test_a_batch_larger_than_the_data_is_all_of_them(tmp_path, data_dir):
    recipe = recipe_of(train__batch_size=5000, train__epochs=2)
    reports = train(recipe, run_in(tmp_path / "run", recipe), data_dir)
    assert reports[-1].images == 2 * 365


def test_networks_larger_than_memory_are_refused_with_what_to_do(tmp_path, data_dir):
    # 196 TB: more than any address space gives, so that nothing is touched before it is refused.
    changes = {"model.latent_dim": 1_000_000, "model.generator": [[1_000_000, 7, 1, 0], [1, 4, 2, 1]]}
    recipe = engine.open_recipe("dcgan14", {"data.source": "digits", **changes})
    with pytest.raises(ResourceError) as error:
        train(recipe, run_in(tmp_path / "run", recipe), data_dir)
    assert str(error.value) == "cpu: out of memory; try --set train.batch_size=64, or a smaller model"


def test_a_loss_that_is_no_longer_finite_ends_the_run_and_keeps_its_best(tmp_path, data_dir):
    changes = {"train.epochs": 40, "train.optimizer.lr": 1000.0, "loss": "least_squares", "train.batch_size": 365}
    recipe = engine.open_recipe("gan28", {**SMALL, "data.size": 8, **changes})
    run = run_in(tmp_path / "run", recipe)
    with pytest.raises(TrainingError) as error:
        train(recipe, run, data_dir)
    best = checkpoints.load(run.checkpoints / "best.pt")
    epoch = len(run.entries()) + 1
    assert str(error.value).startswith(f"{run.path}: ")
    assert f" became inf in epoch {epoch}; " in str(error.value) or f" became nan in epoch {epoch}; " in str(
        error.value
    )
    assert f"the best checkpoint, of epoch {best['epoch']}, is kept" in str(error.value)
    assert "try a lower train.optimizer.lr" in str(error.value)
    assert load(run.path, device="cpu").sample([0]).shape == (1, 1, 8, 8)
    assert not (run.path / "lock").exists()


def test_a_metric_that_is_not_finite_ends_the_run_too(tmp_path, data_dir):
    recipe = recipe_of()
    run = run_in(tmp_path / "run", recipe)
    training = engine._Training(recipe, run, prepare(recipe.data, data_dir), torch.device("cpu"), resumable=True)
    next(training.epochs())
    with torch.no_grad():  # as a last step may leave them whose losses were finite before it
        training.model.generator[0].weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=r": fd became inf in epoch 1; no checkpoint was reached"):
        training._end_epoch()
    assert run.entries() == []


def test_a_run_goes_on_with_more_epochs_and_other_frequencies_but_no_other_settings(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=2)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    free = {"train.epochs": 4, "train.evaluate_every": 2, "train.checkpoint_every": 2, "train.keep_every": 4}
    wanted = engine.resumed(run, None, free)
    assert wanted.train.epochs == 4
    assert engine.open_recipe(str(run.path)) == wanted
    train(wanted, run, data_dir)
    assert [entry["epoch"] for entry in run.entries()] == [1, 2, 3, 4]
    assert (run.checkpoints / "epoch-0004.pt").exists()
    for key, value, before in (
        ("train.optimizer.lr", 1e-3, 0.0002),
        ("train.seed", 1, 0),
        ("model.latent_dim", 50, 100),
        ("data.size", 28, 14),
        ("loss.name", "hinge", "non_saturating"),
        ("train.batch_size", 32, 64),
    ):
        with pytest.raises(RunError) as error:
            engine.resumed(run, None, {key: value})
        assert str(error.value) == (
            f"{run.path}: was started with {key}={before}, not {value}; start a new run for that"
        )
    assert engine.open_recipe(str(run.path)) == wanted


def test_a_whole_recipe_may_be_named_if_it_is_the_runs_own(tmp_path):
    recipe = recipe_of()
    run = run_in(tmp_path / "run", recipe)
    assert engine.resumed(run, recipe_of(train__epochs=9), {}).train.epochs == 9
    assert engine.resumed(run, recipe.model_copy(update={"name": "other"}), {}).name == "gan14"
    with pytest.raises(RunError, match=r"was started with model\.discriminator=\[256\], not \[\[32, 3, 2, 1\]"):
        engine.resumed(run, engine.open_recipe("dcgan14", SMALL), {})


def test_weights_that_do_not_fit_are_told_by_name(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    file = tmp_path / "some.pt"
    good = {name: value.clone() for name, value in model.state_dict().items()}
    engine.fit(model, good, file)
    for state, told in (
        ({"0.weight": good["0.weight"]}, "of another model: the checkpoint has no 0.bias"),
        ({**good, "1.bias": torch.zeros(1)}, "of another model: the model has no 1.bias"),
        ({**good, "0.bias": torch.zeros(4)}, "of another model: 0.bias is [4], but the recipe makes it [3]"),
        ({**good, "0.bias": torch.full((3,), math.nan)}, "0.bias is not finite; use another checkpoint of the run"),
    ):
        with pytest.raises(CheckpointError) as error:
            engine.fit(model, state, file)
        assert str(error.value) == f"{file}: {told}"


def test_an_unknown_device_is_refused_before_anything_is_done(tmp_path):
    recipe = recipe_of()
    with pytest.raises(GantoolError, match="--device tpu"):
        next(engine.train(recipe, run_in(tmp_path / "run", recipe), data_dir=tmp_path / "data", device="tpu"))
    assert not (tmp_path / "data").exists()


def test_a_report_without_metrics_has_no_metric_in_its_line(tmp_path, data_dir):
    report = train(recipe_of(train__epochs=1), run_in(tmp_path / "run", recipe_of()), data_dir)[-1]
    assert "metrics/fd" in report.entry()
    assert not any(key.startswith("metrics/") for key in replace(report, metrics={}).entry())
