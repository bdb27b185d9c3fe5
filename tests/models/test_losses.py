"""Adversarial losses and penalties against known values, torch's own and closed forms."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from gantool.errors import RecipeError
from gantool.models import losses
from gantool.models.augment import augmented
from gantool.models.losses import Adversarial, gradient_penalty, r1_penalty
from gantool.recipe.schema import Mismatch, check, signature
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, softplus

NAMES = ("non_saturating", "minimax", "least_squares", "hinge", "wasserstein")  # whose two sides are apart
ALL = (*NAMES, "relativistic")
CROSS_ENTROPY = ("non_saturating", "minimax")


def loss(name, **rest):
    return losses.find_loss(name)(**rest)


def scores(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1).requires_grad_()


def number(value):
    return value.detach().item()


def random_scores(seed, count=64, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(count, 1, generator=generator, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("non_saturating", 2 * math.log(2), math.log(2)),
        ("minimax", 2 * math.log(2), -math.log(2)),
        ("least_squares", 0.5, 0.5),
        ("hinge", 2.0, 0.0),
        ("wasserstein", 0.0, 0.0),
    ],
)
def test_an_undecided_discriminator_gives_the_known_values(name, discriminator, generator):
    zero = torch.zeros(8, 1, dtype=torch.float64)
    assert number(loss(name)(real=zero, fake=zero)) == pytest.approx(discriminator, abs=1e-15)
    assert number(loss(name).function(fake=zero)) == pytest.approx(generator, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # real scores 2 and -1, fake scores 3 and 0.5
        ("least_squares", 0.5 * (1 + 4) / 2 + 0.5 * (9 + 0.25) / 2, 0.5 * (4 + 0.25) / 2),
        ("hinge", (0 + 2) / 2 + (4 + 1.5) / 2, -1.75),
        ("wasserstein", 1.75 - 0.5, -1.75),
        (
            "non_saturating",
            (math.log1p(math.exp(-2)) + math.log1p(math.exp(1)) + math.log1p(math.exp(3)) + math.log1p(math.exp(0.5)))
            / 2,
            (math.log1p(math.exp(-3)) + math.log1p(math.exp(-0.5))) / 2,
        ),
        (
            "minimax",
            (math.log1p(math.exp(-2)) + math.log1p(math.exp(1)) + math.log1p(math.exp(3)) + math.log1p(math.exp(0.5)))
            / 2,
            -(math.log1p(math.exp(3)) + math.log1p(math.exp(0.5))) / 2,
        ),
    ],
)
def test_known_scores_give_the_values_that_the_papers_give(name, discriminator, generator):
    real, fake = scores(2, -1), scores(3, 0.5)
    assert number(loss(name)(real=real, fake=fake)) == pytest.approx(discriminator, abs=1e-14)
    assert number(loss(name).function(fake=fake)) == pytest.approx(generator, abs=1e-14)


@pytest.mark.parametrize("name", CROSS_ENTROPY)
def test_the_discriminators_loss_is_torchs_cross_entropy_of_real_plus_that_of_fake(name):
    real, fake = random_scores(1), random_scores(2)
    ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
    mine = loss(name)(real=real, fake=fake)
    theirs = binary_cross_entropy_with_logits(real, ones) + binary_cross_entropy_with_logits(fake, zeros)
    torch.testing.assert_close(mine, theirs, rtol=1e-14, atol=1e-14)
    probabilities = binary_cross_entropy(real.sigmoid(), ones) + binary_cross_entropy(fake.sigmoid(), zeros)
    torch.testing.assert_close(mine, probabilities, rtol=1e-12, atol=1e-12)
    for mine_, theirs_ in zip(torch.autograd.grad(mine, (real, fake)), torch.autograd.grad(theirs, (real, fake))):  # noqa: B905
        torch.testing.assert_close(mine_, theirs_, rtol=1e-13, atol=1e-16)


def test_the_generators_losses_are_torchs_cross_entropy_towards_real_and_away_from_fake():
    fake = random_scores(3)
    towards = binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    torch.testing.assert_close(loss("non_saturating").function(fake=fake), towards, rtol=1e-14, atol=1e-14)
    away = -binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(loss("minimax").function(fake=fake), away, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_lowering_a_loss_moves_scores_as_its_player_wants(name):
    real, fake = random_scores(4, spread=0.2), random_scores(5, spread=0.2)
    up, down = torch.autograd.grad(loss(name)(real=real, fake=fake), (real, fake))
    if name == "least_squares":  # beyond its targets it pulls back
        assert bool(((up < 0) == (real < 1)).all())
        assert bool(((down > 0) == (fake > 0)).all())
    else:
        assert bool((up < 0).all())
        assert bool((down > 0).all())
    (towards,) = torch.autograd.grad(loss(name).function(fake=fake), fake)
    assert bool((towards < 0).all())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sure_scores_give_finite_losses_and_gradients(name, dtype):
    extreme = torch.tensor([[-1000.0], [1000.0]], dtype=dtype, requires_grad=True)
    other = extreme.flip(0)
    for value in (loss(name)(real=extreme, fake=other), loss(name).generator(fake=extreme, real=lambda: other)):
        (gradient,) = torch.autograd.grad(value, extreme)
        assert bool(value.isfinite())
        assert bool(gradient.isfinite().all())


def test_a_generator_that_is_seen_through_still_learns_unless_its_loss_saturates():
    fake = scores(-1000)
    (alive,) = torch.autograd.grad(loss("non_saturating").function(fake=fake), fake)
    (dead,) = torch.autograd.grad(loss("minimax").function(fake=fake), fake)
    assert number(alive) == -1.0
    assert number(dead) == 0.0


def test_a_margin_that_is_kept_costs_nothing():
    real, fake = scores(1, 5), scores(-1, -7)
    assert number(loss("hinge")(real=real, fake=fake)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_does_not_depend_on_the_number_or_order_of_images(name):
    real, fake = random_scores(6), random_scores(7)
    once = number(loss(name)(real=real, fake=fake))
    assert number(loss(name)(real=real.repeat(3, 1).flip(0), fake=fake.flip(0))) == pytest.approx(once, abs=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_probabilities_for_cross_entropy_and_scores_for_the_rest(name):
    real, fake = scores(2, -1), scores(-3, 0)
    told = loss(name).discriminator_stats(real=real, fake=fake)
    assert set(told) == {"real", "fake"} | (set() if name == "wasserstein" else {"accuracy"})
    if name in CROSS_ENTROPY:
        assert number(told["real"]) == pytest.approx((1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(1))) / 2)
        assert number(told["fake"]) == pytest.approx((1 / (1 + math.exp(3)) + 0.5) / 2)
        undecided = loss(name).discriminator_stats(real=torch.zeros(4, 1), fake=torch.zeros(4, 1))
        assert number(undecided["real"]) == number(undecided["fake"]) == 0.5
    else:
        assert number(told["real"]) == pytest.approx(0.5)
        assert number(told["fake"]) == pytest.approx(-1.5)
    assert not any(value.requires_grad for value in told.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "wasserstein"])
def test_accuracy_is_how_often_the_discriminator_is_right_on_either_side_of_its_border(name):
    border = 0.5 if name == "least_squares" else 0.0
    real, fake = scores(border + 1, border + 2, border - 1, border + 1), scores(border - 1, border + 1)
    assert number(loss(name).discriminator_stats(real=real, fake=fake)["accuracy"]) == pytest.approx(
        (3 / 4 + 1 / 2) / 2
    )


def test_the_optimum_is_a_half_where_the_loss_has_one():
    halves = {name for name in ALL if loss(name).optimum == 0.5}
    assert halves == {"non_saturating", "minimax", "least_squares"}
    assert loss("hinge").optimum is None


def linear_critic(shape, seed=0):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    return weight, lambda images: (images * weight).sum((1, 2, 3)).unsqueeze(1)


def images(seed, count=6):
    return torch.rand(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_the_gradient_penalty_of_a_linear_critic_is_its_norms_squared_distance_from_one():
    weight, critic = linear_critic((3, 4, 5))
    norm = weight.detach().norm()
    value = gradient_penalty(critic, images(1), images(2))
    assert number(value) == pytest.approx(float((norm - 1) ** 2), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, weight)
    torch.testing.assert_close(gradient, 2 * (norm - 1) * weight.detach() / norm, rtol=1e-10, atol=1e-12)


def test_r1_of_a_linear_critic_is_its_squared_norm():
    weight, critic = linear_critic((3, 4, 5))
    value = r1_penalty(critic, images(1))
    assert number(value) == pytest.approx(number(weight.detach().square().sum()), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, weight)
    torch.testing.assert_close(gradient, 2 * weight.detach(), rtol=1e-10, atol=1e-12)


def test_r1_of_a_quadratic_critic_is_the_mean_over_real_images_alone():
    real = images(3)
    value = r1_penalty(lambda x: 0.5 * x.square().sum((1, 2, 3)), real)
    assert number(value) == pytest.approx(number(real.square().sum((1, 2, 3)).mean()), rel=1e-12)
    assert not real.requires_grad


def test_the_gradient_penalty_looks_at_one_random_point_between_each_pair():
    real, fake = images(4), images(5)
    seen = []

    def critic(between):
        seen.append(between.detach())
        return between.square().sum((1, 2, 3))

    torch.manual_seed(0)
    gradient_penalty(critic, real, fake)
    share = (seen[0] - fake) / (real - fake)
    shares = share.flatten(1)
    assert bool((shares - shares[:, :1]).abs().max() < 1e-9)  # one share for all of an image
    assert bool(((shares > 0) & (shares < 1)).all())
    assert len({round(number(value), 9) for value in shares[:, 0]}) == len(real)  # another for each image


def test_a_penalty_moves_the_critic_and_never_the_generator():
    _, critic = linear_critic((3, 4, 5))
    fake = images(6).requires_grad_()
    value = gradient_penalty(critic, images(7), fake)
    (gradient,) = torch.autograd.grad(value, fake, allow_unused=True)
    assert gradient is None


def test_a_critic_that_is_flat_gives_a_finite_penalty():
    weight = torch.zeros(3, 4, 5, dtype=torch.float64, requires_grad=True)
    value = gradient_penalty(lambda x: (x * weight).sum((1, 2, 3)), images(1), images(2))
    (gradient,) = torch.autograd.grad(value, weight)
    assert number(value) == 1
    assert bool(gradient.isfinite().all())


def test_penalties_are_weighted_named_and_left_out_at_zero():
    weight, critic = linear_critic((3, 4, 5))
    norm = number(weight.detach().norm())
    assert loss("hinge").penalties(critic, images(1), images(2)) == {}
    both = loss("wasserstein", gradient_penalty=10.0, r1=4.0).penalties(critic, images(1), images(2))
    assert list(both) == ["gradient_penalty", "r1"]
    assert number(both["gradient_penalty"]) == pytest.approx(10 * (norm - 1) ** 2, rel=1e-12)
    assert number(both["r1"]) == pytest.approx(0.5 * 4 * norm**2, rel=1e-12)


def test_every_loss_is_found_by_its_name_and_says_where_it_is_from():
    for name in ALL:
        found = loss(name)
        assert isinstance(found, Adversarial)
        assert found.function.__name__ == name
        assert "20" in inspect.getdoc(found.function), "the paper's year"


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(RecipeError, match=r"^unknown loss 'hing'; did you mean 'hinge'\?$"):
        losses.find_loss("hing")


@pytest.mark.parametrize("values", [{"gradient_penalty": -1.0}, {"r1": "much"}, {"r2": -0.1}, {"r3": 1.0}])
def test_a_loss_block_takes_weights_only(values):
    with pytest.raises(Mismatch):
        check(signature(losses.find_loss("hinge")), {"name": "hinge", **values})


@pytest.mark.parametrize("kinds", [[], ["colour"], "color", [1], ["color", None], [["color"]]])
def test_a_loss_block_takes_changes_that_there_are_only(kinds):
    with pytest.raises(Mismatch, match="expected"):
        check(signature(losses.find_loss("hinge")), {"name": "hinge", "augment": kinds})


@pytest.mark.parametrize("kinds", [["color"], ["translation", "cutout"], ["cutout", "color", "translation"]])
def test_a_loss_shows_images_with_the_changes_that_its_block_lists(kinds):
    chosen = check(signature(losses.find_loss("hinge")), {"name": "hinge", "augment": kinds}).make()
    torch.manual_seed(0)
    shown = chosen.augmented(images(1))
    torch.manual_seed(0)
    assert torch.equal(shown, augmented(images(1), kinds))


def test_without_changes_the_images_themselves_are_shown():
    given = images(1)
    assert loss("hinge").augmented(given) is given


# Pairs


def test_a_relativistic_loss_is_softplus_of_the_difference_in_both_turns():
    real, fake = random_scores(1), random_scores(2)
    torch.testing.assert_close(loss("relativistic")(real=real, fake=fake), softplus(fake - real).mean())
    made = loss("relativistic").generator(fake=fake, real=lambda: real)
    torch.testing.assert_close(made, softplus(real - fake).mean())
    towards = binary_cross_entropy_with_logits(fake - real, torch.ones_like(real))  # of "more real than the real one"
    torch.testing.assert_close(made, towards)


def test_known_pairs_give_the_values_of_the_paper():
    real, fake = scores(2, -1), scores(3, 0.5)
    discriminator = (math.log1p(math.exp(1)) + math.log1p(math.exp(1.5))) / 2
    generator = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-1.5))) / 2
    assert number(loss("relativistic")(real=real, fake=fake)) == pytest.approx(discriminator, abs=1e-14)
    assert number(loss("relativistic").generator(fake=fake, real=lambda: real)) == pytest.approx(generator, abs=1e-14)
    zero = scores(0, 0)
    assert number(loss("relativistic")(real=zero, fake=zero)) == pytest.approx(math.log(2), abs=1e-15)


def test_a_relativistic_loss_only_knows_differences():
    real, fake = random_scores(3), random_scores(4)
    once = number(loss("relativistic")(real=real, fake=fake))
    assert number(loss("relativistic")(real=real + 7, fake=fake + 7)) == pytest.approx(once, abs=1e-13)


def test_lowering_a_relativistic_loss_moves_both_scores_as_its_player_wants():
    real, fake = random_scores(5), random_scores(6)
    up, down = torch.autograd.grad(loss("relativistic")(real=real, fake=fake), (real, fake))
    assert bool((up < 0).all())
    assert bool((down > 0).all())
    torch.testing.assert_close(up, -down)
    (towards,) = torch.autograd.grad(loss("relativistic").generator(fake=fake, real=lambda: real), fake)
    assert bool((towards < 0).all())


@pytest.mark.parametrize("name", ALL)
def test_only_a_relativistic_generator_asks_for_the_scores_of_real_images(name):
    asked = []

    def real():
        asked.append(True)
        return random_scores(7)

    fake = random_scores(8)
    value = loss(name).generator(fake=fake, real=real)
    assert len(asked) == (1 if name == "relativistic" else 0)
    if name != "relativistic":
        assert number(value) == number(loss(name).function(fake=fake))


def test_a_relativistic_loss_of_one_side_alone_is_a_mistake_of_the_program():
    with pytest.raises(ValueError, match="generator"):
        loss("relativistic").function(fake=random_scores(1))


def test_the_accuracy_of_a_relativistic_discriminator_is_the_share_of_pairs_that_it_orders_rightly():
    told = loss("relativistic").discriminator_stats(real=scores(2, -1, 0, 5), fake=scores(1, 0, 0, -5))
    assert number(told["accuracy"]) == 0.5  # to see no difference is no right answer
    assert number(told["real"]) == pytest.approx(1.5)
    assert number(told["fake"]) == pytest.approx(-1.0)
    assert not any(value.requires_grad for value in told.values())


def test_r2_is_r1_at_fake_images_and_moves_the_critic_alone():
    weight = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def critic(given):
        return (given.square() * weight).sum((1, 2, 3)).unsqueeze(1)

    real, fake = images(1), images(2).requires_grad_()
    found = loss("relativistic", r1=3.0, r2=5.0).penalties(critic, real, fake)
    assert list(found) == ["r1", "r2"]
    for name, gamma, at in (("r1", 3.0, real), ("r2", 5.0, fake)):
        known = (2 * at * weight).square().sum((1, 2, 3)).mean()  # of x -> sum w x**2
        torch.testing.assert_close(found[name], 0.5 * gamma * known)
        torch.testing.assert_close(found[name], 0.5 * gamma * r1_penalty(critic, at))
    (gradient,) = torch.autograd.grad(found["r2"], fake, allow_unused=True, retain_graph=True)
    assert gradient is None
    assert float(torch.autograd.grad(found["r2"], weight)[0].abs().sum()) > 0
