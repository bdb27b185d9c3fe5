"""Distances of two sets of features against closed forms, simulations and other libraries."""

from __future__ import annotations

import math

import numpy as np
import prdc
import pytest
import torch
from gantool.metrics.distances import (
    DensityCoverage,
    NearestNeighbour,
    PrecisionRecall,
    Support,
    copied_share,
    data_copying,
    density_coverage,
    expected_coverage,
    frechet_distance,
    frechet_terms,
    inception_score,
    kernel_distance,
    nearest_neighbour_accuracy,
    precision_recall,
    support_size,
)
from scipy.stats import mannwhitneyu, norm
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from stores import no_random_numbers

OF_TWO = [
    frechet_distance,
    kernel_distance,
    precision_recall,
    density_coverage,
    nearest_neighbour_accuracy,
    copied_share,
    support_size,
    lambda real, fake: data_copying(real, fake[: len(fake) // 2 + 1], fake[len(fake) // 2 :]),
]
NAMES = ["fd", "kd", "precision-recall", "density-coverage", "1-nn", "copied", "support", "data-copying"]


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


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("size", [1, 8, 64])
def test_covariances_of_the_same_axes_give_the_closed_form(seed, size):
    axes = rotation(seed, size)
    generator = torch.Generator().manual_seed(100 + seed)
    one, other = (4 * torch.rand(size, generator=generator, dtype=torch.float64) + 0.01 for _ in range(2))
    shift = normal(200 + seed, 1, size)[0]
    real = with_moments(torch.zeros(size, dtype=torch.float64), one, axes, seed=300 + seed)
    fake = with_moments(shift, other, axes, seed=400 + seed)
    wanted = shift.square().sum() + (one.sqrt() - other.sqrt()).square().sum()
    assert frechet_distance(real, fake) == pytest.approx(float(wanted), rel=1e-9)


def test_the_distance_of_a_set_from_itself_is_0_and_of_two_single_images_their_squared_distance():
    for count in (300, 5):
        features = normal(1, count, 64)
        assert frechet_distance(features, features.clone()) == pytest.approx(0, abs=1e-6)
        assert frechet_distance(features, features) >= 0
    assert frechet_distance(torch.zeros(1, 3), torch.ones(1, 3)) == pytest.approx(3)


def test_the_order_of_images_and_of_the_sets_and_a_rotation_do_not_matter():
    real, fake = normal(1, 120, 24), 1.5 * normal(2, 90, 24) + 0.2
    once, turn = frechet_distance(real, fake), rotation(3, 24)
    for one, other in ((real[torch.randperm(120)], fake), (fake, real), (real @ turn, fake @ turn)):
        assert frechet_distance(one, other) == pytest.approx(once, rel=1e-9)


@pytest.mark.parametrize("library", ["torch-fidelity", "torchmetrics"])
@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (normal(1, 500, 64), normal(2, 400, 64)),
        (normal(1, 500, 64), 0.3 * normal(2, 400, 64) @ rotation(5, 64) + 2),
        (normal(3, 40, 64), normal(4, 30, 64) + 0.5),  # fewer samples than features
        (normal(3, 2, 3), normal(4, 2, 3)),
        (normal(5, 200, 16) @ torch.diag(torch.logspace(-4, 2, 16).double()), normal(6, 200, 16)),
        (normal(5, 50, 8), torch.zeros(50, 8, dtype=torch.float64)),  # a generator that always makes one image
    ],
    ids=["alike", "apart", "few", "two", "ill-conditioned", "collapsed"],
)
def test_other_libraries_give_the_same_distance(library, real, fake):
    assert frechet_distance(real, fake) == pytest.approx(frechet_by(library, real, fake), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("count", [2, 300])
def test_kernel_distance_is_that_of_other_libraries(count):
    real, fake = normal(1, count, 64), 1.2 * normal(2, count, 64) + 0.1
    options = {"degree": 3, "gamma": None, "coef0": 1}
    options = {f"kid_kernel_poly_{name}": value for name, value in options.items()}
    wanted = kernel_mmd(real.numpy(), fake.numpy(), kid_kernel="poly", **options)
    assert kernel_distance(real, fake) == pytest.approx(wanted, abs=1e-12)
    assert kernel_distance(real, fake) == pytest.approx(float(poly_mmd(real, fake)), abs=1e-12)


def test_kernel_distance_of_unequal_numbers_is_the_mean_over_pairs():
    real, fake = normal(1, 5, 2), normal(2, 3, 2)

    def mean(one, other):
        kernel = (one @ other.T / 2 + 1) ** 3
        return float(kernel[~torch.eye(len(one)).bool()].mean() if one is other else kernel.mean())

    wanted = mean(real, real) + mean(fake, fake) - 2 * mean(real, fake)
    assert kernel_distance(real, fake) == pytest.approx(wanted, rel=1e-12)


def test_kernel_distance_has_no_bias():
    pools = [normal(seed, 80, 8) for seed in range(200)]
    values = [kernel_distance(pool[:40], pool[40:]) for pool in pools]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_kernel_distance_of_many_images_is_the_mean_over_20_subsets_of_1000():
    real, fake = normal(1, 2500, 2), normal(2, 900, 2) + 0.5
    generator = torch.Generator().manual_seed(3)
    parts = []
    for _ in range(20):
        some = torch.randperm(2500, generator=generator)[:1000]
        torch.randperm(900, generator=generator)  # all of the smaller set, in some order
        parts.append(kernel_distance(real[some], fake))
    assert kernel_distance(real, fake, seed=3) == pytest.approx(np.mean(parts), rel=1e-9)
    assert kernel_distance(real, fake, seed=4) != kernel_distance(real, fake, seed=3)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (normal(1, 200, 64), normal(2, 200, 64)),
        (normal(1, 200, 4), 0.5 * normal(2, 150, 4)),
        (normal(1, 60, 2), normal(2, 300, 2) + 1),
    ],
    ids=["alike", "narrow", "apart"],
)
def test_precision_recall_density_and_coverage_are_those_of_prdc(real, fake, k):
    wanted = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    found = precision_recall(real, fake, k)._asdict() | density_coverage(real, fake, k)._asdict()
    assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("real", "fake", "k"), [(898, 400, 5), (100, 300, 3)])
def test_coverage_is_as_expected_where_both_sets_have_the_same_law(real, fake, k):
    found = [density_coverage(normal(s, real, 16), normal(1000 + s, fake, 16), k).coverage for s in range(8)]
    assert np.mean(found) == pytest.approx(expected_coverage(real, fake, k), abs=0.02)
    assert expected_coverage(2, 3) == pytest.approx(1 - 1 / 4)
    assert expected_coverage(1, 10) == 0
    some = normal(1, 4, 3)
    assert density_coverage(some, some.clone(), 99) == density_coverage(some, some.clone(), 3) == (1, 1)


def test_nearest_neighbour_accuracy_of_a_line_is_counted_by_hand():
    real, fake = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[4.5], [9.0], [10.0], [1.9]])
    # real: 0 and 1 see each other or, for 1, also fake 1.9 at 0.9; 5 sees fake 4.5. fake: 4.5 sees 5, 1.9 sees 1.
    assert nearest_neighbour_accuracy(real, fake) == pytest.approx(NearestNeighbour(3 / 7, 1 / 3, 2 / 4))


def test_nearest_neighbour_accuracy_is_a_half_for_equal_laws_1_for_sets_apart_and_0_for_copies():
    same = [nearest_neighbour_accuracy(normal(s, 300, 16), normal(100 + s, 300, 16)) for s in range(8)]
    assert np.mean([found.accuracy for found in same]) == pytest.approx(0.5, abs=0.03)
    assert nearest_neighbour_accuracy(normal(1, 100, 16), normal(2, 100, 16) + 10) == NearestNeighbour(1.0, 1.0, 1.0)
    real = normal(1, 200, 64, torch.float32)
    for copies in (real.clone(), real + 1e-3 * normal(2, 200, 64, torch.float32)):
        assert nearest_neighbour_accuracy(real, copies) == NearestNeighbour(0.0, 0.0, 0.0)


def test_neighbours_equally_near_count_by_their_share():
    real = normal(1, 50, 8)
    found = nearest_neighbour_accuracy(real, real[:1].repeat(50, 1))
    assert found.fake == pytest.approx(49 / 50)  # of each: 49 other fake images and one real at distance 0
    assert found.real >= 0.9
    grid = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert nearest_neighbour_accuracy(*grid) == NearestNeighbour(0.75, 0.75, 0.75)  # 1 is as near to 0 as to 2


@pytest.mark.parametrize("held_out", [12, 150])
@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5])
def test_data_copying_is_the_z_score_of_scipy(held_out, spread):
    train, unseen, fake = normal(1, 100, 4), normal(2, held_out, 4), spread * normal(3, 130, 4)
    fake[:20] = train[:20]  # ties
    near_fake, near_unseen = (
        [float((train - point).norm(dim=1).min()) for point in points] for points in (fake, unseen)
    )
    two_sided = mannwhitneyu(near_fake, near_unseen, use_continuity=False, method="asymptotic")
    found = data_copying(train, unseen, fake)
    assert 2 * norm.sf(abs(found)) == pytest.approx(two_sided.pvalue, rel=1e-9)
    assert (found < 0) == (two_sided.statistic < len(fake) * held_out / 2)


def test_data_copying_is_strongly_negative_for_copies_and_near_0_for_real_images():
    train, unseen = normal(1, 300, 64), normal(2, 100, 64)
    assert data_copying(train, unseen, train.clone()) < -10
    assert data_copying(train, unseen, train[:20].repeat(10, 1)) < -10
    assert data_copying(train, unseen, train + 0.1 * normal(3, 300, 64)) < -10
    assert data_copying(train, unseen, 3 * normal(4, 300, 64)) > 10
    real = [data_copying(normal(s, 100, 16), normal(100 + s, 60, 16), normal(200 + s, 80, 16)) for s in range(40)]
    assert abs(np.mean(real)) < 3 / math.sqrt(40)
    assert np.std(real) == pytest.approx(1, abs=0.35)  # it is a z-score
    assert data_copying(train, train[:50], train[50:]) == 0  # all at distance 0


def test_copied_share_counts_copies_only():
    train, unseen = normal(1, 400, 64, torch.float32), normal(2, 300, 64, torch.float32)
    assert copied_share(train, unseen) < 0.05
    assert copied_share(train, torch.cat([unseen[:90], train[:10]])) == pytest.approx(0.1, abs=0.05)
    assert copied_share(train, train.clone()) == 1
    twice = train.repeat(2, 1)  # where no distance is odd, only copies themselves are
    assert copied_share(twice, train) == 1
    assert copied_share(twice, train + 1e-3) == 0


@pytest.mark.parametrize("distinct", [5, 20, 80, 400])
def test_support_size_finds_how_many_images_a_generator_makes(distinct):
    real, pool = normal(1, 500, 64), normal(2, distinct, 64)
    drawn = torch.randint(distinct, (1000,), generator=torch.Generator().manual_seed(3))
    found = support_size(real, pool[drawn])
    assert found.size == pytest.approx(distinct, rel=0.1)
    assert found.size == pytest.approx(1000 * 999 / 2 / found.collisions)
    near = support_size(real, pool[drawn] + 1e-3 * normal(4, 1000, 64))
    assert near == found


def test_support_size_of_different_and_of_equal_images():
    real = normal(1, 300, 64)
    # Of random pairs hardly one in 10,000 collides.
    assert support_size(real, normal(2, 300, 64)).size > 5000
    assert support_size(real, normal(2, 1, 64).repeat(50, 1)) == Support(1.0, 50 * 49 // 2)
    assert support_size(real, 100 * normal(2, 50, 64)) == Support(math.inf, 0)
    twice = real.repeat(2, 1)
    assert support_size(twice, torch.cat([real[:10], real[:1]])) == Support(55.0, 1)


def test_inception_score_is_that_of_torch_fidelity_and_known_for_simple_answers():
    logits = 3 * normal(1, 200, 10)
    wanted = isc_features_to_metric(logits, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]
    assert inception_score(logits.softmax(1)) == pytest.approx(wanted, rel=1e-12)
    assert inception_score(torch.eye(10).repeat(5, 1)) == pytest.approx(10)
    assert inception_score(torch.full((20, 10), 0.1)) == pytest.approx(1)
    assert inception_score(torch.tensor([[math.nan, 1.0]])) == 1


@pytest.mark.parametrize("distance", OF_TWO, ids=NAMES)
def test_the_size_of_chunks_and_single_precision_change_no_digit(distance, monkeypatch):
    real, fake = normal(1, 150, 16, torch.float32), normal(2, 100, 16, torch.float32)
    fake[80:] = real[:20]
    whole = distance(real, fake)
    assert distance(real.double(), fake.double()) == whole
    monkeypatch.setattr("gantool.metrics.distances.MAX_PAIRWISE", 1000)
    assert distance(real, fake) == whole


@pytest.mark.parametrize("distance", OF_TWO, ids=NAMES)
@pytest.mark.parametrize(("count", "others"), [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_a_few_images_are_enough_not_to_fail(distance, count, others):
    for size in (1, 8):
        real = normal(1, count, size)
        for fake in (normal(2, others, size), real[:1].repeat(others, 1)):
            assert not np.isnan(distance(real, fake)).any()


def test_one_image_reaches_nothing():
    many = normal(1, 20, 8)
    one = many[:1]
    assert precision_recall(one, many).precision == 0
    assert precision_recall(many, one).recall == 0
    assert density_coverage(one, many) == DensityCoverage(0.0, 0.0)
    assert nearest_neighbour_accuracy(one, many).real == 0
    assert support_size(many, one) == Support(math.inf, 0)
    assert copied_share(one, many) == pytest.approx(1 / 20)  # its copy


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_images_that_are_not_finite_get_the_worst_value(bad):
    real, fake = normal(1, 20, 4), normal(2, 20, 4)
    fake[3, 2] = bad
    assert frechet_distance(real, fake) == frechet_distance(fake, real) == math.inf
    terms = frechet_terms(real, fake)
    assert (terms.distance, terms.real.tolist(), terms.fake.tolist()) == (math.inf, [0] * 20, [0] * 20)
    assert kernel_distance(real, fake) == math.inf
    assert precision_recall(real, fake) == PrecisionRecall(0.0, 0.0)
    assert density_coverage(real, fake) == DensityCoverage(0.0, 0.0)
    assert nearest_neighbour_accuracy(real, fake) == NearestNeighbour(1.0, 1.0, 1.0)
    assert data_copying(real, normal(3, 20, 4), fake) == math.inf
    assert copied_share(real, fake) == 0
    assert support_size(real, fake) == Support(1.0, 190)


@pytest.mark.parametrize("distance", OF_TWO, ids=NAMES)
def test_measuring_draws_no_random_numbers_and_needs_no_gradient(distance):
    with no_random_numbers():
        assert isinstance(distance(normal(1, 30, 4).requires_grad_(), normal(2, 25, 4)), float | tuple)
        kernel_distance(normal(1, 2001, 2), normal(2, 1500, 2))
