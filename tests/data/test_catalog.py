from __future__ import annotations

import dataclasses
import gzip
import hashlib
import pickle
import socket
import tarfile
import time

import numpy as np
import pytest
from gantool.data.download import Remote
from gantool.data.prepare import available, prepare
from gantool.data.sources.catalog import SOURCES
from gantool.data.sources.tables import TABLES
from gantool.errors import DataError, NetworkError
from gantool.recipe.blocks import Data

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


@pytest.fixture(scope="module")
def real_digits():
    """scikit-learn's digits as MNIST has them: 28x28 grey pixels, each of theirs enlarged to 3x3, and a border."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images[:300] * (255 / 16)).astype(np.uint8)
    images = np.pad(small.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    return images, digits.target[:300].astype(np.uint8)


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


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_files_of_mnists_format_give_their_exact_pixels(tmp_path, real_digits, name, folder):
    images, labels = real_digits
    place(tmp_path, images, labels, folder)

    store = prepare(Data(source=name, size=28, channels=1), tmp_path)

    assert np.array_equal(store.images[:, 0], images)
    assert store.labels.tolist() == labels.tolist()
    assert store.spec.classes == SOURCES[name].classes
    assert len(store.spec.classes) == 10


def test_classes_of_mnist_get_labels_in_the_order_of_the_recipe(tmp_path, real_digits):
    images, labels = real_digits
    place(tmp_path, images, labels)

    store = prepare(Data(source="mnist", size=28, classes=["7", "1"]), tmp_path)

    assert store.spec.classes == ("7", "1")
    assert store.labels.tolist() == [0 if label == 7 else 1 for label in labels if label in (7, 1)]
    assert np.array_equal(store.images[:, 0], images[(labels == 7) | (labels == 1)])


def damaged():
    good, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10
    return {
        "images empty": (b"", labels),
        "labels empty": (good, b""),
        "images cut": (idx(good)[:-1], labels),
        "images cut in head": (idx(good)[:10], labels),
        "labels cut": (good, idx(labels)[:-1]),
        "html": (b"<!DOCTYPE html>" * 100, labels),
        "gzip": (gzip.compress(idx(good)), labels),
        "exchanged": (labels, good),
        "too few labels": (good, labels[:-1]),
        "a label of 10": (good, labels + 1),
        "huge": (idx(good)[:4] + b"\xff" * 12 + bytes(100), labels),
    }


@pytest.mark.parametrize("kind", damaged())
def test_damaged_files_of_mnist_are_told(tmp_path, kind):
    place(tmp_path, *damaged()[kind])

    with pytest.raises(DataError) as caught:
        prepare(Data(source="mnist", size=28), tmp_path)

    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'MNIST' / 'raw'}: not MNIST's file format (")
    assert message.endswith("); delete the files and run: gantool data fetch mnist")
    assert "\n" not in message
    assert [path.name for path in (tmp_path / "stores").glob("*")] == []


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    store = prepare(Data(source="digits", size=8), tmp_path)

    assert len(store) == 1797
    assert np.array_equal(store.images[:, 0], np.round(digits.images * (255 / 16)))
    assert store.labels.tolist() == digits.target.tolist()


def test_digits_need_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)

    message = r"^data.source: digits needs scikit-learn; install it with: pip install 'gantool\[real\]'$"
    with pytest.raises(DataError, match=message):
        prepare(Data(source="digits", size=8), tmp_path)


def test_every_source_says_what_it_is():
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.summary
        assert source.channels in (1, 3)
        assert len(set(source.classes)) == len(source.classes) > 1
        assert bool(source.needs) == bool(source.remotes)
        for folder, remote in source.remotes:
            assert not folder.startswith("/")
            assert remote.sha256 is None or len(remote.sha256) == 64
            assert all(url.startswith("https://") for url in remote.urls)


def test_a_source_is_here_when_its_files_are(tmp_path, real_digits):
    before = {name: here for name, here, _ in available(tmp_path)}
    place(tmp_path, *real_digits)
    after = {name: here for name, here, _ in available(tmp_path)}

    assert before == {name: not source.needs for name, source in {**SOURCES, **TABLES}.items()}
    assert after == before | {"mnist": True}


def test_fetched_images_are_listed(tmp_path):
    (tmp_path / "fetched" / "food").mkdir(parents=True)
    (tmp_path / "fetched" / "half").mkdir()
    (tmp_path / "fetched" / "food" / ".complete").write_text('{"files": 1, "bytes": 3}')

    assert available(tmp_path)[len(SOURCES) + len(TABLES) :] == [
        ("food", True, f"fetched images, in {tmp_path / 'fetched' / 'food'}")
    ]


@pytest.fixture
def closed():
    """An address of this machine where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return f"https://127.0.0.1:{port}/"


def test_without_a_network_it_is_said_what_to_use_instead(tmp_path, monkeypatch, closed, logged):
    mnist = SOURCES["mnist"]
    remotes = tuple(
        (folder, Remote(remote.name, (closed + remote.name,), remote.sha256)) for folder, remote in mnist.remotes
    )
    monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(mnist, remotes=remotes))
    start = time.perf_counter()

    with pytest.raises(NetworkError) as caught:
        prepare(Data(source="mnist", size=28), tmp_path)

    message = str(caught.value)
    assert message.endswith("; without a network use --set data.source=digits, eggs, or a folder of your own images")
    assert "127.0.0.1" in message
    assert "\n" not in message
    assert logged == ["fetching mnist (60,000 handwritten digits; 11 MB)"]
    assert time.perf_counter() - start < 60
    assert not (tmp_path / "stores").exists()


def test_downloaded_files_are_unpacked_beside_their_archives(tmp_path, real_digits, closed):
    # They are here already, as a download leaves them: only the unpacking is left to do.
    images, labels = real_digits
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    remotes = []
    for name, array in zip(FILES, (images, labels), strict=True):
        packed = gzip.compress(idx(array))
        (raw / f"{name}.gz").write_bytes(packed)
        remotes.append(("MNIST/raw", Remote(f"{name}.gz", (closed,), hashlib.sha256(packed).hexdigest())))
    mnist = dataclasses.replace(SOURCES["mnist"], remotes=tuple(remotes))

    assert not mnist.here(tmp_path)
    mnist.fetch(tmp_path)

    assert mnist.here(tmp_path)
    assert (raw / FILES[0]).read_bytes() == idx(images)
    seen = sorted(path.name for path in raw.iterdir() if path.name[0] != ".")
    assert seen == sorted([*FILES, *(f"{name}.gz" for name in FILES)])


def cifar(root):
    folder = root / "cifar10" / "unpacked" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}))


def test_damaged_cifar10_is_told(tmp_path):
    cifar(tmp_path)

    with pytest.raises(DataError) as caught:
        prepare(Data(source="cifar10", size=32), tmp_path)

    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'cifar10'}: damaged (Dataset not found or corrupted.")
    assert message.endswith("; delete it and run: gantool data fetch cifar10")


def test_an_archive_of_a_source_is_unpacked_once(tmp_path, closed):
    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "cifar10" / "c.tar.gz", "w:gz") as packed:
        (tmp_path / "batch").write_bytes(b"batch")
        packed.add(tmp_path / "batch", "cifar-10-batches-py/data_batch_1")
    digest = hashlib.sha256((tmp_path / "cifar10" / "c.tar.gz").read_bytes()).hexdigest()
    source = dataclasses.replace(SOURCES["cifar10"], remotes=(("cifar10", Remote("c.tar.gz", (closed,), digest)),))

    source.fetch(tmp_path)
    source.fetch(tmp_path)

    assert source.here(tmp_path)


def test_the_content_of_a_source_decides_its_fingerprint(tmp_path, real_digits):
    images, labels = real_digits
    place(tmp_path / "a", images, labels)
    place(tmp_path / "b", images, labels)
    place(tmp_path / "c", images[::-1].copy(), labels)
    marks = [SOURCES["mnist"].fingerprint(tmp_path / name) for name in "abc"]

    assert marks[0] == marks[1] != marks[2]
    assert SOURCES["eggs"].fingerprint(tmp_path) == f"eggs|{SOURCES['eggs'].version}"
