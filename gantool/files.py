"""Files that are whole or absent, and locks, so that two processes do not write the same files.

The lock is the operating system's and ends with its process, however that ends: none is ever left behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from gantool.errors import DiskError, ResourceError, RunError


class BusyError(RunError):
    """Another process, or another thread of this one, holds the lock; `holder` names it."""

    def __init__(self, place: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(f"{place}: in use by {holder}; wait for it, or end it")


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait: float = 0.0) -> Iterator[None]:
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


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock."""
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


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Return a place to write a file aside; when the block ends well it is synced and takes the name `path`.

    Whatever happens, `path` holds either all of the old file or all of the new one.

    Raises:
        DiskError: the disk is full, or the folder is gone or cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise disk(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Return whether a file is there; a name that the system refuses, such as one too long, is none."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises on such a name


def is_directory(path: Path) -> bool:
    """Return whether a directory exists; a name that the system refuses is none."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises on such a name


def write(path: Path, text: str) -> None:
    """Write a small text file so that it is whole or absent."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def alive(pid: int) -> bool:
    """Return whether a process with this number runs on this machine."""
    if pid <= 0:
        return False
    if sys.platform == "win32":  # where os.kill(pid, 0) would end it
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        if not handle:
            return bool(ctypes.windll.kernel32.GetLastError() == 5)  # access denied: it runs as somebody else
        ended = ctypes.windll.kernel32.WaitForSingleObject(handle, 0) == 0
        ctypes.windll.kernel32.CloseHandle(handle)
        return not ended
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disk(path: Path, error: OSError) -> DiskError:
    """Return the error for a file or folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskError(f"{path}: the disk is full; make room and start again, a run with --resume")
    return DiskError(f"{path}: cannot be written ({error.strerror or error}); check the folder and its permissions")
