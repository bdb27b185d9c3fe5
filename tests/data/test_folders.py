"""Folders of images: classes, splits, archives, ignored files, and refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gantool.data.prepare import prepare
from gantool.data.sources.folders import Folder, locate
from gantool.data.sources.images import keep
from gantool.recipe.blocks import Data
from PIL import Image

import archives
from processes import posix, visible
from refusals import refusal

NO_FILES = "HERE: no images in it; a source is a folder of images, or of folders of images"
SPLITS = ("train/cat/1.png", "train/dog/1.png", "valid/cat/1.png", "valid/dog/2.png", "valid/dog/3.png")


def make(root, *files):
    """Make files; their content does not matter here."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
    return root


def found(folder):
    return {name: [path.relative_to(folder.path).as_posix() for path in files] for name, files in folder.files.items()}


def refused(path, inside=None):
    return refusal(Folder, path, inside).replace(str(path), "HERE")


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (["dog/2.png", "cat/b.png", "cat/a.png"], {"cat": ["cat/a.png", "cat/b.png"], "dog": ["dog/2.png"]}),
        (["2.png", "1.png"], {"here": ["1.png", "2.png"]}),
        (["a/1.png", "a/deep/er/2.png", "b/1.png"], {"a": ["a/1.png", "a/deep/er/2.png"], "b": ["b/1.png"]}),
        (["food/all/Egg/1.png", "food/all/빵/1.png"], {"Egg": ["Egg/1.png"], "빵": ["빵/1.png"]}),
        (["all/Egg/1.png", "all/Egg/2.png"], {"Egg": ["Egg/1.png", "Egg/2.png"]}),
        (["test/1.png", "cat/1.png"], {"cat": ["cat/1.png"], "test": ["test/1.png"]}),
        (
            ["cat/1.png", "cat/.DS_Store", "cat/Thumbs.db", "cat/._1.png", "cat/.cache/1.png", "cat/__MACOSX/._1.png",
             "__MACOSX/cat/._1.png", ".git/1.png", "Thumbs.db", ".complete", "dog/1.png"],
            {"cat": ["cat/1.png"], "dog": ["dog/1.png"]},
        ),
    ],
)  # fmt: skip
def test_subfolders_are_classes_and_wrapping_folders_and_hidden_files_are_ignored(tmp_path, files, classes):
    (tmp_path / "here" / "empty" / "er").mkdir(parents=True)
    folder = Folder(make(tmp_path / "here", *files))

    assert found(folder) == classes
    assert [item.class_name for item in folder.items(None, folder.classes)] == [
        name for name, own in classes.items() for _ in own
    ]


def test_a_flat_working_directory_has_a_class_too(inside):
    assert Folder(locate(str(make(inside, "1.png")), inside / "data")).classes == (inside.name,)
    assert Folder(locate(".", inside / "data")).classes == ("image",)


def test_an_empty_folder_is_refused(tmp_path):
    assert refused(make(tmp_path, "cat/.hidden", ".hidden/1.png", "Thumbs.db")) == NO_FILES


@pytest.mark.parametrize(
    ("files", "classes", "left_out"),
    [
        (["a/1.png", "a/2.png", "notes/x.txt", "notes/y.txt"], ["a"], [("notes", "holds 2 files, but no image")]),
        (["1.png", "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/2.png"], ["here"], []),
        (["1.png", "empty/.keep", "texts/x.txt"], ["here"], [("texts", "holds 1 file, but no image")]),
        (
            [*(f"a/{index}.png" for index in range(20)), "cover.png", "notes.csv", "README"],
            ["a"],
            [("cover.png", "beside the folders of the classes"), ("README and 1 more", "no image")],
        ),
        (["Train/1.png", "other/1.png"], ["Train", "other"], []),
    ],
)
def test_what_is_not_used_is_named_with_its_reason(tmp_path, files, classes, left_out):
    folder = Folder(make(tmp_path / "here", *files))
    assert (list(folder.classes), folder.problems) == (classes, left_out)


def test_a_file_without_an_ending_is_known_by_its_first_bytes(tmp_path):
    make(tmp_path, "a/1.png", "b/x", "c/x")
    Image.new("L", (2, 2)).save(tmp_path / "b" / "x", "PNG")
    assert Folder(tmp_path).classes == ("a", "b")


def test_many_images_beside_folders_of_images_are_ambiguous_and_either_can_be_named(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png", *(f"{index}.png" for index in range(40)))
    assert refused(tmp_path) == (
        "HERE: holds 40 images beside the folders a to b; to use the images, say data.folder=.; to use a folder, say "
        "data.folder=a; or move the images into a folder"
    )
    assert list(map(len, Folder(tmp_path, ".").files.values())) == [40]
    assert Folder(tmp_path, ".").problems[0] == ("a", "a folder; data.folder=. uses the images beside it")
    assert Folder(tmp_path, "a").classes == ("a",)


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Test"),
        ("training_set", "test_set"),
        ("TRAIN", "val"),
        ("train2017", "val2017"),
        ("train", "dev-data"),
    ],
)
def test_splits_are_known_by_their_usual_names(tmp_path, names):
    make(tmp_path, *(f"{name}/cat/1.png" for name in names))
    assert refused(tmp_path).startswith(f"HERE: holds {', '.join(sorted(names))}; choose one with data.folder=")


@posix
def test_a_linked_folder_is_a_class_and_a_link_back_up_is_left_out(tmp_path):
    make(tmp_path, "elsewhere/cats/1.png", "here/dogs/1.png", "here/dogs/2.png")
    (tmp_path / "here" / "cats").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "here" / "dogs" / "up").symlink_to(tmp_path / "here")
    folder = Folder(tmp_path / "here")
    assert found(folder) == {"cats": ["cats/1.png"], "dogs": ["dogs/1.png", "dogs/2.png"]}
    assert folder.problems == [("up", f"a link to {(tmp_path / 'here').resolve()}, which holds it")]


@posix
def test_names_that_are_no_text_or_hold_control_characters_are_escaped(tmp_path):
    for folder, file in ((b"cats\xff", b"a\xfe.png"), (b"dogs\x1b]0;x\x07", b"b.png")):
        place = os.fsdecode(os.fsencode(tmp_path) + b"/" + folder)
        os.mkdir(place)  # noqa: PTH102  a name of bytes
        Image.new("L", (4, 4), 200).save(os.fsdecode(os.fsencode(place) + b"/" + file), "PNG")
    store = prepare(Data(source=str(tmp_path), size=4), tmp_path / "data")

    assert store.spec.classes == ("cats\\udcff", "dogs\\x1b]0;x\\x07")
    assert len(store) == 2


def test_folders_that_are_nested_too_deep_are_refused(tmp_path):
    make(tmp_path, "/".join(["a", *"b" * 101, "1.png"]), "c/1.png")
    assert "folders are nested deeper than 100; move the images up" in refused(tmp_path)


@posix
def test_links_and_pipes_neither_loop_nor_block(tmp_path):
    make(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "cat" / "2.png").symlink_to("gone.png")
    os.mkfifo(tmp_path / "cat" / "3.png")
    folder = Folder(tmp_path)

    assert found(folder) == {"cat": ["cat/1.png", "cat/2.png", "cat/3.png"], "dog": ["dog/1.png"]}
    assert len(folder.fingerprint(None, folder.classes)) > 60


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads all")
def test_an_unreadable_folder_is_refused(tmp_path):
    make(tmp_path, "cat/1.png").chmod(0)
    try:
        assert refused(tmp_path) == "HERE: cannot be read (Permission denied); check its permissions"
    finally:
        tmp_path.chmod(0o700)


# --- data.folder --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["", "food/", "a/b/c/"])
def test_a_split_has_to_be_chosen_and_is_found_at_any_depth(tmp_path, wrap):
    make(tmp_path, *(wrap + name for name in SPLITS), "__MACOSX/valid/cat/._1.png", ".old/valid/cat/1.png")
    assert refused(tmp_path) == f"{Path('HERE', wrap)}: holds train, valid; choose one with data.folder=valid"
    folder = Folder(tmp_path, "valid")

    assert folder.path == tmp_path / wrap / "valid"
    assert [len(files) for files in folder.files.values()] == [1, 2]


def test_a_chosen_folder_may_be_a_path(tmp_path):
    make(tmp_path, *SPLITS, "a/one/cat/1.png", "b/one/cat/1.png")

    assert Folder(tmp_path, "valid/dog").classes == ("dog",)
    assert refused(tmp_path, "one") == "HERE: 2 folders are called 'one'; give data.folder a longer path"
    assert Folder(tmp_path, "a/one").classes == ("cat",)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("vaild", "HERE: unknown folder 'vaild'; did you mean 'valid'?; data.folder names one inside of the source"),
        ("../here", "HERE: unknown folder '../here'; known: "),
        ("valid/../../here", "HERE: unknown folder "),
        ("/etc", "HERE: unknown folder '/etc'; known: "),
        ("train/cat/1.png", "HERE: unknown folder "),
    ],
)
def test_a_folder_that_is_not_inside_is_refused(tmp_path, inside, message):
    assert refused(make(tmp_path / "here", *SPLITS), inside).startswith(message)
    assert refused(tmp_path / "none") == "HERE: no such folder"
    assert refused(tmp_path / "none", inside) == "HERE: no such folder"


# --- fingerprints -------------------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_any_file_of_the_classes(tmp_path):
    make(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    file = tmp_path / "cat" / "1.png"
    marks = [Folder(tmp_path).fingerprint(None, ["cat"])]
    (tmp_path / "dog" / "1.png").write_bytes(b"another, of another class")
    assert Folder(tmp_path).fingerprint(None, ["cat"]) == marks[0]
    for change in (
        lambda: file.write_bytes(b"longer than before"),
        lambda: os.utime(file, ns=(1, 1)),
        lambda: make(tmp_path, "cat/3.png"),
        lambda: (tmp_path / "cat" / "3.png").rename(tmp_path / "cat" / "4.png"),
    ):
        change()
        marks.append(Folder(tmp_path).fingerprint(None, ["cat"]))
    assert len(set(marks)) == 5


# --- data.source --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path, kind, logged):
    path = archives.make(tmp_path / f"food.{kind}", [("cat/1.png", b"1"), ("dog/1.png", b"1")])
    first = locate(str(path), tmp_path / "data")
    assert Folder(first).classes == ("cat", "dog")
    assert locate(str(path), tmp_path / "data") == first
    assert logged == [f"unpacking {path}"]

    os.utime(path, ns=(1, 1))
    assert locate(str(path), tmp_path / "data") != first
    flat = archives.make(tmp_path / f"my food.{kind}", [("1.png", b"1"), ("2.png", b"1")])
    assert Folder(locate(str(flat), tmp_path / "data")).classes == ("my_food",)


def test_a_damaged_archive_is_refused_and_leaves_no_folder(tmp_path):
    make(tmp_path, "a.zip", "data/unpacked/0123/.a.lock", "data/unpacked/4567/b/1.png")
    (tmp_path / "data" / "unpacked" / "89ab").mkdir()
    assert str(tmp_path / "a.zip") in refusal(locate, str(tmp_path / "a.zip"), tmp_path / "data")
    assert visible(tmp_path / "data" / "unpacked") == ["4567"]


@pytest.mark.parametrize("source", ["nowhere", "a/b", "x" * 5000, "a\0b", "~unknown_user_name/x"])
def test_a_path_that_does_not_exist_is_none(inside, source):
    assert locate(source, inside / "data") is None


def test_home_folders_and_complete_fetched_archives_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    make(tmp_path, "photos/1.png", "fetched/food/cat/1.png")
    assert locate("~/photos", tmp_path / "data") == tmp_path / "photos"

    assert locate("food", tmp_path) is None
    (tmp_path / "fetched" / "food" / ".complete").touch()
    assert locate("food", tmp_path) == tmp_path / "fetched" / "food"
    assert locate("../fetched/food", tmp_path) is None


# --- class filter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["Eg"], "food: unknown class 'Eg'; did you mean 'Egg'?; data.classes names the ones to keep, null keeps all"),
        *(([name], f"food: unknown class {name!r}; ") for name in ("../x", "Bread/../..", "", "CON", "🥚", "x" * 300)),
        (["Egg", "Bread", "Egg"], "food: data.classes names a class twice: Egg, Bread, Egg"),
    ],
)
def test_kept_classes_have_the_order_of_the_recipe_and_unknown_ones_are_refused(wanted, message):
    assert keep("food", ("Bread", "Egg"), ["Egg", "Bread"]) == ("Egg", "Bread")
    assert keep("food", ("Bread", "Egg"), None) == ("Bread", "Egg")
    assert refusal(keep, "food", ("Bread", "Egg"), wanted).startswith(message)
