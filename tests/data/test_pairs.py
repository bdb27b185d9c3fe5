"""Pairs of one's own, from two folders or side by side, and the sets of pairs and of two kinds that have a name."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from gantool.data.sources.pairs import Pairs
from gantool.errors import DataError
from PIL import Image


def picture(path, left=(9, 0, 0), right=None, size=(8, 8), **options):
    """Write an image of one colour, or of two halves of one colour each; `size` is width and height of the whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, left)
    if right:
        image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    image.save(path, **options)
    return path


def folders(root, *files):
    for index, file in enumerate(files):
        picture(root / file, (index, 0, 0))
    return root


def beside(root, *files, size=(16, 8)):
    """Write images whose left half is red by their index and whose right half is blue by it."""
    for index, file in enumerate(files):
        picture(root / file, (index, 0, 0), (0, 0, 100 + index), size=size)
    return root


def listed(pairs, classes=None):
    twice = (name for name in pairs.names for _ in "AB")
    rows = list(zip(twice, pairs.items(None, classes or pairs.classes), strict=True))
    # An image's own name is for messages: its file's, where each has one.
    assert all(name in unicodedata.normalize("NFC", Path(picture.name).as_posix()) for name, picture in rows)
    return [(name, picture.class_name) for name, picture in rows]


def refusal(*arguments):
    with pytest.raises(DataError) as caught:
        Pairs(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(arguments[0]), "HERE")


# --- two folders --------------------------------------------------------------------------------------------


def test_images_of_one_name_are_a_pair_and_come_one_after_the_other(tmp_path):
    pairs = Pairs(folders(tmp_path, "A/2.png", "A/1.png", "B/1.jpg", "B/2.png"))

    assert pairs.path == tmp_path
    assert pairs.classes == ("A", "B")
    assert pairs.problems == []
    assert [
        (name, kind, file.relative_to(tmp_path).as_posix()) for name, kind, file in pairs.items(None, ("A", "B"))
    ] == [
        (str(Path("A/1.png")), "A", "A/1.png"),
        (str(Path("B/1.jpg")), "B", "B/1.jpg"),
        (str(Path("A/2.png")), "A", "A/2.png"),
        (str(Path("B/2.png")), "B", "B/2.png"),
    ]


def test_the_recipes_order_says_which_is_the_source(tmp_path):
    root = folders(tmp_path, "photo/1.png", "drawing/1.png")

    assert Pairs(root).classes == ("drawing", "photo")
    turned = Pairs(root, classes=["photo", "drawing"])
    assert listed(turned) == [("1", "photo"), ("1", "drawing")]


def test_two_of_more_folders_are_chosen_by_name(tmp_path):
    root = folders(tmp_path, "trainA/1.png", "trainB/1.png", "testA/2.png", "testB/2.png")

    assert listed(Pairs(root, None, ["trainA", "trainB"])) == [("1", "trainA"), ("1", "trainB")]
    assert refusal(root) == (
        "HERE: holds 4 folders, testA, testB, trainA, trainB; "
        "say which is the source and which the target with data.classes=[testA, testB]"
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["A", "C"], "HERE: unknown class 'C'; known: A, B; data.classes names the ones to keep, null keeps all"),
        (
            ["phoot", "edgse"],
            "HERE: unknown class 'phoot'; known: A, B; data.classes names the ones to keep, null keeps all",
        ),
        (["A", "A"], "HERE: data.classes names a class twice: A, A"),
        (
            ["B"],
            "HERE: data.classes names 1, B; pairs need two, the source's and the target's, such as data.classes=[A, B]",
        ),
    ],
)
def test_classes_that_are_not_two_of_those_that_are_there_are_told(tmp_path, classes, message):
    assert refusal(folders(tmp_path, "A/1.png", "B/1.png"), None, classes) == message


def test_subfolders_of_a_class_are_part_of_the_name(tmp_path):
    pairs = Pairs(folders(tmp_path, "A/x/1.png", "A/y/1.png", "B/x/1.png", "B/y/1.png", "B/z/1.png"))

    assert listed(pairs) == [("x/1", "A"), ("x/1", "B"), ("y/1", "A"), ("y/1", "B")]
    assert pairs.problems == [(str(Path("B/z/1.png")), "no partner in A")]


def test_names_that_look_the_same_are_the_same(tmp_path):
    names = [unicodedata.normalize(form, "달걀é") for form in ("NFC", "NFD")]
    pairs = Pairs(folders(tmp_path, f"A/{names[0]}.png", f"B/{names[1]}.png"))

    assert names[0] != names[1]
    assert listed(pairs) == [(names[0], "A"), (names[0], "B")]


def test_orphans_are_listed_and_left_out(tmp_path):
    pairs = Pairs(folders(tmp_path, "A/1.png", "A/2.png", "A/Egg.png", "B/1.png", "B/3.png", "B/EGG.png"))

    assert listed(pairs) == [("1", "A"), ("1", "B")]
    assert pairs.problems == [
        (str(Path("A/2.png")), "no partner in B"),
        (str(Path("A/Egg.png")), "no partner in B, where 'EGG' differs in case"),
        (str(Path("B/3.png")), "no partner in A"),
        (str(Path("B/EGG.png")), "no partner in A, where 'Egg' differs in case"),
    ]


def test_two_files_of_one_name_in_one_folder_are_listed_and_left_out(tmp_path):
    pairs = Pairs(folders(tmp_path, "A/1.jpg", "A/1.png", "A/1.webp", "A/2.png", "B/1.png", "B/2.png"))

    assert listed(pairs) == [("2", "A"), ("2", "B")]
    assert pairs.problems == [
        (str(Path("A/1.png")), f"has the name of {Path('A/1.jpg')}"),
        (str(Path("A/1.webp")), f"has the name of {Path('A/1.jpg')}"),
    ]


def test_a_pair_of_unequal_sizes_is_listed_and_stays(tmp_path):
    folders(tmp_path, "A/1.png", "B/1.png", "A/2.png")
    picture(tmp_path / "B" / "2.png", size=(4, 6))
    pairs = Pairs(tmp_path)

    assert listed(pairs) == [("1", "A"), ("1", "B"), ("2", "A"), ("2", "B")]
    assert pairs.problems == [("2", "8x8 in A, 4x6 in B")]


def test_a_file_that_is_no_image_is_listed_and_its_pair_left_out(tmp_path):
    folders(tmp_path, "A/1.png", "B/1.png", "A/2.png", "B/3.png")
    (tmp_path / "B" / "2.png").write_text("text")
    (tmp_path / "A" / "3.png").write_bytes(b"")
    pairs = Pairs(tmp_path)

    assert listed(pairs) == [("1", "A"), ("1", "B")]
    assert pairs.problems == [
        (str(Path("B/2.png")), "not an image"),
        (str(Path("A/3.png")), "empty file"),
    ]


def test_when_no_pair_is_left_the_first_offenders_are_named(tmp_path):
    folders(tmp_path, *(f"A/{index}a.png" for index in range(3)), *(f"B/{index}b.png" for index in range(2)))

    assert refusal(tmp_path) == (
        f"HERE: no pair in it: {Path('A/0a.png')} (no partner in B), {Path('A/1a.png')} (no partner in B), "
        f"{Path('A/2a.png')} (no partner in B) and 2 more; "
        "an image in A and its partner in B have to have the same name"
    )


# --- side by side -------------------------------------------------------------------------------------------


def test_the_left_half_is_a_and_the_right_half_is_b(tmp_path):
    pairs = Pairs(beside(tmp_path, "1.png", "2.png"))

    assert pairs.classes == ("A", "B")
    assert listed(pairs) == [("1", "A"), ("1", "B"), ("2", "A"), ("2", "B")]
    contents = [content for _, _, content in pairs.items(None, ("A", "B"))]
    assert {(content.shape, content.dtype.name) for content in contents} == {((8, 8, 3), "uint8")}
    assert [content.reshape(-1, 3).tolist() for content in contents] == [
        [colour] * 64 for colour in ([0, 0, 0], [0, 0, 100], [1, 0, 0], [0, 0, 101])
    ]


@pytest.mark.parametrize(("wrap", "name"), [("", "1"), ("food/", "food/1"), ("a/b/", "b/1")])
def test_a_lone_wrapping_folder_is_looked_through(tmp_path, wrap, name):
    assert listed(Pairs(beside(tmp_path / "one", f"{wrap}1.png"))) == [(name, "A"), (name, "B")]
    assert listed(Pairs(folders(tmp_path / "two", f"{wrap}A/1.png", f"{wrap}B/1.png"))) == [("1", "A"), ("1", "B")]


def test_a_split_has_to_be_chosen(tmp_path):
    beside(tmp_path, "facades/train/1.png", "facades/val/2.png", "facades/val/3.png")

    assert refusal(tmp_path) == f"{Path('HERE/facades')}: holds train, val; choose one with data.folder=val"
    assert listed(Pairs(tmp_path, "train")) == [("1", "A"), ("1", "B")]
    assert len(listed(Pairs(tmp_path, "val"))) == 4


def test_files_that_are_not_two_halves_are_listed_and_left_out(tmp_path):
    beside(tmp_path, "1.png", "6.jpg", "6.png")
    picture(tmp_path / "2.png", size=(15, 8))
    picture(tmp_path / "3.png", size=(8, 8))
    picture(tmp_path / "4.png", size=(8, 9))
    (tmp_path / "5.txt").write_text("text")
    pairs = Pairs(tmp_path)

    assert listed(pairs) == [("1", "A"), ("1", "B")]
    assert pairs.problems == [
        ("6.png", "has the name of 6.jpg"),
        ("2.png", "15 pixels wide, which is odd, so that its halves differ"),
        ("3.png", "8x8, but two images side by side are wider than high"),
        ("4.png", "8x9, but two images side by side are wider than high"),
        ("5.txt", "not an image"),
    ]


@pytest.mark.parametrize("classes", [None, ["edges", "egg"]])
def test_a_flat_folder_of_single_images_is_told_whatever_classes_are_asked_for(classes, tmp_path):
    assert refusal(folders(tmp_path, "1.png", "2.png"), None, classes) == (
        "HERE: no pair in it: 1.png (8x8, but two images side by side are wider than high), "
        "2.png (8x8, but two images side by side are wider than high); "
        "a file has to be two images side by side, or there have to be two folders with the same names"
    )


def test_a_file_that_breaks_off_is_left_to_its_next_reader_in_both_places(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    beside(tmp_path, "2.png")

    assert [type(content) for _, _, content in Pairs(tmp_path).items(None, ("A", "B"))][:2] == [type(tmp_path)] * 2
    assert len(listed(Pairs(tmp_path))) == 4


# --- both ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["folders", "beside"])
def test_a_fingerprint_changes_with_any_file_of_a_pair(tmp_path, layout):
    names = ("A/1.png", "B/1.png", "A/2.png") if layout == "folders" else ("1.png", "2.png")
    {"folders": folders, "beside": beside}[layout](tmp_path, *names)
    marks = [Pairs(tmp_path).fingerprint(None, ("A", "B"))]
    assert marks[0].startswith(f"pairs-{layout}-")
    assert Pairs(tmp_path).fingerprint(None, ("A", "B")) == marks[0]

    os.utime(tmp_path / names[1], ns=(1, 1))
    marks.append(Pairs(tmp_path).fingerprint(None, ("A", "B")))
    (tmp_path / names[0]).rename(tmp_path / names[0].replace("1", "3"))
    if layout == "folders":
        (tmp_path / names[1]).rename(tmp_path / "B" / "3.png")
    marks.append(Pairs(tmp_path).fingerprint(None, ("A", "B")))
    assert len(set(marks)) == 3
