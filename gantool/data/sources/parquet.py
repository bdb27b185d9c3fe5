"""Images in parquet files, as Hugging Face's datasets have them: a column of files, and one of classes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from gantool.batches import Batch, Labeled
from gantool.data import decode
from gantool.data.sources.images import ImageSource, SourceImage
from gantool.errors import DataError, unknown
from gantool.terminal import printable

ENDING = ".parquet"
CLASS_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label")  # the first that exists is used
_ROWS = 64  # rows that are read at once
_SHARD = re.compile(r"(.+?)-\d+-of-\d+")  # train-00000-of-00002


class Parquet(ImageSource):
    """Images in the rows of parquet files.

    Args:
        path: of the folder or file, for messages.
        files: the parquet files in it.
        split: use the files of this split only, such as `test`; None takes the only one, or `train`.

    Attributes:
        problems: files and columns that are not used, each with the reason.

    Raises:
        DataError: the files cannot be read, have no column of images or no class in a row, or it is not clear which
            split is meant.
    """

    kind: type[Batch] = Labeled
    problems: list[tuple[str, str]]

    def __init__(self, path: Path, files: Sequence[Path], split: str | None = None) -> None:
        self.path, self.problems = path, []
        splits: dict[str, list[Path]] = {}
        for file in files:
            found = _SHARD.fullmatch(file.stem)
            splits.setdefault(found[1] if found else file.stem, []).append(file)
        wanted = split or (next(iter(splits)) if len(splits) == 1 else "train")
        if wanted not in splits:
            raise DataError(f"{path}: {unknown('split', wanted, splits)}; choose one with data.folder")
        self.files = splits.pop(wanted)
        self.problems += [(name, f"another split; data.folder={name} uses it") for name in splits]
        with _opened(self.files[0]) as first:
            schema = first.schema_arrow
            self.column = self._images(schema)
            names = self._class_names(schema)
        self.names = self._read_classes(names)
        if not self.names:
            raise DataError(f"{path}: no row in {self.files[0].name}; choose another file")
        order = [*names, *sorted(set(self.names) - set(names))]
        present = set(self.names)
        self.classes = tuple(name for name in order if name in present)

    def _images(self, schema: Any) -> str:
        """Return the name of the column of images: files as bytes, or structs that have them."""
        found = [field.name for field in schema if _holds_files(field.type)]
        if not found:
            shown = printable(", ".join(f"{field.name} {field.type}" for field in schema)[:200])
            raise DataError(
                f"{self.files[0]}: no column of images in it ({shown}); a column has to hold files as bytes; save each "
                "image as a PNG, in a folder for each class"
            )
        self.problems += [(name, "another column of images") for name in map(printable, found[1:])]
        return found[0]

    def _class_names(self, schema: Any) -> list[str]:
        """Set the column of classes, if there is one, and return the names of the classes, if they have any."""
        features: Any = {}
        with suppress(ValueError, TypeError, KeyError):
            features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        named = {
            name: [printable(str(one)) for one in feature["names"]]
            for name, feature in (features.items() if isinstance(features, dict) else ())
            if isinstance(feature, dict) and isinstance(feature.get("names"), list) and name in schema.names
        }
        columns = [name for name in CLASS_COLUMNS if name in schema.names] or list(named)
        self.class_column = columns[0] if columns else None
        self.problems += [(printable(name), "another column of classes") for name in named if name != self.class_column]
        return named.get(self.class_column or "", [])

    def _read_classes(self, names: Sequence[str]) -> list[str]:
        """Return the class of each row."""
        found: list[str] = []
        for file in self.files:
            with _opened(file) as opened:
                if self.class_column is None:
                    found += [printable(self.path.stem) or "image"] * opened.metadata.num_rows
                    continue
                values = opened.read([self.class_column]).column(0).to_pylist()
            if None in values:
                row = values.index(None)
                raise DataError(f"{file}: row {row} has no {self.class_column}; give each row one, or leave it out")
            if any(isinstance(value, list | dict | float) for value in values[:1]):
                raise DataError(f"{file}: column {self.class_column} holds {values[0]!r}, no class; rename the column")
            found += [
                names[value] if isinstance(value, int) and 0 <= value < len(names) else printable(str(value))
                for value in values
            ]
        return found

    def native_channels(self, classes: Sequence[str]) -> int:
        """Return the channels of most of the first images."""
        found = []
        with _opened(self.files[0]) as first:
            for batch in islice(first.iter_batches(_ROWS, columns=[self.column]), 1):
                for value in batch.column(0).to_pylist():
                    with suppress(decode.Unreadable):
                        found.append(decode.native(_bytes(value)))
        grey = sum(channels == 1 for channels, _, _ in found)
        return 1 if found and grey > len(found) / 2 else 3

    def class_names(self, root: Path, classes: Sequence[str]) -> list[str]:
        """Return the class of each row, without reading its image."""
        wanted = set(classes)
        return [name for name in self.names if name in wanted]

    def items(self, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Yield the images of these classes, in the order of the files."""
        wanted, names = set(classes), iter(self.names)
        for file in self.files:
            with _opened(file) as opened:
                batches = opened.iter_batches(_ROWS, columns=[self.column])
                rows = (value for batch in batches for value in batch.column(0).to_pylist())
                for row, value in enumerate(rows):
                    if (name := next(names)) in wanted:
                        shown = printable(f"{file.name}: row {row}")
                        yield SourceImage(shown, name, _bytes(value) or "no bytes, only a path")

    def fingerprint(self, root: Path, classes: Sequence[str]) -> str:
        """Return a digest of the place, size and time of every file."""
        mark = hashlib.sha256(os.fsencode(self.path.resolve()))
        for file in self.files:
            status = file.stat()
            mark.update(os.fsencode(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n"))
        return f"parquet-{mark.hexdigest()}"


def _holds_files(kind: Any) -> bool:
    """Return whether values of a type of pyarrow hold files: bytes, or a struct of bytes and a path."""
    if str(kind).startswith("struct<"):
        return any(field.name == "bytes" for field in kind)
    return str(kind) in ("binary", "large_binary")


def _bytes(value: Any) -> bytes:
    return (value["bytes"] if isinstance(value, dict) else value) or b""


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a parquet file. Raise DataError if it is damaged, or if pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{file}: needs pyarrow; install it with: pip install 'gantool[parquet]'") from None
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            yield opened
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100].rstrip(".")
        raise DataError(f"{file}: cannot be read as parquet ({reason}); copy or make it again") from None
