"""The DCGAN of TensorFlow's tutorial: Keras' arithmetic, layer by layer, and its game."""

from __future__ import annotations

import math

import pytest
import torch
from gantool.batches import ImageSpec, Labeled
from gantool.errors import RecipeError
from gantool.models import losses
from gantool.models.dcgan_tf import DCGANTF
from torch import nn
from torch.nn.functional import conv2d, leaky_relu, pad


def keras_network(sides=(8, 8), channels=1, latent_dim=3):
    torch.manual_seed(3)
    return DCGANTF(ImageSpec(channels, *sides), losses.find_loss("non_saturating")(), latent_dim=latent_dim).double()


def norms(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]


def test_batch_norm_and_leaky_relu_have_keras_settings():
    model = keras_network()
    assert [(norm.eps, norm.momentum) for norm in norms(model)] == [(1e-3, 0.01)] * 3
    assert {layer.negative_slope for layer in model.modules() if isinstance(layer, nn.LeakyReLU)} == {0.3}


def same_padding(height, width, stride):
    """Keras' 'same' padding for a kernel of 5: left, right, top and bottom."""
    found = []
    for side in (width, height):
        total = max((math.ceil(side / stride) - 1) * stride + 5 - side, 0)
        found += [total // 2, total - total // 2]
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_a_discriminators_convolution_pads_as_keras_does(channels):
    layers = keras_network(channels=channels).discriminator
    convolution = layers.get_submodule("1")
    nn.init.normal_(convolution.bias)
    image = torch.randn(1, channels, 8, 8, dtype=torch.float64)
    padded = pad(image, same_padding(8, 8, 2))
    made = layers.back(convolution(layers.turn(image)))
    torch.testing.assert_close(made, conv2d(padded, convolution.weight, convolution.bias, stride=2), rtol=0, atol=1e-12)


def grown_as_keras(images, weight, stride):
    """Keras' Conv2DTranspose with 'same' padding: the gradient of its Conv2D with the same padding, by definition."""
    count, _, height, width = images.shape
    large = torch.zeros(count, weight.shape[1], stride * height, stride * width, dtype=images.dtype, requires_grad=True)
    forward = conv2d(pad(large, same_padding(*large.shape[2:], stride)), weight, stride=stride)
    assert forward.shape == images.shape
    (gradient,) = torch.autograd.grad((forward * images).sum(), large, create_graph=True)
    return gradient


@pytest.mark.parametrize(("layer", "stride"), [("4", 1), ("7", 2), ("11", 2)])
@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (7, 7), (8, 5), (16, 17)])
def test_a_transposed_convolution_is_the_transpose_of_keras_convolution(layer, stride, sides):
    transposed = keras_network().generator.get_submodule(layer)
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
    for norm in norms(model):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    weights = dict(model.named_parameters())
    latents = torch.randn(2, 3, dtype=torch.float64)

    def normed(images, layer):
        return leaky_relu(generator.get_submodule(layer)(images), 0.3)

    images = normed(latents @ weights["generator.0.weight"].t(), "1").view(2, 256, sides[0] // 4, sides[1] // 4)
    images = normed(grown_as_keras(images, weights["generator.4.weight"], 1), "5")
    images = normed(grown_as_keras(images, weights["generator.7.weight"], 2), "9")
    images = grown_as_keras(images, weights["generator.11.weight"], 2).tanh()
    torch.testing.assert_close(generator(latents), images, rtol=0, atol=1e-12)

    found = images
    for layer in ("1", "5"):
        weight, bias = weights[f"discriminator.{layer}.weight"], weights[f"discriminator.{layer}.bias"]
        found = leaky_relu(conv2d(pad(found, same_padding(*found.shape[2:], 2)), weight, bias, stride=2), 0.3)
    logits = found.flatten(1) @ weights["discriminator.9.weight"].t() + weights["discriminator.9.bias"]
    torch.testing.assert_close(discriminator(images), logits, rtol=0, atol=1e-12)


def test_the_networks_keep_the_names_of_version_0_1():
    model = keras_network()
    named = {"1": "norm", "5": "norm", "9": "norm"}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert list(model.generator.state_dict()) == [
        f"{layer}.{part}"
        for layer in ("0", "1", "4", "5", "7", "9", "11")
        for part in (norm if layer in named else ("weight",))
    ]
    assert list(model.discriminator.state_dict()) == [f"{n}.{name}" for n in (1, 5, 9) for name in ("weight", "bias")]


def test_weights_start_glorot_uniform_and_biases_at_zero():
    model = keras_network((28, 28), latent_dim=100)
    fans = {  # numbers into and out of one output
        "generator.0": (100, 12544),
        "generator.4": (256 * 25, 128 * 25),
        "generator.7": (128 * 25, 64 * 25),
        "generator.11": (64 * 25, 25),
        "discriminator.1": (25, 64 * 25),
        "discriminator.5": (64 * 25, 128 * 25),
        "discriminator.9": (6272, 1),
    }
    for name, fan in fans.items():
        layer, bound = model.get_submodule(name), math.sqrt(6 / sum(fan))
        assert 0.98 * bound < float(layer.weight.detach().abs().max()) <= bound, name
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert layer.bias is None or not bool(layer.bias.detach().any())


def test_any_multiple_of_four_will_do_and_other_sizes_are_refused():
    model = keras_network((8, 12), channels=3)
    assert model.double().generator(torch.zeros(2, 3).double()).shape == (2, 3, 8, 12)
    with pytest.raises(RecipeError, match=r"^data.size: dcgan_tf halves an image twice, which 30x30 .*; try 32$"):
        keras_network((30, 30))


def test_the_game_moves_both_at_once_from_one_pass_of_each_image():
    model, passes = keras_network(), []
    model.discriminator.register_forward_hook(lambda *_: passes.append("discriminator"))
    model.generator.register_forward_hook(lambda *_: passes.append("generator"))
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    (turns,) = model.play(Labeled(images, torch.zeros(4, dtype=torch.int64)))
    assert [turn.player for turn in turns] == [model.discriminator, model.generator]
    assert passes == ["generator", "discriminator", "discriminator"]  # real images, and fake ones
