"""From a recipe's data block to a decoded dataset: folders, pairs, archives, names, and refusals."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from gantool.batches import ImageSpec, Labeled, Paired, TableBatch, Unpaired
from gantool.data import prepare as prepare_module
from gantool.data.prepare import describe, fetch, find_source, prepare
from gantool.data.sources import catalog
from gantool.data.sources.catalog import SOURCES
from gantool.errors import MAX_LISTED
from gantool.recipe.blocks import Data
from PIL import Image

from refusals import refusal


def draw(path, colour=(200, 30, 10), size=(8, 8), mode="RGB", **options):
    """Write an image of one colour; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)


@pytest.fixture
def pets(tmp_path):
    """Two classes of three and two images, whose red tells them apart."""
    for index in range(3):
        draw(tmp_path / "pets" / "cat" / f"{index}.png", (index, 1, 2))
    for index in range(2):
        draw(tmp_path / "pets" / "dog" / f"{index}.png", (100 + index, 1, 2))
    return tmp_path / "pets"


def data(source, **options):
    return Data(source=str(source), **{"size": 8, **options})


def reds(store):
    return store.images[:, 0, 0, 0].tolist()


# --- folders ------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_store_in_a_fixed_order(pets, tmp_path):
    store = prepare(data(pets), tmp_path / "data")

    assert store.spec == ImageSpec(3, 8, 8, ("cat", "dog")) == describe(data(pets), tmp_path / "data")
    assert store.images.shape == (5, 3, 8, 8)
    assert (reds(store), store.labels.tolist()) == ([0, 1, 2, 100, 101], [0, 0, 0, 1, 1])
    assert store.path.parent == tmp_path / "data" / "stores"
    assert re.fullmatch(r"pets-[0-9a-f]{16}", store.key)
    assert store.about["settings"]["classes"] == ["cat", "dog"]


def test_kept_classes_get_labels_in_the_order_of_the_recipe(pets, tmp_path):
    store = prepare(data(pets, classes=["dog", "cat"], size=(6, 10)), tmp_path / "data")

    assert store.spec == ImageSpec(3, 6, 10, ("dog", "cat"))
    assert (store.images.shape, store.labels.tolist()) == ((5, 3, 6, 10), [0, 0, 1, 1, 1])
    assert reds(prepare(data(pets, classes=["dog"]), tmp_path / "data")) == [100, 101]


@pytest.mark.parametrize(("grey", "channels"), [(3, 1), (2, 3), (1, 3)])
def test_most_images_decide_the_channels(tmp_path, grey, channels):
    for index in range(4):
        draw(tmp_path / "all" / f"{index}.png", mode="L" if index < grey else "RGB")

    for wanted, found in ((None, channels), (3, 3), (1, 1)):
        assert prepare(data(tmp_path / "all", channels=wanted), tmp_path / "data").spec.channels == found
    assert describe(data(tmp_path / "all"), tmp_path / "data").channels == channels


def test_unreadable_files_are_skipped_and_logged_once(pets, tmp_path, logged):
    for name, content in {"text.png": b"text\n", "zero.png": b""}.items():
        (pets / "cat" / name).write_bytes(content)
    store = prepare(data(pets), tmp_path / "data")

    assert len(store) == 5
    assert [(Path(name).name, reason) for name, reason in store.skipped] == [
        ("text.png", "not an image"),
        ("zero.png", "empty file"),
    ]
    assert logged[0] == f"decoding {pets} at 8x8, once"
    assert re.fullmatch(r"2 files skipped, such as cat.text.png \(not an image\); all in .*about.json", logged[1])
    logged.clear()
    assert prepare(data(pets), tmp_path / "data").path == store.path
    assert logged == []


def test_images_that_are_used_in_part_or_nearly_black_are_reported_once(tmp_path, logged):
    folder = tmp_path / "scans"
    folder.mkdir()
    pages = [Image.fromarray(np.full((8, 8), 16 * index, np.uint16)) for index in range(100, 104)]
    pages[0].save(folder / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "b.tif")
    store = prepare(data(folder), tmp_path / "data")

    assert len(store) == 2
    assert store.about["brightest"] == 6
    assert re.fullmatch(r"1 file used in part, such as a.tif \(3 further pages\); all in .*about.json", logged[1])
    assert logged[2] == (
        "the images are nearly black: their brightest value is 6 of 255; scale them first (values of 12 bits in files "
        "of 16 bits: times 16)"
    )


@pytest.mark.parametrize("kind", [Labeled, Paired])
def test_a_folder_is_decoded_once_however_its_path_is_written(kind, tmp_path, monkeypatch):
    for side in "AB":
        draw(tmp_path / "mine" / side / "1.png")
    monkeypatch.chdir(tmp_path)
    whole, short = (prepare(data(path), tmp_path / "data", kind) for path in (tmp_path / "mine", "mine"))
    assert whole.path == short.path


def test_a_changed_file_or_other_settings_make_another_store(pets, tmp_path):
    first = prepare(data(pets), tmp_path / "data")
    times = {path.name: path.stat().st_mtime_ns for path in first.path.iterdir()}
    assert prepare(data(pets), tmp_path / "data").path == first.path
    assert {path.name: path.stat().st_mtime_ns for path in first.path.iterdir()} == times

    settings = ({"size": 9}, {"size": (8, 9)}, {"channels": 1}, {"classes": ["dog", "cat"]})
    paths = {first.path, *(prepare(data(pets, **options), tmp_path / "data").path for options in settings)}
    draw(pets / "cat" / "0.png", (50, 1, 2))
    os.utime(pets / "cat" / "0.png", ns=(1, 1))
    second = prepare(data(pets), tmp_path / "data")
    draw(pets / "cat" / "9.png", (60, 1, 2))
    third = prepare(data(pets), tmp_path / "data")
    assert (reds(first)[0], reds(second)[0], reds(third)[3]) == (0, 50, 60)
    assert len(paths | {second.path, third.path}) == 7


# --- archives, names and addresses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (
            "mnits",
            Labeled,
            "data.source: unknown source 'mnits'; did you mean 'mnist'?; no folder or file here has this name either; ",
        ),
        (
            "zzz",
            Labeled,
            f"data.source: unknown source 'zzz'; known: {', '.join(sorted(SOURCES)[:20])} and "
            f"{len(SOURCES) - 20} more; no folder or file here has this name either; see: gantool data list",
        ),
        ("./nowhere", Labeled, "data.source: ./nowhere: no such file or folder; see: gantool data list"),
        ("a.zip", Paired, "data.source: a.zip: no such file or folder; see: gantool data list"),
        ("a" * 5000, Labeled, "data.source: unknown source 'aaa"),
        ("incoem", TableBatch, "data.source: unknown table 'incoem'; did you mean 'income'?; see: gantool data list"),
        ("./a.csv", TableBatch, "data.source: unknown table './a.csv'; known: adult, and, income, sentences, xor; see"),
        ("file:///a/b", Labeled, "data.source: file:///a/b is an address that gantool does not read; name a path or "),
        (
            "https://example.org/a.zip",
            Labeled,
            "data.source: https://example.org/a.zip is an address; fetch it first: "
            "gantool data fetch 'https://example.org/a.zip' --name food",
        ),
    ],
)
def test_a_source_that_does_not_exist_is_refused(inside, source, kind, message):
    assert refusal(prepare, data(source, size=None), inside / "data", kind).startswith(message)
    assert not (inside / "data").exists()


def test_a_name_wins_over_a_folder_of_that_name_and_has_no_folders(inside):
    draw(inside / "digits" / "1.png")

    assert find_source(data("digits"), inside / "data") is SOURCES["digits"]
    assert find_source(data("./digits"), inside / "data").classes == ("digits",)
    message = "digits: has no folders to look in; leave out data.folder=valid"
    assert refusal(prepare, data("digits", folder="valid"), inside) == message


def test_describing_makes_nothing(tmp_path):
    assert describe(data("mnist", size=28), tmp_path / "data") == ImageSpec(1, 28, 28, tuple("0123456789"))
    assert describe(data("eggs", classes=["Egg"]), tmp_path / "data") == ImageSpec(3, 8, 8, ("Egg",))
    assert describe(data("nowhere"), tmp_path / "data") == ImageSpec(3, 8, 8, ("image",))
    missing = data("nowhere", classes=["a", "b"], channels=1)
    assert describe(missing, tmp_path / "data") == ImageSpec(1, 8, 8, ("a", "b"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("what", "name", "message"),
    [
        ("digits", "mine", "--name mine: only images from an address get a name; leave it out"),
        ("https://example.org/a.zip", "mnist", "--name mnist: expected a new name of letters, digits, - and _, "),
        ("https://example.org/eggs.zip", None, "--name eggs: expected a new name of letters, digits, - and _, "),
        (
            "digist",
            None,
            "data.source: unknown source 'digist'; did you mean 'digits'?; no folder or file here has this name",
        ),
    ],
)
def test_what_cannot_be_fetched_is_refused(tmp_path, what, name, message):
    assert refusal(fetch, what, name, tmp_path).startswith(message)


def test_the_weights_of_inception_are_fetched_to_where_score_looks_for_them(tmp_path, monkeypatch):
    downloads = []
    monkeypatch.setattr(prepare_module, "download", lambda remote, folder, **_: downloads.append((remote, folder)))
    assert fetch("inception", None, tmp_path) == "inception"
    assert downloads == [(catalog.INCEPTION_WEIGHTS, tmp_path / catalog.INCEPTION_FOLDER)]


def test_an_address_is_fetched_once_and_a_folder_not_at_all(tmp_path, pets, logged):
    draw(tmp_path / "fetched" / "food" / "egg" / "1.png")
    (tmp_path / "fetched" / "food" / ".complete").touch()

    assert fetch("https://example.org/food.zip", None, tmp_path) == "food"
    assert logged == [f"food is already here, in {tmp_path / 'fetched' / 'food'}"]
    assert prepare(data("food"), tmp_path).spec.classes == ("egg",)
    assert fetch(str(pets), None, tmp_path) == str(pets)


# --- kinds of batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("digits", Paired, "images with their class, but this model learns from pairs of images"),
        ("egg_colours", TableBatch, "two kinds of images, but this model learns from a table"),
        ("egg_edges", TableBatch, "pairs of images, but this model learns from a table"),
        ("income", Labeled, "a table, but this model learns from images with their class"),
        ("xor", Unpaired, "a table, but this model learns from two kinds of images"),
    ],
)
def test_a_source_of_another_kind_is_refused_with_those_that_fit(source, kind, message, tmp_path):
    fitting = ", ".join(name for name, other in SOURCES.items() if other.kind is kind)
    for ask in (find_source, describe, prepare):
        found = refusal(ask, data(source), tmp_path / "data", kind)
        assert found == f"data.source: {source} holds {message}; such are: {fitting}"


@pytest.mark.parametrize(
    ("source", "kind", "classes"),
    [
        ("digits", Unpaired, ["3", "8"]),
        ("egg_edges", Labeled, None),
        ("egg_edges", Unpaired, None),
        ("egg_edges", Paired, ["egg", "edges"]),
        ("egg_colours", Labeled, None),
    ],
)
def test_pairs_and_kinds_are_images_with_a_class_too_and_two_classes_are_two_kinds(source, kind, classes, tmp_path):
    assert find_source(data(source, classes=classes), tmp_path, kind) is SOURCES[source]


@pytest.mark.parametrize(
    ("source", "kind", "classes", "found"),
    [
        ("digits", Unpaired, None, "10 kinds (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"),
        ("egg_edges", Paired, ["egg"], "1 kind (egg)"),
    ],
)
def test_other_than_two_kinds_are_refused_by_a_model_that_translates(source, kind, classes, found, tmp_path):
    message = f"{source}: has {found}, but a translation is between two; choose with data.classes=[A, B]"
    assert refusal(prepare, data(source, classes=classes), tmp_path / "data", kind) == message


# --- pairs --------------------------------------------------------------------------------------------------


def test_a_folder_of_pairs_becomes_a_store_of_sources_and_targets_in_turn(tmp_path):
    for index in (2, 1, 3):
        draw(tmp_path / "mine" / "drawing" / f"{index}.png", (index, 0, 0))
        draw(tmp_path / "mine" / "photo" / f"{index}.png", (100 + index, 0, 0))
    store = prepare(data(tmp_path / "mine"), tmp_path / "data", Paired)
    turned = prepare(data(tmp_path / "mine", classes=["photo", "drawing"]), tmp_path / "data", Paired)
    single = prepare(data(tmp_path / "mine"), tmp_path / "data")

    assert (reds(store), store.labels.tolist()) == ([1, 101, 2, 102, 3, 103], [0, 1] * 3)
    assert (reds(turned), turned.spec.classes) == ([101, 1, 102, 2, 103, 3], ("photo", "drawing"))
    assert reds(single) == [1, 2, 3, 101, 102, 103]


def test_images_without_a_partner_are_listed_once_and_very_many_are_counted(tmp_path, logged):
    for side in "AB":
        draw(tmp_path / "mine" / side / "pair.png")
    for index in range(MAX_LISTED + 3):
        draw(tmp_path / "mine" / "B" / f"{index:02d}.png")

    for _ in range(2):
        assert len(prepare(data(tmp_path / "mine"), tmp_path / "data", Paired)) == 2
    assert logged == [
        *(f"{Path(f'B/{index:02d}.png')}: no partner in A" for index in range(MAX_LISTED)),
        "and 3 more such",
        f"decoding {tmp_path / 'mine'} at 8x8, once",
    ]


@pytest.mark.parametrize("side", ["A", "B"])
def test_an_image_that_breaks_off_leaves_its_partner_out_too(tmp_path, side):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    for index in range(3):
        for name in "AB":
            draw(tmp_path / "mine" / name / f"{index}.png", (index + (100 if name == "B" else 0), 0, 0), (16, 16))
    Image.fromarray(noise).save(tmp_path / "mine" / side / "1.png")
    whole = (tmp_path / "mine" / side / "1.png").read_bytes()
    (tmp_path / "mine" / side / "1.png").write_bytes(whole[: len(whole) // 2])
    store = prepare(data(tmp_path / "mine"), tmp_path / "data", Paired)

    assert (reds(store), store.labels.tolist()) == ([0, 100, 2, 102], [0, 1, 0, 1])
    assert store.skipped == [[str(Path(side, "1.png")), "truncated"]]
