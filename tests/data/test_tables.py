"""Tables and sentences: those that have a name, and files of new rows."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
from gantool.batches import Column, RowSpec, TableBatch, TextSpec
from gantool.data.prepare import prepare
from gantool.data.sources.tables import TABLES
from gantool.data.tables import encode
from gantool.recipe.blocks import Data

from refusals import refusal

COLUMNS = [column.name for column in TABLES["income"].spec.columns]
DATA = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, Cuba, <=50K
50, Private, 83311, HS-grad, 9, Married-civ-spouse, ?, Husband, Black, Male, 0, 0, 13, United-States, >50K
28, ?, 338409, 11th, 7, Divorced, Sales, Wife, Other, Female, 0, 1902, 45, ?, <=50K

"""
TEST = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Sales, Own-child, Black, Male, 0, 0, 40, United-States, <=50K.
44, Private, 160323, Masters, 14, Widowed, Sales, Unmarried, Black, Male, 7688, 0, 40, Peru, >50K.

"""
DRAWN = "03f31d6d4f61282f47d0673dd6e1599a7d1fde7f697eb20b7f0f879c3b9f7015"  # of the people that code drew once, SHA-256
ROWS = RowSpec((Column("age", (), 40.0, 10.0), Column("kind", ("small", "large"), 0.5, 0.5)), ("no", "yes"))
SENTIMENT = TABLES["sentences"].spec


@pytest.fixture(scope="module")
def income():
    return TABLES["income"].read(None, 0.1)


@pytest.fixture
def adult(tmp_path):
    """A data directory with the files of the adult table, small."""
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "adult.data").write_text(DATA)
    (tmp_path / "adult" / "adult.test").write_text(TEST)
    return tmp_path


def original(table):
    """Return the whole numbers that a table's columns had before they were standardised."""
    columns = table.spec.columns
    return np.round(table.inputs * [c.deviation for c in columns] + [c.mean for c in columns])


def written(folder, content):
    file = folder / "new"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


# --- every table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_learned_from_or_held_out_and_has_a_class_and_a_text(adult, name):
    table = prepare(Data(source=name), adult, TableBatch)
    train, held_out = table.split(0.0, TableBatch)

    assert len(table) == len(table.inputs) == len(table.labels) == len(table.texts)
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(table)))
    assert set(table.labels.tolist()) == {0, 1}
    assert table.spec.classes == TABLES[name].classes == TABLES[name].spec.classes
    assert table.inputs.dtype == (np.int64 if name == "sentences" else np.float32)
    assert {table.labels.dtype, train.dtype, held_out.dtype} == {np.dtype(np.int64)}
    if name != "sentences":
        kinds = [[(c.name, c.categories) for c in spec.columns] for spec in (table.spec, TABLES[name].spec)]
        assert kinds[0] == kinds[1]


def test_the_key_of_a_table_changes_with_its_labels():
    assert TABLES["xor"].read(None, 0).key == TABLES["xor"].read(None, 0.5).key != TABLES["and"].read(None, 0).key


@pytest.mark.parametrize(("name", "truth"), [("and", lambda a, b: a & b), ("xor", lambda a, b: a ^ b)])
def test_truth_tables_hold_zeros_and_ones_and_all_rows_are_learned_from(name, truth):
    table = TABLES[name].read(None, 0.5)

    assert table.inputs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert table.labels.tolist() == [truth(int(a), int(b)) for a, b in table.inputs]
    assert table.spec == RowSpec((Column("a"), Column("b")), ("0", "1"))
    assert table.texts == ("0 0", "0 1", "1 0", "1 1")
    assert (table.train.tolist(), table.held_out.tolist()) == ([0, 1, 2, 3], [])


# --- sentences --------------------------------------------------------------------------------------------------


def test_ten_sentences_are_learned_from_and_eight_are_held_out_with_equal_classes():
    table = TABLES["sentences"].read(None, 0.5)

    assert (table.train.tolist(), table.held_out.tolist()) == (list(range(10)), list(range(10, 18)))
    assert [np.bincount(table.labels[rows]).tolist() for rows in (table.train, table.held_out)] == [[5, 5], [4, 4]]
    assert table.spec.words[:7] == ("i", "love", "this", "film", "food", "was", "bad")
    assert table.texts[:2] == ("I love this film.", "This food was bad.")
    assert table.inputs[:2].tolist() == [[2, 3, 4, 5, 0], [4, 6, 7, 8, 0]]
    assert table.spec.length == table.inputs.shape[1] == 5


def test_the_held_out_sentences_can_be_answered_from_those_that_are_learned():
    table = TABLES["sentences"].read(None, 0)
    learned, held_out = (table.inputs[rows] for rows in (table.train, table.held_out))

    assert 1 not in table.inputs  # every word is known
    assert not {tuple(row) for row in learned.tolist()} & {tuple(row) for row in held_out.tolist()}
    # The balance of each word in the learned sentences: their sum decides all 18, and other words say nothing.
    balance = np.zeros(len(table.spec.words) + 2)
    for row, label in zip(learned, table.labels, strict=False):
        balance[row[row > 0]] += 1 if label else -1
    assert ((balance[table.inputs].sum(1) > 0) == table.labels).all()
    deciding = {word for word, value in zip(table.spec.words, balance[2:], strict=True) if value}
    assert deciding == {"love", "hate", "good", "bad", "great", "awful"}


# --- made-up incomes --------------------------------------------------------------------------------------------


def test_incomes_are_the_people_that_code_drew_before_they_stood_in_a_file(income):
    values = np.column_stack([original(income), income.labels]).astype("<i8")

    assert hashlib.sha256(values.tobytes()).hexdigest() == DRAWN
    assert income.labels.mean() == pytest.approx(0.24, abs=0.01)  # as documented
    assert income.texts[0] == "29 Some-college Married-civ-spouse Other-service 48"


def test_columns_are_standardised_by_the_rows_that_are_learned_from(income):
    learned = income.inputs[income.train].astype(np.float64)

    assert np.abs(learned.mean(0)).max() < 1e-6
    assert np.abs(learned.std(0) - 1).max() < 1e-6
    assert np.abs(income.inputs[income.held_out].mean(0)).max() > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_share_of_each_class_is_held_out_all_over_the_table(share):
    table = TABLES["income"].read(None, share)

    for label in (0, 1):
        rows = table.held_out[table.labels[table.held_out] == label]
        assert len(set(rows)) == len(rows) == round(share * np.count_nonzero(table.labels == label))
        if share:
            assert np.abs(np.histogram(rows, 4, (0, 4000))[0] / len(rows) - 0.25).max() < 0.05


# --- the real incomes -------------------------------------------------------------------------------------------


def test_adult_learns_from_one_file_and_holds_out_the_other(adult):
    table = TABLES["adult"].read(adult, 0.5)
    values = original(table)

    assert (table.train.tolist(), table.held_out.tolist()) == ([0, 1, 2], [3, 4])
    assert table.labels.tolist() == [0, 1, 0, 0, 1]
    assert values[:, COLUMNS.index("age")].tolist() == [39, 50, 28, 25, 44]
    assert np.allclose(table.inputs[table.train].mean(0), 0, atol=1e-6)
    assert table.texts[4] == "44 Masters Widowed Sales 40"
    workclass = table.spec.columns[1]
    assert [workclass.categories[int(value)] for value in values[:3, 1]] == ["State-gov", "Private", "?"]


@pytest.mark.parametrize(
    ("line", "change", "found"),
    [
        (0, ("39,", "old,"), "line 1: age 'old' is not a finite number"),
        (1, ("0, 0, 13", "1e31, 0, 13"), "line 2: capital-gain '1e31' is not a finite number"),
        (2, ("Divorced", "Divorcd"), "line 3: unknown marital-status 'Divorcd'"),
        (0, ("<=50K", "50K"), "line 1: unknown income '50K'"),
        (0, (", <=50K", ""), "line 1: expected 15 values, got 14"),
        (1, ("Private", '"Private'), "line 4: not CSV (unexpected end of data)"),
        (None, (DATA, ""), "no row in it"),
    ],
)
def test_a_damaged_file_of_adult_is_refused_in_one_line(adult, line, change, found):
    file = adult / "adult" / "adult.data"
    lines = DATA.splitlines(keepends=True)
    part = DATA if line is None else lines[line]
    assert change[0] in part
    file.write_text(DATA.replace(part, part.replace(*change, 1)))

    assert (
        refusal(TABLES["adult"].read, adult, 0.1)
        == f"{file}: {found}; delete the file and run: gantool data fetch adult"
    )


# --- new rows ---------------------------------------------------------------------------------------------------


def test_rows_of_a_table_are_encoded_as_in_the_table_whatever_the_order_of_columns(income, tmp_path):
    values = original(income).astype(int)[:300]
    order = np.random.default_rng(0).permutation(14)
    file = tmp_path / "people.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["income", *(COLUMNS[index] for index in order)])
        for row in values:
            cells = [c.categories[v] if c.categories else v for c, v in zip(income.spec.columns, row, strict=True)]
            writer.writerow([">50K", *(cells[index] for index in order)])
    inputs, texts = encode(income.spec, file)

    assert inputs.dtype == np.float32
    assert np.array_equal(inputs, income.inputs[:300])
    assert texts == list(income.texts[:300])


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfage,kind\n50,large\n",
        "age , kind\r\n 50 , large\r\n\r\n",
        'kind,note,age\n\n"large","a, b",5e1\n,,\n',
        "age,kind\r50,large",
        "age,kind,note\n50,large,one\u2028two\n",
    ],
)
def test_csv_is_read_as_spreadsheets_and_people_write_it(content, tmp_path):
    assert encode(ROWS, written(tmp_path, content))[0].tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "empty; its first line names the columns: age,kind"),
        ("age,kind\n\n", "no row below its head; add one"),
        ("age,kinds\n1,small\n", "line 1: no column 'kind'; is it 'kinds'? rename that"),
        ("age\tkind\n1\tsmall\n", "line 1: no column 'age'; the head needs: age,kind"),
        ("age,kind,age\n1,small,2\n", "line 1: 2 columns 'age'; leave one"),
        ("age,kind\n1,small\n\n2\n", "line 4: expected 2 values, got 1; give each column of the head one"),
        ("age,kind\n1,smal\n", "line 2: unknown kind 'smal'; did you mean 'small'?"),
        ("age,kind\n1,\n", "line 2: unknown kind ''; known: large, small"),
        ("age,kind\nten,small\n", "line 2: age 'ten' is not a finite number; write one, such as 40"),
        ("age,kind\ninf,small\n", "line 2: age 'inf' is not a finite number; write one, such as 40"),
        (f"age,kind\n{'x' * 50},small\n", f"line 2: age '{'x' * 39}…' is not a finite number; write one, such as 40"),
        (
            'age,kind\n1,"small\n',
            "line 2: not CSV (unexpected end of data); quote texts with commas in them, and nothing else",
        ),
        (
            f"age,kind\n1,{'x' * 200_000}\n",
            "line 2: not CSV (field larger than field limit (131072)); "
            "quote texts with commas in them, and nothing else",
        ),
        (b"age,kind\n1,\xff\n", "byte 11 is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_wrong_file_of_rows_is_refused_in_one_line(content, found, tmp_path):
    file = written(tmp_path, content)
    assert refusal(encode, ROWS, file) == f"{file}: {found}"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    missing = tmp_path / "missing.csv"
    advice = "give a file that exists and may be read"
    assert refusal(encode, ROWS, missing) == f"{missing}: cannot be read (no such file or directory); {advice}"


# --- new sentences ----------------------------------------------------------------------------------------------


def test_sentences_of_the_table_are_encoded_as_in_the_table(tmp_path):
    table = TABLES["sentences"].read(None, 0)
    inputs, texts = encode(table.spec, written(tmp_path, "\n".join(table.texts)))

    assert (inputs.dtype, texts) == (np.int64, list(table.texts))
    assert np.array_equal(inputs, table.inputs)


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("GOOD!", [2, 0, 0]),
        ("It\u2019s 'good', 10/10", [3, 2, 0]),
        ("caf\u00e9 good", [4, 2, 0]),
        ("never heard of", [1, 1, 1]),
        ("good good it's never good", [3, 1, 2]),  # the last three
        ("10/10 :-)", [1, 0, 0]),  # no word at all
    ],
)
def test_words_are_letters_and_apostrophes_in_lower_case(sentence, numbers, tmp_path):
    spec = TextSpec(("good", "it's", "caf\u00e9"), 3, ("negative", "positive"))
    inputs, texts = encode(spec, written(tmp_path, f"\n  {sentence}  \r\n\n"))

    assert (inputs.tolist(), texts) == ([numbers], [sentence])


def test_an_empty_file_of_sentences_is_refused(tmp_path):
    file = written(tmp_path, "\n \n\n")
    assert refusal(encode, SENTIMENT, file) == f"{file}: no sentence in it; write one on a line"
