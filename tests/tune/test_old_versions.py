"""A run and a study of version 0.1.0: they sample, resume and continue."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from gantool.tune.study import Study
from PIL import Image

MADE = Path(__file__).parents[1] / "files" / "version-0.1.0.tar.gz"


@pytest.fixture
def old(inside):
    """A run of 3 epochs and a study of 3 trials, made by version 0.1.0, in the working directory."""
    with tarfile.open(MADE) as file:
        file.extractall(inside, filter="data")
    return inside


def test_a_run_of_version_0_1_0_samples_resumes_and_is_measured(old, command):
    assert command("sample", "run", "-o", "grid.png", "--seeds", "0-3")[0] == 0
    before = Image.open(old / "grid.png").tobytes()
    code, _, err = command("train", "run", "--resume", "--set", "train.epochs=5")
    assert code == 0, err
    assert len((old / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()) >= 5
    assert command("sample", "run", "-o", "later.png", "--seeds", "0-3", "--checkpoint", "last")[0] == 0
    assert Image.open(old / "later.png").tobytes() != before
    assert command("score", "run", "--metrics", "fd")[0] == 0
    assert command("animate", "run", "-o", "run.gif")[0] == 0


def test_a_study_of_version_0_1_0_continues_and_stands_for_its_winner(old, command):
    before = Study(old / "study")
    assert [trial.state.name for trial in before.trials()] == ["COMPLETE"] * 3
    values = [(before.space.changes(trial.params), trial.value) for trial in before.trials()]
    assert command("study", "status", "study")[0] == 0
    code, _, err = command("tune", "study", "--trials", "4", "--engine", "inline")
    assert code == 0, err
    after = Study(old / "study")
    assert [(after.space.changes(trial.params), trial.value) for trial in after.trials()][:3] == values
    assert len(after.trials()) == 4
    assert command("sample", "study", "-o", "winner.png")[0] == 0
    assert command("study", "report", "study")[0] == 0
