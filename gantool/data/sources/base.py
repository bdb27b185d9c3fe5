"""The interface of every source of data, and the downloads of those that have a name."""

from __future__ import annotations

import csv
import gzip
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from gantool.batches import Batch, Labeled, Spec
from gantool.data.archive import unpack
from gantool.data.download import Progress, Remote, download
from gantool.data.loader import Dataset
from gantool.files import atomic_write, new_file
from gantool.recipe.blocks import Data


def _read_downloads() -> dict[str, list[tuple[str, Remote]]]:
    found: dict[str, list[tuple[str, Remote]]] = {}
    with Path(__file__).with_name("downloads.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            remote = Remote(row["file"], tuple(row["addresses"].split()), row["sha256"] or None)
            found.setdefault(row["source"], []).append((row["folder"], remote))
    return found


DOWNLOADS = _read_downloads()
"""The files of each source, each with its folder in the data directory. Some have no published hash."""


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
            path = download(remote, root / folder, progress=progress)
            if remote.name.endswith((".tar.gz", ".zip")):
                unpack(path, root / folder / "unpacked")
            elif remote.name.endswith(".gz") and not (plain := path.with_suffix("")).exists():
                with atomic_write(plain) as aside, gzip.open(path) as packed, new_file(aside) as file:
                    shutil.copyfileobj(packed, file)
