"""First sentences of scores, comparisons and nearest images, from numbers alone."""

from __future__ import annotations

import pytest
from gantool.inference import verdicts
from gantool.inference.compare import Row
from gantool.inference.scoring import Score, Value

ABOUT = {"real": 1438, "held_out": 359, "fake": 500}
FINE = {"fd": 9.4, "coverage": 0.6, "copying": 20.7, "support": 79_800.0}
LEVEL = "fd is 9.4, and real images get 1: recognisable, not yet clean"
VARIETY = "62% of the variety of real images"
REST = "no sign of copies; 62% of the variety of real images"
FEW = "with so few images fd ranks generators, but does not measure quality"
GUESSING = "always naming the commonest class gets 10.2%"
UNSURE = "cannot tell whether a or b is better"


@pytest.mark.parametrize(
    ("values", "about", "verdict"),
    [
        (FINE, {}, f"{LEVEL}; {REST}"),
        ({"fd": 9.4}, {}, LEVEL),
        ({"kd": 0.2}, {}, ""),
        ({"fd": 1.08}, {}, "fd is 1.1, and real images get 1: as near to real images as other real images are"),
        ({"fd": 3.9}, {}, "fd is 3.9, and real images get 1: close to real images"),
        ({"fd": 35.2}, {}, "fd is 35, and real images get 1: rough, only simple shapes can be recognised"),
        ({"fd": 1269.4}, {}, "fd is 1,269, and real images get 1: far from real images"),
        ({"fd": float("nan"), "coverage": 0.97}, {}, "100% of the variety of real images"),
        (FINE, {"real": 30, "held_out": 12}, f"{FEW}; {REST}"),
        (FINE | {"copying": -3.4}, {}, f"{LEVEL}; possible copies of training images; {VARIETY}"),
        (FINE | {"support": 8.2}, {}, f"{LEVEL}; {REST}; only about 8 different images"),
        (FINE | {"support": 1.2}, {}, f"{LEVEL}; {REST}; only about 1 different image"),
        (FINE, {"translations": True}, f"fd is 9.4, and real images get 1: not yet close to real images; {VARIETY}"),
        ({"fd": 2.0}, {"translations": True}, "fd is 2.0, and real images get 1: close to real images"),
    ],
)
def test_a_score_is_a_sentence_about_quality_copies_and_variety(values, about, verdict):
    rows = [Value(name, value, 0.969 if name == "coverage" else None) for name, value in values.items()]
    assert verdicts.of_score(Score("run", rows, ABOUT | about)) == verdict


@pytest.mark.parametrize(
    ("values", "held_out", "verdict"),
    [
        ({"error": 0.03}, 300, f"97.0% of the answers to unseen examples are right; {GUESSING}"),
        ({"error": 0.0}, 0, f"100.0% of the answers to the examples that it learned from are right; {GUESSING}"),
        ({"accuracy": 1.0}, 0, ""),
    ],
)
def test_a_classifier_is_judged_beside_guessing(values, held_out, verdict):
    rows = [Value(name, value) for name, value in values.items()]
    assert verdicts.of_score(Score("run", rows, {"held_out": held_out, "guessing": 0.102})) == verdict


def row(name, fd, deviation=1.0, *, same=True, **values):
    return Row(name, name, "mlp", 3, {"fd": fd, "fd_deviation": deviation, **values}, 500, [], same)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row("a", 14), row("b", 35)], "a is better than b: its fd is 60% lower than 35, which is more than the noise"),
        ([row("a", 14), row("b", 35), row("c", 50)], "a is better than the others: its fd is 60% lower than 35, "),
        (
            [row("a", 14), row("b", 16.8)],
            f"{UNSURE}: their fd differ by at most two standard deviations of the difference",
        ),
        ([row("a", 14), row("b", 16.9)], "a is better than b: "),
        ([row("a", 14, float("nan")), row("b", 35)], f"{UNSURE}: the real images are too few to know the noise"),
        ([row("a", 0.4, copying=-24.5), row("b", 35)], f"{UNSURE}: the fd of a is lower, but its images may be copies"),
        ([row("a", 2.0, copying=-24.5, change=0.2), row("b", 35)], "a is better than b: "),
        ([row("a", 14), row("b", 35, same=False)], "a and b were measured on different images: their values"),
    ],
)
def test_a_run_is_only_called_better_if_its_lead_is_more_than_noise_and_copies(rows, verdict):
    assert verdicts.of_comparison(rows).startswith(verdict)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"copying": 20.7, "copied": 0.004}, "no sign of copies: C_T is +20.7, and copies are below -3"),
        ({"copying": -24.5, "copied": 0.7}, "copies: C_T is -24.5, and copies are below -3"),
        ({"copying": -3.4, "copied": 0.0}, "possible copies of training images: C_T is -3.4, and copies are below -3"),
        ({"copied": 0.0}, "no images were held out of the training, so copies cannot be recognised"),
    ],
)
def test_copies_are_told_by_their_distance_to_training_images(values, verdict):
    share = f"{values['copied']:.0%} of the generated images are almost equal to a training image"
    assert verdicts.of_copying(values) == [verdict, share]
