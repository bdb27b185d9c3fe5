"""What a path holds: images, arrays, both, or neither."""

from __future__ import annotations

import numpy as np
from gantool.batches import Labeled
from gantool.data.sources.arrays import Arrays
from gantool.data.sources.folders import ARCHIVES, Folder
from gantool.data.sources.paths import open_path
from gantool.recipe.blocks import Data
from PIL import Image

from refusals import refusal


def opened(path, **options):
    return open_path(path, Data(source=str(path), size=8, **options), Labeled)


def test_a_file_that_is_neither_an_archive_nor_an_array_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a.png")
    assert refusal(opened, tmp_path / "a.png") == (
        f"data.source: {tmp_path / 'a.png'} is a file, but neither an archive nor an array; use a folder, "
        f"{', '.join(ARCHIVES)}, .npz, .npy, .parquet, an idx file, or a .csv file with the columns file and class; "
        "save anything else as a PNG for each image, in a folder for each class"
    )


def test_images_beside_an_array_of_images_are_ambiguous_and_either_can_be_named(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8), np.uint8))
    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    assert refusal(opened, tmp_path) == (
        f"{tmp_path}: holds 1.png and other images beside x.npy; to use the images, say data.folder=.; to use the "
        "array, give its file as data.source"
    )
    assert isinstance(opened(tmp_path, folder="."), Folder)
    assert isinstance(opened(tmp_path / "x.npy"), Arrays)


def test_features_beside_images_are_no_array_of_images(tmp_path):
    np.save(tmp_path / "features.npy", np.zeros((4, 8)))
    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    assert isinstance(opened(tmp_path), Folder)
