"""WGAN-GP, the conditional DCGAN and the recipe for an own folder: their layers, games and refusals."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from gantool import models
from gantool.batches import ImageSpec, Labeled
from gantool.errors import RecipeError
from gantool.models import losses, shapes
from gantool.models.cdcgan import CDCGAN
from gantool.models.wgan_gp import WGANGP
from gantool.training import engine
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

SMALL = {"generator": [[8, 4, 1, 0], [1, 4, 2, 1]], "discriminator": [[8, 4, 2, 1], [8, 3, 1, 1], [1, 4, 1, 0]]}
GREY = ImageSpec(1, 8, 8, ("0", "1", "2"))


def built(name, changes=None, classes=5):
    recipe = engine.open_recipe(name, changes)
    block = recipe.data
    names = tuple(block.classes or [str(index) for index in range(10 if block.channels == 1 else classes)])
    return models.build(recipe, ImageSpec(block.channels or 3, block.height, block.width, names))


def wgan_gp(**changes):
    loss = losses.find_loss("wasserstein")(gradient_penalty=10.0)
    return WGANGP(GREY, loss, latent_dim=3, **{**SMALL, **changes})


def cdcgan(data=GREY, **changes):
    return CDCGAN(data, losses.find_loss("non_saturating")(), latent_dim=3, embedding_dim=4, **{**SMALL, **changes})


def batch(count=4, data=GREY):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, *data.shape, generator=generator) * 2 - 1
    return Labeled(images, torch.arange(count) % len(data.classes))


def kinds(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


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
    assert [shapes._kind(layer) for layer in model.discriminator] == [
        *("Conv2d", "LeakyReLU", "Conv2d", "LeakyReLU"),
        *("Conv2d", "Flatten"),
    ]
    assert len(kinds(model.generator, nn.BatchNorm2d)) == len(kinds(model.generator, nn.ConvTranspose2d)) - 1


def test_wgan_gp_is_trained_as_the_paper_says():
    recipe = engine.open_recipe("wgan_gp28")
    assert recipe.model.critic_steps == 5
    assert recipe.loss.name == "wasserstein"
    assert recipe.loss.gradient_penalty == 10
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
    made, logits = [], []
    model.generator.register_forward_hook(lambda _, __, output: made.append(output.detach()))
    model.discriminator.register_forward_pre_hook(lambda _, inputs: logits.append(inputs[0].detach()))
    given = batch()
    for _ in model.play(given):
        pass
    assert len(made) == 6
    assert not any(torch.equal(one, other) for one, other in pairwise(made))
    both = [images for images in logits if len(images) == 8]
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


def test_the_class_decides_the_image_and_its_score():
    torch.manual_seed(0)
    model = cdcgan().eval()
    with torch.no_grad():
        made = model.sample(model.prompt([7, 7, 7], [0, 1, 1]))
        scores = model.plain_logits(Labeled(made[:1].expand(3, -1, -1, -1), torch.tensor([0, 1, 2])))
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
    data = ImageSpec(3, 8, 12, ("a", "b"))
    model = cdcgan(data, generator=[[8, 4, 1, 0], [3, 2, 2, 0]], discriminator=[[1, 8, 1, 0]])
    shown = model.discriminator.unflatten(model.discriminator.embedding(torch.tensor([0])))
    assert shown.shape == (1, 1, 8, 12)
