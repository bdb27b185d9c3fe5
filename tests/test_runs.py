from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from gantool import files
from gantool.errors import ResourceError, RunError
from gantool.files import alive, atomic_write, write
from gantool.runs import Run, environment, find_directory, make_directory

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
OLD = "the old text\n" * 100


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# --- files that are whole or absent -------------------------------------------------------------------------


def test_a_file_is_written_whole_with_the_same_bytes_everywhere(tmp_path):
    write(tmp_path / "a", "ä\n개\n")

    assert (tmp_path / "a").read_bytes() == "ä\n개\n".encode()
    assert names(tmp_path) == ["a"]


class StopError(Exception):
    """What a block under test raises."""


@pytest.mark.parametrize("error", [StopError(), KeyboardInterrupt()])
def test_an_error_in_the_block_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    (tmp_path / "a").write_text(OLD)

    with pytest.raises(type(error)), atomic_write(tmp_path / "a") as aside:  # noqa: PT012
        aside.write_text("half")
        raise error

    assert (tmp_path / "a").read_text() == OLD
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_disk_that_fails_at_the_end_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, broken):
    (tmp_path / "a").write_text(OLD)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, broken, fail)
    message = re.escape(f"{tmp_path / 'a'}: cannot be written (Input/output error); check the folder")
    with pytest.raises(ResourceError, match=message):
        write(tmp_path / "a", "new")
    monkeypatch.undo()

    assert (tmp_path / "a").read_text() == OLD
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_as_such(tmp_path, number):
    with (
        pytest.raises(ResourceError, match=r"a: the disk is full; make room and start again, a run with --resume$"),
        atomic_write(tmp_path / "a"),
    ):
        raise OSError(number, "full")


@posix
def test_a_disk_that_fills_up_keeps_the_old_file_and_leaves_nothing(tmp_path):
    (tmp_path / "a").write_text(OLD)
    script = """
        import resource, signal, sys
        from pathlib import Path
        from gantool.errors import ResourceError
        from gantool.files import write

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            write(Path(sys.argv[1]), "x" * 100_000)
        except ResourceError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "the disk is full" in done.stdout
    assert (tmp_path / "a").read_text() == OLD
    assert names(tmp_path) == ["a"]


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(ResourceError, match=r"a: cannot be written \(No such file or directory\); check the folder"):
        write(tmp_path / "gone" / "a", "x")


# --- directories --------------------------------------------------------------------------------------------


def test_a_run_has_its_files(inside):
    run = Run.create("name: x\n", name="gan")

    assert run.path == Path("runs/gan-001")
    assert names(run.path) == ["checkpoints", "environment.json", "recipe.yaml", "samples"]
    assert (run.path / "recipe.yaml").read_text() == "name: x\n"
    assert json.loads((run.path / "environment.json").read_text()) == environment()


def test_a_run_remembers_its_data_directory_while_it_exists(inside):
    run, before = Run.create("", name="gan"), environment()
    assert run.data_dir is None
    (inside / "data").mkdir()

    run.remember(Path("data"))
    assert run.data_dir == inside / "data"
    assert json.loads((run.path / "environment.json").read_text()) == before | {"data_dir": str(inside / "data")}

    (inside / "data").rmdir()
    assert run.data_dir is None


@pytest.mark.parametrize("content", [None, "no JSON", "[1]", '{"data_dir": 3}'])
def test_a_run_without_a_readable_data_directory_has_none(inside, content):
    run = Run.create("", name="gan")
    (run.path / "environment.json").unlink()
    if content is not None:
        (run.path / "environment.json").write_text(content)

    assert run.data_dir is None
    run.remember(inside)
    assert run.data_dir == inside


def test_the_environment_names_what_decides_a_result():
    about = environment()

    assert {"python", "system", "processor", "cores", "packages"} == set(about)
    assert {"gantool", "torch", "numpy", "pillow"} <= set(about["packages"])


def test_runs_of_all_recipes_are_numbered_in_one_row(inside):
    made = [Run.create("", name=name).path.name for name in ("a", "b", "a", "a-7x")]
    (inside / "runs" / "b-041").mkdir()
    for name in ("b-12345678901", "b-x", "b-\u00b2"):  # a date, and what is no number
        (inside / "runs" / name).mkdir()

    assert made == ["a-001", "b-002", "a-003", "a-7x-004"]
    assert Run.create("", name="a").path.name == "a-042"
    assert make_directory(None, "study").name == "study-043"


def test_two_that_start_at_once_get_two_directories(inside, monkeypatch):
    (inside / "runs").mkdir()
    real = Path.iterdir

    def late(path):
        found = list(real(path))
        (inside / "runs" / "a-001").mkdir(exist_ok=True)  # another process is quicker
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", late)

    assert make_directory(None, "a").name == "a-002"


def test_a_run_goes_where_it_is_told_to(inside):
    (inside / "empty").mkdir()

    assert Run.create("", name="a", out=Path("deep/er/run")).path == Path("deep/er/run")
    assert Run.create("", name="a", out=Path("empty")).path == Path("empty")


def test_a_directory_that_holds_something_is_refused_and_stays(inside):
    (inside / "full").mkdir()
    (inside / "full" / "mine.txt").write_text("mine")
    (inside / "file").write_text("mine")

    with pytest.raises(RunError, match=r"^full: already holds something; name a new directory with --out, or resume "):
        Run.create("", name="a", out=Path("full"))
    with pytest.raises(RunError, match=r"^file: is a file; name a new directory with --out, or resume with --resume$"):
        Run.create("", name="a", out=Path("file"))

    assert names(inside / "full") == ["mine.txt"]
    assert (inside / "file").read_text() == "mine"


def test_a_place_where_no_directory_can_be_is_told(inside):
    (inside / "file").write_text("mine")
    (inside / "runs").write_text("mine")

    with pytest.raises(ResourceError, match=r"^file/x: cannot be written \(Not a directory\)|^file.x: cannot be"):
        Run.create("", name="a", out=Path("file/x"))
    with pytest.raises(ResourceError, match=r"^runs: cannot be written \(File exists\)"):
        Run.create("", name="a")


def test_a_run_is_found_by_path_by_name_or_as_the_newest(inside):
    old, new = Run.create("", name="b"), Run.create("", name="a")
    os.utime(old.path)  # copied or touched does not make it newer

    assert Run.open("runs/b-001").path == Path("runs/b-001")
    assert Run.open(str(inside / "runs" / "b-001")).path == inside / "runs" / "b-001"
    assert Run.open("b-001").path == old.path
    assert Run.open(None).path == new.path


def test_the_newest_of_a_recipe_is_none_of_a_longer_name(inside):
    Run.create("", name="gan")
    newest = Run.create("", name="gan")
    Run.create("", name="gan-big")
    (inside / "runs" / "gan-007").mkdir()  # no run is in it
    (inside / "runs" / "gan-old").mkdir()
    (inside / "runs" / "gan-old" / "recipe.yaml").touch()

    assert Run.newest("gan").path == newest.path
    assert Run.newest("gan-big").path.name == "gan-big-003"
    assert Run.newest("g") is None
    assert Run.newest("[") is None


def test_where_there_is_no_run_it_is_said_how_to_make_one(inside):
    with pytest.raises(RunError, match=r"^runs: no run here yet; make one with: gantool train RECIPE$"):
        Run.open(None)
    with pytest.raises(RunError, match=r"^x: no run of this name and no directory with a recipe.yaml; make one with: "):
        Run.open("x")
    (inside / "file").touch()
    with pytest.raises(RunError, match=r"^file: no run of this name"):
        Run.open("file")
    with pytest.raises(RunError, match=r"^x{300}: no run of this name"):
        Run.open("x" * 300)
    with pytest.raises(RunError, match=r"^runs: no study here yet; make one with: gantool tune RECIPE$"):
        find_directory(None, "study.json", "study", "gantool tune RECIPE")


def test_the_runs_that_are_there_are_named(inside):
    for _ in range(10):
        Run.create("", name="a")

    with pytest.raises(
        RunError, match=r"; here are: a-003, a-004, a-005, a-006, a-007, a-008, a-009, a-010 and 2 more$"
    ):
        Run.open("b")


# --- the log ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    return Run.create("", name="a", out=tmp_path / "run")


def test_the_log_gives_back_what_went_in(run):
    assert run.entries() == []
    rows = [{"epoch": epoch, "metrics/fd": epoch / 3} for epoch in (1, 2, 3)]
    for row in rows:
        run.log(row)

    assert run.entries() == rows
    assert (run.path / "log.jsonl").read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("cut", [1, 5, 13])
def test_a_torn_last_line_is_no_entry(run, cut):
    run.log({"epoch": 1})
    run.log({"epoch": 2})
    path = run.path / "log.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])

    assert [entry["epoch"] for entry in run.entries()] == ([1, 2] if cut == 1 else [1])


def test_a_rewound_log_goes_on_after_a_torn_line(run):
    for epoch in (1, 2, 3):
        run.log({"epoch": epoch})
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "ima')
    run.rewind(2)
    run.log({"epoch": 3})

    assert [entry["epoch"] for entry in run.entries()] == [1, 2, 3]
    run.rewind(0)
    assert run.entries() == []
    assert (run.path / "log.jsonl").read_bytes() == b""


def test_a_log_that_cannot_be_written_is_told(run):
    (run.path / "log.jsonl").mkdir()

    with pytest.raises(ResourceError, match=r"log.jsonl: cannot be written \("):
        run.log({"epoch": 1})


# --- the lock -----------------------------------------------------------------------------------------------


def test_a_run_that_is_locked_refuses_a_second_training(run):
    message = re.escape(
        f"{run.path}: in use by process {os.getpid()} on {socket.gethostname()}; wait for it, or end it"
    )

    with run.lock(), pytest.raises(RunError, match=f"^{message}$"), run.lock():
        pass

    with run.lock():
        pass


def test_a_run_that_is_locked_sweeps_what_a_killed_process_left(run):
    left = [run.path / ".log.jsonl.123.part", run.checkpoints / ".next.pt.123.part"]
    kept = [run.path / ".gitignore", run.checkpoints / "best.pt", run.checkpoints / "my.part"]
    for path in left + kept:
        path.touch()

    with run.lock():
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_process_that_runs_is_alive():
    assert alive(os.getpid())
    assert alive(os.getppid())
    assert not alive(dead_pid())
    assert not alive(0)
    assert not alive(10**30)


def test_a_name_that_no_system_takes_is_no_file(tmp_path):
    assert not files.is_file(tmp_path / ("x" * 5000))
    assert not files.is_file(tmp_path)
    assert not files.is_file(Path("a\0b"))
