"""The interface of every source of data, and the downloads of those that have a name."""

from __future__ import annotations

import csv
import gzip
import hashlib
import logging
import shutil
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from gantool.batches import Batch, Labeled, Spec
from gantool.data.archive import unpack
from gantool.data.download import Progress, Remote, download, sha256
from gantool.data.loader import Dataset
from gantool.files import atomic_write, make_folder, new_file, rename
from gantool.recipe.blocks import Data

logger = logging.getLogger(__name__)

DOWNLOADS: dict[str, list[tuple[str, Remote]]] = {}
"""The files of each source, each with its folder in the data directory. Some have no published hash."""
UNPACKED: dict[str, dict[str, str]] = {}
"""The SHA-256 of the published gz files' content, by source and file, where it is known. A file that was compressed
anew has another hash, but the same content."""

with Path(__file__).with_name("downloads.csv").open(encoding="utf-8", newline="") as _file:
    for _row in csv.DictReader(_file):
        _remote = Remote(_row["file"], tuple(_row["addresses"].split()), _row["sha256"] or None)
        DOWNLOADS.setdefault(_row["source"], []).append((_row["folder"], _remote))
        if _row["unpacked"]:
            UNPACKED.setdefault(_row["source"], {})[_row["file"]] = _row["unpacked"]


class Source(ABC):
    """Images or a table that `data.source` can name. `root` is the data directory.

    Attributes:
        kind: what a batch of it is.
        classes: names of the classes, in the order of their labels; for pairs, the source's and the target's.
        rendered: whether a program drew the images.
    """

    kind: type[Batch]
    classes: tuple[str, ...]
    rendered: bool = False

    def exists(self, root: Path) -> bool:
        """Return whether nothing has to be downloaded."""
        return True

    @abstractmethod
    def describe(self, data: Data) -> Spec:
        """Return what a model is built from, without preparing the data."""

    @abstractmethod
    def load(self, data: Data, root: Path, kind: type[Batch]) -> Dataset:
        """Return the data that a recipe's block asks for, as batches of `kind` need them."""


@dataclass(frozen=True)
class NamedSource(Source):
    """A source that `gantool data list` lists.

    Args:
        name: its name in recipes.
        summary: one line for `gantool data list`.
        classes: as in `Source`.
        kind: as in `Source`.
        needs: the downloaded files, below the data directory, that have to exist.
        rendered: as in `Source`.
    """

    name: str
    summary: str
    classes: tuple[str, ...]
    kind: type[Batch] = Labeled
    needs: tuple[str, ...] = ()
    rendered: bool = False

    def exists(self, root: Path) -> bool:
        """Return whether nothing has to be downloaded."""
        return all((root / need).exists() for need in self.needs)

    def fetch(self, root: Path, progress: Progress | None = None) -> None:
        """Download what is missing, and unpack it, to the places where torchvision would look for it."""
        for folder, remote in DOWNLOADS.get(self.name, ()):
            if _is_gz(remote) and not (root / folder / remote.name).with_suffix("").exists():
                self._use_own(root, folder, remote)
        if self.needs and self.exists(root):
            return
        for folder, remote in DOWNLOADS.get(self.name, ()):
            plain = (root / folder / remote.name).with_suffix("")
            if _is_gz(remote) and plain.exists():
                continue
            path = download(remote, root / folder, progress=progress)
            if remote.name.endswith((".tar.gz", ".zip")):
                unpack(path, root / folder / "unpacked")
            elif _is_gz(remote):
                _gunzip(path, plain)

    def _use_own(self, root: Path, folder: str, remote: Remote) -> None:
        """Unpack a gz file that someone put there, or in a folder above, if its content is the published one."""
        path = root / folder / remote.name
        for place in (path.parent, *path.parent.parents):
            own = place / remote.name
            if own.is_file():
                if self._is_published(own, remote):
                    make_folder(path.parent)
                    _gunzip(own, path.with_suffix(""))
                    return
                moved = ""
                if own == path:  # the download takes its place
                    rename(path, path.with_name(f"{path.name}.bad"))
                    moved = f"; moved to {path.name}.bad"
                logger.warning(f"{own}: is not the published file of {self.name}, so it is not used{moved}")
            if place == root:
                return

    def _is_published(self, path: Path, remote: Remote) -> bool:
        if sha256(path) == remote.sha256:
            return True
        try:
            with gzip.open(path) as packed:
                mark = hashlib.file_digest(packed, "sha256").hexdigest()
        except (OSError, EOFError, zlib.error):
            return False
        return mark == UNPACKED.get(self.name, {}).get(remote.name)


def _is_gz(remote: Remote) -> bool:
    return remote.name.endswith(".gz") and not remote.name.endswith(".tar.gz")


def _gunzip(path: Path, plain: Path) -> None:
    with atomic_write(plain) as aside, gzip.open(path) as packed, new_file(aside) as file:
        shutil.copyfileobj(packed, file)
