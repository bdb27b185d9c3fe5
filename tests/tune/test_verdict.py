"""The verdict of a search: exact rank statistics, checked against scipy, against brute force and by simulation."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from gantool.tune.race import SEEDS_PER_LOOK, SELECTION_SEEDS, Outcome, most, race
from gantool.tune.verdict import Effect, Verdict, critical_rank, decide, effect, percent_range


def test_the_critical_ranks_are_those_of_published_tables():
    # Two-sided 0.05 (Mann and Whitney 1947): the statistic must be at most 0, 2, 5, 8, 13, 23 for 4, 5, 6, 7, 8, 10.
    assert {count: critical_rank(count, count, 0.95) - 1 for count in (4, 5, 6, 7, 8, 10)} == {
        4: 0, 5: 2, 6: 5, 7: 8, 8: 13, 10: 23,
    }  # fmt: skip
    assert critical_rank(3, 3, 0.95) == 0, "three of each can't tell at this level"


@pytest.mark.parametrize("count", [2, 4, 6])
def test_the_interval_excludes_1_exactly_where_the_test_of_mann_and_whitney_rejects(count):
    stats = pytest.importorskip("scipy.stats")
    drawn = random.Random(count)
    decisions = set()
    for _ in range(200):
        ours = [math.exp(drawn.gauss(-1, 1)) for _ in range(count)]
        theirs = [math.exp(drawn.gauss(0, 1)) for _ in range(count)]
        rejected = stats.mannwhitneyu(ours, theirs, method="exact").pvalue <= 0.05
        found = effect(ours, theirs)
        assert (found.high < 1 or found.low > 1) == rejected
        decisions.add(rejected)
    assert decisions == ({False} if count == 2 else {False, True})


def test_the_interval_holds_the_true_ratio_as_often_as_it_says():
    drawn = random.Random(0)
    held = 0
    for _ in range(2000):
        ours, theirs = ([math.exp(drawn.gauss(shift, 0.3)) for _ in range(5)] for shift in (math.log(0.7), 0.0))
        found = effect(ours, theirs)
        held += found.low <= 0.7 <= found.high
    assert 0.94 <= held / 2000 <= 0.99  # of ranks the level is at least what is asked for: 0.968 of 5 and 5


def test_a_constant_factor_is_found_exactly_and_is_independent_of_the_unit():
    own = [3.0, 4.0, 5.0, 7.0]
    found = effect([0.5 * value for value in own], own)
    assert found.ratio == pytest.approx(0.5)
    scaled = effect([500 * value for value in own], [1000 * value for value in own])
    assert (scaled.ratio, scaled.low, scaled.high) == pytest.approx((found.ratio, found.low, found.high))


def test_trainings_that_failed_are_infinitely_bad_and_break_nothing():
    bad = math.inf
    assert decide("fd", 1, [1.0, 1.1, 1.2, 1.3], [bad] * 4, 5, last=True).kind == "better"
    assert decide("fd", 1, [bad] * 4, [1.0, 1.1, 1.2, 1.3], 5, last=True).kind == "keep"
    assert decide("fd", 1, [bad] * 4, [bad] * 4, 5, last=True).kind == "keep"
    assert decide("fd", 1, [0.0] * 4, [0.0] * 4, 5, last=True).kind == "keep"
    assert decide("fd", 1, [1.0, bad, 1.0, 1.0], [2.0] * 4, 5, last=True).kind == "unsure"


def test_the_verdict_says_what_the_seeds_allow_and_no_more():
    own = (4.4, 4.5, 4.6, 4.7, 4.3)
    better = decide("fd", 7, (2.9, 3.0, 3.1, 2.8, 3.05), own, 50, last=True)
    assert better.sentence() == (
        "better than your recipe: fd 2.968 against 4.498, 34 % lower (95 % interval 30 to 38 % lower), 5 seeds each"
    )
    worse = decide("fd", 7, (5.0, 5.1), own[:2], 50, last=False)
    assert worse.kind == "keep"
    assert worse.sentence() == (
        "no setting beat your recipe, so keep it: the best other one had fd 5.050 against 4.450, 2 seeds each"
    )
    unsure = decide("fd", 7, (49.0, 40.0, 56.0), (53.0, 50.0, 51.0), 50, last=True)
    assert unsure.sentence() == (
        "cannot tell yet whether trial 7 is better: fd 47.88 against 51.32 over 3 seeds (too few to tell)"
    )
    assert Verdict("unconfirmed", None, "fd").sentence() == "no other setting finished, so keep your recipe"
    assert Verdict("unconfirmed", None, "fd", own=(3.0,)).sentence() == (
        "no other setting finished, so keep your recipe: fd 3.000"
    )
    assert Verdict("unconfirmed", 2, "fd", (3.0,)).sentence() == (
        "the recipe's own values have not finished; trial 2 reached fd 3.000"
    )
    assert Verdict("unconfirmed", 2, "fd", (3.0,), (4.0,)).sentence() == (
        "trial 2 is lower than your recipe with one seed, which proves nothing: fd 3.000 against 4.000"
    )
    assert Verdict("unconfirmed", 2, "fd", (4.0,), (3.0,)).sentence() == (
        "no setting was lower than your recipe, so keep it: fd 4.000 against 3.000 with one seed"
    )
    assert Verdict("keep", 2, "fd", (1.0,), (3.0,), copies=True).sentence() == (
        "trial 2 copies its training images, so keep your recipe: fd 1.000 against 3.000, 1 seed each"
    )


def test_trainings_that_failed_are_told():
    bad, good = math.inf, (1.0, 1.1, 1.2, 1.3)
    assert decide("fd", 1, good, [bad] * 4, 5, last=True).sentence() == (
        "better than your recipe: fd 1.145 against no result (4 of 4 failed), 4 seeds each"
    )
    assert decide("fd", 1, [bad] * 2, good[:2], 5, last=False).sentence() == (
        "no setting beat your recipe, so keep it: the best other one had no result (2 of 2 failed) against fd 1.049, "
        "2 seeds each"
    )
    assert decide("fd", 1, [1.0, bad, 1.0, 1.0], [2.0] * 4, 5, last=True).sentence() == (
        "cannot tell yet whether trial 1 is better: fd 1.000 (1 of 4 failed) against 2.000 over 4 seeds "
        "(too few to tell)"
    )


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.52, 0.88, "12 to 48 % lower"),
        (0.8, 1.25, "20 % lower to 25 % higher"),
        (1.1, 1.25, "10 to 25 % higher"),
        (0.0, math.inf, "100 % lower to infinitely many % higher"),
    ],
)
def test_an_interval_in_words(low, high, text):
    assert percent_range(Effect(1.0, low, high)) == text


def test_how_many_seeds_would_decide_grows_with_the_spread_and_falls_with_the_effect():
    def needed(ratio, spread):
        own = [50 * (1 + spread * offset) for offset in (-1.0, 0.0, 1.0, 0.5)]
        return decide("fd", 1, [ratio * value for value in own], own, 5, last=True).seeds_to_decide()

    assert needed(0.5, 0.05) is None, "that is decided"
    assert needed(0.9, 0.1) == 11
    assert needed(0.9, 0.1) < needed(0.9, 0.15)
    assert needed(0.9, 0.1) < needed(0.93, 0.1)
    assert needed(0.999, 0.2) is None, "not worth it"


@pytest.mark.parametrize(
    ("values", "own"),
    [
        ([1.0], [2.0]),
        ([1.0, 1.0], [2.0, 2.1]),
        ([0.0, 2.0, 0.0, 0.5], [1.0, 2.0, 0.1, 1.0]),
        ([1.0, 1.0, math.inf, 1.0], [2.0] * 4),
    ],
)
def test_where_the_spread_between_seeds_is_not_known_a_few_more_seeds_are_named(values, own):
    verdict = decide("fd", 1, values, own, 5, last=True)
    assert (verdict.kind, verdict.spread) == ("unsure", None)
    assert verdict.seeds_to_decide() == max(4, len(values) + 2)


# The race


def raced(value, candidates=(1, 2, 3), seeds=8, own=0):
    """Run a race to its end; `value(number, seed)` is what a training comes to."""
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


def test_what_is_clearly_worse_gets_no_second_selection_seed():
    _, started = raced(lambda number, seed: {0: 10.0, 1: 5.0, 2: 9.0, 3: 6.0}[number])
    assert [seed for number, seed in started if number == 2] == [0]
    assert [seed for number, seed in started if number == 3] == [0, 1]


def test_the_luck_of_one_seed_does_not_choose_the_contender():
    found, _ = raced(lambda number, seed: {0: 10.0, 1: 5.0, 2: 6.0, 3: 7.0}[number] + 4 * (number == 1 and seed == 1))
    assert found.contender == 2


def test_a_race_that_the_recipe_leads_is_given_up_after_two_seeds():
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
    for _ in range(50):
        _, started = raced(lambda number, seed: drawn.uniform(1, 1.1), candidates, seeds)
        assert len(started) <= most(len(candidates), seeds)


@pytest.mark.parametrize(("effect_size", "least", "greatest"), [(1.0, 0.0, 0.05), (0.7, 0.8, 1.0)])
def test_of_races_between_equals_few_end_with_better_and_a_true_effect_is_mostly_found(effect_size, least, greatest):
    """With a deviation between seeds of 15 %, and the winner of 3 candidates, all of which have the same true value."""
    drawn, better = random.Random(1), 0
    for _ in range(400):
        found, _ = raced(lambda number, seed: (effect_size if number else 1.0) * math.exp(drawn.gauss(0, 0.15)))
        better += found.verdict.kind == "better"
    assert least <= better / 400 <= greatest


def test_the_mean_of_what_is_chosen_is_not_flattered():
    """The seeds that choose the contender are not among those that measure it."""
    drawn, ratios = random.Random(2), []
    for _ in range(400):
        found, _ = raced(lambda number, seed: math.exp(drawn.gauss(0, 0.2)), candidates=(1, 2, 3, 4, 5))
        ratios.append(math.log(found.verdict.values[0] / found.verdict.own[0]))
    assert abs(statistics.fmean(ratios)) < 4 * 0.2 * math.sqrt(2 / 400)
