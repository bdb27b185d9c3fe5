from __future__ import annotations

import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from gantool.data.sources.folders import ARCHIVES, Folder, locate
from gantool.data.sources.images import keep
from gantool.errors import DataError

posix = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")


def make(root, *files):
    """Make files; what they hold is of no interest here."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
    return root


def found(folder):
    return {name: [str(path.relative_to(folder.path)) for path in files] for name, files in folder.files.items()}


def refusal(path, inside=None):
    with pytest.raises(DataError) as caught:
        Folder(path, inside)
    return str(caught.value).replace(str(path), "HERE")


# --- classes ------------------------------------------------------------------------------------------------


def test_subfolders_are_classes_in_the_order_of_their_names(tmp_path):
    folder = Folder(make(tmp_path, "dog/2.png", "cat/b.png", "cat/a.png", "Ant/1.png"))

    assert folder.classes == ("Ant", "cat", "dog")
    assert found(folder)["cat"] == [str(Path("cat/a.png")), str(Path("cat/b.png"))]
    assert [picture.class_name for picture in folder.items(None, ["dog", "cat"])] == ["dog", "cat", "cat"]


def test_a_flat_folder_is_one_class_of_its_own_name(tmp_path):
    folder = Folder(make(tmp_path / "eggs", "2.png", "1.png"))

    assert found(folder) == {"eggs": ["1.png", "2.png"]}


def test_a_lone_wrapping_folder_is_looked_through(tmp_path):
    folder = Folder(make(tmp_path, "food/all/Egg/1.png", "food/all/Bread/1.png"))

    assert folder.path == tmp_path / "food" / "all"
    assert folder.classes == ("Bread", "Egg")


def test_a_lone_flat_folder_is_one_class(tmp_path):
    assert Folder(make(tmp_path, "all/Egg/1.png", "all/Egg/2.png")).classes == ("Egg",)
    assert Folder(tmp_path / "all").classes == ("Egg",)


def test_what_systems_leave_is_ignored(tmp_path):
    make(tmp_path, "cat/1.png", "cat/.DS_Store", "cat/Thumbs.db", "cat/desktop.ini", "cat/._1.png", "cat/.cache/1.png")
    make(tmp_path, "cat/__MACOSX/._1.png", "__MACOSX/cat/._1.png", ".git/1.png", "Thumbs.db", ".DS_Store", ".complete")
    make(tmp_path, "dog/1.png")

    assert found(Folder(tmp_path)) == {name: [str(Path(name) / "1.png")] for name in ("cat", "dog")}


@pytest.mark.parametrize("files", [[], ["cat/.hidden"], [".hidden/1.png"]])
def test_an_empty_folder_is_told(tmp_path, files):
    assert refusal(make(tmp_path, *files)) == (
        "HERE: no files in it; a source is a folder of images, or of folders of images"
    )


def test_a_folder_that_is_not_there_is_told(tmp_path):
    assert refusal(tmp_path / "none") == "HERE: no such folder"
    assert refusal(tmp_path / "none", "valid").startswith("HERE: unknown folder 'valid'; there is none; ")


# --- links and pipes ----------------------------------------------------------------------------------------


@posix
def test_a_loop_of_links_ends(tmp_path):
    make(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")

    folder = Folder(tmp_path)

    assert folder.classes == ("cat", "dog")
    assert [len(files) for files in folder.files.values()] == [1, 1]
    assert len(folder.fingerprint(None, folder.classes)) > 60


# --- data.folder --------------------------------------------------------------------------------------------

SPLITS = ("train/cat/1.png", "train/dog/1.png", "valid/cat/1.png", "valid/dog/2.png", "valid/dog/3.png")


def test_splits_are_no_classes_and_one_has_to_be_chosen(tmp_path):
    assert refusal(make(tmp_path, *SPLITS)) == "HERE: holds train, valid; choose one with data.folder=valid"
    assert refusal(make(tmp_path / "only", "train/1.png")) == "HERE: holds train; choose one with data.folder=train"


@pytest.mark.parametrize("wrap", ["", "food/", "a/b/c/"])
def test_a_folder_is_found_at_any_depth(tmp_path, wrap):
    folder = Folder(make(tmp_path, *(wrap + name for name in SPLITS)), "valid")

    assert folder.path == tmp_path / wrap / "valid"
    assert [len(files) for files in folder.files.values()] == [1, 2]


def test_two_folders_of_one_name_need_a_longer_path(tmp_path):
    make(tmp_path, "a/valid/cat/1.png", "b/valid/cat/1.png")

    assert refusal(tmp_path, "valid") == "HERE: 2 folders are called 'valid'; give data.folder a longer path"
    assert Folder(tmp_path, "a/valid").classes == ("cat",)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("vaild", "HERE: unknown folder 'vaild'; did you mean 'valid'?; data.folder names one inside of the source"),
        ("zzz", "HERE: unknown folder 'zzz'; known: train, valid; data.folder names one inside of the source"),
        ("../here", "HERE: unknown folder '../here'; known: "),
        ("valid/../../here", "HERE: unknown folder "),
        ("/etc", "HERE: unknown folder '/etc'; known: "),
        ("train/cat/1.png", "HERE: unknown folder "),
    ],
)
def test_a_folder_that_is_not_inside_is_told(tmp_path, inside, message):
    make(tmp_path / "here", *SPLITS)

    assert refusal(tmp_path / "here", inside).startswith(message)


# --- fingerprints -------------------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_any_file_of_the_classes(tmp_path):
    make(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    marks = [Folder(tmp_path).fingerprint(None, ["cat"])]

    def now():
        marks.append(Folder(tmp_path).fingerprint(None, ["cat"]))
        return len(set(marks)) == len(marks)

    (tmp_path / "dog" / "1.png").write_bytes(b"another, of another class")
    assert not now()
    marks.pop()
    (tmp_path / "cat" / "1.png").write_bytes(b"longer than before")
    assert now()
    os.utime(tmp_path / "cat" / "1.png", ns=(1, 1))
    assert now()
    make(tmp_path, "cat/3.png")
    assert now()
    (tmp_path / "cat" / "3.png").rename(tmp_path / "cat" / "4.png")
    assert now()


# --- what data.source stands for ----------------------------------------------------------------------------


def archive(path, root):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for file in sorted(root.rglob("*.png")):
                packed.write(file, file.relative_to(root).as_posix())
    else:
        with tarfile.open(path, "w:" + path.name.rpartition("tar")[2].removeprefix(".")) as packed:
            packed.add(root, ".")
    return path


@pytest.mark.parametrize("name", ["food.zip", "food.tar", "food.tar.gz", "food.tar.xz"])
def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path, name, logged):
    path = archive(tmp_path / name, make(tmp_path / "food", "cat/1.png", "dog/1.png"))

    first = locate(str(path), tmp_path / "data")
    assert Folder(first).classes == ("cat", "dog")
    assert logged == [f"unpacking {path}"]
    assert locate(str(path), tmp_path / "data") == first
    assert len(logged) == 1

    os.utime(path, ns=(1, 1))
    assert locate(str(path), tmp_path / "data") != first
    assert len(logged) == 2


def test_a_flat_archive_is_one_class_of_the_archives_name(tmp_path):
    path = archive(tmp_path / "my eggs.tar.gz", make(tmp_path / "flat", "1.png", "2.png"))

    assert Folder(locate(str(path), tmp_path / "data")).classes == ("my_eggs",)


def test_a_file_that_is_no_archive_is_told(tmp_path):
    make(tmp_path, "a.png")

    with pytest.raises(DataError) as caught:
        locate(str(tmp_path / "a.png"), tmp_path / "data")
    assert str(caught.value) == (
        f"data.source: {tmp_path / 'a.png'} is a file, but no archive; use a folder, or one of {', '.join(ARCHIVES)}"
    )


def test_an_archive_by_name_only_is_told(tmp_path):
    make(tmp_path, "a.zip")

    with pytest.raises(DataError, match=re.escape(str(tmp_path / "a.zip"))):
        locate(str(tmp_path / "a.zip"), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.png"))


@pytest.mark.parametrize("source", ["nowhere", "a/b", "../x", "x" * 5000, "a\0b", "~nobody_of_this_name/x"])
def test_what_is_not_there_is_nothing(inside, source):
    assert locate(source, inside / "data") is None


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    make(tmp_path, "photos/1.png")

    assert locate("~/photos", tmp_path / "data") == tmp_path / "photos"


def test_a_fetched_name_is_found_only_when_it_is_whole(tmp_path):
    make(tmp_path, "fetched/food/cat/1.png")
    assert locate("food", tmp_path) is None

    (tmp_path / "fetched" / "food" / ".complete").write_text('{"files": 1, "bytes": 3}')
    assert locate("food", tmp_path) == tmp_path / "fetched" / "food"
    assert locate("../fetched/food", tmp_path) is None


# --- class filter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["Eg"], "food: unknown class 'Eg'; did you mean 'Egg'?; data.classes names the ones to keep, null keeps all"),
        (["Zzz"], "food: unknown class 'Zzz'; known: Bread, Egg; data.classes names the ones to keep, null keeps all"),
        (["../x"], "food: unknown class '../x'; known: Bread, Egg; "),
        ([""], "food: unknown class ''; known: Bread, Egg; "),
        (["Egg/.."], "food: unknown class 'Egg/..'; "),
        (["🥚" * 300], "food: unknown class '🥚"),
        (["Egg", "Bread", "Egg"], "food: data.classes names a class twice: Egg, Bread, Egg"),
    ],
)
def test_an_unknown_class_is_told(wanted, message):
    with pytest.raises(DataError) as caught:
        keep("food", ("Bread", "Egg"), wanted)

    assert str(caught.value).startswith(message)
