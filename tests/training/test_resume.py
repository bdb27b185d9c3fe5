"""A run that was stopped, killed or damaged ends bit for bit as one that never was."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gantool import checkpoints
from gantool.errors import CheckpointError, DataError, DiskError, RunError
from gantool.inference import compare, scoring
from gantool.runs import Run
from gantool.training import engine, loop, resume
from PIL import Image

from processes import posix
from trained import assert_same_end, log, run_in, same, train, weights

QUICK = {
    "data.source": "digits",
    "data.classes": ["3"],
    "data.held_out": 0.0,
    "train.batch_size": 40,
    "train.evaluate_images": 32,
    "train.evaluate_every": 2,
    "train.extractors": ["rand"],
}
STEPS = 4 + 1  # reports of an epoch


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    """Reports after every step, so that a test can stop at any."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    """As on a machine of two cores: sums are taken in parts."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def recipe_of(name="gan14", epochs=3, **changes):
    dotted = {f"train.{key}": value for key, value in changes.items()}
    return engine.open_recipe(name, {**QUICK, "train.epochs": epochs, **dotted})


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data_dir):
    """A run that was never stopped."""
    run = run_in(tmp_path_factory.mktemp("straight") / "run", recipe_of())
    train(recipe_of(), run, data_dir)
    return run


@pytest.fixture
def stopped(tmp_path, data_dir):
    """The same, stopped after its second epoch of three."""
    run = run_in(tmp_path / "stopped", recipe_of())
    train(recipe_of(), run, data_dir, stop_after=2 * STEPS)
    return run


def test_a_run_stopped_after_every_single_report_resumes_bit_for_bit(straight, tmp_path, data_dir, logged):
    run = run_in(tmp_path / "run", recipe_of())
    sessions = 0
    while train(recipe_of(), run, data_dir, stop_after=1):
        sessions += 1
    assert sessions == 3 * STEPS
    assert "resuming after epoch 1" in logged
    assert "resuming after epoch 1, batch 2" in logged
    assert_same_end(run, straight)


def test_a_run_prolonged_equals_one_that_was_as_long_from_the_start(straight, tmp_path, data_dir):
    short = recipe_of(epochs=2)
    run = run_in(tmp_path / "run", short)
    train(short, run, data_dir)
    train(resume.resumed(run, None, {"train.epochs": 3}), run, data_dir)
    assert_same_end(run, straight)


def test_epochs_without_a_checkpoint_are_trained_again_and_logged_once(tmp_path, data_dir, logged):
    recipe = recipe_of(epochs=5, checkpoint_every=3)
    one, other = run_in(tmp_path / "one", recipe), run_in(tmp_path / "other", recipe)
    train(recipe, one, data_dir)
    reports = engine.train(recipe, other, data_dir=data_dir, device="cpu")
    while not (report := next(reports)).finished or report.epoch < 4:
        pass
    killed = Run(Path(shutil.copytree(other.path, tmp_path / "killed")))
    reports.close()
    assert [entry["epoch"] for entry in killed.entries()] == [1, 2, 3, 4]
    train(recipe, killed, data_dir)
    assert "resuming after epoch 3" in logged
    assert_same_end(one, killed)


@pytest.mark.parametrize("left", [bytes(80), b'{"epoch": 1, "imag', b'{"epoch": 1}\n'])
def test_what_a_crash_left_of_the_first_line_is_not_part_of_the_log(left, tmp_path, data_dir):
    recipe = recipe_of(epochs=2)
    one, other = run_in(tmp_path / "one", recipe), run_in(tmp_path / "other", recipe)
    (other.path / "log.jsonl").write_bytes(left)
    train(recipe, one, data_dir)
    train(recipe, other, data_dir)
    assert_same_end(one, other)
    assert len((other.path / "log.jsonl").read_bytes().splitlines()) == 2


def test_a_best_of_before_the_stop_stays_until_it_is_beaten(stopped, data_dir):
    last, best = stopped.checkpoints / "last.pt", stopped.checkpoints / "best.pt"
    state = checkpoints.load(last)
    state["position"]["best"] = 0.5  # as if an epoch had been far better than the last one
    checkpoints.save(last, state)
    before = best.read_bytes()
    assert {report.best for report in train(recipe_of(), stopped, data_dir)} == {0.5}
    assert best.read_bytes() == before


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def nan_weight(last):
    state = checkpoints.load(last)
    state["trainer"]["model"]["generator.0.bias"][3] = float("nan")
    checkpoints.save(last, state)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage, "is damaged"),
        (nan_weight, "generator.0.bias is not finite"),
        (lambda last: last.write_bytes(b""), "is empty"),
        (lambda last: last.write_bytes(b"PK\x03\x04 something else"), "is not a gantool checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_taken(
    spoil, message, stopped, straight, data_dir, logged
):
    last = stopped.checkpoints / "last.pt"
    spoil(last)
    train(recipe_of(), stopped, data_dir)
    assert logged[0].startswith("learning from 183 images")
    warning = next(line for line in logged if line.startswith(f"{last}: "))
    assert message in warning
    assert warning.endswith("; resuming from previous.pt")
    assert "resuming after epoch 1" in logged
    assert_same_end(stopped, straight)


def no_last(folder):
    (folder / "last.pt").replace(folder / "previous.pt")  # as before a new one is written


def cut_log(folder):
    with (folder.parent / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 3, "ima')


@pytest.mark.parametrize("leave", [no_last, cut_log])
def test_what_a_kill_leaves_of_a_checkpoint_or_the_log_does_no_harm(leave, stopped, straight, data_dir):
    leave(stopped.checkpoints)
    train(recipe_of(), stopped, data_dir)
    assert_same_end(stopped, straight)
    assert {path.name for path in stopped.checkpoints.iterdir()} == {"best.pt", "last.pt", "previous.pt"}


def no_whole_checkpoint(folder):
    for name in ("last", "previous"):
        damage(folder / f"{name}.pt")


def weights_only(folder):
    (folder / "last.pt").write_bytes((folder / "best.pt").read_bytes())
    (folder / "previous.pt").unlink()


@pytest.mark.parametrize(
    ("leave", "changes", "error", "message"),
    [
        (no_whole_checkpoint, {}, CheckpointError, r"previous\.pt: is damaged"),
        (
            weights_only,
            {},
            CheckpointError,
            "last.pt: holds weights only, and no training resumes from them; use last.pt",
        ),
        (lambda _: None, {"data.classes": ["4"]}, DataError, r"trained on classes 3, but the data have 4; bring them"),
    ],
)
def test_a_run_that_cannot_be_resumed_says_why_and_is_left_unchanged(leave, changes, error, message, stopped, data_dir):
    leave(stopped.checkpoints)
    before = stopped.entries(), {path: path.stat().st_mtime_ns for path in stopped.checkpoints.iterdir()}
    with pytest.raises(error, match=message):
        train(engine.change(recipe_of(), changes), stopped, data_dir)
    engine.train(recipe_of(), stopped, data_dir=data_dir, device="cpu").close()  # nothing new is not saved either
    assert (stopped.entries(), {path: path.stat().st_mtime_ns for path in stopped.checkpoints.iterdir()}) == before


@posix
def test_a_pipe_in_place_of_a_checkpoint_is_passed_over_and_a_folder_ends_in_one_line(
    stopped, straight, data_dir, logged
):
    last, previous = (stopped.checkpoints / f"{name}.pt" for name in ("last", "previous"))
    last.unlink()
    last.mkdir()
    with pytest.raises(DiskError, match=r"last.pt: cannot be written \(Is a directory\)"):
        train(recipe_of(), stopped, data_dir)
    last.rmdir()
    os.mkfifo(last)
    train(recipe_of(), stopped, data_dir)
    assert f"{last}: is not a file; use another checkpoint of the run; resuming from previous.pt" in logged
    assert_same_end(stopped, straight)
    previous.unlink()
    last.unlink()
    last.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"last.pt: is not a file; use another checkpoint of the run"):
        train(recipe_of(), stopped, data_dir)


def test_a_position_beyond_an_epoch_is_refused(stopped, data_dir):
    (stopped.checkpoints / "previous.pt").unlink()
    last = stopped.checkpoints / "last.pt"
    state = checkpoints.load(last)
    state["position"]["batch"] = 5
    checkpoints.save(last, state)
    with pytest.raises(CheckpointError, match=r"last.pt: position.batch is beyond the 4 batches of an epoch"):
        train(recipe_of(), stopped, data_dir)


def test_a_checkpoint_of_another_recipe_is_refused(stopped, data_dir):
    other = engine.change(recipe_of(), {"model.generator": [16]})
    with pytest.raises(CheckpointError, match=r"of another model: generator.0.weight is \[128, 100\], but the recipe"):
        train(other, stopped, data_dir)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_a_run_with_one_thread_or_two_resumes_bit_for_bit_in_a_process_with_another_number(threads, tmp_path, data_dir):
    recipe = recipe_of("dcgan14", epochs=2, threads=threads)
    straight, stopped = (run_in(tmp_path / name, recipe) for name in ("straight", "stopped"))
    train(recipe, straight, data_dir)
    train(recipe, stopped, data_dir, stop_after=STEPS + 2)
    torch.set_num_threads(3)
    try:
        train(recipe, stopped, data_dir)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(2)
    assert_same_end(straight, stopped)


def test_a_checkpoint_of_a_gpu_resumes_on_the_cpu_with_a_warning(straight, tmp_path, data_dir, monkeypatch, logged):
    """Random numbers of a GPU are all that such a checkpoint holds besides. Here no GPU has drawn any."""
    run, states = run_in(tmp_path / "run", recipe_of()), loop.devices.rng_states
    with monkeypatch.context() as patch:
        patch.setattr(loop.devices, "rng_states", lambda *given: states(*given) | {"cuda": torch.zeros(16).byte()})
        here = loop.devices.numerics(torch.device("cpu"))
        patch.setattr(loop.devices, "numerics", lambda place: here | {"device": "NVIDIA X"})
        train(recipe_of(), run, data_dir, stop_after=2 * STEPS)
    train(recipe_of(), run, data_dir)
    message = (
        "was trained with device NVIDIA X before, so its last digits may differ from those of a run that never stopped"
    )
    assert f"{run.path}: {message}" in logged
    assert log(run) == log(straight)
    assert same(weights(run), weights(straight))


def test_runs_are_equal_on_any_number_of_cores_if_the_recipe_names_its_threads(tmp_path, data_dir):
    recipe, runs = recipe_of("dcgan14", epochs=2, threads=2), []
    try:
        for cores in (1, 4):
            torch.set_num_threads(cores)  # as torch does on a machine of so many cores
            runs.append(run_in(tmp_path / str(cores), recipe))
            train(recipe, runs[-1], data_dir)
    finally:
        torch.set_num_threads(2)
    assert_same_end(*runs)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a kill that nothing can catch")
def test_a_process_killed_at_a_random_moment_resumes_bit_for_bit(tmp_path, data_dir):
    # The killed process inherits another number of threads than this one has.
    changes = {**QUICK, "train.evaluate_every": 1, "train.batch_size": 16, "train.epochs": 9, "train.threads": 2}
    recipe = engine.open_recipe("gan14", changes)
    never, killed = run_in(tmp_path / "never", recipe), Run(tmp_path / "killed")
    train(recipe, never, data_dir)
    settings = [f"--set={key}={value}".replace("'", '"') for key, value in changes.items()]
    command = [sys.executable, "-m", "gantool", "train", "gan14", *settings, "--out", str(killed.path)]
    command += ["--data-dir", str(data_dir), "--device", "cpu", "--resume"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for _ in range(random.randint(3, 7)):  # lines of epochs, after those at the start
        process.stderr.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(random.uniform(0, 0.05))
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert len(killed.entries()) < 9
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_end(never, killed)
    left = [path.name for path in Path(killed.path).rglob("*")]
    assert not [name for name in left if "part" in name or name == "lock"]


# --- data that moved or changed ------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """A folder of 30 grey images."""
    numbers = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(30):
        Image.fromarray(numbers.integers(0, 256, (14, 14), np.uint8)).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def of_photos(folder, epochs=2):
    data = {"data.source": str(folder), "data.classes": None, "data.held_out": 0.2, "train.batch_size": 6}
    return engine.open_recipe("gan14", {**QUICK, **data, "train.epochs": epochs})


def test_images_that_were_added_are_refused_since_other_ones_would_be_held_out(photos, tmp_path, data_dir):
    recipe = of_photos(photos, epochs=3)
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir, stop_after=7)
    before = {path.name: path.read_bytes() for path in run.checkpoints.iterdir()}
    shutil.copy(photos / "1.png", photos / "0a.png")

    message = (
        r"last.pt: was trained on other data \(30 examples, now 31\); bring the old ones back, or start a new run$"
    )
    with pytest.raises(DataError, match=message):
        train(recipe, run, data_dir)
    assert {path.name: path.read_bytes() for path in run.checkpoints.iterdir()} == before
    for command in (
        lambda: scoring.score_run(run, ["fd"], against=None, checkpoint="last", device="cpu", data_dir=data_dir),
        lambda: compare.nearest(run, tmp_path / "n.png", checkpoint="last", device="cpu", data_dir=data_dir),
    ):
        with pytest.raises(DataError, match="bring the old ones back, or measure against a folder with gantool score"):
            command()

    (photos / "0a.png").unlink()
    train(recipe, run, data_dir)
    assert len(run.entries()) == 3


def test_images_that_change_or_vanish_during_a_training_do_not_disturb_it(photos, tmp_path, data_dir):
    recipe = of_photos(photos, epochs=3)
    straight, run = run_in(tmp_path / "straight", recipe), run_in(tmp_path / "run", recipe)
    train(recipe, straight, data_dir)
    reports = engine.train(recipe, run, data_dir=data_dir, device="cpu")
    next(reports)
    (photos / "1.png").write_bytes(b"no image")
    next(reports)
    shutil.rmtree(photos)
    list(reports)
    assert_same_end(straight, run)


def test_images_that_moved_resume_bit_for_bit_and_are_scored(photos, tmp_path, data_dir):
    recipe = of_photos(photos, epochs=3)
    straight, run = run_in(tmp_path / "straight", recipe), run_in(tmp_path / "run", recipe)
    train(recipe, straight, data_dir)
    train(recipe, run, data_dir, stop_after=7)
    moved = photos.rename(tmp_path / "elsewhere").rename(tmp_path / "moved")

    wanted = resume.resumed(run, None, {"data.source": str(moved)}, data_dir)
    train(wanted, run, data_dir)
    assert log(run) == log(straight)
    assert same(weights(run), weights(straight))
    scoring.score_run(run, ["fd"], against=None, checkpoint="best", device="cpu", data_dir=data_dir)


def test_other_images_in_place_of_the_old_ones_are_refused_and_the_recipe_stays(photos, tmp_path, data_dir):
    recipe = of_photos(photos)
    run = run_in(tmp_path / "run", recipe)
    with pytest.raises(RunError, match="run: does not know its data"):
        resume.resumed(run, None, {"data.source": str(tmp_path / "other")}, data_dir)
    train(recipe, run, data_dir)
    text = (run.path / "recipe.yaml").read_bytes()
    shutil.copytree(photos, tmp_path / "other")
    shutil.copy(photos / "1.png", tmp_path / "other" / "2.png")

    with pytest.raises(DataError, match=r"was trained on other data \(30 examples\)"):
        resume.resumed(run, None, {"data.source": str(tmp_path / "other")}, data_dir)
    assert (run.path / "recipe.yaml").read_bytes() == text
