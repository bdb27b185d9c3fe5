"""Pairs of one's own, from two folders or side by side, and the sets of pairs and of two kinds that have a name."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gantool.batches import Labeled, Paired, Unpaired
from gantool.data.archive import MARK
from gantool.data.download import Remote, download
from gantool.data.sources import catalog, eggs
from gantool.data.sources.catalog import SOURCES
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
    rows = list(zip(twice, pairs.images(classes or pairs.classes), strict=True))
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
    assert [(name, kind, file.relative_to(tmp_path).as_posix()) for name, kind, file in pairs.images(("A", "B"))] == [
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


def test_of_very_many_folders_a_few_are_named(tmp_path):
    root = folders(tmp_path, *(f"{index:02d}/1.png" for index in range(23)))

    assert "holds 23 folders, 00, 01, " in refusal(root)
    assert ", 19 and 3 more; say which " in refusal(root)


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


def test_a_misspelt_class_is_told_with_the_nearest_one(tmp_path):
    root = folders(tmp_path, "photos/1.png", "edges/1.png")

    assert "unknown class 'phots'; did you mean 'photos'?" in refusal(root, None, ["phots", "edge"])


def test_subfolders_of_a_class_are_part_of_the_name(tmp_path):
    pairs = Pairs(folders(tmp_path, "A/x/1.png", "A/y/1.png", "B/x/1.png", "B/y/1.png", "B/z/1.png"))

    assert listed(pairs) == [("x/1", "A"), ("x/1", "B"), ("y/1", "A"), ("y/1", "B")]
    assert pairs.problems == [(str(Path("B/z/1.png")), "no partner in A")]


def test_only_the_last_ending_is_none_of_the_name(tmp_path):
    assert listed(Pairs(folders(tmp_path, "A/1.5.png", "A/1.6.png", "B/1.5.jpg", "B/1.6.jpg")))[::2] == [
        ("1.5", "A"),
        ("1.6", "A"),
    ]


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


def test_sizes_are_those_of_upright_images(tmp_path):
    lying = Image.Exif()
    lying[0x0112] = 6
    picture(tmp_path / "A" / "1.jpg", size=(6, 4), exif=lying)
    picture(tmp_path / "B" / "1.png", size=(4, 6))

    assert Pairs(tmp_path).problems == []


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
    contents = [content for _, _, content in pairs.images(("A", "B"))]
    assert {(content.shape, content.dtype.name) for content in contents} == {((8, 8, 3), "uint8")}
    assert [content.reshape(-1, 3).tolist() for content in contents] == [
        [colour] * 64 for colour in ([0, 0, 0], [0, 0, 100], [1, 0, 0], [0, 0, 101])
    ]


def test_the_direction_can_be_turned(tmp_path):
    pairs = Pairs(beside(tmp_path, "1.png"), classes=["B", "A"])

    assert pairs.classes == ("B", "A")
    assert [(kind, content[0, 0].tolist()) for _, kind, content in pairs.images(pairs.classes)] == [
        ("B", [0, 0, 100]),
        ("A", [0, 0, 0]),
    ]


def test_halves_have_two_names_only(tmp_path):
    message = refusal(beside(tmp_path, "1.png"), None, ["photos", "edges"])

    assert message == "HERE: unknown class 'photos'; known: A, B; data.classes names the ones to keep, null keeps all"


@pytest.mark.parametrize(("wrap", "name"), [("", "1"), ("food/", "food/1"), ("a/b/", "b/1")])
def test_a_lone_wrapping_folder_is_looked_through(tmp_path, wrap, name):
    assert listed(Pairs(beside(tmp_path / "one", f"{wrap}1.png"))) == [(name, "A"), (name, "B")]
    assert listed(Pairs(folders(tmp_path / "two", f"{wrap}A/1.png", f"{wrap}B/1.png"))) == [("1", "A"), ("1", "B")]


def test_a_split_has_to_be_chosen(tmp_path):
    beside(tmp_path, "facades/train/1.png", "facades/val/2.png", "facades/val/3.png")

    assert refusal(tmp_path) == f"{Path('HERE/facades')}: holds train, val; choose one with data.folder=val"
    assert listed(Pairs(tmp_path, "train")) == [("1", "A"), ("1", "B")]
    assert len(listed(Pairs(tmp_path, "val"))) == 4


def test_a_split_of_two_folders_is_chosen_likewise(tmp_path):
    folders(tmp_path, "train/A/1.png", "train/B/1.png", "val/A/2.png", "val/B/2.png")

    assert listed(Pairs(tmp_path, "val")) == [("2", "A"), ("2", "B")]


def test_an_orientation_is_applied_before_the_cut(tmp_path):
    lying = Image.Exif()
    lying[0x0112] = 6  # upright after a quarter turn clockwise: what is below comes to the left
    image = Image.new("RGB", (8, 16), (0, 0, 200))
    image.paste((200, 0, 0), (0, 8, 8, 16))
    image.save(tmp_path / "1.png", exif=lying)

    contents = [content for _, _, content in Pairs(tmp_path).images(("A", "B"))]
    assert [content.shape for content in contents] == [(8, 8, 3)] * 2
    assert [content[4, 4].tolist() for content in contents] == [[200, 0, 0], [0, 0, 200]]


def test_grey_stays_grey(tmp_path):
    Image.new("L", (16, 8), 7).save(tmp_path / "1.png")
    Image.new("1", (16, 8), 1).save(tmp_path / "2.png")

    contents = [content for _, _, content in Pairs(tmp_path).images(("A", "B"))]
    assert [(content.shape, int(content.max())) for content in contents] == [((8, 8), 7)] * 2 + [((8, 8), 255)] * 2


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

    assert [type(content) for _, _, content in Pairs(tmp_path).images(("A", "B"))][:2] == [type(tmp_path)] * 2
    assert len(listed(Pairs(tmp_path))) == 4


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    pictures = Pairs(beside(tmp_path, "1.png", "2.png")).images(("A", "B"))
    next(pictures)
    (tmp_path / "2.png").unlink()

    assert [content for _, _, content in pictures][-1] == tmp_path / "2.png"


# --- both ---------------------------------------------------------------------------------------------------


def test_an_empty_folder_and_none_are_told(tmp_path):
    assert refusal(tmp_path) == "HERE: no files in it; a source is a folder of images, or of folders of images"
    assert refusal(tmp_path / "none") == "HERE: no such folder"


@pytest.mark.parametrize("layout", ["folders", "beside"])
def test_a_fingerprint_changes_with_any_file_of_a_pair(tmp_path, layout):
    names = ("A/1.png", "B/1.png", "A/2.png") if layout == "folders" else ("1.png", "2.png")
    {"folders": folders, "beside": beside}[layout](tmp_path, *names)
    marks = [Pairs(tmp_path).fingerprint(("A", "B"))]
    assert marks[0].startswith(f"pairs-{layout}-")
    assert Pairs(tmp_path).fingerprint(("A", "B")) == marks[0]

    os.utime(tmp_path / names[1], ns=(1, 1))
    marks.append(Pairs(tmp_path).fingerprint(("A", "B")))
    (tmp_path / names[0]).rename(tmp_path / names[0].replace("1", "3"))
    if layout == "folders":
        (tmp_path / names[1]).rename(tmp_path / "B" / "3.png")
    marks.append(Pairs(tmp_path).fingerprint(("A", "B")))
    assert len(set(marks)) == 3


def test_the_files_of_each_class_are_there_in_the_order_of_the_pairs(tmp_path):
    pairs = Pairs(folders(tmp_path / "two", "A/2.png", "A/1.png", "B/1.png", "B/2.png"))
    assert {name: [file.name for file in files] for name, files in pairs.files.items()} == {
        "A": ["1.png", "2.png"],
        "B": ["1.png", "2.png"],
    }

    pairs = Pairs(beside(tmp_path / "one", "1.png"), None, ("B", "A"))
    assert pairs.files == {"B": [tmp_path / "one" / "1.png"], "A": [tmp_path / "one" / "1.png"]}


# --- rendered and bundled sets ------------------------------------------------------------------------------


def test_every_source_says_of_what_kind_it_is(tmp_path):
    kinds = {kind: {name for name, source in SOURCES.items() if source.kind is kind} for kind in (Paired, Unpaired)}

    assert kinds[Paired] == {
        "egg_edges", "photo_colours", "facades", "maps", "cityscapes", "edges2shoes", "edges2handbags", "night2day",
    }  # fmt: skip
    assert kinds[Unpaired] == {
        "egg_colours", "grass_gravel", "horse2zebra", "apple2orange", "summer2winter_yosemite", "monet2photo",
        "cezanne2photo", "ukiyoe2photo", "vangogh2photo", "iphone2dslr_flower",
    }  # fmt: skip
    assert all(len(SOURCES[name].classes) == 2 for names in kinds.values() for name in names)
    assert SOURCES["digits"].kind is SOURCES["eggs"].kind is Labeled
    assert {name for name, source in SOURCES.items() if source.rendered} == {"eggs", "egg_edges", "egg_colours"}


def test_egg_edges_are_pairs_of_a_drawing_and_an_egg_that_eggs_does_not_have(tmp_path):
    pictures = list(SOURCES["egg_edges"].images(tmp_path, ("edges", "egg")))

    assert len(pictures) == 800
    assert [picture.class_name for picture in pictures] == ["edges", "egg"] * 400
    assert all(first.name == second.name for first, second in zip(pictures[::2], pictures[1::2], strict=True))
    assert len({picture.name for picture in pictures}) == 400
    assert np.array_equal(pictures[0].content, eggs.edges("Egg", 1000))
    assert np.array_equal(pictures[1].content, eggs.render("Egg", 1000))
    assert eggs.COUNT < 1000


def test_the_direction_of_egg_edges_can_be_turned(tmp_path):
    pictures = SOURCES["egg_edges"].images(tmp_path, ("egg", "edges"))

    assert [next(pictures).class_name for _ in range(4)] == ["egg", "edges"] * 2


def test_egg_colours_are_different_eggs_of_two_kinds(tmp_path):
    pictures = list(SOURCES["egg_colours"].images(tmp_path, ("brown", "blue")))

    assert [picture.class_name for picture in pictures] == ["brown"] * 300 + ["blue"] * 300
    indices = [int(picture.name.partition("/")[2]) for picture in pictures]
    assert len(set(indices)) == 600
    assert min(indices) >= eggs.COUNT
    assert np.array_equal(pictures[0].content, eggs.render("Egg", indices[0], kind="brown"))
    # The middle of an egg tells its kind: brown ones are red, blue ones blue.
    warmth = [
        float(picture.content[28:36, 28:36, 0].mean() - picture.content[28:36, 28:36, 2].mean()) for picture in pictures
    ]
    assert np.mean(np.array(warmth[:300]) > 20) > 0.95
    assert np.mean(np.array(warmth[300:]) < 0) > 0.95


def test_grass_and_gravel_are_crops_of_two_photographs(tmp_path):
    from skimage import data

    pictures = list(SOURCES["grass_gravel"].images(tmp_path, ("gravel", "grass")))

    assert [picture.class_name for picture in pictures] == ["gravel"] * 225 + ["grass"] * 225
    assert {picture.content.shape for picture in pictures} == {(64, 64)}
    assert np.array_equal(pictures[0].content, data.gravel()[:64, :64])
    assert (pictures[226].name, pictures[-1].name) == ("grass/0-32", "grass/448-448")
    assert np.array_equal(pictures[-1].content, data.grass()[448:, 448:])


def test_photo_colours_are_crops_in_grey_and_in_colour(tmp_path):
    from skimage import data

    pictures = list(SOURCES["photo_colours"].images(tmp_path, ("grey", "colour")))

    assert [picture.class_name for picture in pictures] == ["grey", "colour"] * 255
    assert [picture.content.shape for picture in pictures] == [(64, 64), (64, 64, 3)] * 255
    assert all(first.name == second.name for first, second in zip(pictures[::2], pictures[1::2], strict=True))
    assert len({picture.name for picture in pictures}) == 255
    assert np.array_equal(pictures[3].content, data.astronaut()[:64, 64:128])
    for grey, colour in zip(pictures[::2], pictures[1::2], strict=True):
        luma = colour.content @ np.array([0.299, 0.587, 0.114])
        assert np.abs(luma - grey.content).max() <= 1


@pytest.mark.parametrize("name", ["grass_gravel", "photo_colours"])
def test_photographs_need_scikit_image(tmp_path, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, "skimage", None)
    source = SOURCES[name]

    message = rf"^data.source: {name} needs scikit-image; install it with: pip install 'gantool\[real\]'$"
    with pytest.raises(DataError, match=message):
        next(source.images(tmp_path, source.classes))


# --- fetched sets -------------------------------------------------------------------------------------------


@pytest.fixture
def serve(monkeypatch):
    """A loopback server that has one file, for a source whose address it takes the place of."""
    files, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path in files else 404)
            self.send_header("Content-Length", str(len(files.get(self.path, b""))))
            self.end_headers()
            self.wfile.write(files.get(self.path, b""))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(catalog, "download", functools.partial(download, allow_http=True, timeout=5.0, pause=0.001))

    def give(name, content, digest=None):
        ((folder, remote),) = SOURCES[name].remotes
        files[f"/{remote.name}"] = content
        url = f"http://127.0.0.1:{server.server_address[1]}/{remote.name}"
        return dataclasses.replace(SOURCES[name], remotes=((folder, Remote(remote.name, (url,), digest)),)), asked

    yield give
    server.shutdown()
    server.server_close()
    thread.join()


def tarred(root):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        for path in sorted(root.iterdir()):
            packed.add(path, path.name)
    return stream.getvalue()


def zipped(root):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for file in sorted(root.rglob("*.*")):
            packed.write(file, file.relative_to(root).as_posix())
    return stream.getvalue()


def test_a_set_of_pairs_is_fetched_unpacked_once_and_cut_in_halves(tmp_path, serve):
    source, asked = serve("facades", tarred(beside(tmp_path / "made", "facades/train/1.jpg", "facades/val/2.jpg")))
    root = tmp_path / "data"
    assert not source.here(root)

    source.fetch(root)
    source.fetch(root)

    assert source.here(root)
    assert asked == ["/facades.tar.gz"]
    pictures = list(source.images(root, ("B", "A")))
    assert [(picture.name, picture.class_name, picture.content.shape) for picture in pictures] == [
        ("1", "B", (8, 8, 3)),
        ("1", "A", (8, 8, 3)),
    ]
    assert pictures[0].content[4, 6, 2] > 80 > pictures[1].content[4, 2, 2]
    assert source.fingerprint(root).startswith("facades|1|pairs/facades/unpacked/.complete:")


def test_a_set_of_two_kinds_is_fetched_and_labelled_by_its_folders(tmp_path, serve):
    files = (f"horse2zebra/{name}.jpg" for name in ("trainA/1", "trainA/2", "trainB/7", "testA/3", "testB/8"))
    content = zipped(folders(tmp_path / "made", *files))
    source, _ = serve("horse2zebra", content, hashlib.sha256(content).hexdigest())
    root = tmp_path / "data"

    source.fetch(root)

    assert source.here(root)
    assert [(name, kind, file.is_file()) for name, kind, file in source.images(root, ("A", "B"))] == [
        ("A/1.jpg", "A", True),
        ("A/2.jpg", "A", True),
        ("B/7.jpg", "B", True),
    ]


@pytest.mark.parametrize(("name", "folder"), [("maps", "train"), ("horse2zebra", "trainA")])
def test_a_fetched_set_without_its_folder_is_told(tmp_path, name, folder):
    place = tmp_path / "pairs" / name / "unpacked"
    place.mkdir(parents=True)
    (place / MARK).write_text('{"files": 1, "bytes": 1}')

    assert SOURCES[name].here(tmp_path)
    with pytest.raises(DataError) as caught:
        next(SOURCES[name].images(tmp_path, ("A", "B")))
    assert str(caught.value) == (
        f"{place / name / folder}: no images in it; delete {place} and run: gantool data fetch {name}"
    )


def test_fetched_sets_come_from_their_authors():
    for name, source in SOURCES.items():
        if source.kind is Labeled or not source.remotes:
            continue
        ((folder, remote),) = source.remotes
        project = "pix2pix" if source.kind is Paired else "cyclegan"
        assert folder == f"pairs/{name}"
        assert remote.urls == (f"https://efrosgans.eecs.berkeley.edu/{project}/datasets/{remote.name}",)
        assert (source.classes, source.channels) == (("A", "B"), 3)
        assert (remote.sha256 is None) == (source.kind is Paired)
