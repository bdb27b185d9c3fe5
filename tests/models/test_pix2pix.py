"""pix2pix: the published network and game, and noise by seed."""

from __future__ import annotations

import math

import pytest
import torch
from gantool.batches import ImageSpec, Paired
from gantool.errors import RecipeError, ShapeError
from gantool.models import losses
from gantool.models.base import GeneratorInput
from gantool.models.pix2pix import DropoutNoise, Pix2Pix, UNet
from gantool.models.shapes import trace
from gantool.training import engine
from gantool.training.trainer import Trainer
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

SPEC = ImageSpec(3, 16, 16, ("a", "b"))


def pix2pix(data=SPEC, loss="non_saturating", augment=None, r1=0.0, r2=0.0, **settings):
    torch.manual_seed(0)
    small = {"width": 2, "levels": 2, "norm": "instance", "discriminator_width": 2, "discriminator_layers": 1}
    return Pix2Pix(data, losses.find_loss(loss)(augment=augment, r1=r1, r2=r2), **{**small, **settings})


def images(count, seed=0, shape=SPEC.shape):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def translated(model, source, seeds):
    with torch.no_grad():
        return model.sample(GeneratorInput(source, torch.ones(len(source), dtype=torch.int64), torch.tensor(seeds)))


def trainer(model, **changes):
    return Trainer(model, engine.open_recipe("pix2pix", changes).train, torch.device("cpu"))


def test_the_published_unet_has_the_papers_layers():
    with torch.device("meta"):
        unet = UNet(3, width=64, levels=8, norm="batch", dropout=0.5)
    down = [layer for layer in unet.down.modules() if isinstance(layer, nn.Conv2d)]
    up = [layer for layer in unet.up.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in down] == [64, 128, 256, 512, 512, 512, 512, 512]
    assert [layer.out_channels for layer in up] == [512, 512, 512, 512, 256, 128, 64, 3]
    assert [layer.in_channels for layer in up] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    normalised = [any(isinstance(layer, nn.BatchNorm2d) for layer in level) for level in (*unet.down, *unet.up)]
    assert normalised == [False, *6 * [True], False, *7 * [True], False]
    assert [noise.share for noise in unet.noise] == [0.5, 0.5, 0.5]
    assert not list(unet.buffers())  # no running statistics: at test time they are the image's own


def test_the_way_up_of_a_level_also_sees_its_way_down():
    unet = UNet(1, width=2, levels=2, norm="instance", dropout=0.0).double()
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    first = unet.down[0](image)
    inner = unet.up[0](unet.down[1](first))
    torch.testing.assert_close(unet(image), unet.up[1](torch.cat([inner, first], dim=1)))


def test_weights_start_as_the_paper_says():
    model = pix2pix(width=32, norm="batch")
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layers, mean in ((convolutions, 0), (norms, 1)):
        drawn = torch.cat([layer.weight.detach().flatten() for layer in layers])
        assert float(drawn.mean()) == pytest.approx(mean, abs=4 * 0.02 / len(drawn) ** 0.5)
        assert float(drawn.std()) == pytest.approx(0.02, rel=0.3 if mean else 0.03)
        assert not any(layer.bias.detach().any() for layer in layers if layer.bias is not None)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"^discriminator\."):
        trace(lambda: pix2pix(discriminator_layers=3))
    with pytest.raises(RecipeError, match=r"^data.size: pix2pix halves an image 3 times, .* or model.levels=2$"):
        pix2pix(ImageSpec(3, 20, 20), levels=3)


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_unet_may_have_few_levels_and_its_innermost_may_be_one_pixel(levels, norm):
    model = pix2pix(levels=levels, norm=norm)
    logs = trainer(model).step(Paired(images(1), images(1, seed=1)))
    assert all(bool(value.isfinite()) for value in logs.values())
    assert all(weight.grad is not None for weight in model.generator.parameters())
    assert (len(model.generator.noise), model.stride) == (min(3, levels - 1), 2**levels)


def test_pix2pix_plays_the_papers_game():
    model = pix2pix(dropout=0.0, l1=7.0).double()
    source, target = images(3).double(), images(3, seed=1).double()
    game = model.play(Paired(source, target))
    first = next(game)
    assert first.player is model.discriminator
    fake = model.generator(source)
    real_logits = model.discriminator(torch.cat([source, target], dim=1))
    fake_logits = model.discriminator(torch.cat([source, fake], dim=1))
    assert first.losses.keys() == {"adversarial"}
    wanted = cross_entropy(real_logits, torch.ones_like(real_logits))
    wanted = wanted + cross_entropy(fake_logits, torch.zeros_like(fake_logits))
    torch.testing.assert_close(first.losses["adversarial"], wanted)
    torch.testing.assert_close(first.scores["real"], real_logits.sigmoid().mean().detach())

    with torch.no_grad():
        for weight in model.discriminator.parameters():
            weight.zero_()
    second = next(game)
    assert second.player is model.generator
    assert second.losses.keys() == {"adversarial", "l1"}
    assert float(second.losses["adversarial"].detach()) == pytest.approx(math.log(2))  # it meets the new one
    torch.testing.assert_close(second.losses["l1"], 7 * (target - fake).abs().mean())
    assert next(game, None) is None


def test_source_and_image_are_augmented_alike():
    model, seen = pix2pix(augment=["color", "translation", "cutout"]), []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    same = images(4)
    model.logits(same, same)
    first, second = seen[0].chunk(2, dim=1)
    torch.testing.assert_close(first, second)
    assert not torch.equal(first, same)


def test_penalties_and_relativistic_logits_are_of_pairs():
    model = pix2pix(loss="relativistic", r1=2.0, r2=1.0, dropout=0.0).double()
    source, target = images(2).double(), images(2, seed=1).double()
    game = model.play(Paired(source, target))
    first = next(game).losses
    assert first.keys() == {"adversarial", "r1", "r2"}
    target.requires_grad_()
    logits = model.discriminator(torch.cat([source, target], dim=1))
    (gradient,) = torch.autograd.grad(logits.sum(), target)
    torch.testing.assert_close(first["r1"].detach(), gradient.square().flatten(1).sum(1).mean())
    fake = model.discriminator(torch.cat([source, model.generator(source)], dim=1))
    torch.testing.assert_close(next(game).losses["adversarial"], nn.functional.softplus(logits - fake).mean())


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_seed_is_one_noise_whatever_is_beside_it(norm):
    model = pix2pix(norm=norm, levels=3)
    source = images(4)
    together = translated(model, source, [5, 6, 7, 8])
    assert torch.equal(translated(model, source[2:3], [7]), together[2:3])
    assert torch.equal(translated(model.eval(), source, [5, 6, 7, 8]), together)
    same = translated(model, source[:1].expand(3, -1, -1, -1), [1, 1, 2])
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
    double = translated(model.double(), source.double(), [5, 6, 7, 8])
    torch.testing.assert_close(double.float(), together, rtol=0, atol=1e-4)


def test_noise_drops_its_share_and_keeps_the_mean_also_at_test_time():
    noise = DropoutNoise(0.25).eval()
    ones = torch.ones(100, 1000)
    for seed in (None, torch.Generator().manual_seed(1)):
        kept = noise(ones, seed)
        assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
        assert float((kept == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(DropoutNoise(0.0)(ones, torch.Generator()), ones)
    torch.manual_seed(1)
    one, other = noise(ones), noise(ones)  # without a seed from torch's own random numbers
    torch.manual_seed(1)
    assert torch.equal(noise(ones), one)
    assert not torch.equal(one, other)
