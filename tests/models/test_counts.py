"""The networks of the recipes: exact counts of parameters, their layers' settings, and Keras' arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gantool import models
from gantool.batches import ImageSpec, Labeled
from gantool.errors import RecipeError
from gantool.models import losses, shapes
from gantool.models.base import Turn
from gantool.models.dcgan_tf import DCGANTF
from gantool.recipe.load import shipped
from gantool.training import engine
from torch import nn
from torch.nn.functional import conv2d, pad

from small import spec

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
    return models.build(recipe, ImageSpec(block.channels or 3, block.height, block.width, classes))


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
    assert recipe.model.latent_dim == 100
    assert recipe.loss.name == "non_saturating"


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
    grown = [shapes._kind(layer) for layer in model.generator]
    middle = (grown.count("ConvTranspose2d") - 1) * ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert grown == ["Unflatten", *middle, "ConvTranspose2d", "Tanh"]
    assert [shapes._kind(layer) for layer in model.discriminator] == [
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


def keras_network(sides=(8, 8), channels=1):
    torch.manual_seed(3)
    return DCGANTF(ImageSpec(channels, *sides), losses.find_loss("non_saturating")(), latent_dim=3).double()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_discriminators_convolution_pads_as_keras_does(channels):
    layers = keras_network(channels=channels).discriminator
    convolution = layers.get_submodule("1")
    nn.init.normal_(convolution.bias)
    image = torch.randn(1, channels, 8, 8, dtype=torch.float64)
    made = layers.back(convolution(layers.turn(image)))[0]
    wanted = same(
        image[0].numpy(), convolution.weight.detach().numpy()[:3], convolution.bias.detach().numpy()[:3], stride=2
    )
    np.testing.assert_allclose(made.detach().numpy()[:3], wanted, rtol=0, atol=1e-12)
    assert made.shape == (64, 4, 4)


def grown_as_keras(images, weight, stride):
    """Keras' Conv2DTranspose with 'same' padding: the gradient of its Conv2D with the same padding, by definition."""
    count, _, height, width = images.shape
    first, last = (2, 2) if stride == 1 else (1, 2)
    large = torch.zeros(count, weight.shape[1], stride * height, stride * width, dtype=images.dtype, requires_grad=True)
    forward = conv2d(pad(large, (first, last, first, last)), weight, stride=stride)
    assert forward.shape == images.shape
    (gradient,) = torch.autograd.grad((forward * images).sum(), large, create_graph=True)
    return gradient


@pytest.mark.parametrize(("layer", "stride"), [("4", 1), ("7", 2), ("11", 2)])
@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (4, 4), (7, 7), (8, 5), (16, 17)])
def test_a_transposed_convolution_is_the_transpose_of_keras_convolution(layer, stride, sides):
    transposed = keras_network().generator.get_submodule(layer)
    assert isinstance(transposed, nn.ConvTranspose2d)
    assert transposed.stride == (stride, stride)
    assert transposed.bias is None
    small = torch.randn(2, transposed.in_channels, *sides, dtype=torch.float64, requires_grad=True)
    made = transposed(small) if stride == 1 else transposed(small.flip(2, 3)).flip(2, 3)
    wanted = grown_as_keras(small, transposed.weight, stride)
    torch.testing.assert_close(made, wanted, rtol=1e-12, atol=1e-12)
    push = torch.randn_like(made)
    mine, theirs = (torch.autograd.grad((way * push).sum(), (small, transposed.weight)) for way in (made, wanted))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_single_precision_rounds_as_torchs_own_convolution_does():
    transposed = keras_network().generator.get_submodule("4")
    images = torch.randn(8, 256, 7, 7, dtype=torch.float64)
    exact = grown_as_keras(images, transposed.weight, 1)
    transposed.float()
    mine = (transposed(images.float()) - exact).abs().max()
    torchs = (nn.functional.conv_transpose2d(images.float(), transposed.weight, None, 1, 2) - exact).abs().max()
    assert mine < 3 * torchs


@pytest.mark.parametrize("sides", [(8, 8), (12, 20)])
def test_the_whole_networks_are_keras_layer_after_layer(sides):
    model = keras_network(sides, channels=3).eval()
    generator, discriminator = model.generator, model.discriminator
    for norm in kinds(model, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    weights = dict(model.named_parameters())
    latents = torch.randn(2, 3, dtype=torch.float64)

    def normed(images, layer):
        return nn.functional.leaky_relu(generator.get_submodule(layer)(images), 0.3)

    images = normed(latents @ weights["generator.0.weight"].t(), "1").view(2, 256, sides[0] // 4, sides[1] // 4)
    images = normed(grown_as_keras(images, weights["generator.4.weight"], 1), "5")
    images = normed(grown_as_keras(images, weights["generator.7.weight"], 2), "9")
    images = grown_as_keras(images, weights["generator.11.weight"], 2).tanh()
    torch.testing.assert_close(generator(latents), images, rtol=0, atol=1e-12)

    found = images
    for layer in ("1", "5"):
        weight, bias = weights[f"discriminator.{layer}.weight"], weights[f"discriminator.{layer}.bias"]
        found = nn.functional.leaky_relu(conv2d(pad(found, (1, 2, 1, 2)), weight, bias, stride=2), 0.3)
    scores = found.flatten(1) @ weights["discriminator.9.weight"].t() + weights["discriminator.9.bias"]
    torch.testing.assert_close(discriminator(images), scores, rtol=0, atol=1e-12)


def test_keras_networks_keep_the_names_of_version_0_1():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    model = built("dcgan_tf28")
    assert list(model.generator.state_dict()) == [
        "0.weight",
        *(f"1.{name}" for name in norm),
        "4.weight",
        *(f"5.{name}" for name in norm),
        "7.weight",
        *(f"9.{name}" for name in norm),
        "11.weight",
    ]
    assert list(model.discriminator.state_dict()) == [f"{n}.{name}" for n in (1, 5, 9) for name in ("weight", "bias")]


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


def test_keras_game_moves_both_at_once_from_one_pass_of_each_image():
    model = built("dcgan_tf28", {"data.size": 8})
    batch = Labeled(torch.rand(4, 1, 8, 8) * 2 - 1, torch.zeros(4, dtype=torch.int64))
    passes = []
    model.discriminator.register_forward_hook(lambda *_: passes.append("discriminator"))
    model.generator.register_forward_hook(lambda *_: passes.append("generator"))
    (turns,) = model.play(batch)
    assert isinstance(turns, tuple)
    assert [turn.player for turn in turns] == [model.discriminator, model.generator]
    assert all(isinstance(turn, Turn) for turn in turns)
    assert passes == ["generator", "discriminator", "discriminator"]  # real images, and fake ones


def test_batch_norm_never_mixes_real_and_fake_images():
    model = built("dcgan14", {"model.dropout": 0.0}).double()
    real, fake = (torch.rand(6, 1, 14, 14, dtype=torch.float64) * 2 - 1 for _ in range(2))
    assert kinds(model.discriminator, nn.BatchNorm2d)
    real_scores, fake_scores = model.logits_pair(real, fake)
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
        models.find_model("dcgan_ft")


def test_what_models_are_made_of_is_no_model():
    assert set(models.names()) >= {"cgan", "dcgan", "dcgan_tf", "mlp"}
    assert "base" not in models.names()


def test_the_generator_of_dcgan_starts_as_the_paper_says():
    torch.manual_seed(0)
    model = models.build(engine.open_recipe("dcgan28"), ImageSpec(1, 28, 28, ("0",)))
    for module in model.generator.modules():
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert abs(module.weight.mean().item()) < 0.02 * 4 / module.weight.numel() ** 0.5
