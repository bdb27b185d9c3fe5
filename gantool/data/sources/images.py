"""Images on their way from a source to the store, decoded once."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gantool.batches import Batch, ImageSpec, Paired
from gantool.data import decode
from gantool.data.part import choose
from gantool.data.sources.base import Source
from gantool.data.store import Item, Store, build_store, open_store
from gantool.data.survey import Findings, Survey
from gantool.errors import MAX_LISTED, DataError, command_line, unknown
from gantool.recipe.blocks import Data
from gantool.terminal import several

logger = logging.getLogger(__name__)

DECODING_VERSION = 2  # raise when decoding's rule or a store's files change: stores are keyed by it
NEARLY_BLACK = 64  # of 255; images whose brightest value is below it were not scaled to their range
SIDES = ("A", "B")  # names of the left and the right half of an image that holds two


class SourceImage(NamedTuple):
    """An image as its source has it.

    Args:
        name: for messages.
        class_name: the class that it belongs to.
        content: pixels, uint8 [H, W] or [H, W, 3], a function that makes them or raises `Unreadable`, the file that
            holds them or its content, or the reason why it cannot be read.
    """

    name: str
    class_name: str
    content: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]] | Path | bytes | str


class ImageSource(Source):
    """A source of images.

    Attributes:
        problems: files that are left out before any is decoded, each with the reason.
        is_own: whether the images are a user's, so that what is odd about them is worth a line.
    """

    problems: Sequence[tuple[str, str]] = ()
    is_own = True

    @abstractmethod
    def native_channels(self, classes: Sequence[str]) -> int:
        """Return 1 if most images of these classes are grey, 3 if they have colours."""

    @abstractmethod
    def fingerprint(self, root: Path, classes: Sequence[str]) -> str:
        """Return a text that changes with the content, because other content means another store."""

    @abstractmethod
    def items(self, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Yield the training images of these classes; those of a pair one after the other, under the same name."""

    def class_names(self, root: Path, classes: Sequence[str]) -> list[str]:
        """Return the class of each image that `items` yields."""
        return [item.class_name for item in self.items(root, classes)]

    def describe(self, data: Data) -> ImageSpec:
        """Return channels, size and classes of the decoded images."""
        classes = keep(data.source, self.classes, data.classes)
        return ImageSpec(data.channels or self.native_channels(classes), data.height, data.width, classes)

    def load(self, data: Data, root: Path, kind: type[Batch]) -> Store:
        """Return the decoded images. In a store of pairs, the source of a pair has an even row, its target the next."""
        spec = self.describe(data)
        content = self.fingerprint(root, spec.classes)
        settings = {"rule": DECODING_VERSION, "content": content, "shape": spec.shape, "classes": spec.classes}
        if kind is Paired:
            settings["pairs"] = True
        if data.limit:
            settings["limit"] = data.limit
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        path = root / "stores" / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', Path(data.source).stem)[:24]}-{key}"
        if (store := open_store(path)) is not None:
            return store
        for name, reason in self.problems[:MAX_LISTED]:
            logger.info(f"{name}: {reason}")
        if len(self.problems) > MAX_LISTED:
            logger.info(f"and {len(self.problems) - MAX_LISTED} more such")
        verb = "rendering" if self.rendered else "decoding"
        logger.info(f"{verb} {data.source} at {data.height}x{data.width}, once")
        images = self.items(root, spec.classes)
        about: dict[str, Any] = {"source": data.source, "settings": settings}
        if data.limit:
            chosen = choose(self.class_names(root, spec.classes), data.limit, 2 if kind is Paired else 1)
            images = compress(images, chosen)
            about |= {} if all(chosen) else {"of": len(chosen)}
        items = _decoded(images, spec)
        survey = Survey() if self.is_own and kind is not Paired else None
        store = build_store(path, _whole_pairs(items) if kind is Paired else items, spec, about, survey)
        _report(store)
        return store


def _report(store: Store) -> None:
    """Log once what is not used of the files of a new store, and what is odd about its images."""
    for verb, rows in (("skipped", store.skipped), ("used in part", store.about["partly"])):
        if rows:
            name, reason = rows[0]
            logger.info(
                f"{several(len(rows), 'file')} {verb}, such as {name} ({reason}); all in {store.path / 'about.json'}"
            )
    brightest = store.about["brightest"]
    if brightest < NEARLY_BLACK:
        logger.warning(
            f"the images are nearly black: their brightest value is {brightest} of 255; scale them first (values of 12 "
            "bits in files of 16 bits: times 16)"
        )
    found = store.about.get("findings")
    if found and (summary := Findings(**found).summary()):
        logger.info(f"found {summary}; see: {command_line('data', 'check', store.about['source'])}")


def keep(source: str, known: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes that a run keeps, in the order in which the recipe names them.

    Raises:
        DataError: a wanted class does not exist, or is named twice.
    """
    for name in wanted or ():
        if name not in known:
            raise DataError(
                f"{source}: " + unknown("class", name, known) + "; data.classes names the ones to keep, null keeps all"
            )
    if wanted and len(set(wanted)) < len(wanted):
        raise DataError(f"{source}: data.classes names a class twice: {', '.join(wanted)}")
    return tuple(wanted or known)


def two_classes(source: str, known: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes that `keep` returns. Raise DataError unless they are two, to translate between."""
    classes = keep(source, known, wanted)
    if len(classes) != 2:
        count = "1 kind" if len(classes) == 1 else f"{len(classes)} kinds"
        found = f"{count} ({', '.join(classes[:MAX_LISTED])}{', ...' if len(classes) > MAX_LISTED else ''})"
        raise DataError(f"{source}: has {found}, but a translation is between two; choose with data.classes=[A, B]")
    return classes


def side_by_side(name: str, file: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
    """Yield the halves of a file, decoded once they are needed, in the order of `classes`, which are some of SIDES."""
    both = cache(lambda: decode.halves(file))
    for class_name in classes:
        yield SourceImage(name, class_name, partial(lambda side: both()[side], SIDES.index(class_name)))


def _decoded(images: Iterator[SourceImage], spec: ImageSpec) -> Iterator[Item]:
    labels = {name: label for label, name in enumerate(spec.classes)}
    shape: dict[str, Any] = {"channels": spec.channels, "height": spec.height, "width": spec.width}
    for name, class_name, content in images:
        image: NDArray[np.uint8] | str
        unused, mark = "", b""
        try:
            if isinstance(content, Path | bytes):
                image, unused = decode.decode(content, **shape), decode.unused(content)
                mark = decode.digest(content)
            elif isinstance(content, str):
                image = content
            else:
                pixels = content() if callable(content) else content
                image = decode.convert(Image.fromarray(pixels), **shape)
                mark = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
        except decode.Unreadable as error:
            image = error.reason
        except OSError as error:  # the file has vanished in the meantime
            image = (error.strerror or "cannot be read").lower()
        yield Item(name, labels[class_name], image, unused, mark)


def _whole_pairs(items: Iterator[Item]) -> Iterator[Item]:
    """Yield source and target of each pair in turn; if one could not be read, yield that one only."""
    for pair in zip(items, items, strict=True):
        broken = [item for item in pair if isinstance(item.image, str)]
        yield from broken[:1] or pair
