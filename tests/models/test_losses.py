"""Adversarial losses and penalties against known values, torch's own and closed forms."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch
from gantool.errors import RecipeError
from gantool.models import losses
from gantool.models.augment import augmented
from gantool.models.losses import gradient_penalty, r1_penalty
from gantool.recipe.schema import Mismatch, check, signature
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

ALL = tuple(losses.LOSSES)
CROSS_ENTROPY = ("non_saturating", "minimax")


def loss(name, **rest):
    return losses.find_loss(name)(**rest)


def generator_loss(name, fake, real=None):
    return loss(name).generator(fake=fake, real=lambda: real)


def logits(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1).requires_grad_()


def number(value):
    return value.detach().item()


def random_logits(seed, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(64, 1, generator=generator, dtype=torch.float64)).requires_grad_()


def nats(*values):
    """Return the mean of log(1 + exp(value))."""
    return sum(math.log1p(math.exp(value)) for value in values) / len(values)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("least_squares", 0.5 * (1 + 4) / 2 + 0.5 * (9 + 0.25) / 2, 0.5 * (4 + 0.25) / 2),
        ("hinge", (0 + 2) / 2 + (4 + 1.5) / 2, -1.75),
        ("wasserstein", 1.75 - 0.5, -1.75),
        ("non_saturating", nats(-2, 1) + nats(3, 0.5), nats(-3, -0.5)),
        ("minimax", nats(-2, 1) + nats(3, 0.5), -nats(3, 0.5)),
        ("relativistic", nats(1, 1.5), nats(-1, -1.5)),
    ],
)
def test_known_logits_give_the_values_of_the_papers(name, discriminator, generator):
    real, fake = logits(2, -1), logits(3, 0.5)
    assert number(loss(name).loss.function(real=real, fake=fake)) == pytest.approx(discriminator, abs=1e-14)
    assert number(generator_loss(name, fake, real)) == pytest.approx(generator, abs=1e-14)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits_give_finite_losses_and_gradients(name, dtype):
    extreme = torch.tensor([[-1000.0], [1000.0]], dtype=dtype, requires_grad=True)
    other = extreme.flip(0)
    for value in (loss(name).loss.function(real=extreme, fake=other), generator_loss(name, extreme, other)):
        (gradient,) = torch.autograd.grad(value, extreme)
        assert bool(value.isfinite())
        assert bool(gradient.isfinite().all())


def test_a_generator_against_a_certain_discriminator_learns_unless_its_loss_saturates():
    fake = logits(-1000)
    (alive,) = torch.autograd.grad(generator_loss("non_saturating", fake), fake)
    (dead,) = torch.autograd.grad(generator_loss("minimax", fake), fake)
    assert (number(alive), number(dead)) == (-1.0, 0.0)


@pytest.mark.parametrize("name", ALL)
def test_stats_are_probabilities_for_cross_entropy_and_logits_for_the_rest(name):
    border = 0.5 if name == "least_squares" else 0.0
    real, fake = (logits(*(border + value for value in side)) for side in ((2, 2, -1, 1), (-1, 1, 0, 0)))
    stats = loss(name).discriminator_stats(real=real, fake=fake)
    wanted = [value.sigmoid().mean() if name in CROSS_ENTROPY else value.mean() for value in (real, fake)]
    assert [number(stats["real"]), number(stats["fake"])] == pytest.approx([number(value) for value in wanted])
    # 3 of 4 real and 3 of 4 fake images are on their side; 3 of 4 pairs are in order
    assert number(stats["accuracy"]) == 0.75 if name != "wasserstein" else "accuracy" not in stats
    assert not any(value.requires_grad for value in stats.values())
    assert loss(name).optimum == (0.5 if name in (*CROSS_ENTROPY, "least_squares") else None)


# Penalties


def linear_critic(seed=0):
    weight = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    return weight, lambda images: (images * weight).sum((1, 2, 3)).unsqueeze(1)


def images(seed, count=6):
    return torch.rand(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_the_gradient_penalty_of_a_linear_critic_is_its_norms_squared_distance_from_one():
    weight, critic = linear_critic()
    norm = weight.detach().norm()
    value = gradient_penalty(critic, images(1), images(2))
    assert number(value) == pytest.approx(float((norm - 1) ** 2), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, weight)
    torch.testing.assert_close(gradient, 2 * (norm - 1) * weight.detach() / norm, rtol=1e-10, atol=1e-12)


def test_r1_is_the_mean_squared_norm_of_the_gradient_at_real_images_alone():
    weight, critic = linear_critic()
    value = r1_penalty(critic, images(1))
    assert number(value) == pytest.approx(number(weight.detach().square().sum()), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, weight)
    torch.testing.assert_close(gradient, 2 * weight.detach(), rtol=1e-10, atol=1e-12)
    real = images(3)
    value = r1_penalty(lambda x: 0.5 * x.square().sum((1, 2, 3)), real)
    assert number(value) == pytest.approx(number(real.square().sum((1, 2, 3)).mean()), rel=1e-12)
    assert not real.requires_grad


def test_the_gradient_penalty_takes_one_random_point_between_each_pair():
    real, fake, seen = images(4), images(5), []

    def critic(between):
        seen.append(between.detach())
        return between.square().sum((1, 2, 3))

    gradient_penalty(critic, real, fake)
    shares = ((seen[0] - fake) / (real - fake)).flatten(1)
    assert bool((shares - shares[:, :1]).abs().max() < 1e-9)  # one share for all of an image
    assert bool(((shares > 0) & (shares < 1)).all())
    assert len({round(number(value), 9) for value in shares[:, 0]}) == len(real)  # another for each image


def test_a_flat_critic_gives_a_finite_penalty():
    weight = torch.zeros(3, 4, 5, dtype=torch.float64, requires_grad=True)
    value = gradient_penalty(lambda x: (x * weight).sum((1, 2, 3)), images(1), images(2))
    (gradient,) = torch.autograd.grad(value, weight)
    assert number(value) == 1
    assert bool(gradient.isfinite().all())


def test_penalties_are_weighted_named_left_out_at_zero_and_move_the_critic_alone():
    weight = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def critic(given):
        return (given.square() * weight).sum((1, 2, 3)).unsqueeze(1)

    real, fake = images(1), images(2).requires_grad_()
    pair = critic(real), critic(fake.detach())
    assert list(loss("hinge").discriminator(*pair, critic, real, fake)[0]) == ["adversarial"]
    weighted = loss("relativistic", gradient_penalty=10.0, r1=3.0, r2=5.0)
    found, _ = weighted.discriminator(*pair, critic, real, fake)
    assert list(found) == ["adversarial", "gradient_penalty", "r1", "r2"]
    for name, gamma, at in (("r1", 3.0, real), ("r2", 5.0, fake)):
        known = (2 * at * weight).square().sum((1, 2, 3)).mean()  # of x -> sum w x**2
        torch.testing.assert_close(found[name], 0.5 * gamma * known)
    for name in ("gradient_penalty", "r2"):
        assert torch.autograd.grad(found[name], fake, allow_unused=True, retain_graph=True) == (None,)
    _, critic = linear_critic()
    tenfold, _ = loss("wasserstein", gradient_penalty=10.0).discriminator(*pair, critic, real, fake)
    torch.testing.assert_close(tenfold["gradient_penalty"], 10 * gradient_penalty(critic, real, fake))


# Names and blocks


def test_every_loss_is_found_by_its_name_and_names_its_paper():
    for name in ALL:
        assert re.search(r"\b(19|20)\d\d\b", inspect.getdoc(loss(name).loss.function)), "the paper's year"
    with pytest.raises(RecipeError, match=r"^unknown loss 'hing'; did you mean 'hinge'\?$"):
        losses.find_loss("hing")


@pytest.mark.parametrize(
    "values",
    [
        *({"gradient_penalty": -1.0}, {"r1": "much"}, {"r2": -0.1}, {"r3": 1.0}),
        *({"augment": kinds} for kinds in ([], ["colour"], "color", [1], ["color", None], [["color"]])),
    ],
)
def test_a_loss_block_takes_weights_and_known_augmentations_only(values):
    with pytest.raises(Mismatch):
        check(signature(losses.find_loss("hinge")), {"name": "hinge", **values})


@pytest.mark.parametrize("kinds", [None, ["color"], ["cutout", "color", "translation"]])
def test_a_loss_changes_images_as_its_block_lists(kinds):
    chosen = check(signature(losses.find_loss("hinge")), {"name": "hinge", "augment": kinds}).make()
    torch.manual_seed(0)
    shown = chosen.augmented(images(1))
    torch.manual_seed(0)
    assert torch.equal(shown, augmented(images(1), kinds or []))


# Pairs


def test_a_relativistic_loss_depends_on_differences_alone_and_is_the_same_in_both_turns():
    real, fake = random_logits(1), random_logits(2)
    once = loss("relativistic").loss.function(real=real, fake=fake)
    torch.testing.assert_close(once, softplus(fake - real).mean())
    torch.testing.assert_close(loss("relativistic").loss.function(real=real + 7, fake=fake + 7), once)
    with pytest.raises(ValueError, match="generator"):
        loss("relativistic").loss.function(fake=fake)
    made = generator_loss("relativistic", fake, real)
    torch.testing.assert_close(made, binary_cross_entropy_with_logits(fake - real, torch.ones_like(real)))


@pytest.mark.parametrize("name", ALL)
def test_only_a_relativistic_generator_needs_the_logits_of_real_images(name):
    called = []
    loss(name).generator(fake=random_logits(8), real=lambda: called.append(True) or random_logits(7))
    assert len(called) == (name == "relativistic")
