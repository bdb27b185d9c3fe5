"""What one process holds at a time, so that two do not write the same files.

The lock is the operating system's and ends with its process, however that ends: none is ever left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from gantool.errors import ResourceError, RunError


class BusyError(RunError):
    """Another process, or another thread of this one, holds the lock; `holder` names it."""

    def __init__(self, place: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(f"{place}: in use by {holder}; wait for it, or end it")


@contextlib.contextmanager
def alone(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs; threads of one process keep each other out too.

    Args:
        path: says as JSON who holds the lock, as long as it is held. What the system locks is an empty file beside it
            with a dot before its name, which stays: if it were deleted, two processes could have one each.
        wait: seconds to wait for whoever holds it.

    Raises:
        BusyError: it is still held after that time; the message names the process.
        ResourceError: its folder cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}"), timeout=wait, thread_local=False)
    try:
        lock.acquire()
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
    except Timeout:
        raise BusyError(path.parent, _holder(path)) from None
    except OSError as error:
        lock.release()
        said = error.strerror or error
        raise ResourceError(f"{path}: cannot be written ({said}); check the folder and its permissions") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder is gone, or on Windows somebody reads the file just now
            path.unlink(missing_ok=True)
        lock.release()


def held(path: Path) -> bool:
    """Tell whether a process holds the lock."""
    file = path.with_name(f".{path.name}")
    if not file.exists():
        return False
    lock = FileLock(file, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # nobody can write there
        return False
    lock.release()
    return False


def _holder(path: Path) -> str:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return f"process {held['pid']} on {held['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun, or is just ending
        return "another process"
