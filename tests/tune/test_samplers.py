"""What chooses the next trial and what stops one: each sampler and each pruner that a recipe can name."""

from __future__ import annotations

import itertools
import math
import shutil

import optuna
import pytest
from gantool.errors import RecipeError
from gantool.schedule import measured_epochs
from gantool.training import engine
from gantool.tune import samplers
from gantool.tune.study import Study
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from test_search import BETA, RATE, bowl, quick, reseeded, rows, run, states, tiny

SAMPLERS = ["tpe", "random", "gp", "cmaes"]


def far(point):
    """How far a point is from the best one."""
    return (math.log10(point[RATE]) + 3) ** 2 + 4 * (point[BETA] - 0.2) ** 2


def asked(study, count):
    """Ask a study for trials, and tell it how far each is; the first is the recipe's own."""
    for _ in range(count):
        trial = study.ask()
        study.search.tell(trial, far(trial.params))
    return [trial.params for trial in study.trials()]


def made(path, **changes):
    path.mkdir()
    return Study.create(path, tiny(**changes))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_stays_inside_of_the_space_and_comes_nearer_to_the_best_point(sampler, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    study = made(tmp_path / "s", tune__sampler=sampler)
    points = asked(study, 16)
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


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_seeds_share_no_point(sampler, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    first, second = (asked(made(tmp_path / str(seed), tune__sampler=sampler, tune__seed=seed), 24) for seed in (0, 1))
    assert first[0] == second[0], "the recipe's own values"
    points = [str(point) for point in first[1:] + second[1:]]
    assert len(set(points)) == len(points) == 46


def test_the_samplers_of_one_seed_do_not_begin_with_the_same_points(tmp_path):
    pytest.importorskip("cmaes")
    begun = {sampler: asked(made(tmp_path / sampler, tune__sampler=sampler), samplers.STARTUP) for sampler in SAMPLERS}
    for one, other in itertools.combinations(begun.values(), 2):
        assert one[0] == other[0], "the recipe's own values"
        assert not any(point in other for point in one[1:])


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_a_derived_seed_is_of_its_purpose_alone(seed):
    purposes = [("sampler", name, number) for name in SAMPLERS for number in range(100)] + [("confirm", 0)]
    found = [samplers.derived(seed, *purpose) for purpose in purposes]
    assert len(set(found)) == len(purposes)
    assert all(0 <= one < 2**32 for one in found)
    assert found == [samplers.derived(seed, *purpose) for purpose in purposes]


# A study of version 0.1, in which 1 - value stands under the key's own name

SECOND = "train.optimizer.betas.1"
SPACE = {
    RATE: {"low": 1e-5, "high": 1e-1, "log": True},
    SECOND: {"low": 0.9, "high": 0.9999, "log_complement": True},
}
OLD_VALUES = [0.999, 0.99, 0.9995]  # of the second beta


def with_trials(path, second, **changes):
    """A study with three finished trials that were written by Optuna; `second` is its name of the second beta."""
    study = made(path, tune__space=SPACE, **changes)
    inner = optuna.load_study(study_name="gan14", storage=f"sqlite:///{(path / 'study.db').as_posix()}")
    spans = {RATE: FloatDistribution(1e-5, 1e-1, log=True), second: FloatDistribution(1 - 0.9999, 1 - 0.9, log=True)}
    for number, value in enumerate(OLD_VALUES):
        inner.add_trial(
            create_trial(
                value=3.0 - number / 10,
                params={RATE: 2e-4 * (1 + number), second: 1 - value},
                distributions=spans,
                intermediate_values={4: 3.0 - number / 10},
                user_attrs={"own": True} if number == 0 else {},
            )
        )
    return study


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_with_the_old_names_of_parameters_is_asked_for_trials(sampler, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    study = with_trials(tmp_path / "s", SECOND, tune__sampler=sampler)
    for _ in range(5):
        trial = study.ask()
        assert set(trial.params) == {RATE, f"1 - {SECOND}"}
        assert 0.9 <= study.space.changes(trial.params)[SECOND] <= 0.9999
        study.search.tell(trial, 2.0)


def test_a_sampler_learns_from_trials_with_the_old_names(tmp_path):
    """The same trials under the old and the new names lead to the same next points."""
    old, new = (with_trials(tmp_path / str(len(name)), name) for name in (SECOND, f"1 - {SECOND}"))
    for study in (old, new):  # one more than a sampler draws at random
        for _ in range(samplers.STARTUP - len(OLD_VALUES) + 1):
            study.search.tell(study.ask(), 2.0)
    assert [trial.params for trial in old.trials()[3:]] == [trial.params for trial in new.trials()[3:]]
    assert all(SECOND in trial.params for trial in old.trials()[:3]), "they stay as they were written"


def test_a_study_with_the_old_names_of_parameters_goes_on_and_is_confirmed(data_dir, tmp_path):
    with_trials(tmp_path / "s", SECOND)
    chosen = tiny(tune__space=SPACE, tune__confirm={"top": 2, "seeds": 4})
    study = run(chosen, tmp_path / "s", data_dir, quick(bowl))
    assert len(study.spent()) == len(study.trials()) == 6
    table = rows(study.path)
    assert [float(row[SECOND]) for row in table][:3] == pytest.approx(OLD_VALUES)
    assert all(0.9 <= float(row[SECOND]) <= 0.9999 for row in table)
    assert {state for *_, state in reseeded(study)} == {"COMPLETE"}
    numbers = {number for number, *_ in reseeded(study)}
    assert numbers == {0, *(trial.number for trial in study.candidates())}
    for training in study.runs():
        of = study.trials()[training.user_attrs["of"]]
        assert study.space.changes(training.params) == study.space.changes(of.params)


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


@pytest.mark.parametrize(
    ("curve", "stopped"),
    [
        ({25: 41.0}, True),  # more than 4 times the lowest after a quarter
        ({25: 40.0}, False),
        ({25: 30.0, 50: 17.0}, True),  # more than twice after a half
        ({25: 30.0, 50: 16.0}, False),
        ({25: 16.0, 50: 40.0}, False),  # its lowest so far counts
        ({25: 8.0, 50: 8.0, 75: 8.0}, False),  # 4/3 of what a stopped trial had
        ({25: 8.1, 50: 8.1, 75: 8.1}, True),
    ],
)
def test_the_ratio_pruner_stops_what_is_many_times_the_lowest_and_fewer_times_the_later(curve, stopped):
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


def test_the_first_trial_of_all_is_never_stopped_by_its_ratio():
    study = optuna.create_study(pruner=samplers.pruner(engine.open_recipe("gan14").tune, 100))
    trial = study.ask()
    trial.report(1e9, 99)
    assert not trial.should_prune()


@pytest.mark.parametrize("every", [4, None])
@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median", "none"])
def test_a_pruner_stops_what_is_hopeless_and_never_the_recipes_own_nor_within_the_first_fifth(
    pruner, every, data_dir, tmp_path
):
    settings = {"tune__epochs": 25, "tune__sampler": "random", "train__evaluate_every": every}
    study = run(tiny(tune__trials=12, tune__pruner=pruner, **settings), tmp_path / "s", data_dir, quick(hopeless))
    own, *others = study.trials()
    assert own.state == TrialState.COMPLETE
    assert max(own.intermediate_values) == 25
    stopped = [trial for trial in others if trial.state == TrialState.PRUNED]
    assert bool(stopped) == (pruner != "none"), states(study)
    measured = measured_epochs(25, every=every)
    assert [tuple(trial.intermediate_values) for trial in study.trials()] == [
        measured[: len(trial.intermediate_values)] for trial in study.trials()
    ]
    for trial in stopped:
        last, score = max(trial.intermediate_values.items())
        assert 5 <= last < 25
        assert any(other.intermediate_values.get(last, math.inf) < score for other in others), "it was not the best"
    best = min(others, key=lambda trial: trial.intermediate_values[1])
    assert best.state == TrialState.COMPLETE
