"""`gantool train`: what it prints and writes, what it refuses, and how it ends on a signal."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gantool import checkpoints
from gantool.cli.training import still_falls
from gantool.errors import RunError
from gantool.runs import Run
from gantool.training.resume import begin
from PIL import Image

from commands import code, sets
from processes import posix, waited
from trained import weights

LOG = [
    "epoch", "images", "seconds", "measured_seconds", "images_per_second", "generator/adversarial",
    "discriminator/adversarial", "scores/real", "scores/fake", "scores/real_from_half", "scores/fake_from_half",
    "scores/accuracy", "gradients/generator", "gradients/discriminator", "measured_with", "diagnoses",
]  # fmt: skip


def test_a_trained_run_has_its_files(trained):
    assert sorted(path.name for path in trained.iterdir() if path.name[0] != ".") == [
        "checkpoints", "environment.json", "log.jsonl", "recipe.yaml", "samples",
    ]  # fmt: skip
    assert {path.name for path in (trained / "samples").iterdir()} == {"epoch-0001.png", "epoch-0002.png"}
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {
        "best.pt", "last.pt", "previous.pt", "epoch-0002.pt",
    }  # fmt: skip


def test_the_log_has_the_promised_keys(trained):
    entries = Run(trained).entries()

    assert [entry["epoch"] for entry in entries] == [1, 2]
    for entry in entries:
        assert sorted(key for key in entry if not key.startswith("metrics/")) == sorted(LOG)
        assert {"metrics/fd", "metrics/fd_rand", "metrics/coverage", "metrics/copying"} <= entry.keys()
        assert list(entry)[:5] == LOG[:5]
        assert all(math.isfinite(value) for value in entry.values() if isinstance(value, float))
        assert entry["diagnoses"] == []
        assert 0 < entry["scores/real"] < 1
    assert [entry["images"] for entry in entries] == [1408, 2816]


def test_training_says_what_it_does_and_what_comes_next(command, inside):
    result, out, err = command("train", "gan14", *sets(name="x"))

    assert result == 0
    run = Path("runs/x-001")
    assert re.fullmatch(
        rf"{run}: best fd [\d.]+ ± [\d.]+ in epoch \d, \d+s\n(fd still fell in the last third of the epochs, .+:\n"
        rf"  gantool train {run} --resume --set train.epochs=4\n)?  gantool sample {run}\n  gantool animate {run}\n",
        out,
    )
    lines = err.splitlines()
    assert any(line.startswith("learning from ") for line in lines)
    assert f"run {run}" in lines
    pattern = (
        r"epoch \d/2  fd [\d.]+ ± [\d.]+  D\(x\) 0\.\d\d \([+-]0\.\d\d\)  "
        r"D\(G\(z\)\) 0\.\d\d \([+-]0\.\d\d\)  "
        r".*loss D -?\d\.\d{3}  loss G -?\d\.\d{3}  [\d,]+ images/s"
    )
    assert [bool(re.fullmatch(pattern, line)) for line in lines[-2:]] == [True, True]


def test_a_distance_older_than_a_tenth_of_the_run_is_shown_with_its_epoch(command, inside):
    _, _, err = command("train", "gan14", *sets(train__epochs=12, train__evaluate_every=12))

    told = [re.search(r"fd [\d.]+ ± [\d.]+( \(of epoch 1\))?  D", line) for line in err.splitlines()[-12:]]
    assert [match[1] for match in told] == [None] * 2 + [" (of epoch 1)"] * 9 + [None]


def test_the_same_command_gives_the_same_weights(trained, inside):
    assert code("train", "gan14", *sets(train__keep_every=2), "--out", "again") == 0

    first, second = (weights(Run(path)) for path in (trained, Path("again")))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_goes_on_for_more_epochs(command, trained, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    result, _, err = command("train", "run", "--resume", "--set", "train.epochs=2")
    assert result == 0
    assert "resuming after epoch 1" in err

    first, second = (weights(Run(path)) for path in (trained, Path("run")))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert [entry["epoch"] for entry in Run(Path("run")).entries()] == [1, 2]
    result, out, _ = command("train", "run", "--resume")
    longer = "gantool train run --resume --set train.epochs=4"
    assert (result, out) == (0, f"run already has its 2 epochs; to train it longer:\n  {longer}\n")


def test_commands_on_a_run_use_the_data_directory_that_it_was_trained_with(
    command, inside, trained, data_dir, monkeypatch
):
    monkeypatch.delenv("GANTOOL_DATA")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: pytest.fail("the user's cache is not used"))

    assert Run(trained).data_dir == data_dir
    assert code("train", trained, "--resume") == 0
    assert code("nearest", trained, "-o", "nearest.png") == 0
    assert code("score", trained, "--metrics", "fd", "--images", 16) == 0


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(command, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    for file in Path("run/checkpoints").iterdir():
        file.unlink()

    assert code("train", "run", "--resume") == 0
    assert [entry["epoch"] for entry in Run(Path("run")).entries()] == [1]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(command, inside):
    assert code("train", "gan14", *sets(), "--out", "run") == 0
    last = Path("run/checkpoints/last.pt")
    last.write_bytes(last.read_bytes()[:-1])

    result, _, err = command("train", "run", "--resume")

    assert result == 0
    assert (
        f"{last}: is damaged (its SHA-256 does not match); use another checkpoint of the run; resuming from previous.pt"
        in err
    )
    assert "resuming after epoch 1" in err
    assert [entry["epoch"] for entry in Run(Path("run")).entries()] == [1, 2]


def test_weights_alone_are_not_enough_to_go_on(command, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    last = Path("run/checkpoints/last.pt")
    Path("run/checkpoints/best.pt").replace(last)

    result, _, err = command("train", "run", "--resume", "--set", "train.epochs=2")

    assert result == 5
    assert err.splitlines()[-1] == (
        f"error: {last}: holds weights only, and no training resumes from them; use last.pt"
    )


def test_data_with_other_classes_are_no_data_to_go_on_with(command, inside):
    for name in ("cat", "dog"):
        (inside / "pets" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 99).save(inside / "pets" / name / "1.png")
    assert code("train", "gan14", *sets(data__source="pets", train__epochs=1), "--out", "run") == 0
    (inside / "pets" / "eel").mkdir()
    Image.new("L", (8, 8)).save(inside / "pets" / "eel" / "1.png")

    result, _, err = command("train", "run", "--resume", "--set", "train.epochs=2")

    assert result == 3
    assert err.splitlines()[-1] == (
        f"error: {Path('run/checkpoints/last.pt')}: was trained on classes cat, dog, but the data have cat, dog, eel; "
        "bring them back, or start a new run"
    )


def test_what_would_make_another_run_is_refused_when_going_on(command, trained):
    result, _, err = command("train", trained, "--resume", "--set", "train.batch_size=7")

    assert result == 2
    assert err == (f"error: {trained}: was started with train.batch_size=128, not 7; start a new run for that\n")


def test_two_processes_cannot_train_one_run(command, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0

    with Run(Path("run")).lock():
        result, _, err = command("train", "run", "--resume", "--set", "train.epochs=2")

    assert result == 2
    assert f"error: run: in use by process {os.getpid()} on " in err


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_checkpoints(command, inside):
    deep = sets(train__epochs=1, model__discriminator=[16] * 12, model__dropout=0.0)
    assert code("train", "gan14", *deep, "--out", "run") == 0
    last = Path("run/checkpoints/last.pt")
    state = checkpoints.load(last)
    for adam in state["trainer"]["optimizers"].values():
        for weight in adam.values():
            weight["exp_avg"] += 1e25  # the next step is far too long
    checkpoints.save(last, state)
    before = {path.name: path.read_bytes() for path in last.parent.iterdir()}

    result, _, err = command("train", "run", "--resume", "--set", "train.epochs=9")

    assert result == 4
    message = err.splitlines()[-1]
    assert re.fullmatch(
        r"error: run: \w+/\w+ became (nan|-?inf) in epoch \d, batch \d+; rolled back to the checkpoint of epoch \d; "
        r"start a new run with a lower train\.optimizer\.lr than 0\.0002 \(gantool explain nonfinite\)",
        message,
    )
    after = {path.name: path.read_bytes() for path in last.parent.iterdir()}
    assert all(after[name] == content for name, content in before.items() if name == "best.pt")
    assert all(checkpoints.load(path) for path in last.parent.iterdir())
    assert command("sample", "run")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "result", "message"),
    [
        (["nothing"], 2, "unknown recipe 'nothing'; known: "),
        (["a/gan14.yaml"], 2, "a/gan14.yaml: no such recipe file; the shipped recipe is called 'gan14'"),
        (["gan14", "--set", "train.epochs"], 2, "--set train.epochs: expected key=value, such as train.epochs=5"),
        (["gan14", "--epochs", "5"], 2, "unknown option '--epochs'; did you mean '--set train.epochs=VALUE'? see: "),
        (["gan14", "--set"], 2, "--set: needs a value; see: gantool train --help"),
        (["gan14", "--set", "epochs=5"], 2, "--set epochs: unknown key 'epochs'; did you mean 'train.epochs'?"),
        (["gan14", "--set", "train.epohcs=5"], 2, "--set train.epohcs: unknown key 'epohcs'; did you mean 'epochs'?"),
        (["gan14", "--set", "loss=hing"], 2, "--set loss: unknown loss 'hing'; did you mean 'hinge'?"),
        (["gan14", "--set", "data.source=nothing"], 3, "data.source: unknown source 'nothing'; known: "),
        (
            ["gan14", "--set", "data.source=https://example.org/a.zip"],
            3,
            "data.source: https://example.org/a.zip is an address; fetch it first: ",
        ),
        (
            ["gan14", *sets(data__classes='["11"]')],
            3,
            "digits: unknown class '11'; did you mean '1'?; data.classes names the ones to keep, null keeps all",
        ),
        (["dcgan28", *sets(), "--set", "model=dcgan"], 2, ""),
        (["dcgan28", "--set", "data.source=digits", "--set", "data.size=9"], 2, ""),
        ([], 2, "train: name a recipe, such as: gantool train gan14; or resume the newest run with --resume"),
        (["--resume"], 2, "runs: no run here yet; make one with: gantool train RECIPE"),
        (
            ["gan14", *sets(), "--out", "file"],
            2,
            "file: is a file; name a new directory with --out, or resume with --resume",
        ),
        (
            ["gan14", *sets(), "--out", "full"],
            2,
            "full: already holds something; name a new directory with --out, or resume with --resume",
        ),
        (["gan14", *sets(), "--device", "gpu"], 7, "--device gpu: not on this machine; here are: auto, cpu"),
        (["gan14", *sets(), "--device", "cuda:99"], 7, "--device cuda:99: not on this machine; here are: auto, cpu"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_leaves_no_run(command, inside, arguments, result, message):
    (inside / "full").mkdir()
    (inside / "full" / "mine").touch()
    (inside / "file").touch()

    found, out, err = command("train", *arguments)

    assert (found, out) == (result, "")
    assert any(line.startswith(f"error: {message}") for line in err.splitlines()), err
    assert sorted(path.name for path in inside.iterdir() if path.name != "runs") == ["file", "full"]
    assert list((inside / "full").iterdir()) == [inside / "full" / "mine"]
    assert list((inside / "runs").iterdir() if (inside / "runs").exists() else []) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_gpu_that_is_not_there_is_told(command, inside, trained):
    assert command("train", "gan14", *sets(), "--device", "cuda")[0] == 7
    result, _, err = command("sample", trained, "--device", "cuda", "-o", "a.png")

    assert result == 7
    assert err.startswith("error: --device cuda: not on this machine; here are: auto, cpu")


def log(*values: tuple[int, float, float]) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "metrics/fd": value, "metrics/fd_deviation": deviation} for epoch, value, deviation in values
    ]


@pytest.mark.parametrize(
    ("entries", "falls"),
    [
        (log((10, 50.0, 1.0), (20, 40.0, 1.0), (30, 30.0, 1.0)), True),
        (log((10, 50.0, 1.0), (20, 40.0, 1.0), (30, 38.0, 1.0)), False),
        (log((10, 50.0, 1.0), (20, 40.0, 1.0), (30, 60.0, 1.0)), False),
        (log((10, 50.0, math.nan), (20, 40.0, math.nan), (30, 30.0, math.nan)), False),
        (log((10, 50.0, 1.0), (20, 40.0, 1.0)), False),
        (log((30, 30.0, 1.0)), False),
        ([{"epoch": 10}, {"epoch": 30, "metrics/fd": 3.0}], False),
        ([], False),
    ],
)
def test_a_metric_still_falls_only_beyond_two_deviations(entries, falls):
    assert still_falls(entries, "fd", 30) == falls


def test_a_run_in_place_of_a_recipe_is_refused_with_both_ways_out(inside):
    run = inside / "gan14-001"
    run.mkdir()
    (run / "recipe.yaml").write_text("")

    with pytest.raises(RunError) as refused:
        begin("gan14-001", {}, out=None, resume=False)

    assert str(refused.value) == (
        "gan14-001: is a run; resume it with: gantool train gan14-001 --resume; "
        f"or train its recipe anew with: gantool train {Path('gan14-001/recipe.yaml')}"
    )


@posix
@pytest.mark.parametrize(("kind", "result"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_printed_command_goes_on(command, inside, kind, result):
    run = Path("my runs/long")
    options = sets(train__epochs=100_000, train__evaluate_every=1000, train__checkpoint_every=100_000)
    words = [sys.executable, "-m", "gantool", "train", "gan14", *options, "--out", str(run)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        waited(run / "samples" / "epoch-0003.png")
        training.send_signal(kind)
        out, err = training.communicate(timeout=30)

    assert training.returncode == result, err
    assert err.count("stopping: the run is being saved; Ctrl-C again exits at once\n") == 1
    first, hint = out.splitlines()
    assert re.fullmatch(r"stopped in epoch \d+; to resume:", first)
    assert not (run / "lock").exists()
    stopped = int(re.search(r"\d+", first)[0])
    assert checkpoints.load(run / "checkpoints" / "last.pt")["epoch"] in (stopped - 1, stopped)

    arguments = shlex.split(hint)[1:]
    assert arguments == ["train", str(run), "--resume"]
    again, _, err = command(*arguments, "--set", f"train.epochs={stopped + 1}")
    assert again == 0
    assert "resuming after epoch " in err
    assert [entry["epoch"] for entry in Run(run).entries()] == list(range(1, stopped + 2))


@posix
def test_a_signal_while_a_checkpoint_is_written_waits_until_it_is_whole(command, inside, monkeypatch):
    real, found = checkpoints.save, []

    def interrupted(path, content):
        found.append(path.name)
        if len(found) == 3:  # best.pt and last.pt of the first epoch are whole
            signal.raise_signal(signal.SIGINT)
        real(path, content)

    monkeypatch.setattr(checkpoints, "save", interrupted)
    result, out, _ = command("train", "gan14", *sets(train__epochs=9), "--out", "run")

    assert (result, out) == (130, "stopped in epoch 2; to resume:\n  gantool train run --resume\n")
    run = Run(Path("run"))
    assert all(checkpoints.load(run.checkpoints / name) for name in found)
    assert [entry["epoch"] for entry in run.entries()] == [1, 2]
    assert not [path.name for path in run.path.rglob("*") if path.name.endswith(".part")]


@posix
def test_a_killed_run_goes_on_from_its_last_checkpoint(command, trained, inside):
    words = [sys.executable, "-m", "gantool", "train", "gan14", *sets(train__epochs=100_000), "--out", "run"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as training:
        waited(Path("run/checkpoints/previous.pt"))
        training.kill()
        training.communicate(timeout=30)
    saved = checkpoints.load(Path("run/checkpoints/previous.pt"))["epoch"]
    run = Run(Path("run"))
    assert (run.path / "lock").exists()
    told = run.entries()

    result, _, err = command("train", "run", "--resume", "--set", f"train.epochs={told[-1]['epoch'] + 3}")

    assert result == 0
    assert int(re.search(r"resuming after epoch (\d+)", err)[1]) >= saved
    entries = run.entries()
    assert [entry["epoch"] for entry in entries] == list(range(1, told[-1]["epoch"] + 4))
    same = ["generator/adversarial", "metrics/fd"]
    assert [[row[key] for key in same] for row in entries[:2]] == [
        [row[key] for key in same] for row in Run(trained).entries()
    ]
    assert not [path for path in run.path.rglob("*") if path.name.endswith(".part") or path.name == "lock"]


@posix
def test_a_signal_before_the_first_step_ends_it_at_once_and_leaves_no_run(inside):
    words = [sys.executable, "-m", "gantool", "train", "cgan_egg", "--set", "data.classes=null", "--data-dir", "data"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        for line in training.stderr:
            if line.startswith("rendering eggs"):
                break
        start = time.monotonic()
        training.send_signal(signal.SIGINT)
        out, err = training.communicate(timeout=30)

    assert (training.returncode, out, err) == (130, "", "stopped before the first step\n")
    assert time.monotonic() - start < 20
    assert list(Path("runs").iterdir()) == []
    assert list(Path("data").glob("stores/*/about.json")) == []


@posix
def test_a_second_signal_ends_it_at_once(inside):
    options = sets(train__epochs=100_000)
    words = [sys.executable, "-m", "gantool", "train", "gan14", *options, "--out", "run"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        waited(Path("run/samples/epoch-0002.png"))
        training.send_signal(signal.SIGINT)
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=30)

    assert training.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err
    assert any(checkpoints.load(path) for path in Path("run/checkpoints").glob("*.pt"))
