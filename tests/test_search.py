"""A search from its first trial to its confirmed winner, inline, with objectives that take no time."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import random
from pathlib import Path

import pytest
from optuna.trial import TrialState

from gantool import engine
from gantool import recipe as recipes
from gantool.errors import ResourceError, TrainingError
from gantool.tune import results
from gantool.tune.board import Board
from gantool.tune.search import Way, search
from gantool.tune.study import Study
from gantool.tune.trials import Place, Trials

RATE, BETA = "train.optimizer.lr", "train.optimizer.betas.0"
TINY = {
    "data.source": "digits",
    "data.size": 8,
    "model.generator": [16],
    "model.discriminator": [16],
    "train.evaluate_images": 64,
    "train.extractors": ["rand"],
    "tune.epochs": 6,
    "tune.trials": 6,
    "tune.confirm": None,
    "tune.space": {
        RATE: {"low": 1e-5, "high": 1e-1, "log": True},
        BETA: {"low": 0.0, "high": 0.9},
    },
}


def tiny(**changes):
    """A recipe of which a search takes milliseconds a trial; `__` stands for a dot."""
    return engine.open_recipe("gan14", TINY | {key.replace("__", "."): value for key, value in changes.items()})


def quick(score, diagnoses=lambda recipe: []):
    """What measures `score(recipe, epoch)` in place of training, after the epochs that a trial is measured after."""

    def objective(config, interrupted):
        recipe = recipes.parse(config["recipe"], "trial", engine.KINDS)
        every, last = recipe.train.evaluate_every, recipe.train.epochs
        best, best_epoch = math.inf, 0
        for epoch in range(1, last + 1):
            if epoch not in (1, last) and epoch % every:
                continue
            found = score(recipe, epoch)
            best, best_epoch = min((best, best_epoch), (found, epoch))
            yield {
                "score": found,
                "best": best,
                "best_epoch": best_epoch,
                "epoch": epoch,
                "seconds": 0.01 * epoch,
                "diagnoses": diagnoses(recipe),
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


def lucky(values, shift=lambda recipe: 0.0):
    """The rate decides, and with seeds other than the search's also `shift`: what was luck does not come again."""
    return lambda recipe, epoch: values(recipe) + (shift(recipe) if recipe.train.seed else 0.0) + 1 / epoch


def run(recipe, out, data_dir, objective=None, *, stopped=None, fresh=False, as_json=False):
    """Search inline."""
    with Board(recipe, as_json=as_json) as board:
        return search(
            recipe,
            out=out,
            fresh=fresh,
            data_dir=data_dir,
            board=board,
            stopped=[] if stopped is None else stopped,
            way=Way(engine="inline"),
            objective=objective or quick(bowl),
        )


def rows(path):
    return list(csv.DictReader((path / "trials.csv").read_text(encoding="utf-8").splitlines()))


def states(home):
    return [trial.state.name for trial in home.trials()]


def reseeded(home):
    """What was trained again: the trial and the seed of each, and how it ended."""
    runs = home.confirmation.get_trials(deepcopy=False)
    return [(run.user_attrs["of"], run.user_attrs["seed"], run.state.name) for run in runs]


# What is found


def test_a_search_finds_better_values_than_the_recipes_own_and_stops_what_is_hopeless(data_dir, tmp_path):
    home = run(tiny(tune__trials=20), tmp_path / "s", data_dir)
    own, best = home.trials()[0], results.best(home)
    assert own.params == {RATE: 2e-4, BETA: 0.5}
    assert own.state == TrialState.COMPLETE
    assert best.value < own.value - 0.3
    assert {"COMPLETE", "PRUNED"} == set(states(home))
    assert not (home.path / "ray").exists()
    assert [row["state"] for row in rows(home.path)] == [state.lower() for state in states(home)]


def test_the_best_recipe_is_whole_and_the_best_so_far_whenever_a_trial_starts(data_dir, tmp_path):
    seen, home = [], None

    def score(recipe, epoch):
        path = tmp_path / "s" / "best.yaml"
        if epoch == 1 and path.exists():
            seen.append((engine.open_recipe(str(path)).train.optimizer.lr, path.stat().st_mtime_ns))
            finished = [(float(row["fd"]), float(row[RATE])) for row in rows(path.parent) if row["state"] == "complete"]
            assert seen[-1][0] == min(finished)[1]
        return bowl(recipe, epoch)

    home = run(tiny(tune__trials=14), tmp_path / "s", data_dir, quick(score))
    assert len(seen) == 13
    rates = [rate for rate, _ in seen]
    changes = len(list(itertools.groupby(rates)))
    assert 1 < changes < 13
    assert changes == len({when for _, when in seen}), "it is written when there is a better one, and only then"
    assert engine.open_recipe(str(home.path / "best.yaml")).train.epochs == home.recipe.train.epochs


# Other seeds


def confirmed(data_dir, tmp_path, score, diagnoses=lambda recipe: [], trials=5, **changes):
    chosen = tiny(tune__trials=trials, tune__pruner="none", tune__confirm={"top": 3, "seeds": 3}, **changes)
    return run(chosen, tmp_path / "s", data_dir, quick(score, diagnoses))


def by_rate(recipe):
    return 10 + math.log10(recipe.train.optimizer.lr)


def test_the_three_best_and_the_recipes_own_values_are_trained_again_with_three_other_seeds(data_dir, tmp_path):
    # The lower the rate the better; what the search calls the best is the worst with any other seed.
    first = min(trial.params[RATE] for trial in confirmed(data_dir, tmp_path / "alone", lucky(by_rate)).trials())
    unlucky = lucky(by_rate, lambda recipe: 9.0 if recipe.train.optimizer.lr == first else recipe.train.seed / 10)
    home = confirmed(data_dir, tmp_path, unlucky)
    found = sorted(home.trials(), key=lambda trial: trial.value)
    assert found[0].params[RATE] == first
    candidates = {trial.number for trial in found[:3]} | {0}
    seeds = {home.recipe.train.seed + 1 + index for index in range(3)}
    assert sorted(reseeded(home)) == sorted((one, seed, "COMPLETE") for one in candidates for seed in seeds)
    winner = results.best(home)
    assert winner.number == found[1].number, "what was luck is crowned no more"
    one = next(one for one in home.confirmed() if one.number == winner.number)
    assert one.mean == pytest.approx(winner.value + 0.2)
    assert one.deviation == pytest.approx(0.1)
    row = rows(home.path)[winner.number]
    assert (float(row["fd_mean"]), float(row["fd_std"])) == pytest.approx((one.mean, one.deviation))
    assert {row["number"] for row in rows(home.path) if row["fd_mean"]} == {str(number) for number in candidates}
    head = (home.path / "best.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert head == f"# {results.crowned(home)}."
    assert head.startswith(f"# Trial {winner.number} of 5: fd {one.mean:.4g} ± 0.1 over 3 seeds after 6 epochs")
    assert ("; the recipe's own values: " in head) == (winner.number != 0)
    assert engine.open_recipe(str(home.path / "best.yaml")).train.optimizer.lr == winner.params[RATE]


def test_a_candidate_that_collapses_with_another_seed_loses_to_the_sound_ones(data_dir, tmp_path):
    alone = confirmed(data_dir, tmp_path / "alone", lucky(by_rate))
    first = results.best(alone).params[RATE]

    def diagnoses(recipe):
        return ["mode-collapse"] if recipe.train.optimizer.lr == first and recipe.train.seed == 2 else []

    home = confirmed(data_dir, tmp_path, lucky(by_rate), diagnoses)
    leader, *_, last = home.confirmed()
    assert (last.spoilt, last.mean) < (("mode-collapse",), leader.mean)
    assert results.best(home).number == leader.number != last.number
    assert home.trials()[last.number].params[RATE] == first


def failing(bad, score):
    """Seed 2 of the rate `bad` fails."""
    inner = quick(score)

    def objective(config, interrupted):
        recipe = recipes.parse(config["recipe"], "trial", engine.KINDS)
        if recipe.train.seed == 2 and recipe.train.optimizer.lr == bad:
            yield {"why": "diverged: at epoch 1"}
        else:
            yield from inner(config, interrupted)

    return objective


def test_a_candidate_that_fails_with_another_seed_is_the_last_and_programs_get_strict_json(data_dir, tmp_path):
    alone = confirmed(data_dir, tmp_path / "alone", lucky(by_rate))
    best = results.best(alone)
    chosen = tiny(tune__trials=5, tune__pruner="none", tune__confirm={"top": 3, "seeds": 3})
    home = run(chosen, tmp_path / "s", data_dir, failing(best.params[RATE], lucky(by_rate)))
    *_, last = home.confirmed()
    assert (last.number, last.mean) == (best.number, math.inf)
    assert results.best(home).number != best.number
    assert (best.number, 2, "FAIL") in reseeded(home)

    def refuse(word):
        raise AssertionError(word)

    told = json.loads(json.dumps(results.summary(home)), parse_constant=refuse)
    assert next(one for one in told["confirmed"] if one["number"] == best.number)["mean"] is None
    assert rows(home.path)[best.number]["fd_mean"] == "inf"


def test_without_confirm_no_trial_is_trained_again(data_dir, tmp_path):
    home = run(tiny(), tmp_path / "s", data_dir)
    assert reseeded(home) == []
    assert "seeds" not in results.crowned(home)


def test_a_larger_search_confirms_only_the_candidates_that_are_new(data_dir, tmp_path):
    started = []

    def score(recipe, epoch):
        if epoch == 1:
            started.append((recipe.train.optimizer.lr, recipe.train.seed))
        return bowl(recipe, epoch)

    home = confirmed(data_dir, tmp_path, score, trials=4)
    before = reseeded(home)
    first = list(started)
    home = confirmed(data_dir, tmp_path, score, trials=12)
    after = reseeded(home)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert len(set(started)) == len(started), "nothing is trained twice"
    assert len(started) == len(first) + 8 + len(after) - len(before)
    assert {number for number, *_ in after} >= {trial.number for trial in home.candidates()}
    assert len(home.confirmed()) == len(home.candidates()) >= 3


def test_a_confirmation_that_was_killed_before_its_trial_began_goes_on(data_dir, tmp_path):
    home = run(tiny(tune__trials=4, tune__pruner="none"), tmp_path / "s", data_dir)
    chosen = tiny(tune__trials=4, tune__pruner="none", tune__confirm={"top": 2, "seeds": 2})
    home = Study.resume(tmp_path / "s", chosen)
    best = home.candidates()[0]
    home.confirmation.enqueue_trial(best.params, user_attrs={"of": best.number, "seed": 1})
    home = run(chosen, tmp_path / "s", data_dir)
    ended = reseeded(home)
    assert {state for *_, state in ended} == {"COMPLETE"}
    assert len(ended) == len(set(ended)) == 2 * len(home.candidates())
    assert [run.params for run in home.confirmation.trials if run.user_attrs["of"] == best.number] == 2 * [best.params]


def test_the_first_trial_that_was_killed_before_it_began_is_still_the_recipes_own(data_dir, tmp_path):
    (tmp_path / "s").mkdir()
    home = Study.create(tmp_path / "s", tiny(tune__trials=3))
    home.search.enqueue_trial(home.space.own_point, user_attrs={"own": True})
    home = run(tiny(tune__trials=3), tmp_path / "s", data_dir)
    assert len(home.trials()) == 3
    assert home.trials()[0].params == {RATE: 2e-4, BETA: 0.5}
    assert home.trials()[0].user_attrs["own"]
    assert "RUNNING" not in states(home)


# What goes wrong


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_search_goes_on(data_dir, tmp_path):
    inner = quick(bowl)

    def objective(config, interrupted):
        if config["label"] in "12":
            yield {"why": f"diverged: trial {config['label']}"}
        else:
            yield from inner(config, interrupted)

    home = run(tiny(), tmp_path / "s", data_dir, objective)
    assert states(home)[1:3] == ["FAIL", "FAIL"]
    assert [row["why"] for row in rows(home.path)][:4] == ["", "diverged: trial 1", "diverged: trial 2", ""]
    assert len(home.finished()) >= 1


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
    home = Study(tmp_path / "s")
    assert states(home) == ["RUNNING"]
    home = run(tiny(), tmp_path / "s", data_dir)
    assert len(home.spent()) == len(home.trials()) == 6


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
    home = run(tiny(), tmp_path / "s", data_dir)
    assert len(home.spent()) == 6


def at_third(action):
    """Do something to the study as the third trial begins."""

    def score(recipe, epoch, count=itertools.count()):
        if epoch == 1 and next(count) == 2:
            action()
        return bowl(recipe, epoch)

    return quick(score)


@pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be moved there")
def test_a_study_that_can_no_longer_be_written_ends_the_search_with_one_error(data_dir, tmp_path):
    home = tmp_path / "s"
    aside = tmp_path / "aside.db"
    with pytest.raises(ResourceError, match=r"s: the study cannot be written \(.*readonly.*\); make room, or check"):
        run(tiny(), home, data_dir, at_third(lambda: (home / "study.db").rename(aside)))
    aside.rename(home / "study.db")
    found = run(tiny(), home, data_dir)
    assert len(found.spent()) == len(found.trials()) == 6


def test_a_database_that_is_spoilt_under_way_ends_the_search_with_one_error(data_dir, tmp_path):
    path = tmp_path / "s" / "study.db"
    garbage = b"no database, but long enough to look like one" * 2000
    with pytest.raises(Exception, match=r"study.db: not a study, or damaged; it is left as it is") as caught:
        run(tiny(), tmp_path / "s", data_dir, at_third(lambda: path.write_bytes(garbage)))
    assert caught.value.exit_code == 5


# The same values at any speed


def drive(home, data_dir, *, order, slots=3, measurements=None):
    """An engine of some slots whose trials take turns at random; stops after a number of measurements."""
    stopped: list[int] = []
    trials = Trials(home, Board(home.recipe), Place(data_dir, "", "cpu", slots=slots), stopped)
    turn, names, live = random.Random(order), itertools.count(), {}
    objective, taken = quick(bowl), itertools.count(1)
    while not trials.finished or live:
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
    return home


def sequence(home):
    return [(trial.params, trial.state.name) for trial in home.trials()]


def made(path: Path, **changes) -> Study:
    path.mkdir(parents=True)
    return Study.create(path, tiny(**changes))


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median"])
def test_deterministic_tries_and_stops_the_same_whichever_trial_is_faster(pruner, data_dir, tmp_path):
    settings = {"tune__trials": 14, "tune__pruner": pruner, "tune__deterministic": True}
    first, second = (
        sequence(drive(made(tmp_path / str(order) / "s", **settings), data_dir, order=order)) for order in (1, 2)
    )
    assert first == second
    assert {"COMPLETE", "PRUNED"} == {state for _, state in first}


@pytest.mark.parametrize("sampler", ["random", "cmaes", "gp"])
def test_deterministic_holds_for_every_sampler(sampler, data_dir, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    settings = {"tune__trials": 12, "tune__sampler": sampler, "tune__deterministic": True}
    first, second = (
        sequence(drive(made(tmp_path / str(order) / "s", **settings), data_dir, order=order)) for order in (1, 2)
    )
    assert first == second


def test_without_deterministic_the_faster_trial_decides_what_is_tried_next(data_dir, tmp_path):
    first, second = (
        sequence(drive(made(tmp_path / str(order) / "s", tune__trials=14), data_dir, order=order)) for order in (1, 2)
    )
    assert first != second


@pytest.mark.parametrize("measurements", [4, 21])
def test_deterministic_goes_on_the_same_after_a_stop_within_a_batch(measurements, data_dir, tmp_path):
    settings = {"tune__trials": 14, "tune__deterministic": True}
    whole = sequence(drive(made(tmp_path / "whole" / "s", **settings), data_dir, order=1))
    home = drive(made(tmp_path / "cut" / "s", **settings), data_dir, order=2, measurements=measurements)
    assert "RUNNING" in states(home)
    assert len(home.trials()) < 14
    assert len(home.trials()) % 3 == 0
    home = drive(Study(tmp_path / "cut" / "s"), data_dir, order=3)
    assert sequence(home) == whole
