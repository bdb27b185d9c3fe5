"""How `--minutes` divides the time of a search."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from gantool.tune.plan import Plan
from gantool.tune.study import Study

from searches import bowl, made, quick, run, tiny

SEARCH = {"tune__pruner": "none", "tune__confirm": {"top": 3, "seeds": 8, "epochs": 8}, "tune__finish": "full"}


@pytest.mark.parametrize(
    ("seconds", "epoch", "slots", "expected"),
    [
        # 4 epochs and 0.5 s of overhead a trial; 60 % of the epochs are trained
        (1000, 1.0, 2, ((3, 8), "about 647 trials of up to 4 epochs in 14m34s, up to 8 new seeds in 1m16s, ")),
        (100, 1.0, 1, ((1, 2), "about 14 trials of up to 4 epochs in 39s, up to 2 new seeds in 34s, ")),
        (10, 10.0, 1, ((1, 1), "about 1 trial of up to 4 epochs in 3s, up to 1 new seed in 4s, ")),
    ],
)
def test_new_seeds_and_the_full_length_get_the_time_that_fits(seconds, epoch, slots, expected, tmp_path):
    study = made(tmp_path / "s", **SEARCH, train__epochs=28)
    plan = Plan(study, seconds, epoch, slots)
    confirm = Study(study.path).tune.confirm
    assert ((confirm.top, confirm.seeds), plan.sentence().partition("the winner")[0]) == (
        expected[0],
        f"plan: {expected[1]}",
    )
    assert plan.has_time_for_a_trial() == (seconds > 10)


def test_as_the_time_passes_less_is_started_and_trainings_teach_the_plan_how_long_an_epoch_takes(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    study = made(tmp_path / "s", **SEARCH, train__epochs=28)
    plan = Plan(study, 100 / 0.97, 1.0, 2)  # 100 seconds, without the margin
    assert (plan.has_time_for_a_trial(), plan.has_time_for_a_seed(), plan.full_epochs()) == (True, True, 28)
    now[0] += 65  # 35 seconds are left, of which 20 are kept for the full length
    assert (plan.has_time_for_a_trial(), plan.has_time_for_a_seed()) == (False, True)
    now[0] += 20
    assert (plan.has_time_for_a_seed(), plan.full_epochs()) == (False, 8 + 15)
    trial = study.ask()
    trial.report(1.0, 4)
    trial.set_user_attr("seconds", 6.0)
    study.search.tell(trial, 1.0)
    plan.learn()
    assert (plan.epoch, plan.full_epochs()) == (1.5, 8 + 10)


def test_a_search_says_its_plan_and_starts_no_trial_that_would_not_end_in_time(data_dir, tmp_path, logged):
    def slow(config, interrupted):
        for result in quick(bowl)(config, interrupted):
            yield replace(result, seconds=100.0 * result.epoch)

    study = run(tiny(**SEARCH, train__epochs=8), tmp_path / "s", data_dir, slow, minutes=5)
    assert any(line.startswith("plan: about ") for line in logged)
    assert (study.is_done(), len(study.trials()), study.tune.trials) == (True, 1, 1)
