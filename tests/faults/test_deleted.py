"""A run or a study that is deleted while it works: it stops with one line, and does not make its folder anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gantool.errors import DiskError
from gantool.recipe import load as recipes
from gantool.training import engine
from gantool.training.loop import Training
from gantool.training.resume import begin
from gantool.tune import trial

import tiny


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("GANTOOL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tiny.photos(tmp_path / "photos")


def deleting(path, real):
    """Return a function that deletes a folder, once, after it has called the real one."""
    left = [path]

    def call(*arguments, **rest):
        result = real(*arguments, **rest)
        if left:
            shutil.rmtree(left.pop())
        return result

    return call


@pytest.mark.parametrize("method", ["_end_epoch", "_diagnose"])  # between two epochs, and within the end of one
def test_a_run_that_is_deleted_while_it_trains_stops(method, source, monkeypatch):
    monkeypatch.setattr(Training, method, deleting(Path("run"), getattr(Training, method)))

    code, text = tiny.run(*tiny.train(source, "--out", "run"))

    (line,) = tiny.errors(text)
    assert (code, line.endswith(": no longer exists; it was deleted or moved meanwhile, so start anew")) == (7, True)
    assert not Path("run").exists()


def test_a_run_that_is_deleted_and_then_stopped_says_so_too(source):
    recipe, run = begin("gan14", tiny.changes(source), out=Path("run"), resume=False)
    training = engine.train(recipe, run, data_dir=Path("data"), device="cpu")
    next(training)
    shutil.rmtree("run")
    with pytest.raises(DiskError, match="run/checkpoints: no longer exists"):
        training.close()
    assert not Path("run").exists()


def test_a_study_that_is_deleted_while_it_searches_stops(source, monkeypatch):
    monkeypatch.setattr(trial, "_setup", deleting(Path("study"), trial._setup))

    code, text = tiny.run(*tiny.tune(source, "--out", "study"))

    (line,) = tiny.errors(text)
    assert (code, "no longer exists" in line) == (7, True), line
    assert not Path("study").exists()


def test_a_trial_of_a_deleted_study_makes_no_folder(source, tmp_path):
    recipe = recipes.dump(engine.open_recipe("gan14", tiny.changes(source)))
    config = trial.TrialConfig("0", recipe, str(tmp_path / "gone/trials/0000"), "data")

    (result,) = trial.run_trial(config, lambda: False)

    assert (result.state, "trials: no longer exists; it was deleted or moved" in result.why) == ("disk full", True)
    assert not (tmp_path / "gone").exists()
