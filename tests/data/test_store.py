"""Decoded datasets: written, read and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gantool.batches import ImageSpec
from gantool.data.store import Item, build_store, open_store

from processes import visible
from refusals import refusal

SPEC = ImageSpec(3, 4, 5, ("달걀", "dog"))
ABOUT = {"source": "pets", "settings": {"rule": 1}}


def pixels(count=6):
    return np.random.default_rng(0).integers(0, 256, (count, *SPEC.shape)).astype(np.uint8)


def items(images, bad=()):
    for index, image in enumerate(images):
        yield Item(f"{index}.png", index % 2, "truncated" if index in bad else image)


def test_images_and_labels_come_back_exactly_and_are_read_only(tmp_path):
    images = pixels()
    built = build_store(tmp_path / "deep" / "pets", items(map(np.asfortranarray, images)), SPEC, ABOUT)

    for store in (built, open_store(tmp_path / "deep" / "pets")):
        assert len(store) == 6
        assert np.array_equal(store.images, images)
        assert isinstance(store.images, np.memmap)
        assert store.labels.tolist() == [0, 1, 0, 1, 0, 1]
        assert (store.images.dtype, store.labels.dtype) == (np.uint8, np.int64)
        assert (store.spec, store.skipped, store.key) == (SPEC, [], "pets")
    assert visible(tmp_path / "deep") == ["pets"]
    assert visible(tmp_path / "deep" / "pets") == ["about.json", "images.u8", "labels.i64"]
    with pytest.raises(ValueError, match="read-only"):
        built.images[0] = 0


def test_the_about_file_is_readable(tmp_path):
    store = build_store(tmp_path / "a", items(pixels(), bad=(1, 2)), SPEC, ABOUT)
    text = (tmp_path / "a" / "about.json").read_text(encoding="utf-8")

    assert "달걀" in text
    written = json.loads(text)
    assert written.pop("brightest") == int(store.images.max())
    assert written | {"brightest": store.about["brightest"]} == store.about
    assert written == {
        "source": "pets", "settings": {"rule": 1}, "images": 4, "channels": 3, "height": 4, "width": 5,
        "classes": ["달걀", "dog"], "skipped": [["1.png", "truncated"], ["2.png", "truncated"]],
        "partly": [], "digest": store.digest,
    }  # fmt: skip
    assert len(store.digest) == 64


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([], "no images in it; a source is a folder of images, or of folders of images"),
        (["truncated"], "1 of 1 files cannot be read as images (0.png: truncated); mend or remove them"),
        (["", "empty", "cut"], "2 of 3 files cannot be read as images (1.png: empty); mend or remove them"),
        ([""], "no readable image of class 'dog'; choose others with data.classes"),
        (["", "cut"], "no readable image of class 'dog' (1.png: cut); choose others with data.classes"),
    ],
)
def test_a_dataset_that_would_train_to_nothing_is_refused(tmp_path, faults, message):
    content = [Item(f"{index}.png", index % 2, fault or pixels()[0]) for index, fault in enumerate(faults)]
    assert refusal(build_store, tmp_path / "a", iter(content), SPEC, ABOUT) == f"pets: {message}"
    assert visible(tmp_path) == []


@pytest.mark.parametrize("content", [None, -8, b"", b'{"images": "x"}'])
@pytest.mark.parametrize("file", ["about.json", "images.u8", "labels.i64"])
def test_a_damaged_store_is_none_and_is_not_touched(tmp_path, file, content):
    build_store(tmp_path / "a", items(pixels()), SPEC, ABOUT)
    path = tmp_path / "a" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    before = visible(tmp_path / "a")

    assert open_store(tmp_path / "a") is None
    message = "the decoded dataset is damaged; delete this directory and run the command again"
    assert refusal(build_store, tmp_path / "a", items(pixels()), SPEC, ABOUT) == f"{tmp_path / 'a'}: {message}"
    assert (visible(tmp_path / "a"), visible(tmp_path)) == (before, ["a"])
