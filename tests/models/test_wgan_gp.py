"""WGAN-GP: its critic's layers, and its game."""

from __future__ import annotations

import pytest
import torch
from gantool.batches import ImageSpec, Labeled
from gantool.models import losses
from gantool.models.wgan_gp import WGANGP
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

NETWORKS = {"generator": [[8, 4, 1, 0], [1, 4, 2, 1]], "discriminator": [[8, 4, 2, 1], [8, 3, 1, 1], [1, 4, 1, 0]]}


def wgan_gp(**settings):
    loss = losses.find_loss("wasserstein")(gradient_penalty=10.0)
    return WGANGP(ImageSpec(1, 8, 8), loss, latent_dim=3, **NETWORKS, **settings)


def batch():
    return Labeled(torch.rand(4, 1, 8, 8) * 2 - 1, torch.zeros(4, dtype=torch.int64))


def test_the_critic_has_neither_batch_norm_nor_dropout():
    assert not any(isinstance(layer, _BatchNorm | nn.Dropout) for layer in wgan_gp().discriminator)


@pytest.mark.parametrize("steps", [1, 5])
def test_the_critic_moves_so_often_and_then_the_generator_once_each_against_the_newest_other(steps):
    model = wgan_gp(critic_steps=steps)
    game = model.play(batch())
    seen = []
    for move in range(steps + 1):
        turn = next(game)
        assert turn.player is (model.discriminator if move < steps else model.generator)
        assert set(turn.losses) == ({"adversarial", "gradient_penalty"} if move < steps else {"adversarial"})
        seen.append(turn.losses["adversarial"].item())
        with torch.no_grad():  # updates that cannot be missed: the critic gives all images the logit `move + 1`
            for weight in turn.player.parameters():
                weight.zero_()
            model.discriminator[-2].bias.fill_(move + 1)
    assert next(game, None) is None
    assert seen[1:steps] == [0.0] * (steps - 1)
    assert seen[steps] == -steps


def test_each_turn_of_the_critic_meets_new_fake_images_and_the_same_real_ones():
    model, judged = wgan_gp(), []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: judged.append(inputs[0].detach()))
    given = batch()
    assert len(list(model.play(given))) == 6
    both = [images for images in judged if len(images) == 8]
    assert len(both) == len({images[4:].sum().item() for images in both}) == 5
    assert all(torch.equal(images[:4], given.images) for images in both)
