"""A search from its first trial to its end, inline, with scripted trials."""

from __future__ import annotations

import itertools
import math
import os
import re
import sqlite3
import time

import optuna
import pytest
from gantool.errors import CheckpointError, DiskError, ResourceError, TrainingError
from gantool.runs import Run
from gantool.training import engine
from gantool.tune import earlier, results
from gantool.tune.events import SearchEnded, SearchStarted, TrialEvent
from gantool.tune.race import CLEARLY_WORSE, SELECTION_SEEDS
from gantool.tune.search import SearchBackend, search
from gantool.tune.study import Study
from gantool.tune.trial import TrialResult, run_trial
from optuna.trial import TrialState
from PIL import Image
from sqlalchemy.exc import OperationalError

from searches import (
    BETA,
    RATE,
    Backend,
    bowl,
    drive,
    made,
    measured,
    params,
    planned,
    quick,
    reseeded,
    rows,
    run,
    states,
    tiny,
)


def test_a_search_is_an_iterator_of_events(data_dir, tmp_path):
    options = {"out": tmp_path / "s", "data_dir": data_dir, "backend": SearchBackend("inline")}
    events = list(search(tiny(tune__trials=2, tune__epochs=2), objective=quick(bowl), **options))
    assert [type(event) for event in events] == [SearchStarted, *[TrialEvent] * 8, SearchEnded]
    assert [(event.trial.label, event.kind) for event in events[1:-1]] == [
        (label, kind) for label in "01" for kind in ("started", "measured", "measured", "ended")
    ]
    assert events[4].trial.scores == tuple(Study(tmp_path / "s").trials()[0].intermediate_values.values())
    assert (events[-2].progress.done, events[-2].progress.own) == (2, 0)
    with_more = search(tiny(tune__trials=3, tune__epochs=2), objective=quick(bowl), **options)
    assert next(with_more).progress.done == 2
    next(with_more)
    with_more.close()
    assert states(Study(tmp_path / "s")) == ["COMPLETE", "COMPLETE", "RUNNING"], "closing it keeps the trial"


def test_a_search_finds_better_values_than_the_recipes_own_and_stops_hopeless_trials(data_dir, tmp_path):
    study = run(tiny(tune__trials=12), tmp_path / "s", data_dir)
    own, best = study.trials()[0], study.winner()
    assert own.params == {RATE: 2e-4, BETA: 0.5}
    assert own.state == TrialState.COMPLETE
    assert best.value < own.value - 0.3
    assert {"COMPLETE", "PRUNED"} == set(states(study))
    reasons = [row["why"] for row in rows(study.path) if row["state"] == "pruned"]
    assert all(re.fullmatch(r"trial \d+ had \d\.\d{3} by epoch [1-3]", reason) for reason in reasons), reasons
    assert [row["state"] for row in rows(study.path)] == [state.lower() for state in states(study)]
    assert engine.open_recipe(str(study.path / "best.yaml")).train.epochs == study.recipe.train.epochs


def test_a_first_trial_that_was_killed_before_its_first_measurement_is_still_the_recipes_own(data_dir, tmp_path):
    made(tmp_path / "s", tune__trials=2).ask()
    study = run(tiny(tune__trials=2), tmp_path / "s", data_dir)
    assert [trial.user_attrs.get("own", False) for trial in study.trials()] == [True, False]
    assert study.trials()[0].params == {RATE: 2e-4, BETA: 0.5}
    assert "RUNNING" not in states(study)


# Failures


def test_if_no_trial_finishes_the_commonest_reason_is_the_error_at_every_start(data_dir, tmp_path):
    for _ in range(2):
        with pytest.raises(TrainingError, match="s: no trial finished; most often: b"):
            run(tiny(tune__trials=3), tmp_path / "s", data_dir, planned(lambda number, seed: "b" if number else "a"))
    assert [(row["state"], row["why"]) for row in rows(tmp_path / "s")] == [("fail", "a"), ("fail", "b"), ("fail", "b")]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_metric_that_is_never_finite_fails_the_trial_which_is_never_the_best(value, data_dir, tmp_path):
    study = run(tiny(tune__trials=3), tmp_path / "s", data_dir, planned(lambda number, seed: (value, 5.0, 4.0)[number]))
    assert [(trial.state.name, trial.value) for trial in study.trials()] == [
        ("FAIL", None), ("COMPLETE", 5.25), ("COMPLETE", 4.25),
    ]  # fmt: skip
    assert study.trials()[0].user_attrs["why"] == "its fd was never finite"
    assert study.winner().number == 2
    with pytest.raises(TrainingError, match="all: no trial finished; most often: its fd was never finite"):
        run(tiny(tune__trials=2), tmp_path / "all", data_dir, planned(lambda number, seed: value))


def test_a_full_disk_ends_the_search_and_the_trial_resumes_with_room(data_dir, tmp_path):
    def objective(config, interrupted):
        yield from itertools.islice(quick(bowl)(config, interrupted), 2)
        yield TrialResult(state="disk full", why="log.jsonl: the disk is full; make room and start again")

    with pytest.raises(ResourceError, match=r"log.jsonl: the disk is full; make room, then run the same command"):
        run(tiny(), tmp_path / "s", data_dir, objective)
    assert states(Study(tmp_path / "s")) == ["RUNNING"]
    study = run(tiny(tune__trials=2), tmp_path / "s", data_dir)
    assert len(study.spent()) == len(study.trials()) == 2


def test_a_bug_in_gantool_is_not_counted_as_a_failed_trial(data_dir, tmp_path):
    closed = []

    def objective(config, interrupted):
        try:
            yield measured(1, 5.0)
            if config.label == "1":
                raise ZeroDivisionError("a bug")
            yield from quick(bowl)(config, interrupted)
        finally:
            closed.append(config.label)

    with pytest.raises(ZeroDivisionError):
        run(tiny(), tmp_path / "s", data_dir, objective)
    assert closed == ["0", "1"]
    assert states(Study(tmp_path / "s")) == ["COMPLETE", "RUNNING"]


def _moved(study):
    (study / "study.db").rename(study.parent / "aside.db")


def _overwritten(study):
    (study / "study.db").write_bytes(b"no database, but long enough to look like one" * 2000)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        pytest.param(
            _moved,
            ResourceError,
            r"s: the study cannot be written \(.*readonly.*\); make room, or check",
            marks=pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be moved there"),
        ),
        (_overwritten, CheckpointError, r"study.db: not a study, or damaged; it is left unchanged"),
    ],
)
def test_a_database_that_fails_during_a_search_ends_it_with_one_error(damage, error, message, data_dir, tmp_path):
    starts = itertools.count()

    def score(recipe, epoch):
        if epoch == 1 and next(starts) == 2:
            damage(tmp_path / "s")
        return bowl(recipe, epoch)

    with pytest.raises(error, match=message):
        run(tiny(), tmp_path / "s", data_dir, quick(score))
    if damage is _moved:
        (tmp_path / "aside.db").rename(tmp_path / "s" / "study.db")
        study = run(tiny(tune__trials=3), tmp_path / "s", data_dir)
        assert len(study.spent()) == len(study.trials()) == 3


# The same values at any speed


@pytest.mark.parametrize(
    ("pruner", "sampler"),
    [("ratio", "random"), ("median", "tpe"), ("successive_halving", "cmaes"), ("hyperband", "gp")],
)
def test_deterministic_tries_the_same_whichever_trial_is_faster(pruner, sampler, data_dir, tmp_path):
    pytest.importorskip({"cmaes": "cmaes", "gp": "scipy"}.get(sampler, "optuna"))
    settings = {"tune__trials": 6, "tune__pruner": pruner, "tune__sampler": sampler, "tune__deterministic": True}
    studies = [drive(made(tmp_path / str(order), **settings), data_dir, order=order) for order in (1, 2)]
    assert params(studies[0]) == params(studies[1])
    assert states(studies[0]) == states(studies[1])


def test_without_deterministic_the_faster_trial_decides_what_is_tried_next(data_dir, tmp_path):
    first, second = (drive(made(tmp_path / str(order), tune__trials=12), data_dir, order=order) for order in (1, 2))
    assert params(first) != params(second)


@pytest.mark.parametrize("threads", [1, 2])
def test_deterministic_with_parallel_has_equal_trials_on_one_and_on_two_slots(threads, data_dir, tmp_path):
    """Real trainings, whose results decide what is tried next from the seventh trial on."""
    settings = {"tune__trials": 8, "tune__epochs": 1, "tune__deterministic": True, "tune__parallel": 2}
    studies = [made(tmp_path / str(slots), **settings) for slots in (1, 2)]
    with engine.devices.threads(threads):
        for slots, study in enumerate(studies, 1):
            drive(study, data_dir, order=slots, slots=slots, objective=run_trial)
    one, two = ([trial.intermediate_values for trial in study.trials()] for study in studies)
    assert params(studies[0]) == params(studies[1])
    assert one == two, "every measurement of every trial, bit for bit"
    assert [trial.value for trial in studies[0].trials()] == [trial.value for trial in studies[1].trials()]


def test_deterministic_resumes_the_same_after_a_stop_within_a_batch(data_dir, tmp_path):
    settings = {"tune__trials": 6, "tune__deterministic": True}
    whole = drive(made(tmp_path / "whole", **settings), data_dir, order=1)
    study = drive(made(tmp_path / "cut", **settings), data_dir, order=2, measurements=4)
    assert states(study).count("RUNNING")
    assert len(study.trials()) == 3
    study = drive(Study(tmp_path / "cut", access="write"), data_dir, order=3)
    assert (params(study), states(study)) == (params(whole), states(whole))


def test_a_search_on_three_slots_leaves_no_trial_behind_and_trains_nothing_twice(data_dir, tmp_path):
    study = drive(made(tmp_path / "s", tune__confirm={"top": 2, "seeds": 4}), data_dir, order=4)
    assert len(study.spent()) == len(study.trials()) == 6
    best, second = study.candidates()
    assert study.winner().number == best.number
    selection, decision = study.seeds()[:SELECTION_SEEDS], study.seeds()[SELECTION_SEEDS:]
    wanted = [(number, seed) for number in (0, best.number) for seed in decision]
    wanted += [(best.number, seed) for seed in selection] + [(second.number, selection[0])]
    if second.value <= CLEARLY_WORSE * best.value:
        wanted.append((second.number, selection[1]))
    assert sorted(reseeded(study)) == sorted((number, seed, "COMPLETE") for number, seed in wanted)


# Budgets


def test_when_its_hours_are_spent_a_search_stops_and_resumes_with_more(data_dir, tmp_path, logged):
    def score(recipe, epoch):
        time.sleep(0.3)
        return bowl(recipe, epoch)

    chosen = tiny(tune__trials=2, tune__hours=0.5 / 3600)
    for _ in range(2):  # the second start counts the time of the first
        study = run(chosen, tmp_path / "s", data_dir, quick(score))
        assert states(study) == ["RUNNING"]
        message = "tune.hours 0.000138889 is spent; with more of it, the same command resumes the search"
        assert logged.count(message) == 1
        logged.clear()
    spent = study.search.user_attrs["seconds"]
    assert spent >= 0.5
    study = run(tiny(tune__trials=2, tune__hours=1.0), tmp_path / "s", data_dir)
    assert len(study.spent()) == 2
    assert study.search.user_attrs["seconds"] >= spent
    run(tiny(tune__trials=1, tune__epochs=1, tune__hours=0.2 / 3600), tmp_path / "done", data_dir, quick(score))
    assert "is spent" not in "".join(logged)


def test_a_trial_whose_measurement_was_not_written_is_not_told_but_resumes(data_dir, tmp_path, monkeypatch):
    study = made(tmp_path / "s", tune__trials=2)
    backend = Backend(study, data_dir)
    backend.next("a")
    backend.measured("a", (1, 3.0))
    with monkeypatch.context() as patch:
        full = OperationalError("", {}, sqlite3.OperationalError("database or disk is full"))
        patch.setattr(optuna.Trial, "report", lambda *_: (_ for _ in ()).throw(full))
        backend.ended("a", (4, 1.0))
    assert "the study cannot be written (" in str(backend.trials.failure)
    assert [trial.state.name for trial in study.trials()] == ["RUNNING"]
    backend = Backend(Study(tmp_path / "s", access="write"), data_dir)
    backend.next("a")
    backend.ended("a", (4, 1.0))
    (trial,) = study.trials()
    assert (trial.state.name, trial.intermediate_values) == ("COMPLETE", {1: 3.0, 4: 1.0})


def test_the_image_of_the_winner_is_written_before_what_names_it(data_dir, tmp_path, monkeypatch):
    def broken(*_):
        raise DiskError("x: the disk is full")

    study = run(tiny(tune__trials=2, tune__epochs=2, tune__pruner="none"), tmp_path / "s", data_dir, run_trial)
    naming = [study.path / name for name in ("best.yaml", "study.json")]
    before, other = [path.read_bytes() for path in naming], study.finished()[-1]
    monkeypatch.setattr(Study, "winner", lambda _: other)
    with monkeypatch.context() as patch:
        patch.setattr(results, "copy", broken)
        with pytest.raises(DiskError, match="the disk is full"):
            results.write(study)
    assert [path.read_bytes() for path in naming] == before
    results.write(study)
    best = study.best_run(other.number)
    assert (study.path / "best.png").read_bytes() == (best.folder / f"samples/epoch-{best.epoch:04d}.png").read_bytes()
    assert study.points_to(best.folder)


def test_gpu_hours_count_ended_and_running_trials_over_all_starts(data_dir, tmp_path, monkeypatch):
    study = made(tmp_path / "s", tune__gpu_hours=2.0)
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    backend = Backend(study, data_dir, gpus=0.5)
    backend.next("a")
    now[0] += 3600
    assert backend.trials.gpu_hours() == pytest.approx(0.5), "an hour on half of a GPU"
    assert not backend.trials.over()
    backend.ended("a", (4, 1.0))
    backend = Backend(Study(tmp_path / "s", access="write"), data_dir, gpus=0.5)
    assert backend.trials.gpu_hours() == pytest.approx(0.5)
    assert backend.next("b")
    now[0] += 3.1 * 3600
    assert backend.trials.over() == "tune.gpu_hours 2"
    assert backend.next("c") is None
    assert backend.trials.stopping


# The results of an earlier study


def test_the_best_values_of_another_study_that_lie_in_the_space_come_first(data_dir, tmp_path):
    other = run(tiny(tune__trials=8, tune__pruner="none"), tmp_path / "a", data_dir)
    best = [trial.params for trial in other.finished() if not trial.user_attrs.get("own")]
    chosen = tiny(tune__trials=5, train__batch_size=64, tune__pruner="none")
    study = run(chosen, tmp_path / "b", data_dir, source=tmp_path / "a")
    assert params(study)[1:4] == best[:3]
    assert [trial.user_attrs["sampler"] for trial in study.trials()][1:] == [*["an earlier study"] * 3, "tpe"]
    narrow = {RATE: {"low": 1e-4, "high": 1e-3, "log": True}}
    study = run(tiny(tune__trials=4, tune__space=narrow), tmp_path / "c", data_dir, source=tmp_path / "a")
    taken = [trial.params for trial in study.trials() if trial.user_attrs["sampler"] == "an earlier study"]
    inside = [point[RATE] for point in best if 1e-4 <= point[RATE] <= 1e-3]
    assert taken == [{RATE: rate} for rate in inside[:3]]


WIDE = {RATE: {"low": 1e-6, "high": 1e-1, "log": True}}
OTHER_RATES = {RATE: {"low": 1e-4, "high": 1e-1, "log": True}}


def trained(space, data_dir, *, trials=1, **changes):
    """Search with real trainings in `runs/`, in which studies of a recipe find each other."""
    settings = {"tune__trials": trials, "tune__pruner": "none", "tune__epochs": 2, "tune__space": space} | changes
    return run(tiny(**settings), None, data_dir, run_trial)


def test_finished_trials_of_a_study_with_another_space_are_taken_over_if_they_lie_in_it(data_dir, inside, logged):
    old = trained(WIDE, data_dir, trials=6)
    new = trained(OTHER_RATES, data_dir, trials=2)
    kept = [trial for trial in old.trials() if trial.params[RATE] >= 1e-4 and trial.state.name == "COMPLETE"]
    assert 2 <= len(kept) < 6, "some of them lie inside, some do not"
    assert f"{len(kept)} finished trials of {old.shown} are taken over" in logged
    assert params(new)[: len(kept)] == [trial.params for trial in kept]
    assert [trial.user_attrs["taken_from"] for trial in new.trials()[: len(kept)]] == [old.path.name] * len(kept)
    assert len(new.trials()) == new.wanted == len(kept) + 2, "as many new ones as the recipe asks for"
    fresh = run(tiny(tune__trials=1, tune__epochs=2, tune__space=OTHER_RATES), inside / "fresh", data_dir, run_trial)
    assert new.own().intermediate_values == fresh.own().intermediate_values, "the same as training it again"
    assert not {trial.params[RATE] for trial in old.trials()} & {point[RATE] for point in params(new)[len(kept) :]}
    for number, trial in enumerate(kept):
        assert Run(new.folder(number)).entries() == Run(old.folder(trial.number)).entries()
    again = trained(OTHER_RATES, data_dir, trials=3)
    assert (again.path, len(again.trials())) == (new.path, len(kept) + 3), "extended by one"


def test_trials_that_cannot_be_taken_over_leave_no_new_study(data_dir, inside, monkeypatch):
    old, copied = trained(WIDE, data_dir, trials=3), []

    def full(source, target):
        if copied:
            raise DiskError(f"{target}: the disk is full")
        copied.append(target)
        target.mkdir()

    monkeypatch.setattr(earlier, "copy_folder", full)
    with pytest.raises(DiskError, match="the disk is full"):
        trained({RATE: {"low": 1e-7, "high": 1.0, "log": True}}, data_dir)
    assert len(copied) == 1
    assert [path.name for path in (inside / "runs").iterdir()] == [old.path.name]


def test_no_trial_is_taken_over_that_would_be_trained_otherwise_or_by_another_version(data_dir, inside):
    old = trained({**WIDE, "train.batch_size": {"choice": [64, 128]}}, data_dir, trials=4)
    kept = [trial.params[RATE] for trial in old.trials() if trial.params["train.batch_size"] == 128]
    old = trained(WIDE, data_dir)
    assert [trial.params[RATE] for trial in old.trials()][: old.taken] == kept, "with the recipe's own batch size"
    for changes in ({"train__batch_size": 8}, {"tune__epochs": 3}, {"data__held_out": 0.3}):
        assert trained(OTHER_RATES, data_dir, **changes).taken == 0
    for number in range(len(old.trials())):
        file = old.folder(number) / "environment.json"
        file.write_text(file.read_text(encoding="utf-8").replace('"torch": "', '"torch": "1'), encoding="utf-8")
    assert trained({RATE: {"low": 1e-5, "high": 1e-1, "log": True}}, data_dir).taken == 0


def test_no_trial_is_taken_over_after_the_data_changed(data_dir, inside):
    images = inside / "images"
    images.mkdir()
    for index in range(24):
        Image.new("L", (8, 8), 10 * index).save(images / f"{index}.png")
    on_disk = {"data__source": str(images), "data__classes": None, "name": "folder"}
    assert trained(WIDE, data_dir, **on_disk).taken == 0
    assert trained(OTHER_RATES, data_dir, **on_disk).taken >= 1
    Image.new("L", (8, 8), 255).save(images / "0.png")
    assert trained({RATE: {"low": 1e-5, "high": 1e-1, "log": True}}, data_dir, **on_disk).taken == 0
