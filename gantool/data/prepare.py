"""A recipe's `data` block to a store: found, fetched or rendered, decoded once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from gantool.batches import DataSpec
from gantool.data import decode
from gantool.data.fetch import Progress, Remote, download
from gantool.data.folders import FETCHED, Folder, keep, locate
from gantool.data.sources import SOURCES, Picture, Source
from gantool.data.store import Item, Store, build_store, open_store
from gantool.data.unpack import complete, unpack
from gantool.errors import DataError, NetworkError, unknown
from gantool.metrics import inception
from gantool.recipe import Data

RULE = 1  # raise when decoding's rule or a store's files change: stores are keyed by it
Tell = Callable[[str], None]


def prepare(data: Data, root: Path, *, tell: Tell = lambda _: None, progress: Progress | None = None) -> Store:
    """Give the store that a recipe's `data` block asks for, and make it when it is not there.

    Args:
        data: the block.
        root: the data directory.
        tell: is told in one sentence what is fetched, rendered or decoded.
        progress: is told how far a download is.

    Raises:
        DataError: the source is unknown, damaged, empty or of the wrong kind.
        NetworkError: it has to be downloaded and cannot be; the message says what to use instead.
    """
    source = find(data.source, root, tell, data.folder)
    classes = keep(data.source, source.classes, data.classes)
    if isinstance(source, Source):
        _fetch(source, root, tell, progress)
        mark, channels = source.fingerprint(root), source.channels
        pictures = source.pictures(root, classes)
    else:
        mark, channels = (
            source.fingerprint(classes),
            _majority(source, classes) if data.channels is None else 3,
        )
        pictures = source.pictures(classes)
    spec = DataSpec(data.channels or channels, data.height, data.width, classes)
    settings = {"rule": RULE, "content": mark, "shape": spec.shape, "classes": classes}
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    path = root / "stores" / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', Path(data.source).stem)[:24]}-{key}"
    store = open_store(path)
    if store is None:
        verb = "rendering" if data.source == "eggs" else "decoding"
        tell(f"{verb} {data.source} at {data.height}x{data.width}, once")
        store = build_store(path, _items(pictures, spec), spec, {"source": data.source, "settings": settings})
        if store.skipped:
            name, reason = store.skipped[0]
            tell(f"{len(store.skipped)} files skipped, such as {name} ({reason}); all in {path / 'about.json'}")
    return store


def describe(data: Data, root: Path) -> DataSpec:
    """Say what a recipe's data are like without making them; a folder that is not there counts as colour."""
    try:
        source: Source | Folder | None = find(data.source, root, lambda _: None, data.folder)
    except DataError:
        source = None
    classes = keep(data.source, source.classes, data.classes) if source else tuple(data.classes or ["image"])
    native = source.channels if isinstance(source, Source) else 3
    if data.channels is None and isinstance(source, Folder):
        native = _majority(source, classes)
    return DataSpec(data.channels or native, data.height, data.width, classes)


def fetch(what: str, name: str | None, root: Path, *, tell: Tell, progress: Progress | None = None) -> str:
    """Fetch a source by name, or an archive of images by its address.

    Args:
        what: a source's name, an https address, or `inception` for the weights of Inception-FID.
        name: what `data.source` will call the pictures of an address; without it the archive's own name.
        root: the data directory.
        tell: is told what happens.
        progress: is told how far a download is.

    Returns:
        what `data.source` calls it.
    """
    if what == inception.FOLDER:
        tell(f"fetching {inception.WEIGHTS.name}")
        download(inception.WEIGHTS, root / inception.FOLDER, progress=progress)
        return what
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", what):
        source = find(what, root, tell)
        if isinstance(source, Source):
            if name:
                raise DataError(f"--name {name}: only what is fetched from an address gets a name; leave it out")
            _fetch(source, root, tell, progress)
        return what
    file = unquote(urlsplit(what.replace("[", "%5B").replace("]", "%5D")).path).rpartition("/")[2]
    called = name or re.sub(r"[^A-Za-z0-9_-]", "_", file.partition(".")[0]) or "images"
    if called in SOURCES or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", called):
        raise DataError(f"--name {called}: expected a new name of letters, digits, - and _, other than the sources'")
    target = root / FETCHED / called
    if complete(target):
        tell(f"{called} is already here, in {target}")
        return called
    archive = download(Remote(file or "images.zip", (what,)), root / "downloads" / called, progress=progress)
    tell(f"unpacking {archive.name}")
    unpack(archive, target)
    return called


def available(root: Path) -> list[tuple[str, bool, str]]:
    """List what can be trained on: name, whether it is here, and what it is; fetched archives last."""
    rows = [(name, source.here(root), source.summary) for name, source in SOURCES.items()]
    fetched = sorted(path.name for path in (root / FETCHED).glob("*") if complete(path))
    return rows + [(name, True, f"fetched pictures, in {root / FETCHED / name}") for name in fetched]


def find(name: str, root: Path, tell: Tell, folder: str | None = None) -> Source | Folder:
    """Give what `data.source` stands for.

    Raises:
        DataError: nothing of that name is known or there.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        raise DataError(f"data.source: {name} is an address; fetch it first: gantool data fetch '{name}' --name food")
    if name in SOURCES:
        if folder:
            raise DataError(f"{name}: has no folders to look in; leave out data.folder={folder}")
        return SOURCES[name]
    path = locate(name, root, tell)
    if path is None:
        looks_like_path = "/" in name or "\\" in name or "." in name
        what = "no such file or folder" if looks_like_path else unknown("source", name, SOURCES)
        raise DataError(f"data.source: {name + ': ' if looks_like_path else ''}{what}; see: gantool data list")
    return Folder(path, folder)


def _fetch(source: Source, root: Path, tell: Tell, progress: Progress | None) -> None:
    if source.here(root):
        return
    tell(f"fetching {source.name} ({source.summary})")
    try:
        source.fetch(root, progress)
    except NetworkError as error:
        instead = "--set data.source=digits, eggs, or a folder of your own images"
        raise NetworkError(f"{error}; without a network use {instead}") from None


def _items(pictures: Iterator[Picture], spec: DataSpec) -> Iterator[Item]:
    labels = {name: label for label, name in enumerate(spec.classes)}
    wanted: dict[str, Any] = {"channels": spec.channels, "height": spec.height, "width": spec.width}
    for picture in pictures:
        try:
            if isinstance(picture.content, Path):
                image = decode.decode(picture.content, **wanted)
            else:
                image = decode.convert(Image.fromarray(picture.content), **wanted)
        except decode.Unreadable as error:
            yield Item(picture.name, labels[picture.class_name], str(error))
        else:
            yield Item(picture.name, labels[picture.class_name], image)


def _majority(folder: Folder, classes: Sequence[str]) -> int:
    """Tell by up to 100 files, spread over the folder, whether most pictures are colour."""
    files = [picture.content for picture in folder.pictures(classes) if isinstance(picture.content, Path)]
    found = []
    for file in files[:: max(1, len(files) // 100)]:
        try:
            found.append(decode.native(file)[0])
        except decode.Unreadable:
            continue
    return 1 if found and found.count(1) > len(found) / 2 else 3
