"""The user's own pairs, in two folders or side by side: which files are pairs, and why others are left out."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from gantool.batches import Paired
from gantool.data import decode
from gantool.data.prepare import prepare
from gantool.data.sources.pairs import Pairs
from gantool.recipe.blocks import Data
from PIL import Image

from refusals import refusal

SIDE_BY_SIDE = "a file has to be two images side by side, or there have to be two folders with the same names"
KEEP = "data.classes names the ones to keep, null keeps all"


def draw(path, left=(9, 0, 0), right=None, size=(8, 8)):
    """Write an image of one colour, or of two halves of one colour each; `size` is width and height of the whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, left)
    if right:
        image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    image.save(path)


def folders(root, *files):
    for index, file in enumerate(files):
        draw(root / file, (index, 0, 0))
    return root


def beside(root, *files):
    """Write images whose left half is red by their index and whose right half is blue by it."""
    for index, file in enumerate(files):
        draw(root / file, (index, 0, 0), (0, 0, 100 + index), size=(16, 8))
    return root


def listed(pairs):
    """Return the names of pairs, whose images have to come one after the other in the order of the classes."""
    items = list(pairs.items(None, pairs.classes))
    assert [item.class_name for item in items] == list(pairs.classes) * len(pairs.names)
    for item, name in zip(items, np.repeat(pairs.names, 2), strict=True):
        assert name in unicodedata.normalize("NFC", Path(item.name).as_posix())
    return pairs.names


def problems(pairs):
    return [(Path(name).as_posix(), reason) for name, reason in pairs.problems]


def refused(path, *arguments):
    return refusal(Pairs, path, *arguments).replace(str(path), "HERE")


# --- two folders --------------------------------------------------------------------------------------------


def test_images_of_one_name_are_a_pair_and_come_one_after_the_other(tmp_path):
    pairs = Pairs(folders(tmp_path, "A/2.png", "A/1.png", "B/1.jpg", "B/2.png"))

    assert (pairs.path, pairs.classes, pairs.problems) == (tmp_path, ("A", "B"), [])
    assert [(name, kind, file.relative_to(tmp_path).as_posix()) for name, kind, file in pairs.items(None, "AB")] == [
        (str(Path("A/1.png")), "A", "A/1.png"),
        (str(Path("B/1.jpg")), "B", "B/1.jpg"),
        (str(Path("A/2.png")), "A", "A/2.png"),
        (str(Path("B/2.png")), "B", "B/2.png"),
    ]


def test_the_recipe_chooses_two_folders_and_their_order(tmp_path):
    pairs = Pairs(folders(tmp_path, "photo/1.png", "drawing/1.png", "test/2.png"), None, ["photo", "drawing"])

    assert (pairs.classes, listed(pairs)) == (("photo", "drawing"), ["1"])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["A", "D"], f"HERE: unknown class 'D'; known: A, B, C; {KEEP}"),
        (["B"], "HERE: has 1 kind (B), but a translation is between two; choose with data.classes=[A, B]"),
        (None, "HERE: has 3 kinds (A, B, C), but a translation is between two; choose with data.classes=[A, B]"),
    ],
)
def test_classes_that_are_not_two_of_the_folders_are_refused(tmp_path, classes, message):
    assert refused(folders(tmp_path, "A/1.png", "B/1.png", "C/1.png"), None, classes) == message


def test_subfolders_are_part_of_the_name_and_names_that_look_the_same_are_the_same(tmp_path):
    one, other = (unicodedata.normalize(form, "달걀é") for form in ("NFC", "NFD"))
    files = ("A/x/1.png", "A/y/1.5.png", "B/x/1.png", "B/y/1.5.jpg", "B/z/1.png", f"A/{one}.png", f"B/{other}.png")
    pairs = Pairs(folders(tmp_path, *files))

    assert one != other
    assert listed(pairs) == ["x/1", "y/1.5", one]
    assert problems(pairs) == [("B/z/1.png", "no partner in A")]


def test_files_that_make_no_pair_are_left_out_with_a_reason(tmp_path):
    folders(tmp_path, "A/1.jpg", "A/1.png", "A/2.png", "A/3.png", "A/Egg.png", "A/5.png")
    folders(tmp_path, "B/1.png", "B/4.png", "B/EGG.png", "B/3.png", "B/6.png")
    (tmp_path / "B" / "5.png").write_text("text")
    (tmp_path / "A" / "6.png").write_bytes(b"")
    pairs = Pairs(tmp_path)

    assert listed(pairs) == ["3"]
    assert problems(pairs) == [
        ("A/1.png", f"has the name of {Path('A/1.jpg')}"),
        ("A/2.png", "no partner in B"),
        ("A/Egg.png", "no partner in B, where 'EGG' differs in case"),
        ("B/4.png", "no partner in A"),
        ("B/EGG.png", "no partner in A, where 'Egg' differs in case"),
        ("B/5.png", "not an image"),
        ("A/6.png", "empty file"),
    ]


def test_a_pair_of_unequal_sizes_is_listed_and_stays(tmp_path):
    folders(tmp_path, "A/1.png", "B/1.png", "A/2.png")
    draw(tmp_path / "B" / "2.png", size=(4, 6))
    pairs = Pairs(tmp_path)

    assert listed(pairs) == ["1", "2"]
    assert pairs.problems == [("2", "8x8 in A, 4x6 in B")]


def test_when_no_pair_is_left_the_first_offenders_are_named(tmp_path):
    folders(tmp_path, *(f"A/{index}a.png" for index in range(3)), *(f"B/{index}b.png" for index in range(2)))

    assert refused(tmp_path) == (
        f"HERE: no pair in it: {Path('A/0a.png')} (no partner in B), {Path('A/1a.png')} (no partner in B), "
        f"{Path('A/2a.png')} (no partner in B) and 2 more; "
        "an image in A and its partner in B have to have the same name"
    )


# --- side by side -------------------------------------------------------------------------------------------


def test_the_left_half_is_a_and_the_right_half_is_b(tmp_path):
    pairs = Pairs(beside(tmp_path, "1.png", "2.png"))

    assert (pairs.classes, listed(pairs)) == (("A", "B"), ["1", "2"])
    contents = [content() for _, _, content in pairs.items(None, ("A", "B"))]
    assert {(content.shape, content.dtype.name) for content in contents} == {((8, 8, 3), "uint8")}
    colours = [content.reshape(-1, 3).tolist() for content in contents]
    assert colours == [[colour] * 64 for colour in ([0, 0, 0], [0, 0, 100], [1, 0, 0], [0, 0, 101])]
    turned = list(Pairs(tmp_path, None, ["B", "A"]).items(None, ("B", "A")))
    assert [item.content()[0, 0].tolist() for item in turned[:2]] == [[0, 0, 100], [0, 0, 0]]
    assert refused(tmp_path, None, ["photos", "edges"]) == f"HERE: unknown class 'photos'; known: A, B; {KEEP}"


def test_pairs_are_found_in_wrapping_folders_and_in_a_chosen_split(tmp_path):
    assert listed(Pairs(beside(tmp_path / "one", "a/b/1.png"))) == ["b/1"]
    assert listed(Pairs(folders(tmp_path / "two", "food/A/1.png", "food/B/1.png"))) == ["1"]
    beside(tmp_path / "three", "facades/train/1.png", "facades/val/2.png", "facades/val/3.png")
    assert refused(tmp_path / "three") == f"{Path('HERE/facades')}: holds train, val; choose one with data.folder=val"
    assert [listed(Pairs(tmp_path / "three", name)) for name in ("train", "val")] == [["1"], ["2", "3"]]


@pytest.mark.parametrize("layout", ["folders", "beside"])
def test_the_orientation_of_a_camera_is_applied_to_both_images_of_a_pair(tmp_path, layout):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    places = ("A/1.png", "B/1.png") if layout == "folders" else ("1.png",)
    for place in places:
        (tmp_path / "mine" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(4, dtype=np.uint8)[None]).save(tmp_path / "mine" / place, exif=exif)
    store = prepare(
        Data(source=str(tmp_path / "mine"), size=(1, 4 if layout == "folders" else 2)), tmp_path / "data", Paired
    )

    assert store.images.reshape(2, -1).tolist() == ([[3, 2, 1, 0]] * 2 if layout == "folders" else [[3, 2], [1, 0]])


def test_files_that_are_not_two_halves_are_left_out_with_a_reason(tmp_path):
    beside(tmp_path, "1.png", "6.jpg", "6.png")
    draw(tmp_path / "2.png", size=(15, 8))
    draw(tmp_path / "3.png", size=(8, 8))
    (tmp_path / "5.txt").write_text("text")
    pairs = Pairs(tmp_path)

    assert listed(pairs) == ["1"]
    assert pairs.problems == [
        ("6.png", "has the name of 6.jpg"),
        ("2.png", "15 pixels wide, which is odd, so that its halves differ"),
        ("3.png", "8x8, but two images side by side are wider than high"),
        ("5.txt", "not an image"),
    ]


def test_a_flat_folder_of_single_images_is_refused(tmp_path):
    reason = "8x8, but two images side by side are wider than high"
    message = f"HERE: no pair in it: 1.png ({reason}), 2.png ({reason}); {SIDE_BY_SIDE}"
    assert refused(folders(tmp_path, "1.png", "2.png"), None, ["edges", "egg"]) == message


def test_both_halves_of_a_truncated_file_have_the_reason(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])

    for _, _, content in Pairs(tmp_path).items(None, ("A", "B")):
        with pytest.raises(decode.Unreadable, match="truncated"):
            content()


@pytest.mark.parametrize("layout", ["folders", "beside"])
def test_a_fingerprint_changes_with_any_file_of_a_pair(tmp_path, layout):
    names = ("A/1.png", "B/1.png") if layout == "folders" else ("1.png", "2.png")
    {"folders": folders, "beside": beside}[layout](tmp_path, *names)
    marks = [Pairs(tmp_path).fingerprint(None, ("A", "B")) for _ in range(2)]
    os.utime(tmp_path / names[1], ns=(1, 1))

    assert marks[0] == marks[1] != Pairs(tmp_path).fingerprint(None, ("A", "B"))
    assert marks[0].startswith(f"pairs-{layout}-")
