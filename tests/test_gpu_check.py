"""The check of a GPU, which checks itself on the CPU where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gantool.training.trainer import Trainer

import gpu
import gpu_checks

QUICK = ["--device", "cpu", "--steps", "3", "--checks"]
SCRIPT = Path(gpu.__file__)


def table(text):
    """The rows of the last table, by their first cell."""
    lines = text.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert text.rstrip().splitlines()[-1].startswith("|")
    return {row[0].strip("`"): dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


@pytest.fixture(scope="module", autouse=True)
def brief():
    """Speed is measured for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_checks, "SECONDS", 0.05)
        yield


def checked(capsys, *arguments):
    """Run the check inside of this process."""
    status = gpu_checks.run(gpu.options([*QUICK, *arguments]))
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_script_alone_trains_kills_resumes_compares_and_prints_its_table_last(tmp_path):
    command = [sys.executable, str(SCRIPT), *QUICK, "steps", "float64", "resume", "sampling", "--out", "table.md"]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "--recipes", "lstm_sentiment"], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert table(done.stdout) == {
        "lstm_sentiment": {
            **dict.fromkeys(gpu_checks.HEADER, ""),
            **{"recipe": "`lstm_sentiment`", "steps": "3", "float64": "0", "kill, resume": "equal", "sampling": "0"},
        }
    }
    assert done.stdout.startswith("CPU ")
    assert "all passed" in done.stdout.splitlines()[0]
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == done.stdout


def test_images_are_checked_against_another_way_of_computing_them(capsys):
    status, text, _ = checked(capsys, "float64", "sampling", "speed", "--recipes", "dcgan14")
    row = table(text)["dcgan14"]
    assert status == 0
    assert 0 < float(row["float64"]) < gpu_checks.TOLERANCE
    assert 0 <= float(row["sampling"]) < 1
    assert float(row["images/s"].replace(",", "")) > 0
    assert float(row["ratio"]) > 0


@pytest.mark.parametrize(
    ("name", "value", "check", "column", "message"),
    [
        ("TOLERANCE", -1.0, "float64", "float64", "float64: differs by 0.0e+00 after a step in float64"),
        ("LEVEL", -1.0, "sampling", "sampling", "sampling: differs by -0.00 levels of 256"),
    ],
)
def test_a_difference_fails_the_check_and_is_told_above_the_table(
    name, value, check, column, message, capsys, monkeypatch
):
    monkeypatch.setattr(gpu_checks, name, value)
    status, text, _ = checked(capsys, check, "--recipes", "lstm_sentiment")
    assert status == 1
    assert table(text)["lstm_sentiment"][column] == "**FAILED**"
    assert f"* FAILED: lstm_sentiment, {message}" in text
    assert "1 FAILED" in text.splitlines()[0]


def test_an_error_or_a_lack_of_time_fails_one_check_and_the_others_continue(capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("no kernel\nof this kind")

    monkeypatch.setattr(gpu_checks, "speed", fail)
    status, text, told = checked(capsys, "steps", "speed", "--recipes", "lstm_sentiment")
    row = table(text)["lstm_sentiment"]
    assert status == 1
    assert (row["steps"], row["images/s"], row["CPU's"]) == ("3", "**FAILED**", "")
    assert "FAILED: lstm_sentiment, speed: no kernel" in text
    assert "RuntimeError: no kernel" in told

    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *given: {key: value * torch.nan for key, value in step(*given).items()})
    status, text, _ = checked(capsys, "steps", "--recipes", "lstm_sentiment")
    assert status == 1
    assert re.search("FAILED: lstm_sentiment, steps: .* became nan", text)
    status, text, _ = checked(capsys, "steps", "--recipes", "lstm_sentiment", "--minutes", "-1")
    assert status == 1
    assert "FAILED: lstm_sentiment, steps: no time was left" in text


def test_random_numbers_are_drawn_on_the_cpu_for_every_device():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        wanted = [torch.rand(4), torch.randn(4, dtype=torch.float64), torch.randint(9, (4,))]
        torch.manual_seed(3)
        with gpu_checks.DrawnOnCPU():
            found = [torch.rand(4), torch.randn(4, dtype=torch.float64, device="cpu"), torch.randint(9, (4,))]
            elsewhere = torch.rand(2, device="meta")
        after = torch.rand(1)
        torch.manual_seed(3)
        torch.rand(4), torch.randn(4, dtype=torch.float64), torch.randint(9, (4,)), torch.rand(2)
        assert all(map(torch.equal, found, wanted))
        assert elsewhere.device.type == "meta"
        assert torch.equal(after, torch.rand(1))


def test_a_difference_is_a_share_of_the_largest_weight_and_never_hides_what_is_no_number():
    wanted = {"weight": torch.tensor([4.0, 1.0]), "bias": torch.tensor([0.0]), "variance": torch.tensor([100.0])}
    same = {name: part.clone() for name, part in wanted.items()}
    assert gpu_checks.difference(same, wanted) == 0
    assert gpu_checks.difference({**same, "bias": torch.tensor([1.0])}, wanted) == pytest.approx(0.01)
    assert not gpu_checks.difference({**same, "bias": torch.tensor([torch.nan])}, wanted) <= gpu_checks.TOLERANCE
