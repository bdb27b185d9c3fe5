"""What a search taught: importances against Optuna's own, and each sentence just where its condition holds."""

from __future__ import annotations

import math
import random
import statistics

import optuna
import pytest
from gantool.report.findings import figure
from gantool.report.insight import Confirmed, Findings, at_an_edge, importances, sentences, short
from gantool.tune.space import names
from gantool.tune.verdict import Verdict, decide
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
LR, BETA, DIM, LOSS = "train.optimizer.lr", "train.optimizer.betas.1", "model.latent_dim", "loss.name"
SPANS = {
    LR: FloatDistribution(1e-5, 1e-1, log=True),
    BETA: FloatDistribution(1e-4, 1e-1, log=True),
    DIM: IntDistribution(0, 200),
    LOSS: CategoricalDistribution(["hinge", "minimax"]),
}
MIDDLE = {LR: 1e-3, BETA: 1e-2, DIM: 100, LOSS: "hinge"}
DONE, STOPPED, FAILED, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING


def trial(value=None, state=DONE, point=None, steps=None, **told):
    params = MIDDLE if point is None else point
    epoch = told.pop("epoch", 0)
    steps = {epoch: 1.0} if epoch else steps
    spans = {key: SPANS[key] for key in params}
    value = value if state == DONE else None
    return create_trial(
        state=state, value=value, params=params, distributions=spans, user_attrs=told, intermediate_values=steps
    )


def studied(trials):
    study = optuna.create_study()
    study.add_trials(trials)
    return study


def findings(trials, confirmed=(), winner=None, verdict=None):
    kept = studied(trials).get_trials()
    values = [{key: 1 - value if key == BETA else value for key, value in one.params.items()} for one in kept]
    return Findings("fd", kept, values, frozenset({LR}), frozenset({BETA}), list(confirmed), winner, verdict)


def told(trials, weights=None, **found):
    return sentences(findings(trials, **found), weights or {})


def having(part, *given, **more):
    return [sentence for sentence in told(*given, **more) if part in sentence]


def scattered(count, metric, seed=0, keys=(LR, BETA, DIM)):
    """Trials at random points, each with the metric of its point."""
    random_numbers = random.Random(seed)
    found = []
    for _ in range(count):
        point = {
            LR: 10 ** random_numbers.uniform(-5, -1),
            BETA: 10 ** random_numbers.uniform(-4, -1),
            DIM: random_numbers.randint(0, 200),
            LOSS: random_numbers.choice(["hinge", "minimax"]),
        }
        found.append(trial(metric(point), point={key: point[key] for key in keys}))
    return found


# Importances


@pytest.mark.parametrize(
    ("key", "metric"),
    [
        (LR, lambda point: abs(math.log10(point[LR]) + 3) + point[DIM] / 1e4),
        (BETA, lambda point: -math.log10(point[BETA]) + point[LR]),
        (DIM, lambda point: (point[DIM] - 60) ** 2 + point[BETA]),
    ],
)
def test_the_parameter_that_matters_is_found_and_shares_are_those_of_optuna(key, metric):
    study = studied(scattered(60, metric))
    found = importances(study.get_trials())
    assert next(iter(found)) == key
    assert found[key] > 0.7
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found == get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def test_of_few_trials_five_count_as_good_and_not_a_tenth():
    study = studied(scattered(20, lambda point: point[DIM]))
    reference = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))
    assert importances(study.get_trials()) == reference


@pytest.mark.parametrize(
    "trials",
    [
        [],
        scattered(7, lambda point: point[LR]),
        scattered(20, lambda point: 3.0),
        scattered(20, lambda point: math.inf),
        scattered(20, lambda point: point[LR], keys=()),
        [trial(float(index), point={LR: 1e-3} if index % 2 else {DIM: 5}) for index in range(20)],
        [trial(state=FAILED, why="diverged") for _ in range(20)],
    ],
    ids=["none", "seven", "equal", "infinite", "no parameters", "never together", "failed"],
)
def test_where_nothing_can_be_learned_there_are_no_importances(trials):
    study = studied(trials)
    assert importances(study.get_trials()) == {}


def test_a_parameter_that_some_finished_trials_lack_has_no_share():
    trials = scattered(30, lambda point: point[DIM]) + scattered(10, lambda point: point[DIM], keys=(LR, DIM))
    study = studied([*trials, trial(state=FAILED, point={})])
    found = importances(study.get_trials())
    assert list(found) == [DIM, LR]
    assert found[DIM] > 0.7


def test_a_parameter_counts_under_the_names_of_both_versions():
    trials = scattered(60, lambda point: -math.log10(point[BETA]))
    named = [one if index % 2 else renamed(one) for index, one in enumerate(trials)]
    assert importances(studied(named).get_trials()) == importances(studied(trials).get_trials())


def renamed(one):
    """The same trial under the names of a version that calls what it searches 1 - value."""
    params, spans = (
        {f"1 - {key}" if key == BETA else key: value for key, value in values.items()}
        for values in (one.params, one.distributions)
    )
    return create_trial(value=one.value, params=params, distributions=spans)


def test_a_trial_that_was_stopped_counts_with_what_it_was_last_measured_at():
    trials = scattered(40, lambda point: abs(math.log10(point[LR]) + 3))
    cut = [one if one.value < 0.5 else stopped_at(one) for one in trials]
    assert sum(one.state == STOPPED for one in cut) > 20
    assert importances(studied(cut).get_trials()) == importances(studied(trials).get_trials())


def stopped_at(one):
    """The same trial, stopped early where it was as good as in the end."""
    told = {"params": one.params, "distributions": one.distributions, "intermediate_values": {3: one.value}}
    return create_trial(state=STOPPED, **told)


@pytest.mark.parametrize(
    ("weights", "finished", "sentence"),
    [
        ({LR: 0.61, DIM: 0.2}, 20, ["lr mattered most (61 %), then latent_dim (20 %)"]),
        ({DIM: 0.2, LR: 0.61}, 20, ["lr mattered most (61 %), then latent_dim (20 %)"]),
        ({LR: 0.97, DIM: 0.03}, 20, ["lr mattered most (97 %)"]),
        ({LR: 0.6, DIM: 0.4}, 9, ["lr mattered most (60 %), then latent_dim (40 %); a guess from 9 trials"]),
        ({LR: 1.0}, 20, []),
        ({}, 20, []),
    ],
)
def test_what_mattered_is_named_where_there_is_a_choice(weights, finished, sentence):
    assert having("mattered", [trial(1.0) for _ in range(finished)], weights=weights) == sentence


# Failures


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
        ([1e-4, 2e-4, 3e-4], [1e-3, 1e-2, 1e-2, 1e-2, 1e-1], BETA, ", all with betas.1 above 0.999"),
        ([2e-2, 3e-2, 9e-2], [1e-5, 1e-4, 1e-3, 3e-2, 9e-2], LR, ": nonfinite"),  # two of five stand there
        ([2e-2, 9e-2], [1e-5] * 9, LR, ": nonfinite"),  # two may be chance
        ([2e-2, 3e-2, 9e-2], [1e-5] * 4, LR, ": nonfinite"),
        ([1e-5, 1e-3, 9e-2], [1e-4, 1e-4, 1e-3, 1e-3, 5e-2], LR, ": nonfinite"),
        ([9e-2] * 3, [9e-2] * 9, LR, ": nonfinite"),
        (["hinge"] * 3, ["minimax"] * 9, LOSS, ": nonfinite"),
    ],
)
def test_a_threshold_is_named_where_it_separates_the_failed(failed, others, key, end):
    trials = fates(failed, others, key)
    assert having("failed", trials) == [f"{len(failed)} of {len(trials)} failed{end}"]


def test_of_two_parameters_that_separate_the_weightier_is_named_and_running_trials_count_for_nothing():
    trials = fates([2e-2, 3e-2, 9e-2], [1e-5] * 5)
    for one, value in zip(trials, (3, 4, 5, 70, 80, 90, 90, 90), strict=True):
        one.params = {**one.params, DIM: value}
    trials.append(trial(state=RUNNING, point={**MIDDLE, LR: 9e-2}))
    assert having("failed", trials, weights={LR: 0.2, DIM: 0.8}) == ["3 of 8 failed, all with latent_dim below 40"]
    assert having("failed", trials, weights={LR: 0.8, DIM: 0.2}) == ["3 of 8 failed, all with lr above 4e-4"]


@pytest.mark.parametrize("seed", range(20))
def test_a_named_threshold_is_true(seed):
    numbers = random.Random(seed)
    failed = [10 ** numbers.uniform(-2, -1) for _ in range(4)]
    others = [10 ** numbers.uniform(-5, -2) for _ in range(9)]
    (sentence,) = having("failed", fates(failed, others))
    threshold = float(sentence.rpartition(" ")[2])
    assert max(others) <= threshold < min(failed)


@pytest.mark.parametrize(
    ("reasons", "end"),
    [
        (["diverged: loss is 101", "diverged: loss is 7000"], ": diverged"),
        (["out of memory", "diverged: loss is 101", "out of memory"], ", most often: out of memory"),
        (["word " * 60], ": word word"),
    ],
)
def test_other_failures_come_with_the_commonest_reason(reasons, end):
    trials = [trial(state=FAILED, why=reason) for reason in reasons]
    (sentence,) = having("failed", [*trials, trial(1.0)])
    assert sentence.startswith(f"{len(reasons)} of {len(reasons) + 1} failed{end}")
    assert len(sentence) < 130


def test_no_failure_is_not_spoken_of_and_one_without_a_reason_is_counted():
    assert having("failed", [trial(1.0), trial(2.0)]) == []
    assert having("failed", [trial(1.0), trial(state=FAILED)]) == ["1 of 2 failed"]


# Trials that were stopped early


@pytest.mark.parametrize(
    ("stopped", "sentence"),
    [
        ([], []),
        ([(5, 100.0)] * 2, ["2 of 4 were stopped early, which saved about 10m of 27m"]),
        ([(20, 400.0)] * 2, ["2 of 4 were stopped early"]),
        ([(0, 0.0)] * 2, ["2 of 4 were stopped early"]),
        ([None] * 2, ["2 of 4 were stopped early"]),
        ([(10, 20.0)] * 2, ["2 of 4 were stopped early, which saved about 40s of 15m"]),
    ],
)
def test_what_stopping_early_saved_is_counted_in_full_epochs(stopped, sentence):
    finished = [trial(1.0, epoch=20, seconds=400.0) for _ in range(2)]
    early = [trial(state=STOPPED, **({"epoch": one[0], "seconds": one[1]} if one else {})) for one in stopped]
    assert having("stopped early", finished + early) == sentence


# When the lowest one came


COPIED, ALIKE = {"copies": True}, {"diagnoses": ["mode-collapse", "overfits"]}
OLD_COPIED = {"diagnoses": ["memorised"]}  # of version 0.1
NOT_LOWER, LEFT_OUT = "the last of 2 trials was not lower", "; copies of training images left out"


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        ([], None),
        ([trial(state=RUNNING)], None),
        ([trial(state=FAILED), trial(state=STOPPED)], "none of 2 trials finished"),
        ([trial(math.inf), trial(state=STOPPED)], "none of 2 trials finished"),
        ([trial(41.23)], "one trial finished, with fd 41.23: it takes more to learn from"),
        (
            [trial(5.0), trial(4.0), trial(6.0)],
            "with one seed trial 1 was the lowest (fd 4.000); the last of 3 trials was not lower",
        ),
        (
            [trial(4.0), trial(6.0), trial(7.0)],
            "with one seed trial 0 was the lowest (fd 4.000); the last 2 of 3 trials were not lower",
        ),
        ([trial(4.0), trial(4.0)], f"with one seed trial 0 was the lowest (fd 4.000); {NOT_LOWER}"),
        ([trial(4.0), trial(state=FAILED)], f"with one seed trial 0 was the lowest (fd 4.000); {NOT_LOWER}"),
        (
            [trial(4.0, own=True), trial(6.0), trial(7.0)],
            "with one seed the recipe's own values were the lowest (fd 4.000); the last 2 of 3 trials were not lower",
        ),
        (
            [trial(6.0), trial(4.0), trial(state=RUNNING)],
            "with one seed the last trial, 1, was the lowest (fd 4.000): more trials may find a lower one",
        ),
        (
            [trial(2.0, **COPIED), trial(4.0), trial(5.0)],
            f"with one seed trial 1 was the lowest (fd 4.000{LEFT_OUT}); the last of 3 trials was not lower",
        ),
        (
            [trial(2.0, **OLD_COPIED), trial(4.0), trial(5.0)],
            f"with one seed trial 1 was the lowest (fd 4.000{LEFT_OUT}); the last of 3 trials was not lower",
        ),
        (
            [trial(2.0, **COPIED), trial(4.0, **ALIKE)],
            f"with one seed the last trial, 1, was the lowest (fd 4.000{LEFT_OUT}): more trials may find a lower one",
        ),
        (
            [trial(6.0, **COPIED), trial(4.0)],
            "with one seed the last trial, 1, was the lowest (fd 4.000): more trials may find a lower one",
        ),
        (
            [trial(2.0, copies=False, **OLD_COPIED), trial(4.0)],  # by the last measurement they are no copies
            f"with one seed trial 0 was the lowest (fd 2.000); {NOT_LOWER}",
        ),
        ([trial(2.0, **ALIKE), trial(4.0)], f"with one seed trial 0 was the lowest (fd 2.000); {NOT_LOWER}"),
        ([trial(2.0, **COPIED), trial(4.0, **COPIED)], f"with one seed trial 0 was the lowest (fd 2.000); {NOT_LOWER}"),
        (
            [trial(5.0, own=True, **COPIED), trial(2.0, **COPIED), trial(4.0)],
            "with one seed trial 1 was the lowest (fd 2.000); the last of 3 trials was not lower",
        ),
    ],
)
def test_it_is_said_when_the_lowest_came(trials, sentence):
    found = [one for one in told(trials) if not one.startswith(("1 of", "2 of"))]
    assert found == ([sentence] if sentence else [])


# Ranges that end too early


def crowded(places, key=DIM, rest=4):
    """The best trials have these values, the others that of the middle."""
    best = [trial(1.0 + index, point={**MIDDLE, key: value}) for index, value in enumerate(places)]
    return best + [trial(90.0) for _ in range(rest)]


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        (crowded([180, 185, 190, 195, 200]), "the 5 best all have latent_dim in the top tenth of its range: widen it"),
        (crowded([179, 185, 190, 195, 200]), None),
        (crowded([180, 185, 190, 195, 200], rest=2), None),  # of seven finished trials nothing is said
        (crowded([0, 1, 2, 3, 4]), None),  # a range that starts at 0 has nothing below it
        (crowded([2e-5] * 5, LR), "the 5 best all have lr in the bottom tenth of its range: widen it"),
        (crowded([5e-2] * 5, LR), "the 5 best all have lr in the top tenth of its range: widen it"),
        (crowded([3e-5] * 5, LR), None),  # in the bottom tenth, were the range not one of orders of magnitude
        (crowded([1.5e-4] * 5, BETA), "the 5 best all have betas.1 in the top tenth of its range: widen it"),
        (crowded([9e-2] * 5, BETA), "the 5 best all have betas.1 in the bottom tenth of its range: widen it"),
        (crowded(["minimax"] * 5, LOSS), None),
        ([trial(1.0, point={DIM: 200} if index else {LR: 1e-3}) for index in range(9)], None),  # one lacks the key
        (
            [trial(1.0, point={DIM: 200, LR: 1e-1, LOSS: "hinge"})] * 9,
            "the 5 best all have latent_dim in the top tenth and lr in the top tenth of their ranges: widen them",
        ),
    ],
)
def test_a_range_is_to_be_widened_where_the_best_stand_at_its_end(trials, sentence):
    assert having("widen", trials) == ([sentence] if sentence else [])


def test_a_range_of_one_value_has_no_end():
    single = {DIM: IntDistribution(7, 7)}
    trials = [create_trial(value=float(index), params={DIM: 7}, distributions=single) for index in range(9)]
    assert having("widen", trials) == []


# After the confirmation

PAIR = [trial(50.0, own=True), trial(40.0), trial(45.0), trial(60.0)]
OWN = (54.0, 56.0, 58.0, 55.0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            (40.0, 41.0, 42.0, 40.5),
            "trial 1 is better than your recipe: fd 40.87 against 55.73, 27 % lower (95 % interval 22 to 31 % lower), "
            "4 seeds each",
        ),
        (
            (60.0, 59.0, 61.0, 60.0),
            "no setting beat your recipe, so keep it: the best other one had fd 60.00 against 55.73, 4 seeds each",
        ),
        (
            (40.0, 41.0, 62.0, 40.5),
            "cannot tell yet whether trial 1 is better: fd 45.05 against 55.73 over 4 seeds "
            "(95 % interval 31 % lower to 15 % higher)",
        ),
    ],
)
def test_the_verdict_is_the_first_sentence(values, sentence):
    assert told(PAIR, verdict=decide("fd", 1, values, OWN, 5, last=True))[0] == sentence


def test_without_a_verdict_nothing_is_said_of_new_seeds():
    assert told(PAIR, confirmed=[Confirmed(0, (54.0,)), Confirmed(1, (40.0,))]) == [
        "with one seed trial 1 was the lowest (fd 40.00); the last 2 of 4 trials were not lower"
    ]


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({}, None),
        ({DIM: 200}, "of trial 0 latent_dim 200 is at the upper end of its range: widen it"),
        ({DIM: 0}, None),
        (
            {LR: 1e-5, BETA: 1e-4},
            "of trial 0 lr 1e-5 is at the lower end of its range and betas.1 0.9999 is at the upper end of its range: "
            "widen them",
        ),
    ],
)
def test_a_value_of_the_best_setting_at_the_end_of_its_range_is_pointed_out(point, sentence):
    verdict = Verdict("unconfirmed", 0, "fd", (40.0,), (50.0,))
    found = findings([trial(40.0, point={**MIDDLE, **point})], verdict=verdict)
    assert at_an_edge(found) == sentence
    assert at_an_edge(findings([trial(40.0)])) is None


def test_mean_and_deviation_are_those_of_a_sample():
    one = Confirmed(3, (40.0, 41.5, 47.0))
    assert one.mean == pytest.approx(statistics.mean(one.values))
    assert one.deviation == pytest.approx(statistics.stdev(one.values))
    assert Confirmed(3, (40.0,)).deviation == 0.0
    assert math.isnan(Confirmed(3, ()).mean)


def test_means_are_written_with_their_deviation():
    assert str(Confirmed(1, (40.0, 41.0, 42.0))) == "41.0 ± 1.0"
    assert str(Confirmed(1, (40.0,))) == "40.00"
    assert str(Confirmed(1, (40.0, math.inf))) == "40.00 (1 of 2 failed)"


def test_the_best_trial_is_the_one_that_the_search_recommends():
    assert findings(PAIR).best is None
    assert findings(PAIR, winner=2).best.number == 2
    assert findings(PAIR, [Confirmed(1, (1.0, 1.0))], winner=0).best.number == 0


# All of them


def test_never_more_than_five_sentences_the_weightiest_first():
    trials = [*crowded([200] * 5, rest=20), trial(state=FAILED), trial(state=STOPPED)]
    verdict = decide("fd", 1, [5.0, 5.1], [9.0, 9.1], 5, last=True)
    assert told(trials, {LR: 0.7, DIM: 0.3}, verdict=verdict) == [
        "cannot tell yet whether trial 1 is better: fd 5.050 against 9.050 over 2 seeds (too few to tell)",
        "with one seed trial 0 was the lowest (fd 1.000); the last 26 of 27 trials were not lower",
        "lr mattered most (70 %), then latent_dim (30 %)",
        "1 of 27 failed",
        "the 5 best all have latent_dim in the top tenth of its range: widen it",
    ]


def test_names_are_short_and_of_two_alike_as_long_as_they_must():
    assert [short(key) for key in (LR, BETA, DIM, LOSS, "lr")] == ["lr", "betas.1", "latent_dim", "loss.name", "lr"]
    rates = [LR, "train.generator.lr", "train.generator.betas.1", BETA, DIM]
    ends = ["optimizer.lr", "generator.lr", "generator.betas.1", "optimizer.betas.1", "latent_dim"]
    assert list(names(rates).values()) == ends
    assert names(["lr", LR]) == {"lr": "lr", LR: "optimizer.lr"}
    assert having("mattered", [trial(1.0)] * 20, weights={LR: 0.6, "train.generator.lr": 0.4}) == [
        "optimizer.lr mattered most (60 %), then generator.lr (40 %)"
    ]


@pytest.mark.parametrize("value", [1e-5, 2.5e-4, 0.012, 0.5, 0.9995, 0.99985, 1.0, 12.5, 400.0, 2e6, -3e-3, 0.0])
def test_figures_are_read_back_as_the_same_number(value):
    assert float(figure(value)) == value
    assert len(figure(value)) <= 7
