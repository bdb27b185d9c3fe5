"""The games of the base classes: one that makes images from noise, one with classes, and one of one player."""

from __future__ import annotations

import math

import pytest
import torch
from gantool.batches import Column, ImageSpec, Labeled, RowSpec, TableBatch
from gantool.models import losses
from gantool.models.cdcgan import CDCGAN
from gantool.models.cgan import CGAN
from gantool.models.dcgan import DCGAN
from gantool.models.dense import Dense
from gantool.models.mlp import MLP
from torch import nn

GREY = ImageSpec(1, 8, 8, ("0", "1", "2"))
NETWORKS = {"generator": [[8, 4, 1, 0], [1, 4, 2, 1]], "discriminator": [[8, 4, 2, 1], [8, 3, 1, 1], [1, 4, 1, 0]]}
LOSS = losses.find_loss("non_saturating")()


def batch(count=4):
    images = torch.rand(count, *GREY.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Labeled(images, torch.arange(count) % 3)


def test_the_discriminator_moves_first_and_the_generator_meets_the_new_one():
    model = MLP(GREY, LOSS, latent_dim=3, generator=[5], discriminator=[5])
    game = model.play(batch())
    first = next(game)
    assert first.player is model.discriminator
    assert set(first.scores) == {"real", "fake", "accuracy"}
    with torch.no_grad():
        for weight in model.discriminator.parameters():
            weight.zero_()
    second = next(game)
    assert second.player is model.generator
    assert float(second.losses["adversarial"].detach()) == pytest.approx(math.log(2))  # a zeroed one says 0 to all
    assert next(game, None) is None


@pytest.mark.parametrize("kind", [DCGAN, CDCGAN])
def test_batch_norm_never_mixes_real_and_fake_images(kind):
    model = kind(GREY, LOSS, latent_dim=3, dropout=0.0, **NETWORKS).double()
    real, fake = (torch.rand(6, 1, 8, 8, dtype=torch.float64) * 2 - 1 for _ in range(2))
    labels = [(torch.arange(6) % 3, torch.ones(6, dtype=torch.int64))] if model.conditional else []
    pair = model.logits_pair(real, fake, *labels)
    for logits, images, own in zip(pair, (real, fake), (labels or [((), ())])[0], strict=True):
        torch.testing.assert_close(logits, model.discriminator(images, *([own] if labels else [])))
    mixed = model.discriminator(torch.cat([real, fake]), *(torch.cat(both) for both in labels))
    assert not torch.allclose(pair[0], mixed[:6])


def test_without_batch_norm_real_and_fake_images_pass_the_discriminator_together():
    model, passes = CGAN(GREY, LOSS, latent_dim=3), []
    model.discriminator.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    for _ in model.play(batch()):
        pass
    assert passes == [8, 4]


def test_fake_labels_are_of_the_classes_of_the_data():
    model, seen = CGAN(GREY, LOSS, latent_dim=3), []
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    for _ in range(3):
        for _ in model.play(Labeled(torch.zeros(64, 1, 8, 8), torch.full((64,), 1))):
            pass
    assert set(torch.cat(seen).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", [CGAN, CDCGAN])
def test_the_class_decides_the_image_and_its_logit_and_its_embeddings_learn(kind):
    torch.manual_seed(0)
    model = kind(GREY, LOSS, latent_dim=3, **(NETWORKS if kind is CDCGAN else {}))
    for turn in model.play(batch(8)):
        weight = turn.player.embedding.weight
        (gradient,) = torch.autograd.grad(sum(turn.losses.values()), [weight], retain_graph=True)
        assert float(gradient.abs().sum()) > 0
    with torch.no_grad():
        made = model.eval().sample(model.prompt([7, 7, 7], [0, 1, 1]))
        logits = model.plain_logits(Labeled(made[:1].expand(3, -1, -1, -1), torch.tensor([0, 1, 2])))
    assert not torch.equal(made[0], made[1])
    torch.testing.assert_close(made[1], made[2])
    assert len(set(logits[:, 0].tolist())) == 3


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_a_classifiers_loss_is_the_log_of_its_answers(output):
    spec = RowSpec((Column("a"), Column("b")), ("0", "1"))
    model, inputs, labels = Dense(spec, output=output), torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    answers = model.answer(inputs)
    (turn,) = model.play(TableBatch(inputs, labels))
    torch.testing.assert_close(turn.losses["cross_entropy"], -answers.gather(1, labels[:, None]).log().mean())
    assert float(turn.scores["accuracy"]) == pytest.approx(float((answers.argmax(1) == labels).float().mean()))


def test_the_generator_of_dcgan_starts_as_the_paper_says():
    torch.manual_seed(0)
    rows = {**NETWORKS, "generator": [[64, 4, 1, 0], [1, 4, 2, 1]]}
    first = next(m for m in DCGAN(GREY, LOSS, latent_dim=100, **rows).generator if isinstance(m, nn.ConvTranspose2d))
    assert first.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(first.weight.mean().item()) < 0.02 * 4 / first.weight.numel() ** 0.5
