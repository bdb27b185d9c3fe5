"""What a folder of images holds: its classes, the files of each, and what is not used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gantool.errors import DataError, unknown
from gantool.terminal import printable, several

ENDINGS = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"}
MAX_DEPTH = 100  # folders in folders
MAX_WRAPPED = 3  # folders that may lie around a table, arrays or parquet files, such as torchvision's `MNIST/raw`
MAX_STRAY = 0.1  # images beside folders of images, as a share of those in the folders; more of them are ambiguous

_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")
_SPLIT = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing)([ _-]?(set|data|images|imgs))?[ _-]?\d*", re.I
)
_SYSTEM = {  # in lower case: of Windows, macOS, Linux, Synology and QNAP
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "system volume information", "$recycle.bin", "found.000"),
    *("__macosx", "icon\r", "lost+found", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
}


class Layout(NamedTuple):
    """The content of a folder of images.

    Args:
        path: the folder whose subfolders are the classes.
        classes: the files of each class, in a fixed order; some may be no images.
        left_out: files and folders that are not used, each with the reason.
    """

    path: Path
    classes: dict[str, list[Path]]
    left_out: list[tuple[str, str]]


def explore(path: Path, inside: str | None) -> Layout:
    """Return the content of a folder of images; see `Folder`."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    if inside == ".":
        _, folders, own = next(_walk(path))
        layout = _flat(path, own, [(name, "a folder; data.folder=. uses the images beside it") for name in folders])
    else:
        at = _inside(path, inside) if inside else path
        layout = _by_class(at)
        while not inside and len(layout.classes) == 1:
            only = layout.path / next(iter(layout.classes))
            if not only.is_dir() or not next(_walk(only))[1]:
                break
            deeper = _by_class(only)
            if not deeper.classes:
                break
            layout = deeper._replace(left_out=[*layout.left_out, *deeper.left_out])
    if not layout.classes:
        raise DataError(f"{layout.path}: no images in it; a source is a folder of images, or of folders of images")
    splits = [name for name in layout.classes if _SPLIT.fullmatch(name)]
    if not inside and len(splits) == len(layout.classes) and (layout.path / splits[0]).is_dir():
        raise DataError(f"{layout.path}: holds {', '.join(splits)}; choose one with data.folder={splits[-1]}")
    return layout


def _by_class(path: Path) -> Layout:
    """Return the content of a folder whose subfolders are classes, if images are in them; else it is one class."""
    _, folders, own = next(_walk(path))
    classes: dict[str, list[Path]] = {}
    left_out: list[tuple[str, str]] = []
    for name in folders:
        files = list(_files(path / name, (path.resolve(),), left_out))
        if any(map(may_be_image, files)):
            classes[printable(name)] = files
        elif files:
            left_out.append((name, f"holds {several(len(files), 'file')}, but no image"))
    if not classes:
        return _flat(path, own, left_out)
    stray = [name for name in own if may_be_image(path / name)]
    others = [name for name in own if name not in stray]
    if len(stray) > MAX_STRAY * sum(map(len, classes.values())):
        first = next(iter(classes))
        raise DataError(
            f"{path}: holds {several(len(stray), 'image')} beside {_listed('folders', list(classes))}; to use the "
            f"images, say data.folder=.; to use a folder, say data.folder={first}; or move the images into a folder"
        )
    for names, reason in ((stray, "beside the folders of the classes"), (others, "no image")):
        if names:
            left_out.append((counted(names), reason))
    return Layout(path, classes, left_out)


def _flat(path: Path, own: list[str], left_out: list[tuple[str, str]]) -> Layout:
    return Layout(path, {printable(path.name) or "image": [path / name for name in own]} if own else {}, left_out)


def _files(folder: Path, above: tuple[Path, ...], left_out: list[tuple[str, str]]) -> Iterator[Path]:
    """Yield the files of a folder at any depth. Links to folders are followed, unless they lead back up."""
    real = folder.resolve()
    if real in above:
        left_out.append((folder.name, f"a link to {real}, which holds it"))
        return
    if len(above) > MAX_DEPTH:
        raise DataError(f"{folder}: folders are nested deeper than {MAX_DEPTH}; move the images up")
    _, folders, own = next(_walk(folder))
    yield from (folder / name for name in own)
    for name in folders:
        yield from _files(folder / name, (*above, real), left_out)


def may_be_image(file: Path) -> bool:
    """Return whether a file is called like an image, or begins like one."""
    if file.suffix.lower() in ENDINGS:
        return True
    try:
        if not file.is_file():  # a named pipe would block
            return False
        with file.open("rb") as opened:
            return opened.read(4).startswith(_SIGNATURES)
    except OSError:
        return False


def all_files(path: Path, left_out: list[tuple[str, str]]) -> list[Path]:
    """Return the files of a folder at any depth, in a fixed order; `left_out` gets the folders that are not read."""
    return list(_files(path, (), left_out))


def entries(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, without those of the system."""
    _, folders, files = next(_walk(path))
    return folders, files


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


def _walk(path: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder, and the names of the folders and files in it, in a fixed order and without hidden ones."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions")

    for at, folders, files in os.walk(path, onerror=fail):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield Path(at), folders, sorted(name for name in files if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM


def _listed(kind: str, names: list[str]) -> str:
    return f"the {kind[:-1]} {names[0]}" if len(names) == 1 else f"the {kind} {names[0]} to {names[-1]}"


def counted(names: list[str]) -> str:
    """Return the first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
