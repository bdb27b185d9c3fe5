"""The datasets that can be had by name: a row each, and a function that reads it."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantool.data import eggs as rendered
from gantool.data.fetch import Progress, Remote, download, sha256
from gantool.data.unpack import complete, unpack
from gantool.errors import DataError
from gantool.runs import replacing


class Picture(NamedTuple):
    """A picture as its source has it.

    Args:
        name: for messages.
        class_name: the class that it belongs to.
        content: pixels, uint8 [H, W] or [H, W, 3], or the file that holds them.
    """

    name: str
    class_name: str
    content: NDArray[np.uint8] | Path


@dataclass(frozen=True)
class Source:
    """A dataset that can be had by name.

    Args:
        name: what recipes call it.
        summary: one line for `gantool data list`.
        channels: 1 grey, 3 colour.
        size: pixels on a side of the originals.
        classes: names of the classes, in the order of their labels.
        pictures: gives the training pictures of some classes; its folder is the data directory.
        needs: the files, below the data directory, without which `pictures` cannot run.
        version: changes when what `pictures` gives does.
        remotes: what to download, each with the folder below the data directory that it belongs to.
    """

    name: str
    summary: str
    channels: int
    size: int
    classes: tuple[str, ...]
    pictures: Callable[[Path, Sequence[str]], Iterator[Picture]]
    needs: tuple[str, ...] = ()
    version: str = "1"
    remotes: tuple[tuple[str, Remote], ...] = ()

    def here(self, root: Path) -> bool:
        """Tell whether nothing has to be downloaded."""
        return all((root / need).exists() for need in self.needs)

    def fetch(self, root: Path, progress: Progress | None = None) -> None:
        """Download what is missing, and unpack it to where torchvision would look for it."""
        for folder, remote in self.remotes:
            path = download(remote, root / folder, progress=progress)
            if remote.name.endswith(".tar.gz"):
                if not complete(target := root / folder / "unpacked"):
                    unpack(path, target)
            elif not (plain := path.with_suffix("")).exists():
                with replacing(plain) as aside, gzip.open(path) as packed, aside.open("wb") as file:
                    shutil.copyfileobj(packed, file)

    def fingerprint(self, root: Path) -> str:
        """Name the content: another one means another store."""
        files = [f"{need}:{sha256(root / need)}" for need in self.needs]
        return "|".join([self.name, self.version, *files])


def _eggs(_: Path, classes: Sequence[str]) -> Iterator[Picture]:
    for name in classes:
        for index in range(rendered.COUNT):
            yield Picture(f"{name}/{index}", name, rendered.render(name, index))


def _digits(_: Path, classes: Sequence[str]) -> Iterator[Picture]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "data.source: digits needs scikit-learn; install it with: pip install 'gantool[real]'"
        ) from None
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if str(label) in classes:
            yield Picture(str(index), str(label), np.round(image * (255 / 16)).astype(np.uint8))


def _idx(images_file: Path, labels_file: Path, classes: int) -> tuple[NDArray[np.uint8], list[int]]:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = read_image_file(str(images_file)).numpy(), read_label_file(str(labels_file)).tolist()
    if len(images) != len(labels) or max(labels) >= classes:
        raise ValueError(f"{len(images)} images, {len(labels)} labels up to {max(labels)}")
    return images, labels


def _mnist_like(name: str, folder: str, summary: str, classes: str, mirrors: Sequence[str], *hashes: str) -> Source:
    """Describe a dataset in MNIST's four IDX files, at torchvision's place for them."""
    files = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    place = f"{folder}/raw"
    names = tuple(classes.split())

    def pictures(root: Path, wanted: Sequence[str]) -> Iterator[Picture]:
        try:
            images, labels = _idx(root / place / files[0], root / place / files[1], len(names))
        except (ValueError, AssertionError, RuntimeError, IndexError, KeyError, TypeError, OSError) as error:
            raise DataError(
                f"{root / place}: not MNIST's file format ({type(error).__name__}: {str(error)[:60]}); "
                f"delete the files and run: gantool data fetch {name}"
            ) from None
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            if names[label] in wanted:
                yield Picture(str(index), names[label], image)

    return Source(
        name,
        summary,
        1,
        28,
        names,
        pictures,
        needs=tuple(f"{place}/{file}" for file in files[:2]),
        remotes=tuple(
            (place, Remote(f"{file}.gz", tuple(f"{mirror}{file}.gz" for mirror in mirrors), digest))
            for file, digest in zip(files, hashes, strict=True)
        ),
    )


_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_FOLDER = "cifar10"


def _cifar10(root: Path, classes: Sequence[str]) -> Iterator[Picture]:
    from torchvision.datasets import CIFAR10

    try:  # torchvision compares every file's MD5 before it reads one
        dataset = CIFAR10(root / _CIFAR_FOLDER / "unpacked", train=True, download=False)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{root / _CIFAR_FOLDER}: damaged ({str(error)[:60]}); delete it and run: gantool data fetch cifar10"
        ) from None
    for index, (image, label) in enumerate(zip(dataset.data, dataset.targets, strict=True)):
        if _CIFAR[label] in classes:
            yield Picture(str(index), _CIFAR[label], image)


_TEN = "0 1 2 3 4 5 6 7 8 9"
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "eggs",
            f"rendered food pictures, not photographs: {rendered.COUNT} of each class; comes with gantool",
            3,
            64,
            rendered.CLASSES,
            _eggs,
            version=f"{rendered.VERSION}-{rendered.COUNT}",
        ),
        Source(
            "digits",
            "1,797 real handwritten digits of 8x8 pixels; comes with scikit-learn (gantool[real])",
            1,
            8,
            tuple(_TEN.split()),
            _digits,
        ),
        _mnist_like(
            "mnist",
            "MNIST",
            "60,000 handwritten digits; 11 MB",
            _TEN,
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        _mnist_like(
            "fashion_mnist",
            "FashionMNIST",
            "60,000 pictures of clothes; 30 MB",
            "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Boot",
            (
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        _mnist_like(
            "kmnist",
            "KMNIST",
            "60,000 handwritten Japanese characters; 21 MB",
            "o ki su tsu na ha ma ya re wo",
            ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        Source(
            "cifar10",
            "50,000 small colour photographs; 170 MB",
            3,
            32,
            _CIFAR,
            _cifar10,
            needs=(f"{_CIFAR_FOLDER}/unpacked/cifar-10-batches-py/data_batch_1",),
            remotes=(
                (
                    _CIFAR_FOLDER,
                    Remote(
                        "cifar-10-python.tar.gz",
                        ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                    ),
                ),
            ),
        ),
    )
}
