"""The verdict of a search: exact rank statistics, checked against tables, scipy and simulation."""

from __future__ import annotations

import math
import random

import pytest
from gantool.tune.verdict import Verdict, critical_rank, decide, effect


def test_the_critical_ranks_are_those_of_published_tables():
    # Two-sided 0.05 (Mann and Whitney 1947): the statistic must be at most 0, 2, 5, 8, 13, 23 for 4, 5, 6, 7, 8, 10.
    assert {count: critical_rank(count, count) - 1 for count in (4, 5, 6, 7, 8, 10)} == {
        4: 0, 5: 2, 6: 5, 7: 8, 8: 13, 10: 23,
    }  # fmt: skip
    assert critical_rank(3, 3) == 0, "three of each cannot decide at this level"


@pytest.mark.parametrize("count", [2, 4, 6])
def test_the_interval_excludes_1_exactly_if_the_test_of_mann_and_whitney_rejects(count):
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
    assert 0.94 <= held / 2000 <= 0.99  # with 5 and 5 values the exact level of the rank test is 0.968


def test_a_constant_factor_is_found_exactly():
    own = [3.0, 4.0, 5.0, 7.0]
    assert effect([0.5 * value for value in own], own).ratio == pytest.approx(0.5)


def test_trainings_that_failed_are_infinitely_bad():
    assert decide("fd", 1, [math.inf] * 4, [math.inf] * 4, 5, last=True).kind == "keep"
    assert decide("fd", 1, [0.0] * 4, [0.0] * 4, 5, last=True).kind == "keep"


OWN, BAD, GOOD = (4.4, 4.5, 4.6, 4.7, 4.3), math.inf, (1.0, 1.1, 1.2, 1.3)


@pytest.mark.parametrize(
    ("values", "own", "sentence"),
    [
        (
            (2.9, 3.0, 3.1, 2.8, 3.05),
            OWN,
            "trial 7 is better than your recipe: fd is 34 % lower (95 % interval 30 to 38 %) over 5 new seeds, "
            "2.968 instead of 4.498",
        ),
        (
            (5.0, 5.1),
            OWN[:2],
            "no setting beat your recipe, so keep it: over 2 new seeds, trial 7 has fd 5.050 and your recipe 4.450",
        ),
        (
            (49.0, 40.0, 56.0),
            (53.0, 50.0, 51.0),
            "cannot tell yet whether trial 7 is better than your recipe: over 3 new seeds, it has fd 47.88 and your "
            "recipe 51.32; these are too few results for an interval",
        ),
        (
            (40.0, 41.0, 62.0, 40.5),
            (54.0, 56.0, 58.0, 55.0),
            "cannot tell yet whether trial 7 is better than your recipe: over 4 new seeds, it has fd 45.05 and your "
            "recipe 55.73; the effect lies between 31 % lower and 15 % higher (95 % interval)",
        ),
        (
            GOOD,
            [BAD] * 4,
            "trial 7 is better than your recipe: over 4 new seeds, it has fd 1.145 and your recipe no result "
            "(4 of 4 failed)",
        ),
        (
            [BAD] * 2,
            GOOD[:2],
            "no setting beat your recipe, so keep it: over 2 new seeds, trial 7 has no result (2 of 2 failed) and your "
            "recipe fd 1.049",
        ),
        (
            [1.0, BAD, 1.0, 1.0],
            [2.0] * 4,
            "cannot tell yet whether trial 7 is better than your recipe: over 4 new seeds, it has fd 1.000 (1 of 4 "
            "failed) and your recipe 2.000; these are too few results for an interval",
        ),
    ],
)
def test_the_verdict_on_new_seeds_is_a_sentence(values, own, sentence):
    assert decide("fd", 7, values, own, 50, last=True).sentence() == sentence


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (Verdict("unconfirmed", None, "fd"), "no other setting finished, so keep your recipe"),
        (
            Verdict("unconfirmed", None, "fd", own=(3.0,)),
            "no other setting finished, so keep your recipe, which has fd 3.000",
        ),
        (Verdict("unconfirmed", 2, "fd", (3.0,)), "your recipe has not finished; trial 2 has fd 3.000"),
        (
            Verdict("unconfirmed", 2, "fd", (3.0,), (4.0,)),
            "trial 2 beat your recipe with one seed, which may be luck: it has fd 3.000 and your recipe 4.000",
        ),
        (
            Verdict("unconfirmed", 2, "fd", (4.0,), (3.0,)),
            "no setting beat your recipe, so keep it: with one seed, trial 2 has fd 4.000 and your recipe 3.000",
        ),
        (
            Verdict("keep", 2, "fd", (1.0,), (3.0,), copies=True),
            "trial 2 copies its training images, so keep your recipe: over 1 new seed, it has fd 1.000 and your recipe "
            "3.000",
        ),
    ],
)
def test_a_verdict_without_new_seeds_claims_no_more_than_one_seed_allows(verdict, sentence):
    assert verdict.sentence() == sentence


@pytest.mark.parametrize(
    ("ratio", "spread", "needed"),
    [(0.5, 0.05, None), (0.9, 0.1, 11), (0.9, 0.15, 25), (0.93, 0.1, 24), (0.999, 0.2, None)],
    ids=["decided", "large effect", "larger spread", "smaller effect", "not worth it"],
)
def test_how_many_seeds_would_decide_grows_with_the_spread_and_falls_with_the_effect(ratio, spread, needed):
    own = [50 * (1 + spread * offset) for offset in (-1.0, 0.0, 1.0, 0.5)]
    assert decide("fd", 1, [ratio * value for value in own], own, 5, last=True).seeds_to_decide() == needed


@pytest.mark.parametrize(
    ("values", "own"),
    [
        ([1.0], [2.0]),
        ([1.0, 1.0], [2.0, 2.1]),
        ([0.0, 2.0, 0.0, 0.5], [1.0, 2.0, 0.1, 1.0]),
        ([1.0, 1.0, math.inf, 1.0], [2.0] * 4),
    ],
)
def test_two_more_seeds_are_named_if_the_spread_between_seeds_is_not_known(values, own):
    verdict = decide("fd", 1, values, own, 5, last=True)
    assert (verdict.kind, verdict.spread) == ("unsure", None)
    assert verdict.seeds_to_decide() == max(4, len(values) + 2)
