"""A dataset on disk: one file of uint8 pixels, one of labels, decoded once and memory-mapped for ever."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Batch, ImageSpec
from gantool.data.loader import Split, rows_of
from gantool.errors import DataError
from gantool.files import alive, disk, write


class Item(NamedTuple):
    """A decoded image, or why there is none.

    Args:
        name: the file's path inside its source, or its index; for messages.
        label: index of its class.
        image: uint8 [C, H, W], or the reason why the file gave no image.
    """

    name: str
    label: int
    image: NDArray[np.uint8] | str


@dataclass(frozen=True)
class Store:
    """A decoded dataset.

    Args:
        path: its directory.
        images: uint8 [N, C, H, W], memory-mapped: it may be larger than memory.
        labels: int64 [N].
        spec: channels, size and classes.
        about: what `about.json` holds: where the images come from, and which files were skipped, and why.
    """

    path: Path
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    spec: ImageSpec
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> NDArray[np.uint8]:
        """The images."""
        return self.images

    @property
    def texts(self) -> tuple[str, ...]:
        """None: images show themselves."""
        return ()

    @property
    def key(self) -> str:
        """The directory's name, which changes with the content."""
        return self.path.name

    def split(self, share: float, kind: type[Batch]) -> Split:
        """Hold out a share of the images; see `loader.rows_of`."""
        return rows_of(self.labels, share, kind)

    @property
    def skipped(self) -> list[list[str]]:
        """File and reason of each image that could not be read."""
        rows: list[list[str]] = self.about["skipped"]
        return rows


def open_store(path: Path) -> Store | None:
    """Return the store in a directory, or None where there is no whole one."""
    try:
        about = json.loads((path / "about.json").read_text(encoding="utf-8"))
        shape = (about["images"], about["channels"], about["height"], about["width"])
        images = np.memmap(path / "images.u8", np.uint8, "r", shape=shape)
        labels = np.fromfile(path / "labels.i64", np.int64)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    spec = ImageSpec(about["channels"], about["height"], about["width"], tuple(about["classes"]))
    return Store(path, images, labels, spec, about) if len(labels) == about["images"] else None


def build_store(path: Path, items: Iterable[Item], spec: ImageSpec, about: dict[str, Any]) -> Store:
    """Write a store from images as they come; it appears at `path` whole or not at all.

    Args:
        path: the new directory.
        items: the images, decoded to the shape that `spec` names.
        spec: channels, size and classes.
        about: what else `about.json` shall say.

    Raises:
        DataError: no image could be read, or a class has none, or most could not be read.
        ResourceError: the disk is full, or the folder cannot be written.
    """
    aside = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        labels, skipped = _write(aside / "images.u8", items)
        _refuse(about["source"], spec, labels, skipped)
        np.array(labels, np.int64).tofile(aside / "labels.i64")
        channels, height, width = spec.shape
        numbers = {"images": len(labels), "channels": channels, "height": height, "width": width}
        content = {**about, **numbers, "classes": list(spec.classes), "skipped": skipped}
        write(aside / "about.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        with contextlib.suppress(OSError):  # another process built the same store first: take that one
            aside.rename(path)
    except OSError as error:
        raise disk(path, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    store = open_store(path)
    if store is None:
        raise DataError(f"{path}: the decoded dataset is damaged; delete this directory and run the command again")
    return store


def _write(path: Path, items: Iterable[Item]) -> tuple[list[int], list[list[str]]]:
    labels: list[int] = []
    skipped: list[list[str]] = []
    with path.open("wb") as file:
        for name, label, image in items:
            if isinstance(image, str):
                skipped.append([name, image])
            else:
                file.write(np.ascontiguousarray(image).data)
                labels.append(label)
        file.flush()
        os.fsync(file.fileno())
    return labels, skipped


def _refuse(source: str, spec: ImageSpec, labels: list[int], skipped: list[list[str]]) -> None:
    """Refuse a dataset that would train to nothing."""
    first = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    if len(skipped) > len(labels):
        raise DataError(
            f"{source}: {len(skipped)} of {len(skipped) + len(labels)} files cannot be read as images{first}; "
            "mend or remove them"
        )
    if not labels:
        raise DataError(f"{source}: no images in it; a source is a folder of images, or of folders of images")
    empty = [spec.classes[index] for index in sorted(set(range(len(spec.classes))) - set(labels))]
    if empty:
        raise DataError(f"{source}: no readable image of class {empty[0]!r}{first}; choose others with data.classes")


def _sweep(path: Path) -> None:
    """Remove what a killed process left aside."""
    for left in path.parent.glob(f"{path.name}.part-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
