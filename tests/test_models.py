"""The networks of the recipes: exact counts of parameters, their layers' settings, and Keras' arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small import spec
from torch import nn
from torch.nn.functional import conv2d, pad

from gantool import engine, losses, models
from gantool.batches import DataSpec, Labeled
from gantool.errors import RecipeError
from gantool.models.base import Turn
from gantool.models.dcgan_tf import DCGANTF
from gantool.recipe import shipped

FOODS = ("Bread", "Dairy", "Dessert", "Egg", "Fried", "Meat", "Noodles", "Rice", "Seafood", "Soup", "Vegetable")
COUNTS = {
    "gan28": (1_486_352, 1_460_225),
    "gan14": (38_212, 50_689),
    "dcgan14": (1_259_265, 19_521),
    "dcgan28": (2_308_609, 52_737),
    "dcgan_tf28": (2_305_472, 212_865),
    "cgan_egg": (6_495_716, 12_760_065),
    "cdcgan28": (822_693, 44_993),
    "cdcgan64": (195_861, 104_897),
    "wgan_gp28": (759_873, 36_513),
    "folder64": (152_515, 84_161),
    "pix2pix": (1_043_299, 43_633),
    "pix2pix_facades": (54_413_955, 2_768_705),  # as published
    "cyclegan": (397_318, 85_730),
    "cyclegan_horse2zebra": (2 * 11_378_179, 2 * 2_764_737),  # as published, for each direction
    "perceptron_and": (3,),
    "mlp_xor": (17,),
    "lstm_sentiment": (357,),
    "cnn_fashion16": (15_626,),
    "dnn_income": (10_306,),
}


def built(name, changes=None, classes=None):
    recipe = engine.open_recipe(name, changes)
    block = recipe.data
    classes = tuple(classes or block.classes or [str(digit) for digit in range(10)])
    return models.build(recipe, DataSpec(block.channels or 3, block.height, block.width, classes))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def kinds(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def test_every_shipped_recipe_has_its_counts_written_down():
    assert set(COUNTS) == set(shipped())


@pytest.mark.parametrize("name", COUNTS)
def test_every_player_has_exactly_the_known_number_of_parameters(name):
    recipe = engine.open_recipe(name)
    with torch.device("meta"):
        model = models.build(recipe, spec(recipe))
    assert tuple(filter(None, map(parameters, model.children()))) == COUNTS[name]


def test_a_conditional_gan_of_11_classes_has_exactly_the_known_number_of_parameters():
    with torch.device("meta"):
        model = built("cgan_egg", classes=FOODS)
    assert parameters(model.generator) == 6_496_716
    assert parameters(model.discriminator) == 12_882_945


@pytest.mark.parametrize(
    ("name", "lr", "betas", "batch", "epochs"),
    [
        ("gan28", 2e-4, (0.9, 0.999), 64, 10),
        ("gan14", 2e-4, (0.5, 0.999), 128, 30),
        ("dcgan14", 2e-4, (0.5, 0.999), 128, 30),
        ("dcgan28", 2e-4, (0.5, 0.999), 128, 30),
        ("dcgan_tf28", 1e-4, (0.9, 0.999), 256, 50),
        ("cgan_egg", 2e-4, (0.5, 0.999), 32, 500),
    ],
)
def test_every_recipe_trains_with_its_known_settings(name, lr, betas, batch, epochs):
    recipe = engine.open_recipe(name)
    for player in ("generator", "discriminator"):
        adam = recipe.train.optimizer_of(player)
        assert (adam.lr, adam.betas) == (lr, betas)
    assert (recipe.train.batch_size, recipe.train.epochs) == (batch, epochs)
    assert recipe.model["latent_dim"] == 100
    assert recipe.loss["name"] == "non_saturating"


@pytest.mark.parametrize(
    ("name", "slope", "dropout"),
    [
        ("gan28", 0.2, []),
        ("gan14", 0.2, [0.3]),
        ("dcgan14", 0.2, [0.25, 0.25]),
        ("dcgan28", 0.2, [0.25, 0.25]),
        ("dcgan_tf28", 0.3, [0.3, 0.3]),
        ("cgan_egg", 0.2, []),
    ],
)
def test_discriminators_slope_and_drop_as_known(name, slope, dropout):
    discriminator = built(name).discriminator
    assert {layer.negative_slope for layer in kinds(discriminator, nn.LeakyReLU)} == {slope}
    assert [layer.p for layer in kinds(discriminator, nn.Dropout)] == dropout
    assert not kinds(discriminator, nn.Sigmoid)  # raw scores: the loss holds the sigmoid


@pytest.mark.parametrize("name", ["dcgan14", "dcgan28"])
def test_a_dcgan_normalises_all_but_the_ends_and_in_the_known_order(name):
    model = built(name)
    grown = [type(layer).__name__ for layer in model.generator]
    middle = (grown.count("ConvTranspose2d") - 1) * ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert grown == ["Unflatten", *middle, "ConvTranspose2d", "Tanh"]
    assert [type(layer).__name__ for layer in model.discriminator] == [
        *("Conv2d", "LeakyReLU", "Dropout"),
        *("Conv2d", "BatchNorm2d", "LeakyReLU", "Dropout"),
        *("Conv2d", "Flatten"),
    ]


def test_the_small_gan_slopes_in_its_generator_too():
    assert [layer.negative_slope for layer in kinds(built("gan14").generator, nn.LeakyReLU)] == [0.2]
    assert len(kinds(built("gan28").generator, nn.ReLU)) == 3


# Keras


def test_keras_batch_norm_remembers_slowly_and_adds_a_thousandth():
    norms = kinds(built("dcgan_tf28"), (nn.BatchNorm1d, nn.BatchNorm2d))
    assert len(norms) == 3
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert {layer.negative_slope for layer in kinds(built("dcgan_tf28").generator, nn.LeakyReLU)} == {0.3}


def same(images, weight, bias, stride):
    """Keras' Conv2D with 'same' padding, a pixel at a time: [C, H, W] -> [O, H/s, W/s], in numpy."""
    kernel = weight.shape[-1]
    _, height, width = images.shape
    out = (math.ceil(height / stride), math.ceil(width / stride))
    total = [max((side - 1) * stride + kernel - size, 0) for side, size in zip(out, (height, width), strict=True)]
    before = [amount // 2 for amount in total]
    made = np.zeros((len(weight), *out))
    for channel, row, column in np.ndindex(*made.shape):
        value = bias[channel]
        for source, down, across in np.ndindex(*weight.shape[1:]):
            y, x = row * stride + down - before[0], column * stride + across - before[1]
            if 0 <= y < height and 0 <= x < width:
                value += images[source, y, x] * weight[channel, source, down, across]
        made[channel, row, column] = value
    return made


def test_a_discriminators_convolution_pads_as_keras_does():
    model = DCGANTF(DataSpec(1, 8, 8), losses.find("non_saturating")(), latent_dim=3).double()
    padding, convolution = model.discriminator[0], model.discriminator[1]
    nn.init.normal_(convolution.bias)
    image = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    made = convolution(padding(image))[0]
    wanted = same(
        image[0].numpy(), convolution.weight.detach().numpy()[:3], convolution.bias.detach().numpy()[:3], stride=2
    )
    np.testing.assert_allclose(made.detach().numpy()[:3], wanted, rtol=0, atol=1e-12)
    assert made.shape == (64, 4, 4)


@pytest.mark.parametrize(("stride", "first", "last"), [(1, 2, 2), (2, 1, 2)])
@pytest.mark.parametrize("size", [4, 7])
def test_a_transposed_convolution_is_the_transpose_of_keras_convolution(stride, first, last, size):
    # Keras' Conv2DTranspose is by definition the gradient of its Conv2D with the same padding.
    model = DCGANTF(DataSpec(1, 4 * size, 4 * size), losses.find("non_saturating")(), latent_dim=3)
    layers = list(model.generator.double())
    start = 4 if stride == 1 else 7
    transposed = layers[start]
    assert isinstance(transposed, nn.ConvTranspose2d)
    assert transposed.stride == (stride, stride)
    assert transposed.bias is None
    after = layers[start + 1]
    small = torch.randn(2, transposed.in_channels, size, size, dtype=torch.float64)
    made = transposed(small)
    made = after(made) if isinstance(after, nn.ZeroPad2d) else made

    large = torch.randn(2, transposed.out_channels, stride * size, stride * size, dtype=torch.float64)
    large.requires_grad_()
    forward = conv2d(pad(large, (first, last, first, last)), transposed.weight, stride=stride)
    assert forward.shape == small.shape
    (wanted,) = torch.autograd.grad((forward * small).sum(), large)
    torch.testing.assert_close(made, wanted, rtol=1e-12, atol=1e-12)


def test_keras_start_is_glorot_uniform_with_zero_biases():
    torch.manual_seed(0)
    model = built("dcgan_tf28")
    fans = {  # numbers into and out of one output
        "generator.0": (100, 12544),
        "generator.4": (256 * 25, 128 * 25),
        "generator.7": (128 * 25, 64 * 25),
        "generator.11": (64 * 25, 25),
        "discriminator.1": (25, 64 * 25),
        "discriminator.5": (64 * 25, 128 * 25),
        "discriminator.9": (6272, 1),
    }
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "weight") and name in fans}
    assert set(layers) == set(fans)
    for name, layer in layers.items():
        bound = math.sqrt(6 / sum(fans[name]))
        largest = float(layer.weight.detach().abs().max())
        assert 0.98 * bound < largest <= bound, name
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert layer.bias is None or not bool(layer.bias.detach().any())


@pytest.mark.parametrize(("size", "near"), [(30, 32), (13, 12), (1, 4), (2, 4), (14, 16)])
def test_sizes_that_cannot_be_halved_twice_are_refused_with_one_that_can(size, near):
    with pytest.raises(RecipeError, match=rf"{size}x{size} does not allow; try {near}$"):
        built("dcgan_tf28", {"data.size": size})


def test_any_multiple_of_four_will_do_also_with_other_sides_and_colours():
    model = built("dcgan_tf28", {"data.size": [8, 12], "data.channels": 3})
    assert model.sample(model.prompt([0, 1])).shape == (2, 3, 8, 12)


# Games


def test_the_discriminator_moves_first_and_the_generator_meets_the_new_one():
    torch.manual_seed(0)
    model = built("gan14", {"model.dropout": 0.0})
    batch = Labeled(torch.rand(4, 1, 14, 14) * 2 - 1, torch.zeros(4, dtype=torch.int64))
    game = model.play(batch)
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


def test_keras_game_moves_both_at_once_from_one_pass():
    model = built("dcgan_tf28", {"data.size": 8})
    batch = Labeled(torch.rand(4, 1, 8, 8) * 2 - 1, torch.zeros(4, dtype=torch.int64))
    passes = []
    model.discriminator.register_forward_hook(lambda *_: passes.append("discriminator"))
    model.generator.register_forward_hook(lambda *_: passes.append("generator"))
    (turns,) = model.play(batch)
    assert isinstance(turns, tuple)
    assert [turn.player for turn in turns] == [model.discriminator, model.generator]
    assert all(isinstance(turn, Turn) for turn in turns)
    assert passes == ["generator", "discriminator"]


def test_batch_norm_never_mixes_real_and_fake_images():
    model = built("dcgan14", {"model.dropout": 0.0}).double()
    real, fake = (torch.rand(6, 1, 14, 14, dtype=torch.float64) * 2 - 1 for _ in range(2))
    assert kinds(model.discriminator, nn.BatchNorm2d)
    real_scores, fake_scores = model.score_both(real, fake)
    torch.testing.assert_close(real_scores, model.discriminator(real))
    torch.testing.assert_close(fake_scores, model.discriminator(fake))
    mixed = model.discriminator(torch.cat([real, fake]))
    assert not torch.allclose(real_scores, mixed[:6])


def test_the_fake_labels_of_a_conditional_gan_are_of_the_classes_that_it_knows():
    model = built("cgan_egg", {"data.size": 4, "data.classes": ["Egg", "Rice", "Soup"]})
    seen = []
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    labels = torch.full((64,), 1)
    for _ in range(3):
        for _ in model.play(Labeled(torch.zeros(64, 3, 4, 4), labels)):
            pass
    assert set(torch.cat(seen).tolist()) == {0, 1, 2}


def test_a_conditional_discriminator_judges_an_image_by_its_class():
    torch.manual_seed(1)
    model = built("cgan_egg", {"data.size": 4, "data.classes": ["Egg", "Rice"]})
    image = torch.zeros(1, 3, 4, 4)
    egg, rice = (model.discriminator(image, torch.tensor([label])) for label in (0, 1))
    assert not torch.equal(egg, rice)


def test_a_model_file_that_is_not_there_names_the_nearest():
    with pytest.raises(RecipeError, match=r"^unknown model 'dcgan_ft'; did you mean 'dcgan_tf'\?$"):
        models.find("dcgan_ft")


def test_what_models_are_made_of_is_no_model():
    assert set(models.names()) >= {"cgan", "dcgan", "dcgan_tf", "mlp"}
    assert "base" not in models.names()


def test_the_generator_of_dcgan_starts_as_the_paper_says():
    torch.manual_seed(0)
    model = models.build(engine.open_recipe("dcgan28"), DataSpec(1, 28, 28, ("0",)))
    for module in model.generator.modules():
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert abs(module.weight.mean().item()) < 0.02 * 4 / module.weight.numel() ** 0.5
