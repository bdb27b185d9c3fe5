"""The Fréchet distance against closed forms and against two other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from gantool.metrics.distances import frechet_distance


def normal(seed, count, size, dtype=torch.float64):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(seed, size):
    return torch.linalg.qr(normal(seed, size, size))[0]


def with_moments(mean, variances, axes, seed=0, count=200):
    """Samples whose mean and covariance (over count - 1) are exactly these: axes diag(variances) axes^T."""
    white = normal(seed, count, len(variances))
    white = white - white.mean(0)
    values, vectors = torch.linalg.eigh(torch.atleast_2d(white.T.cov()))
    white = white @ vectors / values.sqrt()
    return white @ torch.diag(variances.sqrt()) @ axes.T + mean


def frechet_by(library, real, fake):
    if library == "torch-fidelity":
        one, other = (fid_features_to_statistics(features) for features in (real, fake))
        return fid_statistics_to_metric(one, other, verbose=False)[KEY_METRIC_FID]
    return float(_compute_fid(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_covariances_of_the_same_axes_give_the_closed_form(seed, size):
    axes = rotation(seed, size)
    generator = torch.Generator().manual_seed(100 + seed)
    one, other = (4 * torch.rand(size, generator=generator, dtype=torch.float64) + 0.01 for _ in range(2))
    shift = normal(200 + seed, 1, size)[0]
    real = with_moments(torch.zeros(size, dtype=torch.float64), one, axes, seed=300 + seed)
    fake = with_moments(shift, other, axes, seed=400 + seed)
    wanted = shift.square().sum() + (one.sqrt() - other.sqrt()).square().sum()
    assert frechet_distance(real, fake) == pytest.approx(float(wanted), rel=1e-9)


def test_a_shift_alone_costs_its_squared_length():
    features = normal(1, 100, 16)
    shift = normal(2, 1, 16)
    assert frechet_distance(features, features + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_a_set_is_at_no_distance_from_itself():
    features = normal(1, 300, 64)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features) >= 0
    few = normal(2, 5, 64)
    assert frechet_distance(few, few.clone()) == pytest.approx(0, abs=1e-6)


def test_neither_the_order_of_samples_nor_of_features_nor_of_the_sets_matters():
    real, fake = normal(1, 120, 24), 1.5 * normal(2, 90, 24) + 0.2
    once = frechet_distance(real, fake)
    rows, columns = torch.randperm(120), torch.randperm(24)
    assert frechet_distance(real[rows], fake) == pytest.approx(once, rel=1e-10)
    assert frechet_distance(real[:, columns], fake[:, columns]) == pytest.approx(once, rel=1e-10)
    assert frechet_distance(fake, real) == pytest.approx(once, rel=1e-9)
    turn = rotation(3, 24)
    assert frechet_distance(real @ turn, fake @ turn) == pytest.approx(once, rel=1e-9)


def test_scaling_all_features_scales_the_distance_by_the_square():
    real, fake = normal(1, 100, 8), 2 * normal(2, 100, 8)
    assert frechet_distance(3 * real, 3 * fake) == pytest.approx(9 * frechet_distance(real, fake), rel=1e-9)


@pytest.mark.parametrize("library", ["torch-fidelity", "torchmetrics"])
@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (normal(1, 500, 64), normal(2, 400, 64)),
        (normal(1, 500, 64), 0.3 * normal(2, 400, 64) @ rotation(5, 64) + 2),
        (normal(3, 40, 64), normal(4, 30, 64) + 0.5),  # fewer samples than features
        (normal(3, 2, 3), normal(4, 2, 3)),
        (normal(5, 200, 16) @ torch.diag(torch.logspace(-4, 2, 16).double()), normal(6, 200, 16)),
        (normal(5, 50, 8), torch.zeros(50, 8, dtype=torch.float64)),  # a generator that always makes one picture
    ],
    ids=["alike", "apart", "few", "two", "ill-conditioned", "collapsed"],
)
def test_other_libraries_give_the_same_distance(library, real, fake):
    assert frechet_distance(real, fake) == pytest.approx(frechet_by(library, real, fake), rel=1e-5, abs=1e-4)


def test_single_precision_features_are_measured_in_double():
    real, fake = normal(1, 300, 64, torch.float32) + 100, normal(2, 300, 64, torch.float32) + 100
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(real.double(), fake.double()), rel=1e-12)


def test_what_is_not_finite_is_infinitely_far():
    real, fake = normal(1, 20, 4), normal(2, 20, 4)
    for bad in (math.nan, math.inf):
        broken = fake.clone()
        broken[3, 2] = bad
        assert frechet_distance(real, broken) == math.inf
        assert frechet_distance(broken, real) == math.inf


def test_measuring_draws_no_random_numbers_and_needs_no_gradient():
    before, outside = torch.get_rng_state(), np.random.get_state()[1].copy()
    real = normal(1, 20, 4).requires_grad_()
    assert isinstance(frechet_distance(real, normal(2, 20, 4)), float)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(outside, np.random.get_state()[1])
