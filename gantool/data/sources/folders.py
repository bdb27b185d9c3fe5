"""One's own images: a folder of images whose subfolders are classes, or an archive of such a folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gantool.data.archive import complete, unpack
from gantool.data.sources.images import SourceImage
from gantool.errors import DataError, unknown
from gantool.files import is_file

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FETCHED = "fetched"  # folder of the data directory where `data fetch URL --name NAME` unpacks to
_SPLITS = {"train", "valid", "val", "validation", "test"}


class Folder:
    """A folder of images.

    Each subfolder that holds images, at any depth, is a class; a folder without such subfolders is one class of its
    own name. A lone wrapping folder, as archives have it, is looked through.

    Args:
        path: the folder.
        inside: look in this folder of it only; it may stand at any depth as long as there is one.

    Raises:
        DataError: there is no such folder, it holds no files, or only splits (train, valid), one of which
            `data.folder` has to name.
    """

    def __init__(self, path: Path, inside: str | None = None) -> None:
        self.path, self.files = explore(path, inside)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted; their indices are the labels."""
        return tuple(self.files)

    def images(self, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Return the files of these classes, in a fixed order; whether they are images is not looked at."""
        for name in classes:
            for file in self.files[name]:
                yield SourceImage(str(file.relative_to(self.path)), name, file)

    def fingerprint(self, classes: Sequence[str]) -> str:
        """Name the content by the place, size and time of every file of these classes."""
        return f"folder-{digest(self.path, {name: self.files[name] for name in classes})}"


def explore(path: Path, inside: str | None) -> tuple[Path, dict[str, list[Path]]]:
    """Find the classes of a folder, as `Folder` says.

    Returns:
        the folder that holds them, and the files of each; of a flat folder, its files under its own name.
    """
    at = _inside(path, inside) if inside else path
    if not at.is_dir():
        raise DataError(f"{at}: no such folder")
    found = _by_class(at)
    while not inside and len(found) == 1 and not flat(at):
        (only,) = (at / name for name in found)
        deeper = _by_class(only)
        if flat(only) or not deeper:
            break
        at, found = only, deeper
    if not found:
        raise DataError(f"{at}: no files in it; a source is a folder of images, or of folders of images")
    splits = sorted(set(found) & _SPLITS)
    if not inside and splits and set(found) <= _SPLITS:
        raise DataError(f"{at}: holds {', '.join(splits)}; choose one with data.folder={splits[-1]}")
    return at, found


def digest(path: Path, files: Mapping[str, Sequence[Path]]) -> str:
    """Name the content of a folder by the place, size and time of these files of its classes."""
    mark = hashlib.sha256(str(path.resolve()).encode())
    for name, own in files.items():
        for file in own:
            try:
                status = file.stat()
            except OSError:
                continue  # a dangling link; decoding reports it
            # By the name below `path`, so that a folder is the same however its own path is written.
            mark.update(
                f"{name}/{file.relative_to(path).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
            )
    return mark.hexdigest()


def locate(source: str, root: Path) -> Path | None:
    """Return the folder that `data.source` stands for: a path, an archive (unpacked once), or a fetched name.

    Args:
        source: what the recipe says.
        root: the data directory.
    """
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
    return fetched if _safe(source) and complete(fetched) else None


def keep(source: str, known: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes that a run keeps, in the order in which the recipe names them.

    Raises:
        DataError: a wanted class is not there, or is named twice.
    """
    for name in wanted or ():
        if name not in known:
            raise DataError(
                f"{source}: " + unknown("class", name, known) + "; data.classes names the ones to keep, null keeps all"
            )
    if wanted and len(set(wanted)) < len(wanted):
        raise DataError(f"{source}: data.classes names a class twice: {', '.join(wanted)}")
    return tuple(wanted or known)


def _safe(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) is not None


def _inside(path: Path, inside: str) -> Path:
    if (path / inside).is_dir() and not Path(inside).is_absolute() and ".." not in Path(inside).parts:
        return path / inside
    found = []
    for at, folders, _ in os.walk(path):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        found += [Path(at) / inside] if inside in folders else []
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{path}: {len(found)} folders are called {inside!r}; give data.folder a longer path")
    here = sorted(child.name for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
    raise DataError(f"{path}: " + unknown("folder", inside, here) + "; data.folder names one inside of the source")


def flat(path: Path) -> bool:
    """Return whether a folder has no subfolders."""
    return not any(child.is_dir() and not _hidden(child.name) for child in path.iterdir())


def _by_class(path: Path) -> dict[str, list[Path]]:
    """List the files of each class; links to folders are not followed, so that no loop can be entered."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    try:
        children = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    classes = {}
    for child in children:
        if child.is_dir() and not child.is_symlink() and not _hidden(child.name):
            files = _files(child)
            if files:
                classes[child.name] = files
    flat = [child for child in children if not child.is_dir() and not _hidden(child.name)]
    return classes or ({path.name or "image": flat} if flat else {})


def _files(path: Path) -> list[Path]:
    found = []
    for at, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        found += [Path(at) / name for name in sorted(files) if not _hidden(name)]
    return found


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in {"Thumbs.db", "desktop.ini", "__MACOSX"}
