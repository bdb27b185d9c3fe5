"""The named sources of translations: pairs, and two kinds of images without pairs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gantool.data.sources import eggs
from gantool.data.sources.edges import edges
from gantool.data.sources.images import SourceImage, side_by_side
from gantool.errors import DataError

SIDE = 64  # pixels of a crop
EDGES = range(1000, 1400)  # the eggs that `egg_edges` draws; the dataset `eggs` has those from 0 to COUNT - 1
COLOURS = {"brown": range(2000, 2300), "blue": range(3000, 3300)}
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def egg_edges(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Yield rendered eggs, none of which is in `eggs`, each after the drawing of its edges."""
    content = {"edges": edges, "egg": eggs.render}
    for index in EDGES:
        for name in classes:
            yield SourceImage(f"egg/{index}", name, content[name]("Egg", index))


def egg_colours(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Yield rendered eggs of two kinds; no egg is in both kinds, or in `eggs`.

    The right translation is known: `render` draws the same index in the other kind.
    """
    for name in classes:
        for index in COLOURS[name]:
            yield SourceImage(f"{name}/{index}", name, eggs.render("Egg", index, kind=name))


def grass_gravel(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Yield crops of a photograph of grass and of one of gravel.

    Neighbours overlap by half, so training has seen most of a held-out crop in other crops.
    """
    photos = real_data("grass_gravel", "skimage.data", "scikit-image")
    for name in classes:
        for place, crop in _crops(getattr(photos, name)(), SIDE // 2):
            yield SourceImage(f"{name}/{place}", name, crop)


def photo_colours(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Yield crops of four photographs, and of these at half their size, each after itself in grey.

    No two crops of one size overlap, but those of the other size show the same again.
    """
    photos = real_data("photo_colours", "skimage.data", "scikit-image")
    for photo in PHOTOS:
        whole = Image.fromarray(getattr(photos, photo)())
        for scale, image in (("", whole), ("-half", whole.reduce(2))):
            grey = dict(_crops(np.asarray(image.convert("L")), SIDE))
            for place, crop in _crops(np.asarray(image), SIDE):
                content = {"grey": grey[place], "colour": crop}
                for name in classes:
                    yield SourceImage(f"{photo}{scale}/{place}", name, content[name])


def real_data(source: str, module: str, package: str) -> Any:
    """Return the module of a package that comes with the data of a source. Raise DataError if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            f"data.source: {source} needs {package}; install it with: pip install 'gantool[real]'"
        ) from None


def _crops(pixels: NDArray[np.uint8], stride: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield every square of SIDE whose corner is a multiple of `stride` away from the image's, with its place."""
    height, width = pixels.shape[:2]
    for row in range(0, height - SIDE + 1, stride):
        for column in range(0, width - SIDE + 1, stride):
            yield f"{row}-{column}", pixels[row : row + SIDE, column : column + SIDE]


def fetched_pairs(folder: str, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Yield the training pairs of an archive whose files are two images side by side, in `train` of its folder."""
    for file in _files(root / folder / "train"):
        yield from side_by_side(file.stem, file, classes)


def fetched_kinds(folder: str, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Yield the training images of an archive of two kinds, A in `trainA` and B in `trainB` of its folder."""
    for kind in classes:
        for file in _files(root / folder / f"train{kind}"):
            yield SourceImage(f"{kind}/{file.name}", kind, file)


def _files(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.glob("*") if not file.name.startswith("."))
    if not found:
        name = folder.parent.name  # also that of the source
        raise DataError(f"{folder}: no images in it; delete {folder.parents[1]} and run: gantool data fetch {name}")
    return found
