"""Training as an iterator: its reports, the files of a run, its refusals, and what it leaves alone."""

from __future__ import annotations

import json
import math
import random
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from gantool import checkpoints, errors, schedule
from gantool.batches import ImageSpec
from gantool.data.prepare import prepare
from gantool.training import engine, loop, resume, setup
from gantool.training.state import read
from PIL import Image

from trained import log, run_in, same, train, weights

SMALL = {
    "data.source": "digits",
    "data.classes": ["3", "5"],
    "train.batch_size": 64,
    "train.evaluate_images": 64,
    "train.evaluate_every": 1,
    "train.extractors": ["rand"],
    "train.epochs": 3,
}


def recipe_of(**changes):
    return engine.open_recipe("gan14", {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}})


def trained(path, data_dir, is_trial=False, **changes):
    recipe = recipe_of(**changes)
    run = run_in(path, recipe)
    return train(recipe, run, data_dir, is_trial=is_trial), run


@pytest.fixture
def every_step(monkeypatch):
    """Reports after every step."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)


def training_of(recipe, run, data_dir):
    """A run before its first step."""
    store = prepare(recipe.data, data_dir)
    evaluator = setup.evaluator_of(recipe, store, data_dir)
    return loop.Training(recipe, run, store, evaluator, torch.device("cpu"), is_trial=False)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_source_is_looked_for_here_and_then_beside_the_recipe(inside):
    text = "model: mlp\nloss: non_saturating\ndata: {source: photos, size: 8}\ntrain: {epochs: 1}\n"
    (inside / "mine" / "photos").mkdir(parents=True)
    (inside / "mine" / "r.yaml").write_text(text)
    assert engine.open_recipe("mine/r.yaml").data.source == str(inside / "mine" / "photos")
    assert engine.open_recipe("mine/r.yaml", {"data.source": "photos"}).data.source == "photos"

    (inside / "photos").mkdir()
    assert engine.open_recipe("mine/r.yaml").data.source == str(inside / "photos")
    (inside / "mine" / "digits").mkdir()
    (inside / "mine" / "r.yaml").write_text(text.replace("photos", "digits"))
    assert engine.open_recipe("mine/r.yaml").data.source == "digits"


@pytest.mark.usefixtures("every_step")
def test_a_report_comes_after_every_step_and_every_epoch(tmp_path, data_dir):
    reports, _ = trained(tmp_path / "run", data_dir)
    batches = 292 // 64  # 73 of the 365 are held out
    assert [report.epoch for report in reports] == [epoch for epoch in (1, 2, 3) for _ in range(batches + 1)]
    for start in range(0, len(reports), batches + 1):
        inside, end = reports[start : start + batches], reports[start + batches]
        assert [report.share for report in inside] == pytest.approx([(i + 1) / batches for i in range(batches)])
        assert not any(report.finished or report.metrics for report in inside)
        assert end.finished
        assert end.metrics["fd"] > 0
        assert end.losses == inside[-1].losses
    assert [report.images for report in reports if report.finished] == [256, 512, 768]
    assert all(report.images_per_second > 0 for report in reports)
    assert all(one.seconds <= other.seconds for one, other in pairwise(reports))
    key = "discriminator/adversarial"
    for epoch in (1, 2):  # losses are the means over the steps of one epoch
        own = [report for report in reports if report.epoch == epoch and not report.finished]
        steps = np.diff([0.0, *(report.losses[key] * (index + 1) for index, report in enumerate(own))])
        assert own[-1].losses[key] == pytest.approx(steps.mean(), rel=1e-5)
        assert len(set(np.round(steps, 6))) == len(steps)


def test_the_log_holds_the_finished_reports_and_the_run_a_grid_of_each_epoch(tmp_path, data_dir):
    reports, run = trained(tmp_path / "run", data_dir)
    assert [report.finished for report in reports] == [False, True] * 3
    entries = run.entries()
    assert entries == [report.entry() for report in reports if report.finished]
    assert list(entries[0]) == [
        *("epoch", "images", "seconds", "measured_seconds", "images_per_second"),
        *("discriminator/adversarial", "generator/adversarial"),
        *("scores/real", "scores/fake", "scores/accuracy", "gradients/discriminator", "gradients/generator"),
        *("scores/real_from_half", "scores/fake_from_half"),
        *("metrics/fd", "metrics/fd_deviation", "metrics/fd_rand", "metrics/coverage", "metrics/nearest_neighbour"),
        *("metrics/nearest_neighbour_fake", "metrics/support", "metrics/collisions", "metrics/copied"),
        *("metrics/copying", "metrics/contrast", "metrics/saturated"),
        *("measured_with", "diagnoses"),
    ]
    about = entries[0]["measured_with"]
    assert (about["real"], about["held_out"], about["fake"], about["size"]) == (292, 73, 64, "1x14x14")
    assert about["extractors"] == ["rand-85074021dfc2"]
    assert entries[0]["scores/real_from_half"] == entries[0]["scores/real"] - 0.5
    for line in (run.path / "log.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)  # nothing that JSON does not know
    grids = [np.asarray(Image.open(run.samples / f"epoch-{epoch:04d}.png")) for epoch in (1, 2, 3)]
    assert grids[0].shape == (4 * 56 + 5 * 2, 4 * 56 + 5 * 2)
    assert not np.array_equal(grids[0], grids[2])
    assert train(recipe_of(), run, data_dir) == []  # it has all of its epochs
    assert run.entries() == entries


@pytest.mark.parametrize("metric", ["fd", "fd_rand"])
def test_measurements_and_checkpoints_come_as_often_as_the_recipe_says(metric, tmp_path, data_dir):
    changes = {"train__epochs": 8, "train__evaluate_every": 3, "train__checkpoint_every": 2, "train__keep_every": 4}
    space = {"model.latent_dim": [10, 100]}
    reports, run = trained(tmp_path / "run", data_dir, **changes, tune={"metric": metric, "space": space})
    measured = {entry[f"metrics/{metric}"]: entry["epoch"] for entry in run.entries() if "metrics/fd" in entry}
    assert list(measured.values()) == [1, 3, 6, 8]
    found = {name: checkpoints.load(run.checkpoints / name) for name in names(run.checkpoints)}
    best = found.pop("best.pt")
    assert (best["epoch"], best["metric"]) == (measured[min(measured)], {metric: min(measured)})
    assert reports[-1].best == min(measured)
    epochs = {name: state["epoch"] for name, state in found.items()}
    assert epochs == {"last.pt": 8, "previous.pt": 6, "epoch-0004.pt": 4, "epoch-0008.pt": 8}
    state = found["epoch-0004.pt"]
    assert all(set(adam["0"]) == {"step", "exp_avg", "exp_avg_sq"} for adam in state["trainer"]["optimizers"].values())
    assert {name.partition(".")[0] for name in state["trainer"]["model"]} == {"generator", "discriminator"}
    assert read(run.checkpoints / "best.pt").spec == ImageSpec(1, 14, 14, ("3", "5"))


def test_a_trial_keeps_its_best_checkpoint_only(tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_TIME_SHARE", 1e-9)  # no share of the time is worth one
    _, run = trained(tmp_path / "run", data_dir, is_trial=True)
    assert names(run.checkpoints) == {"best.pt"}


def test_training_depends_on_the_seed_and_on_nothing_of_its_caller(tmp_path, data_dir, monkeypatch):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    _, first = trained(tmp_path / "first", data_dir)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
    torch.manual_seed(5)
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    rarer = {"train__evaluate_every": 2, "train__evaluate_images": 20, "train__checkpoint_every": 3}
    _, second = trained(tmp_path / "second", data_dir, **rarer)
    _, other = trained(tmp_path / "other", data_dir, train__seed=1)
    assert same(weights(first), weights(second))
    assert not any(torch.equal(value, weights(other)[key]) for key, value in weights(first).items())


@pytest.mark.parametrize(("size", "epochs", "images"), [(1, 1, 292), (5000, 2, 2 * 292)])
def test_batches_of_one_and_batches_larger_than_the_data_work(size, epochs, images, tmp_path, data_dir):
    reports, _ = trained(tmp_path / "run", data_dir, train__batch_size=size, train__epochs=epochs)
    assert reports[-1].images == images


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("dcgan28", {"data.size": 20}, errors.ShapeError, r"data\.size=28 would fit"),
        ("cgan_egg", {"train.batch_size": 1}, errors.RecipeError, r"^train\.batch_size: .* use 2 or more$"),
        # 196 TB: more than any address space gives, so that nothing is touched before it is refused.
        ("dcgan14", {"data.source": "digits", "model.latent_dim": 1_000_000,
                     "model.generator": [[1_000_000, 7, 1, 0], [1, 4, 2, 1]]},
         errors.ResourceError, r"^cpu: out of memory; try --set train\.batch_size=64, or a smaller model$"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_trained_is_refused_before_its_data_are_fetched(
    name, changes, error, message, tmp_path
):
    recipe = engine.open_recipe(name, changes)
    run = run_in(tmp_path / "run", recipe)
    with pytest.raises(error, match=message):
        train(recipe, run, tmp_path / "data")
    assert not (run.path / "lock").exists()
    if error is not errors.ResourceError:
        assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("every_step")
def test_a_run_in_use_and_an_unknown_device_are_refused(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    first = engine.train(recipe_of(), run, data_dir=data_dir, device="cpu")
    next(first)
    with pytest.raises(errors.RunError, match="in use by process"):
        train(recipe_of(), run, data_dir)
    first.close()
    assert not (run.path / "lock").exists()
    with pytest.raises(errors.GantoolError, match="--device tpu"):
        next(engine.train(recipe_of(), run, data_dir=tmp_path / "data", device="tpu"))
    assert not (tmp_path / "data").exists()


def test_a_run_that_is_no_longer_finite_returns_to_its_last_good_checkpoint(tmp_path, data_dir, monkeypatch):
    recipe = recipe_of(train__epochs=6, train__checkpoint_every=2)
    run = run_in(tmp_path / "run", recipe)
    course = training_of(recipe, run, data_dir)
    step = course.trainer.step

    def diverging(batch, epochs):
        with torch.no_grad():  # so large that the next scores overflow, from the fourth epoch's second batch on
            if course.trainer.steps == 3 * 4 + 1:
                course.model.discriminator[-1].weight.fill_(3e38)
        return step(batch, epochs)

    monkeypatch.setattr(course.trainer, "step", diverging)
    with pytest.raises(errors.TrainingError) as error:
        list(course.epochs())
    *kept, failed = run.entries()
    assert re.fullmatch(
        rf"{re.escape(str(run.path))}: \w+/\w+ became (-?inf|nan) in epoch 4, batch 2; rolled back to the "
        r"checkpoint of epoch 2; start a new run with a lower train\.optimizer\.lr than 0\.0002 "
        r"\(gantool explain nonfinite\)",
        str(error.value),
    )
    assert [entry["epoch"] for entry in kept] == [1, 2]
    assert (failed["epoch"], failed["batch"], failed["diagnoses"]) == (4, 2, ["nonfinite"])
    assert failed["failed"] in str(error.value)
    # The run itself is well, and resumes from there.
    assert [report.epoch for report in train(recipe, run, data_dir) if report.finished] == [3, 4, 5, 6]
    assert [entry["epoch"] for entry in run.entries()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a log", "discriminator/adversarial became nan in epoch 1, batch 3; no checkpoint was reached; start"),
        ("a weight", "the weights are no longer finite in epoch 2, batch 4; the best checkpoint, of epoch 1, is kept"),
    ],
)
def test_the_step_at_which_a_number_became_nan_is_named(what, message, tmp_path, data_dir, monkeypatch):
    recipe = recipe_of(train__epochs=3, train__checkpoint_every=3)
    course = training_of(recipe, run_in(tmp_path / "run", recipe), data_dir)
    step = course.trainer.step

    def poisoned(*given):
        logs = step(*given)
        if what == "a log" and course.trainer.steps == 3:
            return {name: value * math.nan for name, value in logs.items()}
        if what == "a weight" and course.trainer.steps == 8:  # the last one of the second epoch
            with torch.no_grad():
                course.model.generator[0].weight.fill_(math.nan)
        return logs

    monkeypatch.setattr(course.trainer, "step", poisoned)
    with pytest.raises(errors.TrainingError, match=message):
        list(course.epochs())
    assert course.run.entries()[-1]["diagnoses"] == ["nonfinite"]


def test_a_run_resumes_with_more_epochs_and_other_frequencies_but_no_other_settings(tmp_path, data_dir):
    _, run = trained(tmp_path / "run", data_dir, train__epochs=2)
    free = {"train.epochs": 4, "train.evaluate_every": 2, "train.checkpoint_every": 2, "train.keep_every": 4}
    wanted = resume.resumed(run, None, free)
    assert engine.open_recipe(str(run.path)) == wanted
    train(wanted, run, data_dir)
    assert [entry["epoch"] for entry in run.entries()] == [1, 2, 3, 4]
    assert (run.checkpoints / "epoch-0004.pt").exists()
    for key, value, before in (
        ("train.optimizer.lr", 1e-3, 0.0002),
        ("model.latent_dim", 50, 100),
        ("data.size", 28, 14),
        ("loss.name", "hinge", "non_saturating"),
    ):
        with pytest.raises(errors.RunError) as error:
            resume.resumed(run, None, {key: value})
        assert str(error.value) == (
            f"{run.path}: was started with {key}={before}, not {value}; start a new run for that"
        )
    assert engine.open_recipe(str(run.path)) == wanted
    # A whole recipe may be named if it is the run's own.
    assert resume.resumed(run, recipe_of(train__epochs=9), {}).train.epochs == 9
    assert resume.resumed(run, recipe_of().model_copy(update={"name": "other"}), {}).name == "gan14"
    with pytest.raises(errors.RunError, match=r"was started with model\.discriminator=\[256\], not \[\[32, 3, 2, 1\]"):
        resume.resumed(run, engine.open_recipe("dcgan14", SMALL), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.bias": None}, "of another model: the checkpoint has no 0.bias"),
        ({"1.bias": torch.zeros(1)}, "of another model: the model has no 1.bias"),
        ({"0.bias": torch.zeros(4)}, "of another model: 0.bias is [4], but the recipe makes it [3]"),
        (
            {"0.bias": torch.zeros(3, dtype=torch.int32)},
            "of another model: 0.bias is int32, but the recipe makes it float32",
        ),
        ({"0.bias": torch.full((3,), math.nan)}, "0.bias is not finite; use another checkpoint of the run"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    state = {name: value for name, value in (model.state_dict() | change).items() if value is not None}

    def check():
        checkpoints.check_shapes(state, model.state_dict(), tmp_path / "some.pt")
        checkpoints.check_values(state, tmp_path / "some.pt")

    with pytest.raises(errors.CheckpointError) as error:
        check()
    assert str(error.value) == f"{tmp_path / 'some.pt'}: {message}"


def test_the_speed_of_a_machine_changes_no_measurement_and_no_best_checkpoint(tmp_path, data_dir, monkeypatch):
    recipe = recipe_of(train__epochs=30, train__evaluate_every=None, train__optimizer__lr=3e-3)
    runs, clock = [], [0.0]

    def slow(function, seconds):
        def wait(*given):
            clock[0] += seconds
            return function(*given)

        return wait

    for step_seconds, measure_seconds in ((0.001, 0.002), (0.7, 300.0)):
        runs.append(run_in(tmp_path / str(step_seconds), recipe))
        with monkeypatch.context() as patch:
            patch.setattr(loop.time, "perf_counter", lambda: clock[0])
            course = training_of(recipe, runs[-1], data_dir)
            patch.setattr(course.trainer, "step", slow(course.trainer.step, step_seconds))
            patch.setattr(course.monitor, "measure", slow(course.monitor.measure, measure_seconds))
            list(course.epochs())
    fast, late = runs
    assert log(fast) == log(late)
    measured = {entry["epoch"] for entry in fast.entries() if "metrics/fd" in entry}
    assert measured == course.measured
    assert {1, 2, 3, 6, 15, 30} <= measured < set(range(1, 31))
    assert same(weights(fast, "best"), weights(late, "best"))
    assert late.entries()[-1]["measured_seconds"] == pytest.approx(300 * len(measured))


@pytest.mark.parametrize("extra", [{}, {"model__generator": [512], "model__latent_dim": 300}])
def test_trials_are_measured_after_the_same_epochs_whatever_their_networks_cost(extra, tmp_path, data_dir):
    changes = {"train__epochs": 25, "train__evaluate_every": None, **extra}
    reports, _ = trained(tmp_path / "run", data_dir, is_trial=True, **changes)
    measured = tuple(report.epoch for report in reports if report.metrics)
    assert measured == schedule.trial_epochs(25) == (6, 13, 19, 25)


def test_a_run_that_is_prolonged_follows_the_schedule_of_its_new_length(tmp_path, data_dir):
    _, run = trained(tmp_path / "run", data_dir, train__epochs=3, train__evaluate_every=None)
    before = [entry["epoch"] for entry in run.entries() if "metrics/fd" in entry]
    longer = resume.resumed(run, None, {"train.epochs": 30})
    expected = training_of(longer, run_in(tmp_path / "other", longer), data_dir).measured
    train(longer, run, data_dir)
    after = [entry["epoch"] for entry in run.entries() if "metrics/fd" in entry]
    assert after == before + sorted(epoch for epoch in expected if epoch > 3)


def test_a_part_of_the_data_is_told_with_the_split_and_with_every_number(tmp_path, data_dir):
    recipe = engine.change(engine.open_recipe("gan14", {"data.source": "digits"}), {"data.limit": 300})
    store = prepare(recipe.data, data_dir)
    text = setup.describe_split(recipe, store)
    assert text == "learning from 240 images; 60 more are held out; a fixed part, 300 of 1,797 (data.limit)"
    assert setup.evaluator_of(recipe, store, data_dir).about["part"] == "300 of 1,797"


def test_a_split_of_one_image_is_described_in_the_singular(tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("L", (8, 8), 99).save(tmp_path / "one" / "1.png")
    recipe = engine.open_recipe("gan14", {"data.source": str(tmp_path / "one"), "data.classes": None})
    text = setup.describe_split(recipe, prepare(recipe.data, tmp_path / "data"))
    assert text.startswith("learning from 1 image; none are held out, so copies cannot be recognised; with fewer than")
