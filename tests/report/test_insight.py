"""Importances against Optuna's own, and each sentence exactly if its condition holds."""

from __future__ import annotations

import math
import random

import pytest
from gantool.report.insight import at_an_end, importances, sentences
from gantool.tune.race import Confirmed
from gantool.tune.verdict import Verdict, decide
from optuna.distributions import IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from reported import (
    BETA,
    DIM,
    FAILED,
    LOSS,
    LR,
    MIDDLE,
    RUNNING,
    SECOND,
    STOPPED,
    findings,
    scattered,
    studied,
    trial,
)

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # before Optuna 5


def told(trials, weights=None, **found):
    return sentences(findings(trials, **found), weights or {})


def having(part, trials, weights=None):
    return [sentence for sentence in told(trials, weights) if part in sentence]


@pytest.mark.parametrize(
    ("key", "metric"),
    [
        (LR, lambda point: abs(math.log10(point[LR]) + 3) + point[DIM] / 1e4),
        (BETA, lambda point: -math.log10(point[SECOND]) + point[LR]),
        (DIM, lambda point: (point[DIM] - 60) ** 2 + point[SECOND]),
    ],
)
def test_the_parameter_that_matters_is_found_and_shares_are_those_of_optuna(key, metric):
    trials = scattered(60, metric)
    found = importances(findings(trials))
    assert next(iter(found)) == key
    assert found[key] > 0.7
    assert sum(found.values()) == pytest.approx(1)
    reference = get_param_importances(studied(trials), evaluator=PedAnovaImportanceEvaluator())
    assert list(found.items()) == [(name.removeprefix("1 - "), share) for name, share in reference.items()]


def test_of_few_trials_five_count_as_good_and_not_a_tenth():
    trials = scattered(20, lambda point: point[DIM])
    evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25)
    reference = get_param_importances(studied(trials), evaluator=evaluator)
    assert list(importances(findings(trials)).values()) == list(reference.values())


@pytest.mark.parametrize(
    "trials",
    [
        scattered(7, lambda point: point[LR]),
        scattered(20, lambda point: 3.0),
        scattered(20, lambda point: math.inf),
        scattered(20, lambda point: point[LR], keys=()),
        [trial(float(index), point={LR: 1e-3} if index % 2 else {DIM: 5}) for index in range(20)],
        [trial(state=FAILED, why="diverged") for _ in range(20)],
    ],
    ids=["seven", "equal", "infinite", "no parameters", "never together", "failed"],
)
def test_nothing_is_learned_from_too_few_or_equal_trials(trials):
    assert importances(findings(trials)) == {}


def test_a_parameter_that_some_measured_trials_lack_has_no_share():
    trials = scattered(30, lambda point: point[DIM]) + scattered(10, lambda point: point[DIM], keys=(LR, DIM))
    found = importances(findings([*trials, trial(state=FAILED, point={})]))
    assert list(found) == [DIM, LR]
    assert found[DIM] > 0.7


def test_a_trial_that_was_stopped_counts_with_its_best_measurement():
    trials = scattered(40, lambda point: abs(math.log10(point[LR]) + 3))
    cut = [
        one if one.value < 0.5 else trial(state=STOPPED, point=one.params, steps={3: one.value, 4: 9.0})
        for one in trials
    ]
    assert sum(one.state == STOPPED for one in cut) > 20
    assert importances(findings(cut)) == importances(findings(trials))


@pytest.mark.parametrize(
    ("weights", "finished", "sentence"),
    [
        ({LR: 0.61, DIM: 0.2}, 20, ["lr mattered most (61 %), then latent_dim (20 %)"]),
        ({DIM: 0.2, LR: 0.61}, 20, ["lr mattered most (61 %), then latent_dim (20 %)"]),
        ({LR: 0.97, DIM: 0.03}, 20, ["lr mattered most (97 %)"]),
        ({LR: 0.6, DIM: 0.4}, 9, ["lr mattered most (60 %), then latent_dim (40 %); with 9 trials this is a guess"]),
        ({LR: 1.0}, 20, []),
        ({}, 20, []),
    ],
)
def test_the_parameters_that_mattered_are_named_if_several_were_searched(weights, finished, sentence):
    assert having("mattered", [trial(1.0) for _ in range(finished)], weights) == sentence


def fates(failed, others, key=LR):
    trials = [trial(state=FAILED, why="nonfinite: loss at step 7", point={**MIDDLE, key: value}) for value in failed]
    return trials + [trial(9.0, point={**MIDDLE, key: value}) for value in others]


@pytest.mark.parametrize(
    ("failed", "others", "key", "end"),
    [
        ([2e-2, 3e-2, 9e-2], [1e-5, 1e-4, 1e-4, 1e-3, 5e-3], LR, ", all with lr above 0.01"),
        ([1.3e-3, 3e-2, 9e-2], [1e-5, 1e-4, 1e-4, 1e-3, 1.25e-3], LR, ", all with lr above 1.27e-3"),
        ([1e-5, 2e-5, 3e-5], [1e-4, 1e-4, 1e-3, 1e-3, 5e-2], LR, ", all with lr below 5e-5"),
        ([150, 160, 200], [10, 20, 30, 149, 180], DIM, ", all with latent_dim above 149"),
        ([1e-4, 2e-4, 3e-4], [1e-3, 1e-2, 1e-2, 1e-2, 1e-1], SECOND, ", all with betas.1 above 0.999"),
        ([2e-2, 3e-2, 9e-2], [1e-5, 1e-4, 1e-3, 3e-2, 9e-2], LR, ": nonfinite"),  # two of five stand there
        ([2e-2, 9e-2], [1e-5] * 9, LR, ": nonfinite"),  # two may be chance
        ([2e-2, 3e-2, 9e-2], [1e-5] * 4, LR, ": nonfinite"),
        ([9e-2] * 3, [9e-2] * 9, LR, ": nonfinite"),
        (["hinge"] * 3, [None] * 9, LOSS, ": nonfinite"),
    ],
)
def test_a_threshold_is_named_if_it_separates_the_failed(failed, others, key, end):
    trials = fates(failed, others, key)
    assert having("failed", trials) == [f"{len(failed)} of {len(trials)} trials failed{end}"]


def test_of_two_parameters_that_separate_the_more_important_is_named_and_running_trials_do_not_count():
    trials = fates([2e-2, 3e-2, 9e-2], [1e-5] * 5)
    for one, value in zip(trials, (3, 4, 5, 70, 80, 90, 90, 90), strict=True):
        one.params = {**one.params, DIM: value}
    trials.append(trial(state=RUNNING, point={**MIDDLE, LR: 9e-2}))
    told = "3 of 8 trials failed, all with"
    assert having("failed", trials, {LR: 0.2, DIM: 0.8}) == [f"{told} latent_dim below 40"]
    assert having("failed", trials, {LR: 0.8, DIM: 0.2}) == [f"{told} lr above 4e-4"]


@pytest.mark.parametrize("seed", range(10))
def test_a_named_threshold_is_true(seed):
    drawn = random.Random(seed)
    failed = [10 ** drawn.uniform(-2, -1) for _ in range(4)]
    others = [10 ** drawn.uniform(-5, -2) for _ in range(9)]
    (sentence,) = having("failed", fates(failed, others))
    assert max(others) <= float(sentence.rpartition(" ")[2]) < min(failed)


@pytest.mark.parametrize(
    ("reasons", "end"),
    [
        (["diverged: loss is 101", "diverged: loss is 7000"], ": diverged"),
        (["out of memory", "diverged: loss is 101", "out of memory"], ", most often: out of memory"),
        (["word " * 60], ": word word"),
    ],
)
def test_other_failures_come_with_the_commonest_reason(reasons, end):
    (sentence,) = having("failed", [*(trial(state=FAILED, why=reason) for reason in reasons), trial(1.0)])
    assert sentence.startswith(f"{len(reasons)} of {len(reasons) + 1} trials failed{end}")
    assert len(sentence) < 130
    assert having("failed", [trial(1.0), trial(state=FAILED)]) == ["1 of 2 trials failed"]
    assert having("failed", [trial(1.0), trial(2.0)]) == []


@pytest.mark.parametrize(
    ("epoch", "seconds", "saved"),
    [
        (5, 100.0, ", which saved about 10m of 27m"),
        (10, 20.0, ", which saved about 40s of 15m"),
        (20, 400.0, ""),
        (0, 0.0, ""),
    ],
)
def test_the_time_that_stopping_early_saved_is_counted_in_full_epochs(epoch, seconds, saved):
    finished = [trial(1.0, steps={20: 1.0}, seconds=400.0) for _ in range(2)]
    early = [trial(state=STOPPED, steps={epoch: 1.0} if epoch else {}, seconds=seconds) for _ in range(2)]
    assert having("stopped early", finished + early) == [f"2 of 4 trials were stopped early{saved}"]
    assert having("stopped early", finished) == []


COPIED, LEFT_OUT = {"copies": True}, " (copies of training images do not count)"
LATER, LAST = "the later trial is not lower", "it was the last trial, so more trials may find a lower one"


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        ([], None),
        ([trial(state=RUNNING)], None),
        ([trial(math.inf), trial(state=STOPPED)], "none of 2 trials finished"),
        ([trial(41.23)], "only one trial has finished, with fd 41.23"),
        ([trial(5.0), trial(4.0), trial(6.0)], f"with one seed, trial 1 has the lowest fd, 4.000; {LATER}"),
        (
            [trial(4.0, own=True), trial(6.0), trial(7.0)],
            "with one seed, your recipe has the lowest fd, 4.000; none of the 2 later trials is lower",
        ),
        ([trial(4.0), trial(state=FAILED)], f"with one seed, trial 0 has the lowest fd, 4.000; {LATER}"),
        ([trial(6.0), trial(4.0)], f"with one seed, trial 1 has the lowest fd, 4.000; {LAST}"),
        (
            [trial(2.0, **COPIED), trial(4.0), trial(5.0)],
            f"with one seed, trial 1 has the lowest fd, 4.000{LEFT_OUT}; {LATER}",
        ),
        (
            [trial(2.0, diagnoses=["memorised"]), trial(4.0)],  # of version 0.1
            f"with one seed, trial 1 has the lowest fd, 4.000{LEFT_OUT}; {LAST}",
        ),
        (
            [trial(2.0, copies=False, diagnoses=["memorised"]), trial(4.0)],  # by the last measurement no copies
            f"with one seed, trial 0 has the lowest fd, 2.000; {LATER}",
        ),
        ([trial(2.0, **COPIED), trial(4.0, **COPIED)], f"with one seed, trial 0 has the lowest fd, 2.000; {LATER}"),
        (
            [trial(5.0, own=True, **COPIED), trial(2.0, **COPIED), trial(4.0)],
            f"with one seed, trial 1 has the lowest fd, 2.000; {LATER}",
        ),
    ],
)
def test_the_trial_with_the_lowest_metric_is_named(trials, sentence):
    found = [one for one in told(trials) if not one.startswith(("1 of", "2 of"))]
    assert found == ([sentence] if sentence else [])


def crowded(places, key=DIM, rest=4):
    """Make trials of which the best have these values, and the others that of the middle."""
    best = [trial(1.0 + index, point={**MIDDLE, key: value}) for index, value in enumerate(places)]
    return best + [trial(90.0) for _ in range(rest)]


@pytest.mark.parametrize(
    ("trials", "ends"),
    [
        (crowded([180, 185, 190, 195, 200]), "latent_dim in the upper tenth of its range; widen the range"),
        (crowded([179, 185, 190, 195, 200]), None),
        (crowded([180, 185, 190, 195, 200], rest=2), None),  # seven finished trials are too few
        (crowded([0, 1, 2, 3, 4]), None),  # a range that starts at 0 has nothing below it
        (crowded([2e-5] * 5, LR), "lr in the lower tenth of its range; widen the range"),
        (crowded([3e-5] * 5, LR), None),  # it would be in the lower tenth of a linear range
        (crowded([1.5e-4] * 5, SECOND), "betas.1 in the upper tenth of its range; widen the range"),
        (crowded([True] * 5, LOSS), None),
        ([trial(1.0, point={DIM: 200} if index else {LR: 1e-3}) for index in range(9)], None),  # one lacks the key
        (
            [trial(1.0, point={DIM: 200, LR: 1e-1})] * 9,
            "latent_dim in the upper tenth and lr in the upper tenth of their ranges; widen the ranges",
        ),
    ],
)
def test_a_range_is_to_be_widened_if_the_best_trials_stand_at_its_end(trials, ends):
    assert having("widen", trials) == ([f"the 5 best trials all have {ends}"] if ends else [])


def test_a_range_of_one_value_has_no_end():
    single = {DIM: IntDistribution(7, 7)}
    trials = [create_trial(value=float(index), params={DIM: 7}, distributions=single) for index in range(9)]
    assert having("widen", trials) == []


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({}, None),
        ({DIM: 200}, "trial 0 has latent_dim 200, the upper end of its range; widen the range"),
        ({DIM: 0}, None),
        (
            {LR: 1e-5, SECOND: 1e-4},
            "trial 0 has lr 1e-5, the lower end of its range, and betas.1 0.9999, the upper end of its range; "
            "widen the ranges",
        ),
    ],
)
def test_a_value_of_the_best_setting_at_the_end_of_its_range_is_pointed_out(point, sentence):
    trials = [trial(40.0, point={**MIDDLE, **point})]
    assert at_an_end(findings(trials, verdict=Verdict("unconfirmed", 0, "fd", (40.0,), (50.0,)))) == sentence
    assert at_an_end(findings(trials)) is None


def test_there_are_at_most_five_sentences_the_verdict_first():
    trials = [*crowded([200] * 5, rest=20), trial(state=FAILED), trial(state=STOPPED)]
    verdict = decide("fd", 1, [5.0, 5.1], [9.0, 9.1], 5, last=True)
    assert told(trials, {LR: 0.7, DIM: 0.3}, verdict=verdict) == [
        verdict.sentence(),
        "with one seed, trial 0 has the lowest fd, 1.000; none of the 26 later trials is lower",
        "lr mattered most (70 %), then latent_dim (30 %)",
        "1 of 27 trials failed",
        "the 5 best trials all have latent_dim in the upper tenth of its range; widen the range",
    ]
    assert told(trials[:1], confirmed=[Confirmed(0, (54.0,))]) == ["only one trial has finished, with fd 1.000"]
