"""A run that was stopped, killed or damaged ends bit for bit where one ends that never was."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gantool import checkpoints
from gantool.errors import CheckpointError, DataError
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, loop, resume

QUICK = {
    "data.held_out": 0.0,
    "train.evaluate_images": 32,
    "train.evaluate_every": 1,
    "train.extractors": ["rand"],
}
DIGITS = {"data.source": "digits", "data.classes": ["3"], "train.batch_size": 40, **QUICK}
CASES = {
    "gan14": DIGITS,
    "dcgan14": DIGITS,
    "dcgan_tf28": {**DIGITS, "data.size": 8},
    "cgan_egg": {
        "data.size": 8,
        "data.classes": ["Egg", "Tomato"],
        "train.batch_size": 150,
        **QUICK,
    },
}


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


def recipe_of(name, epochs=3, **changes):
    dotted = {f"train.{key}": value for key, value in changes.items()}
    return engine.open_recipe(name, {**CASES[name], "train.evaluate_every": 2, "train.epochs": epochs, **dotted})


def run_in(path, recipe):
    return Run.create(dump(recipe), name=recipe.name, out=path)


def train(recipe, run, data_dir, stop_after=None):
    """Train to the end, or until so many reports have come."""
    told = 0
    with contextlib.closing(engine.train(recipe, run, data_dir=data_dir, device="cpu")) as reports:
        for _ in reports:
            told += 1
            if told == stop_after:
                break
    return told


def weights(run, checkpoint="last"):
    return checkpoints.load(run.checkpoints / f"{checkpoint}.pt")["model"]


def log(run):
    """The log without what a clock says."""
    return [
        {key: value for key, value in entry.items() if key not in {"seconds", "measured_seconds", "images_per_second"}}
        for entry in run.entries()
    ]


def assert_same_end(one, other):
    assert log(one) == log(other)
    for checkpoint in ("last", "best"):
        mine, theirs = weights(one, checkpoint), weights(other, checkpoint)
        assert mine.keys() == theirs.keys()
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
    grids = {path.name: path.read_bytes() for path in one.samples.iterdir()}
    assert grids == {path.name: path.read_bytes() for path in other.samples.iterdir()}
    states = [checkpoints.load(run.checkpoints / "last.pt") for run in (one, other)]
    for name, value in states[0]["trainer"]["randomness"].items():
        assert torch.equal(value, states[1]["trainer"]["randomness"][name])


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data_dir):
    """Runs that were never stopped, made when they are first asked for."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = run_in(tmp_path_factory.mktemp("straight") / "run", recipe_of(name))
            train(recipe_of(name), made[name], data_dir)
        return made[name]

    return of


@pytest.mark.parametrize("name", CASES)
def test_a_run_stopped_inside_of_an_epoch_goes_on_bit_for_bit(name, straight, tmp_path, data_dir, logged):
    run = run_in(tmp_path / "run", recipe_of(name))
    inside_of_second = 4 + 1 + 2  # four steps and an end, then two steps more
    assert train(recipe_of(name), run, data_dir, stop_after=inside_of_second) == inside_of_second
    position = checkpoints.load(run.checkpoints / "last.pt")["position"]
    assert (position["epoch"], position["batch"]) == (2, 2)
    train(recipe_of(name), run, data_dir)
    assert "resuming after epoch 1, batch 2" in logged
    assert_same_end(run, straight(name))


def test_a_run_stopped_after_every_single_report_goes_on_bit_for_bit(straight, tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of("gan14"))
    sessions = 0
    while train(recipe_of("gan14"), run, data_dir, stop_after=1):
        sessions += 1
    assert sessions == 3 * (4 + 1)
    assert_same_end(run, straight("gan14"))


def test_a_run_stopped_at_the_end_of_an_epoch_goes_on_with_the_next(straight, tmp_path, data_dir, logged):
    run = run_in(tmp_path / "run", recipe_of("dcgan14"))
    train(recipe_of("dcgan14"), run, data_dir, stop_after=4 + 1)
    train(recipe_of("dcgan14"), run, data_dir)
    assert "resuming after epoch 1" in logged
    assert_same_end(run, straight("dcgan14"))


def test_a_run_prolonged_equals_one_that_was_as_long_from_the_start(straight, tmp_path, data_dir):
    short = recipe_of("gan14", epochs=2)
    run = run_in(tmp_path / "run", short)
    train(short, run, data_dir)
    longer = resume.resumed(run, None, {"train.epochs": 3})
    train(longer, run, data_dir)
    assert_same_end(run, straight("gan14"))


def test_epochs_without_a_checkpoint_are_trained_again_and_logged_once(tmp_path, data_dir, logged):
    recipe = recipe_of("gan14", epochs=5, checkpoint_every=3)
    one, other = run_in(tmp_path / "one", recipe), run_in(tmp_path / "other", recipe)
    train(recipe, one, data_dir)
    reports = engine.train(recipe, other, data_dir=data_dir, device="cpu")
    kept = {}
    for report in reports:  # then die without a word: what is on disk is what a kill leaves
        if report.finished and report.epoch == 4:
            kept = {path.name: path.read_bytes() for path in other.checkpoints.iterdir()}
            break
    reports.close()
    for path in other.checkpoints.iterdir():
        path.unlink()
    for name, content in kept.items():
        (other.checkpoints / name).write_bytes(content)
    assert [entry["epoch"] for entry in other.entries()] == [1, 2, 3, 4]
    train(recipe, other, data_dir)
    assert "resuming after epoch 3" in logged
    assert [entry["epoch"] for entry in other.entries()] == [1, 2, 3, 4, 5]
    assert_same_end(one, other)


def test_a_best_of_before_the_stop_stays_until_it_is_beaten(tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of("gan14"))
    train(recipe_of("gan14"), run, data_dir, stop_after=4 + 1)
    last, best = run.checkpoints / "last.pt", run.checkpoints / "best.pt"
    state = checkpoints.load(last)
    state["position"]["best"] = 0.5  # as if the first epoch had been far better than those to come
    checkpoints.save(last, state)
    before = best.read_bytes()
    assert set(state["position"]) > {"best", "best_epoch", "images", "seconds"}
    with contextlib.closing(engine.train(recipe_of("gan14"), run, data_dir=data_dir, device="cpu")) as reports:
        assert {report.best for report in reports} == {0.5}
    assert best.read_bytes() == before


@pytest.fixture
def stopped(tmp_path, data_dir):
    """A run of gan14 that stands after its second epoch of three."""
    run = run_in(tmp_path / "stopped", recipe_of("gan14"))
    train(recipe_of("gan14"), run, data_dir, stop_after=2 * (4 + 1))
    return run


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(stopped, straight, data_dir, logged):
    damage(stopped.checkpoints / "last.pt")
    train(recipe_of("gan14"), stopped, data_dir)
    last = stopped.checkpoints / "last.pt"
    assert logged[0].startswith("learning from 183 images")
    assert logged[1].startswith(f"{last}: is damaged")
    assert logged[1].endswith("; resuming from previous.pt")
    assert logged[2] == "resuming after epoch 1"
    assert_same_end(stopped, straight("gan14"))


@pytest.mark.parametrize("content", [b"", b"gantool checkpoint 1\n", b"PK\x03\x04 something else"])
def test_a_checkpoint_that_is_none_is_passed_over_too(stopped, straight, data_dir, content):
    (stopped.checkpoints / "last.pt").write_bytes(content)
    train(recipe_of("gan14"), stopped, data_dir)
    assert_same_end(stopped, straight("gan14"))


def test_weights_that_are_not_finite_are_passed_over_too(stopped, straight, data_dir, logged):
    last = stopped.checkpoints / "last.pt"
    state = checkpoints.load(last)
    state["model"]["generator.0.bias"][3] = float("nan")
    checkpoints.save(last, state)
    train(recipe_of("gan14"), stopped, data_dir)
    assert "generator.0.bias is not finite" in logged[1]
    assert_same_end(stopped, straight("gan14"))


def test_a_run_without_any_whole_checkpoint_says_so_and_stays_as_it_is(stopped, data_dir):
    for name in ("last", "previous"):
        damage(stopped.checkpoints / f"{name}.pt")
    before = stopped.entries()
    with pytest.raises(CheckpointError, match=r"previous\.pt: is damaged"):
        train(recipe_of("gan14"), stopped, data_dir)
    assert stopped.entries() == before


def test_a_run_killed_before_its_new_checkpoint_had_its_name_goes_on_from_it(stopped, straight, data_dir, logged):
    folder = stopped.checkpoints
    (folder / "last.pt").replace(folder / "next.pt")  # as between the two renamings
    train(recipe_of("gan14"), stopped, data_dir)
    assert "resuming after epoch 2" in logged
    assert_same_end(stopped, straight("gan14"))
    assert {path.name for path in folder.iterdir()} == {"best.pt", "last.pt", "previous.pt"}


def test_an_old_next_checkpoint_does_no_harm(stopped, straight, data_dir):
    folder = stopped.checkpoints
    (folder / "next.pt").write_bytes((folder / "previous.pt").read_bytes())
    train(recipe_of("gan14"), stopped, data_dir)
    assert_same_end(stopped, straight("gan14"))
    assert not (folder / "next.pt").exists()


def test_a_run_killed_before_its_final_checkpoint_had_its_name_gives_it_one(straight, tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of("gan14"))
    train(recipe_of("gan14"), run, data_dir)
    (run.checkpoints / "last.pt").replace(run.checkpoints / "next.pt")
    assert train(recipe_of("gan14"), run, data_dir) == 0
    assert_same_end(run, straight("gan14"))


def test_a_damaged_next_checkpoint_is_passed_over(stopped, straight, data_dir, logged):
    folder = stopped.checkpoints
    (folder / "next.pt").write_bytes((folder / "last.pt").read_bytes())
    damage(folder / "next.pt")
    train(recipe_of("gan14"), stopped, data_dir)
    assert logged[1].endswith("; resuming from last.pt")
    assert logged[2] == "resuming after epoch 2"
    assert_same_end(stopped, straight("gan14"))


def test_a_checkpoint_of_weights_only_cannot_be_gone_on_from(stopped, data_dir):
    folder = stopped.checkpoints
    (folder / "last.pt").write_bytes((folder / "best.pt").read_bytes())
    (folder / "previous.pt").unlink()
    with pytest.raises(CheckpointError, match="lacks trainer, position, health; it holds weights only"):
        train(recipe_of("gan14"), stopped, data_dir)


def test_data_of_other_classes_are_refused(stopped, data_dir):
    other = engine.change(recipe_of("gan14"), {"data.classes": ["4"]})
    with pytest.raises(DataError, match=r"last\.pt: was trained on classes 3, but the data have 4; bring them back"):
        train(other, stopped, data_dir)


def test_a_log_line_that_was_cut_short_does_no_harm(stopped, straight, data_dir):
    with (stopped.path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 3, "ima')
    train(recipe_of("gan14"), stopped, data_dir)
    assert_same_end(stopped, straight("gan14"))


def test_nothing_is_saved_when_there_is_nothing_new(stopped, data_dir):
    before = {path.name: path.stat().st_mtime_ns for path in stopped.checkpoints.iterdir()}
    reports = engine.train(recipe_of("gan14"), stopped, data_dir=data_dir, device="cpu")
    reports.close()
    assert {path.name: path.stat().st_mtime_ns for path in stopped.checkpoints.iterdir()} == before


def test_a_run_goes_on_with_the_number_of_threads_that_it_was_started_with(straight, tmp_path, data_dir):
    run = run_in(tmp_path / "run", recipe_of("dcgan14"))
    train(recipe_of("dcgan14"), run, data_dir, stop_after=7)
    torch.set_num_threads(1)  # `straight` and the first half have two
    try:
        train(recipe_of("dcgan14"), run, data_dir)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(2)
    assert_same_end(straight("dcgan14"), run)


@pytest.mark.parametrize("name", ["gan14", "dcgan14", "cgan_egg"])
def test_logs_are_equal_on_one_two_and_four_cores_where_the_recipe_names_its_threads(name, tmp_path, data_dir):
    runs = []
    try:
        for cores in (1, 2, 4):
            torch.set_num_threads(cores)  # as torch does on a machine of so many cores
            runs.append(run_in(tmp_path / str(cores), recipe_of(name, threads=2)))
            train(recipe_of(name, threads=2), runs[-1], data_dir)
    finally:
        torch.set_num_threads(2)
    assert_same_end(runs[0], runs[1])
    assert_same_end(runs[0], runs[2])


@pytest.mark.skipif(sys.platform == "win32", reason="a kill that nothing can catch")
def test_a_process_killed_at_a_random_moment_goes_on_bit_for_bit(tmp_path, data_dir):
    # The killed process inherits another number of threads than this one has.
    changes = {**DIGITS, "train.batch_size": 16, "train.epochs": 25, "train.threads": 2}
    recipe = engine.open_recipe("gan14", changes)
    never = run_in(tmp_path / "never", recipe)
    train(recipe, never, data_dir)

    killed = Run(tmp_path / "killed")
    settings = [f"--set={key}={value}".replace("'", '"') for key, value in changes.items()]
    command = [sys.executable, "-m", "gantool", "train", "gan14", *settings, "--out", str(killed.path)]
    command += ["--data-dir", str(data_dir), "--device", "cpu", "--resume"]
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        lines = random.randint(2, 9)  # of epochs, after what is told at the start
        for _ in range(lines):
            process.stderr.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -9
    assert 1 <= len(killed.entries()) < 25
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_end(never, killed)
    assert not [
        path for path in Path(killed.path).rglob("*") if "part" in path.name or path.name in {"lock", "next.pt"}
    ]
