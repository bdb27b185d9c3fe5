"""From images in files, made here with Pillow, to a decoded dataset."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gantool.batches import ImageSpec, Labeled, Paired, TableBatch, Unpaired
from gantool.data import prepare as prepare_module
from gantool.data.prepare import describe, fetch, find_source, prepare
from gantool.data.sources import catalog
from gantool.data.sources.catalog import SOURCES
from gantool.errors import MAX_LISTED, DataError
from gantool.recipe.blocks import Data
from PIL import Image

posix = pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")


def picture(path, colour=(200, 30, 10), size=(8, 8), mode="RGB", **options):
    """Write an image of one colour; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour).convert(mode)
    image.save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path):
    """Two classes of three and two images, whose red tells them apart."""
    for index in range(3):
        picture(tmp_path / "pets" / "cat" / f"{index}.png", (index, 1, 2))
    for index in range(2):
        picture(tmp_path / "pets" / "dog" / f"{index}.png", (100 + index, 1, 2))
    return tmp_path / "pets"


def data(source, **options):
    return Data(source=str(source), **{"size": 8, **options})


def reds(store):
    return store.images[:, 0, 0, 0].tolist()


# --- folders ------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_store_in_a_fixed_order(pets, tmp_path):
    store = prepare(data(pets), tmp_path / "data")

    assert store.spec == ImageSpec(3, 8, 8, ("cat", "dog"))
    assert store.images.shape == (5, 3, 8, 8)
    assert reds(store) == [0, 1, 2, 100, 101]
    assert store.labels.tolist() == [0, 0, 0, 1, 1]
    assert store.path.parent == tmp_path / "data" / "stores"
    assert re.fullmatch(r"pets-[0-9a-f]{16}", store.path.name)
    assert store.about["settings"]["classes"] == ["cat", "dog"]


def test_kept_classes_get_labels_in_the_order_of_the_recipe(pets, tmp_path):
    store = prepare(data(pets, classes=["dog", "cat"]), tmp_path / "data")
    only = prepare(data(pets, classes=["dog"]), tmp_path / "data")

    assert (store.spec.classes, store.labels.tolist()) == (("dog", "cat"), [0, 0, 1, 1, 1])
    assert (only.spec.classes, reds(only)) == (("dog",), [100, 101])


def test_an_unknown_class_is_told(pets, tmp_path):
    message = r"pets: unknown class 'cta'; did you mean 'cat'\?; data.classes names the ones to keep, null keeps all$"
    with pytest.raises(DataError, match=message):
        prepare(data(pets, classes=["cta"]), tmp_path / "data")


def test_a_size_of_two_sides_is_height_and_width(pets, tmp_path):
    store = prepare(data(pets, size=(6, 10)), tmp_path / "data")

    assert store.images.shape == (5, 3, 6, 10)
    assert (store.spec.height, store.spec.width) == (6, 10)


def test_images_of_any_size_and_mode_become_alike(tmp_path):
    for name, options in {
        "1.png": {"size": (20, 10)}, "2.png": {"size": (1, 50)}, "3.jpg": {"size": (9, 9), "quality": 95},
        "4.png": {"mode": "RGBA"}, "5.png": {"mode": "P"}, "6.gif": {"mode": "P"}, "7.bmp": {},
        "8.webp": {"lossless": True}, "9.jpg": {"mode": "CMYK", "quality": 95}, "a.tif": {},
        "한글 이름.png": {"size": (1, 1)},
    }.items():  # fmt: skip
        picture(tmp_path / "all" / name, **options)

    store = prepare(data(tmp_path / "all"), tmp_path / "data")

    assert store.images.shape == (11, 3, 8, 8)
    assert (
        np.abs(store.images.astype(int) - np.array([200, 30, 10]).reshape(1, 3, 1, 1)).max() < 60
    )  # a palette of web colours
    assert store.skipped == []


@pytest.mark.parametrize(("grey", "channels"), [(3, 1), (2, 3), (1, 3)])
def test_most_images_decide_the_channels(tmp_path, grey, channels):
    for index in range(4):
        picture(tmp_path / "all" / f"{index}.png", mode="L" if index < grey else "RGB")

    assert prepare(data(tmp_path / "all"), tmp_path / "data").spec.channels == channels
    assert prepare(data(tmp_path / "all", channels=3), tmp_path / "data").spec.channels == 3
    assert prepare(data(tmp_path / "all", channels=1), tmp_path / "data").spec.channels == 1
    assert describe(data(tmp_path / "all"), tmp_path / "data").channels == channels


def test_a_split_is_asked_for_and_taken(tmp_path):
    picture(tmp_path / "food" / "train" / "egg" / "1.png", (1, 0, 0))
    picture(tmp_path / "food" / "valid" / "egg" / "1.png", (2, 0, 0))

    with pytest.raises(DataError, match=r"food: holds train, valid; choose one with data.folder=valid$"):
        prepare(data(tmp_path / "food"), tmp_path / "data")

    assert reds(prepare(data(tmp_path / "food", folder="valid"), tmp_path / "data")) == [2]
    assert reds(prepare(data(tmp_path / "food", folder="train"), tmp_path / "data")) == [1]


# --- bad files ----------------------------------------------------------------------------------------------


def test_unreadable_files_are_skipped_listed_and_counted(pets, tmp_path, logged):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    good = (tmp_path / "noise.png").read_bytes()
    for name, content in {
        "text.png": b"this is text\n",
        "zero.png": b"",
        "half.png": good[: len(good) // 2],
        "notes.txt": b"x",
    }.items():
        (pets / "cat" / name).write_bytes(content)

    store = prepare(data(pets), tmp_path / "data")

    assert len(store) == 5
    assert {Path(name).name: reason for name, reason in store.skipped} == {
        "text.png": "not an image", "zero.png": "empty file", "half.png": "truncated", "notes.txt": "not an image",
    }  # fmt: skip
    assert logged[0] == f"decoding {pets} at 8x8, once"
    assert re.fullmatch(r"4 files skipped, such as cat.half.png \(truncated\); all in .*about.json", logged[1])
    assert json.loads((store.path / "about.json").read_text(encoding="utf-8"))["skipped"] == store.skipped

    logged.clear()
    assert prepare(data(pets), tmp_path / "data").path == store.path
    assert logged == [], "skipped files are listed once"


@pytest.mark.parametrize("kind", [Labeled, Paired])
def test_a_folder_is_decoded_once_however_its_path_is_written(kind, tmp_path, monkeypatch):
    for side in "AB":
        picture(tmp_path / "mine" / side / "1.png")
    monkeypatch.chdir(tmp_path)
    whole, short = (prepare(data(path), tmp_path / "data", kind) for path in (tmp_path / "mine", "mine"))
    assert whole.path == short.path


def test_when_most_files_are_bad_it_is_refused(pets, tmp_path):
    for index in range(6):
        (pets / "cat" / f"bad{index}.png").write_bytes(b"text")

    message = (
        rf"^{re.escape(str(pets))}: 6 of 11 files cannot be read as images \(cat.bad0.png: not an image\); "
        "mend or remove them$"
    )
    with pytest.raises(DataError, match=message):
        prepare(data(pets), tmp_path / "data")
    assert list((tmp_path / "data" / "stores").iterdir()) == []


def test_a_folder_without_one_image_is_refused(tmp_path):
    (tmp_path / "all").mkdir()
    with pytest.raises(DataError, match="all: no files in it; a source is a folder of images, or of folders of images"):
        prepare(data(tmp_path / "all"), tmp_path / "data")

    (tmp_path / "all" / "text.txt").write_text("text")
    with pytest.raises(DataError, match=r"all: 1 of 1 files cannot be read as images \(text.txt: not an image\)"):
        prepare(data(tmp_path / "all"), tmp_path / "data")


def test_a_class_without_one_image_is_refused(pets, tmp_path):
    (pets / "eel").mkdir()
    (pets / "eel" / "1.png").write_bytes(b"")

    message = r"no readable image of class 'eel' \(eel.1.png: empty file\); choose others with data.classes$"
    with pytest.raises(DataError, match=message):
        prepare(data(pets), tmp_path / "data")
    assert len(prepare(data(pets, classes=["cat", "dog"]), tmp_path / "data")) == 5


@posix
def test_pipes_and_loops_end(pets, tmp_path):
    os.mkfifo(pets / "cat" / "x.png")
    (pets / "cat" / "up").symlink_to(pets)
    (pets / "dog" / "self.png").symlink_to("self.png")
    (pets / "dog" / "gone.png").symlink_to("nowhere.png")

    store = prepare(data(pets), tmp_path / "data")

    assert len(store) == 5
    assert {Path(name).name for name, _ in store.skipped} == {"x.png", "self.png", "gone.png"}
    assert dict(store.skipped)[str(Path("cat/x.png"))] == "not a file"


# --- stores are kept ----------------------------------------------------------------------------------------


def test_a_store_is_made_once(pets, tmp_path, logged):
    first = prepare(data(pets), tmp_path / "data")
    times = {path.name: path.stat().st_mtime_ns for path in first.path.iterdir()}
    second = prepare(data(pets), tmp_path / "data")

    assert second.path == first.path
    assert {path.name: path.stat().st_mtime_ns for path in second.path.iterdir()} == times
    assert len(logged) == 1


def test_a_store_is_made_anew_when_a_file_changes(pets, tmp_path):
    first = prepare(data(pets), tmp_path / "data")
    picture(pets / "cat" / "0.png", (50, 1, 2))
    os.utime(pets / "cat" / "0.png", ns=(1, 1))
    second = prepare(data(pets), tmp_path / "data")
    picture(pets / "cat" / "9.png", (60, 1, 2))
    third = prepare(data(pets), tmp_path / "data")

    assert (reds(first)[0], reds(second)[0], reds(third)[3]) == (0, 50, 60)
    assert len({first.path, second.path, third.path}) == 3


@pytest.mark.parametrize("options", [{"size": 9}, {"size": (8, 9)}, {"channels": 1}, {"classes": ["dog", "cat"]}])
def test_other_settings_make_another_store(pets, tmp_path, options):
    assert prepare(data(pets), tmp_path / "data").path != prepare(data(pets, **options), tmp_path / "data").path


def test_a_damaged_store_is_told(pets, tmp_path):
    store = prepare(data(pets), tmp_path / "data")
    (store.path / "images.u8").write_bytes(b"")

    with pytest.raises(DataError, match="the decoded dataset is damaged; delete this directory and run the command"):
        prepare(data(pets), tmp_path / "data")
    shutil.rmtree(store.path)
    assert len(prepare(data(pets), tmp_path / "data")) == 5


def test_two_processes_that_prepare_the_same_data_both_get_it(tmp_path):
    for index in range(200):
        picture(tmp_path / "many" / f"{index:03d}.png", (index, 0, 0), (40, 40))
    script = """
        import sys
        from pathlib import Path
        from gantool.data.prepare import prepare
        from gantool.recipe.blocks import Data

        print("ready", flush=True)
        sys.stdin.readline()
        store = prepare(Data(source=sys.argv[1], size=8), Path(sys.argv[2]))
        print(len(store), int(store.images[150, 0, 0, 0]), store.path)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "many"), str(tmp_path / "data")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        answers.append(process.communicate()[0])
        assert process.returncode == 0

    assert answers[0] == answers[1]
    assert answers[0].startswith("200 150 ")
    assert len(list((tmp_path / "data" / "stores").iterdir())) == 1


# --- archives, names and addresses --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_gives_the_same_pixels_as_its_folder(pets, tmp_path, kind):
    path = tmp_path / f"packed.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            for file in pets.rglob("*.png"):
                packed.write(file, file.relative_to(tmp_path).as_posix())
    else:
        with tarfile.open(path, "w:gz") as packed:
            packed.add(pets, "pets")

    store, same = prepare(data(path), tmp_path / "data"), prepare(data(pets), tmp_path / "data")

    assert store.spec == same.spec
    assert np.array_equal(store.images, same.images)
    assert store.labels.tolist() == same.labels.tolist()


def test_a_damaged_archive_is_told(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(100))

    with pytest.raises(DataError, match=re.escape(str(tmp_path / "a.zip"))):
        prepare(data(tmp_path / "a.zip"), tmp_path / "data")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnits", "data.source: unknown source 'mnits'; did you mean 'mnist'?; see: gantool data list"),
        (
            "zzz",
            f"data.source: unknown source 'zzz'; known: {', '.join(sorted(SOURCES)[:20])} and "
            f"{len(SOURCES) - 20} more; see: gantool data list",
        ),
        ("./nowhere", "data.source: ./nowhere: no such file or folder; see: gantool data list"),
        ("a.zip", "data.source: a.zip: no such file or folder; see: gantool data list"),
        ("a" * 5000, "data.source: unknown source 'aaa"),
        (
            "https://example.org/a.zip",
            "data.source: https://example.org/a.zip is an address; fetch it first: "
            "gantool data fetch 'https://example.org/a.zip' --name food",
        ),
        ("file:///etc/passwd", "data.source: file:///etc/passwd is an address; fetch it first: "),
    ],
)
def test_a_source_that_is_not_there_is_told(inside, source, message):
    with pytest.raises(DataError) as caught:
        prepare(data(source), inside / "data")

    assert str(caught.value).startswith(message)
    assert not (inside / "data").exists()


def test_a_source_by_name_has_no_folders(tmp_path):
    with pytest.raises(DataError, match=r"^digits: has no folders to look in; leave out data.folder=valid$"):
        prepare(data("digits", folder="valid"), tmp_path)


def test_the_name_of_a_source_wins_over_a_folder_of_that_name(inside):
    picture(inside / "digits" / "1.png")

    assert find_source(data("digits"), inside / "data") is SOURCES["digits"]
    assert find_source(data("./digits"), inside / "data").classes == ("digits",)


def test_describing_makes_nothing(pets, tmp_path):
    assert describe(data(pets), tmp_path / "data") == ImageSpec(3, 8, 8, ("cat", "dog"))
    assert describe(data("mnist", size=28), tmp_path / "data") == ImageSpec(1, 28, 28, tuple("0123456789"))
    assert describe(data("eggs", classes=["Egg"]), tmp_path / "data") == ImageSpec(3, 8, 8, ("Egg",))
    assert describe(data("nowhere"), tmp_path / "data") == ImageSpec(3, 8, 8, ("image",))
    assert describe(data("nowhere", classes=["a", "b"], channels=1), tmp_path / "data") == ImageSpec(
        1, 8, 8, ("a", "b")
    )
    assert not (tmp_path / "data").exists()


def test_fetching_what_is_here_says_its_name(pets, tmp_path):
    assert fetch("digits", None, tmp_path / "data") == "digits"
    assert fetch(str(pets), None, tmp_path / "data") == str(pets)


@pytest.mark.parametrize(
    ("what", "name", "message"),
    [
        ("digits", "mine", "--name mine: only what is fetched from an address gets a name; leave it out"),
        ("https://example.org/a.zip", "mnist", "--name mnist: expected a new name of letters, digits, - and _, "),
        ("https://example.org/a.zip", "../x", "--name ../x: expected a new name of letters, digits, - and _, "),
        ("https://example.org/eggs.zip", None, "--name eggs: expected a new name of letters, digits, - and _, "),
        ("digist", None, "data.source: unknown source 'digist'; did you mean 'digits'?; see: gantool data list"),
    ],
)
def test_a_fetch_that_cannot_be_is_told(tmp_path, what, name, message):
    with pytest.raises(DataError) as caught:
        fetch(what, name, tmp_path)

    assert str(caught.value).startswith(message)


def test_the_weights_of_inception_are_fetched_to_where_score_looks_for_them(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(prepare_module, "download", lambda remote, folder, **_: asked.append((remote, folder)))
    assert fetch("inception", None, tmp_path) == "inception"
    assert asked == [(catalog.INCEPTION_WEIGHTS, tmp_path / catalog.INCEPTION_FOLDER)]


def test_what_was_fetched_is_not_fetched_again(tmp_path, logged):
    picture(tmp_path / "fetched" / "food" / "egg" / "1.png")
    (tmp_path / "fetched" / "food" / ".complete").write_text('{"files": 1, "bytes": 3}')

    assert fetch("https://example.org/food.zip", None, tmp_path) == "food"
    assert logged == [f"food is already here, in {tmp_path / 'fetched' / 'food'}"]
    assert prepare(data("food"), tmp_path).spec.classes == ("egg",)


# --- what a model learns from -------------------------------------------------------------------------------

PAIRS = "egg_edges, photo_colours, facades, maps, cityscapes, edges2shoes, edges2handbags, night2day"
KINDS = (
    "egg_colours, grass_gravel, horse2zebra, apple2orange, summer2winter_yosemite, monet2photo, cezanne2photo, "
    "ukiyoe2photo, vangogh2photo, iphone2dslr_flower"
)
LABELED = "eggs, digits, mnist, fashion_mnist, kmnist, cifar10"
TABLE_NAMES = "and, xor, sentences, income, adult"


@pytest.mark.parametrize(
    ("source", "kind", "holds", "wants", "fitting"),
    [
        ("digits", Paired, "images with their class", "pairs of images", PAIRS),
        ("digits", TableBatch, "images with their class", "a table", TABLE_NAMES),
        ("egg_colours", Paired, "two kinds of images", "pairs of images", PAIRS),
        ("egg_edges", TableBatch, "pairs of images", "a table", TABLE_NAMES),
        ("egg_colours", TableBatch, "two kinds of images", "a table", TABLE_NAMES),
        ("income", Labeled, "a table", "images with their class", LABELED),
        ("sentences", Paired, "a table", "pairs of images", PAIRS),
        ("xor", Unpaired, "a table", "two kinds of images", KINDS),
    ],
)
def test_a_source_of_another_kind_than_the_model_learns_from_is_refused_with_those_that_fit(
    source, kind, holds, wants, fitting, tmp_path
):
    for ask in (find_source, describe, prepare):
        with pytest.raises(DataError) as caught:
            ask(data(source), tmp_path / "data", kind)
        assert str(caught.value) == (
            f"data.source: {source} holds {holds}, but this model learns from {wants}; such are: {fitting}"
        )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("source", "kind", "options"),
    [
        ("digits", Labeled, {}),
        ("digits", Unpaired, {"classes": ["3", "8"]}),
        ("egg_edges", Labeled, {}),
        ("egg_edges", Unpaired, {}),
        ("egg_edges", Paired, {"classes": ["egg", "edges"]}),
        ("egg_colours", Labeled, {}),
        ("egg_colours", Unpaired, {}),
        ("income", TableBatch, {"size": None}),
    ],
)
def test_pairs_and_kinds_are_images_with_a_class_too_and_two_classes_are_two_kinds(source, kind, options, tmp_path):
    assert find_source(data(source, **options), tmp_path, kind) is SOURCES[source]


@pytest.mark.parametrize(
    ("source", "kind", "classes", "found"),
    [
        ("digits", Unpaired, None, "10 kinds (0, 1, 2, 3, 4, 5, ...)"),
        ("digits", Unpaired, ["3", "8", "1"], "3 kinds (3, 8, 1)"),
        ("egg_colours", Unpaired, ["brown"], "1 kind (brown)"),
        ("egg_edges", Unpaired, ["egg"], "1 kind (egg)"),
        ("egg_edges", Paired, ["egg"], "1 kind (egg)"),
    ],
)
def test_what_is_not_two_kinds_is_refused_by_a_model_that_translates(source, kind, classes, found, tmp_path):
    for ask in (describe, prepare):
        with pytest.raises(DataError) as caught:
            ask(data(source, classes=classes), tmp_path / "data", kind)
        assert str(caught.value) == (
            f"{source}: has {found}, but a translation is between two; choose with data.classes=[A, B]"
        )
    assert not (tmp_path / "data").exists()


def test_a_folder_of_other_than_two_classes_is_refused_by_a_model_that_translates(pets, tmp_path):
    picture(pets / "eel" / "1.png")
    message = rf"^{re.escape(str(pets))}: has 3 kinds \(cat, dog, eel\), but a translation is between two; choose with "
    with pytest.raises(DataError, match=message):
        prepare(data(pets), tmp_path / "data", Unpaired)
    store = prepare(data(pets, classes=["eel", "cat"]), tmp_path / "data", Unpaired)
    assert (store.spec.classes, store.labels.tolist()) == (("eel", "cat"), [0, 1, 1, 1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("incoem", "data.source: unknown table 'incoem'; did you mean 'income'?; see: gantool data list"),
        ("./mine.csv", "data.source: unknown table './mine.csv'; known: adult, and, income, sentences, xor; see: "),
    ],
)
def test_a_table_that_is_not_there_is_told(source, message, tmp_path):
    with pytest.raises(DataError) as caught:
        prepare(data(source, size=None), tmp_path, TableBatch)
    assert str(caught.value).startswith(message)


# --- pairs --------------------------------------------------------------------------------------------------


def test_a_folder_of_pairs_becomes_a_store_of_sources_and_targets_in_turn(tmp_path, logged):
    for index in (2, 1, 3):
        picture(tmp_path / "mine" / "drawing" / f"{index}.png", (index, 0, 0))
        picture(tmp_path / "mine" / "photo" / f"{index}.png", (100 + index, 0, 0))

    store = prepare(data(tmp_path / "mine"), tmp_path / "data", Paired)
    first = list(logged)
    turned = prepare(data(tmp_path / "mine", classes=["photo", "drawing"]), tmp_path / "data", Paired)
    single = prepare(data(tmp_path / "mine"), tmp_path / "data")

    assert (reds(store), store.labels.tolist()) == ([1, 101, 2, 102, 3, 103], [0, 1] * 3)
    assert (reds(turned), turned.spec.classes) == ([101, 1, 102, 2, 103, 3], ("photo", "drawing"))
    assert reds(single) == [1, 2, 3, 101, 102, 103]
    assert first == [f"decoding {tmp_path / 'mine'} at 8x8, once"]


@pytest.mark.parametrize("orphans", [MAX_LISTED, MAX_LISTED + 3])
def test_images_without_a_partner_are_named_and_of_very_many_the_rest_are_counted(tmp_path, orphans, logged):
    for side in "AB":
        picture(tmp_path / "mine" / side / "pair.png")
    for index in range(orphans):
        picture(tmp_path / "mine" / "B" / f"{index:02d}.png")

    assert len(prepare(data(tmp_path / "mine"), tmp_path / "data", Paired)) == 2
    assert logged == [
        *(f"{Path(f'B/{index:02d}.png')}: no partner in A" for index in range(MAX_LISTED)),
        *(["and 3 more such"] if orphans > MAX_LISTED else []),
        f"decoding {tmp_path / 'mine'} at 8x8, once",
    ]

    logged.clear()
    prepare(data(tmp_path / "mine"), tmp_path / "data", Paired)
    assert logged == []


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_image_that_breaks_off_leaves_its_partner_out_too(tmp_path, side):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    for index in range(3):
        for name in "AB":
            picture(tmp_path / "mine" / name / f"{index}.png", (index + (100 if name == "B" else 0), 0, 0), (16, 16))
    Image.fromarray(noise).save(tmp_path / "mine" / side / "1.png")
    whole = (tmp_path / "mine" / side / "1.png").read_bytes()
    (tmp_path / "mine" / side / "1.png").write_bytes(whole[: len(whole) // 2])

    store = prepare(data(tmp_path / "mine"), tmp_path / "data", Paired)

    assert (reds(store), store.labels.tolist()) == ([0, 100, 2, 102], [0, 1, 0, 1])
    assert store.skipped == [[str(Path(side, "1.png")), "truncated"]]
