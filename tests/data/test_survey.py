"""What is odd about images: duplicates, near-duplicates, images of one colour, classes with one image."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from gantool.data import survey
from gantool.data.prepare import prepare
from gantool.data.survey import Survey
from gantool.recipe.blocks import Data
from PIL import Image


def waves(index, size=64):
    """An image that is like no other index's."""
    y, x = np.mgrid[:size, :size] * (64 / size)
    return (128 + 100 * np.sin(x / (5 + index) + index) * np.cos(y / (4 + index))).astype(np.uint8)


def found(images, class_names=None):
    own = Survey()
    for index, image in enumerate(images):
        own.add(str(index), (class_names or ["all"] * len(images))[index], image, image.tobytes())
    return own.findings()


def as_jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def test_images_that_differ_have_no_findings():
    findings = found([waves(index) for index in range(30)])
    assert findings.summary() == ""
    assert findings == ({"all": 30}, [], [], [])


@pytest.mark.parametrize(
    "change",
    [
        lambda image: as_jpeg(image, 85),
        lambda image: np.asarray(Image.fromarray(image).resize((40, 40))),
        lambda image: (image + np.random.default_rng(0).integers(-3, 4, image.shape)).astype(np.uint8),
        lambda image: image + np.uint8(1),
        lambda image: np.repeat(image[..., None], 3, 2),
    ],
    ids=["jpeg", "smaller", "noise", "brighter", "in colour"],
)
def test_an_image_that_was_saved_again_is_a_near_duplicate(change):
    findings = found([*(waves(index) for index in range(20)), change(waves(7))])
    assert findings.near_duplicates == [["7", "20"]]
    assert findings.summary() == "1 pair of near-duplicates"


@pytest.mark.parametrize(
    "change", [lambda image: image[:, ::-1].copy(), lambda image: 255 - image, lambda image: image.T.copy()]
)
def test_a_mirrored_or_inverted_image_is_another(change):
    assert found([waves(3), change(waves(3))]).near_duplicates == []


def test_equal_images_are_exact_duplicates_and_not_near_ones():
    findings = found([waves(1), waves(2), waves(1), waves(1)])
    assert (findings.duplicates, findings.near_duplicates) == ([["0", "2", "3"]], [])
    assert findings.summary() == "2 exact duplicates"


def test_images_of_one_colour_are_named_and_not_compared():
    flat = [np.full((8, 8), value, np.uint8) for value in (10, 200)]
    colour = np.full((8, 8, 3), (250, 0, 0), np.uint8)
    findings = found([*flat, colour, flat[0] + np.arange(8, dtype=np.uint8)])
    assert (findings.constant, findings.near_duplicates) == (["0", "1", "2", "3"], [])


def test_a_class_with_one_image_is_named_unless_it_is_the_only_class():
    assert found([waves(0), waves(1), waves(2)], ["a", "a", "b"]).summary() == "1 class with one image, such as b"
    assert found([waves(0)]).summary() == ""


def test_of_many_images_those_with_equal_bits_are_compared(monkeypatch):
    monkeypatch.setattr(survey, "MAX_COMPARED", 10)
    images = [waves(index) for index in range(20)]
    assert found([*images, waves(7) + np.uint8(1)]).near_duplicates == [["7", "20"]]


def test_findings_are_logged_once_and_kept_beside_the_images(tmp_path, logged):
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / "all").mkdir(exist_ok=True)
        Image.fromarray(waves(int(name[0]) % 2)).save(tmp_path / "all" / name)
    stores = [prepare(Data(source=str(tmp_path / "all"), size=8), tmp_path / "data") for _ in range(2)]

    assert [line for line in logged if "found" in line] == [
        f"found 1 exact duplicate; see: gantool data check {tmp_path / 'all'}"
    ]
    kept = json.loads((stores[0].path / "about.json").read_text(encoding="utf-8"))["findings"]
    assert kept["duplicates"] == [["1.png", "3.png"]]
