"""What a search survives: kills at any moment, signals, dying workers, full disks, wild configurations. All real."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gantool import checkpoints
from gantool.cli import main
from gantool.errors import CheckpointError
from gantool.runs import Run
from gantool.tune.study import Study
from optuna.trial import TrialState
from test_searches import INLINE, TINY, environment, gantool, table, trials

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX")

EPOCHS = 60  # of a trial: about two seconds, in which it writes a handful of checkpoints
SEARCH = (*TINY, "--set", f"tune.epochs={EPOCHS}", "--device", "cpu", "--out", "s")
DEADLINE = 300.0  # seconds; a slow and busy machine needs some


class Driver:
    """A search in a process of its own, whose output goes to files, so that nobody waits for whom it leaves behind."""

    def __init__(self, *arguments: str, folder: Path, variables: dict[str, str] | None = None, **options) -> None:
        number = len(list(folder.glob("*.out")))
        self.files = [folder / f"{number}.{kind}" for kind in ("out", "err")]
        with self.files[0].open("w") as out, self.files[1].open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gantool", *arguments],
                cwd=folder,
                env=environment() | (variables or {}),
                stdout=out,
                stderr=err,
                **options,
            )

    def until(self, seen: Callable[[], object]) -> None:
        """Wait for something that happens while it runs."""
        deadline = time.monotonic() + DEADLINE
        while not seen():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def ended(self) -> int:
        """Wait for its end, and give its exit code."""
        return self.process.wait(DEADLINE)

    def said(self) -> str:
        """Return all that it wrote."""
        return "".join(file.read_text() for file in self.files)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Starts searches; none outlives its test."""
    started: list[Driver] = []

    def start(*arguments: str, **options) -> Driver:
        started.append(Driver(*arguments, folder=tmp_path, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def spent(study: Path) -> int:
    """Count the trials that have ended, as the database has them at this moment."""
    if not (study / "study.db").exists():
        return 0
    with contextlib.closing(sqlite3.connect(study / "study.db")) as database, contextlib.suppress(sqlite3.Error):
        return database.execute("select count(*) from trials where state not in ('RUNNING', 'WAITING')").fetchone()[0]
    return 0


def ended(study: Path) -> dict[int, tuple[TrialState, float | None]]:
    return {trial.number: (trial.state, trial.value) for trial in trials(study) if trial.state.is_finished()}


def trial_folder(study: Path, number: int) -> Path:
    return study / "trials" / f"{number:04d}"


def checkpoint(study: Path, number: int) -> Path:
    return trial_folder(study, number) / "checkpoints" / "last.pt"


def epochs_done(study: Path) -> dict[int, int]:
    """Return the epochs that the checkpoints of trials stand after."""
    found = {}
    for folder in sorted((study / "trials").glob("*")):
        with contextlib.suppress(CheckpointError):  # there is none yet, or its worker is renaming it just now
            state = checkpoints.load(folder / "checkpoints" / "last.pt")
            found[int(folder.name)] = state["position"]["epoch"] - 1
    return found


def entries(study: Path, number: int) -> list[dict]:
    """Return the log of a trial, without what depends on how fast it went."""
    timed = ("seconds", "measured_seconds", "images_per_second")
    lines = (trial_folder(study, number) / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The study of one trial that nobody interrupted; on one core, as Ray's workers are."""
    folder = tmp_path_factory.mktemp("whole")
    run = Driver(
        *("tune", "gan14", *SEARCH, "--trials", "1", "--engine", "inline", "--data-dir", str(data_dir)),
        folder=folder,
        variables={"OMP_NUM_THREADS": "1"},
    )
    assert run.ended() == 0, run.said()
    return folder / "s"


@dataclass
class Saga:
    """What was seen of a study whose driver was killed again and again."""

    study: Path
    kept: list[dict[int, tuple[TrialState, float | None]]] = field(default_factory=list)  # after each kill
    reached: dict[int, int] = field(default_factory=dict)  # epochs that were safe at a kill, by running trial
    spoilt: int = 0  # files of Ray's that were truncated
    printed: str = ""


@pytest.fixture(scope="module")
def saga(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Saga:
    """A study of five trials whose driver is killed four times, and started again at once with the same command."""
    folder = tmp_path_factory.mktemp("saga")
    found, chance = Saga(folder / "s"), random.Random(14)
    command = ("tune", "gan14", *SEARCH, "--trials", "5", "--data-dir", str(data_dir))

    def killed(seen: Callable[[], object]) -> None:
        run = Driver(*command, folder=folder)
        run.until(seen)
        run.process.kill()
        run.ended()
        found.kept.append(ended(found.study))
        safe = epochs_done(found.study)
        found.reached |= {number: done for number, done in safe.items() if number not in found.kept[-1]}

    def passed() -> Callable[[], object]:
        moment = time.monotonic() + chance.uniform(0.5, 8)
        return lambda: time.monotonic() > moment

    killed(lambda: checkpoint(found.study, 0).exists())
    for file in (found.study / "ray").rglob("*"):
        if file.is_file():
            os.truncate(file, 0)
            found.spoilt += 1
    killed(passed())
    killed(lambda: spent(found.study))  # a trial has just ended
    shutil.rmtree(found.study / "ray", ignore_errors=True)  # its workers may still be writing there
    killed(passed())
    run = Driver(*command, folder=folder)
    assert run.ended() == 0, run.said()
    found.printed = run.said()
    return found


def test_no_kill_loses_a_finished_trial(saga):
    final = ended(saga.study)
    assert len(saga.kept) == 4
    assert saga.kept[-1], "one had finished before the last kill"
    for kept in saga.kept:
        assert {number: final[number] for number in kept} == kept


def test_after_kills_a_study_has_exactly_its_trials_and_each_has_ended(saga):
    found = trials(saga.study)
    assert [trial.number for trial in found] == [0, 1, 2, 3, 4]
    assert {trial.state for trial in found} <= {TrialState.COMPLETE, TrialState.PRUNED}, saga.printed
    assert len({trial.params["train.optimizer.lr"] for trial in found}) == 5
    assert [row["number"] for row in table(saga.study)] == ["0", "1", "2", "3", "4"]


def test_a_trial_that_was_killed_goes_on_from_its_checkpoint_and_logs_every_epoch_once(saga):
    assert saga.reached.get(0), "the first was killed as soon as it had a checkpoint"
    for number, done in saga.reached.items():
        assert trials(saga.study)[number].user_attrs.get("resumed", 0) >= done
    for trial in trials(saga.study):
        logged = [entry["epoch"] for entry in entries(saga.study, trial.number)]
        assert logged == list(range(1, len(logged) + 1))
        assert len(logged) == EPOCHS or trial.state == TrialState.PRUNED


def test_rays_own_files_are_not_needed_to_go_on(saga):
    assert saga.spoilt, "there were some to truncate after the first kill"
    assert "Traceback" not in saga.printed
    assert not (saga.study / "ray").exists()


def test_a_trial_that_was_killed_on_ray_ends_bit_for_bit_as_one_that_was_not(saga, whole):
    assert trials(saga.study)[0].value == trials(whole)[0].value
    assert trials(saga.study)[0].intermediate_values == trials(whole)[0].intermediate_values, (
        "with those nobody heard of"
    )
    assert entries(saga.study, 0) == entries(whole, 0)


def test_a_trial_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(whole, data_dir, tmp_path, driver):
    command = ("tune", "gan14", *SEARCH, "--trials", "1", "--engine", "inline", "--data-dir", str(data_dir))
    single = {"OMP_NUM_THREADS": "1"}
    first = driver(*command, variables=single)
    first.until(lambda: checkpoint(tmp_path / "s", 0).exists())
    first.process.send_signal(signal.SIGINT)
    assert first.ended() == 130, first.said()
    done = epochs_done(tmp_path / "s")[0]
    second = driver(*command, variables=single)
    assert second.ended() == 0, second.said()
    (trial,) = trials(tmp_path / "s")
    assert trial.user_attrs["resumed"] == done > 0
    assert trial.value == trials(whole)[0].value
    assert entries(tmp_path / "s", 0) == entries(whole, 0)


def relatives(pid: int) -> list:
    """Return the processes that a process has begun, and they in turn."""
    from ray.thirdparty_files import psutil

    return psutil.Process(pid).children(recursive=True)


def test_a_signal_to_the_whole_group_saves_says_how_to_go_on_and_leaves_no_process(data_dir, tmp_path, driver, capfd):
    many = ("--set", "tune.epochs=5000", "--trials", "2", "--data-dir", str(data_dir))
    run = driver("tune", "gan14", *SEARCH, *many, process_group=0)
    run.until(lambda: all(checkpoint(tmp_path / "s", number).exists() for number in (0, 1)))
    with pytest.raises(SystemExit) as second:  # a second search in the same directory
        main(["tune", "gan14", *SEARCH, *many, "--out", str(tmp_path / "s")])
    assert second.value.code == 2
    refusal = capfd.readouterr().err.splitlines()[-1]
    assert refusal.startswith(f"error: {tmp_path / 's'}: in use by process {run.process.pid} on ")
    family = relatives(run.process.pid)
    assert any("raylet" in process.name() for process in family)
    start = time.monotonic()
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.ended() == 143, run.said()
    assert time.monotonic() - start < 60
    said = run.said()
    assert said.count("stopped; to resume:\n  gantool tune s\n") == 1
    assert "Traceback" not in said
    assert " ray" not in said.lower()
    deadline = time.monotonic() + DEADLINE
    while any(process.is_running() for process in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.05)
    assert [trial.state for trial in trials(tmp_path / "s")] == [TrialState.RUNNING] * 2
    assert min(epochs_done(tmp_path / "s").values()) > 0


def pid_of(study: Path, number: int) -> int:
    """Return the worker process that a trial runs in, or ran in last; 0 before that."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((trial_folder(study, number) / "lock").read_text())["pid"]
    return 0


def resumed(study: Path, number: int) -> bool:
    return trials(study)[number].user_attrs.get("resumed", 0) > 0


def test_a_trial_whose_worker_dies_goes_on_from_its_checkpoint_three_times_and_then_fails(data_dir, tmp_path, driver):
    study, few = tmp_path / "s", ("--trials", "2", "--set", "tune.parallel=1", "--data-dir", str(data_dir))
    run = driver("tune", "gan14", *SEARCH, *few)
    dead: list[int] = []
    for seen in (lambda: checkpoint(study, 0).exists(), lambda: resumed(study, 0), lambda: True, lambda: True):
        run.until(lambda: pid_of(study, 0) not in {0, *dead})
        run.until(seen)
        dead.append(pid_of(study, 0))
        os.kill(dead[-1], signal.SIGKILL)
    assert run.ended() == 0, run.said()
    first, second = trials(study)
    assert (first.state, first.user_attrs["why"]) == (TrialState.FAIL, "its worker process died")
    assert pid_of(study, 0) == dead[-1], "nobody tries a fifth time"
    assert second.state == TrialState.COMPLETE, "the search goes on"
    assert "Traceback" not in run.said()


def test_settings_that_overflow_fail_once_each_and_the_search_goes_on(data_dir, tmp_path):
    deep = ("--set", f"model.discriminator={[16] * 13}")  # at the wild rate its scores overflow in the first steps
    command = ("tune", "gan14", *TINY, *deep, "--set", "tune.space={train.optimizer.lr: [2e-4, 1000.0]}")
    done = gantool(
        *(*command, "--device", "cpu", "--trials", "5", "--out", "s", "--json", "--data-dir", str(data_dir)),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    begun = [event["trial"] for event in events if event["event"] == "started"]
    assert begun == ["0", "1", "2", "3", "4"], "one attempt each"
    rows = table(tmp_path / "s")
    wild = [row for row in rows if row["train.optimizer.lr"] == "1000.0"]
    assert wild, rows
    assert all(" became nan" in row["why"] or " became inf" in row["why"] for row in wild), wild
    assert {row["state"] for row in wild} == {"fail"}
    assert {row["state"] for row in rows if row not in wild} <= {"complete", "pruned"}
    assert "Traceback" not in done.stderr


def full(said: str, study: Path) -> None:
    """Check what a search says that found the disk full."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert errors[0].startswith(f"error: {study}")
    assert "full" in errors[0]
    assert "Traceback" not in said


def test_a_disk_that_fills_up_ends_a_search_on_this_process_and_with_room_it_goes_on(data_dir, tmp_path, driver):
    import resource

    def small() -> None:  # no file may become larger, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))

    sizes = ("--set", "tune.space={model.latent_dim: [100, 3000]}", "--set", "tune.sampler=random")
    command = (
        "tune",
        "gan14",
        *SEARCH,
        *sizes,
        "--set",
        "tune.epochs=20",
        "--trials",
        "3",
        "--engine",
        "inline",
        "--data-dir",
        str(data_dir),
    )
    run = driver(*command, preexec_fn=small)
    assert run.ended() == 7, run.said()
    full(run.said(), tmp_path / "s")
    before = ended(tmp_path / "s")
    assert before, "a small one had finished"
    again = driver(*command)
    assert again.ended() == 0, again.said()
    after = ended(tmp_path / "s")
    assert sorted(after) == [0, 1, 2]
    assert {number: after[number] for number in before} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for few trials; `remount` makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2300k", "tmpfs", str(place)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root on Linux can mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_ends_a_search_on_ray_and_with_room_it_goes_on(data_dir, tmp_path, driver, small_disk):
    study = small_disk / "s"
    command = ("tune", "gan14", *SEARCH, "--out", str(study), "--trials", "4", "--data-dir", str(data_dir))
    run = driver(*command)
    assert run.ended() == 7, run.said()
    full(run.said(), study)
    before = ended(study)
    assert before, "some had finished"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = driver(*command, *INLINE)
    assert again.ended() == 0, again.said()
    after = ended(study)
    assert sorted(after) == [0, 1, 2, 3]
    assert {number: after[number] for number in before} == before


# While new seeds decide, and while the winner is trained to the end


def phase(study: Path) -> str:
    """Return which part of a search runs, by its database and the logs of its trainings."""
    with contextlib.suppress(sqlite3.Error, OSError):
        if not (study / "study.db").exists():
            return ""
        with contextlib.closing(sqlite3.connect(study / "study.db")) as database:
            found = database.execute(
                "select study_name from studies join trials using (study_id) where state = 'RUNNING'"
            ).fetchall()
        names = {name for (name,) in found}
        return next((part for part in ("finish", "confirm") if any(name.endswith(part) for name in names)), "search")
    return ""


def told_of(path: Path) -> dict:
    """Return what a study says, without what depends on how fast it went."""
    study = Study(path)
    runs = {(run.user_attrs["of"], run.user_attrs.get("seed")): run.value for run in [*study.runs(), *study.finishes()]}
    return {
        "verdict": study.verdict(),
        "runs": runs,
        "winner": study.winner().number,
        "run": Run.open(str(path)).path.name,
    }


def test_a_kill_while_confirming_and_while_finishing_changes_nothing(data_dir, tmp_path, driver):
    settings = {
        "tune.epochs": 2, "tune.confirm": "{top: 1, seeds: 2, epochs: 30}", "train.epochs": 120, "tune.finish": "full",
        "train.threads": 1,
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    base = ("tune", "gan14", *TINY, *sets, "--trials", "2", "--engine", "inline", "--data-dir", str(data_dir))
    whole = driver(*base, "--out", "whole")
    assert whole.ended() == 0, whole.said()
    command = (*base, "--out", "s")
    for part in ("confirm", "finish"):
        run = driver(*command)
        run.until(lambda part=part: phase(tmp_path / "s") == part)
        time.sleep(0.5)
        run.process.kill()
        run.process.wait()
    last = driver(*command)
    assert last.ended() == 0, last.said()
    assert told_of(tmp_path / "s") == told_of(tmp_path / "whole")
