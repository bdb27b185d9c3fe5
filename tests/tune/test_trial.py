"""One trial of a search, alone: what it tells, where it goes on, and what it leaves when it is dropped."""

from __future__ import annotations

import itertools

import pytest
from gantool import checkpoints
from gantool.recipe import load as recipes
from gantool.runs import Run
from gantool.training import engine, loop
from gantool.tune.trial import run_trial

EPOCHS = 6


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """A checkpoint to go on from at the end of every epoch, whatever it costs."""
    monkeypatch.setattr(loop, "CHECKPOINT_TIME_SHARE", 1e9)


def config(folder, data_dir, **changes):
    """The configuration of a small trial on real digits that is measured after every epoch."""
    small = {"data.source": "digits", "train.extractors": ["rand"], "train.evaluate_images": 64, "train.epochs": EPOCHS}
    recipe = engine.open_recipe("gan14", {**small, "train.evaluate_every": 1, "train.batch_size": 256, **changes})
    where = {"folder": str(folder), "data_dir": str(data_dir), "store": "", "device": "cpu"}
    return {"label": "0", "recipe": recipes.dump(recipe), **where, "keep_end": False, "judged": False}


def never():
    return False


def after(count):
    """An interruption that comes after some looks."""
    looks = itertools.count(1)
    return lambda: next(looks) >= count


def scores(results):
    return {result["epoch"]: result["score"] for result in results if "score" in result}


def test_a_trial_tells_each_measurement_and_at_last_that_it_is_finished(tmp_path, data_dir):
    results = list(run_trial(config(tmp_path / "t", data_dir), never))
    assert [result["epoch"] for result in results] == list(range(1, EPOCHS + 1))
    assert [result["finished"] for result in results] == [False] * (EPOCHS - 1) + [True]
    assert [result["best"] for result in results] == list(itertools.accumulate(scores(results).values(), min))
    assert {(result["resumed"], result["copies"]) for result in results} == {(0, False)}
    assert not any("value" in result for result in results), "nobody asked to have it judged"
    logged = {entry["epoch"]: entry["metrics/fd"] for entry in Run(tmp_path / "t").entries()}
    assert logged == scores(results)


def test_a_judged_trial_has_in_the_end_a_value_of_latents_that_it_was_not_measured_with(tmp_path, data_dir):
    given = {**config(tmp_path / "t", data_dir), "judged": True}
    results = list(run_trial(given, never))
    assert ["value" in result for result in results] == [False] * (EPOCHS - 1) + [True]
    assert results[-1]["value"] not in scores(results).values()
    assert results[-1]["value"] == pytest.approx(results[-1]["best"], rel=0.5)
    again = list(run_trial(given, never))
    assert (again[-1]["value"], again[-1]["finished"]) == (results[-1]["value"], True)


@pytest.mark.parametrize("keep_end", [False, True])
def test_only_a_trial_that_may_be_trained_on_keeps_its_last_epoch(keep_end, tmp_path, data_dir):
    list(run_trial({**config(tmp_path / "t", data_dir), "keep_end": keep_end}, never))
    kept = checkpoints.load(Run(tmp_path / "t").checkpoints / "last.pt")["position"]["epoch"] - 1
    assert (kept == EPOCHS) == keep_end


def test_an_interrupted_trial_ends_as_if_it_had_never_been_and_tells_again_what_nobody_may_have_heard(
    tmp_path, data_dir
):
    whole = scores(run_trial(config(tmp_path / "whole", data_dir), never))
    parts = []
    for looks in (3, 2):
        parts.append(list(run_trial(config(tmp_path / "parts", data_dir), after(looks))))
        assert parts[-1][-1] == {"interrupted": True}
    last = list(run_trial(config(tmp_path / "parts", data_dir), never))
    assert scores(last) == whole, "all of them, bit for bit"
    assert last[-1]["finished"]
    assert last[0]["resumed"] >= 2
    assert max(scores(parts[0])) < EPOCHS


def test_a_trial_that_is_dropped_saves_nothing_more(tmp_path, data_dir):
    results = run_trial(config(tmp_path / "t", data_dir), never)
    next(results), next(results)
    checkpoints = Run(tmp_path / "t").checkpoints
    before = {path.name: path.stat().st_mtime_ns for path in checkpoints.iterdir()}
    results.close()
    assert {path.name: path.stat().st_mtime_ns for path in checkpoints.iterdir()} == before


def test_a_directory_that_a_dying_worker_left_half_made_is_made_anew(tmp_path, data_dir):
    (tmp_path / "t" / "samples").mkdir(parents=True)
    (tmp_path / "t" / "environment.json").write_text("{}", encoding="utf-8")
    assert list(run_trial(config(tmp_path / "t", data_dir), never))[-1]["finished"]


def test_what_fails_is_told_with_its_reason_and_not_raised(tmp_path, data_dir):
    (result,) = run_trial(config(tmp_path / "t", data_dir, **{"data.source": str(tmp_path / "nothing")}), never)
    assert result["why"].startswith("data.source: ")
    (tmp_path / "file").write_text("", encoding="utf-8")
    (result,) = run_trial(config(tmp_path / "file" / "t", data_dir), never)
    assert list(result) == ["halt"], "a disk is nobody's fault: the search ends"


def test_an_exception_that_is_not_gantools_own_ends_the_trial_with_its_kind_and_first_line(tmp_path, data_dir):
    changes = {"data.size": 8, "data.channels": 1, "data.classes": None, "train.batch_size": 1}  # BatchNorm wants two
    recipe = engine.open_recipe("cgan_egg", {"data.source": "digits", "train.extractors": ["rand"], **changes})
    given = {**config(tmp_path / "t", data_dir), "recipe": recipes.dump(recipe)}
    (result,) = run_trial(given, never)
    assert result["why"].startswith("ValueError: Expected more than 1 value per channel")
