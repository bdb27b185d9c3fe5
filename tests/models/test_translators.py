"""pix2pix and CycleGAN: the published networks and games, noise by seed, and the history of fakes."""

from __future__ import annotations

import io
import math
from copy import deepcopy

import pytest
import torch
from gantool import devices
from gantool.batches import ImageSpec, Paired, Unpaired
from gantool.errors import RecipeError, ShapeError
from gantool.models import losses
from gantool.models.base import GeneratorInput
from gantool.models.blocks import PatchGAN
from gantool.models.cyclegan import CycleGAN, History, Residual, ResNet
from gantool.models.pix2pix import DropoutNoise, Pix2Pix, UNet
from gantool.models.shapes import _layer, trace
from gantool.training import engine
from gantool.training.trainer import Trainer
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

CPU = torch.device("cpu")
NON_SATURATING = losses.find_loss("non_saturating")()
LEAST_SQUARES = losses.find_loss("least_squares")()


def spec(size=16, width=None, channels=3):
    return ImageSpec(channels, size, width or size, ("a", "b"))


def pix2pix(data=None, loss=NON_SATURATING, **settings):
    torch.manual_seed(0)
    small = {"width": 2, "levels": 2, "norm": "instance", "discriminator_width": 2, "discriminator_layers": 1}
    return Pix2Pix(data or spec(), loss, **{**small, **settings})


def cyclegan(data=None, loss=LEAST_SQUARES, **settings):
    torch.manual_seed(0)
    small = {"width": 2, "blocks": 1, "history": 3, "discriminator_width": 2, "discriminator_layers": 1}
    return CycleGAN(data or spec(), loss, **{**small, **settings})


def pictures(count, data=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *(data or spec()).shape, generator=generator) * 2 - 1


def prompt(source, seeds, labels=None):
    return GeneratorInput(source, torch.tensor(labels or [1] * len(source)), torch.tensor(seeds))


def parameters(module):
    return sum(weight.numel() for weight in module.parameters())


def settings(name="pix2pix", changes=None):
    return engine.open_recipe(name, changes or {}).train


# Networks as published


def test_pix2pix_as_published_has_exactly_the_known_number_of_parameters():
    with torch.device("meta"):
        model = Pix2Pix(spec(256), NON_SATURATING)
    assert parameters(model.generator) == 54_413_955
    assert parameters(model.discriminator) == 2_768_705


def test_cyclegan_as_published_has_exactly_the_known_number_of_parameters():
    with torch.device("meta"):
        model = CycleGAN(spec(256), LEAST_SQUARES)
    assert [parameters(way) for way in model.generator.values()] == [11_378_179] * 2
    assert [parameters(patches) for patches in model.discriminator.values()] == [2_764_737] * 2


@pytest.mark.parametrize(("size", "blocks"), [(64, 6), (128, 6), (256, 9), (320, 9)])
def test_cyclegan_has_as_many_residual_blocks_as_the_paper_for_the_size(size, blocks):
    with torch.device("meta"):
        model = CycleGAN(spec(size), LEAST_SQUARES, width=1)
    assert all(sum(isinstance(layer, Residual) for layer in way) == blocks for way in model.generator.values())


@pytest.mark.parametrize(("name", "built"), [("pix2pix_facades", Pix2Pix), ("cyclegan_horse2zebra", CycleGAN)])
def test_the_published_recipes_have_the_published_settings(name, built):
    recipe = engine.open_recipe(name)
    assert recipe.model.target is built
    block, train = recipe.data, recipe.train
    assert (block.size, block.channels, block.flip, block.jitter) == (256, 3, True, 30)
    assert (train.batch_size, train.epochs, train.decay_after) == (1, 200, 100)
    assert (train.optimizer.name, train.optimizer.lr, train.optimizer.betas) == ("adam", 2e-4, (0.5, 0.999))
    wanted = {
        "pix2pix_facades": {"width": 64, "levels": 8, "norm": "batch", "dropout": 0.5, "l1": 100.0},
        "cyclegan_horse2zebra": {"width": 64, "blocks": 9, "cycle": 10.0, "identity": 0.5, "history": 50},
    }[name]
    wanted |= {"discriminator_width": 64, "discriminator_layers": 3}
    assert {key: getattr(recipe.model, key) for key in wanted} == wanted
    assert recipe.loss.name == {"pix2pix": "non_saturating", "cyclegan": "least_squares"}[recipe.model.name]
    assert block.classes == {"pix2pix": ["B", "A"], "cyclegan": ["A", "B"]}[recipe.model.name]


@pytest.mark.parametrize(("layers", "seen"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_patch_is_as_large_as_it_says(layers, seen):
    patches = PatchGAN(1, width=1, layers=layers, norm="batch").double()
    for index, layer in enumerate(patches):
        if isinstance(layer, nn.BatchNorm2d):  # which would see the whole image
            patches[index] = nn.Identity()
    picture = torch.rand(1, 1, 192, 192, dtype=torch.float64, requires_grad=True)
    scores = patches(picture)
    middle = scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle, picture)
    rows = gradient[0, 0].abs().sum(1).nonzero()
    columns = gradient[0, 0].abs().sum(0).nonzero()
    assert [int(found.max() - found.min()) + 1 for found in (rows, columns)] == [seen, seen]


def test_the_published_patchgan_gives_one_score_a_patch():
    with torch.device("meta"):
        scores = PatchGAN(6, width=64, layers=3, norm="batch")(torch.zeros(2, 6, 256, 256))
    assert scores.shape == (2, 1, 30, 30)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_patchgan_normalises_all_but_its_ends(norm):
    patches = PatchGAN(3, width=4, layers=3, norm=norm)
    middle = ["Conv2d", {"batch": "BatchNorm2d", "instance": "InstanceNorm2d"}[norm], "LeakyReLU"]
    assert [type(layer).__name__ for layer in patches] == ["Conv2d", "LeakyReLU", *3 * middle, "Conv2d"]
    convolutions = [layer for layer in patches if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [4, 8, 16, 32, 1]
    assert [layer.stride[0] for layer in convolutions] == [2, 2, 2, 1, 1]
    assert {(layer.kernel_size, layer.padding) for layer in convolutions} == {((4, 4), (1, 1))}
    inner = norm == "instance"  # BatchNorm brings a bias of its own
    assert [layer.bias is not None for layer in convolutions] == [True, inner, inner, inner, True]
    assert {layer.negative_slope for layer in patches if isinstance(layer, nn.LeakyReLU)} == {0.2}


def test_the_published_unet_has_the_papers_layers():
    with torch.device("meta"):
        unet = UNet(3, width=64, levels=8, norm="batch", dropout=0.5)
    down = [layer for layer in unet.down.modules() if isinstance(layer, nn.Conv2d)]
    up = [layer for layer in unet.up.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in down] == [64, 128, 256, 512, 512, 512, 512, 512]
    assert [layer.out_channels for layer in up] == [512, 512, 512, 512, 256, 128, 64, 3]
    assert [layer.in_channels for layer in up] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    normalised = [any(isinstance(layer, nn.BatchNorm2d) for layer in level) for level in unet.down]
    assert normalised == [False, *6 * [True], False]
    assert [any(isinstance(layer, nn.BatchNorm2d) for layer in level) for level in unet.up] == [*7 * [True], False]
    assert [noise.share for noise in unet.noise] == [0.5, 0.5, 0.5]
    assert not list(unet.buffers())  # nothing is remembered: at test time the statistics are the image's own


def test_what_a_level_saw_skips_over_to_its_way_up():
    torch.manual_seed(0)
    unet = UNet(1, width=2, levels=2, norm="instance", dropout=0.0).double()
    picture = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    first = unet.down[0](picture)
    inner = unet.up[0](unet.down[1](first))
    torch.testing.assert_close(unet(picture), unet.up[1](torch.cat([inner, first], dim=1)))


def test_a_resnet_is_the_papers():
    way = ResNet(3, width=4, blocks=2)
    grown = "ReflectionPad2d Conv2d InstanceNorm2d ReLU " + 2 * "Conv2d InstanceNorm2d ReLU " + 2 * "Residual "
    grown += 2 * "ConvTranspose2d InstanceNorm2d ReLU " + "ReflectionPad2d Conv2d Tanh"
    assert [type(layer).__name__ for layer in way] == grown.split()
    outer = [layer for layer in way if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in outer] == [
        *((4, 7, 1), (8, 3, 2), (16, 3, 2)),
        *((8, 3, 2), (4, 3, 2), (3, 7, 1)),
    ]
    assert not any(isinstance(layer, nn.InstanceNorm2d) and layer.affine for layer in way.modules())
    block = Residual(2)
    picture = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(block(picture), picture + block.layers(picture))


@pytest.mark.parametrize("make", [lambda: pix2pix(width=32, norm="batch"), lambda: cyclegan(width=16)])
def test_weights_start_as_the_papers_say(make):
    model = make()
    drawn, scales = [], []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            drawn.append(layer.weight.detach().flatten())
            assert layer.bias is None or not layer.bias.detach().any()
        elif isinstance(layer, nn.BatchNorm2d):
            scales.append(layer.weight.detach())
            assert not layer.bias.detach().any()
    drawn = torch.cat(drawn)
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.03)
    assert abs(float(drawn.mean())) < 4 * 0.02 / len(drawn) ** 0.5
    if isinstance(model, Pix2Pix):
        scales = torch.cat(scales)
        assert float(scales.mean()) == pytest.approx(1, abs=0.02)
        assert 0.01 < float(scales.std()) < 0.03


def test_padding_by_reflection_shows_its_arithmetic():
    pad = _layer("generator.a_to_b.0", nn.ReflectionPad2d(3), (3, 64, 32), (3, 70, 38))
    assert pad.formula == "height 64 +3 +3 = 70, width 32 +3 +3 = 38"


@pytest.mark.parametrize("make", [pix2pix, cyclegan])
def test_every_layer_of_both_players_is_traced(make):
    layers = trace(make)
    found = {f"{layer.network}.{layer.layer}" for layer in layers}
    model = make()
    for player in ("generator", "discriminator"):
        for name, layer in model.get_submodule(player).named_modules(prefix=player):
            assert list(layer.children()) or name in found
    assert next(layer for layer in layers if layer.kind == "Conv2d").network == "generator"


# Sizes


@pytest.mark.parametrize("make", [pix2pix, cyclegan])
def test_images_with_too_few_pixels_for_the_patches_are_refused(make):
    with pytest.raises(ShapeError, match=r"^discriminator\."):
        trace(lambda: make(discriminator_layers=3))


@pytest.mark.parametrize(
    ("sides", "levels", "advice"),
    [
        ((100, 100), 8, "halves an image 8 times, which 100x100 does not allow; try 256, or model.levels=2"),
        ((250, 250), 3, "which 250x250 does not allow; try 248, or model.levels=1"),
        ((64, 96), 6, r"which 64x96 does not allow; try \[64, 128\], or model.levels=5"),
        ((33, 33), 5, "which 33x33 does not allow; try 32$"),
    ],
)
def test_sizes_that_a_unet_cannot_halve_are_refused_with_ones_that_it_can(sides, levels, advice):
    with pytest.raises(RecipeError, match=rf"^data.size: pix2pix .*{advice}"):
        pix2pix(ImageSpec(3, *sides), levels=levels)


@pytest.mark.parametrize(("sides", "advice"), [((30, 30), "try 32"), ((2, 2), "try 8"), ((30, 65), r"try \[32, 64\]")])
def test_sizes_that_cannot_be_halved_twice_are_refused_with_one_that_can(sides, advice):
    with pytest.raises(RecipeError, match=rf"^data.size: cyclegan .*does not allow; {advice}$"):
        cyclegan(ImageSpec(3, *sides))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [pix2pix, cyclegan])
def test_images_need_not_be_square_nor_in_colour(make, channels):
    data = spec(16, 24, channels)
    model = make(data)
    batch = model.consumes(pictures(2, data), pictures(2, data, seed=1))
    trainer = Trainer(model, settings(), CPU)
    assert all(bool(value.isfinite()) for value in trainer.step(batch).values())
    larger = pictures(2, spec(32, 16, channels))  # a generator has no size of its own
    made = model.sample(prompt(larger, [0, 1], [0, 1]))
    assert made.shape == larger.shape
    assert bool((made.abs() <= 1).all())


def test_what_sides_must_be_multiples_of():
    assert pix2pix().stride == 4
    assert pix2pix(levels=3).stride == 8
    assert cyclegan().stride == 4


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_unet_may_have_few_levels_and_its_innermost_may_be_one_pixel(levels, norm):
    model = pix2pix(levels=levels, norm=norm)
    trainer = Trainer(model, settings(), CPU)
    told = trainer.step(Paired(pictures(1), pictures(1, seed=1)))
    assert all(bool(value.isfinite()) for value in told.values())
    assert all(weight.grad is not None for weight in model.generator.parameters())
    assert len(model.generator.noise) == min(3, levels - 1)


# The game of pix2pix


def test_pix2pix_plays_the_papers_game():
    model = pix2pix(dropout=0.0, l1=7.0).double()
    source, target = pictures(3).double(), pictures(3, seed=1).double()
    game = model.play(Paired(source, target))
    first = next(game)
    assert first.player is model.discriminator
    fake = model.generator(source)
    real_scores = model.discriminator(torch.cat([source, target], dim=1))
    fake_scores = model.discriminator(torch.cat([source, fake], dim=1))
    assert first.losses.keys() == {"adversarial"}
    torch.testing.assert_close(
        first.losses["adversarial"],
        cross_entropy(real_scores, torch.ones_like(real_scores))
        + cross_entropy(fake_scores, torch.zeros_like(fake_scores)),
    )
    torch.testing.assert_close(first.scores["real"], real_scores.sigmoid().mean().detach())
    reached = torch.autograd.grad(
        first.losses["adversarial"], list(model.generator.parameters()), allow_unused=True, retain_graph=True
    )
    assert all(gradient is None for gradient in reached)

    with torch.no_grad():
        for weight in model.discriminator.parameters():
            weight.zero_()
    second = next(game)
    assert second.player is model.generator
    assert second.losses.keys() == {"adversarial", "l1"}
    assert float(second.losses["adversarial"].detach()) == pytest.approx(math.log(2))  # it meets the new one
    torch.testing.assert_close(second.losses["l1"], 7 * (target - fake).abs().mean())
    assert next(game, None) is None


def test_source_and_image_are_augmented_as_one():
    model = pix2pix(loss=losses.find_loss("non_saturating")(augment=["color", "translation", "cutout"]))
    seen = []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    same = pictures(4)
    torch.manual_seed(3)
    model.logits(same, same)
    first, second = seen[0].chunk(2, dim=1)
    torch.testing.assert_close(first, second)
    assert not torch.equal(first, same)


def test_penalties_and_relativistic_scores_are_of_pairs():
    loss = losses.find_loss("relativistic")(r1=2.0, r2=1.0)
    model = pix2pix(loss=loss, dropout=0.0).double()
    source, target = pictures(2).double(), pictures(2, seed=1).double()
    game = model.play(Paired(source, target))
    told = next(game).losses
    assert told.keys() == {"adversarial", "r1", "r2"}
    target.requires_grad_()
    scores = model.discriminator(torch.cat([source, target], dim=1))
    (gradient,) = torch.autograd.grad(scores.sum(), target)
    torch.testing.assert_close(told["r1"].detach(), gradient.square().flatten(1).sum(1).mean())
    fake = model.generator(source)
    wanted = nn.functional.softplus(scores - model.discriminator(torch.cat([source, fake], dim=1))).mean()
    torch.testing.assert_close(next(game).losses["adversarial"], wanted)


def test_a_few_steps_bring_the_images_nearer_to_their_targets():
    model = pix2pix(width=8, levels=3, dropout=0.1)
    source = pictures(4)
    batch = Paired(source, -0.5 * source.flip(1))
    trainer = Trainer(model, settings(changes={"train.optimizer.lr": 2e-3}), CPU)
    with devices.rng_scope(CPU, trainer.randomness):
        distances = [float(trainer.step(batch)["generator/l1"]) for _ in range(60)]
    assert sum(distances[-5:]) < 0.6 * sum(distances[:5])


# Noise


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_seed_is_one_noise_whatever_is_beside_it(norm):
    model = pix2pix(norm=norm, levels=3)
    source = pictures(4)
    with torch.no_grad():
        together = model.sample(prompt(source, [5, 6, 7, 8]))
        before = torch.get_rng_state()
        assert torch.equal(model.sample(prompt(source[2:3], [7])), together[2:3])
        assert torch.equal(model.eval().sample(prompt(source, [5, 6, 7, 8])), together)
        assert torch.equal(before, torch.get_rng_state())
        same = model.sample(prompt(source[:1].expand(3, -1, -1, -1), [1, 1, 2]))
        assert torch.equal(same[0], same[1])
        assert not torch.equal(same[0], same[2])
        double = model.double().sample(prompt(source.double(), [5, 6, 7, 8]))
        torch.testing.assert_close(double.float(), together, rtol=0, atol=1e-4)


def test_noise_drops_its_share_and_keeps_the_mean_also_at_test_time():
    noise = DropoutNoise(0.25).eval()
    ones = torch.ones(100, 1000)
    for seed in (None, torch.Generator().manual_seed(1)):
        kept = noise(ones, seed)
        assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
        assert float((kept == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(DropoutNoise(0.0)(ones, torch.Generator()), ones)
    assert repr(noise) == "DropoutNoise(share=0.25)"


def test_training_draws_new_noise_in_each_step_from_torchs_own_numbers():
    model = pix2pix(levels=3)
    source = pictures(1)
    torch.manual_seed(1)
    one, other = model.generator(source), model.generator(source)
    torch.manual_seed(1)
    assert torch.equal(model.generator(source), one)
    assert not torch.equal(one, other)


# The game of CycleGAN


def test_cyclegan_plays_the_papers_game():
    model = cyclegan(adversarial=2.0, cycle=7.0, identity=0.5, history=0).double()
    a, b = pictures(2).double(), pictures(2, seed=1).double()
    to_a, to_b = model.generator["b_to_a"], model.generator["a_to_b"]
    fake_a, fake_b = to_a(b), to_b(a)
    game = model.play(Unpaired(a, b))
    first = next(game)
    assert first.player is model.generator
    assert not first.scores
    wanted = {
        "adversarial_a": (model.discriminator["a"](fake_a) - 1).square().mean(),
        "adversarial_b": (model.discriminator["b"](fake_b) - 1).square().mean(),
        "cycle_a": 7 * (to_a(fake_b) - a).abs().mean(),
        "cycle_b": 7 * (to_b(fake_a) - b).abs().mean(),
        "identity_a": 3.5 * (to_a(a) - a).abs().mean(),
        "identity_b": 3.5 * (to_b(b) - b).abs().mean(),
    }
    assert first.losses.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(first.losses[name], value, msg=name)

    with torch.no_grad():
        for weight in model.generator.parameters():
            weight.zero_()
    second = next(game)
    assert second.player is model.discriminator
    assert second.losses.keys() == {"adversarial_a", "adversarial_b"}
    for kind, real, fake in (("a", a, fake_a), ("b", b, fake_b)):  # the fakes of before the generators' move
        real_scores, fake_scores = model.discriminator[kind](real), model.discriminator[kind](fake)
        torch.testing.assert_close(
            second.losses[f"adversarial_{kind}"],
            0.5 * (real_scores - 1).square().mean() + 0.5 * fake_scores.square().mean(),
        )
    scores = [model.discriminator[kind](real).mean().detach() for kind, real in (("a", a), ("b", b))]
    torch.testing.assert_close(second.scores["real"], sum(scores) / 2)
    reached = torch.autograd.grad(sum(second.losses.values()), list(model.generator.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in reached)
    assert next(game, None) is None


def test_without_identity_nothing_is_computed_for_it():
    passes = []
    for identity in (0.5, 0.0):
        model = cyclegan(identity=identity)
        passes.append(0)
        for way in model.generator.values():
            way.register_forward_hook(lambda *_: passes.__setitem__(-1, passes[-1] + 1))
        first = next(model.play(Unpaired(pictures(1), pictures(1, seed=1))))
    assert passes == [6, 4]
    assert first.losses.keys() == {"adversarial_a", "adversarial_b", "cycle_a", "cycle_b"}


def test_penalties_are_of_both_discriminators():
    model = cyclegan(loss=losses.find_loss("relativistic")(gradient_penalty=1.0, r1=1.0, r2=1.0))
    trainer = Trainer(model, settings("cyclegan"), CPU)
    told = trainer.step(Unpaired(pictures(2), pictures(2, seed=1)))
    for kind in "ab":
        assert {f"discriminator/{name}_{kind}" for name in ("adversarial", "gradient_penalty", "r1", "r2")} <= set(told)
    assert all(bool(value.isfinite()) for value in told.values())


class Painter(nn.Module):
    """Makes every image one colour."""

    def __init__(self, colour):
        super().__init__()
        self.colour = colour

    def forward(self, images):
        return torch.full_like(images, self.colour)


def test_a_label_says_which_kind_is_made():
    model = cyclegan()
    assert model.conditional
    source = pictures(5)
    with torch.no_grad():
        made = model.sample(prompt(source, range(5), [1, 0, 0, 1, 1]))
        for row, label in enumerate([1, 0, 0, 1, 1]):
            way = model.generator["a_to_b" if label else "b_to_a"]
            torch.testing.assert_close(made[row], way(source[row : row + 1])[0], rtol=0, atol=1e-5)
    model.generator = nn.ModuleDict({"a_to_b": Painter(1.0), "b_to_a": Painter(-1.0)})
    assert model.sample(prompt(source, range(5), [1, 0, 0, 1, 1])).mean((1, 2, 3)).tolist() == [1, -1, -1, 1, 1]
    assert model.sample(prompt(source, range(5), [0] * 5)).mean((1, 2, 3)).tolist() == [-1] * 5


# History


def numbered(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def test_a_history_keeps_what_it_is_given_until_it_is_full():
    history = History(4, (1, 2, 2))
    for batch in (numbered(1, 2), numbered(3, 4)):
        assert torch.equal(history(batch), batch)
    assert torch.equal(history.images, numbered(1, 2, 3, 4))
    assert int(history.filled) == 4


def test_a_full_history_exchanges_one_image_in_two():
    torch.manual_seed(0)
    history = History(10, (1, 2, 2))
    history(numbered(*range(10)))
    given, shown = list(range(10, 4010)), []
    for start in range(0, 4000, 8):
        shown += history(numbered(*given[start : start + 8]))[:, 0, 0, 0].tolist()
    new = [one == other for one, other in zip(given, shown, strict=True)]
    assert sum(new) / len(new) == pytest.approx(0.5, abs=0.03)
    # Nothing is lost and nothing is doubled: what was not shown at once came later, or is still there.
    kept = history.images[:, 0, 0, 0].tolist()
    assert sorted(shown + kept) == list(range(4010))
    waited = [number - one for number, one in zip(given, shown, strict=True) if number != one]
    assert sum(waited) / len(waited) == pytest.approx(2 * 10, rel=0.15)  # a place is emptied once in 20 images
    assert int(history.filled) == 10


def test_a_history_may_be_filled_in_the_middle_of_a_batch_or_be_none():
    torch.manual_seed(0)
    history = History(3, (1, 2, 2))
    shown = history(numbered(1, 2, 3, 4, 5))
    assert shown[:3, 0, 0, 0].tolist() == [1, 2, 3]
    everything = torch.cat([shown, history.images])[:, 0, 0, 0].tolist()
    assert sorted(everything) == [1, 1, 2, 2, 3, 3, 4, 5]  # the first three were shown and kept
    none = History(0, (1, 2, 2))
    assert torch.equal(none(numbered(1, 2)), numbered(1, 2))


def test_what_a_history_shows_is_not_changed_later():
    history = History(2, (1, 2, 2))
    shown = [history(numbered(number)) for number in range(50)]
    kept = deepcopy(shown)
    for number in range(50, 100):
        history(numbered(number))
    assert all(torch.equal(one, other) for one, other in zip(shown, kept, strict=True))


def test_a_history_is_no_weight_of_the_model_but_part_of_the_exact_state():
    batches = [Unpaired(pictures(2, seed=seed), pictures(2, seed=seed + 50)) for seed in range(8)]
    straight = Trainer(cyclegan(), settings("cyclegan"), CPU)
    assert not any(name.startswith("history") for name in straight.model.state_dict())
    with devices.rng_scope(CPU, straight.randomness):
        for batch in batches[:4]:
            straight.step(batch)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    fresh = Trainer(cyclegan(), settings("cyclegan"), CPU)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh.model.history["a"].images, straight.model.history["a"].images)
    assert int(fresh.model.history["b"].filled) == 3
    for trainer in (straight, fresh):
        with devices.rng_scope(CPU, trainer.randomness):
            for batch in batches[4:]:
                trainer.step(batch)
    ends = [
        {**trainer.model.state_dict(), **dict(trainer.model.history.named_buffers())} for trainer in (straight, fresh)
    ]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("make", [pix2pix, cyclegan])
def test_a_whole_step_asks_for_no_number(make):
    with torch.device("meta"):  # where a number that anybody asked for would be an error
        model = make()
        batch = model.consumes(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16))
        for turn in model.play(batch):
            total = torch.stack(list(turn.losses.values())).sum()
            torch.autograd.backward(total, inputs=list(turn.player.parameters()))


def test_the_running_mean_of_two_generators_makes_the_images():
    trainer = Trainer(cyclegan(), settings("cyclegan", {"train.ema": 0.9}), CPU)
    for seed in range(3):
        trainer.step(Unpaired(pictures(2, seed=seed), pictures(2, seed=seed + 50)))
    source = prompt(pictures(2), [0, 1], [0, 1])
    with torch.no_grad():
        own = trainer.model.sample(source)
        with trainer.ema_weights():
            assert not torch.equal(trainer.model.sample(source), own)
        assert torch.equal(trainer.model.sample(source), own)
