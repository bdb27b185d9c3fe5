"""From a recipe's `data` block to data that are ready for a model."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gantool.batches import Batch, ImageSpec, Labeled, Paired, Spec, TableBatch, Unpaired
from gantool.data.archive import complete, unpack
from gantool.data.download import Progress, Remote, download
from gantool.data.loader import Dataset
from gantool.data.sources.base import DOWNLOADS, Source
from gantool.data.sources.catalog import INCEPTION_FOLDER, INCEPTION_WEIGHTS, SOURCES
from gantool.data.sources.folders import ARCHIVES, FETCHED, NAME, locate
from gantool.data.sources.images import two_classes
from gantool.data.sources.paths import open_path
from gantool.errors import DataError, NetworkError, unknown
from gantool.recipe.blocks import Data

logger = logging.getLogger(__name__)

IS_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HOLDS = {
    Labeled: "images with their class",
    Paired: "pairs of images",
    Unpaired: "two kinds of images",
    TableBatch: "a table",
}


def prepare(data: Data, root: Path, kind: type[Batch] = Labeled, *, progress: Progress | None = None) -> Dataset:
    """Return the data that a recipe's `data` block asks for; images are decoded unless they were before.

    Args:
        data: the block.
        root: the data directory.
        kind: of the batches that it is for.
        progress: receives how far a download is.

    Raises:
        DataError: the source is unknown, damaged, empty or of the wrong kind.
        NetworkError: it has to be downloaded and cannot be; the message names other sources.
    """
    source = find_source(data, root, kind)
    if not source.exists(root):
        source.describe(data)  # a wrong class is refused before a download
        _fetch(data.source, root, progress)
    return source.load(data, root, kind)


def describe(data: Data, root: Path, kind: type[Batch] = Labeled) -> Spec:
    """Return the specification of a recipe's data without preparing them; a missing folder counts as colour."""
    try:
        source = find_source(data, root, kind)
    except DataError:
        if kind is TableBatch or data.source in SOURCES:
            raise
        classes = data.classes or (["A", "B"] if kind in (Paired, Unpaired) else ["image"])
        return ImageSpec(data.channels or 3, data.height, data.width, tuple(classes))
    return source.describe(data)


def fetch(what: str, name: str | None, root: Path, *, progress: Progress | None = None) -> str:
    """Fetch a source by name, or an archive of images by its address.

    Args:
        what: a source's name, an https address, or `inception` for the weights of Inception-FID.
        name: the name that `data.source` will have for the images of an address; None takes the archive's own name.
        root: the data directory.
        progress: receives how far a download is.

    Returns:
        the name for `data.source`.
    """
    if IS_ADDRESS.match(what):
        return _fetch_address(what, name, root, progress)
    if name:
        raise DataError(f"--name {name}: only images from an address get a name; leave it out")
    if what == INCEPTION_FOLDER:
        logger.info(f"fetching {INCEPTION_WEIGHTS.name}")
        download(INCEPTION_WEIGHTS, root / INCEPTION_FOLDER, progress=progress)
    elif what in SOURCES:
        _fetch(what, root, progress)
    else:
        find_source(Data(source=what), root)
    return what


def available(root: Path) -> list[tuple[str, bool, str]]:
    """Return name, whether it is on this machine, and summary of every dataset with a name, fetched archives last."""
    rows = [(source.name, source.exists(root), source.summary) for source in SOURCES.values()]
    fetched = sorted(path.name for path in (root / FETCHED).glob("*") if complete(path))
    return rows + [(name, True, f"fetched images, in {root / FETCHED / name}") for name in fetched]


def find_source(data: Data, root: Path, kind: type[Batch] = Labeled) -> Source:
    """Return the source that `data.source` names.

    Raises:
        DataError: it does not exist, or a model that consumes `kind` cannot learn from it.
    """
    name = data.source
    if IS_ADDRESS.match(name) and not name.startswith(("http:", "https:")):
        raise DataError(f"data.source: {name} is an address that gantool does not read; name a path or a dataset")
    if IS_ADDRESS.match(name):
        raise DataError(f"data.source: {name} is an address; fetch it first: gantool data fetch '{name}' --name food")
    source: Source
    if name in SOURCES:
        source = SOURCES[name]
        if data.folder:
            raise DataError(f"{name}: has no folders to look in; leave out data.folder={data.folder}")
        _check_kind(name, source.kind, kind)
    elif kind is TableBatch:
        tables = [name for name, other in SOURCES.items() if other.kind is TableBatch]
        raise DataError(f"data.source: {unknown('table', name, tables)}; see: gantool data list")
    else:
        path = locate(name, root)
        if path is None:
            looks_like_path = "/" in name or "\\" in name or "." in name
            what = "no such file or folder"
            if not looks_like_path:
                what = f"{unknown('source', name, SOURCES)}; no folder or file here has this name either"
            raise DataError(f"data.source: {name + ': ' if looks_like_path else ''}{what}; see: gantool data list")
        source = open_path(path, data, kind)
    if kind in (Paired, Unpaired):
        two_classes(name, source.classes, data.classes)
    return source


def _check_kind(name: str, own: type[Batch], kind: type[Batch]) -> None:
    """Raise DataError if a source of this name does not hold what a model learns from."""
    if own is kind or (own in (Paired, Unpaired) and kind in (Labeled, Unpaired)) or (own, kind) == (Labeled, Unpaired):
        return
    fitting = ", ".join(name for name, other in SOURCES.items() if other.kind is kind)
    raise DataError(
        f"data.source: {name} holds {_HOLDS[own]}, but this model learns from {_HOLDS[kind]}; such are: {fitting}"
    )


def _fetch_address(url: str, name: str | None, root: Path, progress: Progress | None) -> str:
    file = unquote(urlsplit(url.replace("[", "%5B").replace("]", "%5D")).path).rpartition("/")[2]
    called = name or re.sub(r"[^A-Za-z0-9_-]", "_", file.partition(".")[0]) or "images"
    if called in SOURCES or not NAME.fullmatch(called):
        raise DataError(f"--name {called}: expected a new name of letters, digits, - and _, other than the sources'")
    target = root / FETCHED / called
    if complete(target):
        logger.info(f"{called} is already here, in {target}")
        return called
    ending = next((ending for ending in ARCHIVES if file.lower().endswith(ending)), "")
    archive = download(Remote(called + ending, (url,)), root / "downloads" / called, progress=progress)
    logger.info(f"unpacking {archive.name}")
    unpack(archive, target)
    return called


def _fetch(name: str, root: Path, progress: Progress | None) -> None:
    source = SOURCES[name]
    if source.exists(root):
        return
    logger.info(f"fetching {name} ({source.summary})")
    try:
        source.fetch(root, progress)
    except NetworkError as error:
        embedded = ", ".join(other for other, own in SOURCES.items() if own.kind is source.kind and not own.needs)
        instead = {
            Labeled: "digits, eggs, or a folder of your own images",
            TableBatch: "income",
        }.get(source.kind, f"{embedded} (with data.classes=null), or a folder of your own images")
        files = " and ".join(remote.name for _, remote in DOWNLOADS[name][: len(source.needs)])
        place = root / DOWNLOADS[name][0][0]
        raise NetworkError(
            f"{error}; without a network use --set data.source={instead}, or put {files} into {place}"
        ) from None
