"""The datasets that can be had by name: a row each, and a function that reads it."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Batch, Labeled, Paired, Unpaired
from gantool.data.archive import MARK, complete, unpack
from gantool.data.download import Progress, Remote, download, sha256
from gantool.data.sources import eggs as rendered
from gantool.data.sources import translations
from gantool.data.sources.images import SIDES, SourceImage
from gantool.errors import DataError
from gantool.files import atomic_write

__all__ = ["SOURCES", "Source", "SourceImage"]


@dataclass(frozen=True)
class Source:
    """A dataset that can be had by name.

    Args:
        name: what recipes call it.
        summary: one line for `gantool data list`.
        channels: 1 grey, 3 colour.
        size: pixels on a side of the originals.
        classes: names of the classes, in the order of their labels; of pairs, the source's and the target's.
        images: gives the training images of some classes; its folder is the data directory. Those of a pair come
            one after the other and have the same name.
        needs: the files, below the data directory, without which `images` cannot run.
        version: changes when what `images` gives does.
        remotes: what to download, each with the folder below the data directory that it belongs to.
        kind: what a batch of it is: labelled images, pairs, or images of two kinds without pairs.
        rendered: whether a program drew the images.
    """

    name: str
    summary: str
    channels: int
    size: int
    classes: tuple[str, ...]
    images: Callable[[Path, Sequence[str]], Iterator[SourceImage]]
    needs: tuple[str, ...] = ()
    version: str = "1"
    remotes: tuple[tuple[str, Remote], ...] = ()
    kind: type[Batch] = Labeled
    rendered: bool = False

    def here(self, root: Path) -> bool:
        """Return whether nothing has to be downloaded."""
        return all((root / need).exists() for need in self.needs)

    def fetch(self, root: Path, progress: Progress | None = None) -> None:
        """Download what is missing, and unpack it, to where torchvision would look for it if it knows the source."""
        for folder, remote in self.remotes:
            path = download(remote, root / folder, progress=progress)
            if remote.name.endswith((".tar.gz", ".zip")):
                if not complete(target := root / folder / "unpacked"):
                    unpack(path, target)
            elif not (plain := path.with_suffix("")).exists():
                with atomic_write(plain) as aside, gzip.open(path) as packed, aside.open("wb") as file:
                    shutil.copyfileobj(packed, file)

    def fingerprint(self, root: Path) -> str:
        """Name the content: another one means another store."""
        files = [f"{need}:{sha256(root / need)}" for need in self.needs]
        return "|".join([self.name, self.version, *files])


def _eggs(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    for name in classes:
        for index in range(rendered.COUNT):
            yield SourceImage(f"{name}/{index}", name, rendered.render(name, index))


def _digits(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "data.source: digits needs scikit-learn; install it with: pip install 'gantool[real]'"
        ) from None
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if str(label) in classes:
            yield SourceImage(str(index), str(label), np.round(image * (255 / 16)).astype(np.uint8))


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

    def samples(root: Path, wanted: Sequence[str]) -> Iterator[SourceImage]:
        try:
            images, labels = _idx(root / place / files[0], root / place / files[1], len(names))
        except (ValueError, AssertionError, RuntimeError, IndexError, KeyError, TypeError, OSError) as error:
            raise DataError(
                f"{root / place}: not MNIST's file format ({type(error).__name__}: {str(error)[:60]}); "
                f"delete the files and run: gantool data fetch {name}"
            ) from None
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            if names[label] in wanted:
                yield SourceImage(str(index), names[label], image)

    return Source(
        name,
        summary,
        1,
        28,
        names,
        samples,
        needs=tuple(f"{place}/{file}" for file in files[:2]),
        remotes=tuple(
            (place, Remote(f"{file}.gz", tuple(f"{mirror}{file}.gz" for mirror in mirrors), digest))
            for file, digest in zip(files, hashes, strict=True)
        ),
    )


_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_FOLDER = "cifar10"


def _cifar10(root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    from torchvision.datasets import CIFAR10

    try:  # torchvision compares every file's MD5 before it reads one
        dataset = CIFAR10(root / _CIFAR_FOLDER / "unpacked", train=True, download=False)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{root / _CIFAR_FOLDER}: damaged ({str(error)[:60]}); delete it and run: gantool data fetch cifar10"
        ) from None
    for index, (image, label) in enumerate(zip(dataset.data, dataset.targets, strict=True)):
        if _CIFAR[label] in classes:
            yield SourceImage(str(index), _CIFAR[label], image)


def _berkeley(name: str, summary: str, kind: type[Batch], size: int = 256, digest: str | None = None) -> Source:
    """Describe a set of the authors of pix2pix and CycleGAN; where no hash of it was published, none is checked."""
    project, archive, read = (
        ("pix2pix", f"{name}.tar.gz", translations.fetched_pairs)
        if kind is Paired
        else ("cyclegan", f"{name}.zip", translations.fetched_kinds)
    )
    place = f"pairs/{name}"
    address = f"https://efrosgans.eecs.berkeley.edu/{project}/datasets/{archive}"
    return Source(
        name,
        summary,
        3,
        size,
        SIDES,
        read(name, f"{place}/unpacked/{name}"),
        needs=(f"{place}/unpacked/{MARK}",),
        remotes=((place, Remote(archive, (address,), digest)),),
        kind=kind,
    )


INCEPTION_FOLDER = "inception"  # of the data directory
INCEPTION_HASH = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_WEIGHTS = Remote(
    "weights-inception-2015-12-05-6726825d.pth",
    ("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",),
    INCEPTION_HASH,
)


_TEN = "0 1 2 3 4 5 6 7 8 9"
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "eggs",
            f"rendered food images, not photographs: {rendered.COUNT} of each class; comes with gantool",
            3,
            64,
            rendered.CLASSES,
            _eggs,
            version=f"{rendered.VERSION}-{rendered.COUNT}",
            rendered=True,
        ),
        Source(
            "egg_edges",
            f"{len(translations.EDGES)} pairs: a drawing of a rendered egg, and the egg; comes with gantool",
            3,
            64,
            ("edges", "egg"),
            translations.egg_edges,
            version=f"{rendered.VERSION}",
            kind=Paired,
            rendered=True,
        ),
        Source(
            "egg_colours",
            "300 brown and 300 blue rendered eggs, without pairs; comes with gantool",
            3,
            64,
            tuple(translations.COLOURS),
            translations.egg_colours,
            version=f"{rendered.VERSION}",
            kind=Unpaired,
            rendered=True,
        ),
        Source(
            "digits",
            "1,797 real handwritten digits of 8x8 pixels; comes with scikit-learn (gantool[real])",
            1,
            8,
            tuple(_TEN.split()),
            _digits,
        ),
        Source(
            "grass_gravel",
            "225 crops each of a grey photograph of grass and one of gravel, without pairs; gantool[real]",
            1,
            translations.SIDE,
            ("grass", "gravel"),
            translations.grass_gravel,
            kind=Unpaired,
        ),
        Source(
            "photo_colours",
            "255 pairs: a crop of one of four photographs in grey, and in colour; gantool[real]",
            3,
            translations.SIDE,
            ("grey", "colour"),
            translations.photo_colours,
            kind=Paired,
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
            "60,000 images of clothes; 30 MB",
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
        # Sizes of the archives, and how many pairs train, as their authors list them: what is there was not looked at.
        _berkeley("facades", "400 pairs: A photographs of facades, B their parts; 30 MB", Paired),
        _berkeley("maps", "1,096 pairs: A photographs from the air, B maps; 250 MB", Paired, 600),
        _berkeley("cityscapes", "2,975 pairs: A photographs of streets, B what is where; 104 MB", Paired),
        _berkeley("edges2shoes", "50,000 pairs: A edges, B photographs of shoes; 2.2 GB", Paired),
        _berkeley("edges2handbags", "137,000 pairs: A edges, B photographs of handbags; 8.6 GB", Paired),
        _berkeley("night2day", "20,000 pairs: one place at two times; 2 GB", Paired),
        # Hashes as tensorflow-datasets has them.
        *(
            _berkeley(name, f"without pairs: {summary} MB", Unpaired, digest=digest)
            for name, summary, digest in (
                (
                    "horse2zebra",
                    "A horses, B zebras; 117",
                    "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
                ),
                (
                    "apple2orange",
                    "A apples, B oranges; 78",
                    "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
                ),
                (
                    "summer2winter_yosemite",
                    "A summer, B winter in Yosemite; 133",
                    "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
                ),
                (
                    "monet2photo",
                    "A paintings by Monet, B photographs; 305",
                    "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
                ),
                (
                    "cezanne2photo",
                    "A paintings by Cezanne, B photographs; 280",
                    "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
                ),
                (
                    "ukiyoe2photo",
                    "A Japanese prints, B photographs; 293",
                    "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
                ),
                (
                    "vangogh2photo",
                    "A paintings by van Gogh, B photographs; 307",
                    "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
                ),
                (
                    "iphone2dslr_flower",
                    "A flowers by telephone, B by camera; 340",
                    "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
                ),
            )
        ),
    )
}
