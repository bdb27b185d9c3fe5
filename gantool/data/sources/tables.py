"""The tables and sentences that can be had by name.

Every column is brought to mean 0 and deviation 1 over the rows that are learned from, but those of truth tables are
left as they are.

`income` is made up, not a census: the people of `income.csv` were drawn at random, and who earns how much follows the
rule in docs/own-data.md. `adult` is the real table that it is modelled on, and has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gantool.batches import Column, RowSpec, TextSpec
from gantool.data.download import Progress, Remote, download
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
from gantool.errors import DataError, unknown


@dataclass(frozen=True)
class TableSource:
    """A table, or sentences, that can be had by name.

    Args:
        name: what recipes call it.
        summary: one line for `gantool data list`.
        spec: what is known before there are data: mean and deviation of a column are not.
        load: gives the table, from the data directory and the share of its rows to hold out; one that has rows to hold
            out of its own, or too few for any, does not heed the share.
        needs: the files, below the data directory, without which `load` cannot run.
        remotes: what to download, each with the folder below the data directory that it belongs to.
    """

    name: str
    summary: str
    spec: RowSpec | TextSpec
    load: Callable[[Path, float], Table]
    needs: tuple[str, ...] = ()
    remotes: tuple[tuple[str, Remote], ...] = ()

    def here(self, root: Path) -> bool:
        """Return whether nothing has to be downloaded."""
        return all((root / need).exists() for need in self.needs)

    def fetch(self, root: Path, progress: Progress | None = None) -> None:
        """Download what is missing."""
        for folder, remote in self.remotes:
            download(remote, root / folder, progress=progress)


def load(name: str, root: Path, share: float) -> Table:
    """Return the table of that name.

    Args:
        name: one of `TABLES`.
        root: the data directory.
        share: of the rows, 0 to 0.5, to hold out where the table does not say which.

    Raises:
        DataError: there is no such table, or its files are missing or damaged.
    """
    if name not in TABLES:
        raise DataError(unknown("table", name, TABLES) + "; see: gantool data list")
    if not TABLES[name].here(root):
        raise DataError(f"{name}: not downloaded to {root} yet; run: gantool data fetch {name}")
    return TABLES[name].load(root, share)


# --- truth tables ---------------------------------------------------------------------------------------------

_TRUTH = RowSpec((Column("a"), Column("b")), ("0", "1"))


def _truth(name: str, labels: Sequence[int]) -> Table:
    values = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], np.float32)
    texts = tuple(f"{a:g} {b:g}" for a, b in values)
    return Table(name, _TRUTH, values, np.array(labels, np.int64), np.arange(4), np.arange(0), texts)


# --- sentences ------------------------------------------------------------------------------------------------

# Those to learn from come in pairs that differ in nothing but the words that decide, so that no other word says
# anything; the tests put the same words together anew.
_LEARNED = (
    (1, "I love this film."),
    (0, "This food was bad."),
    (0, "I hate this awful book."),
    (1, "This food was good."),
    (0, "I hate this film."),
    (1, "I love this great book."),
    (1, "I love this good song."),
    (0, "This day was awful."),
    (1, "This day was great."),
    (0, "I hate this bad song."),
)
_TESTS = (
    (1, "I love this food."),
    (0, "This film was bad."),
    (0, "I hate this day."),
    (1, "This book was great."),
    (0, "This song was awful."),
    (1, "This film was good."),
    (0, "I hate this bad book."),
    (1, "I love this great song."),
)


def _text_spec(learned: Sequence[str]) -> TextSpec:
    """Describe sentences: every word of those that are learned from has a number, in order of appearance."""
    split = [_words(sentence) for sentence in learned]
    words = dict.fromkeys(word for sentence in split for word in sentence)
    return TextSpec(tuple(words), max(map(len, split)), ("negative", "positive"))


_SENTIMENT = _text_spec([sentence for _, sentence in _LEARNED])


def _sentences(_: Path, __: float) -> Table:
    labels, texts = zip(*_LEARNED, *_TESTS, strict=True)
    rows = np.arange(len(texts))
    train, held_out = rows[: len(_LEARNED)], rows[len(_LEARNED) :]
    inputs = _numbered(_SENTIMENT, texts)
    return Table("sentences", _SENTIMENT, inputs, np.array(labels, np.int64), train, held_out, texts)


# --- incomes --------------------------------------------------------------------------------------------------

_SCHOOLS = "Preschool 1st-4th 5th-6th 7th-8th 9th 10th 11th 12th HS-grad Some-college Assoc-voc Assoc-acdm"
_COUNTRIES = (
    "United-States Canada Outlying-US(Guam-USVI-etc) Puerto-Rico Mexico Cuba Dominican-Republic Haiti Jamaica "
    "Trinadad&Tobago Guatemala El-Salvador Honduras Nicaragua Columbia Ecuador Peru England Scotland Ireland France "
    "Germany Holand-Netherlands Portugal Italy Greece Hungary Poland Yugoslavia Iran India China Hong Taiwan Japan "
    "South Philippines Vietnam Cambodia Laos Thailand"
)
_PEOPLE = RowSpec(  # Adult's names, its spelling mistakes included; `?` is what nobody knows
    tuple(
        Column(name, tuple(categories.split()))
        for name, categories in (
            ("age", ""),
            ("workclass", "Never-worked Without-pay Private Self-emp-not-inc Self-emp-inc Local-gov State-gov "
             "Federal-gov ?"),
            ("fnlwgt", ""),
            ("education", f"{_SCHOOLS} Bachelors Masters Prof-school Doctorate"),
            ("education-num", ""),
            ("marital-status", "Never-married Divorced Separated Widowed Married-spouse-absent Married-AF-spouse "
             "Married-civ-spouse"),
            ("occupation", "Priv-house-serv Other-service Handlers-cleaners Farming-fishing Machine-op-inspct "
             "Transport-moving Craft-repair Armed-Forces Adm-clerical Protective-serv Sales Tech-support "
             "Prof-specialty Exec-managerial ?"),
            ("relationship", "Own-child Other-relative Unmarried Not-in-family Wife Husband"),
            ("race", "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black"),
            ("sex", "Female Male"),
            ("capital-gain", ""),
            ("capital-loss", ""),
            ("hours-per-week", ""),
            ("native-country", f"{_COUNTRIES} ?"),
        )
    ),
    ("<=50K", ">50K"),
)  # fmt: skip
_CLASS = Column("income", _PEOPLE.classes)


def _income(_: Path, share: float) -> Table:
    rows = _ordered((*_PEOPLE.columns, _CLASS), Path(__file__).with_name("income.csv"))
    labels = np.array([_PEOPLE.classes.index(cells[-1]) for _, cells in rows])
    return _people("income", rows, _every_few(labels, share))


def _people(name: str, rows: list[Cells], held_out: NDArray[np.int64], advice: str = "") -> Table:
    """Return the table of people that `rows` describe, whose last cell is the class."""
    values = _values((*_PEOPLE.columns, _CLASS), rows, advice)
    train = np.setdiff1d(np.arange(len(rows)), held_out)
    columns = _fitted(_PEOPLE.columns, values[train, :-1])
    inputs = _standardised(columns, values[:, :-1])
    texts = tuple(_shown(columns, rows))
    return Table(
        name, RowSpec(columns, _PEOPLE.classes), inputs, values[:, -1].astype(np.int64), train, held_out, texts
    )


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
    return _people("adult", [*train, *test], len(train) + np.arange(len(test)), _AGAIN)


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


_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
_HASHES = (
    "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
)
TABLES: dict[str, TableSource] = {
    source.name: source
    for source in (
        TableSource("and", "the truth table of AND, 4 rows", _TRUTH, lambda *_: _truth("and", (0, 0, 0, 1))),
        TableSource("xor", "the truth table of XOR, 4 rows", _TRUTH, lambda *_: _truth("xor", (0, 1, 1, 0))),
        TableSource("sentences", "18 short English sentences, bad or good; 8 of them held out", _SENTIMENT, _sentences),
        TableSource(
            "income",
            "4,000 made-up people, no census data: 14 columns, and whether they earn over 50K by a known rule",
            _PEOPLE,
            _income,
        ),
        TableSource(
            "adult",
            "48,842 real people of the US census of 1994 (UCI Adult): the same columns; 6 MB",
            _PEOPLE,
            _adult,
            needs=tuple(f"adult/{name}" for name in _ADULT),
            remotes=tuple(
                ("adult", Remote(name, (_UCI + name,), digest)) for name, digest in zip(_ADULT, _HASHES, strict=True)
            ),
        ),
    )
}
