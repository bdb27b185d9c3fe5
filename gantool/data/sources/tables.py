"""The tables and sentences that have a name.

Every column is brought to mean 0 and deviation 1 over the rows that are learned from. Those of truth tables are left
unchanged.

`income` is made up, not a census: the people of `income.csv` were drawn at random, and their incomes follow the rule in
docs/own-data.md. `adult` is the real table that it is modelled on, and has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Batch, Column, RowSpec, TableBatch, TextSpec
from gantool.data import tables
from gantool.data.part import choose, describe_part
from gantool.data.sources.base import NamedSource
from gantool.data.tables import Row, Table, read_csv
from gantool.errors import DataError
from gantool.recipe.blocks import Data

_HERE = Path(__file__).parent


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
        """Return the table, or the part of it that `data.limit` leaves, with its share of held-out rows."""
        table = self.read(root, data.held_out)
        if not data.limit:
            return table
        is_held_out = np.isin(np.arange(len(table)), table.held_out)
        groups = zip(table.labels.tolist(), is_held_out.tolist(), strict=True)
        rows = np.flatnonzero(choose(list(groups), data.limit))
        return replace(
            table,
            inputs=table.inputs[rows],
            labels=table.labels[rows],
            train=np.flatnonzero(~is_held_out[rows]),
            held_out=np.flatnonzero(is_held_out[rows]),
            texts=tuple(table.texts[row] for row in rows),
            part=describe_part(len(rows), len(table)),
        )


# --- truth tables ---------------------------------------------------------------------------------------------

_TRUTH = RowSpec((Column("a"), Column("b")), ("0", "1"))


def _truth(labels: Sequence[int]) -> Table:
    inputs = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], np.float32)
    texts = tuple(f"{a:g} {b:g}" for a, b in inputs)
    return Table(_TRUTH, inputs, np.array(labels, np.int64), np.arange(4), np.arange(0), texts)


# --- sentences ------------------------------------------------------------------------------------------------

# The sentences to learn from come in pairs that differ only in the words that decide, so that no other word carries
# information. Those that are held out combine the same words anew.
_LINES = [cells for _, cells in read_csv(_HERE / "sentences.csv")]


def _text_spec() -> TextSpec:
    """Return every word of the sentences to learn from a number, in order of appearance."""
    learned = [tables.words(text) for use, _, text in _LINES if use == "learn"]
    known = dict.fromkeys(word for sentence in learned for word in sentence)
    return TextSpec(tuple(known), max(map(len, learned)), ("negative", "positive"))


_SENTIMENT = _text_spec()


def _sentences(_: Path, __: float) -> Table:
    texts = tuple(text for _, _, text in _LINES)
    labels = np.array([_SENTIMENT.classes.index(name) for _, name, _ in _LINES], np.int64)
    learned = np.array([use == "learn" for use, _, _ in _LINES])
    train, held_out = np.flatnonzero(learned), np.flatnonzero(~learned)
    return Table(_SENTIMENT, tables.numbered(_SENTIMENT, texts), labels, train, held_out, texts)


# --- incomes --------------------------------------------------------------------------------------------------

# The columns of Adult, with its spelling mistakes; the last is the class, and `?` is an unknown value.
_COLUMNS = [Column(name, tuple(kinds.split())) for _, (name, kinds) in read_csv(_HERE / "people.csv")]
_PEOPLE = RowSpec(tuple(_COLUMNS[:-1]), _COLUMNS[-1].categories)


def _income(_: Path, share: float) -> Table:
    rows = tables.read_rows(_COLUMNS, _HERE / "income.csv")
    held_out = []
    for name in _PEOPLE.classes:  # a share of each class, spread evenly: the same rows in every run
        own = np.array([row for row, (_, cells) in enumerate(rows) if cells[-1] == name])
        count = round(share * len(own))
        held_out.append(own[((np.arange(count) + 0.5) * len(own) / max(count, 1)).astype(np.int64)])
    return _people(rows, np.sort(np.concatenate(held_out)))


def _people(rows: Sequence[Row], held_out: NDArray[np.int64]) -> Table:
    """Return the table of people that `rows` describe, whose last cell is the class."""
    numbers = tables.values(_COLUMNS, rows)
    train = np.setdiff1d(np.arange(len(rows)), held_out)
    learned = numbers[train, :-1]
    moments = zip(_PEOPLE.columns, learned.mean(0).tolist(), learned.std(0).tolist(), strict=True)
    # A column that never changes has the deviation 0, and becomes 0 everywhere.
    columns = tuple(column._replace(mean=mean, deviation=deviation or 1.0) for column, mean, deviation in moments)
    inputs, labels = tables.standardised(columns, numbers[:, :-1]), numbers[:, -1].astype(np.int64)
    return Table(RowSpec(columns, _PEOPLE.classes), inputs, labels, train, held_out, tuple(tables.shown(columns, rows)))


_ADULT = ("adult.data", "adult.test")


def _adult(root: Path, _: float) -> Table:
    try:
        train, test = (_adult_rows(root / "adult" / name) for name in _ADULT)
        return _people([*train, *test], len(train) + np.arange(len(test)))
    except DataError as error:
        fault = str(error).rpartition("; ")[0]
        raise DataError(f"{fault}; delete the file and run: gantool data fetch adult") from None


def _adult_rows(file: Path) -> list[Row]:
    rows = []
    for where, cells in read_csv(file):
        if not cells[0].startswith("|"):  # a comment, on the first line of adult.test
            tables.check_width(where, cells, len(_COLUMNS))
            rows.append((where, [*cells[:-1], cells[-1].removesuffix(".")]))  # adult.test ends labels with a full stop
    if not rows:
        raise DataError(f"{file}: no row in it; add one")
    return rows


def _table(
    name: str, summary: str, spec: RowSpec | TextSpec, read: Callable[[Path, float], Table], *needs: str
) -> TableSource:
    return TableSource(name, summary, spec.classes, TableBatch, needs, spec=spec, read=read)


_INCOME = "4,000 made-up people, no census data: 14 columns, and whether they earn over 50K by a known rule"
_ADULTS = "48,842 real people of the US census of 1994 (UCI Adult): the same columns; 6 MB"
TABLES = {
    source.name: source
    for source in (
        _table("and", "the truth table of AND, 4 rows", _TRUTH, lambda *_: _truth((0, 0, 0, 1))),
        _table("xor", "the truth table of XOR, 4 rows", _TRUTH, lambda *_: _truth((0, 1, 1, 0))),
        _table("sentences", "18 short English sentences, bad or good; 8 of them held out", _SENTIMENT, _sentences),
        _table("income", _INCOME, _PEOPLE, _income),
        _table("adult", _ADULTS, _PEOPLE, _adult, *(f"adult/{name}" for name in _ADULT)),
    )
}
