"""Atomic writes, and locks between processes.

A lock is one of the operating system's. It ends with its process, however that process ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from gantool.errors import DiskError, RunError


class BusyError(RunError):
    """Another process or thread holds the lock; `holder` names it."""

    def __init__(self, place: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(f"{place}: in use by {holder}; wait for it, or end it")


def disk(path: Path, error: OSError) -> DiskError:
    """Return the error for a file or directory that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskError(f"{path}: the disk is full; make room and start again, a run with --resume")
    return DiskError(f"{path}: cannot be written ({error.strerror or error}); check the folder and its permissions")


@contextlib.contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path, and rename that file to `path` when the block succeeds.

    `path` always holds either the whole old file or the whole new one.

    Args:
        path: the file.
        sync: whether the new file is on the disk before it takes the place of the old one.

    Raises:
        DiskError: the block, or the renaming, raised an OSError.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        if sync:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        aside.replace(path)
        if sync and os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise disk(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def is_file(path: Path) -> bool:
    """Return whether a file exists; False for a name that the system refuses, such as one that is too long."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises on such a name


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs, against other processes and other threads of this one.

    Args:
        path: names the holder in JSON while the lock is held. The system locks an empty file beside it, whose name
            starts with a dot. That file stays: if it were deleted, two processes could lock one each.
        wait: seconds to wait for the holder.

    Raises:
        BusyError: the lock is still held after that time.
        DiskError: the directory cannot be written.
    """
    lock = _lock(path, wait)
    try:
        lock.acquire()
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
    except Timeout:
        raise BusyError(path.parent, _holder(path)) from None
    except OSError as error:
        lock.release()
        raise disk(path, error) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the directory is gone, or on Windows the file is being read
            path.unlink(missing_ok=True)
        lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock."""
    lock = _lock(path, 0)
    try:
        if Path(lock.lock_file).exists():
            lock.acquire()
    except Timeout:
        return True
    except OSError:  # the directory cannot be written, so that no process can hold a lock in it
        return False
    lock.release()
    return False


def _lock(path: Path, wait: float) -> FileLock:
    return FileLock(path.with_name(f".{path.name}"), timeout=wait, thread_local=False)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is being written or removed
        return "another process"
