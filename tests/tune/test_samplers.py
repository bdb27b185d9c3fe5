"""The samplers that choose the next trial, and the pruners that stop one."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import random
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
from gantool.errors import RecipeError
from gantool.recipe.blocks import Tune
from gantool.training import engine
from gantool.tune import samplers
from gantool.tune.study import Study
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from searches import BETA, RATE, made, run, tiny

SAMPLERS = [
    "tpe",
    "random",
    pytest.param("gp", marks=pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")),
    "cmaes",
]


@pytest.fixture(autouse=True)
def packages(request):
    """Skip a sampler whose package is not installed."""
    sampler = request.node.callspec.params.get("sampler", "tpe") if hasattr(request.node, "callspec") else "tpe"
    pytest.importorskip({"gp": "scipy", "cmaes": "cmaes"}.get(sampler, "optuna"))


def far(point):
    """Return how far a point is from the best one."""
    return (math.log10(point[RATE]) + 3) ** 2 + 4 * (point[BETA] - 0.2) ** 2


def suggested(study, count):
    """Return the values of a study's trials after some more, whose metric is the distance from the best point."""
    for _ in range(count):
        trial = study.ask()
        study.search.tell(trial, far(trial.params))
    return [trial.params for trial in study.trials()]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_stays_in_the_space_and_depends_only_on_the_trials_and_the_seed(sampler, tmp_path):
    points = suggested(made(tmp_path / "s", tune__sampler=sampler), 10)
    assert points[0] == {RATE: 2e-4, BETA: 0.5}, "the recipe's own values"
    assert all(1e-5 <= point[RATE] <= 1e-1 and 0 <= point[BETA] <= 0.9 for point in points)
    assert sampler == "random" or min(map(far, points)) < far(points[0])
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    again, copy = (suggested(Study(tmp_path / name, access="write"), 2) for name in ("s", "copy"))
    assert again == copy, "an interrupted search resumes as if it had not been interrupted"
    other = suggested(made(tmp_path / "t", tune__sampler=sampler, tune__seed=1), 8)
    drawn = [str(point) for point in again[1:] + other[1:]]
    assert len(set(drawn)) == len(drawn), "no seed repeats itself or another one"


@pytest.mark.parametrize("sampler", ["cmaes"])
def test_the_state_of_a_sampler_is_drawn_again_and_never_read_from_the_database(sampler, tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    whole = suggested(made(tmp_path / "whole", tune__sampler=sampler, tune__trials=30), 24)
    cut = made(tmp_path / "cut", tune__sampler=sampler, tune__trials=30)
    suggested(cut, 14)
    assert not any(trial.system_attrs for trial in cut.trials())
    for trial in cut.trials():
        add_attribute(tmp_path / "cut", trial, "cma:optimizer:0", pickle.dumps(Bomb()).hex())
        add_attribute(tmp_path / "cut", trial, "cma:generation", 0)
    assert suggested(Study(tmp_path / "cut", access="write"), 10) == whole
    assert not (tmp_path / "exploded").exists()


def add_attribute(folder, trial, name, value):
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
        row = (trial._trial_id, name, json.dumps(value))
        database.execute("INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, ?, ?)", row)


def test_a_derived_seed_depends_only_on_its_purpose():
    purposes = [("sampler", name, number) for name in ("tpe", "gp") for number in range(100)] + [("confirm", 0)]
    found = [samplers.derived(seed, *purpose) for seed in (0, 1, 2**31) for purpose in purposes]
    assert len(set(found)) == len(found)
    assert all(0 <= one < 2**32 for one in found)
    assert samplers.derived(1, "confirm", 0) == 1344251352


# A study of version 0.1, in which 1 - value stands under the key's own name

SECOND = "train.optimizer.betas.1"
SPACE = {
    RATE: {"low": 1e-5, "high": 1e-1, "log": True},
    SECOND: {"low": 0.9, "high": 0.9999, "log_complement": True},
}


def with_trials(path, second, **changes):
    """Make a study with three finished trials that were written by Optuna; `second` is its name of the second beta."""
    study = made(path, tune__space=SPACE, **changes)
    inner = optuna.load_study(study_name="gan14", storage=f"sqlite:///{(path / 'study.db').as_posix()}")
    spans = {RATE: FloatDistribution(1e-5, 1e-1, log=True), second: FloatDistribution(1 - 0.9999, 1 - 0.9, log=True)}
    for number, value in enumerate([0.999, 0.99, 0.9995]):
        params, own = {RATE: 2e-4 * (1 + number), second: 1 - value}, {"own": True} if number == 0 else {}
        inner.add_trial(create_trial(value=3.0 - number / 10, params=params, distributions=spans, user_attrs=own))
    return study


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_learns_from_trials_with_the_old_names_as_from_those_with_the_new_ones(sampler, tmp_path):
    old, new = (
        with_trials(tmp_path / str(len(name)), name, tune__sampler=sampler) for name in (SECOND, f"1 - {SECOND}")
    )
    for study in (old, new):  # one more than a sampler draws at random
        for _ in range(samplers.STARTUP - 3 + 1):
            study.search.tell(study.ask(), 2.0)
    assert [trial.params for trial in old.trials()[3:]] == [trial.params for trial in new.trials()[3:]]
    assert all(SECOND in trial.params for trial in old.trials()[:3]), "they stay as they were written"
    assert all(0.9 <= old.space.changes(trial.params)[SECOND] <= 0.9999 for trial in old.trials())


def test_a_sampler_whose_package_is_missing_says_which_and_leaves_no_directory(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    for sampler, package in (("gp", "scipy"), ("cmaes", "cmaes")):
        with pytest.raises(RecipeError) as caught:
            run(tiny(tune__sampler=sampler), tmp_path / "s", data_dir)
        assert str(caught.value) == f"tune.sampler: {sampler} needs {package}; pip install 'gantool[samplers]'"
        assert not (tmp_path / "s").exists()
    samplers.sampler(tiny().tune, 0)


@pytest.mark.parametrize(
    ("curve", "stopped"),
    [
        ({25: 41.0}, True),  # more than 4 times the lowest after a quarter
        ({25: 40.0}, False),
        ({25: 30.0, 50: 17.0}, True),  # more than twice after a half
        ({25: 30.0, 50: 16.0}, False),
        ({25: 16.0, 50: 40.0}, False),  # its lowest so far counts
        ({25: 8.0, 50: 8.0, 75: 8.0}, False),  # 4/3 of the value of a stopped trial
        ({25: 8.1, 50: 8.1, 75: 8.1}, True),
    ],
)
def test_the_ratio_pruner_stops_a_trial_that_is_many_times_the_lowest_and_fewer_times_the_later(curve, stopped):
    study = optuna.create_study(pruner=samplers.pruner(engine.open_recipe("gan14").tune, 100))
    for values in ({25: 10.0, 50: 8.0, 75: 9.0, 100: 9.0}, {25: 20.0, 50: 11.0, 75: 6.0}, {25: 50.0}, {}):
        other = study.ask()
        for epoch, value in values.items():
            other.report(value, epoch)
        study.tell(other, state=TrialState.PRUNED if values else TrialState.FAIL)
    trial = study.ask()
    assert not trial.should_prune(), "nothing is known of it"
    for epoch, value in curve.items():
        assert not trial.should_prune()
        trial.report(value, epoch)
    assert trial.should_prune() == stopped
    first = optuna.create_study(pruner=samplers.pruner(engine.open_recipe("gan14").tune, 100)).ask()
    first.report(1e9, 99)
    assert not first.should_prune(), "nothing is lower"


@pytest.mark.parametrize("name", ["successive_halving", "hyperband", "median", "none"])
def test_a_pruner_stops_hopeless_trials_and_none_within_the_first_fifth(name):
    settings = Tune(space={RATE: [1e-3]}, pruner=name)
    study, drawn = optuna.create_study(study_name="search", pruner=samplers.pruner(settings, 25)), random.Random(0)
    offsets = [drawn.uniform(0, 5) for _ in range(12)]
    for offset in offsets:
        trial, stopped = study.ask(), False
        for epoch in range(1, 26):
            trial.report(1 + offset + 1 / epoch, epoch)
            stopped = epoch < 25 and trial.should_prune()
            if stopped:
                break
        study.tell(trial, None if stopped else 1 + offset, TrialState.PRUNED if stopped else TrialState.COMPLETE)
    ended = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert bool(ended) == (name != "none")
    assert all(5 <= trial.last_step < 25 for trial in ended)
    assert study.trials[offsets.index(min(offsets))].state == TrialState.COMPLETE
