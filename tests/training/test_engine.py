"""Training as an iterator: what it reports, keeps, refuses, and leaves alone."""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from gantool import checkpoints, load, schedule
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
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, loop, resume, setup
from PIL import Image

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
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return engine.open_recipe("gan14", {**SMALL, **dotted})


def run_in(path, recipe):
    return Run.create(dump(recipe), name=recipe.name, out=path)


def train(recipe, run, data_dir, **rest):
    return list(engine.train(recipe, run, data_dir=data_dir, device="cpu", **rest))


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


@pytest.mark.usefixtures("every_step")
def test_reports_tell_every_step_and_every_epochs_end(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    reports = train(recipe_of(), run, data_dir)
    batches = 292 // 64  # 73 of the 365 are held out
    assert [report.epoch for report in reports] == [epoch for epoch in (1, 2, 3) for _ in range(batches + 1)]
    for start in range(0, len(reports), batches + 1):
        inside, end = reports[start : start + batches], reports[start + batches]
        assert [report.share for report in inside] == pytest.approx([(i + 1) / batches for i in range(batches)])
        assert not any(report.finished or report.metrics for report in inside)
        assert end.finished
        assert end.share == 1
        assert end.metrics["fd"] > 0
        assert end.losses == inside[-1].losses
    assert [report.images for report in reports if report.finished] == [256, 512, 768]
    seconds = [report.seconds for report in reports]
    assert seconds == sorted(seconds)
    assert all(report.images_per_second > 0 for report in reports)


def test_without_hurry_an_epoch_is_two_reports(tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 1e9)
    reports = train(recipe_of(), run_in(tmp_path / "run", recipe_of()), data_dir)
    assert [report.finished for report in reports] == [False, True] * 3


def test_the_log_is_the_finished_reports(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of())
    finished = [report for report in train(recipe_of(), run, data_dir) if report.finished]
    entries = run.entries()
    assert entries == [report.entry() for report in finished]
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
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
    told = entries[0]["measured_with"]
    assert (told["real"], told["held_out"], told["fake"], told["size"]) == (292, 73, 64, "1x14x14")
    assert told["extractors"] == ["rand-85074021dfc2"]
    assert entries[0]["scores/real_from_half"] == entries[0]["scores/real"] - 0.5
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
    course = training_of(recipe, run, data_dir)
    reports = course.epochs()
    while not next(reports).finished:
        pass
    assert all(module.training for module in course.model.modules())


def test_the_metric_is_measured_in_the_first_the_last_and_every_nth_epoch(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=8, train__evaluate_every=3)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    assert [entry["epoch"] for entry in run.entries() if "metrics/fd" in entry] == [1, 3, 6, 8]


def test_every_epoch_leaves_a_grid_of_sixteen_images(tmp_path, data_dir):
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
    assert best["metric"] == {"fd": min(measured)}
    assert min(measured) == reports[-1].best


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
    assert checkpoints.spec_of(state).shape == (1, 14, 14)
    assert checkpoints.spec_of(state).classes == ("3", "5")


def test_a_trial_of_a_search_keeps_no_checkpoint_of_its_end(tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_TIME_SHARE", 1e-9)  # no share of the time is worth one
    run = run_in(tmp_path / "run", recipe_of())
    train(recipe_of(), run, data_dir, is_trial=True)
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
        monkeypatch.setattr(loop, "REPORT_SECONDS", patience)
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
    assert train(recipe, run_in(tmp_path / "run", recipe), data_dir)[-1].images == 146


def test_a_batch_larger_than_the_data_is_all_of_them(tmp_path, data_dir):
    recipe = recipe_of(train__batch_size=5000, train__epochs=2)
    reports = train(recipe, run_in(tmp_path / "run", recipe), data_dir)
    assert reports[-1].images == 2 * 292


def test_networks_larger_than_memory_are_refused_with_what_to_do(tmp_path, data_dir):
    # 196 TB: more than any address space gives, so that nothing is touched before it is refused.
    changes = {"model.latent_dim": 1_000_000, "model.generator": [[1_000_000, 7, 1, 0], [1, 4, 2, 1]]}
    recipe = engine.open_recipe("dcgan14", {"data.source": "digits", **changes})
    with pytest.raises(ResourceError) as error:
        train(recipe, run_in(tmp_path / "run", recipe), data_dir)
    assert str(error.value) == "cpu: out of memory; try --set train.batch_size=64, or a smaller model"


def test_a_run_that_is_no_longer_finite_goes_back_to_its_last_good_checkpoint(tmp_path, data_dir, monkeypatch):
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
    with pytest.raises(TrainingError) as error:
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
    last = checkpoints.load(run.checkpoints / "last.pt")
    assert last["epoch"] == 2
    assert all(bool(value.isfinite().all()) for value in last["model"].values())
    assert load(run.path, device="cpu").sample([0]).shape == (1, 1, 14, 14)
    # What is wrong with the numbers is not wrong with the run: it goes on from there.
    assert [report.epoch for report in train(recipe, run, data_dir) if report.finished] == [3, 4, 5, 6]
    assert [entry["epoch"] for entry in run.entries()] == [1, 2, 3, 4, 5, 6]


def test_learning_rates_that_blow_up_the_first_step_end_the_run_with_nothing_kept(tmp_path, data_dir):
    changes = {"train.optimizer.lr": 1000.0, "loss": "least_squares", "train.batch_size": 365}
    recipe = engine.open_recipe("gan28", {**SMALL, "data.size": 8, **changes})
    run = run_in(tmp_path / "run", recipe)
    with pytest.raises(TrainingError, match=r" became (inf|nan) in epoch 1, batch 1; no checkpoint was reached; start"):
        train(recipe, run, data_dir)
    assert not (run.path / "lock").exists()


def test_weights_that_are_not_finite_end_the_run_too(tmp_path, data_dir):
    recipe = recipe_of()
    run = run_in(tmp_path / "run", recipe)
    course = training_of(recipe, run, data_dir)
    next(course.epochs())
    with torch.no_grad():  # as a last step may leave them whose losses were finite before it
        course.model.generator[0].weight.fill_(math.nan)
    with pytest.raises(
        TrainingError, match=r": the weights are no longer finite in epoch 1, batch 4; no checkpoint was"
    ):
        course._end_epoch()
    assert [entry["diagnoses"] for entry in run.entries()] == [["nonfinite"]]
    assert names(run.checkpoints) == set()


def test_a_run_goes_on_with_more_epochs_and_other_frequencies_but_no_other_settings(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=2)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    free = {"train.epochs": 4, "train.evaluate_every": 2, "train.checkpoint_every": 2, "train.keep_every": 4}
    wanted = resume.resumed(run, None, free)
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
            resume.resumed(run, None, {key: value})
        assert str(error.value) == (
            f"{run.path}: was started with {key}={before}, not {value}; start a new run for that"
        )
    assert engine.open_recipe(str(run.path)) == wanted


def test_a_whole_recipe_may_be_named_if_it_is_the_runs_own(tmp_path):
    recipe = recipe_of()
    run = run_in(tmp_path / "run", recipe)
    assert resume.resumed(run, recipe_of(train__epochs=9), {}).train.epochs == 9
    assert resume.resumed(run, recipe.model_copy(update={"name": "other"}), {}).name == "gan14"
    with pytest.raises(RunError, match=r"was started with model\.discriminator=\[256\], not \[\[32, 3, 2, 1\]"):
        resume.resumed(run, engine.open_recipe("dcgan14", SMALL), {})


def test_weights_that_do_not_fit_are_told_by_name(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    file = tmp_path / "some.pt"
    good = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoints.load_weights(model, good, file)
    for state, told in (
        ({"0.weight": good["0.weight"]}, "of another model: the checkpoint has no 0.bias"),
        ({**good, "1.bias": torch.zeros(1)}, "of another model: the model has no 1.bias"),
        ({**good, "0.bias": torch.zeros(4)}, "of another model: 0.bias is [4], but the recipe makes it [3]"),
        ({**good, "0.bias": torch.full((3,), math.nan)}, "0.bias is not finite; use another checkpoint of the run"),
    ):
        with pytest.raises(CheckpointError) as error:
            checkpoints.load_weights(model, state, file)
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


@pytest.mark.usefixtures("every_step")
def test_the_step_at_which_something_stopped_to_be_finite_is_named_though_many_are_read_at_once(
    tmp_path, data_dir, monkeypatch
):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 1e9)
    recipe = recipe_of(train__epochs=1)
    run = run_in(tmp_path / "run", recipe)
    course = training_of(recipe, run, data_dir)
    step, count = course.trainer.step, 0

    def poisoned(batch, epochs):
        nonlocal count
        count += 1
        return {name: value * (math.nan if count == 3 else 1.0) for name, value in step(batch, epochs).items()}

    monkeypatch.setattr(course.trainer, "step", poisoned)
    with pytest.raises(TrainingError, match=r"discriminator/adversarial became nan in epoch 1, batch 3; no checkpoint"):
        list(course.epochs())


def course_of(path, data_dir, monkeypatch, recipe, step=0.0, measurement=0.0):
    """Train by a clock of its own, on which a step and a measurement take this many seconds; the log and the run."""
    clock = 0.0

    def tick(seconds):
        nonlocal clock
        clock += seconds

    run = run_in(path, recipe)
    with monkeypatch.context() as patch:
        patch.setattr(loop.time, "perf_counter", lambda: clock)
        course = training_of(recipe, run, data_dir)
        trained, measured = course.trainer.step, course.monitor.measure
        patch.setattr(course.trainer, "step", lambda *given: (tick(step), trained(*given))[1])
        patch.setattr(course.monitor, "measure", lambda: (tick(measurement), measured())[1])
        list(course.epochs())
    return run, course


def test_a_slow_machine_measures_the_same_epochs_as_a_fast_one_and_keeps_the_same_best(tmp_path, data_dir, monkeypatch):
    recipe = recipe_of(train__epochs=40, train__evaluate_every=None, train__optimizer__lr=3e-3)
    fast, course = course_of(tmp_path / "fast", data_dir, monkeypatch, recipe, 0.001, 0.002)
    slow, other = course_of(tmp_path / "slow", data_dir, monkeypatch, recipe, 0.7, 300.0)
    clocks = {"seconds", "measured_seconds", "images_per_second"}
    logs = [[{key: entry[key] for key in entry.keys() - clocks} for entry in run.entries()] for run in (fast, slow)]
    assert logs[0] == logs[1]
    measured = [entry["epoch"] for entry in fast.entries() if "metrics/fd" in entry]
    assert set(measured) == course.measured == other.measured
    assert {1, 2, 4, 8, 14, 20, 30, 40} <= set(measured)
    assert len(measured) < 40
    bests = [checkpoints.load(run.checkpoints / "best.pt") for run in (fast, slow)]
    assert bests[0]["epoch"] == bests[1]["epoch"]
    assert bests[0]["metric"] == bests[1]["metric"]
    assert all(torch.equal(value, bests[1]["model"][name]) for name, value in bests[0]["model"].items())
    assert slow.entries()[-1]["measured_seconds"] == pytest.approx(300 * len(measured))


@pytest.mark.parametrize(
    "extra", [{}, {"train__batch_size": 16}, {"model__generator": [512], "model__latent_dim": 300}]
)
def test_trials_are_measured_after_the_same_epochs_whatever_their_networks_cost(extra, tmp_path, data_dir):
    recipe = recipe_of(train__epochs=25, train__evaluate_every=None, **extra)
    reports = train(recipe, run_in(tmp_path / "run", recipe), data_dir, is_trial=True)
    measured = tuple(report.epoch for report in reports if report.metrics)
    assert measured == schedule.trial_epochs(25) == (6, 13, 19, 25)


def test_a_run_that_is_prolonged_follows_the_schedule_of_its_new_length(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=5, train__evaluate_every=None)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    before = [entry["epoch"] for entry in run.entries() if "metrics/fd" in entry]
    longer = resume.resumed(run, None, {"train.epochs": 40})
    expected = training_of(longer, run_in(tmp_path / "other", longer), data_dir).measured
    train(longer, run, data_dir)
    after = [entry["epoch"] for entry in run.entries() if "metrics/fd" in entry]
    assert after == before + sorted(epoch for epoch in expected if epoch > 5)


def test_a_position_of_an_older_version_has_more_names_which_are_left_out(tmp_path, data_dir):
    recipe = recipe_of(train__epochs=1)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    state = checkpoints.load(run.checkpoints / "last.pt")
    state["position"] |= {"trained_seconds": 1.0, "last_cost": 2.0}
    checkpoints.save(run.checkpoints / "last.pt", state)
    longer = resume.resumed(run, None, {"train.epochs": 2})
    course = training_of(longer, run, data_dir)
    course.restore()
    assert course.progress.epoch == 2
    assert not hasattr(course.progress, "last_cost")


def test_a_loss_that_is_too_large_is_told_though_the_epoch_is_not_measured(tmp_path, data_dir):
    changes = {"train__optimizer__lr": 0.3, "train__evaluate_every": 100, "train__epochs": 4}
    recipe = recipe_of(**changes, data__classes=None, train__batch_size=128)
    reports = train(recipe, run_in(tmp_path / "run", recipe), data_dir)
    news = [diagnosis for report in reports for diagnosis in report.news]
    assert [(each.code, each.epoch <= 3) for each in news] == [("diverged", True)]
    assert "at 2 epochs in a row" in news[0].message


def test_weights_that_are_not_finite_end_a_run_after_any_epoch(tmp_path, data_dir, monkeypatch):
    recipe = recipe_of(train__epochs=4, train__evaluate_every=4, train__checkpoint_every=4)
    course = training_of(recipe, run_in(tmp_path / "run", recipe), data_dir)
    step = course.trainer.step

    def spoiling(*given):
        told = step(*given)
        if (course.progress.epoch, course.progress.batch) == (2, len(course.stream) - 1):
            with torch.no_grad():
                next(course.model.parameters()).fill_(math.nan)
        return told

    monkeypatch.setattr(course.trainer, "step", spoiling)
    with pytest.raises(TrainingError, match="the weights are no longer finite in epoch 2"):
        list(course.epochs())


@pytest.mark.parametrize("metric", ["fd", "fd_rand"])
def test_the_metric_of_a_search_decides_which_checkpoint_is_the_best(metric, tmp_path, data_dir):
    recipe = recipe_of(tune={"metric": metric, "space": {"model.latent_dim": [10, 100]}})
    run = run_in(tmp_path / "run", recipe)
    reports = [report for report in train(recipe, run, data_dir) if report.finished]
    best = min(report.metrics[metric] for report in reports)
    assert reports[-1].best == best
    assert checkpoints.load(run.checkpoints / "best.pt")["metric"] == {metric: best}


def test_one_image_is_no_images(tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("L", (8, 8), 99).save(tmp_path / "one" / "1.png")
    recipe = engine.open_recipe("gan14", {"data.source": str(tmp_path / "one"), "data.classes": None})
    told = setup.describe_split(recipe, prepare(recipe.data, tmp_path / "data"))
    assert told.startswith("learning from 1 image; none are held out, so that copying cannot be told; with fewer than")
