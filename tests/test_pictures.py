"""Comparisons of pictures against closed forms and against torchmetrics."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from gantool.metrics import pixels
from gantool.metrics.pixels import l1, psnr, sliced_wasserstein, ssim


def noise(seed, *shape):
    """Pictures of uniform noise, -1 to 1."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def scenes(seed, count, channels, height, width):
    """Pictures of smooth waves with a little noise, -1 to 1."""
    generator = torch.Generator().manual_seed(seed)
    speed = 3 * torch.randn(2, count, channels, 1, 1, generator=generator, dtype=torch.float64)
    start = 6 * torch.rand(count, channels, 1, 1, generator=generator, dtype=torch.float64)
    rows, columns = torch.linspace(0, 1, height).view(-1, 1), torch.linspace(0, 1, width)
    return 0.8 * torch.sin(speed[0] * rows + speed[1] * columns + start) + 0.1 * noise(seed, 1, 1, height, width)


def directions_of(seed, size):
    """The directions that a seed stands for, in the same order."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(128, size, generator=generator, dtype=torch.float64) for _ in range(4)]
    return torch.cat([part / part.norm(dim=1, keepdim=True) for part in drawn])


@pytest.mark.parametrize("seed", [0, 5])
def test_a_shift_costs_what_it_projects_to(seed):
    real = noise(1, 100, 1, 7, 7)  # one level, and one patch a picture
    shift = 0.3
    units = shift / real.std(correction=0)
    wanted = 1e3 * (directions_of(seed, 49).sum(1) * units).abs().mean()
    assert sliced_wasserstein(real, real + shift, seed=seed) == pytest.approx(float(wanted), rel=1e-9)


def test_channels_are_normalised_each_by_the_real_mean_and_deviation():
    real = noise(1, 80, 3, 5, 6)
    scale = torch.tensor([1.0, 0.2, 0.05], dtype=torch.float64).view(3, 1, 1)
    base = sliced_wasserstein(real, 0.7 * real)
    assert sliced_wasserstein(scale * real + 0.1, scale * 0.7 * real + 0.1) == pytest.approx(base, rel=1e-9)


@pytest.mark.parametrize("size", [(7, 7), (28, 28), (64, 40)])
def test_contrast_and_brightness_are_seen(size):
    real, held_out = scenes(1, 120, 3, *size), scenes(2, 120, 3, *size)
    floor = sliced_wasserstein(real, held_out)
    values = [sliced_wasserstein(real, factor * held_out) for factor in (0.8, 0.6, 0.4, 0.2)]
    assert [floor, *values] == sorted([floor, *values])
    assert values[-1] > 2 * floor
    assert sliced_wasserstein(real, held_out + 1) > 2 * floor


def test_normalising_each_set_by_itself_would_be_blind_to_contrast():
    real = scenes(1, 100, 1, 7, 7)

    def standardised(images):
        return (images - images.mean()) / images.std()

    faded = 0.3 * real + 0.2
    assert sliced_wasserstein(standardised(real), standardised(faded)) == pytest.approx(0, abs=1e-9)
    assert sliced_wasserstein(real, faded) > 100


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (16, 16), (33, 31), (64, 64)])
def test_a_set_is_at_no_distance_from_itself(size):
    real = noise(1, 70, 2, *size).float()
    assert sliced_wasserstein(real, real.clone()) == 0
    assert sliced_wasserstein(real, noise(2, 70, 2, *size)) > 0


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((8, 8), [(8, 8)]),
        ((28, 28), [(28, 28)]),
        ((32, 48), [(32, 48), (16, 24)]),
        ((31, 64), [(31, 64), (16, 32)]),
        ((128, 128), [(128, 128), (64, 64), (32, 32), (16, 16)]),
    ],
)
def test_a_pyramid_ends_at_16_pixels_and_adds_up(size, levels):
    images = noise(1, 2, 3, *size)
    pyramid = pixels._pyramid(images)
    assert [tuple(level.shape[-2:]) for level in pyramid] == levels
    rebuilt = pyramid[-1]
    for level in reversed(pyramid[:-1]):
        wide = torch.zeros_like(level)
        wide[..., ::2, ::2] = rebuilt
        kernel = torch.tensor([1.0, 4, 6, 4, 1], dtype=torch.float64) / 8
        padded = torch.nn.functional.pad(wide.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect")
        spread = torch.nn.functional.conv2d(padded, torch.outer(kernel, kernel)[None, None])
        rebuilt = level + spread.view_as(level)
    assert torch.allclose(rebuilt, images, atol=1e-12)


def test_a_plain_picture_has_nothing_on_the_finer_levels():
    *finer, last = pixels._pyramid(torch.full((1, 1, 65, 64), 0.7, dtype=torch.float64))
    assert all(level.abs().max() < 1e-12 for level in finer)
    assert torch.allclose(last, torch.tensor(0.7, dtype=torch.float64))


def test_a_worse_blur_is_further_away():
    real, held_out = noise(1, 100, 1, 32, 32), noise(2, 100, 1, 32, 32)
    values = [sliced_wasserstein(real, held_out)]
    for _ in range(3):
        held_out = pixels._smooth(held_out, pixels.BINOMIAL)
        values.append(sliced_wasserstein(real, held_out))
    assert values == sorted(values)
    assert values[1] > 5 * values[0]


def test_the_smaller_number_of_pictures_is_compared():
    real, fake = noise(1, 90, 1, 16, 16), noise(2, 50, 1, 16, 16)
    assert sliced_wasserstein(real, fake) == sliced_wasserstein(real[:50], fake)
    assert sliced_wasserstein(fake, real) == sliced_wasserstein(fake, real[:50])


def test_a_seed_says_which_patches_and_directions():
    real, fake = noise(1, 40, 1, 16, 16), scenes(2, 40, 1, 16, 16)
    once = sliced_wasserstein(real, fake, seed=1)
    assert once == sliced_wasserstein(real, fake, seed=1)
    assert once != sliced_wasserstein(real, fake, seed=2)
    assert once == pytest.approx(sliced_wasserstein(real, fake, seed=2), rel=0.1)


def test_patches_lie_at_random_places_the_same_for_one_seed():
    places = torch.arange(28 * 28, dtype=torch.float64).view(1, 1, 28, 28).repeat(100, 1, 1, 1)
    (patches,) = pixels._patches(places, 1)
    assert patches.shape == (1600, 1, 7, 7)
    corners = patches[:, 0, 0, 0]
    assert torch.equal(patches[:, 0], corners.view(-1, 1, 1) + places[0, 0, :7, :7])
    assert len(corners.unique()) == pytest.approx(22 * 22 * (1 - math.exp(-1600 / 22**2)), rel=0.05)
    assert torch.equal(patches, pixels._patches(places, 1)[0])
    assert not torch.equal(patches, pixels._patches(places, 2)[0])


def test_a_constant_channel_of_real_pictures_does_not_divide_by_0():
    real, fake = torch.full((20, 1, 8, 8), -1.0), noise(1, 20, 1, 8, 8)
    assert math.isfinite(sliced_wasserstein(real, fake))
    assert sliced_wasserstein(real, real) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pictures_that_are_not_finite_get_the_worst_there_is(bad):
    real, fake = noise(1, 4, 1, 16, 16), noise(2, 4, 1, 16, 16)
    fake[2, 0, 3, 3] = bad
    fake[0] = real[0]
    assert sliced_wasserstein(real, fake) == math.inf
    assert l1(fake, real) == math.inf
    assert psnr(fake, real) == -math.inf
    assert ssim(fake, real) == -1


def test_l1_is_the_mean_difference():
    image = noise(1, 3, 2, 4, 5).float()
    assert l1(image, image) == 0
    assert l1(image, image + 0.25) == pytest.approx(0.25, rel=1e-6)
    assert l1(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)) == 2


def test_psnr_of_known_errors():
    black = torch.full((2, 1, 4, 4), -1.0)
    assert psnr(black, black) == math.inf
    assert psnr(black, -black) == pytest.approx(0)
    assert psnr(black, black + 0.02) == pytest.approx(40, abs=1e-4)


def test_psnr_is_the_mean_over_pictures_as_in_torchmetrics():
    target = noise(1, 5, 3, 12, 9)
    image = target + torch.tensor([0.01, 0.03, 0.1, 0.3, 1]).view(5, 1, 1, 1) * noise(2, 5, 3, 12, 9)
    wanted = peak_signal_noise_ratio(image, target, data_range=2.0, dim=(1, 2, 3), reduction="elementwise_mean")
    assert psnr(image, target) == pytest.approx(float(wanted), rel=1e-6)  # its logarithm of 2 is in single precision


@pytest.mark.parametrize("shape", [(70, 1, 11, 11), (3, 3, 28, 28), (2, 3, 40, 23)])
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5])
def test_ssim_is_that_of_torchmetrics(shape, strength):
    target = scenes(1, *shape)
    image = target + strength * noise(2, *shape)
    wanted = structural_similarity_index_measure(image, target, data_range=2.0)
    assert ssim(image, target) == pytest.approx(float(wanted), abs=1e-9)
    wanted = structural_similarity_index_measure(-image, target, data_range=2.0)
    assert ssim(-image, target) == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize(("size", "window"), [((1, 1), 1), ((2, 9), 1), ((3, 12), 3), ((10, 10), 9), ((8, 64), 7)])
def test_ssim_of_small_pictures_has_a_smaller_window(size, window, monkeypatch):
    seen = []
    gaussian = pixels._gaussian
    monkeypatch.setattr(pixels, "_gaussian", lambda size: seen.append(size) or gaussian(size))
    image, target = noise(1, 3, 1, *size), noise(2, 3, 1, *size)
    assert ssim(image, image) == pytest.approx(1)
    assert -1 <= ssim(image, target) < 0.9
    assert seen == [window, window]


def test_a_window_adds_up_to_one_and_is_even():
    window = pixels._gaussian(11)
    assert sum(window) == pytest.approx(1)
    assert window == window[::-1]
    assert window[4] / window[5] == pytest.approx(math.exp(-1 / (2 * 1.5**2)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_pictures_are_enough_not_to_fail(count):
    image, target = noise(1, count, 3, 16, 16), noise(2, count, 3, 16, 16)
    assert all(math.isfinite(compare(image, target)) for compare in (sliced_wasserstein, l1, psnr, ssim))


@pytest.mark.parametrize("compare", [sliced_wasserstein, l1, psnr, ssim])
def test_measuring_draws_no_random_numbers_and_changes_no_picture(compare):
    before, outside, python = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    image, target = noise(1, 3, 1, 32, 32).requires_grad_(), noise(2, 3, 1, 32, 32)
    copies = image.detach().clone(), target.clone()
    assert isinstance(compare(image, target), float)
    assert torch.equal(image, copies[0])
    assert torch.equal(target, copies[1])
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(outside, np.random.get_state()[1])
    assert python == random.getstate()
