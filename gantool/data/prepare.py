"""A recipe's `data` block to a store: found, fetched or rendered, decoded once."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from gantool.batches import Batch, ImageSpec, Labeled, Paired, Spec, TableBatch, Unpaired
from gantool.data import decode
from gantool.data.archive import complete, unpack
from gantool.data.download import Progress, Remote, download
from gantool.data.loader import Dataset
from gantool.data.sources.catalog import INCEPTION_FOLDER, INCEPTION_WEIGHTS, SOURCES, Source
from gantool.data.sources.folders import FETCHED, Folder, keep, locate
from gantool.data.sources.images import SourceImage
from gantool.data.sources.pairs import Pairs
from gantool.data.sources.tables import TABLES, TableSource, load
from gantool.data.store import Item, build_store, open_store
from gantool.errors import DataError, NetworkError, unknown
from gantool.recipe.blocks import Data

logger = logging.getLogger(__name__)

DECODING_VERSION = 1  # raise when decoding's rule or a store's files change: stores are keyed by it
MAX_LISTED = 20  # images without a partner that are named one by one
AnySource = Source | Folder | Pairs | TableSource
_HOLDS = {
    Labeled: "images with their class",
    Paired: "pairs of images",
    Unpaired: "two kinds of images",
    TableBatch: "a table",
}


def prepare(
    data: Data,
    root: Path,
    kind: type[Batch] = Labeled,
    *,
    progress: Progress | None = None,
) -> Dataset:
    """Return the data that a recipe's `data` block asks for; images are decoded unless they were before.

    Args:
        data: the block.
        root: the data directory.
        kind: of the batches that it is for. Of `Paired`, the source of each pair has an even row, and its target the
            next one.
        progress: is told how far a download is.

    Raises:
        DataError: the source is unknown, damaged, empty or of the wrong kind.
        NetworkError: it has to be downloaded and cannot be; the message says what to use instead.
    """
    source = find_source(data, root, kind)
    if isinstance(source, TableSource):
        _fetch(source, root, progress)
        return load(source.name, root, data.held_out)
    classes = keep(data.source, source.classes, data.classes)
    if isinstance(source, Source):
        _fetch(source, root, progress)
        mark, channels = source.fingerprint(root), source.channels
        images = source.images(root, classes)
    else:
        mark, channels = (
            source.fingerprint(classes),
            _majority(source, classes) if data.channels is None else 3,
        )
        images = source.images(classes)
    spec = ImageSpec(data.channels or channels, data.height, data.width, classes)
    settings: dict[str, Any] = {"rule": DECODING_VERSION, "content": mark, "shape": spec.shape, "classes": classes}
    if kind is Paired:
        settings["pairs"] = True
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    path = root / "stores" / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', Path(data.source).stem)[:24]}-{key}"
    problems = source.problems if isinstance(source, Pairs) else []
    store = open_store(path)
    if store is None:
        verb = "rendering" if isinstance(source, Source) and source.rendered else "decoding"
        _list(problems)
        logger.info(f"{verb} {data.source} at {data.height}x{data.width}, once")
        items = _items(images, spec)
        about = {"source": data.source, "settings": settings}
        store = build_store(path, _whole(items) if kind is Paired else items, spec, about)
        if store.skipped:
            name, reason = store.skipped[0]
            count = "1 file" if len(store.skipped) == 1 else f"{len(store.skipped)} files"
            logger.info(f"{count} skipped, such as {name} ({reason}); all in {path / 'about.json'}")
    return store


def describe(data: Data, root: Path, kind: type[Batch] = Labeled) -> Spec:
    """Return the specification of a recipe's data without preparing them; a missing folder counts as colour."""
    if kind is TableBatch or data.source in SOURCES or data.source in TABLES:
        source: AnySource | None = find_source(data, root, kind)
    else:
        try:
            source = find_source(data, root, kind)
        except DataError:
            source = None
    if isinstance(source, TableSource):
        return source.spec
    two = ["A", "B"] if kind in (Paired, Unpaired) else ["image"]
    classes = keep(data.source, source.classes, data.classes) if source else tuple(data.classes or two)
    native = source.channels if isinstance(source, Source) else 3
    if data.channels is None and isinstance(source, Folder | Pairs):
        native = _majority(source, classes)
    return ImageSpec(data.channels or native, data.height, data.width, classes)


def fetch(what: str, name: str | None, root: Path, *, progress: Progress | None = None) -> str:
    """Fetch a source by name, or an archive of images by its address.

    Args:
        what: a source's name, an https address, or `inception` for the weights of Inception-FID.
        name: what `data.source` will call the images of an address; without it the archive's own name.
        root: the data directory.
        progress: is told how far a download is.

    Returns:
        what `data.source` calls it.
    """
    if what == INCEPTION_FOLDER:
        logger.info(f"fetching {INCEPTION_WEIGHTS.name}")
        download(INCEPTION_WEIGHTS, root / INCEPTION_FOLDER, progress=progress)
        return what
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", what):
        kind = TableBatch if what in TABLES else SOURCES[what].kind if what in SOURCES else Labeled
        source = find_source(Data(source=what), root, kind)
        if isinstance(source, Source | TableSource):
            if name:
                raise DataError(f"--name {name}: only what is fetched from an address gets a name; leave it out")
            _fetch(source, root, progress)
        return what
    file = unquote(urlsplit(what.replace("[", "%5B").replace("]", "%5D")).path).rpartition("/")[2]
    called = name or re.sub(r"[^A-Za-z0-9_-]", "_", file.partition(".")[0]) or "images"
    if called in SOURCES or called in TABLES or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", called):
        raise DataError(f"--name {called}: expected a new name of letters, digits, - and _, other than the sources'")
    target = root / FETCHED / called
    if complete(target):
        logger.info(f"{called} is already here, in {target}")
        return called
    archive = download(Remote(file or "images.zip", (what,)), root / "downloads" / called, progress=progress)
    logger.info(f"unpacking {archive.name}")
    unpack(archive, target)
    return called


def available(root: Path) -> list[tuple[str, bool, str]]:
    """List what can be trained on: name, whether it is here, and what it is; fetched archives last."""
    known: list[Source | TableSource] = [*SOURCES.values(), *TABLES.values()]
    rows = [(source.name, source.here(root), source.summary) for source in known]
    fetched = sorted(path.name for path in (root / FETCHED).glob("*") if complete(path))
    return rows + [(name, True, f"fetched images, in {root / FETCHED / name}") for name in fetched]


def find_source(data: Data, root: Path, kind: type[Batch] = Labeled) -> AnySource:
    """Return what `data.source` stands for.

    Raises:
        DataError: nothing of that name is known or there, or it is not what a model learns from that consumes `kind`.
    """
    name = data.source
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        raise DataError(f"data.source: {name} is an address; fetch it first: gantool data fetch '{name}' --name food")
    if name in SOURCES or name in TABLES:
        source = SOURCES.get(name) or TABLES[name]
        if data.folder:
            raise DataError(f"{name}: has no folders to look in; leave out data.folder={data.folder}")
        _check_kind(source, kind)
        if isinstance(source, Source) and kind in (Paired, Unpaired):
            _check_class_count(name, keep(name, source.classes, data.classes))
        return source
    if kind is TableBatch:
        raise DataError(f"data.source: {unknown('table', name, TABLES)}; see: gantool data list")
    path = locate(name, root)
    if path is None:
        looks_like_path = "/" in name or "\\" in name or "." in name
        what = "no such file or folder" if looks_like_path else unknown("source", name, [*SOURCES, *TABLES])
        raise DataError(f"data.source: {name + ': ' if looks_like_path else ''}{what}; see: gantool data list")
    if kind is Paired:
        return Pairs(path, data.folder, data.classes)
    folder = Folder(path, data.folder)
    if kind is Unpaired:
        _check_class_count(name, keep(name, folder.classes, data.classes))
    return folder


def _check_kind(source: Source | TableSource, kind: type[Batch]) -> None:
    """Raise where a source does not hold what a model learns from."""
    own = TableBatch if isinstance(source, TableSource) else source.kind
    if own is kind or (own in (Paired, Unpaired) and kind in (Labeled, Unpaired)) or (own, kind) == (Labeled, Unpaired):
        return
    fitting = [
        *(name for name, other in SOURCES.items() if other.kind is kind),
        *(name for name in TABLES if kind is TableBatch),
    ]
    raise DataError(
        f"data.source: {source.name} holds {_HOLDS[own]}, but this model learns from {_HOLDS[kind]}; such are: "
        + ", ".join(fitting)
    )


def _check_class_count(name: str, classes: Sequence[str]) -> None:
    """Raise where there are not two kinds of images to translate between."""
    if len(classes) != 2:
        count = "1 kind" if len(classes) == 1 else f"{len(classes)} kinds"
        found = f"{count} ({', '.join(classes[:6])}{', ...' if len(classes) > 6 else ''})"
        raise DataError(f"{name}: has {found}, but a translation is between two; choose with data.classes=[A, B]")


def _list(problems: Sequence[tuple[str, str]]) -> None:
    """Log the images of a folder that have no partner, or an unequal one."""
    for name, reason in problems[:MAX_LISTED]:
        logger.info(f"{name}: {reason}")
    if len(problems) > MAX_LISTED:
        logger.info(f"and {len(problems) - MAX_LISTED} more such")


def _fetch(source: Source | TableSource, root: Path, progress: Progress | None) -> None:
    if source.here(root):
        return
    logger.info(f"fetching {source.name} ({source.summary})")
    try:
        source.fetch(root, progress)
    except NetworkError as error:
        instead = "--set data.source=digits, eggs, or a folder of your own images"
        if isinstance(source, TableSource):
            instead = "--set data.source=income"
        elif source.kind in (Paired, Unpaired):
            embedded = ", ".join(
                name for name, other in SOURCES.items() if other.kind is source.kind and not other.remotes
            )
            instead = f"--set data.source={embedded} (with data.classes=null), or a folder of your own images"
        raise NetworkError(f"{error}; without a network use {instead}") from None


def _whole(items: Iterator[Item]) -> Iterator[Item]:
    """Return pairs, source and target in turn, only where both could be read."""
    for source in items:
        target = next(items)
        if isinstance(source.image, str) or isinstance(target.image, str):
            yield source if isinstance(source.image, str) else target
        else:
            yield source
            yield target


def _items(samples: Iterator[SourceImage], spec: ImageSpec) -> Iterator[Item]:
    labels = {name: label for label, name in enumerate(spec.classes)}
    wanted: dict[str, Any] = {"channels": spec.channels, "height": spec.height, "width": spec.width}
    for entry in samples:
        try:
            if isinstance(entry.content, Path):
                image = decode.decode(entry.content, **wanted)
            else:
                image = decode.convert(Image.fromarray(entry.content), **wanted)
        except decode.Unreadable as error:
            yield Item(entry.name, labels[entry.class_name], str(error))
        else:
            yield Item(entry.name, labels[entry.class_name], image)


def _majority(folder: Folder | Pairs, classes: Sequence[str]) -> int:
    """Return whether most images are colour, from up to 100 files spread over the folder."""
    files = [file for name in classes for file in folder.files.get(name, ())]
    found = []
    for file in files[:: max(1, len(files) // 100)]:
        try:
            found.append(decode.native(file)[0])
        except decode.Unreadable:
            continue
    return 1 if found and found.count(1) > len(found) / 2 else 3
