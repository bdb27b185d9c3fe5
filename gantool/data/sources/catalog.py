"""Every dataset with a name: a row each, and the functions that read them. Addresses are in downloads.csv."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gantool.batches import Batch, Labeled, Paired, Unpaired
from gantool.data.archive import MARK
from gantool.data.download import sha256
from gantool.data.sources import eggs, translations
from gantool.data.sources.arrays import Arrays, find
from gantool.data.sources.base import DOWNLOADS, UNPACKED, NamedSource
from gantool.data.sources.images import SIDES, ImageSource, SourceImage
from gantool.data.sources.tables import TABLES
from gantool.data.sources.translations import real_data
from gantool.errors import DataError

logger = logging.getLogger(__name__)

((INCEPTION_FOLDER, INCEPTION_WEIGHTS),) = DOWNLOADS["inception"]
INCEPTION_HASH = INCEPTION_WEIGHTS.sha256 or ""
Read = Callable[[Path, Sequence[str]], Iterator[SourceImage]]


@dataclass(frozen=True, kw_only=True)
class NamedImages(NamedSource, ImageSource):
    """Images with a name.

    Args:
        channels: 1 grey, 3 colour.
        read: yields the training images of some classes, from the data directory; see `ImageSource.items`.
        version: changes with the images that `read` yields.
    """

    channels: int = 3
    read: Read
    version: str = "1"
    is_own: bool = False

    def native_channels(self, classes: Sequence[str]) -> int:
        """Return the channels."""
        return self.channels

    def items(self, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Yield the training images of these classes."""
        return self.read(root, classes)

    def fingerprint(self, root: Path, classes: Sequence[str]) -> str:
        """Return the name, the version and the hashes of the needed files."""
        return "|".join([self.name, self.version, *(f"{need}:{sha256(root / need)}" for need in self.needs)])


def _eggs(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    for name in classes:
        for index in range(eggs.COUNT):
            yield SourceImage(f"{name}/{index}", name, partial(eggs.render, name, index))


def _digits(_: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    digits = real_data("digits", "sklearn.datasets", "scikit-learn").load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if str(label) in classes:
            yield SourceImage(str(index), str(label), np.round(image * (255 / 16)).astype(np.uint8))


def _read_mnist(name: str, root: Path, wanted: Sequence[str]) -> Iterator[SourceImage]:
    folder = root / DOWNLOADS[name][0][0]
    files = [folder / remote.name.removesuffix(".gz") for _, remote in DOWNLOADS[name][:2]]
    names = SOURCES[name].classes
    for file in files:
        mark = UNPACKED.get(name, {}).get(f"{file.name}.gz")
        if mark and file.is_file() and sha256(file) != mark:
            logger.warning(f"{file}: is not the published file of {name}; its content is used")
    try:
        arrays = Arrays(folder, [array for file in files for array in find(file)])
        if not set(arrays.labels) <= set(map(str, range(len(names)))):
            raise DataError(f"{folder}: labels up to {max(map(int, arrays.labels))}; ")  # noqa: TRY301
        for index, label, image in arrays.items(root, arrays.classes):
            if names[int(label)] in wanted:
                yield SourceImage(index, names[int(label)], image)
    except DataError as error:
        fault = str(error).rpartition("; ")[0].removeprefix(f"{folder}: ")
        mend = f"delete the files and run: gantool data fetch {name}"
        raise DataError(f"{folder}: not MNIST's file format ({fault}); {mend}") from None


def _mnist_like(name: str, summary: str, classes: str) -> NamedImages:
    """Describe a dataset in MNIST's four IDX files, of which two are for training."""
    files = tuple(f"{folder}/{remote.name.removesuffix('.gz')}" for folder, remote in DOWNLOADS[name][:2])
    return NamedImages(name, summary, tuple(classes.split()), needs=files, channels=1, read=partial(_read_mnist, name))


_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _cifar10(root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    from torchvision.datasets import CIFAR10

    folder = root / "cifar10"
    try:  # torchvision compares every file's MD5 before it reads one
        dataset = CIFAR10(folder / "unpacked", train=True, download=False)
    except (RuntimeError, OSError) as error:
        mend = "delete it and run: gantool data fetch cifar10"
        raise DataError(f"{folder}: damaged ({str(error)[:60]}); {mend}") from None
    for index, (image, label) in enumerate(zip(dataset.data, dataset.targets, strict=True)):
        if _CIFAR[label] in classes:
            yield SourceImage(str(index), _CIFAR[label], image)


def _berkeley(name: str, summary: str, kind: type[Batch]) -> NamedImages:
    """Describe a dataset of the authors of pix2pix or CycleGAN, whose archive has one folder of its name."""
    place = f"pairs/{name}/unpacked"
    read = partial(translations.fetched_pairs if kind is Paired else translations.fetched_kinds, f"{place}/{name}")
    return NamedImages(name, summary, SIDES, kind, (f"{place}/{MARK}",), read=read)


def _rendered(name: str, summary: str, classes: Sequence[str], kind: type[Batch], read: Read) -> NamedImages:
    version = f"{eggs.VERSION}-{eggs.COUNT}" if name == "eggs" else f"{eggs.VERSION}"
    summary = f"{summary}; comes with gantool"
    return NamedImages(name, summary, tuple(classes), kind, rendered=True, read=read, version=version)


_FOODS = f"rendered food images, not photographs: {eggs.COUNT} of each class"
_DRAWN = f"{len(translations.EDGES)} pairs: a drawing of a rendered egg, and the egg"
_COLOURED = "300 brown and 300 blue rendered eggs, without pairs"
_SMALL = "1,797 real handwritten digits of 8x8 pixels; comes with scikit-learn (gantool[real])"
_GROUND = "225 crops each of a grey photograph of grass and one of gravel, without pairs; gantool[real]"
_PHOTOS = "255 pairs: a crop of one of four photographs in grey, and in colour; gantool[real]"
_CLOTHES = "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Boot"
_BATCH = "cifar10/unpacked/cifar-10-batches-py/data_batch_1"
_IMAGES = (
    _rendered("eggs", _FOODS, eggs.CLASSES, Labeled, _eggs),
    _rendered("egg_edges", _DRAWN, ("edges", "egg"), Paired, translations.egg_edges),
    _rendered("egg_colours", _COLOURED, tuple(translations.COLOURS), Unpaired, translations.egg_colours),
    NamedImages("digits", _SMALL, tuple("0123456789"), channels=1, read=_digits),
    NamedImages("grass_gravel", _GROUND, ("grass", "gravel"), Unpaired, channels=1, read=translations.grass_gravel),
    NamedImages("photo_colours", _PHOTOS, ("grey", "colour"), Paired, read=translations.photo_colours),
    _mnist_like("mnist", "60,000 handwritten digits; 11 MB", "0 1 2 3 4 5 6 7 8 9"),
    _mnist_like("fashion_mnist", "60,000 images of clothes; 30 MB", _CLOTHES),
    _mnist_like("kmnist", "60,000 handwritten Japanese characters; 21 MB", "o ki su tsu na ha ma ya re wo"),
    NamedImages("cifar10", "50,000 small colour photographs; 170 MB", _CIFAR, needs=(_BATCH,), read=_cifar10),
    # Sizes of the archives, and the number of pairs that train, as their authors list them. No image was looked at.
    _berkeley("facades", "400 pairs: A photographs of facades, B their parts; 30 MB", Paired),
    _berkeley("maps", "1,096 pairs: A photographs from the air, B maps; 250 MB", Paired),
    _berkeley("cityscapes", "2,975 pairs: A photographs of streets, B what is where; 104 MB", Paired),
    _berkeley("edges2shoes", "50,000 pairs: A edges, B photographs of shoes; 2.2 GB", Paired),
    _berkeley("edges2handbags", "137,000 pairs: A edges, B photographs of handbags; 8.6 GB", Paired),
    _berkeley("night2day", "20,000 pairs: one place at two times; 2 GB", Paired),
    # Their hashes are those of tensorflow-datasets.
    _berkeley("horse2zebra", "without pairs: A horses, B zebras; 117 MB", Unpaired),
    _berkeley("apple2orange", "without pairs: A apples, B oranges; 78 MB", Unpaired),
    _berkeley("summer2winter_yosemite", "without pairs: A summer, B winter in Yosemite; 133 MB", Unpaired),
    _berkeley("monet2photo", "without pairs: A paintings by Monet, B photographs; 305 MB", Unpaired),
    _berkeley("cezanne2photo", "without pairs: A paintings by Cezanne, B photographs; 280 MB", Unpaired),
    _berkeley("ukiyoe2photo", "without pairs: A Japanese prints, B photographs; 293 MB", Unpaired),
    _berkeley("vangogh2photo", "without pairs: A paintings by van Gogh, B photographs; 307 MB", Unpaired),
    _berkeley("iphone2dslr_flower", "without pairs: A flowers by telephone, B by camera; 340 MB", Unpaired),
)
SOURCES: dict[str, NamedSource] = {source.name: source for source in (*_IMAGES, *TABLES.values())}
