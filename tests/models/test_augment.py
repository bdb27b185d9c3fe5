"""Differentiable augmentation: what each change does, pixel for pixel, and how far chance may take it."""

from __future__ import annotations

import pytest
import torch
from gantool.batches import ImageSpec, Labeled
from gantool.models import losses
from gantool.models.augment import augmented, brightened, color, contrasted, cut, cutout, moved, saturated, translation
from gantool.models.dcgan import DCGAN
from torch.autograd import gradcheck

KINDS = {"color": color, "translation": translation, "cutout": cutout}


def images(count=4, channels=3, height=8, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def each(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)[:, None, None, None]


def pixels(*values):
    return torch.tensor(values)[:, None]


# Colour


def test_no_brightness_whole_saturation_and_whole_contrast_change_nothing():
    given = images(2)
    assert torch.equal(brightened(given, each(0, 0)), given)
    torch.testing.assert_close(saturated(given, each(1, 1)), given, rtol=0, atol=1e-15)
    torch.testing.assert_close(contrasted(given, each(1, 1)), given, rtol=0, atol=1e-15)


def test_brightness_is_added_to_each_image_as_its_own_number():
    given = images(2)
    made = brightened(given, each(0.25, -0.5))
    assert torch.equal(made[0], given[0] + 0.25)
    assert torch.equal(made[1], given[1] - 0.5)


def test_saturation_keeps_every_pixels_grey_and_none_leaves_only_that():
    given = images(2)
    made = saturated(given, each(0, 1.7))
    torch.testing.assert_close(made.mean(1), given.mean(1))
    torch.testing.assert_close(made[0], given[0].mean(0, keepdim=True).expand(3, 8, 12))
    torch.testing.assert_close(made[1] - made[1].mean(0), 1.7 * (given[1] - given[1].mean(0)))


def test_contrast_keeps_every_images_mean_and_scales_its_deviation():
    given = images(2)
    made = contrasted(given, each(0.5, 1.5))
    torch.testing.assert_close(made.mean((1, 2, 3)), given.mean((1, 2, 3)))
    torch.testing.assert_close(made.std((1, 2, 3)), given.std((1, 2, 3)) * torch.tensor([0.5, 1.5]).double())


def test_a_grey_image_has_no_saturation_to_change():
    given = images(2, channels=1)
    torch.testing.assert_close(saturated(given, each(0, 2)), given)


# Places


def test_moved_by_nothing_is_the_same_image():
    given = images(2)
    assert torch.equal(moved(given, pixels(0, 0), pixels(0, 0)), given)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (-3, 0), (0, 2), (0, -5), (2, -1), (-7, 11)])
def test_every_pixel_moves_exactly_and_nothing_comes_in(down, right):
    given = images(1, height=8, width=12)
    made = moved(given, pixels(down), pixels(right))
    wanted = torch.zeros_like(given)
    for row in range(8):
        for column in range(12):
            if 0 <= row - down < 8 and 0 <= column - right < 12:
                wanted[:, :, row, column] = given[:, :, row - down, column - right]
    assert torch.equal(made, wanted)


def test_each_image_moves_by_itself():
    given = images(3)
    made = moved(given, pixels(0, 1, -1), pixels(2, 0, 0))
    assert torch.equal(made[0, :, :, 2:], given[0, :, :, :-2])
    assert torch.equal(made[1, :, 1:], given[1, :, :-1])
    assert torch.equal(made[2, :, :-1], given[2, :, 1:])


@pytest.mark.parametrize(
    ("top", "left", "rows", "columns"),
    [(0, 0, (0, 4), (0, 6)), (2, 3, (2, 6), (3, 9)), (-2, -3, (0, 2), (0, 3)), (6, 10, (6, 8), (10, 12))],
)
def test_a_hole_is_where_it_is_said_to_be_also_in_part_outside(top, left, rows, columns):
    given = images(1) + 2  # no number is 0
    made = cut(given, pixels(top), pixels(left), 4, 6)
    hole = torch.zeros(8, 12, dtype=torch.bool)
    hole[slice(*rows), slice(*columns)] = True
    assert bool((made[:, :, hole] == 0).all())
    assert torch.equal(made[:, :, ~hole], given[:, :, ~hole])


def test_a_hole_of_no_size_cuts_nothing():
    given = images(1)
    assert torch.equal(cut(given, pixels(3), pixels(3), 0, 0), given)


# Chance


def test_colours_change_within_their_ranges_and_all_of_them():
    torch.manual_seed(0)
    given = torch.zeros(4000, 3, 1, 2, dtype=torch.float64)
    given[:, :, 0, 0] = 0.2  # some contrast
    given[:, 0] += 0.3  # some colour
    made = color(given)
    shift = (made.mean((1, 2, 3)) - given.mean((1, 2, 3))).numpy()
    assert -0.5 <= shift.min() < -0.49
    assert 0.49 < shift.max() <= 0.5
    assert abs(shift.mean()) < 0.02
    spread = (made.mean(1)[:, 0, 0] - made.mean(1)[:, 0, 1]) / 0.2  # of the greys: contrast alone
    assert 0.5 <= float(spread.min()) < 0.51
    assert 1.49 < float(spread.max()) <= 1.5
    saturation = (made[:, 0, 0, 1] - made[:, 1, 0, 1]) / 0.3 / spread
    assert 0 <= float(saturation.min()) < 0.01
    assert 1.99 < float(saturation.max()) <= 2.0


def test_images_move_by_up_to_an_eighth_of_each_side_and_by_every_step_of_it():
    torch.manual_seed(0)
    given = torch.zeros(2000, 1, 16, 40)
    given[:, :, 8, 20] = 1
    row, column = (translation(given)[:, 0] == 1).nonzero()[:, 1:].T
    assert set((row - 8).tolist()) == set(range(-2, 3))
    assert set((column - 20).tolist()) == set(range(-5, 6))


@pytest.mark.parametrize(("side", "hole"), [(8, 4), (7, 4), (6, 3), (5, 3), (64, 32), (28, 14)])
def test_half_of_each_side_is_cut_out_where_all_of_the_hole_is_inside(side, hole):
    torch.manual_seed(0)
    made = cutout(torch.ones(1500, 1, side, side))
    areas = set((made == 0).sum((1, 2, 3)).tolist())
    assert max(areas) == hole * hole
    assert min(areas) >= (hole // 2) ** 2  # its middle is never outside
    ends = (made == 0).any(0)[0]
    assert bool(ends.all())  # nowhere is safe


def test_every_image_gets_a_draw_of_its_own():
    torch.manual_seed(0)
    same = images(1).expand(16, -1, -1, -1)
    for change in (color, translation, cutout):
        made = change(same)
        assert len({tuple(one.flatten().tolist()) for one in made}) > 8


def test_the_same_seed_makes_the_same_changes():
    given = images()
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(augmented(given, ["color", "translation", "cutout"]))
    assert torch.equal(*made)


# All of them


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 1, 5, 9), (2, 3, 1, 1), (2, 4, 28, 20)])
def test_any_shape_keeps_its_shape_and_kind_of_number(kind, shape):
    for dtype in (torch.float32, torch.float64):
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
    torch.manual_seed(5)
    (once,) = torch.autograd.grad(augmented(given, [kind]).square().sum(), given, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), given)
    assert bool(twice.isfinite().all())
    assert float(twice.abs().sum()) > 0


def test_the_gradient_of_what_is_cut_out_is_zero():
    given = images(1).requires_grad_()
    made = cut(given, pixels(2), pixels(3), 4, 6)
    made.sum().backward()
    assert torch.equal(given.grad != 0, made != 0)


def test_kinds_are_done_in_their_order_and_none_does_nothing():
    given = images()
    assert augmented(given, []) is given
    torch.manual_seed(1)
    one = augmented(given, ["cutout", "color"])
    torch.manual_seed(1)
    other = color(cutout(given))
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_asks_for_a_number(kind):
    made = augmented(torch.zeros(4, 3, 16, 16, device="meta"), [kind])  # there an error
    assert made.shape == (4, 3, 16, 16)


def test_real_and_fake_images_are_shown_with_changes_of_their_own():
    networks = {"generator": [[1, 8, 1, 0]], "discriminator": [[1, 8, 1, 0]]}
    loss = losses.find_loss("hinge")(augment=["translation", "cutout"])
    model = DCGAN(ImageSpec(1, 8, 8), loss, latent_dim=2, dropout=0.0, **networks)
    shown = []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    same = torch.rand(6, 1, 8, 8)
    model.logits_pair(same, same)
    assert len(torch.cat(shown)) == 12
    real, fake = torch.cat(shown).split(6)
    assert not torch.equal(real, fake)


def test_the_generator_learns_through_the_changes_and_the_samples_have_none():
    networks = {"generator": [[1, 8, 1, 0]], "discriminator": [[1, 8, 1, 0]]}
    loss = losses.find_loss("relativistic")(r1=1.0, r2=1.0, augment=["color", "translation", "cutout"])
    model = DCGAN(ImageSpec(1, 8, 8), loss, latent_dim=2, dropout=0.0, **networks)
    torch.manual_seed(0)
    given = Labeled(torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64))
    *_, last = model.play(given)
    gradient = torch.autograd.grad(last.losses["adversarial"], list(model.generator.parameters()))
    assert all(bool(part.isfinite().all()) and float(part.abs().sum()) > 0 for part in gradient)
    made = model.sample(model.prompt([0, 1]))
    assert torch.equal(made, model.sample(model.prompt([0, 1])))
    assert torch.equal(model.plain_logits(given), model.discriminator(given.images))
