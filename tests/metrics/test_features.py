"""The fixed features: the same numbers everywhere, and further away the worse an image is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gantool.metrics import features as module
from gantool.metrics.distances import frechet_distance
from gantool.metrics.features import RandomFeatures
from torch.nn.functional import avg_pool2d, interpolate


@pytest.fixture(scope="module")
def digits():
    """[1797, 1, 14, 14], -1 to 1, in a fixed order that mixes the classes."""
    sklearn = pytest.importorskip("sklearn.datasets")
    images = torch.from_numpy(sklearn.load_digits().images).float().unsqueeze(1)
    large = interpolate(images, size=(14, 14), mode="bilinear", align_corners=False)
    return (large / 8 - 1)[torch.randperm(len(large), generator=torch.Generator().manual_seed(0))]


@pytest.fixture(scope="module")
def extract(digits):
    return RandomFeatures.fit([digits[:900]])


def test_the_weights_are_pinned_by_their_names():
    for channels, name in ((1, "rand-85074021dfc2"), (3, "rand-cb3208355902")):
        assert RandomFeatures.fit([torch.zeros(2, channels, 4, 4)]).identity == name


def test_the_weights_are_pinned_by_literal_values():
    first, second, third = module._kernels(1)
    assert [tuple(kernel.shape) for kernel in (first, second, third)] == [(16, 1, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3)]
    for kernel, values in (
        (first, [-0.3167938, -0.4737936, 0.1912883]),
        (second, [0.006184, -0.075064, -0.0901509]),
        (third, [-0.1570381, 0.0167898, 0.0711624]),
        (module._kernels(3)[0], [-0.0116841, 0.2017505, -0.2749582]),
        (module._projection(), [0.0515130, 0.0173550, 0.0078845]),
    ):
        assert kernel.flatten()[:3].tolist() == pytest.approx(values, abs=5e-7)
        assert kernel.dtype == torch.float32


def test_filters_have_the_length_that_keeps_activations_alive_and_the_projection_is_orthonormal():
    for kernel in module._kernels(3):
        torch.testing.assert_close(kernel.flatten(1).norm(dim=1), torch.full((len(kernel),), 2**0.5))
    projection = module._projection()
    assert projection.shape == (560, 64)
    torch.testing.assert_close(projection.T @ projection, torch.eye(64), rtol=0, atol=1e-5)


def test_the_integer_hash_gives_standard_normal_numbers():
    numbers = module._normal((200, 500), stream=3)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert abs((numbers**4).mean() - 3) < 0.1
    assert np.abs(np.corrcoef(numbers[:20]) - np.eye(20)).max() < 0.2
    other = module._normal((200, 500), stream=4)
    assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.01


def test_the_feature_of_a_known_image_is_pinned():
    ramp = torch.linspace(-1, 1, 196).reshape(1, 1, 14, 14)
    assert module._raw(ramp)[0, :4].tolist() == pytest.approx([0.1178402, 0.1088194, 0.2602483, 0.3449253], abs=2e-6)
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert module._raw(grey)[0, :4].tolist() == pytest.approx([0.2903390, -0.2599861, 0.2470288, 0.5089397], abs=2e-6)


@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_features_do_not_depend_on_how_images_are_batched(digits, extract, size):
    together = extract(digits[:500])
    apart = torch.cat([extract(chunk) for chunk in digits[:500].split(size)])
    torch.testing.assert_close(apart, together, rtol=0, atol=5e-5)  # in units of the real images' deviation
    reference = extract(digits[900:])
    assert frechet_distance(reference, apart) == pytest.approx(frechet_distance(reference, together), rel=1e-6)


def test_fitting_does_not_depend_on_how_images_are_batched(digits):
    one, other = RandomFeatures.fit([digits]), RandomFeatures.fit(digits.split(100))
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.deviation, other.deviation, rtol=1e-5, atol=1e-6)


def test_the_images_that_were_fitted_have_mean_0_and_deviation_1(digits, extract):
    fitted = extract(digits[:900])
    assert fitted.shape == (900, 64)
    torch.testing.assert_close(fitted.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    assert bool((fitted.std(0) <= 1 + 1e-4).all())
    assert float(fitted.std(0).median()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (28, 28), (63, 64), (64, 64), (65, 130)])
def test_images_of_any_size_have_64_finite_features(channels, size):
    images = torch.rand(5, channels, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = RandomFeatures.fit([images])(images)
    assert made.shape == (5, 64)
    assert bool(made.isfinite().all())


def test_a_feature_that_hardly_varies_is_not_blown_up():
    found = module.clamped(torch.tensor([0.0, 1e-9, 1.0, 2.0, 3.0]))
    assert found.tolist() == pytest.approx([0.1, 0.1, 1, 2, 3], rel=1e-5)
    assert float(module.clamped(torch.zeros(3)).min()) > 0


def test_images_that_are_all_the_same_have_finite_features():
    images = torch.zeros(4, 3, 16, 16)
    extract = RandomFeatures.fit([images])
    assert bool(extract(images).isfinite().all())
    assert bool(extract(torch.ones(4, 3, 16, 16)).isfinite().all())


def blurred(images, level):
    for _ in range(level):
        images = avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    return images


def noisy(images, level):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + 0.12 * level * noise).clamp(-1, 1)


def darker(images, level):
    return (images + 1) * (1 - 0.15 * level) - 1


def collapsed(images, level):
    kept = [450, 60, 20, 8, 3, 1][level]
    return images[torch.arange(len(images)) % kept]


@pytest.mark.parametrize("worsened", [blurred, noisy, darker, collapsed])
def test_the_worse_images_become_the_further_they_are(digits, extract, worsened):
    real = extract(digits[:900])
    unseen = digits[900:1350]
    distances = [frechet_distance(real, extract(worsened(unseen, level))) for level in range(6)]
    assert distances == sorted(distances)
    assert distances[5] > 5 * distances[0]


def test_losing_classes_is_seen(digits, extract):
    labels = torch.from_numpy(pytest.importorskip("sklearn.datasets").load_digits().target)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))][900:]
    unseen, real = digits[900:], extract(digits[:900])
    distances = [frechet_distance(real, extract(unseen[labels < kept])) for kept in (10, 7, 4, 1)]
    assert distances == sorted(distances)


def test_extracting_draws_no_random_numbers_and_keeps_no_graph(digits, extract):
    before, outside = torch.get_rng_state(), np.random.get_state()[1].copy()
    made = extract(digits[:8].clone().requires_grad_())
    assert not made.requires_grad
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(outside, np.random.get_state()[1])
