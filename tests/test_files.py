from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import gantool
import pytest
from gantool import files
from gantool.errors import DiskError, RunError
from gantool.files import (
    BusyError,
    append,
    atomic_folder,
    atomic_write,
    copy_folder,
    exclusive_lock,
    is_file,
    is_locked,
    keep,
    remove,
    sweep,
    write,
)

from disks import FailingDisk

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
OLD = "the old text\n" * 100

HOLD = """
import sys, time
from pathlib import Path
from gantool.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def child(code, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(gantool.__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def seen(folder):
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_a_lock_names_its_process_while_the_block_runs_and_is_released_by_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive_lock(tmp_path / "lock"):  # noqa: PT012
            assert json.loads((tmp_path / "lock").read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
            assert is_locked(tmp_path / "lock")
            raise ZeroDivisionError
        assert seen(tmp_path) == []
        assert not is_locked(tmp_path / "lock")


def test_another_process_is_kept_out_learns_who_holds_the_lock_and_can_wait_for_it(tmp_path):
    with child(HOLD, tmp_path / "lock") as process:
        assert process.stdout.readline() == "held\n"
        holder = f"process {process.pid} on {socket.gethostname()}"
        message = re.escape(f"{tmp_path}: in use by {holder}; wait for it, or end it")

        with pytest.raises(RunError, match=f"^{message}$") as caught, exclusive_lock(tmp_path / "lock"):
            pass

        assert caught.value.holder == holder
        assert json.loads((tmp_path / "lock").read_text())["pid"] == process.pid
        assert is_locked(tmp_path / "lock")
        ending = threading.Timer(0.2, process.stdin.close)
        ending.start()
        begun = time.monotonic()
        with exclusive_lock(tmp_path / "lock", wait=20):
            assert time.monotonic() - begun > 0.1
        ending.join()


def test_waiting_ends(tmp_path):
    begun = time.monotonic()

    with exclusive_lock(tmp_path / "lock"), pytest.raises(BusyError), exclusive_lock(tmp_path / "lock", wait=0.2):
        pass

    assert time.monotonic() - begun >= 0.2


@posix
def test_a_killed_process_holds_nothing(tmp_path):
    with child(HOLD, tmp_path / "lock") as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
    assert seen(tmp_path) == ["lock"]

    with exclusive_lock(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()

    assert seen(tmp_path) == []


def test_a_thread_keeps_another_out(tmp_path):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        with exclusive_lock(tmp_path / "lock", wait=20):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_a_block_may_end_in_another_thread(tmp_path):
    held = exclusive_lock(tmp_path / "lock")
    held.__enter__()
    thread = threading.Thread(target=held.__exit__, args=(None, None, None))
    thread.start()
    thread.join()

    with exclusive_lock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
def test_a_holder_that_is_not_written_yet_is_another_process(tmp_path, text):
    with exclusive_lock(tmp_path / "lock"):
        (tmp_path / "lock").write_text(text)

        with pytest.raises(BusyError, match=r": in use by another process; wait"), exclusive_lock(tmp_path / "lock"):
            pass


def test_a_lock_that_cannot_be_taken_is_told(tmp_path, monkeypatch):
    def missing(_):
        raise NotImplementedError

    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(DiskError, match=r"lock: cannot be written \(.+\); check the folder"),
        exclusive_lock(tmp_path / "lock"),
    ):
        pass
    (tmp_path / ".lock").rmdir()
    monkeypatch.setattr(files.FileLock, "acquire", missing)
    message = f"^{re.escape(str(tmp_path))}: its file system has no locks; use a folder on another one$"
    with pytest.raises(DiskError, match=message), exclusive_lock(tmp_path / "lock"):
        pass


def test_a_lock_on_a_full_disk_has_no_name_and_works(tmp_path):
    with FailingDisk(tmp_path, 3, forever=True).mounted() as disk, exclusive_lock(tmp_path / "lock"):
        assert {path for kind, path in disk.failed if kind == "write"} == {str(tmp_path / "lock")}
        disk.forever = False
        with pytest.raises(BusyError, match="in use by another process"), exclusive_lock(tmp_path / "lock"):
            pass
    assert seen(tmp_path) == []


def test_a_folder_that_goes_while_it_is_locked_is_no_error(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with exclusive_lock(folder / "lock"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


# Atomic writes


def test_a_file_is_written_with_the_same_bytes_on_every_system(tmp_path):
    write(tmp_path / "a", "ä\n개\n")

    assert (tmp_path / "a").read_bytes() == "ä\n개\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ZeroDivisionError("x"), ZeroDivisionError, "x"),
        (KeyboardInterrupt("x"), KeyboardInterrupt, "x"),
        (OSError(errno.EIO, "I/O"), DiskError, r"a: cannot be written \(I/O\); check the folder and its permissions$"),
        *(
            (
                OSError(number, "full"),
                DiskError,
                r"a: the disk is full; make room and start again, a run with --resume$",
            )
            for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        ),
    ],
)
def test_an_error_in_the_block_keeps_the_old_file_and_leaves_nothing(tmp_path, error, kind, message, sync):
    (tmp_path / "a").write_text(OLD)

    with pytest.raises(kind, match=message), atomic_write(tmp_path / "a", sync=sync) as aside:  # noqa: PT012
        aside.write_text("half")
        raise error

    assert (tmp_path / "a").read_text() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_disk_that_fails_at_the_end_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, broken):
    (tmp_path / "a").write_text(OLD)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        message = re.escape(f"{tmp_path / 'a'}: cannot be written (Input/output error); check the folder")
        with pytest.raises(DiskError, match=message):
            write(tmp_path / "a", "new")

    assert (tmp_path / "a").read_text() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(DiskError, match=r"gone: no longer exists; it was deleted or moved meanwhile, so start anew$"):
        write(tmp_path / "gone" / "a", "x")


@posix
def test_a_disk_that_fills_up_keeps_the_old_file_and_leaves_nothing(tmp_path):
    (tmp_path / "a").write_text(OLD)
    script = """
        import resource, signal, sys
        from pathlib import Path
        from gantool.errors import DiskError
        from gantool.files import write

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            write(Path(sys.argv[1]), "x" * 100_000)
        except DiskError as error:
            print(error)
    """
    with child(textwrap.dedent(script), tmp_path / "a") as process:
        assert "the disk is full" in process.communicate()[0]

    assert (tmp_path / "a").read_text() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_that_no_system_takes_is_no_file(tmp_path):
    assert not any(map(is_file, (tmp_path / ("x" * 5000), tmp_path, Path("a\0b"))))


# Other machines, and other ways to write


def test_a_temporary_file_has_the_name_of_its_machine_and_a_random_part(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "my host.local")
    names = []
    for name in ("a", "x" * 250):
        for _ in range(2):
            with atomic_write(tmp_path / name) as aside:
                aside.touch()
                names.append(aside.name)
    assert len(set(names)) == 4, "two processes with the same number, in two containers, do not meet"
    assert all(re.fullmatch(r"\.a\.myhostlocal-[0-9a-f]{8}\.part", name) for name in names[:2])
    assert all(len(name) < 100 for name in names)


def test_what_a_killed_process_left_is_deleted_but_not_what_another_machine_may_still_write(tmp_path):
    own = f".a.{files._host()}-0123abcd.part"
    theirs, abandoned = ".a.elsewhere-0123abcd.part", ".a.elsewhere-4567abcd.part"
    for name in (own, theirs, abandoned, ".a.123.part", ".b.123.part", "a.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    past = time.time() - 2 * files.ABANDONED
    for path in (tmp_path / abandoned / "half", tmp_path / abandoned):
        os.utime(path, (past, past))

    sweep(tmp_path / "a")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([theirs, ".b.123.part", "a.part"])
    os.utime(tmp_path / theirs, (past, past))
    sweep(tmp_path / "a")
    assert (tmp_path / theirs).exists(), "a file in it has just been written"


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    append(tmp_path / "log", "one")
    with FailingDisk(tmp_path, 2).mounted(), pytest.raises(DiskError, match="log: the disk is full"):
        append(tmp_path / "log", "two")
    append(tmp_path / "log", "three")

    assert (tmp_path / "log").read_bytes() == b"one\nthree\n"


@pytest.mark.parametrize("links", [True, False])
def test_a_kept_file_stays_when_the_file_is_replaced(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    for text in ("one", "two"):
        write(tmp_path / "last", text)
        keep(tmp_path / "last", tmp_path / "previous")
    write(tmp_path / "last", "three")

    assert (tmp_path / "previous").read_text() == "two"
    assert seen(tmp_path) == ["last", "previous"]


def test_a_folder_is_copied_whole_or_not_at_all(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for place in (tmp_path / "a", tmp_path / "a" / "deep"):
        for number in range(20):
            (place / f"{number}").write_text(str(number))
    with FailingDisk(tmp_path, 30).mounted(), pytest.raises(DiskError, match="b: the disk is full"):
        copy_folder(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

    copy_folder(tmp_path / "a", tmp_path / "b")

    found = [{path.name: path.read_text() for path in (tmp_path / name / "deep").iterdir()} for name in "ab"]
    assert found[0] == found[1]
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "b") as aside:
        (aside / "x").touch()
    remove(tmp_path / "b")
    remove(tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
