"""The layers that are computed in another way than torch's own: their numbers are torch's."""

from __future__ import annotations

import pytest
import torch
from gantool.models.base import frozen
from gantool.models.blocks import FastConv2d, FastConvTranspose2d, FastDropout, class_linear
from torch import nn

SETTINGS = [  # kernel, stride, padding, and the sides of the images
    (3, 2, 1, (14, 14)),
    (3, 2, 1, (28, 28)),
    (5, 2, 0, (15, 8)),
    (4, 2, 1, (6, 7)),
    ((2, 3), (1, 2), (1, 0), (5, 9)),
    (7, 1, 0, (7, 7)),
    (1, 3, 0, (4, 5)),
    (4, 2, 1, (1, 1)),
]


def alike(own, plain, images):
    """Both layers have equal weights: their images, gradients and gradients of gradients are the same."""
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
    plain = nn.Conv2d(channels, 6, kernel, stride, padding, bias=bias).double()
    own = FastConv2d(channels, 6, kernel, stride, padding, bias=bias).double()
    own.load_state_dict(plain.state_dict())
    alike(own, plain, torch.randn(3, channels, *sides, dtype=torch.float64))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize(("kernel", "stride", "padding", "sides"), SETTINGS)
def test_a_transposed_convolution_is_torchs(kernel, stride, padding, sides, extra, width, bias):
    torch.manual_seed(0)
    if extra and stride == 1:
        extra = 0
    extra = tuple(extra if step > 1 else 0 for step in (stride if isinstance(stride, tuple) else (stride, stride)))
    plain = nn.ConvTranspose2d(5, width, kernel, stride, padding, extra, bias=bias).double()
    own = FastConvTranspose2d(5, width, kernel, stride, padding, extra, bias=bias).double()
    own.load_state_dict(plain.state_dict())
    alike(own, plain, torch.randn(3, 5, *sides, dtype=torch.float64))


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
@pytest.mark.parametrize("share", [0.25, 0.3])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
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


def test_dropout_at_rest_changes_nothing():
    given = torch.randn(3, 4)
    torch.testing.assert_close(FastDropout(0.5).eval()(given), given, rtol=0, atol=0)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_linear_layer_of_a_class_beside_an_input_equals_the_plain_one_with_all_its_gradients(classes):
    """Values, first gradients, and those of a penalty, which differentiates the gradient once more."""
    torch.manual_seed(0)
    layer = nn.Linear(2 * 7, 5).double()
    embedding = nn.Embedding(classes, 7).double()
    inputs = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % classes

    def plain():
        return layer(torch.cat([embedding(labels), inputs], dim=1))

    def ours():
        return class_linear(inputs, labels, embedding.weight, layer.weight, layer.bias)

    found = []
    for compute in (plain, ours):
        made = compute()
        wanted = [inputs, embedding.weight, layer.weight, layer.bias]
        first = torch.autograd.grad(made.tanh().sum(), wanted)
        (slope,) = torch.autograd.grad(compute().tanh().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(slope.square().sum(), wanted[:3])
        found.append([made, *first, *second])
    for plain_part, our_part in zip(*found, strict=True):
        torch.testing.assert_close(our_part, plain_part, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(
        lambda *parts: class_linear(parts[0], labels, *parts[1:]),
        (inputs, embedding.weight, layer.weight, layer.bias),
    )


def test_a_class_linear_with_frozen_weights_gives_the_gradient_of_its_input_alone():
    layer, embedding = nn.Linear(8, 3), nn.Embedding(2, 4)
    inputs = torch.randn(5, 4, requires_grad=True)
    with frozen(layer), frozen(embedding):
        made = class_linear(inputs, torch.tensor([0, 1, 1, 0, 1]), embedding.weight, layer.weight, layer.bias)
    assert all(weight.requires_grad for weight in (*layer.parameters(), *embedding.parameters()))
    made.sum().backward()
    torch.testing.assert_close(inputs.grad, layer.weight[:, 4:].sum(0).expand(5, 4))
    assert layer.weight.grad is None
    assert embedding.weight.grad is None
