"""WGAN-GP, the conditional DCGAN and R3GAN's networks: their layers, their games, and what they refuse."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, leaky_relu
from torch.nn.modules.batchnorm import _BatchNorm

from gantool import engine, losses, models
from gantool.batches import DataSpec, Labeled
from gantool.errors import RecipeError
from gantool.models.cdcgan import CDCGAN
from gantool.models.r3gan import R3GAN, Basis, Residual, Up
from gantool.models.wgan_gp import WGANGP

SMALL = {"generator": [[8, 4, 1, 0], [1, 4, 2, 1]], "discriminator": [[8, 4, 2, 1], [8, 3, 1, 1], [1, 4, 1, 0]]}
GREY = DataSpec(1, 8, 8, ("0", "1", "2"))
COUNTS = {
    "wgan_gp28": (759_873, 36_513),
    "cdcgan28": (822_693, 44_993),
    "cdcgan64": (195_861, 104_897),
    "r3gan64": (156_707, 150_593),
}


def built(name, changes=None, classes=5):
    recipe = engine.open_recipe(name, changes)
    block = recipe.data
    names = tuple(block.classes or [str(index) for index in range(10 if block.channels == 1 else classes)])
    return models.build(recipe, DataSpec(block.channels or 3, block.height, block.width, names))


def wgan_gp(**changes):
    loss = losses.find("wasserstein")(gradient_penalty=10.0)
    return WGANGP(GREY, loss, latent_dim=3, **{**SMALL, **changes})


def cdcgan(data=GREY, **changes):
    return CDCGAN(data, losses.find("non_saturating")(), latent_dim=3, embedding_dim=4, **{**SMALL, **changes})


def r3gan(size=16, **changes):
    sides = (size, size) if isinstance(size, int) else size
    loss = losses.find("relativistic")(r1=1.0, r2=1.0)
    return R3GAN(DataSpec(3, *sides), loss, **{"latent_dim": 5, "channels": [12, 8, 4], **changes})


def batch(count=4, data=GREY):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, *data.shape, generator=generator) * 2 - 1
    return Labeled(images, torch.arange(count) % len(data.classes))


def kinds(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_both_networks_have_exactly_the_known_number_of_parameters(name):
    with torch.device("meta"):
        model = built(name)
    assert (parameters(model.generator), parameters(model.discriminator)) == COUNTS[name]


@pytest.mark.parametrize("make", [wgan_gp, cdcgan])
@pytest.mark.parametrize(
    ("network", "layers", "words"),
    [
        (
            "generator",
            [[8, 4, 1, 0], [3, 4, 2, 1]],
            r"^model.generator: the last layer makes 3 channels, but .* have 1",
        ),
        ("discriminator", [[2, 8, 1, 0]], r"^model.discriminator: the last layer makes 2 channels, but a score is 1"),
    ],
)
def test_networks_that_end_in_other_channels_are_refused(make, network, layers, words):
    with pytest.raises(RecipeError, match=words):
        make(**{network: layers})


# WGAN-GP


def test_the_critic_has_no_batch_norm_and_the_generator_has():
    model = built("wgan_gp28")
    assert not kinds(model.discriminator, (_BatchNorm, nn.Dropout))
    assert [type(layer).__name__ for layer in model.discriminator] == [
        *("Conv2d", "LeakyReLU", "Conv2d", "LeakyReLU"),
        *("Conv2d", "Flatten"),
    ]
    assert len(kinds(model.generator, nn.BatchNorm2d)) == len(kinds(model.generator, nn.ConvTranspose2d)) - 1


def test_wgan_gp_is_trained_as_the_paper_says():
    recipe = engine.open_recipe("wgan_gp28")
    assert recipe.model["critic_steps"] == 5
    assert recipe.loss["name"] == "wasserstein"
    assert recipe.loss["gradient_penalty"] == 10
    assert (recipe.train.optimizer.lr, recipe.train.optimizer.betas) == (1e-4, (0.0, 0.9))
    assert recipe.train.batch_size == 64


@pytest.mark.parametrize("steps", [1, 5])
def test_the_critic_moves_so_often_and_then_the_generator_once_each_against_the_newest_other(steps):
    torch.manual_seed(0)
    model = wgan_gp(critic_steps=steps)
    game = model.play(batch())
    seen = []
    for move in range(steps + 1):
        turn = next(game)
        assert turn.player is (model.discriminator if move < steps else model.generator)
        assert set(turn.losses) == ({"adversarial", "gradient_penalty"} if move < steps else {"adversarial"})
        seen.append(turn.losses["adversarial"].item())
        with torch.no_grad():  # moves that cannot be missed: the critic says `move` to all
            for weight in turn.player.parameters():
                weight.zero_()
            model.discriminator[-2].bias.fill_(move + 1)
    assert next(game, None) is None
    assert seen[1:steps] == [0.0] * (steps - 1)  # of a critic that says the same to all
    assert seen[steps] == -steps


def test_each_move_of_the_critic_meets_new_fake_images_and_the_same_real_ones():
    model = wgan_gp()
    made, judged = [], []
    model.generator.register_forward_hook(lambda _, __, output: made.append(output.detach()))
    model.discriminator.register_forward_pre_hook(lambda _, inputs: judged.append(inputs[0].detach()))
    given = batch()
    for _ in model.play(given):
        pass
    assert len(made) == 6
    assert not any(torch.equal(one, other) for one, other in pairwise(made))
    both = [images for images in judged if len(images) == 8]
    assert len(both) == 5
    assert all(torch.equal(images[:4], given.images) for images in both)


def test_the_critics_moves_never_reach_the_generator():
    model = wgan_gp()
    for turn in model.play(batch()):
        if turn.player is model.discriminator:
            total = sum(turn.losses.values())
            found = torch.autograd.grad(total, list(model.generator.parameters()), allow_unused=True)
            assert all(gradient is None for gradient in found)


# Conditional DCGAN


def test_the_discriminator_is_shown_the_class_as_one_more_channel():
    model = cdcgan()
    seen = []
    model.discriminator.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    given = batch(3)
    scores = model.discriminator(*given)
    assert scores.shape == (3, 1)
    (shown,) = seen
    assert shown.shape == (3, 2, 8, 8)
    assert torch.equal(shown[:, :1], given.images)
    assert torch.equal(shown[:, 1].flatten(1), model.discriminator.embedding.weight.detach())


def test_the_generator_is_told_the_class_beside_its_latent():
    model = cdcgan()
    seen = []
    model.generator.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    latents, labels = torch.randn(2, 3), torch.tensor([2, 0])
    model.generator(latents, labels)
    assert torch.equal(seen[0][:, :3], latents)
    assert torch.equal(seen[0][:, 3:], model.generator.embedding.weight.detach()[labels])


def test_the_class_decides_the_picture_and_its_score():
    torch.manual_seed(0)
    model = cdcgan().eval()
    with torch.no_grad():
        made = model.sample(model.prompt([7, 7, 7], [0, 1, 1]))
        scores = model.scores(Labeled(made[:1].expand(3, -1, -1, -1), torch.tensor([0, 1, 2])))
    assert not torch.equal(made[0], made[1])
    torch.testing.assert_close(made[1], made[2])
    assert len(set(scores[:, 0].tolist())) == 3
    assert model.conditional


def test_both_embeddings_of_a_class_learn():
    model = cdcgan()
    for turn in model.play(batch(8)):
        embedding = turn.player.embedding
        (gradient,) = torch.autograd.grad(sum(turn.losses.values()), [embedding.weight], retain_graph=True)
        assert float(gradient.abs().sum()) > 0


def test_sides_need_not_be_equal():
    data = DataSpec(3, 8, 12, ("a", "b"))
    model = cdcgan(data, generator=[[8, 4, 1, 0], [3, 2, 2, 0]], discriminator=[[1, 8, 1, 0]])
    shown = model.discriminator.unflatten(model.discriminator.embedding(torch.tensor([0])))
    assert shown.shape == (1, 1, 8, 12)


# R3GAN


def test_nothing_in_r3gan_is_normalised_or_dropped():
    model = r3gan()
    assert not kinds(model, (_BatchNorm, nn.InstanceNorm2d, nn.LayerNorm, nn.GroupNorm, nn.Dropout))
    assert {layer.negative_slope for layer in kinds(model, nn.LeakyReLU)} == {0.2}


def test_the_discriminator_mirrors_the_generator():
    model = r3gan(blocks=2)
    sides = []
    for network in (model.generator, model.discriminator):
        widths = []
        for layer in network:
            if isinstance(layer, Residual):
                layer.register_forward_hook(lambda _, __, output, into=widths: into.append(tuple(output.shape[1:])))
        sides.append(widths)
    model.discriminator(model.generator(torch.randn(2, 5)))
    assert sides[0] == [(12, 4, 4)] * 2 + [(8, 8, 8)] * 2 + [(4, 16, 16)] * 2
    assert sides[1] == sides[0][::-1]


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_every_residual_block_starts_as_the_identity(network):
    blocks = kinds(getattr(r3gan(blocks=2), network), Residual)
    assert len(blocks) == 6
    for block in blocks:
        given = torch.randn(2, block.layers[0].in_channels, 4, 4)
        assert torch.equal(block(given), given)


def test_a_generator_starts_as_its_basis_made_larger():
    torch.manual_seed(0)
    model = r3gan(channels=[8, 8, 8])  # nothing but blocks and resampling between its ends
    latents = torch.randn(2, 5)
    first, basis, last = model.generator[0], model.generator[1], model.generator[-2]
    small = first(latents)[:, :, None, None] * basis.images
    large = interpolate(interpolate(small, scale_factor=2, mode="bilinear"), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(model.generator(latents), last(large).tanh())


def test_a_block_adds_to_its_input_what_its_three_convolutions_make_of_it():
    torch.manual_seed(0)
    block = Residual(8, expansion=2, group=4, blocks=6)
    first, middle, last = block.layers[0], block.layers[2], block.layers[4]
    nn.init.normal_(last.weight)
    given = torch.randn(2, 8, 5, 6)
    inner = leaky_relu(middle(leaky_relu(first(given), 0.2)), 0.2)
    torch.testing.assert_close(block(given), given + last(inner))
    assert (first.out_channels, middle.kernel_size, middle.groups, last.bias) == (16, (3, 3), 4, None)


@pytest.mark.parametrize("blocks", [1, 16, 81])
def test_fix_up_starts_a_branch_the_smaller_the_more_there_are(blocks):
    torch.manual_seed(0)
    block = Residual(64, expansion=2, group=128, blocks=blocks)
    gain = math.sqrt(2 / (1 + 0.2**2))
    for layer, fan in ((block.layers[0], 64), (block.layers[2], 128 * 9)):
        deviation = gain / math.sqrt(fan) * blocks ** (-1 / 4)  # L ** (-1 / (2 m - 2)) of m = 3 layers
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize(("width", "group", "groups"), [(8, 16, 1), (32, 16, 2), (24, 16, 2), (7, 4, 7), (12, 5, 3)])
def test_groups_are_equal_and_no_larger_than_asked_for(width, group, groups):
    middle = Residual(width, expansion=1, group=group, blocks=1).layers[2]
    assert middle.groups == groups
    assert width // groups <= group


def test_resampling_is_bilinear_up_and_keeps_what_is_even():
    even = torch.full((1, 2, 3, 5), 0.7)
    assert torch.equal(Up()(even), torch.full((1, 2, 6, 10), 0.7))
    ramp = torch.arange(4.0).view(1, 1, 1, 4)
    torch.testing.assert_close(Up()(ramp)[0, 0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]))


def test_a_basis_is_as_strong_as_its_amounts():
    basis = Basis(3, 4, 5)
    made = basis(torch.tensor([[1.0, 0.0, -2.0]]))
    assert torch.equal(made[0], basis.images.detach() * torch.tensor([1.0, 0.0, -2.0]).view(3, 1, 1))


@pytest.mark.parametrize(
    ("size", "changes", "words"),
    [
        (18, {}, r"^model.channels: 3 widths and patch 1 take sides that are multiples of 4, not 18x18; .*size 16$"),
        ((16, 10), {}, "multiples of 4, not 16x10"),
        (7, {"channels": [8, 4]}, "2 widths and patch 1 take .* multiples of 2, not 7x7; .* or try data.size 8$"),
        (12, {"patch": 2}, "3 widths and patch 2 take sides that are multiples of 8, not 12x12"),
    ],
)
def test_sides_that_cannot_be_halved_so_often_are_refused(size, changes, words):
    with pytest.raises(RecipeError, match=words):
        r3gan(size, **changes)


@pytest.mark.parametrize(("size", "smallest"), [(16, (4, 4)), (28, (7, 7)), ((12, 20), (3, 5)), (4, (1, 1))])
def test_any_other_sides_will_do(size, smallest):
    model = r3gan(size)
    assert model.generator[1].images.shape[1:] == smallest
    made = model.sample(model.prompt([0, 1]))
    assert made.shape == (2, *model.data.shape)
    assert model.discriminator(made).shape == (2, 1)


@pytest.mark.parametrize(("patch", "smallest"), [(2, 4), (4, 2)])
def test_a_patch_leaves_the_largest_images_to_the_networks_ends(patch, smallest):
    model = r3gan(32, patch=patch)
    assert model.generator[1].images.shape[1:] == (smallest, smallest)
    assert (model.generator[-2].stride, model.discriminator[0].stride) == ((patch, patch),) * 2
    made = model.sample(model.prompt([0, 1]))
    assert made.shape == (2, 3, 32, 32)
    assert model.discriminator(made).shape == (2, 1)


def test_r3gans_loss_penalises_both_sides_and_both_players_move():
    model = r3gan()
    first, second = model.play(batch(4, model.data))
    assert set(first.losses) == {"adversarial", "r1", "r2"}
    assert set(second.losses) == {"adversarial"}
    for turn in (first, second):
        found = torch.autograd.grad(sum(turn.losses.values()), list(turn.player.parameters()), allow_unused=True)
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in found[:1])


def test_the_order_of_bilinear_resampling_and_a_1x1_convolution_changes_no_number():
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 4, 1, bias=False).double()
    given = torch.randn(2, 6, 4, 8, dtype=torch.float64)
    torch.testing.assert_close(Up()(layer(given)), layer(Up()(given)))
    torch.testing.assert_close(nn.AvgPool2d(2)(layer(given)), layer(nn.AvgPool2d(2)(given)))
