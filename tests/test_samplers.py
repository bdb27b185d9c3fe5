"""What chooses the next trial and what stops one: each sampler and each pruner that a recipe can name."""

from __future__ import annotations

import math
import shutil

import pytest
from optuna.trial import TrialState
from test_search import BETA, RATE, quick, run, states, tiny

from gantool.errors import RecipeError
from gantool.schedule import measured_epochs
from gantool.tune import samplers
from gantool.tune.study import Study

SAMPLERS = ["tpe", "random", "gp", "cmaes"]


def far(point):
    """How far a point is from the best one."""
    return (math.log10(point[RATE]) + 3) ** 2 + 4 * (point[BETA] - 0.2) ** 2


def asked(home, count):
    """Ask a study for trials, and tell it how far each is; the first is the recipe's own."""
    for _ in range(count):
        trial = home.ask()
        home.search.tell(trial, far(trial.params))
    return [trial.params for trial in home.trials()]


def made(path, **changes):
    path.mkdir()
    return Study.create(path, tiny(**changes))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_stays_inside_of_the_space_and_comes_nearer_to_the_best_point(sampler, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    home = made(tmp_path / "s", tune__sampler=sampler)
    points = asked(home, 16)
    assert all(1e-5 <= point[RATE] <= 1e-1 and 0 <= point[BETA] <= 0.9 for point in points)
    assert points[0] == {RATE: 2e-4, BETA: 0.5}
    assert far(points[0]) > 0.8
    assert min(map(far, points)) < 0.25
    assert len({str(point) for point in points}) == 16


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_comes_next_depends_on_the_trials_and_the_seed_and_not_on_when_the_search_began(sampler, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    settings = {"tune__sampler": sampler}
    old = asked(made(tmp_path / "s", **settings), 8)
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    again, copy = (asked(Study(tmp_path / name), 2) for name in ("s", "copy"))
    assert again == copy, "a search that was interrupted goes on as if it had not been"
    assert again[:8] == old
    assert not any(point in old for point in again[8:]), "and does not repeat itself"
    assert asked(made(tmp_path / "t", **settings, tune__seed=100), 3)[1:] != old[1:3]


def test_a_sampler_whose_package_is_missing_says_which_and_leaves_no_directory(data_dir, tmp_path, monkeypatch):
    found = samplers.find_spec
    monkeypatch.setattr(samplers, "find_spec", lambda name: None if name in {"scipy", "cmaes"} else found(name))
    for sampler, package in (("gp", "scipy"), ("cmaes", "cmaes")):
        with pytest.raises(RecipeError) as caught:
            run(tiny(tune__sampler=sampler), tmp_path / "s", data_dir)
        assert str(caught.value) == f"tune.sampler: {sampler} needs {package}; pip install 'gantool[samplers]'"
        assert not (tmp_path / "s").exists()
    samplers.sampler(tiny().tune, 0)


def hopeless(recipe, epoch):
    """Bad from the first epoch to the last, but for rates near 1e-3; the recipe's own is the worst of all."""
    off = abs(math.log10(recipe.train.optimizer.lr) + 3)
    return 100.0 if recipe.train.optimizer.lr == 2e-4 else 1 + off + 1 / epoch


@pytest.mark.parametrize("every", [4, None])
@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median", "none"])
def test_a_pruner_stops_what_is_hopeless_and_never_the_recipes_own_nor_within_the_first_fifth(
    pruner, every, data_dir, tmp_path
):
    settings = {"tune__epochs": 25, "tune__sampler": "random", "train__evaluate_every": every}
    home = run(tiny(tune__trials=12, tune__pruner=pruner, **settings), tmp_path / "s", data_dir, quick(hopeless))
    own, *others = home.trials()
    assert own.state == TrialState.COMPLETE
    assert max(own.intermediate_values) == 25
    stopped = [trial for trial in others if trial.state == TrialState.PRUNED]
    assert bool(stopped) == (pruner != "none"), states(home)
    measured = measured_epochs(25, every=every)
    assert [tuple(trial.intermediate_values) for trial in home.trials()] == [
        measured[: len(trial.intermediate_values)] for trial in home.trials()
    ]
    for trial in stopped:
        last, score = max(trial.intermediate_values.items())
        assert 5 <= last < 25
        assert any(other.intermediate_values.get(last, math.inf) < score for other in others), "it was not the best"
    best = min(others, key=lambda trial: trial.intermediate_values[1])
    assert best.state == TrialState.COMPLETE
