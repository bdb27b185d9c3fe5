"""A decoded dataset on disk: one file of uint8 pixels, one of labels, and `about.json`; memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Batch, ImageSpec
from gantool.data.loader import Split, rows_of
from gantool.data.once import folder_once
from gantool.data.part import describe_part
from gantool.data.survey import Survey
from gantool.errors import DataError
from gantool.files import new_file, write


class Item(NamedTuple):
    """A decoded image, or the reason why it could not be read.

    Args:
        name: the file's path inside its source, or its index; for messages.
        label: index of its class.
        image: uint8 [C, H, W], or the reason.
        unused: what is not used of its file; see `decode.unused`.
        content: the SHA-256 of its file, or of its pixels before they were resized.
    """

    name: str
    label: int
    image: NDArray[np.uint8] | str
    unused: str = ""
    content: bytes = b""


@dataclass(frozen=True)
class Store:
    """A decoded dataset; see `Dataset`.

    Args:
        path: its directory.
        images: uint8 [N, C, H, W], memory-mapped, because they may be larger than memory.
        labels: int64 [N].
        spec: channels, size and classes.
        about: content of `about.json`: the source, the files that were skipped or used in part, each with the reason,
            and the brightest value of all images.
    """

    path: Path
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    spec: ImageSpec
    about: dict[str, Any]
    texts = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> NDArray[np.uint8]:
        """The images."""
        return self.images

    @property
    def key(self) -> str:
        """The directory's name, which changes with the content."""
        return self.path.name

    @property
    def skipped(self) -> list[list[str]]:
        """File and reason of each image that could not be read."""
        rows: list[list[str]] = self.about["skipped"]
        return rows

    @property
    def part(self) -> str:
        """How many images or pairs `data.limit` left of how many; see `Dataset`."""
        if "of" not in self.about:
            return ""
        rows = 2 if self.about["settings"].get("pairs") else 1
        return describe_part(len(self) // rows, self.about["of"] // rows)

    @property
    def digest(self) -> str:
        """The SHA-256 of the images' files and labels; empty for a store of an older version."""
        return str(self.about.get("digest", ""))

    def split(self, share: float, kind: type[Batch]) -> Split:
        """Hold out a share of the images; see `loader.rows_of`."""
        return rows_of(self.labels, share, kind)


def open_store(path: Path) -> Store | None:
    """Return the store in a directory, or None if it is missing or damaged."""
    try:
        about = json.loads((path / "about.json").read_text(encoding="utf-8"))
        shape = (about["images"], about["channels"], about["height"], about["width"])
        images = np.memmap(path / "images.u8", np.uint8, "r", shape=shape)
        labels = np.fromfile(path / "labels.i64", np.int64)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    spec = ImageSpec(about["channels"], about["height"], about["width"], tuple(about["classes"]))
    return Store(path, images, labels, spec, about) if len(labels) == about["images"] else None


def build_store(
    path: Path, items: Iterable[Item], spec: ImageSpec, about: dict[str, Any], survey: Survey | None = None
) -> Store:
    """Return the store of these images, written unless another process has just done so; it is whole or absent.

    Args:
        path: the new directory.
        items: the images, decoded to the shape that `spec` names.
        spec: channels, size and classes.
        about: further contents of `about.json`.
        survey: takes the images, and its findings are added to `about.json`.

    Raises:
        DataError: no image could be read, or a class has none, or most could not be read.
        ResourceError: the disk is full, or the folder cannot be written, or another process takes too long.
    """
    damaged = "the decoded dataset is damaged; delete this directory and run the command again"
    with folder_once(path, "decodes", lambda: open_store(path) is not None, otherwise=damaged) as new:
        if new:
            _write(new, items, spec, about, survey)
    store = open_store(path)
    assert store is not None
    return store


def _write(folder: Path, items: Iterable[Item], spec: ImageSpec, about: dict[str, Any], survey: Survey | None) -> None:
    labels: list[int] = []
    skipped: list[list[str]] = []
    partly: list[list[str]] = []
    brightest, mark = 0, hashlib.sha256()
    with new_file(folder / "images.u8", sync=False) as file:
        for name, label, image, unused, source in items:
            if isinstance(image, str):
                skipped.append([name, image])
                continue
            file.write(np.ascontiguousarray(image).data)
            labels.append(label)
            mark.update(source + label.to_bytes(8, "big"))
            brightest = max(brightest, int(image.max()))
            if unused:
                partly.append([name, unused])
            if survey:
                pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
                survey.add(name, spec.classes[label], pixels, source)
    _check_content(about["source"], spec, labels, skipped)
    write(folder / "labels.i64", np.array(labels, np.int64).tobytes(), sync=False)
    numbers = {"images": len(labels), "channels": spec.channels, "height": spec.height, "width": spec.width}
    files: dict[str, Any] = {"digest": mark.hexdigest(), "skipped": skipped, "partly": partly, "brightest": brightest}
    if survey:
        files["findings"] = survey.findings()._asdict()
    content = {**about, **numbers, "classes": list(spec.classes), **files}
    write(folder / "about.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n", sync=False)


def _check_content(source: str, spec: ImageSpec, labels: list[int], skipped: list[list[str]]) -> None:
    """Raise DataError for a dataset that would train to nothing."""
    first = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    if len(skipped) > len(labels):
        count = f"{len(skipped)} of {len(skipped) + len(labels)} files"
        raise DataError(f"{source}: {count} cannot be read as images{first}; mend or remove them")
    if not labels:
        raise DataError(f"{source}: no images in it; a source is a folder of images, or of folders of images")
    empty = [spec.classes[index] for index in sorted(set(range(len(spec.classes))) - set(labels))]
    if empty:
        raise DataError(f"{source}: no readable image of class {empty[0]!r}{first}; choose others with data.classes")
