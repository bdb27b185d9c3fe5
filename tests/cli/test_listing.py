"""Lists of runs, studies and recipes."""

from __future__ import annotations

import json
import shutil

import pytest
from gantool.recipe.load import shipped
from gantool.runs import Run
from gantool.training import engine

from commands import sets
from searches import TYPED


@pytest.fixture(scope="module")
def made(tmp_path_factory, data_dir):
    """A folder with a finished run, a stopped one, a study and a directory that cannot be read."""
    from commands import code

    runs = tmp_path_factory.mktemp("work") / "runs"
    given = ("--data-dir", data_dir)
    assert code("train", "gan14", *sets(name="one"), "--out", runs / "one-001", *given) == 0
    shutil.copytree(runs / "one-001", runs / "two-002")
    log = (runs / "two-002" / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (runs / "two-002" / "log.jsonl").write_text(log[0], encoding="utf-8")
    options = ("--trials", 2, "--set", "tune.epochs=2", "--engine", "inline", *given)
    assert code("tune", "gan14", *TYPED, *options, "--out", runs / "gan14-010") == 0
    shutil.copytree(runs / "one-001", runs / "bad-011")
    (runs / "bad-011" / "recipe.yaml").write_text("3\n", encoding="utf-8")
    (runs / "notes").mkdir()
    return runs


def test_runs_and_studies_are_listed_the_newest_first(made, command):
    code, out, _ = command("list", made, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == ["bad-011", "gan14-010", "two-002", "one-001"]
    bad, study, stopped, run = rows
    assert bad["state"].startswith("damaged: ")
    assert (study["recipe"], study["done"], study["metric"]) == ("gan14", "2/2 trials", "fd")
    assert study["state"].startswith(("trial 1 ", "keep ", "cannot tell", "no other"))
    assert (stopped["done"], stopped["state"].partition(",")[0]) == ("1/2 epochs", "stopped")
    assert (run["recipe"], run["done"], run["state"].partition(",")[0]) == ("one", "2/2 epochs", "finished")
    assert run["best"] == min(entry["metrics/fd"] for entry in Run(made / "one-001").entries())
    assert run["bytes"] > 10_000
    shown = command("list", made)[1].splitlines()
    assert shown[0].split() == ["name", "recipe", "done", "best", "state", "size", "changed"]
    assert len(shown) == 5
    assert shown[4].startswith("one-001    one     2/2 epochs  fd ")


def test_a_folder_without_runs_is_refused(inside, command):
    assert command("list")[::2] == (2, "error: runs: no such folder; make a run with: gantool train RECIPE\n")
    (inside / "runs").mkdir()
    message = "error: runs: no run and no study in it; make a run with: gantool train RECIPE\n"
    assert command("list")[::2] == (2, message)


def test_every_recipe_is_listed_with_what_it_is(command):
    rows = json.loads(command("recipes", "list", "--json")[1])
    assert [row["name"] for row in rows] == list(shipped())
    assert all(20 < len(row["summary"]) < 200 for row in rows)
    out = command("recipes", "list")[1]
    assert "folder64" in out
    assert "More images like yours, from as few as 200" in out


def test_a_recipe_is_shown_and_copied_to_be_edited(inside, command):
    text = shipped()["dcgan14"].read_text(encoding="utf-8")
    assert command("recipes", "show", "dcgan14")[1] == text
    code, out, _ = command("recipes", "copy", "dcgan14")
    assert (code, out) == (0, "dcgan14.yaml: edit it, then:\n  gantool train dcgan14.yaml\n")
    assert engine.open_recipe("dcgan14.yaml") == engine.open_recipe("dcgan14")
    assert command("recipes", "copy", "dcgan14")[0] == 2, "nothing is written over"
    assert command("recipes", "copy", "dcgan14", "-o", "mine.yaml")[0] == 0
    assert command("recipes", "show", "mine.yaml")[1] == text
