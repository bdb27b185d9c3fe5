"""Comparisons of images by their pixels, against closed forms and against torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch
from gantool.metrics.pixels import l1, psnr, ssim
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from stores import no_random_numbers


def noise(seed, *shape):
    """Images of uniform noise, -1 to 1."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def scenes(seed, count, channels, height, width):
    """Images of smooth waves with a little noise, -1 to 1."""
    generator = torch.Generator().manual_seed(seed)
    speed = 3 * torch.randn(2, count, channels, 1, 1, generator=generator, dtype=torch.float64)
    start = 6 * torch.rand(count, channels, 1, 1, generator=generator, dtype=torch.float64)
    rows, columns = torch.linspace(0, 1, height).view(-1, 1), torch.linspace(0, 1, width)
    return 0.8 * torch.sin(speed[0] * rows + speed[1] * columns + start) + 0.1 * noise(seed, 1, 1, height, width)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_images_that_are_not_finite_get_the_worst_value(bad):
    real, fake = noise(1, 4, 1, 16, 16), noise(2, 4, 1, 16, 16)
    fake[2, 0, 3, 3] = bad
    fake[0] = real[0]
    assert (l1(fake, real), psnr(fake, real), ssim(fake, real)) == (math.inf, -math.inf, -1)


def test_l1_is_the_mean_difference():
    image = noise(1, 3, 2, 4, 5).float()
    assert l1(image, image) == 0
    assert l1(image, image + 0.25) == pytest.approx(0.25, rel=1e-6)
    assert l1(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)) == 2


def test_psnr_of_known_errors_and_as_torchmetrics_gives_it():
    black = torch.full((2, 1, 4, 4), -1.0)
    assert psnr(black, black) == math.inf
    assert psnr(black, -black) == pytest.approx(0)
    assert psnr(black, black + 0.02) == pytest.approx(40, abs=1e-4)
    target = noise(1, 5, 3, 12, 9)
    image = target + torch.tensor([0.01, 0.03, 0.1, 0.3, 1]).view(5, 1, 1, 1) * noise(2, 5, 3, 12, 9)
    wanted = peak_signal_noise_ratio(image, target, data_range=2.0, dim=(1, 2, 3), reduction="elementwise_mean")
    assert psnr(image, target) == pytest.approx(float(wanted), rel=1e-6)  # its logarithm of 2 is in single precision


@pytest.mark.parametrize("shape", [(70, 1, 11, 11), (3, 3, 28, 28), (2, 3, 40, 23)])
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5])
def test_ssim_is_that_of_torchmetrics(shape, strength):
    target = scenes(1, *shape)
    for image in (target + strength * noise(2, *shape), -target - strength * noise(2, *shape)):
        wanted = structural_similarity_index_measure(image, target, data_range=2.0)
        assert ssim(image, target) == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 12), (10, 10)])
def test_ssim_of_images_smaller_than_its_window_is_known_for_equal_images(size):
    image, target = noise(1, 3, 1, *size), noise(2, 3, 1, *size)
    assert ssim(image, image) == pytest.approx(1)
    assert -1 <= ssim(image, target) < 0.9


@pytest.mark.parametrize("compare", [l1, psnr, ssim])
def test_measuring_draws_no_random_numbers_and_changes_no_image(compare):
    image, target = noise(1, 3, 1, 32, 32).requires_grad_(), noise(2, 3, 1, 32, 32)
    copies = image.detach().clone(), target.clone()
    with no_random_numbers():
        assert isinstance(compare(image, target), float)
    assert torch.equal(image, copies[0])
    assert torch.equal(target, copies[1])
