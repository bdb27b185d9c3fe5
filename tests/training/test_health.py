"""Diagnoses: each rule against measured runs that were ill or well, its windows, its words and its memory."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gantool import checkpoints
from gantool.errors import RunError
from gantool.training import diagnoses as rules
from gantool.training import health
from gantool.training.diagnoses import CODES, SUMMARIES, Diagnosis, Observation, explain
from gantool.training.health import Health

HEALTHY = Observation(
    epoch=1,
    step=300,
    train_images=898,
    held_out_images=200,
    losses={"discriminator/adversarial": 1.3, "generator/adversarial": 0.8},
    rates={"generator": 2e-4, "discriminator": 2e-4},
    accuracy=0.58,
    fake_answer=0.49,
    gradient=0.33,
    first_gradient=1.0,
    real_train_score=0.6,
    real_held_out_score=0.48,
    fake_score=-0.2,
    contrast=0.97,
    saturated=0.31,
    real_saturated=0.52,
    fd=13.7,
    floor_deviation=0.05,
    support=79_800.0,
    collisions=0,
    lost_classes=(),
    copying=20.0,
    nearest_fake=0.88,
    copied=0.0,
    change=0.4,
)
PLAYERS = ("accuracy", "fake_answer", "gradient", "real_train_score", "real_held_out_score", "fake_score")
PICTURES = ("contrast", "support", "collisions", "copying", "nearest_fake", "copied", "fd")


def run(players, pictures):
    return replace(HEALTHY, **dict(zip(PLAYERS + PICTURES, players + pictures, strict=True)))


# Measured on 14x14 digits after 300 steps with 400 generated images; scores are such that r_v is the measured one.
NO_PLAYERS = (None,) * 6
OVERPOWERED = run((1.00, 0.000, 1.1, 9.0, 9.0, -9.0), (0.76, 13_300.0, 6, 24.0, 1.00, 0.0, 336.0))
SATURATING = run((1.00, 0.000, 0.0005, 9.0, 9.0, -9.0), (0.68, 97.0, 823, 24.0, 1.00, 0.0, 713.0))
FAST_GENERATOR = run((0.39, 0.51, 0.04, 0.1, 0.12, -0.2), (0.69, 79_800.0, 0, 22.0, 0.99, 0.0, 33.0))
ONE_LATENT = run((0.61, 0.47, 0.26, 0.6, 0.59, -0.2), (0.84, 8.0, 9975, 17.0, 1.00, 0.0, 67.0))
TWENTY = run((0.91, 0.26, 1.5, 2.0, -1.81, -1.0), (0.97, 79_800.0, 0, -1.3, 0.87, 0.0, 13.8))
TOO_LARGE_STEPS = run((1.00, 0.000, 3e-7, 9.0, 9.0, -9.0), (0.00, 1.0, 79_800, 24.0, 1.00, 0.0, 960.0))
TWENTY_COPIED = run(NO_PLAYERS, (None, 19.0, 4200, -24.5, 0.97, 1.0, 16.0))
ALL_COPIED = run(NO_PLAYERS, (None, 11_400.0, 7, -24.5, 0.51, 1.0, 0.4))
ONE_COPIED = run(NO_PLAYERS, (None, 1.0, 79_800, -24.5, 1.00, 1.0, 93.0))
HELD_OUT = run(NO_PLAYERS, (None, 39_900.0, 2, 0.4, 0.52, 0.01, 1.08))
MEASURED = {
    "healthy": (HEALTHY, {"no-progress"}),
    "D overpowers": (OVERPOWERED, {"d-overpowers", "no-progress"}),
    "D overpowers, saturating loss": (SATURATING, {"d-overpowers", "g-grad-vanished", "no-progress"}),
    "G much faster than D": (FAST_GENERATOR, {"d-too-weak", "no-progress"}),
    "latent_dim 1": (ONE_LATENT, {"mode-collapse", "no-progress"}),
    "20 training images": (TWENTY, {"d-overfit", "no-progress"}),
    "lr 0.3": (TOO_LARGE_STEPS, {"diverged", "d-overpowers", "g-grad-vanished", "mode-collapse", "no-progress"}),
    "20 training images copied": (TWENTY_COPIED, {"mode-collapse", "memorised", "no-progress"}),
    "all training images copied": (ALL_COPIED, {"memorised"}),
    "one image copied": (ONE_COPIED, {"mode-collapse", "memorised", "no-progress"}),
    "real held-out images": (HELD_OUT, set()),
}
GIVEN_BACK = replace(HEALTHY, change=0.01)
# Of each rule: an observation at which it holds, and at how many in a row.
ILL = {
    "diverged": (TOO_LARGE_STEPS, 2),
    "d-overpowers": (OVERPOWERED, 5),
    "g-grad-vanished": (SATURATING, 5),
    "d-overfit": (TWENTY, 3),
    "d-too-weak": (FAST_GENERATOR, 10),
    "mode-collapse": (ONE_LATENT, 2),
    "memorised": (ALL_COPIED, 2),
    "unchanged": (GIVEN_BACK, 2),
    "no-progress": (HEALTHY, 20),
}
EVERY_EPOCH = ("diverged", "d-overpowers", "g-grad-vanished")
# Observations until a run that was ill from the start is told so: fd cannot stand still at the first one.
FIRST = {code: length for code, (_, length) in ILL.items()} | {"d-too-weak": 11, "mode-collapse": 6, "no-progress": 21}
VERDICTS = {"true": OVERPOWERED, "false": HEALTHY, "unknown": replace(OVERPOWERED, fake_answer=None)}
SURE = {"accuracy": 1.0, "fake_answer": 0.0}
LIMITS = {
    "diverged": ("0.05", "50%", "10%", "0.99", "100"),
    "d-overpowers": ("0.98", "0.01", "100 steps"),
    "g-grad-vanished": ("0.001", "50 steps", "minimax"),
    "d-overfit": ("above 0.5", "more than 0.5"),
    "d-too-weak": ("0.52", "above 5"),
    "mode-collapse": ("fewer than 50", "half as many", "10 pairs", "10%", "5 measurements", "0.2"),
    "memorised": ("below -3", "below 0.4", "10%", "1%", "12 held-out"),
    "unchanged": ("below 0.04", "first 100 steps"),
    "no-progress": ("one deviation", "2 deviations"),
}
UNMEASURED = [field.name for field in dataclasses.fields(Observation) if field.default is None]


def at(observation, epoch):
    return replace(observation, epoch=epoch, step=300 * epoch)


def told(observations, judge=None):
    """Return what is told at each of the observations, which are one epoch apart."""
    judge = judge or Health()
    return [judge.observe(at(observation, epoch)) for epoch, observation in enumerate(observations, 1)]


def codes(observations):
    return {diagnosis.code for diagnoses in told(observations) for diagnosis in diagnoses}


def epochs(observations, code):
    """Return the epochs at which a state begins, and those at which it is told to be over."""
    found = [diagnosis for diagnoses in told(observations) for diagnosis in diagnoses if diagnosis.code == code]
    return [each.epoch for each in found if each.began], [each.epoch for each in found if not each.began]


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_run_has_the_diagnoses_that_it_should_and_no_others(name):
    observation, expected = MEASURED[name]
    judge = Health()
    told([observation] * 30, judge)

    assert codes([observation] * 30) == set(judge.active) == expected


@pytest.mark.parametrize("last", [13.7, 1.08])
def test_a_healthy_run_whose_fd_falls_is_silent(last):
    falling = [replace(HEALTHY, fd=last + 100 * 0.85**epoch) for epoch in range(30)]

    assert told(falling) == [[]] * 30


@pytest.mark.parametrize("code", ILL)
def test_a_run_that_is_ill_from_the_start_is_told_so_once(code):
    observation, _ = ILL[code]

    assert epochs([observation] * (FIRST[code] - 1), code) == ([], [])
    assert epochs([observation] * 60, code) == ([FIRST[code]], [])


@pytest.mark.parametrize("code", [code for code in ILL if code != "no-progress"])
def test_a_state_begins_after_as_many_observations_in_a_row_as_its_rule_says(code):
    observation, length = ILL[code]
    well = replace(HEALTHY, fd=observation.fd)
    before, row = [well] * 25, [observation] * (length - 1)

    assert epochs([*before, *row, well, *row, well], code) == ([], [])
    assert epochs([*before, *row, well, *row, observation], code) == ([25 + 2 * length], [])


@pytest.mark.parametrize("code", [code for code in ILL if code != "no-progress"])
@pytest.mark.parametrize("pause", [1, 2, 3])
def test_a_state_ends_when_it_was_well_twice_in_a_row(code, pause):
    observation, first = ILL[code][0], FIRST[code]
    well = replace(HEALTHY, fd=observation.fd)
    begun, over = epochs([*[observation] * first, *[well] * pause, observation], code)

    assert begun == [first]
    assert over == ([first + 2] if pause > 1 else [])


@pytest.mark.parametrize("code", ["d-too-weak", "no-progress"])
def test_one_better_fd_ends_a_state_that_says_there_is_none(code):
    observation, first = ILL[code][0], FIRST[code]
    better = replace(observation, fd=observation.fd - 1)

    assert epochs([*[observation] * first, better, observation], code) == ([first], [first + 2])


@pytest.mark.parametrize("code", ["d-too-weak", "no-progress", "mode-collapse"])
def test_a_better_fd_starts_the_time_again_in_which_it_must_not_fall(code):
    observation, first = ILL[code][0], FIRST[code]
    better = replace(observation, fd=observation.fd - 1)
    row = [observation] * (first - 1)

    assert epochs([*row, better, *row[1:]], code) == ([], [])
    assert epochs([*row, better, *row], code) == ([2 * first - 1], [])


def test_images_that_are_few_stay_so_though_fd_falls():
    falling = [replace(ONE_LATENT, fd=67.0 - epoch) for epoch in range(40)]

    assert epochs(falling, "mode-collapse") == ([], [])
    assert epochs([*[ONE_LATENT] * 6, *falling], "mode-collapse") == ([6], [])


def test_few_images_are_a_collapse_while_fd_still_falls_once_it_is_a_fifth_of_the_first():
    fallen = [replace(ONE_LATENT, fd=600.0 - 100 * epoch) for epoch in range(5)]  # 600 to 200
    fallen += [replace(ONE_LATENT, fd=value) for value in (121.0, 120.5, 119.0, 100.0, 90.0)]

    assert epochs(fallen, "mode-collapse") == ([8], [])  # the first below 120
    lost = [replace(each, support=79_800.0, collisions=0, lost_classes=("3",)) for each in fallen]
    assert epochs(lost, "mode-collapse") == ([], [])  # a judge misses classes in healthy young runs, too


def test_the_first_epochs_of_a_healthy_run_are_no_collapse():
    # dcgan14 on 1,797 digits, an epoch each of 11 steps: fd, contrast, support, classes that hardly came up.
    course = [
        (751.0, 0.271, 1.2, 8), (693.0, 0.435, 6.3, 7), (518.0, 0.593, 562.0, 6), (381.0, 0.697, 39_900.0, 7),
        (287.0, 0.760, 79_800.0, 7), (178.0, 0.727, 79_800.0, 7), (125.0, 0.751, 79_800.0, 6),
        (85.1, 0.711, 79_800.0, 6), (60.6, 0.705, 79_800.0, 6), (50.8, 0.695, 79_800.0, 6),
        (53.5, 0.761, 79_800.0, 5), (103.0, 0.667, 79_800.0, 6), (30.0, 0.828, 79_800.0, 4),
        (59.2, 0.863, 79_800.0, 1), (108.0, 0.769, 79_800.0, 5), (15.4, 0.908, 79_800.0, 0),
        (43.5, 0.977, 79_800.0, 0), (14.2, 0.966, 79_800.0, 0),
    ]  # fmt: skip
    judge = Health()
    for epoch, (fd, contrast, support, lost) in enumerate(course, 1):
        seen = {"contrast": contrast, "support": support, "collisions": 79_800 / support, "lost_classes": ("x",) * lost}
        assert judge.observe(replace(HEALTHY, epoch=epoch, step=11 * epoch, fd=fd, **seen)) == []


def test_a_state_that_flickers_is_told_once_and_stays():
    judge = Health()
    flicker = told([*[ONE_LATENT] * 6, *[HEALTHY, ONE_LATENT] * 20], judge)

    assert [each.code for diagnoses in flicker for each in diagnoses if each.code != "no-progress"] == ["mode-collapse"]
    assert "mode-collapse" in judge.active


def test_a_state_can_come_back():
    again = [*[TWENTY] * 3, *[HEALTHY] * 2] * 3

    assert epochs(again, "d-overfit") == ([3, 8, 13], [5, 10, 15])


def test_a_state_that_nothing_is_known_of_neither_begins_nor_ends():
    blind = replace(OVERPOWERED, accuracy=None)

    assert epochs([*[OVERPOWERED] * 4, blind, *[OVERPOWERED] * 4], "d-overpowers") == ([], [])
    assert epochs([*[OVERPOWERED] * 5, *[blind, HEALTHY] * 10], "d-overpowers") == ([5], [])
    assert epochs([*[OVERPOWERED] * 5, *[blind] * 10, *[HEALTHY] * 2], "d-overpowers") == ([5], [17])


def plainly(names, length):
    """Begin and end a state by looking at the whole past each time."""
    active, found = False, []
    for index in range(len(names)):
        past = names[: index + 1]
        if not active and past[-length:] == ["true"] * length:
            active = True
            found.append((index + 1, True))
        elif active and past[-2:] == ["false"] * 2:
            active = False
            found.append((index + 1, False))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_any_course_is_told_as_by_looking_at_the_whole_past(seed):
    random_ = random.Random(seed)
    names = random_.choices(["true", "false", "unknown"], [6, 2, 0.3], k=200)
    diagnoses = [
        each for some in told(VERDICTS[name] for name in names) for each in some if each.code == "d-overpowers"
    ]

    assert [(each.epoch, each.began) for each in diagnoses] == plainly(names, 5)


def test_a_sure_discriminator_is_normal_in_the_first_100_steps():
    judge = Health()
    early = [judge.observe(replace(SATURATING, epoch=step, step=step)) for step in range(1, 105)]
    late = judge.observe(replace(SATURATING, epoch=105, step=105))

    assert {each.code for diagnoses in early for each in diagnoses} == {"no-progress"}
    assert [each.code for each in late] == ["d-overpowers", "g-grad-vanished"]


def test_flat_images_are_normal_in_the_first_100_steps_and_pixels_at_a_limit_are_not():
    flat = replace(HEALTHY, contrast=0.0)
    limit = replace(flat, saturated=1.0, real_saturated=0.0)

    assert [Health().observe(replace(flat, step=step)) for step in (1, 100)] == [[], []]
    judge, other = Health(), Health()
    assert [len(judge.observe(replace(flat, step=step))) for step in range(99, 104)] == [0, 0, 0, 1, 0]
    assert [len(other.observe(replace(limit, step=step))) for step in range(1, 4)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("code", "ill", "limit"),
    [
        ("diverged", {"contrast": 0.049}, {"contrast": 0.05}),
        ("diverged", {"saturated": 0.51, "real_saturated": 0.09}, {"saturated": 0.5, "real_saturated": 0.09}),
        ("diverged", {"saturated": 0.51, "real_saturated": 0.09}, {"saturated": 0.51, "real_saturated": 0.1}),
        ("diverged", {"losses": {"a": 1.0, "b": -100.1}}, {"losses": {"a": 1.0, "b": -100.0}}),
        ("d-overpowers", {"accuracy": 0.981, "fake_answer": 0.009}, {"accuracy": 0.98, "fake_answer": 0.009}),
        ("d-overpowers", {"accuracy": 0.981, "fake_answer": 0.009}, {"accuracy": 0.981, "fake_answer": 0.01}),
        ("g-grad-vanished", {**SURE, "gradient": 0.0009}, {**SURE, "gradient": 0.001}),
        ("g-grad-vanished", {**SURE, "gradient": 0.0009}, {"gradient": 0.0009}),
        (
            "d-overfit",
            {"real_train_score": 2.0, "real_held_out_score": 0.99, "fake_score": 0.0},
            {"real_train_score": 2.0, "real_held_out_score": 1.0, "fake_score": 0.0},
        ),
        (
            "d-overfit",
            {"real_train_score": 0.51, "real_held_out_score": 0.0, "fake_score": 0.0},
            {"real_train_score": 0.5, "real_held_out_score": 0.0, "fake_score": 0.0},
        ),
        ("d-too-weak", {"accuracy": 0.51, "fd": 5.2}, {"accuracy": 0.52, "fd": 5.1}),
        ("d-too-weak", {"accuracy": 0.51, "fd": 5.1}, {"accuracy": 0.51, "fd": 5.0}),
        ("mode-collapse", {"support": 49.0, "collisions": 10}, {"support": 50.0, "collisions": 10}),
        ("mode-collapse", {"support": 49.0, "collisions": 10}, {"support": 49.0, "collisions": 9}),
        (
            "mode-collapse",
            {"support": 29.0, "collisions": 10, "train_images": 60},
            {"support": 30.0, "collisions": 10, "train_images": 60},
        ),
        ("mode-collapse", {"lost_classes": ("3",)}, {"lost_classes": ()}),
        ("memorised", {"copying": -3.1, "nearest_fake": 0.39}, {"copying": -3.0, "nearest_fake": 0.39}),
        ("memorised", {"copying": -3.1, "nearest_fake": 0.39}, {"copying": -3.1, "nearest_fake": 0.4}),
        ("memorised", {"copying": -3.1, "copied": 0.11}, {"copying": -3.1, "copied": 0.1}),
        (
            "memorised",
            {"copying": -9.0, "copied": 1.0, "held_out_images": 12},
            {"copying": -9.0, "copied": 1.0, "held_out_images": 11},
        ),
        ("no-progress", {"fd": 1.2}, {"fd": 1.0999}),
    ],
)
def test_a_threshold_itself_is_still_well(code, ill, limit):
    assert code in codes([replace(HEALTHY, **ill)] * 30)
    assert code not in codes([replace(HEALTHY, **limit)] * 30)


def test_a_run_whose_best_fd_creeps_down_makes_progress():
    creeping = [replace(HEALTHY, fd=13.7 - 0.06 * epoch / 20) for epoch in range(100)]
    interim_summary = [replace(HEALTHY, fd=13.7 - 0.04 * epoch / 20) for epoch in range(100)]

    assert epochs(creeping, "no-progress") == ([], [])
    assert epochs(interim_summary, "no-progress") == ([21], [])


def test_a_run_that_has_lost_its_best_makes_no_progress_until_it_is_better_than_ever():
    good, lost = replace(HEALTHY, fd=5.0), [replace(HEALTHY, fd=60.0 - epoch) for epoch in range(40)]
    better = [replace(HEALTHY, fd=4.9)] * 2

    assert epochs([good, *lost, *better], "no-progress") == ([21], [43])


def test_a_generator_that_runs_away_is_none_while_fd_falls():
    falling = [replace(FAST_GENERATOR, fd=80.0 - epoch) for epoch in range(30)]

    assert codes(falling) == set()
    assert epochs([*falling, *[FAST_GENERATOR] * 10], "d-too-weak")[0] == []  # 33 is better than the 51 before
    assert epochs([*falling, *[replace(FAST_GENERATOR, fd=60.0)] * 10], "d-too-weak")[0] == [40]


@pytest.mark.parametrize("name", UNMEASURED)
def test_a_rule_without_what_it_needs_is_silent_and_the_others_go_on(name):
    for what, (observation, expected) in MEASURED.items():
        assert codes([replace(observation, **{name: None})] * 30) <= expected, what


def test_a_run_of_which_nothing_is_known_is_silent():
    bare = Observation(epoch=1, step=1, train_images=60, held_out_images=0)

    assert told([bare] * 30) == [[]] * 30


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*(name for name in UNMEASURED if name != "lost_classes"), "losses", "rates"])
def test_a_value_that_is_not_finite_counts_as_not_measured(name, value):
    for what, (observation, expected) in MEASURED.items():
        given = {"generator": value, "discriminator": value} if name in ("losses", "rates") else value
        assert codes([replace(observation, **{name: given})] * 30) <= expected, what


@pytest.mark.parametrize("seed", range(20))
def test_any_numbers_at_all_are_judged(seed):
    random_ = random.Random(seed)
    values = [None, 0.0, -0.0, 1e-300, -1e300, 1e300, 1.0, 0.5, -5.0, math.nan, math.inf, -math.inf, 60.0, 7]
    numbers = [name for name in UNMEASURED if name != "lost_classes"]
    judge = Health()
    for epoch in range(1, 200):
        drawn = {name: random_.choice(values) for name in numbers}
        losses = {"generator/adversarial": random_.choice(values[1:])}
        for diagnosis in judge.observe(replace(HEALTHY, epoch=epoch, losses=losses, **drawn)):
            assert diagnosis.message.isprintable()
    json.dumps(judge.state_dict(), allow_nan=False)


def mixed(seed):
    """Return a course through the measured runs that stays a while with each."""
    random_ = random.Random(seed)
    course = []
    while len(course) < 150:
        observation = random_.choice([observation for observation, _ in MEASURED.values()])
        for _ in range(random_.randint(1, 12)):
            missing = {random_.choice(UNMEASURED): None} if random_.random() < 0.1 else {}
            course.append(replace(observation, **{"fd": observation.fd * random_.uniform(0.9, 1.1), **missing}))
    return [at(observation, epoch) for epoch, observation in enumerate(course, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_a_resumed_run_is_judged_as_one_that_never_stopped(seed):
    course = mixed(seed)
    whole, parts = Health(), Health()
    for observation in course:
        parts_before = json.loads(json.dumps(parts.state_dict(), allow_nan=False))
        parts = Health()
        parts.load_state_dict(parts_before)

        assert parts.observe(observation) == whole.observe(observation)
        assert parts.active == whole.active
        assert parts.state_dict() == whole.state_dict()


def test_the_state_goes_into_a_checkpoint(tmp_path):
    judge = Health()
    for observation in mixed(0)[:70]:
        judge.observe(observation)
    checkpoints.save(tmp_path / "last.pt", {"health": judge.state_dict()})
    again = Health()
    again.load_state_dict(checkpoints.load(tmp_path / "last.pt")["health"])

    assert again.state_dict() == judge.state_dict()
    assert [again.observe(each) for each in mixed(0)[70:]] == [judge.observe(each) for each in mixed(0)[70:]]


def test_a_state_that_was_given_out_does_not_change_any_more():
    judge = Health()
    before = judge.state_dict()
    judge.observe(TOO_LARGE_STEPS)

    assert before == Health().state_dict() != judge.state_dict()


def test_active_states_are_in_the_order_of_the_codes():
    judge = Health()
    told([TOO_LARGE_STEPS] * 30, judge)

    assert judge.active == ("diverged", "d-overpowers", "g-grad-vanished", "mode-collapse", "no-progress")
    assert list(judge.active) == sorted(judge.active, key=CODES.index)


MESSAGES = {
    "diverged": (
        "generated pixels vary 0.00 times as much as real ones at 2 epochs in a row; lower both rates "
        "(--set train.generator.lr=5e-5 --set train.discriminator.lr=5e-5)"
    ),
    "d-overpowers": (
        "D accuracy 1.00, D(G(z)) 0.000 at 5 epochs in a row; lower the discriminator's rate "
        "(--set train.discriminator.lr=5e-5) or give it dropout"
    ),
    "g-grad-vanished": (
        "the generator's gradient is 0.0005 of its first, D(G(z)) 0.000 at 5 epochs in a row; with loss minimax "
        "take --set loss.name=non_saturating, with another lower the discriminator's rate "
        "(--set train.discriminator.lr=5e-5)"
    ),
    "d-overfit": (
        "D scores training images 2.00, held-out ones -1.81, generated ones -1.00 (r_v 1.27) at 3 measurements in a "
        "row; get more images, give the discriminator dropout, or stop early and take the best checkpoint"
    ),
    "d-too-weak": (
        "D accuracy 0.39, fd 33 (1 is real) and not falling at 10 measurements in a row; lower the generator's rate "
        "(--set train.generator.lr=5e-5) or take dropout from the discriminator"
    ),
    "mode-collapse": (
        "about 8 distinct images (9,975 pairs alike) at 2 measurements in a row; lower the generator's rate "
        "(--set train.generator.lr=5e-5), or raise model.latent_dim or loss.r1"
    ),
    "memorised": (
        "C_T -24.5, 1-NN accuracy of generated images 0.51, 100% as good as copies at 2 measurements in a row; get "
        "more images, or train for fewer epochs; fd is no guide here, it rewards copies"
    ),
    "unchanged": (
        "translated images differ by 0.010 of 2 from their sources at 2 measurements in a row; "
        "lower what holds images to their sources (--set model.cycle=5 --set model.identity=0), or train on"
    ),
    "no-progress": (
        "fd 13.7, and the best not lower by more than 0.05 at 20 measurements in a row; stop here and take the best "
        "checkpoint, or search better settings with gantool tune"
    ),
}


@pytest.mark.parametrize("code", ILL)
def test_a_message_says_what_was_measured_and_what_to_do(code):
    first = FIRST[code]
    found = [each for each in told([ILL[code][0]] * first)[-1] if each.code == code]

    assert found == [Diagnosis(code, True, first, f"{code}: {MESSAGES[code]}; gantool explain {code}")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"saturated": 0.93, "real_saturated": 0.04},
            "diverged: 93% of generated pixels and 4% of real ones are at a limit at 2",
        ),
        ({"losses": {"a": 1.0, "b": -153.2}}, "diverged: b -153 at 2"),
        (
            {"contrast": 0.01, "saturated": 1.0, "real_saturated": 0.0, "losses": {"b": 1e6}},
            "diverged: generated pixels vary 0.01 times as much as real ones, 100% of generated pixels and 0% of real "
            "ones are at a limit, b 1,000,000 at 2",
        ),
        (
            {"contrast": 0.01, "rates": {}},
            "diverged: generated pixels vary 0.01 times as much as real ones at 2 epochs in a row; lower both "
            "rates (train.generator.lr train.discriminator.lr);",
        ),
        ({"lost_classes": ("3", "7")}, "mode-collapse: hardly any image of 3, 7 at 2"),
        (
            {"lost_classes": tuple(map(str, range(100, 140)))},
            f"mode-collapse: hardly any image of {', '.join(map(str, range(100, 120)))} and 20 more at 2",
        ),
        (
            {"lost_classes": ("Egg",), "support": 12.0, "collisions": 6650},
            "mode-collapse: about 12 distinct images (6,650 pairs alike) and hardly any image of Egg at 2",
        ),
        ({"copying": -4.0, "nearest_fake": None, "copied": 0.3}, "memorised: C_T -4.0, 30% as good as copies at 2"),
        (
            {"copying": -4.0, "nearest_fake": 0.2, "copied": None},
            "memorised: C_T -4.0, 1-NN accuracy of generated images 0.20 at 2",
        ),
    ],
)
def test_a_message_names_what_it_was(changes, words):
    (found,) = [each for diagnoses in told([replace(HEALTHY, **changes)] * 6) for each in diagnoses]

    assert found.message.startswith(words)


@pytest.mark.parametrize(
    ("rate", "advised"), [(0.008, "0.002"), (0.01, "0.0025"), (0.03, "0.0002"), (1000.0, "0.0002")]
)
def test_the_advice_is_a_quarter_of_the_runs_own_rate_or_the_usual_one_where_that_is_wild(rate, advised):
    own = replace(OVERPOWERED, rates={"generator": 1e-3, "discriminator": rate})
    (found,) = told([own] * 5)[-1]

    assert f"--set train.discriminator.lr={advised})" in found.message


def test_a_loss_without_a_zero_of_its_own_has_to_be_larger_to_be_a_divergence():
    def diagnosed(loss, drifting):
        seen = replace(HEALTHY, losses={"generator/adversarial": loss}, drifting=drifting)
        return "diverged" in {each.code for each in told([seen] * 2)[-1]}

    assert diagnosed(-101.0, drifting=False)
    assert not diagnosed(-101.0, drifting=True)
    assert diagnosed(-1.1e6, drifting=True)


def test_images_all_at_the_limits_have_diverged_where_real_ones_are_half_black_too():
    def diagnosed(saturated, real_saturated):
        seen = replace(HEALTHY, saturated=saturated, real_saturated=real_saturated)
        return "diverged" in {each.code for each in told([seen] * 2)[-1]}

    assert diagnosed(0.96, 0.52)
    assert not diagnosed(0.94, 0.52)
    assert not diagnosed(0.96, 0.81)


def test_the_end_of_a_state_names_the_first_epoch_without_it():
    ended = told([*[TWENTY] * 3, *[HEALTHY] * 2])[-1]

    assert ended == [Diagnosis("d-overfit", False, 5, "d-overfit: is over since epoch 4")]


@pytest.mark.parametrize("code", CODES)
def test_an_explanation_has_its_paragraphs_and_the_words_of_its_rule(code):
    title, *paragraphs = explain(code).split("\n\n")
    heads = [paragraph.partition(" ")[0] for paragraph in paragraphs]

    assert title.startswith(f"{code}: ")
    assert heads == ["Seen:", "Why:", "Try:", "Harmless:", *(["Told"] if code in ILL else [])]
    assert all(len(paragraph) > 20 for paragraph in paragraphs)
    assert "arXiv:" in explain(code)
    assert max(map(len, explain(code).splitlines())) <= 80
    told_ = " ".join(explain(code).split())
    assert [limit for limit in LIMITS.get(code, ()) if limit not in told_] == []


@pytest.mark.parametrize("code", ILL)
def test_an_explanation_says_at_how_many_epochs_or_measurements_it_is_told(code):
    what = "epochs" if code in EVERY_EPOCH else "measurements"
    assert f"Told when it was so at {ILL[code][1]} {what} in a row" in " ".join(explain(code).split())


@pytest.mark.parametrize("code", ILL)
def test_epochs_between_measurements_count_for_the_rules_that_look_at_every_epoch_only(code):
    observation, length = ILL[code]
    between = replace(observation, measured=False)
    everything = [observation, between, between] * 30  # every third epoch is measured
    expected = length if code in EVERY_EPOCH else 3 * FIRST[code] - 2

    assert epochs(everything, code) == ([expected], [])


def test_an_epoch_that_was_not_measured_ends_no_state_that_needs_a_measurement():
    between = replace(HEALTHY, measured=False)

    assert epochs([*[TWENTY] * 3, *[between] * 9, TWENTY], "d-overfit") == ([3], [])
    assert epochs([*[TOO_LARGE_STEPS] * 3, *[between] * 2], "diverged") == ([2], [5])


def test_every_code_is_known_and_the_gravest_comes_first():
    assert list(CODES) == ["nonfinite", *ILL]


def test_a_summary_is_one_line_with_which_the_explanation_begins():
    assert tuple(SUMMARIES) == CODES
    for code, summary in SUMMARIES.items():
        assert 10 < len(summary) < 80 - len(code)
        assert explain(code).startswith(f"{code}: {summary}\n\n")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("d-overpower", "unknown diagnosis 'd-overpower'; did you mean 'd-overpowers'?"),
        ("zzz", f"unknown diagnosis 'zzz'; known: {', '.join(sorted(CODES))}"),
    ],
)
def test_an_unknown_code_names_the_nearest_or_all(code, message):
    with pytest.raises(RunError) as error:
        explain(code)

    assert str(error.value) == message


def test_health_needs_nothing_but_python():
    nodes = [node for file in (rules, health) for node in ast.walk(ast.parse(Path(file.__file__).read_text("utf-8")))]
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}

    assert {name for name in names if name not in sys.stdlib_module_names | {"collections.abc"}} == {
        "gantool.errors",
        "gantool.training.diagnoses",
    }


@pytest.mark.parametrize(
    ("change", "real_change", "expected"),
    [(0.039, None, True), (0.041, None, False), (0.01, 0.3, True), (0.01, 0.07, False), (None, None, False)],
)
def test_images_that_are_given_back_are_told_unless_nothing_was_to_change(change, real_change, expected):
    observation = replace(HEALTHY, change=change, real_change=real_change)
    assert ("unchanged" in codes([observation] * 3)) == expected
