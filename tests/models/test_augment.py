"""Differentiable augmentation: each change pixel for pixel, and the range of its random numbers."""

from __future__ import annotations

import pytest
import torch
from gantool.batches import ImageSpec, Labeled
from gantool.models import losses
from gantool.models.augment import augmented, color, cutout, translation
from gantool.models.dcgan import DCGAN
from torch.autograd import gradcheck

KINDS = ["color", "translation", "cutout"]
NETWORKS = {"generator": [[1, 8, 1, 0]], "discriminator": [[1, 8, 1, 0]]}


def images(count=4, channels=3, height=8, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def dcgan(loss, **settings):
    made = losses.find_loss(loss)(**settings)
    return DCGAN(ImageSpec(1, 8, 8), made, latent_dim=2, dropout=0.0, **NETWORKS)


def test_color_shifts_brightness_then_scales_saturation_and_contrast_of_each_image():
    given = images()
    torch.manual_seed(1)
    made = color(given)
    torch.manual_seed(1)
    shift, saturation, contrast = (torch.rand(4, 1, 1, 1, dtype=torch.float64) for _ in range(3))
    for index, image in enumerate(given):
        wanted = image + shift[index] - 0.5
        wanted = wanted.mean(0) + 2 * saturation[index] * (wanted - wanted.mean(0))
        wanted = wanted.mean() + (0.5 + contrast[index]) * (wanted - wanted.mean())
        torch.testing.assert_close(made[index], wanted, rtol=0, atol=1e-14)


def test_every_pixel_moves_exactly_by_up_to_an_eighth_of_each_side_and_zeros_come_in():
    torch.manual_seed(0)
    given = images(300, channels=2, height=16, width=40)
    steps = set()
    for image, made in zip(given, translation(given), strict=True):
        padded = torch.nn.functional.pad(image, (5, 5, 2, 2))
        found = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-5, 6)
            if torch.equal(made, padded[:, 2 - down : 18 - down, 5 - right : 45 - right])
        ]
        assert len(found) == 1
        steps |= set(found)
    assert {down for down, _ in steps} == set(range(-2, 3))
    assert {right for _, right in steps} == set(range(-5, 6))


@pytest.mark.parametrize(("side", "hole"), [(8, 4), (7, 4), (6, 3), (5, 3), (64, 32)])
def test_a_square_of_half_of_each_side_is_cut_out_anywhere_also_in_part_outside(side, hole):
    torch.manual_seed(0)
    made = cutout(torch.ones(1000, 1, side, side)) == 0
    rows, columns = made.any(3).sum((1, 2)), made.any(2).sum((1, 2))
    assert torch.equal(made.sum((1, 2, 3)), rows * columns)  # a rectangle
    assert int(rows.max()) == int(columns.max()) == hole
    assert int(rows.min()) >= hole // 2  # its middle is never outside
    assert bool(made.any(0).all())  # it covers every pixel at times


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 1, 5, 9), (2, 3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_shape_keeps_its_shape_and_kind_of_number(kind, shape, dtype):
    given = torch.rand(shape, dtype=dtype)
    kept = given.clone()
    made = augmented(given, [kind])
    assert (made.shape, made.dtype) == (given.shape, dtype)
    assert torch.equal(given, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_twice_exactly_as_the_pixels_do(kind):
    def seeded(given):
        torch.manual_seed(5)
        return augmented(given, [kind]).square()

    assert gradcheck(seeded, images(2, height=4, width=5).requires_grad_())
    given = images(2).requires_grad_()
    (once,) = torch.autograd.grad(seeded(given).sum(), given, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), given)
    assert bool(twice.isfinite().all())
    assert float(twice.abs().sum()) > 0


def test_kinds_are_done_in_their_order_and_none_does_nothing():
    given = images()
    assert augmented(given, []) is given
    torch.manual_seed(1)
    one = augmented(given, ["cutout", "color"])
    torch.manual_seed(1)
    assert torch.equal(one, color(cutout(given)))


def test_real_and_fake_images_are_changed_differently():
    model, seen = dcgan("hinge", augment=["translation", "cutout"]), []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    same = torch.rand(6, 1, 8, 8)
    model.logits_pair(same, same)
    real, fake = torch.cat(seen).split(6)
    assert not torch.equal(real, fake)


def test_the_generator_learns_through_the_changes_and_samples_have_none():
    model = dcgan("relativistic", r1=1.0, r2=1.0, augment=KINDS)
    given = Labeled(torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64))
    *_, last = model.play(given)
    gradient = torch.autograd.grad(last.losses["adversarial"], list(model.generator.parameters()))
    assert all(bool(part.isfinite().all()) and float(part.abs().sum()) > 0 for part in gradient)
    made = model.sample(model.prompt([0, 1]))
    assert torch.equal(made, model.sample(model.prompt([0, 1])))
    assert torch.equal(model.plain_logits(given), model.discriminator(given.images))
