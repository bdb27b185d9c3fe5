"""The race that decides a search: which trainings it needs, and how rarely it is wrong."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from gantool.tune.race import SEEDS_PER_LOOK, SELECTION_SEEDS, Confirmed, Outcome, most, race


def raced(value, candidates=(1, 2, 3), seeds=8, own=0):
    """Run a race to its end; `value(number, seed)` is the metric of a training."""
    outcomes, started = {}, []
    while not (found := race("fd", own, candidates, outcomes, range(seeds), 5)).over:
        started.append(found.pending[0])
        told = value(*found.pending[0])
        outcomes[found.pending[0]] = told if isinstance(told, Outcome) else Outcome(told)
    return found, started


def test_a_clear_race_ends_after_four_decision_seeds_and_trains_nothing_twice():
    found, started = raced(lambda number, seed: {0: 10.0, 1: 5.0, 2: 7.0, 3: 6.0}[number] + seed / 100)
    assert (found.contender, found.verdict.kind, len(found.verdict.values)) == (1, "better", 4)
    assert len(started) == len(set(started)) == 3 * SELECTION_SEEDS + 2 * 4
    assert {seed for number, seed in started if number == 0} == {2, 3, 4, 5}, "the seeds that chose do not decide"


def test_a_clearly_worse_candidate_gets_no_second_selection_seed():
    _, started = raced(lambda number, seed: {0: 10.0, 1: 5.0, 2: 9.0, 3: 6.0}[number])
    assert [seed for number, seed in started if number == 2] == [0]
    assert [seed for number, seed in started if number == 3] == [0, 1]


def test_the_luck_of_one_seed_does_not_choose_the_contender():
    found, _ = raced(lambda number, seed: {0: 10.0, 1: 5.0, 2: 6.0, 3: 7.0}[number] + 4 * (number == 1 and seed == 1))
    assert found.contender == 2


def test_a_race_that_the_recipe_leads_ends_after_two_seeds():
    found, started = raced(lambda number, seed: 4.0 if number == 0 else 5.0 + number)
    assert (found.verdict.kind, len(found.verdict.values)) == ("keep", SEEDS_PER_LOOK)
    assert len(started) == 3 * SELECTION_SEEDS + 2 * SEEDS_PER_LOOK


def test_an_open_race_ends_with_the_seeds_that_are_allowed():
    values = {0: [10, 11, 12, 13, 10, 11], 1: [9, 12, 11, 10, 10.5, 10]}
    found, started = raced(lambda number, seed: values[number][seed - SELECTION_SEEDS], candidates=(1,))
    assert (found.verdict.kind, len(found.verdict.values)) == ("unsure", 6)
    assert len(started) == 2 * 6 == most(1, 8)


def test_copies_are_no_contender_and_win_nothing():
    def value(number, seed):
        return Outcome({0: 10.0, 1: 1.0, 2: 6.0}[number], copies=number == 1)

    found, _ = raced(value, candidates=(1, 2))
    assert (found.contender, found.verdict.kind) == (2, "better")
    found, _ = raced(value, candidates=(1,))
    assert (found.verdict.kind, found.verdict.copies) == ("keep", True)
    everyone, _ = raced(lambda number, seed: Outcome(10.0 - number, copies=True), candidates=(1, 2))
    assert everyone.verdict.kind == "better", "where the recipe copies too, copying tells nothing apart"


def test_a_candidate_that_fails_with_new_seeds_does_not_win():
    found, _ = raced(lambda number, seed: math.inf if number == 1 else 9.0 - number)
    assert found.contender == 3
    found, started = raced(lambda number, seed: math.inf if number else 9.0)
    assert (found.contender, found.verdict.kind) == (1, "keep"), "where all of them fail, the recipe is kept"
    assert len(started) == 3 * SELECTION_SEEDS + 2 * SEEDS_PER_LOOK


@pytest.mark.parametrize("candidates", [(), (1,), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("seeds", [SELECTION_SEEDS, SELECTION_SEEDS + 1, SELECTION_SEEDS + 4, SELECTION_SEEDS + 8])
def test_a_race_never_has_more_trainings_than_it_says(candidates, seeds):
    drawn = random.Random(0)
    for _ in range(20):
        _, started = raced(lambda number, seed: drawn.uniform(1, 1.1), candidates, seeds)
        assert len(started) <= most(len(candidates), seeds)


@pytest.mark.parametrize(("effect_size", "least", "greatest"), [(1.0, 0.0, 0.05), (0.7, 0.8, 1.0)])
def test_few_races_between_equals_end_with_better_and_a_true_effect_is_mostly_found(effect_size, least, greatest):
    """With a deviation between seeds of 15 %, and the winner of 3 candidates, all of which have the same true value."""
    drawn, better = random.Random(1), 0
    for _ in range(400):
        found, _ = raced(lambda number, seed: (effect_size if number else 1.0) * math.exp(drawn.gauss(0, 0.15)))
        better += found.verdict.kind == "better"
    assert least <= better / 400 <= greatest


def test_the_mean_over_new_seeds_is_written_with_its_deviation_and_failures():
    one = Confirmed(3, (40.0, 41.5, 47.0))
    assert (one.mean, one.deviation) == pytest.approx((statistics.mean(one.values), statistics.stdev(one.values)))
    assert math.isnan(Confirmed(3, ()).mean)
    texts = {(40.0, 41.0, 42.0): "41.0 ± 1.0", (40.0,): "40.00", (40.0, math.inf): "40.00 (1 of 2 failed)"}
    assert {values: str(Confirmed(1, values)) for values in texts} == texts
