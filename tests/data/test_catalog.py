"""The datasets that have a name: their downloads, their images, and refusals of damaged files."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
from itertools import islice

import numpy as np
import pytest
from gantool.batches import Paired, TableBatch, Unpaired
from gantool.data.archive import MARK
from gantool.data.download import Remote
from gantool.data.prepare import available, prepare
from gantool.data.sources import base, eggs, translations
from gantool.data.sources.base import DOWNLOADS
from gantool.data.sources.catalog import SOURCES, NamedImages
from gantool.data.sources.edges import edges
from gantool.errors import NetworkError
from gantool.recipe.blocks import Data
from PIL import Image

from archives import make
from loopback import Site, whole
from refusals import refusal

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
IMAGES = {name: source for name, source in SOURCES.items() if isinstance(source, NamedImages)}


@pytest.fixture(scope="module")
def real_digits():
    """scikit-learn's digits as MNIST has them: 28x28 grey pixels, each of theirs enlarged to 3x3, and a border."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images[:300] * (255 / 16)).astype(np.uint8)
    images = np.pad(small.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    return images, digits.target[:300].astype(np.uint8)


@pytest.fixture
def serve(monkeypatch):
    """A function that serves the content of a source's files on this machine instead of at their addresses."""
    site = Site()

    def replace(name, *contents):
        files = []
        for (folder, remote), content in zip(DOWNLOADS[name], contents, strict=True):
            urls = (site.on(f"/{remote.name}", whole(content)),)
            files.append((folder, Remote(remote.name, urls, hashlib.sha256(content).hexdigest())))
        monkeypatch.setitem(DOWNLOADS, name, files)
        return SOURCES[name], site

    yield replace
    site.close()


def idx(array):
    """MNIST's file format: two zero bytes, 8 for bytes, the dimensions, each side as 4 bytes, then the bytes."""
    sides = b"".join(side.to_bytes(4, "big") for side in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sides + array.tobytes()


def place(root, images, labels, folder="MNIST"):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, array in zip(FILES, (images, labels), strict=True):
        (raw / name).write_bytes(array if isinstance(array, bytes) else idx(array))
    return root


def jpeg(left=(255, 0, 0), right=(255, 0, 0)):
    image = Image.new("RGB", (16, 8), left)
    image.paste(right, (8, 0, 16, 8))
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


# --- every source -------------------------------------------------------------------------------------------


def test_every_source_is_described():
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.summary
        assert len(set(source.classes)) == len(source.classes) > 1
        assert source.kind not in (Paired, Unpaired, TableBatch) or len(source.classes) == 2
        assert bool(source.needs) == (name in DOWNLOADS)
    kinds = {kind: [name for name, source in SOURCES.items() if source.kind is kind] for kind in (Paired, Unpaired)}
    assert [len(names) for names in kinds.values()] == [8, 10]
    assert {name for name, source in SOURCES.items() if source.rendered} == {"eggs", "egg_edges", "egg_colours"}


def test_every_download_is_over_https_and_has_a_hash_if_its_authors_published_one():
    for name, files in DOWNLOADS.items():
        for folder, remote in files:
            assert not folder.startswith("/")
            assert all(url.startswith("https://") and url.endswith(f"/{remote.name}") for url in remote.urls)
            if name in SOURCES and SOURCES[name].kind is Paired:
                assert (remote.sha256, folder) == (None, f"pairs/{name}")
            else:
                assert len(remote.sha256) == 64
    assert DOWNLOADS.keys() - SOURCES.keys() == {"inception"}


def test_a_source_exists_when_its_files_do_and_fetched_archives_are_listed_last(tmp_path, real_digits):
    before = {name: exists for name, exists, _ in available(tmp_path)}
    place(tmp_path, *real_digits)
    for name in ("food", "half"):
        (tmp_path / "fetched" / name).mkdir(parents=True)
    (tmp_path / "fetched" / "food" / MARK).touch()
    after = available(tmp_path)

    assert before == {name: not source.needs for name, source in SOURCES.items()}
    assert {name: exists for name, exists, _ in after[:-1]} == before | {"mnist": True}
    assert after[-1] == ("food", True, f"fetched images, in {tmp_path / 'fetched' / 'food'}")


def test_the_content_of_a_source_decides_its_fingerprint(tmp_path, real_digits):
    images, labels = real_digits
    for name, part in (("a", images), ("b", images), ("c", images[::-1].copy())):
        place(tmp_path / name, part, labels)
    marks = [IMAGES["mnist"].fingerprint(tmp_path / name, ()) for name in "abc"]

    assert marks[0] == marks[1] != marks[2]
    assert [IMAGES[name].fingerprint(tmp_path, ()) for name in ("eggs", "egg_edges")] == ["eggs|1-300", "egg_edges|1"]


@pytest.mark.parametrize(
    ("name", "instead", "files"),
    [
        (
            "mnist",
            "digits, eggs, or a folder of your own images",
            "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz",
        ),
        ("maps", "egg_edges, photo_colours (with data.classes=null), or a folder of your own images", "maps.tar.gz"),
        (
            "horse2zebra",
            "egg_colours, grass_gravel (with data.classes=null), or a folder of your own images",
            "horse2zebra.zip",
        ),
        ("adult", "income", "adult.data and adult.test"),
    ],
)
def test_without_a_network_the_error_names_other_sources_and_where_files_belong(
    tmp_path, monkeypatch, logged, name, instead, files
):
    def fail(remote, *_, **__):
        raise NetworkError(f"{remote.name}: no network")

    monkeypatch.setattr(base, "download", fail)
    source, (folder, remote) = SOURCES[name], DOWNLOADS[name][0]
    place = f"or put {files} into {tmp_path / folder}"
    message = f"{remote.name}: no network; without a network use --set data.source={instead}, {place}"
    assert refusal(prepare, Data(source=name, size=28), tmp_path, source.kind, code=6) == message
    assert logged == [f"fetching {name} ({source.summary})"]


# --- files of MNIST's format, CIFAR-10, digits ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "folder"), [("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_files_of_mnists_format_give_their_exact_pixels(tmp_path, real_digits, name, folder):
    images, labels = real_digits
    place(tmp_path, images, labels, folder)
    store = prepare(Data(source=name, size=28, channels=1), tmp_path)

    assert np.array_equal(store.images[:, 0], images)
    assert store.labels.tolist() == labels.tolist()
    assert store.spec.classes == SOURCES[name].classes
    chosen = prepare(Data(source=name, size=28, classes=[store.spec.classes[7], store.spec.classes[1]]), tmp_path)
    assert chosen.labels.tolist() == [0 if label == 7 else 1 for label in labels if label in (7, 1)]


def test_files_of_mnist_are_downloaded_and_unpacked_beside_their_archives(tmp_path, real_digits, serve):
    plain = [idx(array) for array in real_digits] * 2
    source, site = serve("mnist", *map(gzip.compress, plain))
    assert not source.exists(tmp_path)
    source.fetch(tmp_path)
    source.fetch(tmp_path)

    assert (source.exists(tmp_path), len(site.requests)) == (True, 4)
    assert (tmp_path / "MNIST" / "raw" / FILES[0]).read_bytes() == plain[0]


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "."])
def test_published_files_that_were_compressed_anew_are_used(tmp_path, real_digits, serve, monkeypatch, logged, folder):
    plain = [idx(array) for array in real_digits] * 2
    source, site = serve("mnist", *map(gzip.compress, plain))
    marks = {
        remote.name: hashlib.sha256(content).hexdigest()
        for (_, remote), content in zip(DOWNLOADS["mnist"], plain, strict=True)
    }
    monkeypatch.setitem(base.UNPACKED, "mnist", marks)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, content in zip(FILES, plain, strict=False):
        (tmp_path / folder / f"{name}.gz").write_bytes(gzip.compress(content, 1, mtime=7))
    source.fetch(tmp_path)

    assert (source.exists(tmp_path), site.requests) == (True, [])
    monkeypatch.setitem(base.UNPACKED, "mnist", {})
    assert np.array_equal(prepare(Data(source="mnist", size=28), tmp_path).images[:, 0], real_digits[0])
    assert logged == ["decoding mnist at 28x28, once"]


@pytest.mark.parametrize(
    "content", [b"not gzip", gzip.compress(b"something else", mtime=0), gzip.compress(b"x" * 999, mtime=0)[:-9]]
)
def test_a_file_that_is_not_the_published_one_is_named_and_moved_aside(tmp_path, real_digits, serve, logged, content):
    source, site = serve("mnist", *map(gzip.compress, [idx(array) for array in real_digits] * 2))
    own = tmp_path / "MNIST" / "raw" / f"{FILES[0]}.gz"
    own.parent.mkdir(parents=True)
    own.write_bytes(content)
    source.fetch(tmp_path)

    assert logged == [f"{own}: is not the published file of mnist, so it is not used; moved to {own.name}.bad"]
    assert (own.with_name(f"{own.name}.bad").read_bytes(), len(site.requests)) == (content, 4)


def test_other_images_in_the_place_of_the_published_ones_are_used_with_a_warning(tmp_path, real_digits, logged):
    prepare(Data(source="mnist", size=28), place(tmp_path, *real_digits))
    files = [tmp_path / "MNIST" / "raw" / name for name in FILES]
    assert logged[1:] == [f"{file}: is not the published file of mnist; its content is used" for file in files]


GOOD, LABELS = np.zeros((20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (b"", LABELS),
        (idx(GOOD)[:-1], LABELS),
        (GOOD, idx(LABELS)[:-1]),
        (b"<!DOCTYPE html>" * 100, LABELS),
        (LABELS, GOOD),
        (GOOD, LABELS[:-1]),
        (GOOD, LABELS + 1),
        (idx(GOOD)[:4] + b"\xff" * 12 + bytes(100), LABELS),
    ],
    ids=["empty", "images cut", "labels cut", "html", "exchanged", "too few labels", "a label of 10", "huge"],
)
def test_damaged_files_of_mnist_are_refused(tmp_path, images, labels):
    place(tmp_path, images, labels)
    message = refusal(prepare, Data(source="mnist", size=28), tmp_path)
    assert message.startswith(f"{tmp_path / 'MNIST' / 'raw'}: not MNIST's file format (")
    assert message.endswith("); delete the files and run: gantool data fetch mnist")


def test_damaged_cifar10_is_refused_after_its_archive_was_unpacked_once(tmp_path, serve):
    batch = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]})
    packed = make(tmp_path / "a.tar.gz", [("cifar-10-batches-py/data_batch_1", batch)]).read_bytes()
    source, site = serve("cifar10", packed)
    source.fetch(tmp_path)
    source.fetch(tmp_path)
    assert (source.exists(tmp_path), len(site.requests)) == (True, 1)

    message = refusal(prepare, Data(source="cifar10", size=32), tmp_path)
    assert message.startswith(f"{tmp_path / 'cifar10'}: damaged (Dataset not found or corrupted.")
    assert message.endswith("; delete it and run: gantool data fetch cifar10")


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    store = prepare(Data(source="digits", size=8), tmp_path)

    assert np.array_equal(store.images[:, 0], np.round(digits.images * (255 / 16)))
    assert store.labels.tolist() == digits.target.tolist()


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("digits", "sklearn.datasets", "scikit-learn"),
        ("grass_gravel", "skimage", "scikit-image"),
        ("photo_colours", "skimage", "scikit-image"),
    ],
)
def test_real_data_need_their_package(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    message = f"data.source: {name} needs {package}; install it with: pip install 'gantool[real]'"
    assert refusal(next, IMAGES[name].items(tmp_path, IMAGES[name].classes)) == message


# --- pairs and two kinds ------------------------------------------------------------------------------------


def test_rendered_pairs_and_kinds_are_eggs_that_eggs_does_not_have():
    used = [*translations.EDGES, *(index for indices in translations.COLOURS.values() for index in indices)]
    assert len(used) == len(set(used)) == 1000
    assert min(used) >= eggs.COUNT


def test_egg_edges_are_pairs_of_a_drawing_and_an_egg(tmp_path):
    pairs = list(islice(IMAGES["egg_edges"].items(tmp_path, ("edges", "egg")), 8))

    assert [(image.name, image.class_name) for image in pairs[:3]] == [
        ("egg/1000", "edges"),
        ("egg/1000", "egg"),
        ("egg/1001", "edges"),
    ]
    assert np.array_equal(pairs[0].content, edges("Egg", 1000))
    assert np.array_equal(pairs[1].content, eggs.render("Egg", 1000))
    turned = IMAGES["egg_edges"].items(tmp_path, ("egg", "edges"))
    assert [next(turned).class_name for _ in range(4)] == ["egg", "edges"] * 2


def test_egg_colours_are_eggs_of_two_kinds(tmp_path):
    brown = next(IMAGES["egg_colours"].items(tmp_path, ("brown",)))
    blue = next(IMAGES["egg_colours"].items(tmp_path, ("blue", "brown")))

    assert [image[:2] for image in (brown, blue)] == [("brown/2000", "brown"), ("blue/3000", "blue")]
    assert np.array_equal(blue.content, eggs.render("Egg", 3000, kind="blue"))


def test_photo_colours_are_crops_in_grey_and_in_colour(tmp_path):
    from skimage import data

    crops = list(IMAGES["photo_colours"].items(tmp_path, ("grey", "colour")))

    assert len(crops) == 2 * len({crop.name for crop in crops}) == 510
    assert np.array_equal(crops[3].content, data.astronaut()[:64, 64:128])
    for grey, colour in zip(crops[::2], crops[1::2], strict=True):
        assert (grey.name, grey.class_name, colour.class_name) == (colour.name, "grey", "colour")
        assert np.abs(colour.content @ np.array([0.299, 0.587, 0.114]) - grey.content).max() <= 1


def test_a_set_of_pairs_is_fetched_and_cut_in_halves(tmp_path, serve):
    image = jpeg((200, 0, 0), (0, 0, 200))
    packed = make(tmp_path / "a.tar.gz", [("facades/train/1.jpg", image), ("facades/val/2.jpg", image)]).read_bytes()
    source, _ = serve("facades", packed)
    source.fetch(tmp_path)

    assert source.exists(tmp_path)
    b, a = source.items(tmp_path, ("B", "A"))
    assert [(half.name, half.class_name, half.content().shape) for half in (a, b)] == [
        ("1", "A", (8, 8, 3)),
        ("1", "B", (8, 8, 3)),
    ]
    assert b.content()[4, 6, 2] > 80 > a.content()[4, 2, 2]
    assert source.fingerprint(tmp_path, ()).startswith("facades|1|pairs/facades/unpacked/.complete:")


def test_a_set_of_two_kinds_is_fetched_and_labelled_by_its_folders(tmp_path, serve):
    names = ("trainA/1", "trainA/2", "trainB/7", "testA/3", "testB/8")
    packed = make(tmp_path / "a.zip", [(f"horse2zebra/{name}.jpg", jpeg()) for name in names]).read_bytes()
    source, _ = serve("horse2zebra", packed)
    source.fetch(tmp_path)

    assert source.exists(tmp_path)
    found = [(name, kind, file.is_file()) for name, kind, file in source.items(tmp_path, ("A", "B"))]
    assert found == [("A/1.jpg", "A", True), ("A/2.jpg", "A", True), ("B/7.jpg", "B", True)]


@pytest.mark.parametrize(("name", "folder"), [("maps", "train"), ("horse2zebra", "trainA")])
def test_a_fetched_set_without_its_folder_is_refused(tmp_path, name, folder):
    unpacked = tmp_path / "pairs" / name / "unpacked"
    advice = f"delete {unpacked} and run: gantool data fetch {name}"
    message = refusal(next, SOURCES[name].items(tmp_path, ("A", "B")))
    assert message == f"{unpacked / name / folder}: no images in it; {advice}"
