"""`gantool tune --engine inline` and `gantool study`, as they are typed."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from gantool.cli import main
from gantool.recipe.load import parse_changes
from gantool.runs import Run
from gantool.training import engine
from gantool.tune import results
from gantool.tune.study import Study
from PIL import Image

from searches import BETA, RATE, TYPED, gantool, made, planned, run, tiny

PLAN = [3.0, 1.0, 2.0]  # the metric of the trials of `studied`
SENTENCE = (
    "trial 1 beat your recipe with one seed, which may be luck: it has fd 1.500 and your recipe 3.500, after 2 epochs"
)


@pytest.fixture(scope="module")
def made_once(data_dir, tmp_path_factory):
    """A study of three trials, and a fourth that failed, in `runs/gan14-001`."""
    folder = tmp_path_factory.mktemp("studied")
    chosen = tiny(tune__trials=4, tune__epochs=2, tune__pruner="none", train__epochs=2)
    plan = planned(lambda number, seed: PLAN[number] if number < 3 else "diverged: at epoch 1")
    run(chosen, folder / "runs" / "gan14-001", data_dir, plan)
    return folder


@pytest.fixture
def studied(made_once, monkeypatch):
    """That study, in the working directory."""
    monkeypatch.chdir(made_once)
    return Study(made_once / "runs" / "gan14-001")


def test_status_shows_the_table_and_the_winner_of_the_newest_study(studied, command):
    code, out, err = command("study", "status")
    assert code == 0
    assert re.findall(r"^ +(\d) +([\d.]*) +\d/2 ", out, re.MULTILINE)[:3] == [
        ("1", "1.500"),
        ("2", "2.500"),
        ("0", "3.500"),
    ]
    assert "diverged: at epoch 1" in out
    assert re.search(r"^ +1 .* winner, finished *$", out, re.MULTILINE)
    assert re.search(r"^ +0 .* your recipe, finished *$", out, re.MULTILINE)
    assert out.endswith(f"\n{SENTENCE}\n")
    assert "4 of 4 trials done" in err
    assert [command("study", "status", name)[1] for name in ("gan14-001", "runs/gan14-001", studied.path)] == 3 * [out]


def test_status_as_json_is_one_object(studied, command):
    code, out, _ = command("study", "status", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["metric"], told["trials"], told["best"]) == ("fd", 4, 1)
    assert (told["sentence"], told["advice"], told["confirmed"]) == (SENTENCE, "", [])
    assert told["verdict"] == {
        "kind": "unconfirmed", "trial": 1, "values": [1.5], "own": [3.5], "ratio": None, "interval": None,
        "epochs": 2, "copies": False,
    }  # fmt: skip
    assert [(row["number"], row["state"], row["fd"]) for row in told["rows"]] == [
        (0, "complete", 3.5), (1, "complete", 1.5), (2, "complete", 2.5), (3, "fail", None)
    ]  # fmt: skip
    assert told["rows"][0]["values"] == {RATE: 2e-4, BETA: 0.5}
    story = {(row["sampler"], row["pruner"], row["tune_seed"]) for row in told["rows"]}
    assert story == {(studied.tune.sampler, "none", 0)}


def test_status_of_a_search_that_runs_names_its_trials_and_disturbs_nothing(inside, command):
    study = made(inside / "s", tune__trials=4)
    code, out, _ = command("study", "status", "s")
    assert (code, "running" in out) == (0, False)
    for trial in (study.ask(), study.ask()):
        trial.report(7.5, 1)
    before = {path.name: path.read_bytes() for path in study.path.glob("*.*")}
    code, out, _ = command("study", "status", "s")
    assert code == 0
    assert "interrupted: trial 0, 1; to resume:\n  gantool tune s\n" in out
    again = made(inside / "again", tune__trials=1)
    again.begin(again.confirmation, again.space.own_point, of=0, seed=7, epochs=2)
    again.begin(again.finishing, again.space.own_point, of=0, seed=7)
    again.begin(again.finishing, again.space.own_point, of=0, seed=None)
    out = command("study", "status", "again")[1]
    assert "interrupted: trial 0 seed 7, 0 seed 7 to the end, 0 to the end; to resume:\n  gantool tune again\n" in out
    made(inside / "new")
    assert "not finished; to resume:\n  gantool tune new\n" in command("study", "status", "new")[1]
    told = json.loads(command("study", "status", "s", "--json")[1])
    assert (told["best"], told["sentence"]) == (None, "")
    assert [(row["state"], row["fd"]) for row in told["rows"]] == [("running", 7.5), ("running", 7.5)]
    assert {path.name: path.read_bytes() for path in study.path.glob("*.*")} == before


def test_export_writes_all_trials_or_the_best_recipe(studied, command, tmp_path):
    assert command("study", "export", "-o", tmp_path / "a.csv")[0] == 0
    table = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["state"], row["fd"]) for row in table][2:] == [("complete", "2.5"), ("fail", "")]
    code, out, _ = command("study", "export", "gan14-001", "-o", tmp_path / "a.json")
    assert (code, out) == (0, f"{tmp_path / 'a.json'}: all trials of runs/gan14-001\n")
    told = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert told == json.loads(command("study", "status", "--json")[1])
    assert command("study", "export", "-o", tmp_path / "a.yaml")[1].endswith("the best recipe of runs/gan14-001\n")
    best = engine.open_recipe(str(tmp_path / "a.yaml"))
    assert best.train.optimizer.lr == studied.trials()[1].params[RATE]
    assert best.train.epochs == 2


def test_export_refuses_what_it_cannot_write_and_keeps_what_is_there(studied, command, tmp_path):
    code, _, err = command("study", "export", "-o", tmp_path / "a.txt")
    assert (code, err) == (2, f"error: {tmp_path / 'a.txt'}: expected a name that ends in .csv, .json or .yaml\n")
    (tmp_path / "a.csv").write_text("mine")
    code, _, err = command("study", "export", "-o", tmp_path / "a.csv")
    assert (code, (tmp_path / "a.csv").read_text()) == (2, "mine")
    assert err.endswith("already exists; name another file, or add --overwrite\n")
    assert command("study", "export", "-o", tmp_path / "a.csv", "--overwrite")[0] == 0
    code, _, err = command("study", "export", "-o", tmp_path / "no" / "a.csv")
    assert code == 7
    assert "cannot be written (No such file or directory)" in err


def test_a_study_without_a_finished_trial_says_what_to_do(inside, command):
    made(inside / "s", tune__trials=4)
    for command in (["export", "s", "-o", "best.yaml"], ["promote", "s"]):
        code, _, err = command("study", *command)
        assert (code, err) == (2, "error: s: no trial has finished yet; continue with: gantool tune s\n")
    assert not (inside / "best.yaml").exists()
    assert command("study", "export", "s", "-o", "all.csv")[0] == 0
    code, _, err = command("study", "report", "s")
    assert (code, err) == (2, "error: s: no trial has ended yet; wait for the first one\n")


def test_promote_trains_the_winner_for_its_full_length(studied, command, tmp_path):
    assert command("study", "promote", "--out", tmp_path / "run")[0] == 0
    run = Run.open(str(tmp_path / "run"))
    recipe = engine.open_recipe(str(run.path / "recipe.yaml"))
    assert recipe.train.optimizer.lr == studied.trials()[1].params[RATE]
    assert [entry["epoch"] for entry in run.entries()] == [1, 2]
    assert (run.checkpoints / "best.pt").exists()


def test_promote_takes_another_trial_and_changes_and_refuses_one_that_is_not_there(studied, command, tmp_path):
    more = ("--trial", 3, "--set", "train.epochs=1", "--set", f"{RATE}=1e-4", "--out", tmp_path / "run")
    assert command("study", "promote", "gan14-001", *more)[0] == 0
    recipe = engine.open_recipe(str(tmp_path / "run" / "recipe.yaml"))
    assert (recipe.train.optimizer.lr, recipe.train.epochs) == (1e-4, 1)
    assert recipe.train.optimizer.betas[0] == studied.trials()[3].params[BETA]
    code, _, err = command("study", "promote", "--trial", 4)
    assert (code, err) == (2, "error: runs/gan14-001: has no trial 4; its 4 trials count from 0\n")
    code, _, err = command("study", "promote", "--set", "train.epoch=1")
    assert code == 2
    assert "did you mean 'epochs'?" in err
    code, _, err = command("study", "promote", "--out", tmp_path / "run")
    assert code == 2
    assert "already holds something" in err


def test_a_run_is_not_taken_for_a_study(studied, command, tmp_path):
    Run.create("a: 1\n", name="gan14", out=tmp_path / "run")
    for command in ("status", "report", "promote", "export"):
        code, _, err = command("study", command, tmp_path / "run")
        assert code == 2
        assert err == f"error: {tmp_path / 'run'}: is a run, not a study; a search makes a study: gantool tune RECIPE\n"
    code, _, err = command("study", "status", "gan14-002")
    assert code == 2
    assert "gan14-002: no study of this name and no directory with a study.json; here are: gan14-001\n" in err


@pytest.mark.parametrize(
    ("held", "best", "message"),
    [
        ({}, False, "s: is a study in which no trial has finished yet; continue with: gantool tune s"),
        ({}, True, "s: is a study of an older version; continue with: gantool tune s"),
        (
            {"run": "trials/0003"},
            True,
            f"{Path('s/trials/0003')}: is missing, but the study stands for it; name another one of its trials",
        ),
    ],
)
def test_a_study_that_stands_for_no_training_says_why_and_what_to_do(held, best, message, inside, command):
    file = made(inside / "s").path / "study.json"
    file.write_text(json.dumps({"study": "gan14", **held}), encoding="utf-8")
    if best:
        (inside / "s" / "best.yaml").write_text("# of a search\n")
    for name in ("sample", "animate", "score"):
        assert command(name, "s") == (2, "", f"error: {message}\n")


def test_without_any_study_the_command_that_makes_one_is_named(inside, command):
    code, _, err = command("study", "status")
    assert (code, err) == (2, "error: runs: no study here yet; make one with: gantool tune RECIPE\n")


def test_a_study_is_searched_on_by_its_path_or_its_name(studied, command):
    for name in ("runs/gan14-001", "gan14-001"):
        code, out, err = command("tune", name, "--engine", "inline")
        assert code == 0, err
        assert "study runs/gan14-001: 4 of 4 trials done" in err
        assert f"\n{SENTENCE}\nrecipe: runs/gan14-001/best.yaml   images: runs/gan14-001/best.png\n" in out
        assert out.endswith("\n  gantool sample runs/gan14-001\n  gantool study report runs/gan14-001\n")
    assert not (studied.path.parent / "gan14-002").exists()


def test_where_the_seeds_cannot_tell_the_command_that_would_is_a_line_of_its_own(data_dir, inside, command):
    values = {0: [6.0, 6.5, 6.0, 6.2, 6.4], 1: [5.0, 5.0, 6.3, 5.5, 5.0]}
    seeds = []

    def plan(number, seed):
        seeds.append(seed)
        return [values[number][len(set(seeds)) - 1]]

    chosen = tiny(tune__trials=2, tune__epochs=2, tune__pruner="none", tune__confirm={"top": 1, "seeds": 4})
    study = run(chosen, inside / "s", data_dir, planned(plan))
    lines = command("study", "status", "s")[1].splitlines()
    assert lines[-3] == (
        "cannot tell yet whether trial 1 is better than your recipe: over 4 new seeds, it has fd 5.927 and your recipe "
        "6.772; the effect lies between 21 % lower and 5 % higher (95 % interval), after 2 epochs"
    )
    assert re.fullmatch(r"this would probably decide \(about \d+s\):", lines[-2])
    command = re.fullmatch(r"  gantool (tune s --set tune\.confirm\.seeds=\d+)", lines[-1])[1]
    assert engine.open_recipe("s", parse_changes([command.rpartition(" ")[2]])).tune.confirm.seeds > 4
    assert study.verdict().kind == "unsure"


def test_a_report_is_one_page(studied, command, tmp_path):
    code, out, err = command("study", "report", "-o", tmp_path / "report")
    assert code == 0, err
    assert f"{tmp_path / 'report' / 'index.html'}: a page with all charts" in out
    assert "fd 1.500" in out
    assert "<html" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


