"""What a path holds: a folder of images, with or without a table of their classes, or arrays."""

from __future__ import annotations

from pathlib import Path

from gantool.batches import Batch, Paired
from gantool.data.sources.arrays import Arrays, Stored, find, find_beside
from gantool.data.sources.base import UNPACKED
from gantool.data.sources.catalog import SOURCES
from gantool.data.sources.folders import ARCHIVES, Folder
from gantool.data.sources.images import ImageSource
from gantool.data.sources.labelled import LabelledFolder, find_table
from gantool.data.sources.layout import MAX_WRAPPED, entries, may_be_image
from gantool.data.sources.pairs import Pairs
from gantool.data.sources.parquet import ENDING as PARQUET
from gantool.data.sources.parquet import Parquet
from gantool.errors import DataError
from gantool.recipe.blocks import Data

PUBLISHED = {mark: SOURCES[name].classes for name, files in UNPACKED.items() for mark in files.values()}


def open_path(path: Path, data: Data, kind: type[Batch]) -> ImageSource:
    """Return the source in a folder or file.

    Raises:
        DataError: it holds nothing that can be read, or both images and arrays of images, or a file has no pairs.
    """
    if not path.is_dir():
        found = _in_file(path, data.folder)
        if kind is Paired:
            raise DataError(
                f"{path}: holds images with their class, but this model learns from pairs of images; use a folder of "
                "them"
            )
        return found
    if kind is Paired:
        return Pairs(path, data.folder, data.classes)
    at, inside = path, data.folder
    if inside and inside != "." and (path / inside).is_dir():
        at, inside = path / inside, None
    if inside != ".":
        if table := find_table(at):
            return LabelledFolder(table)
        if files := _parquet_in(at):
            return Parquet(files[0].parent, files, inside)
        if arrays := _arrays_in(at):
            return Arrays(at, arrays, inside, PUBLISHED)
    return Folder(path, data.folder)


def _in_file(path: Path, split: str | None) -> ImageSource:
    if path.suffix.lower() == ".csv":
        return LabelledFolder(path)
    if path.suffix.lower() == PARQUET:
        return Parquet(path, [path])
    if arrays := find_beside(path):
        return Arrays(path, arrays, split, PUBLISHED)
    raise DataError(
        f"data.source: {path} is a file, but neither an archive nor an array; use a folder, "
        f"{', '.join(ARCHIVES)}, .npz, .npy, .parquet, an idx file, or a .csv file with the columns file and class; "
        "save anything else as a PNG for each image, in a folder for each class"
    )


def _parquet_in(path: Path) -> list[Path]:
    """Return the parquet files in a folder, or in a lone folder in it."""
    for _ in range(MAX_WRAPPED):
        folders, files = entries(path)
        if found := [path / name for name in files if name.lower().endswith(PARQUET)]:
            return found
        if len(folders) != 1:
            break
        path = path / folders[0]
    return []


def _arrays_in(path: Path) -> list[Stored]:
    """Return the arrays in a folder, or in a lone folder in it; none if it has no arrays of images."""
    for _ in range(MAX_WRAPPED):
        folders, files = entries(path)
        images = [name for name in files if may_be_image(path / name)]
        arrays = [array for name in files if name not in images for array in find(path / name)]
        if any(array.is_images for array in arrays):
            if images:
                raise DataError(
                    f"{path}: holds {images[0]} and other images beside {arrays[0].name}; to use the images, say "
                    "data.folder=.; to use the array, give its file as data.source"
                )
            return arrays
        if images or len(folders) != 1:
            break
        path = path / folders[0]
    return []
