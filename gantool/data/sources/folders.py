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
from gantool.data.sources.layout import explore
from gantool.files import is_file, remove
from gantool.terminal import printable

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of a fetched archive
FETCHED = "fetched"  # folder of the data directory where `data fetch URL --name NAME` unpacks to


class Folder(ImageSource):
    """A folder of images.

    Each subfolder that holds images, at any depth, is a class. A folder without such subfolders is one class of its own
    name. A lone wrapping folder, as archives have it, is looked through. Links to folders are followed.

    Args:
        path: the folder.
        inside: use this folder of it only; it may be at any depth if no other has its name. `.` stands for the images
            that are in no subfolder.

    Attributes:
        files: of each class, in a fixed order; some may be no images.
        problems: files and folders that are not used, each with the reason.

    Raises:
        DataError: the folder does not exist, it holds no images, or images both in subfolders and beside them, or only
            splits (train, valid), one of which `data.folder` has to name.
    """

    kind: type[Batch] = Labeled
    layout = "folder"
    problems: list[tuple[str, str]]

    def __init__(self, path: Path, inside: str | None = None) -> None:
        self.path, self.files, self.problems = explore(path, inside)
        self.classes = tuple(self.files)

    def native_channels(self, classes: Sequence[str]) -> int:
        """Return the channels of most images, from up to 100 files spread over the folder."""
        files = [file for name in classes for file in self.files.get(name, ())]
        found = []
        for file in files[:: max(1, len(files) // 100)]:
            with contextlib.suppress(decode.Unreadable):
                found.append(decode.native(file)[0])
        return 1 if found and found.count(1) > len(found) / 2 else 3

    def class_names(self, root: Path, classes: Sequence[str]) -> list[str]:
        """Return the class of each file, without reading it."""
        return [name for name in classes for _ in self.files[name]]

    def items(self, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Yield the files of these classes."""
        for name in classes:
            for file in self.files[name]:
                yield SourceImage(printable(str(file.relative_to(self.path))), name, file)

    def fingerprint(self, root: Path, classes: Sequence[str]) -> str:
        """Return a digest of the place, size and time of every file of these classes."""
        mark = hashlib.sha256(os.fsencode(self.path.resolve()))
        for name in classes:
            for file in self.files[name]:
                try:
                    status = file.stat()
                except OSError:
                    continue  # a dangling link; decoding reports it
                # By the name below `path`, so that a folder is the same however its own path is written.
                place = f"{name}/{file.relative_to(self.path).as_posix()}"
                mark.update(os.fsencode(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\n"))
        return f"{self.layout}-{mark.hexdigest()}"


def locate(source: str, root: Path) -> Path | None:
    """Return the folder or file that `data.source` names: a path, an archive (unpacked once), or a fetched archive."""
    path = Path(os.path.expanduser(source))  # noqa: PTH111  Path.expanduser raises on an unknown user
    if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises on a name that is too long
        return path
    if is_file(path):
        if not source.lower().endswith(ARCHIVES):
            return path
        status = path.stat()
        place = os.fsencode(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}")
        mark = hashlib.sha256(place).hexdigest()[:12]
        # The last folder has the archive's name: a flat one is a class of that name.
        folder, name = root / "unpacked" / mark, re.sub(r"[^A-Za-z0-9_-]", "_", path.name.partition(".")[0]) or "images"
        if not complete(folder / name):
            _remove_empty(folder.parent)
            logger.info(f"unpacking {source}")
            unpack(path, folder, name)
        return folder / name
    fetched = root / FETCHED / source
    return fetched if NAME.fullmatch(source) and complete(fetched) else None


def _remove_empty(folder: Path) -> None:
    """Remove the folders that versions before 0.2 left of archives that they refused: only a lock is in them."""
    for old in folder.glob("*"):
        with contextlib.suppress(OSError):
            if old.suffix != ".part" and all(path.name.startswith(".") for path in old.iterdir()):
                remove(old)
