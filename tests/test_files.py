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
from gantool.errors import DiskError, RunError
from gantool.files import BusyError, atomic_write, exclusive_lock, is_file, is_locked, write

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


@pytest.mark.parametrize("name", ["lock", ".lock"])
def test_a_lock_that_cannot_be_written_is_told(tmp_path, name):
    (tmp_path / name).mkdir()

    with (
        pytest.raises(DiskError, match=r"lock: cannot be written \(.+\); check the folder"),
        exclusive_lock(tmp_path / "lock"),
    ):
        pass

    (tmp_path / name).rmdir()
    with exclusive_lock(tmp_path / "lock"):
        pass


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
    with pytest.raises(DiskError, match=r"a: cannot be written \(No such file or directory\); check the folder"):
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
