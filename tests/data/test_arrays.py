"""Arrays of images in files: idx, npy and npz; their labels, splits and values, and refusals."""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile

import numpy as np
import pytest
from gantool.batches import Paired
from gantool.data.prepare import describe, prepare
from gantool.data.sources import paths
from gantool.recipe.blocks import Data

from refusals import refusal

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 3
TYPES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array):
    """MNIST's file format: two zero bytes, the type, the dimensions, each side as 4 bytes, then the values."""
    sides = b"".join(side.to_bytes(4, "big") for side in array.shape)
    return (
        bytes([0, 0, TYPES[array.dtype.str[1:]], array.ndim])
        + sides
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def loaded(source, root, **options):
    return prepare(Data(source=str(source), **{"size": 8, **options}), root / "data")


def refused(source, root, **options):
    return refusal(lambda: loaded(source, root, **options)).replace(str(root), "HERE")


@pytest.fixture
def fashion(tmp_path):
    """A folder of four idx files, as Debian's package lays them."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for split, count in (("train", 20), ("t10k", 6)):
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[:count])))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:count])))
    return folder


# --- idx ----------------------------------------------------------------------------------------------------


def test_idx_files_in_any_folder_are_read_and_the_split_that_is_not_used_is_named(fashion, tmp_path, logged):
    store = loaded(fashion, tmp_path)

    assert np.array_equal(store.images[:, 0], IMAGES)
    assert (store.spec.classes, store.labels.tolist()) == (("0", "1", "2"), LABELS.tolist())
    assert logged[0] == "t10k-images-idx3-ubyte.gz: images of another split; data.folder=t10k uses them"
    assert len(loaded(fashion, tmp_path, folder="t10k")) == 6
    assert len(loaded(fashion / "train-images-idx3-ubyte.gz", tmp_path)) == 20
    assert loaded(fashion, tmp_path, classes=["2", "0"]).labels.tolist() == [
        (1, 0)[label // 2] for label in LABELS if label != 1
    ]


def test_idx_files_in_torchvisions_layout_are_read_uncompressed_ones_first(tmp_path, logged):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in (("train-images-idx3-ubyte", IMAGES), ("train-labels-idx1-ubyte", LABELS)):
        (raw / name).write_bytes(idx(array))
        (raw / f"{name}.gz").write_bytes(b"\x1f\x8b" + gzip.compress(idx(array))[2:])
    assert loaded(tmp_path / "MNIST", tmp_path).labels.tolist() == LABELS.tolist()
    assert logged[0] == "train-images-idx3-ubyte.gz: train-images-idx3-ubyte is beside it"


def test_published_labels_have_the_names_of_their_classes(fashion, tmp_path, monkeypatch):
    names = ("T-shirt", "Trouser", "Pullover")
    monkeypatch.setitem(paths.PUBLISHED, hashlib.sha256(idx(LABELS)).hexdigest(), names)
    store = loaded(fashion, tmp_path)
    assert (store.spec.classes, store.labels.tolist()) == (names, LABELS.tolist())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES)[:-1], "it is cut short"),
        (idx(IMAGES) + b"x", "it is longer than its header says"),
        (idx(IMAGES)[:10], "it is cut short"),
        (
            gzip.compress(idx(IMAGES), mtime=0)[:-20],
            "Compressed file ended before the end-of-stream marker was reached",
        ),
        (idx(IMAGES)[:4] + b"\x7f" * 12, "its header promises 9,787,464,616,299,814,446,115,438,207 bytes"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, content, message):
    file = tmp_path / "images-idx3-ubyte"
    file.write_bytes(content)
    assert refused(file, tmp_path) == (
        f"HERE{os.sep}images-idx3-ubyte: cannot be read as an array ({message}); make or copy it again"
    )


# --- npz and npy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "files", "classes"),
    [
        ({"images": COLOURS, "labels": LABELS}, {}, ("0", "1", "2")),
        ({"x_train": COLOURS, "y_train": LABELS[:, None], "x_test": IMAGES, "y_test": LABELS}, {}, ("0", "1", "2")),
        ({"train_images": COLOURS, "train_labels": LABELS}, {}, ("0", "1", "2")),
        ({"arr_0": COLOURS}, {"faces-labels.npy": np.array(["cat", "dog"])[LABELS % 2]}, ("cat", "dog")),
        ({"arr_0": COLOURS}, {"faces_labels.npy": np.array([b"cat", b"dog"])[LABELS % 2]}, ("cat", "dog")),
        ({"faces": COLOURS, "y": LABELS.astype(np.int64) - 1}, {}, ("-1", "0", "1")),
        ({"faces": COLOURS}, {}, ("faces",)),
    ],
)  # fmt: skip
def test_an_npz_gives_its_images_and_their_labels(tmp_path, arrays, files, classes):
    np.savez_compressed(tmp_path / "faces.npz", **arrays)
    for name, array in files.items():
        np.save(tmp_path / name, array)
    store = loaded(tmp_path / "faces.npz", tmp_path)

    assert np.array_equal(store.images.transpose(0, 2, 3, 1), COLOURS)
    assert store.spec.classes == classes
    assert describe(Data(source=str(tmp_path / "faces.npz"), size=8), tmp_path / "data") == store.spec


def test_npy_files_in_a_folder_are_images_and_labels(tmp_path, logged):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, array in (("x_train", IMAGES[..., None]), ("y_train", LABELS), ("weights", np.ones(7))):
        np.save(folder / f"{name}.npy", array)
    store = loaded(folder, tmp_path)
    assert np.array_equal(store.images[:, 0], IMAGES)
    assert logged[0] == "weights.npy: [7] float64, neither images nor labels"
    assert store.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(("black", "kind"), [(0, np.float32), (-1, np.float16), (-1, np.float64)])
def test_floats_from_0_or_minus_1_to_1_become_bytes_and_it_is_said(tmp_path, logged, black, kind):
    np.save(tmp_path / "a.npy", (IMAGES.astype(np.float64) / 255 * (1 - black) + black).astype(kind))
    store = loaded(tmp_path / "a.npy", tmp_path)
    assert np.abs(store.images[:, 0].astype(int) - IMAGES).max() <= (1 if kind is np.float16 else 0)
    assert f"a.npy: values from {black} to 1 become 0 to 255" in logged


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGES.astype(np.float32),
            "has values from 0 to 255; floats have to be from 0 to 1 or from -1 to 1, so scale them, or save "
            "array.round().astype(np.uint8) if they are from 0 to 255"),
        (np.full((3, 8, 8), np.nan),
            "has values from nan to nan; floats have to be from 0 to 1 or from -1 to 1, so scale them, or save "
            "array.round().astype(np.uint8) if they are from 0 to 255"),
        (IMAGES.astype(np.int64),
            "[20, 8, 8] int64 is neither uint8 nor float; scale the values to 0 to 255 and save "
            "array.astype(np.uint8), if they fit"),
        (IMAGES > 9,
            "[20, 8, 8] bool is neither uint8 nor float; scale the values to 0 to 255 and save "
            "array.astype(np.uint8) * 255"),
        (COLOURS.transpose(0, 3, 1, 2).copy(),
            "[20, 3, 8, 8] uint8 is not [N, H, W, C] with C 1 or 3; save it again: array.transpose(0, 2, 3, 1)"),
        (np.zeros((2, 8, 8, 4), np.uint8),
            "[2, 8, 8, 4] uint8 is not [N, H, W, C] with C 1 or 3; save it again: 1 channel for grey, or 3 for "
            "colour"),
        (COLOURS[0],
            "[8, 8, 3] uint8 is one image, not [N, H, W]; save each image as a PNG, in a folder for each class"),
        (IMAGES[:0], "[0, 8, 8] uint8 is empty, or its images have over 64 megapixels; choose another array"),
        (np.zeros((1, 9000, 9000), np.uint8),
            "[1, 9000, 9000] uint8 is empty, or its images have over 64 megapixels; choose another array"),
        (np.array([{}]),
            "holds Python objects, which are never unpickled; save each image as a PNG, in a folder for each "
            "class"),
    ],
)  # fmt: skip
def test_an_array_that_is_not_understood_is_described_with_a_way_out(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    assert refused(tmp_path / "a.npy", tmp_path) == f"HERE{os.sep}a.npy: {message}"


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"a": LABELS, "b": np.eye(2)}, {},
            "f.npz: no array of images in it (f.npz: a [20] uint8, f.npz: b [2, 2] float64); images are [N, H, "
            "W] or [N, H, W, C]; save each image as a PNG, in a folder for each class"),
        ({"left": IMAGES, "right": IMAGES}, {},
            "f.npz: holds f.npz: left (left), f.npz: right (right); choose one with data.folder=left, or name "
            "its file"),
        ({"x_train": IMAGES, "x_test": IMAGES}, {"folder": "tset"},
            "f.npz: holds f.npz: x_train (train), f.npz: x_test (test); choose one with data.folder=train, or "
            "name its file"),
        ({"x": IMAGES, "y": LABELS[1:]}, {},
            "f.npz: y: [19] uint8 are 19 labels for the 20 images of f.npz: x; give each image one"),
        ({"x": IMAGES, "y": np.eye(3)[LABELS]}, {},
            "f.npz: y: [20, 3] float64 are no labels; save np.argmax(labels, 1)"),
        ({"x": IMAGES, "y": LABELS / 2}, {},
            "f.npz: y: [20] float64 are no labels; save the number or the name of each image's class"),
        ({"x": np.asfortranarray(IMAGES)}, {},
            "f.npz: cannot be read as an array (its values are in Fortran's order; save np.ascontiguousarray of "
            "it); make or copy it again"),
    ],
)  # fmt: skip
def test_an_npz_whose_arrays_do_not_fit_is_refused(tmp_path, arrays, options, message):
    np.savez(tmp_path / "f.npz", **arrays)
    assert refused(tmp_path / "f.npz", tmp_path, **options) == f"HERE{os.sep}{message}"


def test_a_bomb_is_refused_by_its_header(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (200, 1000, 1000)})
        file.write(bytes(1000))
    assert "its header promises 200,000,000 bytes" in refused(tmp_path / "f.npz", tmp_path)


def test_a_size_below_zero_is_refused(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (5, -8, 8)})
    assert "(its header has a size below zero)" in refused(tmp_path / "x.npy", tmp_path)


@pytest.mark.parametrize("place", [10, 12, 20, 40])
def test_a_damaged_header_is_refused(tmp_path, place):
    np.save(tmp_path / "x.npy", IMAGES)
    content = bytearray((tmp_path / "x.npy").read_bytes())
    content[place] = ord("(")
    (tmp_path / "x.npy").write_bytes(content)
    assert "(its header is damaged)" in refused(tmp_path / "x.npy", tmp_path)


def test_arrays_are_decoded_again_when_their_file_or_labels_change(tmp_path):
    def key():
        return loaded(tmp_path / "f.npy", tmp_path).key

    np.save(tmp_path / "f.npy", IMAGES)
    keys = {key(), key()}
    np.save(tmp_path / "f-labels.npy", LABELS)
    keys.add(key())
    os.utime(tmp_path / "f.npy", ns=(1, 1))
    keys.add(key())
    assert len(keys) == 3


def test_a_model_of_pairs_does_not_take_arrays(tmp_path):
    np.save(tmp_path / "f.npy", IMAGES)
    message = refusal(prepare, Data(source=str(tmp_path / "f.npy"), size=8), tmp_path / "data", Paired)
    assert message == (
        f"{tmp_path / 'f.npy'}: holds images with their class, but this model learns from pairs of images; use a "
        "folder of them"
    )
