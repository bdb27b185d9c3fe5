"""A report on every image of a source."""

from __future__ import annotations

import numpy as np
from gantool.batches import Labeled
from gantool.data.check import check
from gantool.data.prepare import find_source
from gantool.recipe.blocks import Data
from PIL import Image


def report(source, root):
    source = find_source(Data(source=str(source), size=8), root, Labeled)
    return check(source, root, source.classes)


def test_a_report_counts_classes_sizes_and_modes_and_names_what_is_not_used(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    pets = tmp_path / "pets"
    for name in ("cat", "dog", "texts"):
        (pets / name).mkdir(parents=True)
    for index in range(3):
        Image.fromarray(noise[index]).save(pets / "cat" / f"{index}.png")
    Image.fromarray(noise[3]).save(pets / "dog" / "1.tif", save_all=True, append_images=[Image.fromarray(noise[2])])
    (pets / "dog" / "2.png").write_bytes(b"")
    (pets / "texts" / "x.txt").write_text("text")
    found = report(pets, tmp_path / "data")

    assert found.findings.classes == {"cat": 3, "dog": 1}
    assert (found.sizes, found.modes) == ({"30x20": 4}, {"PNG RGB": 3, "TIFF RGB": 1})
    assert [(name.replace("\\", "/"), reason) for name, reason in found.unreadable] == [("dog/2.png", "empty file")]
    assert [(name.replace("\\", "/"), part) for name, part in found.partly] == [("dog/1.tif", "1 further page")]
    assert found.ignored == [("texts", "holds 1 file, but no image")]
    assert found.findings.summary() == "1 class with one image, such as dog"
    assert set(found.entry()) == {
        *("classes", "duplicates", "near_duplicates", "constant", "sizes", "modes"),
        *("unreadable", "partly", "ignored"),
    }


def test_arrays_and_rendered_images_are_reported_too(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8), np.uint8))
    found = report(tmp_path / "x.npy", tmp_path / "data")
    assert (found.modes, found.findings.constant) == ({"array L": 3}, ["0", "1", "2"])
    assert found.findings.duplicates == [["0", "1", "2"]]
