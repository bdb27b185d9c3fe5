"""Diagnoses: each rule against measured runs, ill or well, and how problems begin and end."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
from gantool import checkpoints
from gantool.errors import RunError
from gantool.training.diagnoses import CODES, RULES, SUMMARIES, explain
from gantool.training.health import Health
from gantool.training.rule import Diagnosis, Observation

HEALTHY = Observation(
    epoch=1,
    step=300,
    losses={"discriminator/adversarial": 1.3, "generator/adversarial": 0.8},
    rates={"generator": 2e-4, "discriminator": 2e-4},
    values={
        "train_images": 898, "held_out_images": 200, "accuracy": 0.58, "fake_answer": 0.49, "gradient_left": 0.33,
        "real_train_score": 0.6, "real_held_out_score": 0.48, "fake_score": -0.2, "contrast": 0.97, "saturated": 0.31,
        "real_saturated": 0.52, "fd": 13.7, "floor_deviation": 0.05, "support": 79_800.0, "collisions": 0,
        "copying": 20.0, "nearest_neighbour_fake": 0.88, "copied": 0.0, "change": 0.4,
    },
)  # fmt: skip
FIELDS = {"epoch", "step", "measured", "losses", "drifting", "rates", "lost_classes"}


def but(observation=HEALTHY, **changes):
    """Return an observation with other fields or values."""
    own = {name: changes.pop(name) for name in FIELDS & changes.keys()}
    return replace(observation, values={**observation.values, **changes}, **own)


# Measured on 14x14 digits after 300 steps with 400 generated images; scores are such that r_v is the measured one.
OVERPOWERED = but(accuracy=1.0, fake_answer=0.0, gradient_left=1.1, fake_score=-9.0, support=13_300.0, fd=336.0)
SATURATING = but(accuracy=1.0, fake_answer=0.0, gradient_left=0.0005, support=13_300.0, fd=713.0)
FAST_GENERATOR = but(accuracy=0.39, fake_answer=0.51, fd=33.0)
ONE_LATENT = but(support=8.0, collisions=9975, fd=67.0)
TWENTY = but(real_train_score=2.0, real_held_out_score=-1.81, fake_score=-1.0, fd=13.8)
TOO_LARGE_STEPS = but(SATURATING, contrast=0.0, support=1.0, collisions=79_800, fd=960.0)
ALL_COPIED = but(copying=-24.5, nearest_neighbour_fake=0.51, copied=1.0, fd=0.4)
ONE_COPIED = but(copying=-24.5, nearest_neighbour_fake=1.0, copied=1.0, support=1.0, collisions=79_800, fd=93.0)
MEASURED = [
    (HEALTHY, {"no-progress"}),
    (OVERPOWERED, {"d-overpowers", "no-progress"}),
    (SATURATING, {"d-overpowers", "g-grad-vanished", "no-progress"}),
    (FAST_GENERATOR, {"d-too-weak", "no-progress"}),
    (ONE_LATENT, {"mode-collapse", "no-progress"}),
    (TWENTY, {"d-overfit", "no-progress"}),
    (TOO_LARGE_STEPS, {"diverged", "d-overpowers", "g-grad-vanished", "mode-collapse", "no-progress"}),
    (ALL_COPIED, {"memorised"}),
    (ONE_COPIED, {"mode-collapse", "memorised", "no-progress"}),
    (but(copying=0.4, nearest_neighbour_fake=0.52, copied=0.01, fd=1.08), set()),  # real held-out images
]
# Of each rule: an observation at which it holds, and the observations until a run that is ill from the start has it.
ILL = {
    "diverged": (TOO_LARGE_STEPS, 2),
    "d-overpowers": (OVERPOWERED, 5),
    "g-grad-vanished": (SATURATING, 5),
    "d-overfit": (TWENTY, 3),
    "d-too-weak": (FAST_GENERATOR, 11),
    "mode-collapse": (ONE_LATENT, 6),
    "memorised": (ALL_COPIED, 2),
    "unchanged": (but(change=0.01), 2),
    "no-progress": (HEALTHY, 21),
}
LENGTHS = {rule.code: rule.length for rule in RULES}
EVERY_EPOCH = ("diverged", "d-overpowers", "g-grad-vanished")


def judged(observations, health=None):
    """Return the diagnoses at each of the observations, which are one epoch apart."""
    health = health or Health()
    course = enumerate(observations, 1)
    return [health.observe(replace(each, epoch=epoch, step=300 * epoch)) for epoch, each in course]


def codes(observations):
    return {diagnosis.code for diagnoses in judged(observations) for diagnosis in diagnoses}


def epochs(observations, code):
    """Return the epochs at which a problem begins, and those at which it is reported to be over."""
    found = [diagnosis for diagnoses in judged(observations) for diagnosis in diagnoses if diagnosis.code == code]
    return [each.epoch for each in found if each.began], [each.epoch for each in found if not each.began]


@pytest.mark.parametrize(("observation", "expected"), MEASURED)
def test_a_measured_run_has_its_diagnoses_and_no_others(observation, expected):
    health = Health()
    judged([observation] * 30, health)
    assert codes([observation] * 30) == set(health.active) == expected
    assert list(health.active) == sorted(health.active, key=CODES.index)


def test_a_healthy_run_whose_fd_falls_and_a_run_of_which_nothing_is_known_are_silent():
    assert judged([but(fd=1.08 + 100 * 0.85**epoch) for epoch in range(30)]) == [[]] * 30
    assert judged([Observation(epoch=1, step=1)] * 30) == [[]] * 30


@pytest.mark.parametrize("code", ILL)
def test_a_problem_is_reported_once_after_as_many_observations_as_its_rule_says(code):
    observation, first = ILL[code]
    assert epochs([observation] * (first - 1), code) == ([], [])
    assert epochs([observation] * 60, code) == ([first], [])


@pytest.mark.parametrize("code", [code for code in ILL if code != "no-progress"])
def test_one_good_observation_starts_the_row_again_and_two_end_the_problem(code):
    observation, first = ILL[code]
    well = but(fd=observation["fd"])
    before, row = [well] * 25, [observation] * (LENGTHS[code] - 1)
    assert epochs([*before, *row, well, *row, well], code) == ([], [])
    assert epochs([*before, *row, well, *row, observation], code) == ([25 + 2 * LENGTHS[code]], [])
    for pause in (1, 2, 3):
        over = [first + 2] if pause > 1 else []
        assert epochs([*[observation] * first, *[well] * pause, observation], code) == ([first], over)
    assert epochs([*[observation] * first, *[well, observation] * 20], code) == ([first], [])


@pytest.mark.parametrize("code", ["d-too-weak", "no-progress", "mode-collapse"])
def test_a_better_fd_starts_the_time_again_in_which_it_must_not_fall(code):
    observation, first = ILL[code]
    better = but(observation, fd=observation["fd"] - 1)
    row = [observation] * (first - 1)
    assert epochs([*row, better, *row[1:]], code) == ([], [])
    assert epochs([*row, better, *row], code) == ([2 * first - 1], [])
    over = [] if code == "mode-collapse" else [first + 2]
    assert epochs([*[observation] * first, better, observation], code) == ([first], over)


def test_few_images_are_a_collapse_while_fd_falls_only_once_it_is_a_fifth_of_the_first():
    fallen = [but(ONE_LATENT, fd=fd) for fd in (600, 500, 400, 300, 200, 121.0, 120.5, 119.0, 100.0, 90.0)]
    assert epochs(fallen, "mode-collapse") == ([8], [])  # the first below 120
    lost = [but(each, support=79_800.0, collisions=0, lost_classes=("3",)) for each in fallen]
    assert epochs(lost, "mode-collapse") == ([], [])  # a judge misses classes in healthy young runs, too


def test_the_first_epochs_of_a_healthy_run_are_no_collapse():
    # dcgan14 on 1,797 digits, an epoch each of 11 steps: fd, contrast, support, classes that hardly came up.
    fds = [751.0, 693.0, 518.0, 381.0, 287.0, 178.0, 125.0, 85.1, 60.6, 50.8, 53.5, 103.0, 30.0, 59.2, 108.0, 15.4]
    contrasts = [0.27, 0.44, 0.59, 0.70, 0.76, 0.73, 0.75, 0.71, 0.71, 0.70, 0.76, 0.67, 0.83, 0.86, 0.77, 0.91]
    supports = [1.2, 6.3, 562.0, 39_900.0, *[79_800.0] * 12]
    lost = [8, 7, 6, 7, 7, 7, 6, 6, 6, 6, 5, 6, 4, 1, 5, 0]
    health = Health()
    for epoch, (fd, contrast, support, count) in enumerate(zip(fds, contrasts, supports, lost, strict=True), 1):
        values = {"contrast": contrast, "support": support, "collisions": 79_800 / support}
        assert health.observe(but(epoch=epoch, step=11 * epoch, fd=fd, lost_classes=("x",) * count, **values)) == []


def test_an_observation_that_lacks_a_value_neither_begins_nor_ends_a_problem():
    blind = but(OVERPOWERED, accuracy=math.nan)
    assert epochs([*[OVERPOWERED] * 4, blind, *[OVERPOWERED] * 4], "d-overpowers") == ([], [])
    assert epochs([*[OVERPOWERED] * 5, *[blind, HEALTHY] * 10], "d-overpowers") == ([5], [])
    assert epochs([*[OVERPOWERED] * 5, *[blind] * 10, *[HEALTHY] * 2], "d-overpowers") == ([5], [17])


@pytest.mark.parametrize("code", ILL)
def test_epochs_between_measurements_count_for_the_rules_of_every_epoch_only(code):
    observation, first = ILL[code]
    between = replace(observation, measured=False)
    expected = first if code in EVERY_EPOCH else 3 * first - 2
    assert epochs([observation, between, between] * 30, code) == ([expected], [])
    well = replace(HEALTHY, measured=False)
    over = [first + 2] if code in EVERY_EPOCH else []
    assert epochs([*[observation] * first, *[well] * 9], code) == ([first], over)


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (but(SATURATING, contrast=0.0), [("diverged", 102), ("d-overpowers", 105), ("g-grad-vanished", 105)]),
        (but(contrast=0.0, saturated=1.0, real_saturated=0.0), [("diverged", 2)]),
    ],
)
def test_in_the_first_100_steps_only_images_at_a_limit_are_a_problem(observation, expected):
    health = Health()
    news = [health.observe(replace(observation, epoch=step, step=step)) for step in range(1, 107)]
    assert [(each.code, each.epoch) for found in news for each in found if each.code != "no-progress"] == expected


SURE = {"accuracy": 0.981, "fake_answer": 0.009}
SCORES = {"real_train_score": 2.0, "real_held_out_score": 0.99, "fake_score": 0.0}
NEAR = {"copying": -3.1, "nearest_neighbour_fake": 0.39}


@pytest.mark.parametrize(
    ("code", "ill", "limit"),
    [
        ("diverged", {"contrast": 0.049}, {"contrast": 0.05}),
        ("diverged", {"saturated": 0.51, "real_saturated": 0.09}, {"saturated": 0.5}),
        ("diverged", {"saturated": 0.51, "real_saturated": 0.09}, {"real_saturated": 0.1}),
        ("diverged", {"saturated": 0.96}, {"saturated": 0.94}),
        ("diverged", {"saturated": 0.96}, {"real_saturated": 0.81}),
        ("diverged", {"losses": {"a": 1.0, "b": -100.1}}, {"losses": {"a": 1.0, "b": -100.0}}),
        ("diverged", {"losses": {"a": -1.1e6}, "drifting": True}, {"losses": {"a": -101.0}}),
        ("d-overpowers", SURE, {"accuracy": 0.98}),
        ("d-overpowers", SURE, {"fake_answer": 0.01}),
        ("g-grad-vanished", {**SURE, "gradient_left": 0.0009}, {"gradient_left": 0.001}),
        ("g-grad-vanished", {**SURE, "gradient_left": 0.0009}, {"accuracy": 0.9}),
        ("d-overfit", SCORES, {"real_held_out_score": 1.0}),
        ("d-overfit", {**SCORES, "real_train_score": 0.51, "real_held_out_score": 0.0}, {"real_train_score": 0.5}),
        ("d-too-weak", {"accuracy": 0.51, "fd": 5.2}, {"accuracy": 0.52}),
        ("d-too-weak", {"accuracy": 0.51, "fd": 5.1}, {"fd": 5.0}),
        ("mode-collapse", {"support": 49.0, "collisions": 10}, {"support": 50.0}),
        ("mode-collapse", {"support": 49.0, "collisions": 10}, {"collisions": 9}),
        ("mode-collapse", {"support": 29.0, "collisions": 10, "train_images": 60}, {"support": 30.0}),
        ("mode-collapse", {"lost_classes": ("3",)}, {"lost_classes": ()}),
        ("memorised", NEAR, {"copying": -3.0}),
        ("memorised", NEAR, {"nearest_neighbour_fake": 0.4}),
        ("memorised", {"copying": -3.1, "copied": 0.11}, {"copied": 0.1}),
        ("memorised", {**NEAR, "held_out_images": 12}, {"held_out_images": 11}),
        ("unchanged", {"change": 0.039}, {"change": 0.041}),
        ("unchanged", {"change": 0.01, "real_change": 0.3}, {"real_change": 0.07}),
        ("no-progress", {"fd": 1.2}, {"fd": 1.0999}),
    ],
)
def test_a_value_at_its_limit_is_still_well(code, ill, limit):
    assert code in codes([but(**ill)] * 30)
    assert code not in codes([but(**ill | limit)] * 30)


def test_a_run_whose_best_fd_creeps_down_by_a_deviation_makes_progress():
    assert epochs([but(fd=13.7 - 0.06 * epoch / 20) for epoch in range(100)], "no-progress") == ([], [])
    assert epochs([but(fd=13.7 - 0.04 * epoch / 20) for epoch in range(100)], "no-progress") == ([21], [])
    lost = [but(fd=5.0), *(but(fd=60.0 - epoch) for epoch in range(40)), *[but(fd=4.9)] * 2]
    assert epochs(lost, "no-progress") == ([21], [43])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("name", [*HEALTHY.values, "losses"])
def test_a_rule_without_a_finite_value_that_it_needs_is_silent_and_the_others_work(name, value):
    for observation, expected in MEASURED:
        if name == "losses":
            changed = replace(observation, losses={"generator": math.nan if value is None else value})
        elif value is None:
            changed = replace(observation, values={key: own for key, own in observation.values.items() if key != name})
        else:
            changed = but(observation, **{name: value})
        assert codes([changed] * 30) <= expected


def test_any_numbers_at_all_are_judged():
    random_ = random.Random(0)
    values = [0.0, -0.0, 1e-300, -1e300, 1e300, 1.0, 0.5, -5.0, math.nan, math.inf, -math.inf, 60.0, 7]
    health = Health()
    for epoch in range(1, 3000):
        drawn = {name: random_.choice(values) for name in HEALTHY.values}
        losses = {"generator/adversarial": random_.choice(values)}
        for diagnosis in health.observe(but(epoch=epoch, losses=losses, **drawn)):
            assert diagnosis.message.isprintable()
    json.dumps(health.state_dict(), allow_nan=False)


def test_a_resumed_run_is_judged_as_one_that_never_stopped(tmp_path):
    random_ = random.Random(0)
    whole, parts = Health(), Health()
    for epoch in range(1, 1000):
        if epoch % 7 == 1:
            observation = random_.choice([observation for observation, _ in MEASURED])
        before = json.loads(json.dumps(parts.state_dict(), allow_nan=False))
        parts = Health()
        parts.load_state_dict(before)
        now = but(observation, epoch=epoch, fd=observation["fd"] * random_.uniform(0.9, 1.1))
        assert parts.observe(now) == whole.observe(now)
        assert parts.active == whole.active
        assert parts.state_dict() == whole.state_dict()
    checkpoints.save(tmp_path / "last.pt", {"health": whole.state_dict()})
    assert checkpoints.load(tmp_path / "last.pt")["health"] == whole.state_dict() != before


SLOWER_D = "--set train.discriminator.lr="


@pytest.mark.parametrize(
    ("code", "changes", "message"),
    [
        ("diverged", {}, "generated pixels vary 0.00 times as much as real ones at 2 epochs in a row; lower both rates "
         f"(--set train.generator.lr=5e-5 {SLOWER_D}5e-5)"),
        ("diverged", {"rates": {}}, "generated pixels vary 0.00 times as much as real ones at 2 epochs in a row; lower "
         "both rates (train.generator.lr train.discriminator.lr)"),
        ("diverged", {"contrast": 1.0, "saturated": 0.99, "real_saturated": 0.002},
         "99% of generated pixels and 0% of real ones are at a limit at 2"),
        ("diverged", {"contrast": 1.0, "losses": {"generator/adversarial": -1234.5}}, "generator/adversarial -1,234 a"),
        ("d-overpowers", {"rates": {"discriminator": 0.008}}, "D accuracy 1.00, D(G(z)) 0.000 at 5 epochs in a row; "
         f"lower the discriminator's rate ({SLOWER_D}0.002) or give it dropout"),
        ("d-overpowers", {"rates": {"discriminator": 0.03}}, "D accuracy 1.00, D(G(z)) 0.000 at 5 epochs in a row; "
         f"lower the discriminator's rate ({SLOWER_D}0.0002)"),
        ("g-grad-vanished", {}, "the generator's gradient is 0.0005 of its first, D(G(z)) 0.000 at 5 epochs in a row; "
         "with loss minimax take --set loss.name=non_saturating, with another lower the discriminator's rate "),
        ("d-overfit", {}, "D scores training images 2.00, held-out ones -1.81, generated ones -1.00 (r_v 1.27) at 3 "
         "measurements in a row; get more images, give the discriminator dropout, or stop early and take the best"),
        ("d-too-weak", {}, "D accuracy 0.39, fd 33 (1 is real) and not falling at 10 measurements in a row; lower the "
         "generator's rate (--set train.generator.lr=5e-5) or take dropout from the discriminator"),
        ("mode-collapse", {}, "about 8 distinct images (9,975 pairs alike) at 2 measurements in a row; lower the "
         "generator's rate (--set train.generator.lr=5e-5), or raise model.latent_dim or loss.r1"),
        ("mode-collapse", {"lost_classes": tuple(map(str, range(100, 140)))}, "about 8 distinct images (9,975 pairs "
         f"alike) and hardly any image of {', '.join(map(str, range(100, 120)))} and 20 more at 2"),
        ("memorised", {}, "C_T -24.5, 1-NN accuracy of generated images 0.51, 100% as good as copies at 2 measurements "
         "in a row; get more images, or train for fewer epochs; fd is no guide here, it rewards copies"),
        ("unchanged", {}, "translated images differ by 0.010 of 2 from their sources at 2 measurements in a row; lower "
         "the weights that keep images as they are (--set model.cycle=5 --set model.identity=0), or train on"),
        ("no-progress", {}, "fd 13.7, and the best not lower by more than 0.05 at 20 measurements in a row; stop here "
         "and take the best checkpoint, or search better settings with gantool tune"),
    ],
)  # fmt: skip
def test_a_message_says_what_was_measured_and_what_to_do(code, changes, message):
    observation, first = ILL[code]
    (found,) = [each for each in judged([but(observation, **changes)] * first)[-1] if each.code == code]
    assert (found.began, found.epoch) == (True, first)
    assert found.message.startswith(f"{code}: {message}")
    assert found.message.endswith(f"; gantool explain {code}")


def test_the_end_of_a_problem_names_the_first_epoch_without_it():
    ended = judged([*[TWENTY] * 3, *[HEALTHY] * 2])[-1]
    assert ended == [Diagnosis("d-overfit", False, 5, "d-overfit: is over since epoch 4")]


@pytest.mark.parametrize("code", CODES)
def test_an_explanation_has_a_summary_its_paragraphs_and_a_source(code):
    title, *paragraphs = explain(code).split("\n\n")
    assert title == f"{code}: {SUMMARIES[code]}"
    heads = [paragraph.partition(" ")[0] for paragraph in paragraphs]
    assert heads == ["Seen:", "Why:", "Try:", "Harmless:", *(["Reported"] if code in ILL else [])]
    assert "arXiv:" in explain(code)
    assert max(map(len, explain(code).splitlines())) <= 80
    if code in ILL:
        kind = "epochs" if code in EVERY_EPOCH else "measurements"
        assert f"Reported at {LENGTHS[code]} {kind} in a row" in paragraphs[-1]


def test_every_diagnosis_is_listed_the_most_serious_first_and_an_unknown_one_names_the_nearest():
    assert list(CODES) == ["nonfinite", *ILL]
    with pytest.raises(RunError, match=r"^unknown diagnosis 'd-overpower'; did you mean 'd-overpowers'\?$"):
        explain("d-overpower")
    with pytest.raises(RunError, match=r"^unknown diagnosis 'zzz'; known: d-overfit, .*, unchanged$"):
        explain("zzz")
