"""Folders of the user's own images, whose subfolders are classes, and archives of such folders."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gantool.batches import Batch, Labeled
from gantool.data import decode
from gantool.data.archive import complete, unpack
from gantool.data.sources.images import ImageSource, SourceImage
from gantool.errors import DataError, unknown
from gantool.files import is_file

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of a fetched archive
FETCHED = "fetched"  # folder of the data directory where `data fetch URL --name NAME` unpacks to
_SPLITS = {"train", "valid", "val", "validation", "test"}


class Folder(ImageSource):
    """A folder of images.

    Each subfolder that holds files, at any depth, is a class. A folder without such subfolders is one class of its own
    name. A lone wrapping folder, as archives have it, is looked through.

    Args:
        path: the folder.
        inside: use this folder of it only; it may be at any depth if no other has its name.

    Attributes:
        files: of each class, in a fixed order; some may be no images.

    Raises:
        DataError: the folder does not exist, it holds no files, or only splits (train, valid), one of which
            `data.folder` has to name.
    """

    kind: type[Batch] = Labeled
    layout = "folder"

    def __init__(self, path: Path, inside: str | None = None) -> None:
        self.path, self.files = explore(path, inside)
        self.classes = tuple(self.files)

    def native_channels(self, classes: Sequence[str]) -> int:
        """Return the channels of most images, from up to 100 files spread over the folder."""
        files = [file for name in classes for file in self.files.get(name, ())]
        found = []
        for file in files[:: max(1, len(files) // 100)]:
            with contextlib.suppress(decode.Unreadable):
                found.append(decode.native(file)[0])
        return 1 if found and found.count(1) > len(found) / 2 else 3

    def items(self, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Yield the files of these classes."""
        for name in classes:
            for file in self.files[name]:
                yield SourceImage(str(file.relative_to(self.path)), name, file)

    def fingerprint(self, root: Path, classes: Sequence[str]) -> str:
        """Return a digest of the place, size and time of every file of these classes."""
        mark = hashlib.sha256(str(self.path.resolve()).encode())
        for name in classes:
            for file in self.files[name]:
                try:
                    status = file.stat()
                except OSError:
                    continue  # a dangling link; decoding reports it
                # By the name below `path`, so that a folder is the same however its own path is written.
                place = f"{name}/{file.relative_to(self.path).as_posix()}"
                mark.update(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return f"{self.layout}-{mark.hexdigest()}"


def explore(path: Path, inside: str | None) -> tuple[Path, dict[str, list[Path]]]:
    """Return the folder that holds the classes of `path`, and the files of each class; see `Folder`."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    at = _inside(path, inside) if inside else path
    found = _by_class(at)
    while not inside and len(found) == 1:
        only = at / next(iter(found))
        deeper = _by_class(only) if only.is_dir() else {}
        if not deeper or _is_flat(only):
            break
        at, found = only, deeper
    if not found:
        raise DataError(f"{at}: no files in it; a source is a folder of images, or of folders of images")
    splits = sorted(set(found) & _SPLITS)
    if not inside and splits and set(found) <= _SPLITS:
        raise DataError(f"{at}: holds {', '.join(splits)}; choose one with data.folder={splits[-1]}")
    return at, found


def locate(source: str, root: Path) -> Path | None:
    """Return the folder that `data.source` names: a path, an archive (unpacked once), or a fetched archive."""
    path = Path(os.path.expanduser(source))  # noqa: PTH111  Path.expanduser raises on an unknown user
    if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises on a name that is too long
        return path
    if is_file(path):
        if not source.lower().endswith(ARCHIVES):
            raise DataError(
                f"data.source: {source} is a file, but no archive; use a folder, or one of {', '.join(ARCHIVES)}"
            )
        status = path.stat()
        mark = hashlib.sha256(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:12]
        # The last folder has the archive's name: a flat one is a class of that name.
        target = root / "unpacked" / mark / (re.sub(r"[^A-Za-z0-9_-]", "_", path.name.partition(".")[0]) or "images")
        if not complete(target):
            logger.info(f"unpacking {source}")
            unpack(path, target)
        return target
    fetched = root / FETCHED / source
    return fetched if NAME.fullmatch(source) and complete(fetched) else None


def _inside(path: Path, inside: str) -> Path:
    if (path / inside).is_dir() and not Path(inside).is_absolute() and ".." not in Path(inside).parts:
        return path / inside
    found = [at / inside for at, folders, _ in _walk(path) if inside in folders]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{path}: {len(found)} folders are called {inside!r}; give data.folder a longer path")
    _, here, _ = next(_walk(path))
    raise DataError(f"{path}: " + unknown("folder", inside, here) + "; data.folder names one inside of the source")


def _is_flat(path: Path) -> bool:
    _, folders, _ = next(_walk(path))
    return not folders


def _by_class(path: Path) -> dict[str, list[Path]]:
    """Return the files of each class. Links to folders are not followed, because they could make a loop."""
    _, folders, own = next(_walk(path))
    classes = {}
    for name in folders:
        if not (path / name).is_symlink():
            classes[name] = [at / file for at, _, files in _walk(path / name) for file in files]
    classes = {name: files for name, files in classes.items() if files}
    return classes or ({path.name or "image": [path / name for name in own]} if own else {})


def _walk(path: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder, and the names of the folders and files in it, in a fixed order and without hidden ones."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions")

    for at, folders, files in os.walk(path, onerror=fail):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield Path(at), folders, sorted(name for name in files if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in {"Thumbs.db", "desktop.ini", "__MACOSX"}
