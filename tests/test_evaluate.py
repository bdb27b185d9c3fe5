"""Measuring a generator: always on the same real images, latents and labels, and without touching its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gantool.batches import DataSpec
from gantool.data.store import Store
from gantool.metrics.evaluate import SEED, Evaluator

CPU = torch.device("cpu")


def store(count=300, classes=3, shape=(1, 8, 8)):
    pick = np.random.default_rng(0)
    images = pick.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = np.sort(pick.integers(0, classes, count)) if classes > 1 else np.zeros(count, np.int64)
    names = tuple(f"class {index}" for index in range(classes))
    return Store(Path("nowhere"), images, labels.astype(np.int64), DataSpec(*shape, names), {"skipped": []})


def as_numbers(images):
    return torch.from_numpy(images).float() / 127.5 - 1


def replay(data):
    """A generator that gives back the store's own images."""
    return lambda seeds, labels: as_numbers(data.images)[torch.tensor([seed % len(data) for seed in seeds])]


def noise(seeds, labels):
    rows = [torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in seeds]
    return torch.stack(rows)


def black(seeds, labels):
    return torch.full((len(seeds), 1, 8, 8), -1.0)


def test_real_images_are_nearer_than_noise_and_noise_nearer_than_black():
    data = store()
    evaluate = Evaluator(data, 300, CPU)
    own, other, worst = (evaluate(sample)["fd"] for sample in (replay(data), noise, black))
    assert own == pytest.approx(0, abs=1e-3)
    assert own < other < worst


def test_the_same_generator_gets_the_same_number_every_time():
    evaluate = Evaluator(store(), 100, CPU)
    first = evaluate(noise)
    torch.randn(5)
    assert evaluate(noise) == first
    assert Evaluator(store(), 100, CPU)(noise) == first


def test_seeds_and_labels_are_the_same_in_every_measurement_and_never_too_many_at_once():
    asked = []

    def sample(seeds, labels):
        asked.append((list(seeds), list(labels)))
        return noise(seeds, labels)

    evaluate = Evaluator(store(), 600, CPU)
    evaluate(sample)
    count = len(asked)
    evaluate(sample)
    assert asked[:count] == asked[count:]
    assert max(len(seeds) for seeds, _ in asked) <= 256
    seeds = [seed for some, _ in asked[:count] for seed in some]
    assert seeds == list(range(SEED, SEED + 600))
    assert all(len(some) == len(labels) for some, labels in asked)


def test_labels_come_as_often_as_among_the_real_images():
    data = store(count=1000, classes=4)
    evaluate = Evaluator(data, 4000, CPU)
    wanted = np.bincount(data.labels, minlength=4) / 1000
    found = np.bincount(evaluate.labels, minlength=4) / 4000
    np.testing.assert_allclose(found, wanted, atol=0.03)


def test_generated_images_are_judged_as_the_8_bits_that_are_written():
    evaluate = Evaluator(store(), 100, CPU)

    def coarse(seeds, labels):
        return ((noise(seeds, labels) + 1) * 127.5 + 0.5).floor().clamp(0, 255) / 127.5 - 1

    def a_little_off(seeds, labels):
        return coarse(seeds, labels) + 0.001

    assert evaluate(a_little_off)["fd"] == pytest.approx(evaluate(coarse)["fd"], rel=1e-12)
    assert evaluate(noise)["fd"] == pytest.approx(evaluate(coarse)["fd"], rel=1e-12)

    def too_bright(seeds, labels):
        return 3 * coarse(seeds, labels)

    def clipped(seeds, labels):
        return too_bright(seeds, labels).clamp(-1, 1)

    assert evaluate(too_bright)["fd"] == pytest.approx(evaluate(clipped)["fd"], rel=1e-9)


def test_what_was_measured_with_stands_beside_the_number():
    assert Evaluator(store(), 100, CPU).about == {"extractor": "rand-85074021dfc2", "real": 300, "fake": 100}
    assert Evaluator(store(shape=(3, 8, 8)), 16, CPU).about["extractor"] == "rand-cb3208355902"
    assert Evaluator(store(count=5100, classes=1), 16, CPU).about["real"] == 5000


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_real_images_can_be_compared_with(count):
    evaluate = Evaluator(store(count=count, classes=1), 16, CPU)
    assert 0 <= evaluate(noise)["fd"] < float("inf")


def test_a_generator_that_is_no_longer_finite_is_infinitely_far():
    evaluate = Evaluator(store(), 16, CPU)
    assert evaluate(lambda seeds, _: torch.full((len(seeds), 1, 8, 8), float("nan")))["fd"] == float("inf")


def test_measuring_draws_none_of_the_callers_random_numbers():
    before, outside = torch.get_rng_state(), np.random.get_state()[1].copy()
    Evaluator(store(), 100, CPU)(noise)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(outside, np.random.get_state()[1])
