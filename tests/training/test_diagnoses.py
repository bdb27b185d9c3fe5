"""Diagnoses of real runs: two failures that were brought about, and silence on a run that learns."""

from __future__ import annotations

import pytest
from gantool import cli
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine
from PIL import Image
from sklearn.datasets import load_digits

QUICK = {
    "data.source": "digits",
    "train.batch_size": 32,
    "train.evaluate_images": 200,
    "train.evaluate_every": 100,
    "train.checkpoint_every": 10_000,
    "train.extractors": ["rand"],
}
FAST_D = {"train.discriminator.lr": 0.02, "train.generator.lr": 2e-5, "loss": "minimax", "model.dropout": 0.0}


def run_of(path, changes):
    recipe = engine.open_recipe("gan14", {**QUICK, **changes})
    return recipe, Run.create(dump(recipe), name=recipe.name, out=path)


def train(path, data_dir, changes):
    """Train; return everything that was diagnosed, in order, and the run."""
    recipe, run = run_of(path, changes)
    reports = [report for report in engine.train(recipe, run, data_dir=data_dir, device="cpu") if report.finished]
    assert [report.diagnoses for report in reports] == [tuple(entry["diagnoses"]) for entry in run.entries()]
    return [diagnosis for report in reports for diagnosis in report.news], run


def test_a_run_that_fails_is_diagnosed_and_a_resumed_one_as_one_that_never_stopped(tmp_path, data_dir):
    changes = {**FAST_D, "train.epochs": 9}
    straight, run = train(tmp_path / "straight", data_dir, changes)
    assert {"d-overpowers", "g-grad-vanished"} <= {diagnosis.code for diagnosis in straight if diagnosis.began}
    assert "g-grad-vanished" in run.entries()[-1]["diagnoses"]
    recipe, run = run_of(tmp_path / "stopped", changes)
    news = []
    for _ in range(3):
        reports = engine.train(recipe, run, data_dir=data_dir, device="cpu")
        ended = 0
        for report in reports:
            news += report.news
            ended += report.finished
            if ended == 3:
                break
        reports.close()
    assert news == straight


def test_a_run_that_learns_has_no_diagnosis_and_copies_no_image(tmp_path, data_dir):
    changes = {"train.epochs": 24, "train.evaluate_every": 4, "train.optimizer.lr": 5e-4}
    news, run = train(tmp_path / "run", data_dir, changes)
    assert news == []
    measured = [entry for entry in run.entries() if "metrics/fd" in entry]
    assert measured[-1]["metrics/copying"] > -3
    assert measured[-1]["metrics/fd"] < measured[0]["metrics/fd"] / 10


@pytest.mark.slow
def test_on_twenty_images_the_discriminator_overfits_and_the_generator_copies(tmp_path, data_dir):
    folder = tmp_path / "twenty"
    folder.mkdir()
    for index, image in enumerate(load_digits().images[:20]):
        Image.fromarray((image * 15.9).astype("uint8")).resize((28, 28)).save(folder / f"{index}.png")
    changes = {"data.source": str(folder), "train.optimizer.lr": 1e-3, "train.epochs": 600, "train.evaluate_every": 50}
    news, run = train(tmp_path / "run", data_dir, changes)
    assert {"d-overfit", "memorised"} <= {diagnosis.code for diagnosis in news if diagnosis.began}
    last = [entry for entry in run.entries() if "metrics/copying" in entry][-1]
    assert last["metrics/copying"] < -3
    assert last["measured_with"]["held_out"] == 12


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"train.optimizer.lr": 0.3}, "--set train.generator.lr=0.0002 --set train.discriminator.lr=0.0002"),
        ({"loss": "wasserstein", "train.optimizer.lr": 1000.0, "data.classes": ["1"]}, "lower both rates"),
    ],
)
def test_a_run_that_ends_diverged_is_warned_of_and_exits_with_an_error(changes, advice, tmp_path, data_dir, capsys):
    given = {**QUICK, **changes, "train.epochs": 4}
    settings = [f"--set={key}={value}".replace("'", '"') for key, value in given.items()]
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "gan14", *settings, "--data-dir", str(data_dir), "--out", str(tmp_path / "run")])
    assert end.value.code == 4
    printed = capsys.readouterr()
    (warning,) = [line for line in printed.err.splitlines() if line.startswith("warning: epoch ")]
    assert " diverged: " in warning
    assert " at 2 epochs in a row; " in warning
    assert advice in warning
    assert warning.endswith("; gantool explain diverged")
    assert printed.err.splitlines()[-1] == (
        f"error: {tmp_path / 'run'}: the run ended diverged; start a new run with a lower train.optimizer.lr than "
        f"{changes['train.optimizer.lr']:g} (gantool explain diverged)"
    )
    assert "gantool sample" not in printed.out
    assert f"{tmp_path / 'run'}: best fd " in printed.out
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} >= {"best.pt", "last.pt"}
    assert "at the end too" in printed.out
