"""Layers that are computed in another way than torch's own give the same numbers; patches, and what is refused."""

from __future__ import annotations

import pytest
import torch
from gantool.batches import ImageSpec
from gantool.errors import RecipeError
from gantool.models.blocks import (
    ClassLinear,
    ConvolutionalClassifier,
    FastConv2d,
    FastConvTranspose2d,
    FastDropout,
    PatchGAN,
    check_ends,
    check_halves,
)
from torch import nn

SETTINGS = [  # kernel, stride, padding, and the sides of the images
    *((3, 2, 1, (14, 14)), (5, 2, 0, (15, 8)), (4, 2, 1, (6, 7)), ((2, 3), (1, 2), (1, 0), (5, 9))),
    *((7, 1, 0, (7, 7)), (1, 3, 0, (4, 5)), (4, 2, 1, (1, 1))),
]


def check_alike(own, plain, images):
    """Layers of equal weights have the same outputs, gradients and gradients of gradients."""
    own.load_state_dict(plain.state_dict())
    found = []
    for layer in (own, plain):
        given = images.clone().requires_grad_()
        made = layer(given)
        push = torch.linspace(-1, 1, made.numel(), dtype=made.dtype).view(made.shape)
        first = torch.autograd.grad((made.square() * push).sum(), [given, *layer.parameters()], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [given, layer.weight])
        found.append([made, *first, *second])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding", "sides"), SETTINGS[:-1])
def test_a_convolution_is_torchs(kernel, stride, padding, sides, channels, bias):
    torch.manual_seed(0)
    own, plain = (kind(channels, 6, kernel, stride, padding, bias=bias).double() for kind in (FastConv2d, nn.Conv2d))
    check_alike(own, plain, torch.randn(3, channels, *sides, dtype=torch.float64))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize(("kernel", "stride", "padding", "sides"), SETTINGS)
def test_a_transposed_convolution_is_torchs(kernel, stride, padding, sides, extra, width, bias):
    torch.manual_seed(0)
    extra = tuple(extra if step > 1 else 0 for step in (stride if isinstance(stride, tuple) else (stride, stride)))
    kinds = (FastConvTranspose2d, nn.ConvTranspose2d)
    own, plain = (kind(5, width, kernel, stride, padding, extra, bias=bias).double() for kind in kinds)
    check_alike(own, plain, torch.randn(3, 5, *sides, dtype=torch.float64))


@pytest.mark.parametrize("settings", [{"dilation": 2}, {"padding_mode": "reflect"}, {"padding": "same", "stride": 1}])
def test_a_convolution_of_another_kind_is_left_to_torch(settings):
    settings = {"kernel_size": 3, "stride": 2, "padding": 1, **settings}
    plain, own = nn.Conv2d(1, 2, **settings), FastConv2d(1, 2, **settings)
    own.load_state_dict(plain.state_dict())
    images = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(own(images), plain(images), rtol=0, atol=0)


def test_channels_that_do_not_fit_are_refused_as_torch_does():
    for layer in (FastConv2d(1, 2, 3), FastConvTranspose2d(1, 2, 3)):
        with pytest.raises(RuntimeError, match=r"expected input.* to have 1 channels"):
            layer(torch.zeros(1, 2, 5, 5))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("share", "kind"), [(0.25, torch.float32), (0.3, torch.float64)])
def test_dropout_drops_its_share_and_scales_the_rest(layout, share, kind):
    torch.manual_seed(0)
    given = torch.ones(40, 25, 10, 11, dtype=kind).to(memory_format=layout).requires_grad_()
    made = FastDropout(share)(given)
    assert made.is_contiguous(memory_format=layout)
    assert made.dtype == kind
    assert float((made == 0).double().mean().detach()) == pytest.approx(share, abs=0.005)
    kept = made[made != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)), rtol=2e-5, atol=0)
    made.sum().backward()
    torch.testing.assert_close(given.grad, made.detach(), rtol=0, atol=0)
    assert torch.equal(FastDropout(share).eval()(given), given)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_linear_layer_of_a_class_beside_an_input_equals_the_plain_one_with_all_its_gradients(classes):
    torch.manual_seed(0)
    layer, embedding = nn.Linear(2 * 7, 5).double(), nn.Embedding(classes, 7).double()
    inputs = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % classes
    wanted = [inputs, embedding.weight, layer.weight, layer.bias]
    found = []
    for compute in (
        lambda: layer(torch.cat([embedding(labels), inputs], dim=1)),
        lambda: ClassLinear.apply(inputs, labels, *wanted[1:]),
    ):
        first = torch.autograd.grad(compute().tanh().sum(), wanted)
        (slope,) = torch.autograd.grad(compute().tanh().sum(), inputs, create_graph=True)  # as in a penalty
        second = torch.autograd.grad(slope.square().sum(), wanted[:3])
        found.append([compute(), *first, *second])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(lambda given, *rest: ClassLinear.apply(given, labels, *rest), wanted)


def test_a_class_linear_with_frozen_weights_gives_the_gradient_of_its_input_alone():
    layer, embedding = nn.Linear(8, 3), nn.Embedding(2, 4)
    inputs = torch.randn(5, 4, requires_grad=True)
    weights = [part.detach() for part in (embedding.weight, layer.weight, layer.bias)]
    made = ClassLinear.apply(inputs, torch.tensor([0, 1, 1, 0, 1]), *weights)
    made.sum().backward()
    torch.testing.assert_close(inputs.grad, layer.weight[:, 4:].sum(0).expand(5, 4))


def test_a_convolutional_classifier_ends_its_features_before_their_activation():
    network = ConvolutionalClassifier(3, [(4, 3, 1, 1)], [nn.AdaptiveMaxPool2d(2)], 4, [7, 5], 2, slope=0.2)
    images = torch.randn(3, 3, 9, 6)
    features = network.features(images).detach()
    assert features.shape == (3, 5)
    leaky = torch.where(features > 0, features, 0.2 * features)
    torch.testing.assert_close(network(images), network.head[1](leaky))


@pytest.mark.parametrize(("layers", "seen"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_patch_is_as_large_as_documented(layers, seen):
    patches = PatchGAN(1, width=1, layers=layers, norm="batch").double()
    for index, layer in enumerate(patches):
        if isinstance(layer, nn.BatchNorm2d):  # its statistics depend on the whole image
            patches[index] = nn.Identity()
    image = torch.rand(1, 1, 192, 192, dtype=torch.float64, requires_grad=True)
    logits = patches(image)
    middle = logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle, image)
    for side in (0, 1):
        pixels = gradient[0, 0].abs().sum(side).nonzero()
        assert int(pixels.max() - pixels.min()) + 1 == seen


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_patchgan_has_the_papers_layers(norm):
    patches = PatchGAN(3, width=4, layers=3, norm=norm)
    middle = ["Conv2d", {"batch": "BatchNorm2d", "instance": "InstanceNorm2d"}[norm], "LeakyReLU"]
    assert [type(layer).__name__ for layer in patches] == ["Conv2d", "LeakyReLU", *3 * middle, "Conv2d"]
    convolutions = [layer for layer in patches if isinstance(layer, nn.Conv2d)]
    widths = [(layer.out_channels, layer.stride[0]) for layer in convolutions]
    assert widths == [(4, 2), (8, 2), (16, 2), (32, 1), (1, 1)]
    inner = norm == "instance"  # BatchNorm brings a bias of its own
    assert [layer.bias is not None for layer in convolutions] == [True, inner, inner, inner, True]


@pytest.mark.parametrize(
    ("sides", "times", "least", "key", "message"),
    [
        ((100, 100), 8, 256, "model.levels", "8 times, which 100x100 does not allow; try 256, or model.levels=2"),
        ((250, 250), 3, 8, "model.levels", "3 times, which 250x250 does not allow; try 248, or model.levels=1"),
        ((64, 96), 6, 64, "model.levels", "which 64x96 does not allow; try [64, 128], or model.levels=5"),
        ((30, 30), 2, 4, "", "a_model halves an image twice, which 30x30 does not allow; try 32"),
        ((1, 1), 2, 4, "", "try 4"),
        ((2, 2), 2, 8, "", "try 8"),
        ((30, 65), 2, 8, "", "try [32, 64]"),
    ],
)
def test_sizes_that_cannot_be_halved_are_refused_with_one_that_can(sides, times, least, key, message):
    with pytest.raises(RecipeError) as error:
        check_halves(ImageSpec(3, *sides), times, "a_model", least=least, levels=key)
    assert str(error.value).startswith("data.size: a_model halves an image ")
    assert str(error.value).endswith(message)


@pytest.mark.parametrize(
    ("generator", "discriminator", "message"),
    [
        ([(8, 4, 1, 0), (3, 4, 2, 1)], [(1, 8, 1, 0)], "generator: the last layer makes 3 channels, but the data's"),
        ([(1, 4, 1, 0)], [(2, 8, 1, 0)], "discriminator: the last layer makes 2 channels, but a score is 1 number"),
    ],
)
def test_networks_that_end_in_other_channels_are_refused(generator, discriminator, message):
    with pytest.raises(RecipeError, match=f"^model.{message}"):
        check_ends(ImageSpec(1, 8, 8), generator, discriminator)
