"""The fixed features: the same numbers everywhere, for images of any size."""

from __future__ import annotations

import pytest
import torch
from gantool.images import to_float
from gantool.metrics import features as module
from gantool.metrics.features import RandomFeatures, TextureFeatures

from digits import digits
from stores import no_random_numbers


@pytest.fixture(scope="module")
def images():
    return to_float(digits()[0])


@pytest.fixture(scope="module")
def extract(images):
    return RandomFeatures.fit([images[:900]])


def test_the_weights_are_pinned_by_their_identities():
    for channels, name in ((1, "rand-85074021dfc2"), (3, "rand-cb3208355902")):
        assert RandomFeatures.fit([torch.zeros(2, channels, 4, 4)]).identity == name
    assert TextureFeatures().identity == "texture-010fba429004"


def test_filters_keep_the_size_of_activations_and_the_projection_is_orthonormal():
    for kernel in module._kernels(3):
        torch.testing.assert_close(kernel.flatten(1).norm(dim=1), torch.full((len(kernel),), 2**0.5))
    projection = module._projection()
    torch.testing.assert_close(projection.T @ projection, torch.eye(64), rtol=0, atol=1e-5)


def test_the_features_of_known_images_are_pinned():
    ramp, grey = torch.linspace(-1, 1, 196).reshape(1, 1, 14, 14), torch.full((1, 3, 64, 64), 0.5)

    assert module._raw(ramp)[0, :4].tolist() == pytest.approx([0.1178402, 0.1088194, 0.2602483, 0.3449253], abs=2e-6)
    assert module._raw(grey)[0, :4].tolist() == pytest.approx([0.2903390, -0.2599861, 0.2470288, 0.5089397], abs=2e-6)


def test_texture_is_the_mean_energy_of_each_filter_over_a_mirrored_image():
    image = torch.rand(1, 1, 10, 13, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cosines = module._cosines(8).float()
    filters = (cosines[:, None, :, None] * cosines[None, :, None, :]).reshape(64, 1, 8, 8)
    whole = torch.cat([image, image.flip(2)], 2)
    whole = torch.cat([whole, whole.flip(3)], 3)  # continued by its mirror image, it repeats
    around = torch.nn.functional.pad(whole, (0, 7, 0, 7), "circular")
    energies = torch.nn.functional.conv2d(around, filters).square().mean((2, 3))

    found = TextureFeatures()(image)

    torch.testing.assert_close(found, (energies[:, 1:] + module.VISIBLE_NOISE).log(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 7])
def test_features_do_not_depend_on_the_batches(images, extract, size):
    apart = torch.cat([extract(chunk) for chunk in images[:500].split(size)])

    torch.testing.assert_close(apart, extract(images[:500]), rtol=0, atol=5e-5)  # in units of the real deviation
    one, other = RandomFeatures.fit([images]), RandomFeatures.fit(images.split(100))
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.deviation, other.deviation, rtol=1e-5, atol=1e-6)


def test_the_fitted_images_have_mean_0_and_deviation_1(images, extract):
    fitted = extract(images[:900])

    assert fitted.shape == (900, 64)
    torch.testing.assert_close(fitted.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    assert bool((fitted.std(0) <= 1 + 1e-4).all())
    assert float(fitted.std(0).median()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (63, 64), (65, 130)])
def test_images_of_any_size_and_equal_images_have_finite_features(channels, size):
    images = torch.rand(5, channels, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1

    made = RandomFeatures.fit([images])(images)

    assert made.shape == (5, 64)
    assert bool(made.isfinite().all())
    assert bool(TextureFeatures()(images).isfinite().all())
    equal = RandomFeatures.fit([images[:1].repeat(4, 1, 1, 1)])
    assert bool(equal(images).isfinite().all())


def test_a_feature_that_hardly_varies_is_not_blown_up():
    found = module.clamped(torch.tensor([0.0, 1e-9, 1.0, 2.0, 3.0]))

    assert found.tolist() == pytest.approx([0.1, 0.1, 1, 2, 3], rel=1e-5)
    assert float(module.clamped(torch.zeros(3)).min()) > 0


def test_extracting_draws_no_random_numbers_and_keeps_no_graph(images, extract):
    with no_random_numbers():
        assert not extract(images[:8].clone().requires_grad_()).requires_grad
