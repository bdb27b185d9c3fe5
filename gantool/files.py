"""Everything that changes files: atomic writes, folders, deletions, and locks between processes.

No other room opens a file to write it. So every failure has one message and one exit code, and tests can let the disk
fail at each operation. A lock is one of the operating system's. It ends with its process, however that process ends.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from gantool.errors import DiskError, RunError

MAX_NAME = 150  # bytes of a name that the name of its temporary file repeats; systems allow 255 in all
MAX_SYNCED = 32  # files that are synced one by one
ABANDONED = 86400.0  # seconds without a change, after which the temporary file of another machine has no writer


class BusyError(RunError):
    """Another process or thread holds the lock; `holder` names it."""

    def __init__(self, place: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(f"{place}: in use by {holder}; wait for it, or end it")


def disk(path: Path, error: OSError) -> DiskError:
    """Return the error for a file or directory that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskError(f"{path}: the disk is full; make room and start again, a run with --resume")
    if error.errno == errno.ENOENT and not path.parent.exists():
        return DiskError(f"{path.parent}: no longer exists; it was deleted or moved meanwhile, so start anew")
    return DiskError(f"{path}: cannot be written ({error.strerror or error}); check the folder and its permissions")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise DiskError for `path` if the block raises an OSError."""
    try:
        yield
    except OSError as error:
        raise disk(path, error) from None


# Files


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
    aside = _aside(path)
    try:
        with disk_errors(path):
            yield aside
            if sync:
                _sync_file(aside)
            aside.replace(path)
            if sync:
                _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write a small file atomically."""
    with atomic_write(path, sync=sync) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def output(path: Path, content: str | bytes) -> list[Path]:
    """Write a file that the user asked for atomically, in a folder that need not exist.

    Returns:
        what is new: the folders, and the file unless it replaced another one. If writing fails, nothing is new.
    """
    made = [folder for folder in (*path.parents,)[::-1] if not os.path.lexists(folder)]
    is_new = not os.path.lexists(path)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content, sync=False)
    except BaseException:
        undo(made)
        raise
    return [*made, path] if is_new else made


def undo(made: Sequence[Path]) -> None:
    """Delete what `output` returned: files, and folders that are empty then."""
    for path in reversed(made):
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


@contextlib.contextmanager
def new_file(path: Path, *, append: bool = False, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that nobody reads yet, to be written in pieces.

    Raises:
        FileExistsError: the file exists, unless `append` continues it.
        OSError: the file cannot be written.
    """
    with path.open("ab" if append else "xb") as file:
        yield file
        file.flush()
        if sync:
            os.fsync(file.fileno())


def append(path: Path, line: str) -> None:
    """Append a line to a file. It is on the disk after `sync`, but not before."""
    content = f"{line}\n".encode()
    with disk_errors(path), path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)  # no half of a line
            raise


def sync(paths: Iterable[Path]) -> None:
    """Wait until these files, those of them that exist, and their names are on the disk."""
    found = [path for path in paths if path.exists()]
    for path in found:
        with disk_errors(path):
            _sync_file(path)
    for folder in dict.fromkeys(path.parent for path in found):
        _sync_folder(folder)


def copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with atomic_write(target) as aside:
        shutil.copyfile(source, aside)


def keep(source: Path, target: Path) -> None:
    """Link a second name to the content of a file, which keeps it when the file is replaced."""
    with atomic_write(target, sync=False) as aside:
        try:
            os.link(source, aside)
        except OSError:  # the file system has no links
            shutil.copyfile(source, aside)


def rename(old: Path, new: Path) -> None:
    """Rename a file or folder; a file takes the place of another one."""
    with disk_errors(new):
        old.replace(new)
        _sync_folder(new.parent)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, as far as the system allows."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Return whether a file exists; False for a name that the system refuses, such as one that is too long."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises on such a name


# Folders


def make_folder(path: Path, *, exist_ok: bool = True, sync: bool = True) -> None:
    """Make a folder and those above it; with `sync` they are on the disk afterwards.

    Raises:
        FileExistsError: it exists, unless `exist_ok`.
        DiskError: it cannot be made.
    """
    new = [folder for folder in (path, *path.parents) if not folder.exists()] if sync else []
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError as error:
        if not exist_ok:
            raise
        raise disk(path, error) from None
    except OSError as error:
        raise disk(path, error) from None
    for folder in new:
        _sync_folder(folder.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder, and rename it to `path` when the block succeeds.

    Everything in it is on the disk before it takes its name.

    Raises:
        OSError: the folder, or a file in it, cannot be written, or `path` exists.
    """
    aside = _aside(path)
    try:
        aside.mkdir()
        yield aside
        _sync_all(aside)
        aside.rename(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder with all that is in it; the new one is whole or absent."""
    with disk_errors(target), atomic_folder(target) as aside:
        for place in sorted(source.rglob("*")):
            to = aside / place.relative_to(source)
            if place.is_dir():
                to.mkdir()
            else:
                shutil.copyfile(place, to)


def sweep(path: Path) -> None:
    """Delete temporary files and folders that a killed process left when it wrote `path`, or any file in that folder.

    Only who holds the lock under which they are written may call this. Some network file systems have no locks between
    machines, so what another machine made is kept as long as it may still be written.
    """
    found = path.glob(".*.part") if path.is_dir() else path.parent.glob(f".{glob.escape(_stem(path))}.*.part")
    own = re.escape(_host())
    for left in found:
        is_own = re.search(rf"\.({own}-)?[0-9a-f]+\.part$", left.name)
        with contextlib.suppress(OSError):
            if is_own or time.time() - _changed(left) > ABANDONED:
                remove(left)


def _aside(path: Path) -> Path:
    """Return the path of a temporary file that is no other process's, on any machine that shares the folder."""
    return path.with_name(f".{_stem(path)}.{_host()}-{secrets.token_hex(4)}.part")


def _stem(path: Path) -> str:
    is_short = len(os.fsencode(path.name)) <= MAX_NAME
    return path.name if is_short else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "", socket.gethostname())[:40]


def _changed(path: Path) -> float:
    """Return when a file, or a folder and what is directly in it, last changed."""
    return max(one.stat().st_mtime for one in (path, *(path.iterdir() if path.is_dir() else ())))


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do so.

    If it cannot, a crash of the machine may bring the old file back, which is whole too.
    """
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sync_all(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if len(files) > MAX_SYNCED and hasattr(os, "sync"):
        os.sync()  # one by one, the images of an archive would take minutes
        return
    for path in files:
        _sync_file(path)
    for path in dict.fromkeys([folder, *(file.parent for file in files)]):
        _sync_folder(path)


# Locks


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs, against other processes and other threads of this one.

    Args:
        path: names the holder in JSON while the lock is held, if there is room. The system locks an empty file beside
            it, whose name starts with a dot. That file stays: if it were deleted, two processes could lock one each.
        wait: seconds to wait for the holder.

    Raises:
        BusyError: the lock is still held after that time.
        DiskError: nothing can be written in the directory, or its file system has no locks.
    """
    lock = _lock(path, wait)
    try:
        os.stat(path.parent)  # noqa: PTH116  filelock would make it anew if it was deleted
        lock.acquire()
    except Timeout:
        raise BusyError(path.parent, _holder(path)) from None
    except NotImplementedError:
        raise DiskError(f"{path.parent}: its file system has no locks; use a folder on another one") from None
    except OSError as error:
        raise disk(path, error) from None
    try:
        with contextlib.suppress(OSError):  # on a full disk the holder has no name
            path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
        yield
    finally:
        remove(path)
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
