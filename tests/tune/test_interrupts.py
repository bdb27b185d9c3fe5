"""Interruptions of real searches on Ray: kills, signals, dying workers and full disks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from gantool import checkpoints
from gantool.errors import CheckpointError
from gantool.runs import Run
from gantool.tune.study import Study
from optuna.trial import TrialState

from searches import DEADLINE, TYPED, Driver, gantool, rows

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX")

EPOCHS = 60  # of a trial: about two seconds, in which it writes several checkpoints
SPACE = "tune.space={train.optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}"
SEARCH = ("tune", "gan14", *TYPED, "--set", SPACE, "--set", f"tune.epochs={EPOCHS}", "--device", "cpu", "--out", "s")
INLINE = ("--engine", "inline")
SAVING = "stopping: running trials are being saved; Ctrl-C again exits at once\n"


@pytest.fixture
def driver(tmp_path, data_dir):
    """Start searches; none outlives its test."""
    started = []

    def start(*arguments, **options):
        started.append(Driver(*arguments, "--data-dir", data_dir, folder=tmp_path, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def trials(path):
    return Study(path).trials()


def ended(path):
    return {trial.number: (trial.state, trial.value) for trial in trials(path) if trial.state.is_finished()}


def checkpoint(path, number):
    return path / "trials" / f"{number:04d}" / "checkpoints" / "last.pt"


def epochs_done(path, number):
    """Return the epochs of a trial's last checkpoint; 0 before it has one."""
    with contextlib.suppress(CheckpointError):
        return checkpoints.load(checkpoint(path, number))["position"]["epoch"] - 1
    return 0


def entries(path, number):
    """Return the log of a trial, without the times."""
    timed = ("seconds", "measured_seconds", "images_per_second")
    found = Run(path / "trials" / f"{number:04d}").entries()
    return [{key: value for key, value in entry.items() if key not in timed} for entry in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """The study of one trial that was not interrupted; on one core, as Ray's workers are."""
    folder = tmp_path_factory.mktemp("whole")
    command = (*SEARCH, "--trials", 1, *INLINE, "--data-dir", data_dir)
    done = gantool(*command, folder=folder, variables={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return folder / "s"


def test_a_search_that_is_killed_loses_nothing_and_needs_no_file_of_rays(data_dir, tmp_path, driver, whole):
    study, command = tmp_path / "s", (*SEARCH, "--trials", 3)
    run = driver(*command)
    run.until(lambda: epochs_done(study, 0))
    run.process.kill()
    run.ended()
    safe = epochs_done(study, 0)
    spoilt = [file for file in (study / "ray").rglob("*") if file.is_file()]
    assert spoilt
    for file in spoilt:
        os.truncate(file, 0)
    run = driver(*command)
    run.until(lambda: ended(study))
    run.process.kill()
    run.ended()
    kept = ended(study)
    last = driver(*command)
    assert last.ended() == 0, last.output()
    assert "Traceback" not in last.output()
    assert not (study / "ray").exists()
    assert {number: ended(study)[number] for number in kept} == kept, "no finished trial is lost"
    found = trials(study)
    assert [trial.number for trial in found] == [0, 1, 2]
    assert {trial.state for trial in found} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert [row["number"] for row in rows(study)] == ["0", "1", "2"]
    assert found[0].user_attrs["resumed"] >= safe > 0
    for trial in found:
        logged = [entry["epoch"] for entry in entries(study, trial.number)]
        assert logged == list(range(1, len(logged) + 1)), "every epoch is logged once"
    assert found[0].intermediate_values == trials(whole)[0].intermediate_values, "bit for bit, with lost reports"
    assert entries(study, 0) == entries(whole, 0)


def test_ctrl_c_says_at_once_that_trials_are_saved_and_the_printed_command_resumes(
    data_dir, tmp_path, driver, whole, monkeypatch
):
    run = driver(*SEARCH, "--trials", 1, *INLINE, variables={"OMP_NUM_THREADS": "1"})
    run.until(lambda: epochs_done(tmp_path / "s", 0))
    run.send()
    assert run.ended() == 130, run.output()
    assert SAVING in run.output()
    done = epochs_done(tmp_path / "s", 0)
    printed = re.search(r"stopped; to resume:\n  gantool (.*)\n", run.output())[1]
    again = gantool(*shlex.split(printed), folder=tmp_path, variables={"OMP_NUM_THREADS": "1"})
    assert again.returncode == 0, again.stderr
    assert "starting workers" not in again.stderr, "the study remembers --engine inline"
    assert "decoding" not in again.stderr, "and --data-dir"
    (trial,) = trials(tmp_path / "s")
    assert trial.user_attrs["resumed"] == done > 0
    assert trial.value == trials(whole)[0].value
    assert entries(tmp_path / "s", 0) == entries(whole, 0)


def relatives(pid):
    """Return the processes that a process has started, and theirs."""
    from ray.thirdparty_files import psutil

    return psutil.Process(pid).children(recursive=True)


def wait_for_end(processes):
    deadline = time.monotonic() + DEADLINE
    while any(process.is_running() and process.status() != "zombie" for process in processes):
        assert time.monotonic() < deadline, processes
        time.sleep(0.05)


def test_a_signal_on_ray_is_answered_at_once_and_a_second_one_exits_at_once(data_dir, tmp_path, driver, command):
    study, long = tmp_path / "s", ("--set", "tune.epochs=5000", "--trials", 2)
    run = driver(*SEARCH, *long, process_group=0)
    run.until(lambda: epochs_done(study, 0) and epochs_done(study, 1))
    code, _, err = command(*SEARCH, *long, "--out", study)  # a second search in the same directory
    assert (code, err.splitlines()[-1][: len(f"error: {study}: in use")]) == (2, f"error: {study}: in use")
    family = relatives(run.process.pid)
    assert any("raylet" in process.name() for process in family)
    os.killpg(run.process.pid, signal.SIGTERM)
    run.until(lambda: SAVING in run.output())
    assert "stopped;" not in run.output(), "the message comes before the saving is over"
    assert run.ended() == 143, run.output()
    assert run.output().count("stopped; to resume:\n  gantool tune s\n") == 1
    assert "Traceback" not in run.output()
    assert " ray" not in run.output().lower()
    wait_for_end(family)
    assert [trial.state for trial in trials(study)] == [TrialState.RUNNING] * 2
    saved = [epochs_done(study, number) for number in (0, 1)]
    run = driver(*SEARCH, *long)
    run.until(lambda: min(epochs_done(study, number) for number in (0, 1)) > max(saved))
    family = relatives(run.process.pid)
    stopped = [process for process in family if "ray::" in " ".join(process.cmdline())]
    for process in stopped:
        process.suspend()  # workers that do not save in time
    run.send()
    run.until(lambda: SAVING in run.output())
    start = time.monotonic()
    run.send()
    assert run.ended() == 130, run.output()
    assert time.monotonic() - start < 15, "it does not wait for the workers"
    for process in stopped:
        with contextlib.suppress(Exception):
            process.resume()
    wait_for_end(family)


def test_a_trial_whose_worker_dies_resumes_three_times_and_then_fails(data_dir, tmp_path, driver):
    study = tmp_path / "s"
    run = driver(*SEARCH, "--trials", 2, "--set", "tune.parallel=1")
    dead = []

    def worker():
        with contextlib.suppress(OSError, ValueError):
            return json.loads((study / "trials" / "0000" / "lock").read_text())["pid"]
        return 0

    for seen in (lambda: epochs_done(study, 0), lambda: trials(study)[0].user_attrs.get("resumed"), bool, bool):
        run.until(lambda: worker() not in {0, *dead})
        run.until(lambda seen=seen: seen is bool or seen())
        dead.append(worker())
        os.kill(dead[-1], signal.SIGKILL)
    assert run.ended() == 0, run.output()
    first, second = trials(study)
    assert (first.state, first.user_attrs["why"]) == (TrialState.FAIL, "its worker process died")
    assert worker() == dead[-1], "it is not tried a fifth time"
    assert second.state == TrialState.COMPLETE, "the search continues"
    assert "Traceback" not in run.output()


def test_a_full_disk_ends_a_search_on_ray_with_one_error_and_with_room_it_resumes(data_dir, tmp_path, driver):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root on Linux can mount a small disk")
    try:
        study = disk / "s"
        run = driver(*SEARCH, "--out", study, "--trials", 4)
        assert run.ended() == 7, run.output()
        (error,) = [line for line in run.output().splitlines() if line.startswith("error: ")]
        assert error.startswith(f"error: {study}")
        assert "full" in error
        assert "Traceback" not in run.output()
        before = ended(study)
        assert before, "some had finished"
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = driver(*SEARCH, "--out", study, "--trials", 4, *INLINE)
        assert again.ended() == 0, again.output()
        assert sorted(ended(study)) == [0, 1, 2, 3]
        assert {number: ended(study)[number] for number in before} == before
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def phase(path):
    """Return which part of a search runs, by its database."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path / "study.db")) as database:
        query = "select study_name from studies join trials using (study_id) where state = 'RUNNING'"
        return max((name.partition("-")[2] for (name,) in database.execute(query)), default="")
    return ""


def result_of(path):
    """Return the result of a study, without the times."""
    study = Study(path)
    runs = {(run.user_attrs["of"], run.user_attrs.get("seed")): run.value for run in [*study.runs(), *study.finishes()]}
    return study.verdict(), runs, study.winner().number, Run.open(str(path)).path.name


def test_kills_while_new_seeds_decide_and_while_the_winner_is_trained_on_change_nothing(data_dir, tmp_path, driver):
    settings = {
        "tune.epochs": 2, "tune.confirm": "{top: 1, seeds: 2, epochs: 30}", "train.epochs": 120, "tune.finish": "full",
        "train.threads": 1,
    }  # fmt: skip
    command = (*SEARCH, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")))
    command += ("--trials", 2, *INLINE)
    whole = driver(*command, "--out", "whole")
    assert whole.ended() == 0, whole.output()
    for part in ("confirm", "finish"):
        run = driver(*command)
        run.until(lambda part=part: (tmp_path / "s" / "study.db").exists() and phase(tmp_path / "s") == part)
        time.sleep(0.5)
        run.process.kill()
        run.process.wait()
    last = driver(*command)
    assert last.ended() == 0, last.output()
    assert result_of(tmp_path / "s") == result_of(tmp_path / "whole")
