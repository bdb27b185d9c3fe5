from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from pathlib import Path

import pytest
from gantool.errors import CheckpointError, DiskError, ResourceError, RunError
from gantool.runs import Run, environment, find_directory, make_directory

from disks import FailingDisk


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Directories


def test_a_run_has_its_files(inside):
    run = Run.create("name: x\n", name="gan")

    assert run.path == Path("runs/gan-001")
    assert names(run.path) == [".lock", "checkpoints", "environment.json", "recipe.yaml", "samples"]
    assert (run.path / "recipe.yaml").read_text() == "name: x\n"
    assert json.loads((run.path / "environment.json").read_text()) == environment()


def test_a_run_remembers_its_data_directory_while_it_exists(inside):
    run, before = Run.create("", name="gan"), environment()
    assert run.data_dir is None
    (inside / "data").mkdir()

    used = {"torch": "2.10.0", "device": "cpu"}
    assert run.remember(Path("data"), used) == []
    assert run.data_dir == inside / "data"
    known = json.loads((run.path / "environment.json").read_text())
    assert known == before | {"data_dir": str(inside / "data"), "numerics": used}
    assert run.remember(Path("data"), used | {"torch": "2.11.0"}) == ["torch 2.10.0"]
    assert run.remember(Path("data"), used | {"torch": "2.11.0"}) == []

    (inside / "data").rmdir()
    assert run.data_dir is None


@pytest.mark.parametrize("content", [None, "no JSON", "[1]", '{"data_dir": 3}'])
def test_a_run_without_a_readable_data_directory_has_none(inside, content):
    run = Run.create("", name="gan")
    (run.path / "environment.json").unlink()
    if content is not None:
        (run.path / "environment.json").write_text(content)

    assert run.data_dir is None
    assert run.remember(inside, {"torch": "2.10.0"}) == []
    assert run.data_dir == inside


def test_the_best_entry_has_the_lowest_finite_value_also_if_that_is_zero(inside):
    run = Run.create("", name="cnn")
    assert run.best("error") == {}
    for epoch, value in enumerate((0.5, None, float("nan"), 0.0, float("-inf"), 0.1), 1):
        run.log({"epoch": epoch, "metrics/error": value})
    run.log({"epoch": 7})
    assert run.best("error")["epoch"] == 4


def test_the_environment_names_what_decides_a_result():
    about = environment()

    assert {"python", "system", "processor", "cores", "packages"} == set(about)
    assert {"gantool", "torch", "numpy", "pillow"} <= set(about["packages"])


def test_runs_of_all_recipes_share_one_count_also_if_two_start_at_once(inside, monkeypatch):
    made = [Run.create("", name=name).path.name for name in ("a", "b", "a", "a-7x")]
    (inside / "runs" / "b-041").mkdir()
    for name in ("b-12345678901", "b-x", "b-\u00b2"):  # a date, and endings that are no numbers
        (inside / "runs" / name).mkdir()

    assert made == ["a-001", "b-002", "a-003", "a-7x-004"]
    assert Run.create("", name="a").path.name == "a-042"
    assert make_directory(None, "study").name == "study-043"
    real = Path.iterdir

    def late(path):
        found = list(real(path))
        (inside / "runs" / "a-044").mkdir(exist_ok=True)  # another process is quicker
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", late)
    assert make_directory(None, "a").name == "a-045"


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


def test_of_two_starts_at_once_in_one_directory_one_wins_and_nothing_is_lost(inside):
    for attempt in range(20):
        results = []
        barrier = threading.Barrier(2)

        def start(name, out=Path(f"run-{attempt}"), results=results, barrier=barrier):
            barrier.wait()
            try:
                results.append(Run.create(name, name=name, out=out))
            except RunError as error:
                results.append(error)

        threads = [threading.Thread(target=start, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (made,) = [result for result in results if isinstance(result, Run)]
        assert (made.path / "recipe.yaml").read_text() in ("a", "b")


def test_a_start_that_was_killed_before_its_recipe_does_not_block_the_directory(inside):
    run = Run.create("", name="a", out=Path("x"))
    (run.path / "recipe.yaml").rename(run.path / ".recipe.yaml.123.part")
    assert (Run.create("again", name="a", out=Path("x")).path / "recipe.yaml").read_text() == "again"

    (run.path / "recipe.yaml").unlink()
    (run.checkpoints / "last.pt").touch()
    with pytest.raises(RunError, match="x: already holds something"):
        Run.create("", name="a", out=Path("x"))


def test_a_run_that_cannot_be_written_leaves_no_directory(inside):
    ended = []
    for at in range(1, 60):
        out, disk = Path(f"{at}"), FailingDisk(inside, at, forever=True)
        with disk.mounted(), contextlib.suppress(DiskError):
            Run.create("text", name="a", out=out)
        if not disk.failed:
            break
        ended.append((out / "recipe.yaml").exists())
        assert ended[-1] or not out.exists() or set(names(out)) <= {".lock"}
    assert ended.index(True) > 10
    assert all(ended[ended.index(True) :]), "later there is nothing left to write but names of locks"


def test_a_new_run_is_discarded_unless_it_has_trained_or_another_process_has_it(inside):
    run = Run.create("", name="a")
    with run.lock():
        run.discard()
        assert (run.path / "recipe.yaml").exists()
    run.log({"epoch": 1})
    run.discard()
    assert (run.path / "recipe.yaml").exists()
    run.rewind(0)
    run.discard()
    assert not run.path.exists()


def test_a_run_is_found_by_path_by_name_or_as_the_newest(inside):
    old, new = Run.create("", name="b"), Run.create("", name="a")
    os.utime(old.path)  # copied or touched does not make it newer

    assert Run.open("runs/b-001").path == Path("runs/b-001")
    assert Run.open(str(inside / "runs" / "b-001")).path == inside / "runs" / "b-001"
    assert Run.open("b-001").path == old.path
    assert Run.open(None).path == new.path


def test_the_newest_run_may_be_the_winner_of_a_study_but_that_is_not_resumed(inside):
    trained = Run.create("", name="a")
    study = Run.create("", name="b")
    (study.path / "study.json").write_text("{}")
    assert Run.open(None).path == trained.path, "a study without a winner"

    winner = Run.create("", name="0001", out=study.path / "trials" / "0001")
    (study.path / "study.json").write_text(json.dumps({"run": "trials/0001"}))

    assert Run.open(None).path == winner.path
    (inside / "runs" / "old-000").mkdir()
    for name in ("recipe.yaml", "study.json"):
        (inside / "runs" / "old-000" / name).write_text("damaged")
    assert Run.open(None).path == winner.path, "an older study that is damaged does not matter"
    assert Run.newest().path == trained.path
    assert Run.newest("b") is None


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


def test_lines_that_are_no_entries_of_a_log_are_left_out_with_a_warning(inside, logged):
    run = Run.create("", name="a")
    good = [{"epoch": 1, "seconds": 2.0, "metrics/fd": 3, "diagnoses": []}, {"epoch": 2, "metrics/fd": None}]
    bad = ["123", "[]", "null", "{", '{"epoch": "1"}', '{"epoch": 0}', '{"epoch": 3, "metrics/fd": "4"}',
           '{"epoch": 3, "seconds": []}', '{"epoch": 3, "diagnoses": 1}', "\udcff", "[" * 100_000]  # fmt: skip
    lines = [json.dumps(good[0]), *bad, json.dumps(good[1]), '{"epoch": 3, "metr']
    (run.path / "log.jsonl").write_bytes("\n".join(lines).encode(errors="surrogateescape"))

    assert run.entries() == good
    assert logged == [f"{run.path / 'log.jsonl'}: line {2 + n} is no entry of a log; it is left out" for n in range(11)]
    run.rewind(1)
    assert run.entries() == good[:1]

    (run.path / "log.jsonl").unlink()
    (run.path / "log.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"log.jsonl: cannot be read \("):
        run.entries()


@pytest.mark.parametrize("place", ["../../elsewhere", "/etc", 5, ["a"], True])
def test_a_study_that_names_a_run_outside_of_it_is_damaged(inside, place):
    study = Run.create("", name="a")
    (study.path / "study.json").write_text(json.dumps({"run": place}))
    with pytest.raises(RunError, match=r"study.json: is damaged; restore a copy, or name one of its trials$"):
        Run.open("a-001")


def test_without_a_run_the_message_says_how_to_make_one_and_lists_the_last_ones(inside):
    for place, message in (
        (None, r"^runs: no run here yet; make one with: gantool train RECIPE$"),
        ("x", r"^x: no run of this name and no directory with a recipe.yaml; make one with: "),
        ("file", r"^file: no run of this name"),
        ("x" * 300, r"^x{300}: no run of this name"),
    ):
        (inside / "file").touch()
        with pytest.raises(RunError, match=message):
            Run.open(place)
    with pytest.raises(RunError, match=r"^runs: no study here yet; make one with: gantool tune RECIPE$"):
        find_directory(None, "study.json", "study", "gantool tune RECIPE")
    for _ in range(10):
        Run.create("", name="a")
    with pytest.raises(RunError, match=r"; here are: a-003, .*, a-009, a-010 and 2 more$"):
        Run.open("b")


# The log


@pytest.fixture
def run(tmp_path):
    return Run.create("", name="a", out=tmp_path / "run")


def test_the_log_returns_its_entries(run):
    assert run.entries() == []
    rows = [{"epoch": epoch, "metrics/fd": epoch / 3} for epoch in (1, 2, 3)]
    for row in rows:
        run.log(row)

    assert run.entries() == rows
    assert (run.path / "log.jsonl").read_bytes().count(b"\n") == 3
    (run.path / "log.jsonl").unlink()
    (run.path / "log.jsonl").mkdir()
    with pytest.raises(ResourceError, match=r"log.jsonl: cannot be written \("):
        run.log({"epoch": 1})


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


# The lock


def test_a_locked_run_refuses_a_second_training_and_has_no_temporary_files(run):
    message = re.escape(f"{run.path}: in use by process {os.getpid()} on {socket.gethostname()}; wait for it")
    left = [run.path / ".log.jsonl.1.part", run.checkpoints / ".last.pt.1.part", run.samples / ".0001.png.1.part"]
    kept = [run.path / ".gitignore", run.checkpoints / "best.pt", run.checkpoints / "my.part"]
    for path in left + kept:
        path.touch()

    with run.lock(), pytest.raises(RunError, match=f"^{message}"), run.lock():
        pass

    with run.lock():
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)
