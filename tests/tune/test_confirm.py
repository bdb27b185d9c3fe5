"""How a search ends: the winner, the trainings that decide it and that continue, and the files that remain."""

from __future__ import annotations

import json
import math
import random
import re

import optuna
import pytest
from gantool.inference.sampling import TrainedModel
from gantool.report.findings import findings
from gantool.runs import Run
from gantool.training import engine
from gantool.tune import results
from gantool.tune.study import Study
from gantool.tune.trial import TrialResult, run_trial
from optuna.trial import TrialState

from searches import RATE, made, planned, quick, run, tiny

OWN_SEED = 7
SEARCH = {"tune__trials": 5, "tune__epochs": 2, "tune__pruner": "none", "train__seed": OWN_SEED}
CONFIRM = {"top": 3, "seeds": 4}


def searched(plan, place, data_dir, *, confirm=CONFIRM, **changes):
    """Search with trials whose metric, metric and diagnoses, or reason is `plan(number, seed)`."""
    return run(tiny(**SEARCH | changes, tune__confirm=confirm), place, data_dir, planned(plan))


def trainings(study):
    """Return the seeds of the trainings with new seeds that ended, by trial."""
    found = {}
    for training in study.runs():
        if training.state.is_finished():
            found.setdefault(training.user_attrs["of"], []).append(training.user_attrs["seed"])
    return found


def first_line(study):
    return (study.path / "best.yaml").read_text(encoding="utf-8").splitlines()[0]


def recommended(study):
    """Return the learning rate of `best.yaml`."""
    return engine.open_recipe(str(study.path / "best.yaml")).train.optimizer.lr


def agreed(study):
    """Return the winner, which everything must name: the files, the summary, the report and Optuna."""
    loaded = optuna.load_study(study_name="gan14", storage=f"sqlite:///{(study.path / 'study.db').as_posix()}")
    summary, found = results.summary(study), findings(study)
    numbers = {study.winner().number, summary["best"], found.winner, loaded.best_trial.number}
    numbers |= {trial.number for trial in study.trials() if trial.params[RATE] == pytest.approx(recommended(study))}
    assert first_line(study) == f"# {results.sentence(study)}."
    assert len(numbers) == 1, numbers
    return numbers.pop()


# Who wins


def test_a_setting_that_is_better_with_new_seeds_wins_and_everything_names_it(data_dir, tmp_path):
    scores = [5.0, 4.0, 1.0, 2.0, 3.0]

    def plan(number, seed):
        if seed == OWN_SEED:
            return scores[number]
        return {0: 5.0, 2: 6.0, 3: 2.0, 4: 3.0}[number] + seed / 1e8  # trial 2 was lucky

    assert agreed(searched(plan, tmp_path / "s", data_dir, confirm=None)) == 2
    study = searched(plan, tmp_path / "s", data_dir)
    assert agreed(study) == 3
    assert {number: len(seeds) for number, seeds in trainings(study).items()} == {0: 4, 2: 1, 3: 6, 4: 2}
    assert OWN_SEED not in study.seeds()
    assert first_line(study).startswith("# trial 3 is better than your recipe: fd is ")
    assert re.search(
        r" % lower \(95 % interval \d+ to \d+ %\) over 4 new seeds, .*, after 2 epochs\.$", first_line(study)
    )
    assert [one.number for one in study.confirmed()][:2] == [3, 4]
    assert agreed(searched(plan, tmp_path / "s", data_dir, confirm=None)) == 2, "later starts may change it"


def test_luck_with_the_seed_of_the_search_does_not_beat_the_recipe(data_dir, tmp_path):
    study = searched(lambda number, seed: 9.0 - number if seed == OWN_SEED else 5.0 + number, tmp_path / "s", data_dir)
    assert agreed(study) == 0
    assert first_line(study).startswith("# no setting beat your recipe, so keep it")
    assert recommended(study) == 2e-4


def test_copies_win_only_if_the_recipe_copies_as_well(data_dir, tmp_path):
    def plan(number, seed):
        return [[9.0, 8.0, 1.0, 6.0, 7.0][number] + seed / 1e8, *(["memorised"] if number in copying else [])]

    copying = {2}
    study = searched(plan, tmp_path / "s", data_dir)
    assert agreed(study) == 3
    assert 2 not in trainings(study)
    copying = {0, 2}
    study = searched(plan, tmp_path / "both", data_dir)
    assert study.finished()[0].number == 2


def test_if_only_the_recipe_finishes_it_is_kept(data_dir, tmp_path):
    study = searched(lambda number, seed: "diverged: at epoch 1" if number else 5.0, tmp_path / "s", data_dir)
    assert agreed(study) == 0
    assert trainings(study) == {}
    assert first_line(study) == "# no other setting finished, so keep your recipe, which has fd 5.500, after 2 epochs."


@pytest.mark.parametrize("later", [1.0, "diverged: at epoch 1"], ids=["sound with other seeds", "fails with all"])
def test_a_recipe_that_fails_loses_to_any_setting_that_does_not(later, data_dir, tmp_path):
    def plan(number, seed):
        if number == 0:
            return "diverged: at epoch 1" if seed == OWN_SEED else later
        return 5.0 + (number if seed == OWN_SEED else -number) + seed / 1e8

    study = searched(plan, tmp_path / "s", data_dir)
    assert agreed(study) == 3, "the best of the candidates 1, 2 and 3 over new seeds"
    seeds = len(study.verdict().values)
    assert (study.verdict().kind, seeds) == ("unconfirmed", 2 if later == 1.0 else 4)
    assert re.fullmatch(r"# your recipe has not finished; trial 3 has fd 2.50\d, after 2 epochs\.", first_line(study))
    assert re.fullmatch(
        rf"trial 3: fd 2.50\d over {seeds} new seeds; your recipe failed", results.interim_summary(study)
    )


@pytest.mark.parametrize("seed", range(3))
def test_best_yaml_is_never_worse_than_the_recipe_on_the_evidence_of_the_search(seed, data_dir, tmp_path):
    """Values, diagnoses and failures are random. The file is checked whenever a training starts, and at the end."""
    drawn = random.Random(seed)
    plans = {}

    def plan(number, one_seed):
        check()
        if (number, one_seed) not in plans:
            value = math.exp(drawn.gauss(0, drawn.choice([0.01, 0.3, 2])))
            codes = [code for code in ("mode-collapse", "memorised", "d-overfit") if drawn.random() < 0.2]
            plans[number, one_seed] = "diverged: so" if drawn.random() < 0.15 else [value, *codes]
        return plans[number, one_seed]

    def check():
        if not (tmp_path / "s" / "best.yaml").exists():
            return
        study = Study(tmp_path / "s")
        rate, own = recommended(study), study.own()
        chosen = next(trial for trial in study.trials() if trial.params[RATE] == pytest.approx(rate))
        if chosen.number == own.number or own.state != TrialState.COMPLETE:
            return
        verdict = study.race().verdict
        if verdict is None:
            sound = not own.user_attrs.get("copies")
            assert chosen.value <= own.value or not sound
            assert not (chosen.user_attrs.get("copies") and sound)
        else:
            assert verdict.kind == "better" or max(verdict.values) < min(verdict.own)
            assert verdict.effect.ratio < 1

    study = searched(plan, tmp_path / "s", data_dir)
    check()
    assert "RUNNING" not in {trial.state.name for trial in [*study.trials(), *study.runs()]}
    if study.winner():
        agreed(study)


# Interrupted, extended, changed


def test_a_stop_at_any_training_changes_nothing_in_the_end(data_dir, tmp_path):
    def value(number, seed):
        return [5.0, 1.0, 2.0][number] * math.exp(random.Random(f"{number}{seed}").gauss(0, 0.2))

    changes = {"tune__trials": 3, "confirm": {"top": 2, "seeds": 4}}
    through = searched(value, tmp_path / "whole", data_dir, **changes)
    for stop_after in range(1, len(through.trials()) + len(through.runs()), 3):
        count, stopped = [0], []

        def plan(number, seed, count=count, stopped=stopped, stop_after=stop_after):
            count[0] += 1
            if count[0] == stop_after + 1:
                stopped.append(2)
            return value(number, seed)

        place = tmp_path / f"stop-{stop_after}"
        chosen = tiny(**SEARCH | {"tune__trials": 3}, tune__confirm=changes["confirm"])
        run(chosen, place, data_dir, planned(plan), stopped=stopped)
        study = run(chosen, place, data_dir, planned(plan))
        assert (study.verdict(), trainings(study)) == (through.verdict(), trainings(through))
        assert agreed(study) == agreed(through)


def test_more_seeds_continue_with_the_trainings_that_exist(data_dir, tmp_path):
    values = {0: [5.0, 6.0, 7.0, 8.0, 6.5, 6.0, 7.0, 6.0], 1: [4.5, 5.5, 9.0, 5.0, 6.0, 7.0, 6.5, 5.0]}
    more = {"top": 3, "seeds": 8}
    seeds = made(tmp_path / "seeds", **SEARCH, tune__confirm=more).seeds()[2:]

    def value(number, seed):
        return values[number][seeds.index(seed)] if seed in seeds else 5.0

    few = searched(value, tmp_path / "s", data_dir, tune__trials=2).verdict()
    assert (few.kind, len(few.values)) == ("unsure", 4)
    study = searched(value, tmp_path / "s", data_dir, tune__trials=2, confirm=more)
    assert study.verdict().values[:4] == few.values
    assert len(study.runs()) == len({(one.user_attrs["of"], one.user_attrs["seed"]) for one in study.runs()})


# To the full length


def finished(study):
    """Return the trial and the epochs of each training to the full length."""
    return [(one.user_attrs["of"], one.last_step) for one in study.finishes()]


def test_the_winner_and_the_recipe_continue_to_the_full_length_and_later_to_more(data_dir, tmp_path):
    def plan(number, seed):
        return 9.0 - number + seed / 1e8

    settings = {"train__epochs": 9, "tune__trials": 3}
    study = searched(plan, tmp_path / "s", data_dir, tune__finish=4, **settings)
    assert (finished(study), study.is_done()) == ([(2, 4), (0, 4)], True)
    best = study.best_run(2)
    assert (best.epochs, best.folder.is_dir()) == (4, True)
    assert json.loads((study.path / "study.json").read_text(encoding="utf-8"))["run"] == (
        best.folder.relative_to(study.path).as_posix()
    )
    message = "; trained on with one seed: your recipe 9.250 after 4 epochs, trial 2 7.250 after 4 epochs."
    assert message in first_line(study)
    again = searched(plan, tmp_path / "s", data_dir, tune__finish=4, **settings)
    assert len(again.finishes()) == 2, "nothing is trained twice"
    study = searched(plan, tmp_path / "s", data_dir, tune__finish="full", **settings)
    assert (finished(study)[2:], study.best_run(2).epochs) == ([(2, 9), (0, 9)], 9)
    study = searched(plan, tmp_path / "s", data_dir, tune__finish="full", **settings | {"tune__trials": 5})
    assert (study.winner().number, finished(study)[4:], study.is_done()) == (4, [(4, 9)], True)


def test_a_training_to_the_full_length_that_fails_is_not_tried_again(data_dir, tmp_path):
    def objective(config, interrupted):
        if config.label.endswith("to the end"):
            yield TrialResult(state="failed", why="diverged")
        else:
            yield from quick(lambda recipe, epoch: 1 / epoch)(config, interrupted)

    chosen = tiny(tune__trials=2, tune__finish="full", train__epochs=8, tune__pruner="none")
    for _ in range(2):
        study = run(chosen, tmp_path / "s", data_dir, objective)
        assert ([one.state.name for one in study.finishes()], study.is_done()) == (["FAIL"], True)


def test_a_longer_training_is_reported_only_beside_its_rivals_of_the_same_length(data_dir, tmp_path):
    def score(recipe, epoch):
        return 1 / epoch + (recipe.train.optimizer.lr == own)

    def objective(config, interrupted):
        if config.label == "0 to the end":
            stopped.append(1)  # the time is up
            yield TrialResult(state="interrupted")
        else:
            yield from quick(score)(config, interrupted)

    stopped, chosen = [], tiny(tune__trials=2, tune__finish="full", train__epochs=8, tune__pruner="none")
    own = chosen.train.optimizer.lr
    study = run(chosen, tmp_path / "s", data_dir, objective, stopped=stopped)
    assert (finished(study)[0][1], study.is_done()) == (8, False)
    assert "trained on" not in results.sentence(study)
    study = run(chosen, tmp_path / "s", data_dir, quick(score))
    assert results.sentence(study).count("after 8 epochs") == 2


def test_if_the_recipe_stays_only_the_recipe_continues_and_with_null_nothing(data_dir, tmp_path):
    def plan(number, seed):
        return 5.0 + number + seed / 1e8

    settings = {"tune__trials": 2, "train__epochs": 6}
    assert finished(searched(plan, tmp_path / "s", data_dir, tune__finish=None, **settings)) == []
    study = searched(plan, tmp_path / "s", data_dir, tune__finish="full", **settings)
    assert finished(study) == [(0, 6)]
    assert first_line(study).endswith("; trained on with one seed: your recipe 5.167 after 6 epochs.")


# The files of a real search


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A search that really trains."""
    place = tmp_path_factory.mktemp("real")
    settings = {"tune__epochs": 1, "tune__pruner": "none", "tune__finish": "full", "train__epochs": 3}
    chosen = tiny(**settings, tune__trials=3, tune__confirm={"top": 2, "seeds": 2, "epochs": 2})
    return run(chosen, place / "s", place / "data", run_trial)


def test_a_study_stands_for_the_run_of_its_winner_which_is_bit_for_bit_a_training_in_one_go(real, tmp_path):
    chosen = Run.open(str(real.path))
    assert chosen.path == real.best_run(real.winner().number).folder
    assert [entry["epoch"] for entry in chosen.entries()] == [1, 2, 3]
    assert TrainedModel(chosen, "best", "cpu").sample([0, 1]).shape == (2, 1, 8, 8)
    recipe = engine.open_recipe(str(chosen.path / "recipe.yaml"))
    again = Run.create((chosen.path / "recipe.yaml").read_text(encoding="utf-8"), name="again", out=tmp_path / "again")
    for _ in engine.train(recipe, again, data_dir=real.path.parent / "data", device="cpu"):
        pass
    last = [{key: value for key, value in one.entries()[-1].items() if "second" not in key} for one in (chosen, again)]
    assert last[0] == last[1]


def test_trials_keep_an_image_for_the_dashboard_and_weights_only_if_they_may_win(real):
    kept = {path.parent.parent.name for path in real.path.glob("trials/*/checkpoints/best.pt")}
    assert kept == {real.best_run(number).folder.name for _, number in results.pair(real)}
    for trial in real.trials():
        found = [json.loads(value) for key, value in trial.system_attrs.items() if key.startswith("artifacts:")]
        assert [one["filename"][:6] for one in found] == ["epoch-"]
    assert len(list((real.path / "artifacts").iterdir())) == len(real.trials())
    assert real.search.metric_names == ["fd"]


def test_the_values_of_new_seeds_are_of_latents_that_chose_nothing(real):
    for training in real.runs():
        entries = Run(real.folder_of(training)).entries()
        measured = [entry["metrics/fd"] for entry in entries if entry["epoch"] <= 2 and "metrics/fd" in entry]
        assert training.value not in measured
        assert training.value == pytest.approx(min(measured), rel=0.5)
