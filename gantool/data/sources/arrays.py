"""Images in arrays: the idx files of MNIST, and the npy and npz files of NumPy, compressed or not.

The content of a file decides what it is. The name of an array says whether it holds labels, and which split it belongs
to: `train-images-idx3-ubyte.gz`, `train_images` and `x_train` are images of the split `train`, and `y_train` has their
labels. Pixels are read a block at a time, and no file is unpickled.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Batch, Labeled
from gantool.data.archive import ANY_RATIO, MAX_RATIO
from gantool.data.decode import LARGEST
from gantool.data.sources.images import ImageSource, SourceImage
from gantool.errors import DataError
from gantool.terminal import printable

logger = logging.getLogger(__name__)

BLOCK = 1 << 22  # bytes of pixels that are read at once
GZIP = b"\x1f\x8b"
_NUMPY = b"\x93NUMPY"
_IDX = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # idx's third byte, and NumPy's name of the type
_FOR_LABELS = {"labels", "label", "y", "targets", "target", "classes"}
_FOR_IMAGES = {"images", "image", "imgs", "img", "x", "data", "ubyte", "idx1", "idx3", "idx4"}
_TRAIN = ("train", "training")
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError)
_Labels = tuple[tuple[str, ...], list[str]]
_TO_FOLDER = "save each image as a PNG, in a folder for each class"


class Stored(NamedTuple):
    """An array in a file, of which only the header was read.

    Args:
        file: that holds it.
        name: for messages.
        split: what its name says besides "images" or "labels", such as `train`; may be empty.
        labels: whether it is called like labels.
        dtype: of its values.
        shape: of the array.
        opened: opens its values.
    """

    file: Path
    name: str
    split: str
    labels: bool
    dtype: np.dtype
    shape: tuple[int, ...]
    opened: Callable[[], contextlib.AbstractContextManager[IO[bytes]]]

    @property
    def is_images(self) -> bool:
        """Whether its shape is one of images, [N, H, W] or [N, H, W, C]."""
        return not self.labels and len(self.shape) in (3, 4)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield its rows, some at a time. Raise DataError if there are fewer or more than its header says."""
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        count = max(1, BLOCK // max(1, row))
        with _explained(self.file), self.opened() as file:
            for start in range(0, self.shape[0], count):
                rows = min(count, self.shape[0] - start)
                values = file.read(rows * row)
                if len(values) < rows * row:
                    raise EOFError("it is cut short")
                yield np.frombuffer(values, self.dtype).reshape(rows, *self.shape[1:])
            if file.read(1):
                raise ValueError("it is longer than its header says")


def find(file: Path) -> list[Stored]:
    """Return the arrays in a file; none if it is not a file of arrays.

    Raises:
        DataError: it is one, but damaged, or it holds Python objects.
    """
    with _explained(file):
        if not file.is_file():
            return []
        with file.open("rb") as opened:
            head = opened.read(4)
        if not head.startswith(b"PK"):
            found = _stored(file, file.name.removesuffix(".gz"), lambda: _plain(file, head))
            return [found] if found else []
        if file.suffix.lower() != ".npz":
            return []
        with zipfile.ZipFile(file) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
        rows = [_stored(file, name, lambda name=name: _member(file, name)) for name in members]  # type: ignore[misc]
        return [row for row in rows if row]


def find_beside(file: Path) -> list[Stored]:
    """Return the arrays of a file, and of files beside it those that are called like labels of the same split."""
    found = find(file)
    splits = {array.split for array in found if array.is_images}
    if not splits or any(array.labels for array in found):
        return found
    others = (other for other in sorted(file.parent.iterdir()) if other != file and _is_labels(_stem(other.name)))
    return found + [array for other in others for array in find(other) if array.labels and array.split in splits]


@contextlib.contextmanager
def _plain(file: Path, head: bytes) -> Iterator[IO[bytes]]:
    with gzip.open(file) if head.startswith(GZIP) else file.open("rb") as opened:
        yield opened  # type: ignore[misc]


@contextlib.contextmanager
def _member(file: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive, archive.open(name) as opened:
        yield opened


def _stored(file: Path, name: str, opened: Callable[[], contextlib.AbstractContextManager[IO[bytes]]]) -> Stored | None:
    """Return the array whose header begins a stream, or None if there is no such header."""
    with opened() as stream:
        header = _header(stream)
        if header is None:
            return None
        dtype, shape = header
        start = stream.tell()

    @contextlib.contextmanager
    def values() -> Iterator[IO[bytes]]:
        with opened() as again:
            again.seek(start)
            yield again

    packed = file.suffix.lower() == ".npz"
    shown = printable(f"{file.name}: {name.removesuffix('.npy')}" if packed else file.name)
    if dtype.hasobject:
        raise DataError(f"{file.parent / shown}: holds Python objects, which are never unpickled; {_TO_FOLDER}")
    if any(side < 0 for side in shape):
        raise ValueError("its header has a size below zero")
    size = math.prod(shape) * dtype.itemsize
    if size > max(ANY_RATIO, MAX_RATIO * file.stat().st_size):
        raise ValueError(f"its header promises {size:,} bytes")
    stem = _stem(name)
    # `images` in faces.npz belongs to `faces`, as faces.npy does.
    split = _split(stem) or (_split(file.stem) if packed else "")
    labels = _is_labels(stem) or (packed and stem == "arr_0" and _is_labels(file.stem))
    return Stored(file, shown, split, labels, dtype, shape, values)


def _header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...]] | None:
    """Read the header of an array. Return the type and the shape, or None if it is of no known format."""
    head = file.read(4)
    if len(head) == 4 and head[:2] == b"\0\0" and head[2] in _IDX and 1 <= head[3] <= 4:
        sides = file.read(4 * head[3])
        if len(sides) < 4 * head[3]:
            raise EOFError("it is cut short")
        return np.dtype(_IDX[head[2]]), tuple(np.frombuffer(sides, ">u4").tolist())
    if head != _NUMPY[:4] or file.read(2) != _NUMPY[4:]:
        return None
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, dtype = read(file)
    except Exception as error:  # the header is a text in Python's syntax, and NumPy raises what its parser does
        raise ValueError("its header is damaged") from error
    if by_columns and len(shape) > 1:
        raise ValueError("its values are in Fortran's order; save np.ascontiguousarray of it")
    return dtype, shape


def _stem(name: str) -> str:
    return re.sub(r"(\.npy|\.npz|\.gz)+$", "", name, flags=re.IGNORECASE)


def _words(stem: str) -> list[str]:
    return [] if stem == "arr_0" else [word for word in re.split(r"[^a-z0-9]+", stem.lower()) if word]


def _is_labels(stem: str) -> bool:
    return not _FOR_LABELS.isdisjoint(_words(stem))


def _split(stem: str) -> str:
    return "-".join(word for word in _words(stem) if word not in _FOR_LABELS | _FOR_IMAGES)


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into a DataError."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{file}: cannot be read as an array ({reason}); make or copy it again") from None


class Arrays(ImageSource):
    """Images in an array, whose labels are in another.

    Args:
        path: the folder or file, for messages.
        found: the arrays in it.
        split: use this one, such as `t10k`; None takes the only one, or that for training.
        names: the classes of published labels, by the SHA-256 of their file before it was compressed.

    Attributes:
        problems: arrays that are not used, each with the reason.

    Raises:
        DataError: it is not clear which array is meant, or its shape, type or labels do not fit.
    """

    kind: type[Batch] = Labeled
    problems: list[tuple[str, str]]

    def __init__(
        self,
        path: Path,
        found: Sequence[Stored],
        split: str | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.path, self.problems = path, []
        self.images = self._choose(_without_copies(found, self.problems), split)
        self._check_shape()
        self.classes, self.labels = self._read_labels(found, names or {})

    def _choose(self, found: Sequence[Stored], split: str | None) -> Stored:
        """Return the array of images of a split; all others are problems."""
        images = [array for array in found if array.is_images]
        if not images:
            held = ", ".join(f"{array.name} {list(array.shape)} {array.dtype}" for array in found)
            raise DataError(
                f"{self.path}: no array of images in it ({held}); images are [N, H, W] or [N, H, W, C]; {_TO_FOLDER}"
            )
        splits = [array.split for array in images]
        if split is not None:
            chosen = [array for array in images if array.split == split]
        else:
            chosen = images if len(images) == 1 else [array for array in images if array.split in ("", *_TRAIN)]
        if len(chosen) != 1:
            known = ", ".join(f"{array.name} ({array.split or '.'})" for array in images)
            one = next((name for name in splits if name), "train")
            raise DataError(f"{self.path}: holds {known}; choose one with data.folder={one}, or name its file")
        for array in found:
            if array.is_images and array is not chosen[0]:
                self.problems.append((array.name, f"images of another split; data.folder={array.split} uses them"))
            elif not array.is_images and not array.labels:
                self.problems.append((array.name, f"{list(array.shape)} {array.dtype}, neither images nor labels"))
        return chosen[0]

    @property
    def _shown(self) -> Path:
        return self.images.file.parent / self.images.name

    def _check_shape(self) -> None:
        shape, dtype = list(self.images.shape), self.images.dtype
        place = f"{self._shown}: {shape} {dtype}"
        if len(shape) == 4 and shape[3] not in (1, 3):
            mend = "array.transpose(0, 2, 3, 1)" if shape[1] in (1, 3) else "1 channel for grey, or 3 for colour"
            raise DataError(f"{place} is not [N, H, W, C] with C 1 or 3; save it again: {mend}")
        if len(shape) == 3 and shape[2] in (1, 3):
            raise DataError(f"{place} is one image, not [N, H, W]; {_TO_FOLDER}")
        if not all(shape) or math.prod(shape[1:]) > LARGEST:
            raise DataError(f"{place} is empty, or its images have over 64 megapixels; choose another array")
        if dtype != np.uint8 and dtype.kind != "f":
            mend = "array.astype(np.uint8) * 255" if dtype.kind == "b" else "array.astype(np.uint8), if they fit"
            raise DataError(f"{place} is neither uint8 nor float; scale the values to 0 to 255 and save {mend}")

    def _read_labels(self, found: Sequence[Stored], names: Mapping[str, Sequence[str]]) -> _Labels:
        """Return the classes, and the class of each image."""
        labels = [array for array in found if array.labels]
        own = [array for array in labels if array.split == self.images.split]
        if not own and len(labels) == 1 == sum(array.is_images for array in found):
            own = labels
        if not own:
            only = printable(self.path.name.partition(".")[0]) or "image"
            return (only,), [only] * self.images.shape[0]
        array = own[0]
        place = f"{array.file.parent / array.name}: {list(array.shape)} {array.dtype}"
        if array.shape[1:] not in ((), (1,)) or not array.shape or array.dtype.kind not in "iuUSb":
            mend = "np.argmax(labels, 1)" if len(array.shape) == 2 else "the number or the name of each image's class"
            raise DataError(f"{place} are no labels; save {mend}")
        if array.shape[0] != self.images.shape[0]:
            raise DataError(
                f"{place} are {array.shape[0]:,} labels for the {self.images.shape[0]:,} images of {self.images.name}; "
                "give each image one"
            )
        values = np.concatenate([block.ravel() for block in array.blocks()])
        known = names.get(_idx_hash(values), ()) if array.dtype == np.uint8 else ()
        if array.dtype.kind == "S":
            values = np.char.decode(values, "utf-8", "replace")
        found_values, places = np.unique(values, return_inverse=True)
        classes = tuple(printable(known[value] if known else str(value)) for value in found_values.tolist())
        return classes, [classes[place] for place in places.tolist()]

    @cached_property
    def _range(self) -> tuple[float, float]:
        """The values that mean black and white. Raise DataError if those of floats are in neither known range."""
        if self.images.dtype == np.uint8:
            return 0.0, 255.0
        ends = [(float(block.min()), float(block.max())) for block in self.images.blocks()]
        low, high = (float(end) for end in (np.min([low for low, _ in ends]), np.max([high for _, high in ends])))
        # Written so that NaN fails too.
        if not (low >= -1 and high <= 1):
            raise DataError(
                f"{self._shown}: has values from {low:g} to {high:g}; floats have to be from 0 to 1 "
                "or from -1 to 1, so scale them, or save array.round().astype(np.uint8) if they are from 0 to 255"
            )
        logger.info(f"{self.images.name}: values from {-1 if low < 0 else 0} to 1 become 0 to 255")
        return (-1.0 if low < 0 else 0.0), 1.0

    def native_channels(self, classes: Sequence[str]) -> int:
        """Return the channels."""
        return 3 if len(self.images.shape) == 4 and self.images.shape[3] == 3 else 1

    def class_names(self, root: Path, classes: Sequence[str]) -> list[str]:
        """Return the class of each image, without reading the images."""
        wanted = set(classes)
        return [name for name in self.labels if name in wanted]

    def items(self, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Yield the images of these classes, in the order of the array."""
        black, white = self._range
        wanted, names = set(classes), enumerate(self.labels)
        for block in self.images.blocks():
            for image in block[..., 0] if block.shape[3:] == (1,) else block:
                index, name = next(names)
                if name not in wanted:
                    continue
                pixels = image
                if image.dtype != np.uint8:
                    pixels = ((image - black) * (255 / (white - black)) + 0.5).astype(np.uint8)
                yield SourceImage(str(index), name, pixels)

    def fingerprint(self, root: Path, classes: Sequence[str]) -> str:
        """Return a digest of the place, size and time of the files, and of the labels."""
        mark = hashlib.sha256(os.fsencode(self.images.file.resolve()))
        status = self.images.file.stat()
        mark.update(f"\0{self.images.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        mark.update("\n".join(self.labels).encode())
        return f"arrays-{mark.hexdigest()}"


def _without_copies(found: Sequence[Stored], problems: list[tuple[str, str]]) -> list[Stored]:
    """Leave out files that are beside themselves uncompressed."""
    names = {array.name for array in found}
    kept = []
    for array in found:
        if array.name.endswith(".gz") and array.name.removesuffix(".gz") in names:
            problems.append((array.name, f"{array.name.removesuffix('.gz')} is beside it"))
        else:
            kept.append(array)
    return kept


def _idx_hash(labels: NDArray[Any]) -> str:
    """Return the SHA-256 of the idx file of these labels."""
    return hashlib.sha256(b"\0\0\x08\x01" + len(labels).to_bytes(4, "big") + labels.tobytes()).hexdigest()
