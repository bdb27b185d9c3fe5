"""`gantool tune --engine inline` and `gantool study`, as they are typed."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
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
    printed = json.loads(out)
    assert code == 0
    assert (printed["metric"], printed["trials"], printed["best"]) == ("fd", 4, 1)
    assert (printed["sentence"], printed["advice"], printed["confirmed"]) == (SENTENCE, "", [])
    assert printed["verdict"] == {
        "kind": "unconfirmed", "trial": 1, "values": [1.5], "own": [3.5], "ratio": None, "interval": None,
        "epochs": 2, "copies": False,
    }  # fmt: skip
    assert [(row["number"], row["state"], row["fd"]) for row in printed["rows"]] == [
        (0, "complete", 3.5), (1, "complete", 1.5), (2, "complete", 2.5), (3, "fail", None)
    ]  # fmt: skip
    assert printed["rows"][0]["values"] == {RATE: 2e-4, BETA: 0.5}
    story = {(row["sampler"], row["pruner"], row["tune_seed"]) for row in printed["rows"]}
    assert story == {(studied.tune.sampler, "none", 0)}


def test_status_names_interrupted_trials_and_changes_nothing(inside, command):
    study = made(inside / "s", tune__trials=4)
    for trial in (study.ask(), study.ask()):
        trial.report(7.5, 1)
    before = {path.name: path.read_bytes() for path in study.path.glob("*.*")}
    code, out, _ = command("study", "status", "s")
    assert code == 0
    assert "interrupted: trial 0, 1; to resume:\n  gantool tune s\n" in out
    assert [line.split()[-1] for line in out.splitlines()[1:3]] == ["interrupted", "interrupted"]
    again = made(inside / "again", tune__trials=1)
    again.ask()
    again.begin(again.confirmation, again.space.own_point, of=0, seed=7, epochs=2)
    again.begin(again.finishing, again.space.own_point, of=0, seed=7)
    again.begin(again.finishing, again.space.own_point, of=0, seed=None)
    out = command("study", "status", "again")[1]
    assert (
        "interrupted: trial 0, 0 seed 7, 0 seed 7 to the end, 0 to the end; to resume:\n  gantool tune again\n" in out
    )
    made(inside / "new")
    assert "not finished; to resume:\n  gantool tune new\n" in command("study", "status", "new")[1]
    printed = json.loads(command("study", "status", "s", "--json")[1])
    assert (printed["best"], printed["sentence"]) == (None, "")
    assert [(row["state"], row["fd"]) for row in printed["rows"]] == [("running", 7.5), ("running", 7.5)]
    assert {path.name: path.read_bytes() for path in study.path.glob("*.*")} == before


def test_export_writes_all_trials_or_the_best_recipe(studied, command, tmp_path):
    assert command("study", "export", "-o", tmp_path / "a.csv")[0] == 0
    table = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["state"], row["fd"]) for row in table][2:] == [("complete", "2.5"), ("fail", "")]
    code, out, _ = command("study", "export", "gan14-001", "-o", tmp_path / "a.json")
    assert (code, out) == (0, f"{tmp_path / 'a.json'}: all trials of runs/gan14-001\n")
    printed = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert printed == json.loads(command("study", "status", "--json")[1])
    assert command("study", "export", "-o", tmp_path / "a.yaml")[1].endswith("the best recipe of runs/gan14-001\n")
    assert engine.open_recipe(str(tmp_path / "a.yaml")).train.optimizer.lr == studied.trials()[1].params[RATE]
    code, _, err = command("study", "export", "-o", tmp_path / "a.txt")
    assert (code, err) == (2, f"error: {tmp_path / 'a.txt'}: expected a name that ends in .csv, .json or .yaml\n")
    code, _, err = command("study", "export", "-o", tmp_path / "a.csv")
    assert (code, err.endswith("already exists; name another file, or add --overwrite\n")) == (2, True)
    assert command("study", "export", "-o", tmp_path / "a.csv", "--overwrite")[0] == 0
    assert command("study", "export", "-o", tmp_path / "new" / "a.csv")[0] == 0
    code, _, err = command("study", "export", "-o", tmp_path / "a.csv" / "a.csv")
    assert (code, "a.csv: cannot be written (" in err) == (7, True)


def test_a_study_without_a_finished_trial_says_what_to_do(inside, command):
    made(inside / "s", tune__trials=4)
    for words in (["export", "s", "-o", "best.yaml"], ["promote", "s"]):
        code, _, err = command("study", *words)
        assert (code, err) == (2, "error: s: no trial has finished yet; continue with: gantool tune s\n")
    assert not (inside / "best.yaml").exists()
    assert command("study", "export", "s", "-o", "all.csv")[0] == 0
    code, _, err = command("study", "report", "s")
    assert (code, err) == (2, "error: s: no trial has ended yet; wait for the first one\n")


def test_promote_trains_the_winner_or_another_trial_for_the_full_length(studied, command, tmp_path):
    assert command("study", "promote", "--out", tmp_path / "run")[0] == 0
    recipe = engine.open_recipe(str(tmp_path / "run" / "recipe.yaml"))
    assert recipe.train.optimizer.lr == studied.trials()[1].params[RATE]
    assert [entry["epoch"] for entry in Run(tmp_path / "run").entries()] == [1, 2]
    more = ("--trial", 3, "--set", "train.epochs=1", "--set", f"{RATE}=1e-4", "--out", tmp_path / "other")
    assert command("study", "promote", "gan14-001", *more)[0] == 0
    recipe = engine.open_recipe(str(tmp_path / "other" / "recipe.yaml"))
    assert (recipe.train.optimizer.lr, recipe.train.epochs) == (1e-4, 1)
    assert recipe.train.optimizer.betas[0] == studied.trials()[3].params[BETA]
    code, _, err = command("study", "promote", "--trial", 4)
    assert (code, err) == (2, "error: runs/gan14-001: has no trial 4; its 4 trials count from 0\n")


def test_a_study_that_is_not_found_is_one_error(studied, command, tmp_path, monkeypatch):
    Run.create("a: 1\n", name="gan14", out=tmp_path / "run")
    code, _, err = command("study", "promote", tmp_path / "run")
    assert code == 2
    assert err == f"error: {tmp_path / 'run'}: is a run, not a study; a search makes a study: gantool tune RECIPE\n"
    code, _, err = command("study", "status", "gan14-002")
    assert code == 2
    assert "gan14-002: no study of this name and no directory with a study.json; here are: gan14-001\n" in err
    monkeypatch.chdir(tmp_path)
    code, _, err = command("study", "status")
    assert (code, err) == (2, "error: runs: no study here yet; make one with: gantool tune RECIPE\n")


@pytest.mark.parametrize(
    ("held", "best", "message"),
    [
        ("[", False, f"{Path('s/study.json')}: is damaged; restore a copy, or name one of its trials"),
        ({}, False, "s: is a study in which no trial has finished yet; continue with: gantool tune s"),
        ({}, True, "s: is a study of an older version; continue with: gantool tune s"),
        (
            {"run": "trials/0003"},
            True,
            f"{Path('s/trials/0003')}: is missing, but the study stands for it; name another of its trials",
        ),
    ],
)
def test_a_study_that_stands_for_no_training_says_why_and_what_to_do(held, best, message, inside, command):
    file = made(inside / "s").path / "study.json"
    file.write_text(held if held == "[" else json.dumps({"study": "gan14", **held}), encoding="utf-8")
    if best:
        (inside / "s" / "best.yaml").write_text("# of a search\n")
    assert command("sample", "s") == (2, "", f"error: {message}\n")


def test_a_study_is_searched_on_by_its_path_or_its_name(studied, command):
    for name in ("runs/gan14-001", "gan14-001"):
        code, out, err = command("tune", name, "--engine", "inline")
        assert code == 0, err
        assert "study runs/gan14-001: 4 of 4 trials done" in err
        assert f"\n{SENTENCE}\nrecipe: runs/gan14-001/best.yaml   images: runs/gan14-001/best.png\n" in out
        assert out.endswith("\n  gantool sample runs/gan14-001\n  gantool study report runs/gan14-001\n")
    assert not (studied.path.parent / "gan14-002").exists()
    assert "workers know" not in command("tune", "gan14-001", "--device", "mps")[2], "it remembers --engine inline"


def test_if_the_seeds_cannot_decide_the_command_that_would_is_printed(data_dir, inside, command):
    values = {0: [6.0, 6.5, 6.0, 6.2, 6.4], 1: [5.0, 5.0, 6.3, 5.5, 5.0]}
    seeds = []

    def plan(number, seed):
        seeds.append(seed)
        return values[number][len(set(seeds)) - 1]

    chosen = tiny(tune__trials=2, tune__epochs=2, tune__pruner="none", tune__confirm={"top": 1, "seeds": 4})
    study = run(chosen, inside / "s", data_dir, planned(plan))
    lines = command("study", "status", "s")[1].splitlines()
    assert lines[-3] == (
        "cannot tell yet whether trial 1 is better than your recipe: over 4 new seeds, it has fd 5.927 and your recipe "
        "6.772; the effect lies between 21 % lower and 5 % higher (95 % interval), after 2 epochs"
    )
    assert re.fullmatch(r"this would probably decide \(about \d+s\):", lines[-2])
    printed = re.fullmatch(r"  gantool tune s --set (tune\.confirm\.seeds=\d+)", lines[-1])[1]
    assert engine.open_recipe("s", parse_changes([printed])).tune.confirm.seeds > 4
    assert study.verdict().kind == "unsure"


def test_searches_are_compared_and_shared_points_are_reported(data_dir, tmp_path, command):
    settings = {"tune__sampler": "random", "tune__trials": 4, "tune__epochs": 2}
    first = run(tiny(**settings), tmp_path / "a", data_dir)
    run(tiny(**settings), tmp_path / "b", data_dir)
    run(tiny(**settings, tune__seed=1), tmp_path / "c", data_dir)
    code, out, err = command("study", "compare", *(tmp_path / name for name in "abc"))
    assert code == 0, err
    a, b, c = (Study(tmp_path / name).shown for name in "abc")
    assert f"{b} tried 4 points that {a} tried: they are not independent" in out
    assert f"{c} tried" not in out
    assert f"{a}: {results.sentence(first)}" in out
    code, out, _ = command("study", "compare", tmp_path / "a", tmp_path / "c", "--json")
    printed = json.loads(out)
    assert [(row["trials"], row["seed"], row["same_points"]) for row in printed] == [(4, 0, None), (4, 1, None)]
    lowest = [value for value in printed[0]["lowest"] if value is not None]
    assert lowest == sorted(lowest, reverse=True)
    assert lowest[-1] == min(trial.value for trial in first.finished())
    code, _, err = command("study", "compare", tmp_path / "a")
    assert (code, err) == (2, "error: study compare: 1 study given; name two or more\n")


# A real search, without Ray

SEARCH = ("tune", "gan14", *TYPED, "--set", "tune.epochs=1", "--trials", "2", "--engine", "inline")


@pytest.fixture(scope="module")
def real(data_dir, tmp_path_factory):
    """A directory with a study whose name must be quoted, and what its search printed and loaded."""
    folder = tmp_path_factory.mktemp("real")
    searched = (*SEARCH, "--out", "my study", "--data-dir", data_dir)
    done = gantool(*searched, folder=folder, variables={"PYTHONWARNINGS": "error", "PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


def test_an_inline_search_loads_no_ray_and_leaves_the_winner_its_images_and_a_table(real):
    folder, done = real
    loaded = set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.MULTILINE))
    assert {"torch", "optuna"} <= loaded
    assert "ray" not in loaded
    study = Study(folder / "my study")
    assert {path.name for path in study.path.iterdir() if path.name[0] != "."} == {
        *("artifacts", "best.yaml", "best.png", "comparison.png", "recipe.yaml", "study.db", "study.json"),
        *("trials.csv", "trials"),
    }
    assert sorted(path.name for path in (study.path / "trials").iterdir()) == ["0000", "0001"]
    for trial in study.trials():
        entries = Run(study.folder(trial.number)).entries()
        assert [entry["metrics/fd"] for entry in entries] == pytest.approx(list(trial.intermediate_values.values()))
        assert (study.folder(trial.number) / "checkpoints" / "best.pt").exists(), "both are in comparison.png"
    best = min(study.finished(), key=lambda trial: trial.value)
    assert engine.open_recipe(str(study.path / "best.yaml")).train.optimizer.lr == best.params[RATE]
    assert f"\n{results.sentence(study)}\n" in done.stdout
    assert done.stdout.endswith(
        "recipe: my study/best.yaml   images: my study/best.png\n"
        "beside your recipe's own values: my study/comparison.png\n"
        "  gantool sample 'my study'\n  gantool study report 'my study'\n"
    )


def test_every_printed_command_works_in_the_directory_where_it_was_printed(real, tmp_path, monkeypatch, command):
    folder, done = real
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GANTOOL_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    printed = [*re.findall(r"^  gantool (.*)", done.stdout, re.MULTILINE), "tune 'my study' --trials 3"]
    for line in printed:
        code, _, err = command(*shlex.split(line))
        assert (code, "decoding" in err) == (0, False), err
    assert len(Study(folder / "my study").trials()) == 3
    assert not list(tmp_path.iterdir()), "the study remembers its data, and that it needs no Ray"
    assert "ray" not in sys.modules or "starting workers" not in err


def test_a_study_is_sampled_animated_scored_and_compared_as_the_run_of_its_winner(real, monkeypatch, command):
    folder, _ = real
    monkeypatch.chdir(folder)
    assert command(*SEARCH, "--set", "tune.seed=7", "--out", "b")[0] == 0
    place = Path("b") / "trials" / f"{Study(folder / 'b').winner().number:04d}"
    assert command("sample", "b") == (0, f"{place / 'sample-0-15.png'}: 16 images of epoch 1\n", "")
    assert command("animate", "b")[1] == f"{place / 'training.gif'}: 1 frame\n"
    assert f"\n{place}\n" in command("score", "b", "--metrics", "fd", "--images", 64)[1]
    code, out, err = command("compare", "my study", "b", "--images", 64)
    assert code == 0, err
    winners = {f"{name}/{Study(folder / name).winner().number:04d}" for name in ("my study", "b")}
    assert all(winner in out for winner in winners)


def test_too_few_images_to_tell_settings_apart_are_refused_and_few_are_noted(inside, command):
    for name, count in (("ten", 10), ("thirty", 30)):
        (inside / name).mkdir()
        for index in range(count):
            Image.new("L", (14, 14), 8 * index).save(inside / name / f"{index}.png")
    sets = ("--set", "data.source=ten", "--set", "data.size=14")
    code, _, err = command("tune", "gan14", *TYPED, *sets, "--engine", "inline", "--out", "a")
    assert (code, err.splitlines()[-1]) == (
        3,
        f"error: {inside / 'ten'}: has 10 images, too few to tell settings apart; give it 16 or more, or use "
        "gantool train",
    )
    sets = ("--set", "data.source=thirty", "--set", "data.size=14", "--set", "tune.epochs=1")
    code, _, err = command("tune", "gan14", *TYPED, *sets, "--trials", 1, "--engine", "inline", "--out", "b")
    assert code == 0, err
    assert "learning from 18 images; 12 more are held out; with fewer than 60 images fd ranks" in err
