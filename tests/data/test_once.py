"""Files and directories that are made once: whole or not at all, by one process at a time."""

from __future__ import annotations

import errno

import pytest
from gantool.data import once as module
from gantool.data.once import folder_once
from gantool.errors import DataError, ResourceError

from processes import child, posix, visible

MAKE = """
    import sys
    from pathlib import Path
    from gantool.data.once import folder_once

    path = Path(sys.argv[1])
    with folder_once(path, "draws", path.exists, otherwise="") as new:
        if new:
            (new / "half").touch()
            print("started", flush=True)
            sys.stdin.readline()
    print("made" if new else "found")
"""


def make(path, action=lambda _: None):
    with folder_once(path, "draws", (path / "mark").exists, otherwise="is something else") as new:
        if new:
            (new / "mark").touch()
            action(new)


def fail(error):
    def action(_):
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (MemoryError(), MemoryError, None),
        (OSError(errno.ENOSPC, "No space"), ResourceError, "a: the disk is full; make room and start again, a run"),
        (OSError(errno.EROFS, "Read-only"), ResourceError, r"a: cannot be written \(Read-only\); check the folder"),
    ],
)
def test_a_failure_leaves_nothing(tmp_path, error, raised, message):
    with pytest.raises(raised, match=message):
        make(tmp_path / "deep" / "a", fail(error))
    assert visible(tmp_path / "deep") == []


def test_a_directory_that_exists_is_neither_made_again_nor_overwritten(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "a", fail(AssertionError))
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b: is something else$"):
        make(tmp_path / "b")
    with pytest.raises(ResourceError, match=r"c: cannot be written \(.+\); check"):  # it appears meanwhile
        make(tmp_path / "c", lambda _: (tmp_path / "c" / "mine").mkdir(parents=True))
    assert visible(tmp_path) == ["a", "b", "c"]
    assert visible(tmp_path / "c") == ["mine"]


def test_two_processes_that_want_the_same_directory_both_get_it_and_one_makes_it(tmp_path):
    with child(MAKE, tmp_path / "a") as first:
        assert first.stdout.readline() == "started\n"
        with child(MAKE, tmp_path / "a") as second:
            assert first.communicate("go\n")[0] == "made\n"
            assert second.communicate()[0] == "found\n"
    assert visible(tmp_path) == ["a"]


@posix
def test_a_process_that_makes_it_is_named_and_after_it_is_killed_the_next_one_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0.1)
    with child(MAKE, tmp_path / "a") as process:
        assert process.stdout.readline() == "started\n"
        with pytest.raises(ResourceError, match=rf"a: process {process.pid} on .* still draws it; wait for it, or end"):
            make(tmp_path / "a")
        process.kill()
    assert visible(tmp_path) == ["a.lock"]
    assert len(list(tmp_path.glob(".a.*.part"))) == 1
    make(tmp_path / "a")
    assert (visible(tmp_path), visible(tmp_path / "a")) == (["a"], ["mark"])
    assert list(tmp_path.glob(".a.*.part")) == []


SHARE = """
    import socket, sys
    from pathlib import Path
    from gantool import files
    from gantool.data.once import folder_once

    socket.gethostname = lambda: sys.argv[2]
    files.FileLock.acquire = lambda *_, **__: None  # as on a network file system without locks between machines
    path = Path(sys.argv[1])
    with folder_once(path, "draws", path.exists, otherwise="") as new:
        if new:
            (new / "whole").write_text("half")
            print("started", flush=True)
            sys.stdin.readline()
            (new / "whole").write_text("whole")
    print("made" if new else "found")
"""


def test_two_machines_that_share_a_folder_without_locks_do_not_break_each_other(tmp_path):
    with child(SHARE, tmp_path / "a", "one") as first, child(SHARE, tmp_path / "a", "two") as second:
        assert [process.stdout.readline() for process in (first, second)] == ["started\n"] * 2
        for process in (first, second):
            assert process.communicate("go\n")[0] == "made\n"
            assert (tmp_path / "a" / "whole").read_text() == "whole"
    assert list(tmp_path.glob(".*.part")) == []
