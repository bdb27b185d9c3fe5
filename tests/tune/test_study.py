"""A study on disk: started, gone on with, extended, moved aside, shared, damaged, and its budgets."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from gantool.errors import CheckpointError, RecipeError, ResourceError, RunError
from gantool.report import findings, page
from gantool.runs import environment
from gantool.training import engine
from gantool.tune import results
from gantool.tune.board import Board
from gantool.tune.race import CLEARLY_WORSE, SELECTION_SEEDS
from gantool.tune.search import SearchBackend
from gantool.tune.study import FREE, Study, find_study
from gantool.tune.trial import run_trial
from gantool.tune.trials import TrialEnvironment, Trials
from PIL import Image
from test_search import RATE, bowl, drive, made, quick, reseeded, run, states, tiny


def params(study):
    return [trial.params for trial in study.trials()]


# The same call starts, goes on and extends


def test_a_search_of_24_trials_that_is_extended_to_40_runs_16_more(data_dir, tmp_path):
    started = []

    def score(recipe, epoch):
        if epoch == 1:
            started.append(recipe.train.optimizer.lr)
        return bowl(recipe, epoch)

    settings = {"tune__epochs": 1, "tune__sampler": "random"}
    old = params(run(tiny(**settings, tune__trials=24), tmp_path / "s", data_dir, quick(score)))
    assert len(old) == len(started) == 24
    assert params(run(tiny(**settings, tune__trials=24), tmp_path / "s", data_dir, quick(score))) == old
    assert len(started) == 24, "what is done is done"
    study = run(tiny(**settings, tune__trials=40), tmp_path / "s", data_dir, quick(score))
    assert params(study)[:24] == old
    assert len({str(point) for point in params(study)}) == len(started) == 40, "none of them twice"
    assert study.tune.trials == Study(study.path).tune.trials == 40


def test_stopped_in_a_trial_a_search_goes_on_with_it(data_dir, tmp_path):
    stopped = []

    def score(recipe, epoch):
        if recipe.train.optimizer.lr != 2e-4 and epoch == 2:
            stopped.append(2)
        return 1 / epoch

    study = run(tiny(tune__trials=3), tmp_path / "s", data_dir, quick(score), stopped=stopped)
    assert states(study) == ["COMPLETE", "RUNNING"]
    old = study.trials()
    study = run(tiny(tune__trials=3), tmp_path / "s", data_dir)
    assert params(study)[:2] == [trial.params for trial in old]
    assert "RUNNING" not in states(study)
    assert study.trials()[1].intermediate_values.items() >= old[1].intermediate_values.items()


def test_fresh_moves_the_old_study_aside_and_keeps_every_one(data_dir, tmp_path):
    first = params(run(tiny(tune__trials=2), tmp_path / "s", data_dir))
    second = params(run(tiny(tune__trials=3, tune__seed=5), tmp_path / "s", data_dir, fresh=True))
    run(tiny(tune__trials=1), tmp_path / "s", data_dir, fresh=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["s", "s-old-1", "s-old-2"]
    assert [len(Study(tmp_path / name).trials()) for name in names] == [1, 2, 3]
    assert (params(Study(tmp_path / "s-old-1")), params(Study(tmp_path / "s-old-2"))) == (first, second)


def test_without_a_directory_the_newest_study_of_the_same_recipe_goes_on(data_dir, inside):
    first = run(tiny(tune__trials=1), None, data_dir)
    assert first.shown.as_posix() == "runs/gan14-001"
    other = run(tiny(tune__trials=1, train__batch_size=8), None, data_dir)
    assert other.shown.as_posix() == "runs/gan14-002", "another recipe begins a new one"
    again = run(tiny(tune__trials=2), None, data_dir)
    assert again.shown.as_posix() == "runs/gan14-001"
    assert len(again.trials()) == 2
    fresh = run(tiny(tune__trials=1), None, data_dir, fresh=True)
    assert fresh.shown.as_posix() == "runs/gan14-003"
    assert run(tiny(tune__trials=2), None, data_dir).shown.as_posix() == "runs/gan14-003", "the newest one"
    assert len(Study(inside / "runs" / "gan14-001").trials()) == 2


def test_a_search_that_fails_before_its_first_trial_leaves_no_directory(data_dir, inside):
    with pytest.raises(Exception, match="nowhere"):
        run(tiny(data__source="nowhere"), None, data_dir)
    assert not list((inside / "runs").iterdir())


@pytest.mark.parametrize("key", sorted(FREE))
def test_what_makes_no_trial_wrong_may_change_when_a_study_goes_on(key, tmp_path):
    value = {
        "trials": 9, "hours": 1.0, "gpu_hours": 1.0, "parallel": 2, "cpus_per_trial": 2, "trials_per_gpu": 2,
        "confirm": {"top": 1}, "finish": "full", "sampler": "random", "pruner": "none", "deterministic": True,
    }[key]  # fmt: skip
    assert getattr(made(tmp_path / "s").tune, key) != getattr(tiny(**{f"tune__{key}": value}).tune, key)
    Study.resume(tmp_path / "s", tiny(**{f"tune__{key}": value}))
    assert getattr(Study(tmp_path / "s").tune, key) == getattr(tiny(**{f"tune__{key}": value}).tune, key)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"tune__seed": 1}, "tune.seed"),
        ({"tune__epochs": 9}, "tune.epochs"),
        ({"tune__metric": "fd_rand"}, "tune.metric"),
        ({"tune__space": {RATE: [2e-4]}}, "tune.space.train.optimizer.lr"),
        ({"train__batch_size": 9}, "train.batch_size"),
        ({"data__size": 9}, "data.size"),
        ({"loss": "hinge"}, "loss.name"),
        ({"model__latent_dim": 9}, "model.latent_dim"),
    ],
)
def test_what_makes_it_another_search_is_refused_and_changes_nothing(changes, key, tmp_path):
    made(tmp_path / "s")
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").glob("*.*")}
    with pytest.raises(
        RunError, match=rf"s: is the study of another recipe \({re.escape(key)} differs\); search in a new"
    ):
        Study.resume(tmp_path / "s", tiny(**changes))
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").glob("*.*")} == before


def test_a_name_is_no_part_of_what_is_searched(tmp_path):
    made(tmp_path / "s")
    assert find_study(tmp_path / "s", tiny(name="another"), fresh=False) == (tmp_path / "s", True)
    Study.resume(tmp_path / "s", tiny(name="another"))


# Where it is kept


def test_a_study_may_be_kept_in_a_database_elsewhere_that_others_share(data_dir, tmp_path):
    address = f"sqlite:///{(tmp_path / 'shared.db').as_posix()}"
    chosen = tiny(tune__storage=address, tune__trials=2, tune__pruner="none", tune__confirm={"top": 1, "seeds": 1})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = run(chosen, tmp_path / "a" / "s", data_dir)
    two = run(engine.change(chosen, {"tune.trials": 3}), tmp_path / "b" / "s", data_dir)
    assert not list(tmp_path.glob("*/s/study.db"))
    assert [len(study.trials()) for study in (one, two, Study(one.path), Study(two.path))] == [2, 3, 2, 3]
    assert [trial.number for trial in two.trials()] == [0, 1, 2]
    assert reseeded(one)
    assert len(run(engine.change(chosen, {"tune.trials": 4}), one.path, data_dir).trials()) == 4
    assert len(Study(two.path).trials()) == 3
    names = [row[0] for row in sqlite3.connect(tmp_path / "shared.db").execute("SELECT study_name FROM studies")]
    wanted = []
    for study in (one, two):
        held = json.loads((study.path / "study.json").read_text(encoding="utf-8"))
        wanted += [held.get("search", held["study"]), f"{held['study']}-confirm", f"{held['study']}-finish"]
    assert sorted(names) == sorted(wanted), "of each its search, its confirmation and what it finishes"


@pytest.mark.skipif(find_spec("psycopg2") is not None, reason="it is installed")
def test_a_database_without_its_driver_is_refused_with_the_packages_name(data_dir, tmp_path):
    with pytest.raises(RecipeError) as caught:
        run(tiny(tune__storage="postgresql://ann:secret@nowhere/studies"), tmp_path / "s", data_dir)
    advice = r"tune.storage: postgresql://nowhere/studies needs (psycopg2?); pip install '\1[\[-]binary\]?'"
    assert re.fullmatch(advice, str(caught.value))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("nodialect://ann:secret@nowhere/studies", Exception),
        ("postgresql://ann:secret@nowhere:port/studies", Exception),
        ("mysql+pymysql://ann:se@cret@nowhere/studies", Exception),
        ("sqlite:////nowhere/secret/study.db", ResourceError),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line_without_the_password(address, kind, data_dir, tmp_path):
    with pytest.raises((RecipeError, ResourceError)) as caught:
        run(tiny(tune__storage=address), tmp_path / "s", data_dir)
    assert isinstance(caught.value, kind)
    assert "cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "{}", "\x00\x01", "[]"])
def test_a_damaged_study_json_is_one_clear_error_and_stays_as_it_is(content, tmp_path):
    path = made(tmp_path / "s").path / "study.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"study.json: is damaged; restore a copy, or search anew"):
        Study(tmp_path / "s")
    assert path.read_text(encoding="utf-8") == content


def test_a_study_whose_database_is_gone_is_not_taken_for_an_empty_one(tmp_path):
    made(tmp_path / "s").ask()
    (tmp_path / "s" / "study.db").unlink()
    with pytest.raises(CheckpointError, match=r"study.db: "):
        Study(tmp_path / "s")


def test_an_old_study_that_can_no_longer_be_read_does_not_keep_a_new_one_from_beginning(data_dir, inside):
    (inside / "runs" / "gan14-007").mkdir(parents=True)
    (inside / "runs" / "gan14-007" / "study.json").write_text(json.dumps({"study": "gan14"}), encoding="utf-8")
    (inside / "runs" / "gan14-007" / "recipe.yaml").write_text("model: {name: of_old}\n", encoding="utf-8")
    assert run(tiny(tune__trials=1), None, data_dir).shown.as_posix() == "runs/gan14-008"


# Budgets


def slow(seconds):
    def score(recipe, epoch):
        time.sleep(seconds)
        return bowl(recipe, epoch)

    return quick(score)


def test_when_its_hours_are_spent_a_search_ends_well_and_goes_on_with_more(data_dir, tmp_path, logged):
    study = run(tiny(tune__trials=3, tune__hours=0.5 / 3600), tmp_path / "s", data_dir, slow(0.3))
    assert states(study) == ["RUNNING"]
    assert study.trials()[0].intermediate_values
    assert logged.count("tune.hours 0.000138889 is spent; more of it, and the same command goes on") == 1
    logged.clear()
    spent = study.search.user_attrs["seconds"]
    assert spent >= 0.5
    again = run(tiny(tune__trials=3, tune__hours=0.5 / 3600), tmp_path / "s", data_dir, slow(0.3))
    assert states(again) == ["RUNNING"], "what earlier starts took counts too"
    assert "is spent" in "".join(logged)
    logged.clear()
    study = run(tiny(tune__trials=3, tune__hours=1.0), tmp_path / "s", data_dir)
    assert len(study.spent()) == 3
    assert "is spent" not in "".join(logged)
    assert study.search.user_attrs["seconds"] >= spent


def test_a_search_that_is_done_does_not_ask_for_more_hours(data_dir, tmp_path, logged):
    def score(recipe, epoch):
        time.sleep(1.05 if epoch == 4 else 0)
        return bowl(recipe, epoch)

    study = run(tiny(tune__trials=1, tune__hours=1 / 3600), tmp_path / "s", data_dir, quick(score))
    assert states(study) == ["COMPLETE"]
    assert "is spent" not in "".join(logged)


def test_hours_of_gpus_are_counted_for_what_ended_and_what_runs_and_in_all_starts(data_dir, tmp_path):
    def begun(study):
        board = Board(study.recipe)
        trials = Trials(study, board, TrialEnvironment(data_dir, "", "cpu", gpus=0.5, slots=2), [])
        board.begin(study, trials)
        return trials

    study = made(tmp_path / "s", tune__gpu_hours=2.0)
    trials = begun(study)
    config = trials.next("a")
    trials.live["a"].start -= 3600
    assert trials.gpu_hours() == pytest.approx(0.5, abs=0.01), "an hour on half of a GPU"
    assert not trials.over()
    for result in quick(bowl)(config, lambda: False):
        trials.measured("a", result)
    trials.ended("a", died=False)
    trials = begun(Study(tmp_path / "s"))
    assert trials.gpu_hours() == pytest.approx(0.5, abs=0.01)
    assert trials.next("b")
    trials.live["b"].start -= 3.1 * 3600
    assert trials.over() == "tune.gpu_hours 2"
    assert trials.next("c") is None
    assert trials.stopping


def test_a_search_at_once_on_three_slots_leaves_no_trial_behind_and_trains_nothing_twice(data_dir, tmp_path):
    study = drive(made(tmp_path / "s", tune__trials=7, tune__confirm={"top": 2, "seeds": 4}), data_dir, order=4)
    assert len(study.spent()) == len(study.trials()) == 7
    best, second = study.candidates()
    assert study.winner().number == best.number
    first, *_ = selection = study.seeds()[:SELECTION_SEEDS]
    deciding = [(number, seed) for number in (0, best.number) for seed in study.seeds()[SELECTION_SEEDS:]]
    selecting = [(best.number, seed) for seed in selection] + [(second.number, first)]
    if second.value <= CLEARLY_WORSE * best.value:
        selecting.append((second.number, selection[1]))
    assert sorted(reseeded(study)) == sorted((number, seed, "COMPLETE") for number, seed in selecting + deciding)


# A path is a path


@pytest.mark.parametrize("name", ["what now? 50% #1", "my%20run", "why?", "{0}", "a&b=c", "한글 [x]"])
def test_a_study_is_where_its_path_says_whatever_its_name(name, data_dir, tmp_path):
    if os.name == "nt" and "?" in name:
        pytest.skip("Windows has no such names")
    study = run(tiny(tune__trials=2), tmp_path / name, data_dir)
    assert (tmp_path / name / "study.db").stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert len(Study(tmp_path / name).trials()) == len(study.trials()) == 2
    run(tiny(tune__trials=3), tmp_path / name, data_dir, fresh=True)
    assert len(Study(tmp_path / f"{name}-old-1").trials()) == 2
    assert len(Study(tmp_path / name).trials()) == 3


# What an earlier study is good for


def test_the_best_values_of_another_study_come_first_where_they_lie_inside_of_the_space(data_dir, tmp_path):
    other = run(tiny(tune__trials=8, tune__pruner="none"), tmp_path / "a", data_dir)
    best = [trial.params for trial in other.finished() if not trial.user_attrs.get("own")]
    way = SearchBackend(engine="inline", source=tmp_path / "a")
    chosen = tiny(tune__trials=6, train__batch_size=64, tune__pruner="none")
    study = run(chosen, tmp_path / "b", data_dir, way=way)
    assert params(study)[1:4] == best[:3]
    assert [trial.user_attrs["sampler"] for trial in study.trials()][1:] == [*["an earlier study"] * 3, "tpe", "tpe"]
    narrow = {RATE: {"low": 1e-4, "high": 1e-3, "log": True}}
    study = run(tiny(tune__trials=5, tune__space=narrow), tmp_path / "c", data_dir, way=way)
    taken = [trial for trial in study.trials() if trial.user_attrs["sampler"] == "an earlier study"]
    inside = [point[RATE] for point in best if 1e-4 <= point[RATE] <= 1e-3]
    assert [trial.params for trial in taken] == [{RATE: rate} for rate in inside[:3]]


def test_an_edited_recipe_begins_a_new_study_and_names_the_key(data_dir, inside, logged):
    run(tiny(tune__trials=1), None, data_dir)
    run(tiny(tune__trials=1, train__batch_size=8), None, data_dir)
    said = "\n".join(logged)
    assert (
        f"{Path('runs/gan14-001')} differs in train.batch_size: a new study begins (--from takes its best values)"
        in said
    )


def test_a_study_says_with_which_versions_and_on_which_machine_it_began(data_dir, tmp_path):
    study = run(tiny(tune__trials=1), tmp_path / "s", data_dir)
    known = environment()
    assert results.summary(Study(study.path))["environment"] == known
    assert f"torch {known['packages']['torch']}, ray {known['packages']['ray']}" in study.made_with
    assert study.made_with.endswith(f"; Python {known['python']}, {known['system']}, {known['cores']} cores")
    assert study.made_with in page.page(findings.findings(study), {}, [])
    notes = study.search._storage.get_study_system_attrs(study.search._study_id)
    assert study.made_with in notes["dashboard:note_str:0"]
    study.search.set_user_attr("environment", None)
    assert study.made_with == "", "as in a study of version 0.1"


WIDE = {RATE: {"low": 1e-6, "high": 1e-1, "log": True}}
OTHER_RATES = {RATE: {"low": 1e-4, "high": 1e-1, "log": True}}


def trained(space, data_dir, *, trials=3, **changes):
    """Search with real trainings in `runs/`, in which studies of a recipe find each other."""
    settings = {"tune__trials": trials, "tune__pruner": "none", "tune__epochs": 2, "tune__space": space} | changes
    return run(tiny(**settings), None, data_dir, run_trial)


def test_finished_trials_of_a_study_with_another_space_are_taken_over_where_they_lie_in_it(data_dir, inside, logged):
    old = trained(WIDE, data_dir, trials=8)
    new = trained(OTHER_RATES, data_dir, trials=4)
    kept = [trial for trial in old.trials() if trial.params[RATE] >= 1e-4 and trial.state.name == "COMPLETE"]
    assert 2 <= len(kept) < 8, "some of them lie inside, some do not"
    assert f"{len(kept)} finished trials of {old.shown} are taken over" in logged
    assert params(new)[: len(kept)] == [trial.params for trial in kept]
    assert [trial.user_attrs["taken_from"] for trial in new.trials()[: len(kept)]] == [old.path.name] * len(kept)
    assert len(new.trials()) == new.wanted == len(kept) + 4, "as many new ones as the recipe asks for"
    assert new.own().number == 0
    fresh = run(new.recipe.model_copy(), inside / "fresh", data_dir, run_trial)
    assert new.own().intermediate_values == fresh.own().intermediate_values, "what training it again would give"
    assert not {trial.params[RATE] for trial in old.trials()} & {rate[RATE] for rate in params(new)[len(kept) :]}
    for number in range(len(kept)):
        assert (new.folder(number) / "log.jsonl").read_bytes() == (
            old.folder(kept[number].number) / "log.jsonl"
        ).read_bytes()
    again = trained(OTHER_RATES, data_dir, trials=5)
    assert (again.path, len(again.trials())) == (new.path, len(kept) + 5), "extended by one"


def test_a_key_that_is_searched_no_more_keeps_the_trials_with_the_recipes_own_value(data_dir, inside):
    old = trained({**WIDE, "train.batch_size": {"choice": [64, 128]}}, data_dir, trials=6)
    new = trained(WIDE, data_dir, trials=1)
    own = new.recipe.train.batch_size
    kept = [trial.params[RATE] for trial in old.trials() if trial.params["train.batch_size"] == own]
    assert [trial.params[RATE] for trial in new.trials()][: len(kept)] == kept
    assert new.taken == len(kept) >= 1


@pytest.mark.parametrize("changes", [{"train__batch_size": 8}, {"tune__epochs": 3}, {"data__held_out": 0.3}])
def test_no_trial_is_taken_over_that_would_be_trained_otherwise(changes, data_dir, inside):
    old = trained(WIDE, data_dir)
    new = trained(OTHER_RATES, data_dir, trials=1, **changes)
    assert (new.taken, len(new.trials())) == (0, 1)
    assert new.path != old.path


def test_no_trial_is_taken_over_of_another_version_or_after_the_data_changed(data_dir, inside):
    old = trained(WIDE, data_dir)
    for number in range(3):
        file = old.folder(number) / "environment.json"
        file.write_text(file.read_text(encoding="utf-8").replace('"torch": "', '"torch": "1'), encoding="utf-8")
    assert trained(OTHER_RATES, data_dir, trials=1).taken == 0
    pictures = inside / "images"
    pictures.mkdir()
    for index in range(24):
        Image.new("L", (8, 8), 10 * index).save(pictures / f"{index}.png")
    on_disk = {"data__source": str(pictures), "data__classes": None, "name": "folder"}
    assert trained(WIDE, data_dir, **on_disk).taken == 0
    assert trained(OTHER_RATES, data_dir, trials=1, **on_disk).taken >= 1
    Image.new("L", (8, 8), 255).save(pictures / "0.png")
    assert trained({RATE: {"low": 1e-5, "high": 1e-1, "log": True}}, data_dir, trials=1, **on_disk).taken == 0
