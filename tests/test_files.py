from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import gantool
import pytest
from gantool.errors import ResourceError, RunError
from gantool.files import BusyError, exclusive_lock

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

HOLD = """
import sys, time
from pathlib import Path
from gantool.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from gantool.files import exclusive_lock
number = Path(sys.argv[2])
for _ in range(50):
    with exclusive_lock(Path(sys.argv[1]), wait=30):
        number.write_text(str(int(number.read_text()) + 1))
"""


class StopError(Exception):
    pass


def child(code, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(gantool.__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def seen(folder):
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_a_lock_names_its_process_while_the_block_runs(tmp_path):
    with exclusive_lock(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}

    assert seen(tmp_path) == []


def test_a_lock_is_given_back_by_an_error(tmp_path):
    with pytest.raises(StopError), exclusive_lock(tmp_path / "lock"):
        raise StopError

    with exclusive_lock(tmp_path / "lock"):
        pass


def test_another_process_is_kept_out_and_told_who_holds_it(tmp_path):
    with child(HOLD, tmp_path / "lock") as process:
        assert process.stdout.readline() == "held\n"
        holder = f"process {process.pid} on {socket.gethostname()}"
        message = re.escape(f"{tmp_path}: in use by {holder}; wait for it, or end it")

        with pytest.raises(RunError, match=f"^{message}$") as caught, exclusive_lock(tmp_path / "lock"):
            pass

        assert caught.value.holder == holder
        assert json.loads((tmp_path / "lock").read_text())["pid"] == process.pid
        process.communicate("")

    with exclusive_lock(tmp_path / "lock"):
        pass


def test_a_waiting_process_has_its_turn(tmp_path):
    with child(HOLD, tmp_path / "lock") as process:
        assert process.stdout.readline() == "held\n"
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


def test_processes_that_take_turns_lose_nothing(tmp_path):
    number = tmp_path / "number"
    number.write_text("0")
    workers = [child(COUNT, tmp_path / "lock", number) for _ in range(4)]
    for worker in workers:
        worker.communicate(timeout=60)

    assert [worker.returncode for worker in workers] == [0] * 4
    assert number.read_text() == "200"


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
        pytest.raises(ResourceError, match=r"lock: cannot be written \(.+\); check the folder"),
        exclusive_lock(tmp_path / "lock"),
    ):
        pass

    (tmp_path / name).rmdir()
    with exclusive_lock(tmp_path / "lock"):
        pass


def test_a_lock_below_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ResourceError, match="cannot be written"), exclusive_lock(tmp_path / "file" / "lock"):
        pass


def test_a_folder_that_goes_while_it_is_locked_is_no_error(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with exclusive_lock(folder / "lock"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
