"""A search from its first trial to its confirmed winner, inline, with objectives that take no time."""

from __future__ import annotations

import csv
import itertools
import math
import os
import random
import re
from pathlib import Path

import pytest
from gantool import models
from gantool.errors import ResourceError, TrainingError
from gantool.recipe import load as recipes
from gantool.schedule import measured_epochs
from gantool.training import engine
from gantool.tune.board import Board
from gantool.tune.search import SearchBackend, search
from gantool.tune.study import Study
from gantool.tune.trials import TrialEnvironment, Trials
from optuna.trial import TrialState

RATE, BETA = "train.optimizer.lr", "train.optimizer.betas.0"
TINY = {
    "data.source": "digits",
    "data.size": 8,
    "model.generator": [16],
    "model.discriminator": [16],
    "train.evaluate_images": 64,
    "train.extractors": ["rand"],
    "tune.epochs": 4,
    "tune.trials": 6,
    "tune.confirm": None,
    "tune.finish": None,
    "tune.space": {
        RATE: {"low": 1e-5, "high": 1e-1, "log": True},
        BETA: {"low": 0.0, "high": 0.9},
    },
}


SEARCH = {"tune__trials": 5, "tune__epochs": 2, "tune__pruner": "none", "train__seed": 7}


def tiny(**changes):
    """A recipe of which a search takes milliseconds a trial; `__` stands for a dot."""
    return engine.open_recipe("gan14", TINY | {key.replace("__", "."): value for key, value in changes.items()})


def quick(score, diagnoses=lambda recipe: []):
    """What measures `score(recipe, epoch)` in place of training, after the epochs that a trial is measured after."""

    def objective(config, interrupted):
        recipe = recipes.parse(config["recipe"], "trial", models.KINDS)
        last = recipe.train.epochs
        Path(config["folder"]).mkdir(exist_ok=True)
        best, best_epoch = math.inf, 0
        for epoch in measured_epochs(last, every=recipe.train.evaluate_every):
            found = score(recipe, epoch)
            best, best_epoch = min((best, best_epoch), (found, epoch))
            yield {
                "score": found,
                "best": best,
                "best_epoch": best_epoch,
                "epoch": epoch,
                "seconds": 0.01 * epoch,
                "diagnoses": diagnoses(recipe),
                "copies": "memorised" in diagnoses(recipe),
                "finished": epoch == last,
                "resumed": 0,
            }
            if interrupted() and epoch < last:
                yield {"interrupted": True}
                return

    return objective


def bowl(recipe, epoch):
    """The better, the nearer the rate is to 1e-3 and the first beta to 0.3; the recipe's own is far off."""
    rate, beta = recipe.train.optimizer.lr, recipe.train.optimizer.betas[0]
    return 1 + (math.log10(rate) + 3) ** 2 + (beta - 0.3) ** 2 + 1 / epoch


def planned(plan):
    """What measures `plan(number, seed)` of each trial, or fails with the reason that this is, or with a diagnosis."""

    def objective(config, interrupted):
        number = int(config["label"].partition(" ")[0])
        value, *codes = plan(number, recipes.parse(config["recipe"], "trial", models.KINDS).train.seed)
        if isinstance(value, str):
            yield {"why": value}
        else:
            yield from quick(lambda recipe, epoch: value + 1 / epoch, lambda recipe: codes)(config, interrupted)

    return objective


def run(recipe, out, data_dir, objective=None, *, stopped=None, fresh=False, as_json=False, way=None):
    """Search inline."""
    with Board(recipe, as_json=as_json) as board:
        return search(
            recipe,
            out=out,
            fresh=fresh,
            data_dir=data_dir,
            board=board,
            stopped=[] if stopped is None else stopped,
            way=way or SearchBackend(engine="inline"),
            objective=objective or quick(bowl),
        )


def rows(path):
    return list(csv.DictReader((path / "trials.csv").read_text(encoding="utf-8").splitlines()))


def states(study):
    return [trial.state.name for trial in study.trials()]


def reseeded(study):
    """What was trained again: the trial and the seed of each, and how it ended."""
    runs = study.confirmation.get_trials(deepcopy=False)
    return [(run.user_attrs["of"], run.user_attrs["seed"], run.state.name) for run in runs]


# What is found


def test_a_search_finds_better_values_than_the_recipes_own_and_stops_what_is_hopeless(data_dir, tmp_path):
    study = run(tiny(tune__trials=12), tmp_path / "s", data_dir)
    own, best = study.trials()[0], study.winner()
    assert own.params == {RATE: 2e-4, BETA: 0.5}
    assert own.state == TrialState.COMPLETE
    assert best.value < own.value - 0.3
    assert {"COMPLETE", "PRUNED"} == set(states(study))
    assert not (study.path / "ray").exists()
    reasons = [row["why"] for row in rows(study.path) if row["state"] == "pruned"]
    assert all(re.fullmatch(r"trial \d+ had \d\.\d{3} by epoch [1-3]", reason) for reason in reasons), reasons
    assert [row["state"] for row in rows(study.path)] == [state.lower() for state in states(study)]


def test_the_best_recipe_is_whole_and_the_best_so_far_whenever_a_trial_starts(data_dir, tmp_path):
    seen, study = [], None

    def score(recipe, epoch):
        path = tmp_path / "s" / "best.yaml"
        if epoch == 1 and path.exists():
            seen.append((engine.open_recipe(str(path)).train.optimizer.lr, path.stat().st_mtime_ns))
            finished = [(float(row["fd"]), float(row[RATE])) for row in rows(path.parent) if row["state"] == "complete"]
            assert seen[-1][0] == min(finished)[1]
        return bowl(recipe, epoch)

    study = run(tiny(tune__trials=10), tmp_path / "s", data_dir, quick(score))
    assert len(seen) == 9
    assert len(set(seen)) > 2
    assert engine.open_recipe(str(study.path / "best.yaml")).train.epochs == study.recipe.train.epochs


def test_a_first_trial_that_was_killed_before_its_first_measurement_is_still_the_recipes_own(data_dir, tmp_path):
    (tmp_path / "s").mkdir()
    Study.create(tmp_path / "s", tiny(tune__trials=3)).ask()
    study = run(tiny(tune__trials=3), tmp_path / "s", data_dir)
    assert [trial.user_attrs.get("own", False) for trial in study.trials()] == [True, False, False]
    assert study.trials()[0].params == {RATE: 2e-4, BETA: 0.5}
    assert "RUNNING" not in states(study)


# What goes wrong


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_search_goes_on(data_dir, tmp_path):
    inner = quick(bowl)

    def objective(config, interrupted):
        if config["label"] in "12":
            yield {"why": f"diverged: trial {config['label']}"}
        else:
            yield from inner(config, interrupted)

    study = run(tiny(), tmp_path / "s", data_dir, objective)
    assert states(study)[1:3] == ["FAIL", "FAIL"]
    assert [row["why"] for row in rows(study.path)][:4] == ["", "diverged: trial 1", "diverged: trial 2", ""]
    assert len(study.finished()) >= 1


def test_where_no_trial_finishes_the_commonest_reason_is_told_again_and_again(data_dir, tmp_path):
    def objective(config, interrupted):
        yield {"why": "a" if config["label"] == "0" else "b"}

    for _ in range(2):
        with pytest.raises(TrainingError, match="s: no trial finished; most often: b"):
            run(tiny(tune__trials=3), tmp_path / "s", data_dir, objective)
    assert [row["why"] for row in rows(tmp_path / "s")] == ["a", "b", "b"]


def test_a_full_disk_ends_the_search_and_the_trial_goes_on_when_there_is_room(data_dir, tmp_path):
    inner = quick(bowl)

    def objective(config, interrupted):
        yield from itertools.islice(inner(config, interrupted), 2)
        yield {"halt": "log.jsonl: the disk is full; make room and start again"}

    with pytest.raises(ResourceError, match=r"log.jsonl: the disk is full; make room") as caught:
        run(tiny(), tmp_path / "s", data_dir, objective)
    assert caught.value.exit_code == 7
    study = Study(tmp_path / "s")
    assert states(study) == ["RUNNING"]
    study = run(tiny(), tmp_path / "s", data_dir)
    assert len(study.spent()) == len(study.trials()) == 6


def test_a_bug_of_gantool_is_not_taken_for_a_failed_trial(data_dir, tmp_path):
    inner, closed = quick(bowl), []

    def objective(config, interrupted):
        try:
            yield next(inner(config, interrupted))
            if config["label"] == "1":
                raise ZeroDivisionError("a bug")
            yield from inner(config, interrupted)
        finally:
            closed.append(config["label"])

    with pytest.raises(ZeroDivisionError):
        run(tiny(), tmp_path / "s", data_dir, objective)
    assert closed == ["0", "1"]
    assert states(Study(tmp_path / "s")) == ["COMPLETE", "RUNNING"]
    study = run(tiny(), tmp_path / "s", data_dir)
    assert len(study.spent()) == 6


def at_third(action):
    """Do something to the study as the third trial begins."""

    count = itertools.count()

    def score(recipe, epoch):
        if epoch == 1 and next(count) == 2:
            action()
        return bowl(recipe, epoch)

    return quick(score)


@pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be moved there")
def test_a_study_that_can_no_longer_be_written_ends_the_search_with_one_error(data_dir, tmp_path):
    study = tmp_path / "s"
    aside = tmp_path / "aside.db"
    with pytest.raises(ResourceError, match=r"s: the study cannot be written \(.*readonly.*\); make room, or check"):
        run(tiny(), study, data_dir, at_third(lambda: (study / "study.db").rename(aside)))
    aside.rename(study / "study.db")
    found = run(tiny(), study, data_dir)
    assert len(found.spent()) == len(found.trials()) == 6


def test_a_database_that_is_spoilt_under_way_ends_the_search_with_one_error(data_dir, tmp_path):
    path = tmp_path / "s" / "study.db"
    garbage = b"no database, but long enough to look like one" * 2000
    with pytest.raises(Exception, match=r"study.db: not a study, or damaged; it is left as it is") as caught:
        run(tiny(), tmp_path / "s", data_dir, at_third(lambda: path.write_bytes(garbage)))
    assert caught.value.exit_code == 5


# The same values at any speed


def drive(study, data_dir, *, order, slots=3, measurements=None):
    """An engine of some slots whose trials take turns at random; stops after a number of measurements."""
    stopped: list[int] = []
    board = Board(study.recipe)
    trials = Trials(study, board, TrialEnvironment(data_dir, "", "cpu", slots=slots), stopped)
    board.begin(study, trials)
    turn, names, live = random.Random(order), itertools.count(), {}
    objective, taken = quick(bowl), itertools.count(1)
    while not trials.finished:
        while len(live) < slots:
            key = str(next(names))
            config = trials.next(key)
            if config is None:
                break
            live[key] = objective(config, lambda: trials.stopping)
        key = turn.choice(sorted(live))
        result = next(live[key], None)
        if measurements and next(taken) == measurements:
            stopped.append(2)
        if result is None or trials.measured(key, result):
            live.pop(key).close()
            trials.ended(key, died=False)
    assert trials.failure is None
    return study


def sequence(study):
    return [(trial.params, trial.state.name) for trial in study.trials()]


def made(path: Path, **changes) -> Study:
    path.mkdir(parents=True)
    return Study.create(path, tiny(**changes))


@pytest.mark.parametrize("pruner", ["ratio", "median", "successive_halving", "hyperband"])
def test_deterministic_tries_and_stops_the_same_whichever_trial_is_faster(pruner, data_dir, tmp_path):
    settings = {"tune__trials": 9, "tune__pruner": pruner, "tune__deterministic": True}
    first, second = (
        sequence(drive(made(tmp_path / str(order) / "s", **settings), data_dir, order=order)) for order in (1, 2)
    )
    assert first == second
    assert {"COMPLETE", "PRUNED"} == {state for _, state in first}


@pytest.mark.parametrize("sampler", ["random", "cmaes", "gp"])
def test_deterministic_holds_for_every_sampler(sampler, data_dir, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    settings = {"tune__trials": 9, "tune__sampler": sampler, "tune__deterministic": True}
    first, second = (
        sequence(drive(made(tmp_path / str(order) / "s", **settings), data_dir, order=order)) for order in (1, 2)
    )
    assert first == second


def test_without_deterministic_the_faster_trial_decides_what_is_tried_next(data_dir, tmp_path):
    first, second = (
        sequence(drive(made(tmp_path / str(order) / "s", tune__trials=9), data_dir, order=order)) for order in (1, 2)
    )
    assert first != second


@pytest.mark.parametrize("measurements", [4, 13])
def test_deterministic_goes_on_the_same_after_a_stop_within_a_batch(measurements, data_dir, tmp_path):
    settings = {"tune__trials": 9, "tune__deterministic": True}
    whole = sequence(drive(made(tmp_path / "whole" / "s", **settings), data_dir, order=1))
    study = drive(made(tmp_path / "cut" / "s", **settings), data_dir, order=2, measurements=measurements)
    assert "RUNNING" in states(study)
    assert len(study.trials()) < 9
    assert len(study.trials()) % 3 == 0
    study = drive(Study(tmp_path / "cut" / "s"), data_dir, order=3)
    assert sequence(study) == whole
