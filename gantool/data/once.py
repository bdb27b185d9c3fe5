"""Make a file or directory once: by one process at a time, and whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gantool.errors import DataError, ResourceError
from gantool.files import BusyError, atomic_folder, disk, exclusive_lock, make_folder, sweep

WAIT = 3600.0  # seconds to wait for another process that makes the same file or directory


@contextmanager
def once(path: Path, verb: str, exists: Callable[[], bool]) -> Iterator[bool]:
    """Yield whether `path` has to be made, under its lock; False if it `exists`, maybe since another process made it.

    Raises:
        ResourceError: the block raised an OSError, or another process takes too long; `verb` names its work.
    """
    try:
        if exists():
            yield False
            return
        make_folder(path.parent)
        with exclusive_lock(path.with_name(f"{path.name}.lock"), wait=WAIT):
            yield not exists()
    except BusyError as error:
        raise ResourceError(f"{path}: {error.holder} still {verb} it; wait for it, or end it") from None
    except OSError as error:
        raise disk(path, error) from error


@contextmanager
def folder_once(path: Path, verb: str, exists: Callable[[], bool], *, otherwise: str) -> Iterator[Path | None]:
    """Yield an empty directory that becomes `path` when the block succeeds, or None if `path` `exists` completely.

    Raises:
        DataError: `path` is something else; the message ends with `otherwise`.
        ResourceError: as `once`.
    """
    with once(path, verb, exists) as needed:
        if not needed:
            yield None
            return
        if path.exists() or path.is_symlink():
            raise DataError(f"{path}: {otherwise}")
        sweep(path)
        try:
            with atomic_folder(path) as aside:
                yield aside
        except OSError:
            if not exists():  # made meanwhile on another machine, where the file system has no locks between them
                raise
