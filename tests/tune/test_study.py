"""A study on disk: started, resumed, extended, moved aside, shared and damaged."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
from importlib.util import find_spec
from pathlib import Path

import optuna
import pytest
from gantool.errors import CheckpointError, DataError, RecipeError, ResourceError, RunError
from gantool.files import BusyError, exclusive_lock
from gantool.report import findings, page
from gantool.runs import Run, environment
from gantool.training import engine
from gantool.tune import results
from gantool.tune.earlier import find_study, new_study
from gantool.tune.record import FREE
from gantool.tune.study import Study, lowest
from optuna.trial import TrialState
from PIL import Image

from searches import RATE, bowl, made, params, quick, reseeded, rows, run, tiny


def test_a_search_of_4_trials_that_is_extended_to_6_runs_2_more(data_dir, tmp_path):
    started = []

    def score(recipe, epoch):
        if epoch == 1:
            started.append(recipe.train.optimizer.lr)
        return bowl(recipe, epoch)

    settings = {"tune__epochs": 1, "tune__sampler": "random"}
    old = params(run(tiny(**settings, tune__trials=4), tmp_path / "s", data_dir, quick(score)))
    assert len(old) == len(started) == 4
    assert params(run(tiny(**settings, tune__trials=4), tmp_path / "s", data_dir, quick(score))) == old
    assert len(started) == 4, "nothing is trained twice"
    study = run(tiny(**settings, tune__trials=6), tmp_path / "s", data_dir, quick(score))
    assert params(study)[:4] == old
    assert len({str(point) for point in params(study)}) == len(started) == 6, "no point is tried twice"
    assert study.tune.trials == Study(study.path).tune.trials == 6


def test_of_two_searches_that_start_at_once_one_wins_and_its_study_stays(data_dir, tmp_path):
    run(tiny(tune__trials=1), tmp_path / "first", data_dir)  # so that the data are ready
    for attempt in range(5):
        place, results = tmp_path / f"s{attempt}", []
        barrier = threading.Barrier(2)

        def start(place=place, results=results, barrier=barrier):
            barrier.wait()
            try:
                results.append(len(params(run(tiny(tune__trials=2), place, data_dir))))
            except RunError as error:
                results.append(error)

        threads = [threading.Thread(target=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 2 in results
        assert len(params(Study(place))) == 2


def test_a_running_search_is_not_moved_aside(tmp_path):
    study = made(tmp_path / "s")
    with exclusive_lock(study.path / "lock"), pytest.raises(BusyError, match="s: in use by"):
        new_study(study.path, tiny())


def test_a_search_whose_images_have_changed_is_refused(data_dir, tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(20):
        Image.new("L", (8, 8), 10 * index).save(tmp_path / "photos" / f"{index}.png")
    settings = {"data__source": str(tmp_path / "photos"), "tune__epochs": 1}
    study = run(tiny(**settings, tune__trials=1), tmp_path / "s", data_dir)
    Image.new("L", (8, 8)).save(tmp_path / "photos" / "more.png")

    with pytest.raises(DataError, match="s: its data have changed since it began"):
        run(tiny(**settings, tune__trials=2), tmp_path / "s", data_dir)
    (tmp_path / "photos" / "more.png").unlink()
    assert len(params(run(tiny(**settings, tune__trials=2), study.path, data_dir))) == 2


def test_without_a_directory_the_newest_study_of_the_same_recipe_continues(data_dir, inside, logged):
    def searched(**changes):
        return run(tiny(tune__epochs=1, **changes), None, data_dir, fresh=changes.pop("fresh", False))

    assert searched(tune__trials=1).shown.as_posix() == "runs/gan14-001"
    assert searched(tune__trials=1, train__batch_size=8).shown.as_posix() == "runs/gan14-002", "of another recipe"
    message = f"{Path('runs/gan14-001')} differs in train.batch_size: a new study starts (--from takes its best values)"
    assert message in logged
    again = searched(tune__trials=2)
    assert (again.shown.as_posix(), len(again.trials())) == ("runs/gan14-001", 2)
    fresh = run(tiny(tune__trials=1, tune__epochs=1), None, data_dir, fresh=True)
    assert fresh.shown.as_posix() == "runs/gan14-003"
    assert searched(tune__trials=2).shown.as_posix() == "runs/gan14-003", "the newest one"


@pytest.mark.parametrize("name", ["s", "what now? 50% #1", "my%20run", "{0}", "a&b=c", "한글 [x]"])
def test_fresh_moves_a_study_aside_whatever_its_name(name, tmp_path):
    if os.name == "nt" and "?" in name:
        pytest.skip("Windows has no such names")
    for trials in (1, 2):
        path = new_study(tmp_path / name, tiny())
        assert path == tmp_path / name
        Study.create(path, tiny(tune__trials=trials)).ask()
    new_study(tmp_path / name, tiny())
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}-old-1", f"{name}-old-2"]
    found = [Study(path) for path in sorted(tmp_path.iterdir())[1:]]
    assert [(study.tune.trials, len(study.trials())) for study in found] == [(1, 1), (2, 1)]


@pytest.fixture(scope="module")
def study_path(tmp_path_factory):
    """A study that tests resume and do not search."""
    return made(tmp_path_factory.mktemp("studies") / "s").path


def test_keys_that_make_no_trial_wrong_may_change_when_a_study_resumes(study_path):
    values = {
        "trials": 9, "hours": 1.0, "gpu_hours": 1.0, "parallel": 2, "cpus_per_trial": 2, "trials_per_gpu": 2,
        "confirm": {"top": 1}, "finish": "full", "sampler": "random", "pruner": "none", "deterministic": True,
    }  # fmt: skip
    assert values.keys() == FREE
    chosen = tiny(name="another", **{f"tune__{key}": value for key, value in values.items()})
    assert find_study(study_path, chosen) == study_path
    Study.resume(study_path, chosen)
    assert Study(study_path).tune == chosen.tune != tiny().tune


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
def test_another_search_is_refused_and_changes_nothing(changes, key, study_path):
    before = {path.name: path.read_bytes() for path in study_path.glob("*.*")}
    with pytest.raises(RunError, match=rf"s: is the study of another recipe \({re.escape(key)} differs\); search in"):
        Study.resume(study_path, tiny(**changes))
    assert {path.name: path.read_bytes() for path in study_path.glob("*.*")} == before


# Its database


def test_studies_may_share_a_database(data_dir, tmp_path):
    address = f"sqlite:///{(tmp_path / 'shared.db').as_posix()}"
    settings = {"tune__epochs": 1, "tune__pruner": "none", "tune__confirm": {"top": 1, "seeds": 1}}
    chosen = tiny(tune__storage=address, tune__trials=2, **settings)
    one = run(chosen, tmp_path / "a" / "s", data_dir)
    two = run(engine.change(chosen, {"tune.trials": 3}), tmp_path / "b" / "s", data_dir)
    assert not list(tmp_path.glob("*/s/study.db"))
    assert [len(study.trials()) for study in (one, two, Study(one.path), Study(two.path))] == [2, 3, 2, 3]
    assert [trial.number for trial in two.trials()] == [0, 1, 2]
    assert reseeded(one)
    names = [row[0] for row in sqlite3.connect(tmp_path / "shared.db").execute("SELECT study_name FROM studies")]
    held = [json.loads((study.path / "study.json").read_text(encoding="utf-8"))["study"] for study in (one, two)]
    assert sorted(names) == sorted(f"{name}{end}" for name in held for end in ("", "-confirm", "-finish"))


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
def test_an_address_that_leads_nowhere_is_one_line_without_the_password(address, kind, tmp_path):
    with pytest.raises((RecipeError, ResourceError)) as caught:
        made(tmp_path / "s", tune__storage=address)
    assert isinstance(caught.value, kind)
    assert "cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        *[("study.json", text, "is damaged; restore a copy, or search anew") for text in (b"", b"{", b"{}", b"[]")],
        ("study.db", b"no database, but long enough to look like one" * 40, "not a study, or damaged"),
        ("study.db", None, "not a study, or damaged; it is left unchanged: restore a copy, or search in a new"),
    ],
)
def test_a_damaged_file_is_one_clear_error_and_stays_unchanged(file, content, message, tmp_path):
    path = made(tmp_path / "s").path / file
    damaged = path.read_bytes()[: path.stat().st_size // 2] if content is None else content
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=rf"{file}: {message}"):
        Study(tmp_path / "s").spent()
    assert path.read_bytes() == damaged


def test_a_study_whose_database_is_missing_is_not_taken_for_an_empty_one(tmp_path):
    made(tmp_path / "s").ask()
    (tmp_path / "s" / "study.db").unlink()
    with pytest.raises(CheckpointError, match=r"study.db: is missing; restore a copy, or search anew with --fresh"):
        Study(tmp_path / "s")


def test_an_unreadable_study_does_not_prevent_a_new_one(inside):
    (inside / "runs" / "gan14-007").mkdir(parents=True)
    (inside / "runs" / "gan14-007" / "study.json").write_text(json.dumps({"study": "gan14"}), encoding="utf-8")
    (inside / "runs" / "gan14-007" / "recipe.yaml").write_text("model: {name: of_old}\n", encoding="utf-8")
    assert find_study(None, tiny()) is None
    assert new_study(None, tiny()) == Path("runs/gan14-008")


# What it tells


def test_a_study_remembers_how_it_was_started_and_the_versions_and_the_machine(data_dir, tmp_path):
    study = run(tiny(tune__trials=1, tune__epochs=1), tmp_path / "s", data_dir)
    assert study.settings == {"data_dir": str(data_dir), "engine": "inline", "address": "local", "device": "auto"}
    assert study.data_dir == data_dir
    known = environment()
    assert results.summary(Study(study.path))["environment"] == known
    assert f"torch {known['packages']['torch']}, ray {known['packages']['ray']}" in study.made_with
    assert study.made_with.endswith(f"; Python {known['python']}, {known['system']}, {known['cores']} cores")
    assert study.made_with in page.page(findings.findings(study), {}, [])
    notes = study.search._storage.get_study_system_attrs(study.search._study_id)
    assert study.made_with in notes["dashboard:note_str:0"]
    study.search.set_user_attr("environment", None)  # as in studies of older versions
    (study.path / "study.json").write_text(json.dumps({"study": "gan14"}), encoding="utf-8")
    assert (study.made_with, study.settings, study.data_dir) == ("", {}, None)


def add(study, value, diagnoses=(), steps=(4,), **more):
    """Add a trial that ended with this metric and these diagnoses, as version 0.1 recorded it."""
    trial = optuna.trial.create_trial(
        params={**study.space.own_point, RATE: 1e-4 * value},
        distributions=dict(study.space.distributions),
        value=value,
        intermediate_values={step: value - (4 - step) for step in steps},
        user_attrs={"seconds": 1.0, "diagnoses": diagnoses},
        **more,
    )
    study.search.add_trial(trial)


@pytest.mark.parametrize(
    ("outcomes", "best"),
    [
        ([(5.0, ["mode-collapse"]), (9.0, []), (7.0, ["no-progress"]), (3.0, ["memorised"])], 0),
        ([(5.0, ["d-overfit", "memorised"]), (3.0, ["memorised"])], 1),
    ],
    ids=["one copies", "all copy"],
)
def test_a_trial_of_version_0_1_that_copies_wins_only_if_all_copy(outcomes, best, tmp_path):
    study = made(tmp_path / "s", tune__trials=9)
    for value, diagnoses in outcomes:
        add(study, value, diagnoses)
    add(study, 9.0, steps=(1, 4), state=TrialState.PRUNED)
    results.write(study)
    assert (rows(study.path)[-1]["fd"], lowest(study.trials()[-1])) == ("6.0", 6.0), "stopped: its best measurement"
    value, diagnoses = outcomes[best]
    assert study.winner().number == best
    assert engine.open_recipe(str(study.path / "best.yaml")).train.optimizer.lr == pytest.approx(1e-4 * value)
    assert rows(study.path)[best]["diagnoses"] == " ".join(diagnoses)
    head = (study.path / "best.yaml").read_text(encoding="utf-8").splitlines()[0]
    sentence = f"your recipe has not finished; trial {best} has fd {value:.3f}, after 4 epochs"
    assert (head, results.sentence(study)) == (f"# {sentence}.", sentence)


# A start that was killed


@pytest.mark.parametrize("kept", [["trials"], ["trials", "study.json"], ["trials", "study.json", "study.db", ".lock"]])
def test_a_study_whose_making_was_killed_does_not_block_its_directory(kept, tmp_path):
    place = made(tmp_path / "s").path
    for path in place.iterdir():
        if path.name not in kept:
            path.unlink()

    with pytest.raises(RunError, match="s: already holds something; name a new directory with --out, or resume"):
        Run.create("", name="a", out=place)
    assert find_study(place, tiny()) is None
    assert new_study(place, tiny()) == place
    study = Study.create(place, tiny(tune__trials=3))
    assert (study.trials(), find_study(place, tiny())) == ([], place)
