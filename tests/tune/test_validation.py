"""The database of a study is checked before anything uses it."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import stat
import sys

import pytest
from gantool.errors import CheckpointError
from gantool.tune.study import Study

from searches import RATE, run, tiny

SETTINGS = {
    "tune__epochs": 1,
    "tune__trials": 3,
    "tune__pruner": "none",
    "tune__confirm": {"top": 1, "seeds": 1},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A finished study, with a space of several keys."""
    place = tmp_path_factory.mktemp("good")
    return run(tiny(**SETTINGS), place / "s", place / "data").path


@pytest.fixture
def study(good, tmp_path):
    """A copy of the study."""
    return shutil.copytree(good, tmp_path / "s")


def edit(study, *commands):
    with contextlib.closing(sqlite3.connect(study / "study.db")) as database, database:
        for command in commands:
            database.execute(command)


def attribute(name, value):
    return f"UPDATE trial_user_attributes SET value_json = '{json.dumps(value)}' WHERE key = '{name}'"


OF = "(SELECT trial_id FROM trials JOIN studies USING (study_id) WHERE study_name = 'gan14' AND number = 1)"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("UPDATE trials SET state = 'x'", "holds values that are not Optuna's"),
        ("UPDATE study_directions SET direction = 'x'", "holds values that are not Optuna's"),
        ("UPDATE study_directions SET direction = 'MAXIMIZE'", "the study is not one that minimises"),
        ("UPDATE alembic_version SET version_num = 'x'", "does not fit the installed Optuna"),
        (f"DELETE FROM trials WHERE trial_id = {OF}", "trial 1 is missing"),
        (f"DELETE FROM trial_values WHERE trial_id = {OF}", "trial 1 has finished without a value"),
        (f"UPDATE trial_values SET value = 'x' WHERE trial_id = {OF}", "trial 1 has finished without a value"),
        (f"UPDATE trials SET datetime_complete = NULL WHERE trial_id = {OF}", "trial 1 has ended at no time"),
        ("UPDATE study_system_attributes SET value_json = NULL", "holds values that are not Optuna's"),
        ("UPDATE trial_intermediate_values SET step = -1", "trial 0 has a wrong value of an epoch"),
        ("UPDATE trial_intermediate_values SET intermediate_value = 'x'", "trial 0 has a wrong value of an epoch"),
        (f"DELETE FROM trial_params WHERE trial_id = {OF} AND param_name = '{RATE}'", f"trial 1 has no {RATE}"),
        (f"UPDATE trial_params SET param_value = 9 WHERE trial_id = {OF}", "trial 1 has a wrong "),
        (f"UPDATE trial_params SET param_name = 'x' WHERE trial_id = {OF} AND param_name = '{RATE}'", "a wrong 'x'"),
        ("UPDATE trial_params SET distribution_json = '{}'", "holds values that are not Optuna's"),
        (attribute("seconds", "x"), "trial 0 has a wrong seconds"),
        (attribute("diagnoses", [1]), "trial 0 has a wrong diagnoses.0"),
        (attribute("of", 7), "is of a trial that does not exist"),
        (attribute("seed", -1), "has a wrong seed"),
        ("DELETE FROM trial_user_attributes WHERE key = 'of'", "does not name its trial and its seed"),
        ("UPDATE study_user_attributes SET value_json = '[]' WHERE key = 'environment'", "has a wrong environment"),
        ("UPDATE studies SET study_name = 'other' WHERE study_name = 'gan14'", "holds no study of the name gan14"),
        ("DROP TABLE trial_user_attributes", "not a study, or damaged"),
    ],
)
def test_a_row_that_no_search_wrote_is_one_line_that_names_it(command, message, study):
    edit(study, command)
    before = (study / "study.db").read_bytes()
    with pytest.raises(CheckpointError) as caught:
        Study(study)
    assert message in str(caught.value)
    assert str(study) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (study / "study.db").read_bytes() == before


def test_attributes_of_other_programs_do_not_matter(study):
    edit(study, "UPDATE trial_user_attributes SET key = 'note' WHERE key = 'sampler'")
    assert len(Study(study).finished()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions for folders")
def test_a_study_that_only_others_may_write_can_be_read(study, command):
    files = [study, *study.rglob("*")]
    before = {path: path.read_bytes() for path in files if path.is_file()}
    for path in files:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert command("study", "status", study)[0] == 0
        assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before
    finally:
        for path in files:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_a_database_that_a_strangers_recipe_names_is_not_made(study, command, tmp_path):
    text = (study / "recipe.yaml").read_text(encoding="utf-8")
    elsewhere = tmp_path / "elsewhere.db"
    assert "storage: null" in text
    text = text.replace("storage: null", f"storage: sqlite:///{elsewhere.as_posix()}")
    (study / "recipe.yaml").write_text(text, encoding="utf-8")
    for arguments in (("study", "status", study), ("tune", study, "--engine", "inline")):
        code, _, err = command(*arguments)
        assert (code, err.startswith(f"error: {elsewhere}: is missing; restore a copy")) == (5, True), err
    assert not elsewhere.exists()
    elsewhere.touch()
    assert command("study", "status", study)[0] == 5
    assert elsewhere.stat().st_size == 0
