"""Rows and sentences as numbers, from tables and from files of new rows to predict for.

A row of a table is one number for each column. A category becomes its index in a list. Similar categories are
neighbours in that list, because a network sees only the index.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Batch, Column, RowSpec, TextSpec
from gantool.data.loader import Split
from gantool.errors import DataError, unknown

Inputs = NDArray[np.float32] | NDArray[np.int64]
Row = tuple[str, list[str]]  # a line of a file: its place for messages, and its values
LARGEST = 1e30  # limit of numbers in a file, so that they fit 32 bits, also when they are standardised
OTHER_WORD, FIRST_WORD = 1, 2  # numbers of words; 0 is none
_MAIN = ("age", "education", "marital-status", "occupation", "hours-per-week")


@dataclass(frozen=True)
class Table:
    """The rows of a table, or sentences, as a classifier takes them; see `Dataset`.

    Args:
        spec: columns or words, and classes.
        inputs: rows, float32 [N, D], or sentences, int64 [N, L].
        labels: the class of each row, [N].
        train: the rows that are learned from, sorted.
        held_out: the rows that training never sees, sorted; may be empty.
        texts: each row as text.
        part: see `Dataset`.
    """

    spec: RowSpec | TextSpec
    inputs: Inputs
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    texts: tuple[str, ...]
    part: str = ""
    path: ClassVar[None] = None
    skipped: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, share: float, kind: type[Batch]) -> Split:
        """Return the table's own split, which was made when it was loaded."""
        return Split(self.train, self.held_out)

    @property
    def key(self) -> str:
        """The SHA-256 of the rows and their labels."""
        return hashlib.sha256(np.ascontiguousarray(self.inputs).tobytes() + self.labels.tobytes()).hexdigest()

    @property
    def digest(self) -> str:
        """The key, which is one of the content."""
        return self.key


def encode(spec: RowSpec | TextSpec, file: Path) -> tuple[Inputs, list[str]]:
    """Return the rows of a new file as inputs of a model, and as texts.

    Args:
        spec: of the data that the model learned from.
        file: in UTF-8. For a table it is CSV: a head that names the columns, in any order, and rows. Columns that the
            model does not know, such as the class, are ignored. For sentences it is text with one sentence on a line.
            A sentence that is longer than any training sentence is cut to its last words, because the verdict tends to
            come late.

    Raises:
        DataError: the file cannot be read, is empty, or does not fit the data that the model learned from.
    """
    if isinstance(spec, TextSpec):
        sentences = [line.strip() for line in _text(file).split("\n") if line.strip()]
        if not sentences:
            raise DataError(f"{file}: no sentence in it; write one on a line")
        return numbered(spec, sentences), sentences
    rows = read_rows(spec.columns, file)
    return standardised(spec.columns, values(spec.columns, rows)), shown(spec.columns, rows)


# --- files ----------------------------------------------------------------------------------------------------


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{file}: cannot be read ({reason}); give a file that exists and may be read") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start} is not UTF-8; save it as UTF-8") from None


def read_csv(file: Path) -> Iterator[Row]:
    """Return the lines that are not blank. Semicolons separate values if the first line has no comma."""
    text = _text(file)
    first = text.lstrip().partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True, delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"{file}: line {reader.line_num}", [cell.strip() for cell in cells]
    except csv.Error as error:
        advice = "quote texts with commas in them, and nothing else"
        raise DataError(f"{file}: line {reader.line_num}: not CSV ({error}); {advice}") from None


def read_rows(columns: Sequence[Column], file: Path) -> list[Row]:
    """Return the rows of a file with a head; their cells are in the order of `columns`."""
    wanted = [column.name for column in columns]
    lines = read_csv(file)
    where, head = next(lines, ("", []))
    if not head:
        raise DataError(f"{file}: empty; its first line names the columns: {','.join(wanted)}")
    for name in wanted:
        if name not in head:
            near = difflib.get_close_matches(name, [other for other in head if other not in wanted], 1, 0.6)
            mend = f"is it {near[0]!r}? rename that" if near else f"the head needs: {','.join(wanted)}"
            raise DataError(f"{where}: no column {name!r}; {mend}")
        if head.count(name) > 1:
            raise DataError(f"{where}: {head.count(name)} columns {name!r}; leave one")
    places = [head.index(name) for name in wanted]
    rows = []
    for where, cells in lines:
        check_width(where, cells, len(head))
        rows.append((where, [cells[place] for place in places]))
    if not rows:
        raise DataError(f"{file}: no row below its head; add one")
    return rows


def check_width(where: str, cells: Sequence[str], expected: int) -> None:
    """Raise DataError unless a line has the expected number of values."""
    if len(cells) != expected:
        raise DataError(f"{where}: expected {expected} values, got {len(cells)}; give each column of the head one")


# --- rows -----------------------------------------------------------------------------------------------------


def values(columns: Sequence[Column], rows: Sequence[Row]) -> NDArray[np.float64]:
    """Return the numbers of cells, [N, D]. Raise DataError for a cell that holds none."""
    indices = [{name: float(index) for index, name in enumerate(column.categories)} for column in columns]
    found = np.empty((len(rows), len(columns)))
    for row, (where, cells) in enumerate(rows):
        for place, (column, index, cell) in enumerate(zip(columns, indices, cells, strict=True)):
            value = index.get(cell) if index else _number(cell)
            if value is None:
                raise DataError(f"{where}: {_problem(column, cell)}")
            found[row, place] = value
    return found


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if -LARGEST < value < LARGEST else None  # a NaN is not


def _problem(column: Column, cell: str) -> str:
    cell = cell if len(cell) <= 40 else cell[:39] + "…"
    if column.categories:
        return unknown(column.name, cell, column.categories)
    return f"{column.name} {cell!r} is not a finite number; write one, such as 40"


def standardised(columns: Sequence[Column], numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return numbers of about unit size, [N, D]."""
    means, deviations = ([getattr(column, name) for column in columns] for name in ("mean", "deviation"))
    inputs: NDArray[np.float32] = ((numbers - means) / deviations).astype(np.float32)
    return inputs


def shown(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Return each row as text: its main columns, or all if it has none of these."""
    names = [column.name for column in columns]
    places = [names.index(name) for name in _MAIN if name in names] or range(len(names))
    return [" ".join(cells[place] for place in places) for _, cells in rows]


# --- sentences ------------------------------------------------------------------------------------------------


def words(sentence: str) -> list[str]:
    """Return the words of a sentence: letters and the apostrophes between them, in lower case."""
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", sentence.lower().replace("\u2019", "'"))


def numbered(spec: TextSpec, sentences: Sequence[str]) -> NDArray[np.int64]:
    """Return the numbers of the words: [N, L]. A sentence without words becomes one unknown word."""
    numbers = {word: number for number, word in enumerate(spec.words, FIRST_WORD)}
    inputs = np.zeros((len(sentences), spec.length), np.int64)
    for row, sentence in zip(inputs, sentences, strict=True):
        found = [numbers.get(word, OTHER_WORD) for word in words(sentence)][-spec.length :] or [OTHER_WORD]
        row[: len(found)] = found
    return inputs
