"""Each diagnosis on a real run in which its failure was brought about, and silence on runs that are well."""

from __future__ import annotations

import pytest
from gantool import cli
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine
from PIL import Image

QUICK = {
    "data.source": "digits",
    "train.batch_size": 32,
    "train.evaluate_images": 500,
    "train.evaluate_every": 1,
    "train.extractors": ["rand"],
    "train.checkpoint_every": 10_000,
}
FAST_D = {"train.discriminator.lr": 5e-3, "train.generator.lr": 2e-5}
ILL = {
    "diverged": ("gan14", {"train.optimizer.lr": 0.3, "train.epochs": 4}),
    "d-overpowers": ("gan14", {**FAST_D, "train.epochs": 9}),
    "g-grad-vanished": (
        "gan14",
        {**FAST_D, "train.discriminator.lr": 0.02, "loss": "minimax", "model.dropout": 0.0, "train.epochs": 10},
    ),
    "d-too-weak": (
        "gan14",
        {
            "train.discriminator.lr": 1e-6,
            "train.generator.lr": 2e-3,
            "train.evaluate_every": 2,
            "train.epochs": 24,
        },
    ),
    "mode-collapse": (
        "dcgan14",
        {"model.latent_dim": 1, "train.batch_size": 64, "train.epochs": 10},
    ),
    "no-progress": ("gan14", {"train.generator.lr": 1e-9, "train.epochs": 22}),
}
HEALTHY = {
    "gan14": {"train.evaluate_every": 2, "train.epochs": 50},
    "dcgan14": {"train.batch_size": 64, "train.epochs": 14},
}


def train(path, data_dir, name, changes):
    """Train; gives everything that was diagnosed, in order, and the run."""
    recipe = engine.open_recipe(name, {**QUICK, **changes})
    run = Run.create(dump(recipe), name=recipe.name, out=path)
    reports = [report for report in engine.train(recipe, run, data_dir=data_dir, device="cpu") if report.finished]
    news = [diagnosis for report in reports for diagnosis in report.news]
    assert [report.diagnoses for report in reports] == [tuple(entry["diagnoses"]) for entry in run.entries()]
    return news, run


@pytest.mark.parametrize("code", ILL)
def test_a_run_that_fails_is_told_of_its_failure(code, tmp_path, data_dir):
    news, run = train(tmp_path / "run", data_dir, *ILL[code])
    (found,) = [diagnosis for diagnosis in news if diagnosis.code == code and diagnosis.began]
    assert found.message.endswith(f"gantool explain {code}")
    assert code in run.entries()[-1]["diagnoses"]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_run_that_learns_is_told_nothing_and_copies_no_image(name, tmp_path, data_dir):
    news, run = train(tmp_path / "run", data_dir, name, HEALTHY[name])
    assert news == []
    assert [entry["metrics/copying"] for entry in run.entries() if "metrics/copying" in entry][-1] > -3
    measured = [entry["metrics/fd"] for entry in run.entries() if "metrics/fd" in entry]
    assert measured[-1] < measured[0] / 20


def test_a_wasserstein_run_diverges_too(tmp_path, data_dir):
    changes = {"loss": "wasserstein", "train.optimizer.lr": 1000.0, "train.epochs": 4}
    news, _ = train(tmp_path / "run", data_dir, "gan14", changes)
    assert "diverged" in {diagnosis.code for diagnosis in news}


def test_on_twenty_images_the_discriminator_overfits_and_the_generator_copies(tmp_path, data_dir):
    from sklearn.datasets import load_digits

    folder = tmp_path / "twenty"
    folder.mkdir()
    for index, image in enumerate(load_digits().images[:20]):
        Image.fromarray((image * 15.9).astype("uint8")).resize((28, 28)).save(folder / f"{index}.png")
    changes = {"data.source": str(folder), "train.optimizer.lr": 1e-3, "train.epochs": 600, "train.evaluate_every": 50}
    news, run = train(tmp_path / "run", data_dir, "gan14", changes)
    assert {"d-overfit", "memorised"} <= {diagnosis.code for diagnosis in news if diagnosis.began}
    last = [entry for entry in run.entries() if "metrics/copying" in entry][-1]
    assert last["metrics/copying"] < -3
    assert last["measured_with"]["held_out"] == 12


def test_diagnoses_are_told_as_they_come_and_listed_at_the_end(tmp_path, data_dir, capsys):
    name, changes = ILL["diverged"]
    settings = [f"--set={key}={value}".replace("'", "") for key, value in {**QUICK, **changes}.items()]
    with pytest.raises(SystemExit) as end:
        cli.main(["train", name, *settings, "--data-dir", str(data_dir), "--out", str(tmp_path / "run")])
    assert end.value.code == 4
    told = capsys.readouterr()
    (warning,) = [line for line in told.err.splitlines() if line.startswith("warning: epoch ")]
    assert " at 2 epochs in a row; " in warning
    assert told.err.splitlines()[-1] == (
        f"error: {tmp_path / 'run'}: the run ended diverged; start a new run with a lower train.optimizer.lr than 0.3 "
        "(gantool explain diverged)"
    )
    assert "gantool sample" not in told.out
    assert f"{tmp_path / 'run'}: best fd " in told.out
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} >= {"best.pt", "last.pt"}
    assert len(Run(tmp_path / "run").entries()) == 4
    assert " diverged: " in warning
    assert "lower both rates (--set train.generator.lr=0.0002 --set train.discriminator.lr=0.0002)" in warning
    assert told.out.splitlines()[0] == "diagnoses"
    assert "at the end too" in told.out
    assert warning.endswith("; gantool explain diverged")
    assert "gantool explain CODE" in told.out


def test_a_resumed_run_is_diagnosed_as_one_that_never_stopped(tmp_path, data_dir):
    name, changes = ILL["d-overpowers"]
    changes = {**changes, "train.checkpoint_every": 1}
    straight, _ = train(tmp_path / "straight", data_dir, name, changes)
    recipe = engine.open_recipe(name, {**QUICK, **changes})
    run = Run.create(dump(recipe), name=recipe.name, out=tmp_path / "stopped")
    news = []
    for _ in range(12):  # four windows of three epochs each
        reports = engine.train(recipe, run, data_dir=data_dir, device="cpu")
        ended = 0
        for report in reports:
            news += report.news
            ended += report.finished
            if ended == 3:
                break
        reports.close()
    assert news == straight
    assert news
