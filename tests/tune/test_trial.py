"""One trial of a search, alone: its results, how it resumes, and what it leaves if it is dropped."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from gantool import checkpoints
from gantool.recipe import load as recipes
from gantool.runs import Run
from gantool.training import engine, loop
from gantool.tune.trial import TrialConfig, TrialResult, run_trial

EPOCHS = 6


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Write a checkpoint at the end of every epoch."""
    monkeypatch.setattr(loop, "CHECKPOINT_TIME_SHARE", 1e9)


def config(folder, data_dir, **changes):
    """Return a small trial on real digits that is measured after every epoch."""
    small = {"data.source": "digits", "train.extractors": ["rand"], "train.evaluate_images": 64, "train.epochs": EPOCHS}
    recipe = engine.open_recipe("gan14", {**small, "train.evaluate_every": 1, "train.batch_size": 256, **changes})
    return TrialConfig("0", recipes.dump(recipe), str(folder), str(data_dir))


def never():
    return False


def after(count):
    """Return an interruption at the call of this number."""
    calls = itertools.count(1)
    return lambda: next(calls) >= count


def scores(results):
    return {result.epoch: result.score for result in results if result.epoch}


def test_a_trial_yields_each_measurement_and_then_that_it_is_finished(tmp_path, data_dir):
    results = list(run_trial(config(tmp_path / "t", data_dir), never))
    assert [result.epoch for result in results] == list(range(1, EPOCHS + 1))
    assert [result.state for result in results] == ["running"] * (EPOCHS - 1) + ["finished"]
    assert [result.best for result in results] == list(itertools.accumulate(scores(results).values(), min))
    assert {(result.resumed, result.copies, result.value) for result in results} == {(0, False, None)}
    logged = {entry["epoch"]: entry["metrics/fd"] for entry in Run(tmp_path / "t").entries()}
    assert logged == scores(results)


def test_new_latents_measure_a_value_at_the_end_that_chose_nothing_so_far(tmp_path, data_dir):
    given = replace(config(tmp_path / "t", data_dir), new_latents=True, keep_end=True)
    *others, last = run_trial(given, never)
    assert {result.value for result in others} == {None}
    assert last.value not in scores([*others, last]).values()
    assert last.value == pytest.approx(last.best, rel=0.5)
    assert checkpoints.load(Run(tmp_path / "t").checkpoints / "last.pt")["position"]["epoch"] == EPOCHS + 1
    *_, again = run_trial(given, never)  # as after a death between the last epoch and its report
    assert (again.value, again.state) == (last.value, "finished")


def test_a_trial_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(tmp_path, data_dir):
    whole = scores(run_trial(config(tmp_path / "whole", data_dir), never))
    assert checkpoints.load(Run(tmp_path / "whole").checkpoints / "last.pt")["position"]["epoch"] <= EPOCHS
    parts = []
    for looks in (3, 2):
        parts.append(list(run_trial(config(tmp_path / "parts", data_dir), after(looks))))
        assert parts[-1][-1] == TrialResult(state="interrupted")
    last = list(run_trial(config(tmp_path / "parts", data_dir), never))
    assert scores(last) == whole, "earlier measurements are reported again, in case they were lost"
    assert last[-1].state == "finished"
    assert last[0].resumed >= 2
    assert max(scores(parts[0])) < EPOCHS


def test_a_trial_that_is_dropped_saves_nothing_more(tmp_path, data_dir):
    results = run_trial(config(tmp_path / "t", data_dir), never)
    next(results), next(results)
    folder = Run(tmp_path / "t").checkpoints
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    results.close()
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_incomplete_directory_of_a_dead_worker_is_made_anew(tmp_path, data_dir):
    (tmp_path / "t" / "samples").mkdir(parents=True)
    (tmp_path / "t" / "environment.json").write_text("{}", encoding="utf-8")
    changes = {"train.epochs": 1}
    assert list(run_trial(config(tmp_path / "t", data_dir, **changes), never))[-1].state == "finished"


def test_errors_end_the_trial_with_their_reason(tmp_path, data_dir):
    (result,) = run_trial(config(tmp_path / "t", data_dir, **{"data.source": str(tmp_path / "nothing")}), never)
    assert result.state == "failed"
    assert result.why.startswith("data.source: ")
    (tmp_path / "file").write_text("", encoding="utf-8")
    (result,) = run_trial(config(tmp_path / "file" / "t", data_dir), never)
    assert result.state == "disk full", "the setting is not to blame: the search ends"
    changes = {"data.size": 8, "data.channels": 1, "data.classes": None, "train.batch_size": 1}  # BatchNorm wants two
    recipe = engine.open_recipe("cgan_egg", {"data.source": "digits", "train.extractors": ["rand"], **changes})
    (result,) = run_trial(replace(config(tmp_path / "t", data_dir), recipe=recipes.dump(recipe)), never)
    assert result.why.startswith("ValueError: Expected more than 1 value per channel")
