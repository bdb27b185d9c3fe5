"""The tables and sentences that have a name.

Every column is brought to mean 0 and deviation 1 over the rows that are learned from. Those of truth tables are left
unchanged.

`income` is made up, not a census: the people of `income.csv` were drawn at random, and their incomes follow the rule in
docs/own-data.md. `adult` is the real table that it is modelled on, and has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Batch, Column, RowSpec, TableBatch, TextSpec
from gantool.data.sources.base import NamedSource
from gantool.data.tables import (
    Cells,
    Table,
    _check_width,
    _csv,
    _fitted,
    _numbered,
    _ordered,
    _shown,
    _standardised,
    _values,
    _words,
)
from gantool.errors import DataError
from gantool.recipe.blocks import Data

_HERE = Path(__file__).parent
_REINSTALL = "install gantool again"


@dataclass(frozen=True, kw_only=True)
class TableSource(NamedSource):
    """A table, or sentences, with a name.

    Args:
        spec: the spec before there are data, in which columns have no mean and deviation yet.
        read: returns the table, from the data directory and the share of its rows to hold out. A table that has rows
            of its own to hold out, or too few for any, ignores the share.
    """

    spec: RowSpec | TextSpec
    read: Callable[[Path, float], Table]

    def describe(self, data: Data) -> RowSpec | TextSpec:
        """Return columns or words, and classes."""
        return self.spec

    def load(self, data: Data, root: Path, kind: type[Batch]) -> Table:
        """Return the table."""
        return self.read(root, data.held_out)


# --- truth tables ---------------------------------------------------------------------------------------------

_TRUTH = RowSpec((Column("a"), Column("b")), ("0", "1"))


def _truth(labels: Sequence[int]) -> Table:
    values = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], np.float32)
    texts = tuple(f"{a:g} {b:g}" for a, b in values)
    return Table(_TRUTH, values, np.array(labels, np.int64), np.arange(4), np.arange(0), texts)


# --- sentences ------------------------------------------------------------------------------------------------

# The sentences to learn from come in pairs that differ only in the words that decide, so that no other word carries
# information. Those that are held out combine the same words anew.
_LINES = [cells for _, cells in _csv(_HERE / "sentences.csv", _REINSTALL)]


def _text_spec() -> TextSpec:
    """Return every word of the sentences to learn from a number, in order of appearance."""
    learned = [_words(text) for use, _, text in _LINES if use == "learn"]
    words = dict.fromkeys(word for sentence in learned for word in sentence)
    return TextSpec(tuple(words), max(map(len, learned)), ("negative", "positive"))


_SENTIMENT = _text_spec()


def _sentences(_: Path, __: float) -> Table:
    texts = tuple(text for _, _, text in _LINES)
    labels = np.array([_SENTIMENT.classes.index(name) for _, name, _ in _LINES], np.int64)
    learned = np.array([use == "learn" for use, _, _ in _LINES])
    train, held_out = np.flatnonzero(learned), np.flatnonzero(~learned)
    return Table(_SENTIMENT, _numbered(_SENTIMENT, texts), labels, train, held_out, texts)


# --- incomes --------------------------------------------------------------------------------------------------


def _people_columns() -> list[Column]:
    """Return the columns of Adult, with its spelling mistakes; the last is the class, and `?` is an unknown value."""
    lines = _csv(_HERE / "people.csv", _REINSTALL)
    return [Column(name, tuple(categories.split())) for _, (name, categories) in lines]


*_COLUMNS, _CLASS = _people_columns()
_PEOPLE = RowSpec(tuple(_COLUMNS), _CLASS.categories)


def _income(_: Path, share: float) -> Table:
    rows = _ordered((*_PEOPLE.columns, _CLASS), _HERE / "income.csv")
    labels = np.array([_PEOPLE.classes.index(cells[-1]) for _, cells in rows])
    return _people(rows, _every_few(labels, share))


def _people(rows: list[Cells], held_out: NDArray[np.int64], advice: str = "") -> Table:
    """Return the table of people that `rows` describe, whose last cell is the class."""
    values = _values((*_PEOPLE.columns, _CLASS), rows, advice)
    train = np.setdiff1d(np.arange(len(rows)), held_out)
    columns = _fitted(_PEOPLE.columns, values[train, :-1])
    labels = values[:, -1].astype(np.int64)
    spec = RowSpec(columns, _PEOPLE.classes)
    return Table(spec, _standardised(columns, values[:, :-1]), labels, train, held_out, tuple(_shown(columns, rows)))


def _every_few(labels: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Return a share of the rows of every class, spread evenly: the same ones in every run."""
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = round(share * len(rows))
        chosen.append(rows[((np.arange(count) + 0.5) * len(rows) / max(count, 1)).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


# --- the real incomes -----------------------------------------------------------------------------------------

_ADULT = ("adult.data", "adult.test")
_AGAIN = "delete the file and run: gantool data fetch adult"


def _adult(root: Path, _: float) -> Table:
    train, test = (_adult_rows(root / "adult" / name) for name in _ADULT)
    return _people([*train, *test], len(train) + np.arange(len(test)), _AGAIN)


def _adult_rows(file: Path) -> list[Cells]:
    rows = []
    for where, cells in _csv(file, _AGAIN):
        if cells[0].startswith("|"):  # a comment, on the first line of adult.test
            continue
        _check_width(where, cells, len(_PEOPLE.columns) + 1, _AGAIN)
        rows.append((where, [*cells[:-1], cells[-1].removesuffix(".")]))  # adult.test ends its labels with a full stop
    if not rows:
        raise DataError(f"{file}: no row in it; {_AGAIN}")
    return rows


def _table(
    name: str,
    summary: str,
    spec: RowSpec | TextSpec,
    read: Callable[[Path, float], Table],
    needs: tuple[str, ...] = (),
) -> TableSource:
    return TableSource(
        name=name, summary=summary, classes=spec.classes, kind=TableBatch, needs=needs, spec=spec, read=read
    )


TABLES = {
    source.name: source
    for source in (
        _table("and", "the truth table of AND, 4 rows", _TRUTH, lambda *_: _truth((0, 0, 0, 1))),
        _table("xor", "the truth table of XOR, 4 rows", _TRUTH, lambda *_: _truth((0, 1, 1, 0))),
        _table("sentences", "18 short English sentences, bad or good; 8 of them held out", _SENTIMENT, _sentences),
        _table(
            "income",
            "4,000 made-up people, no census data: 14 columns, and whether they earn over 50K by a known rule",
            _PEOPLE,
            _income,
        ),
        _table(
            "adult",
            "48,842 real people of the US census of 1994 (UCI Adult): the same columns; 6 MB",
            _PEOPLE,
            _adult,
            needs=tuple(f"adult/{name}" for name in _ADULT),
        ),
    )
}
