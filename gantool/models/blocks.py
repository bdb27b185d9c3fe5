"""Layers that two or more models are made of, and the checks that they share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

import torch
from annotated_types import Interval, MinLen
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, fold, linear, unfold

from gantool.batches import ImageSpec, RowSpec, Spec, TextSpec
from gantool.errors import RecipeError
from gantool.recipe.schema import Count

Padding = Annotated[int, Interval(ge=0, le=64)]
Convolution = tuple[Count, Count, Count, Padding]
"""Channels, kernel, stride, padding."""
Convolutions = Annotated[list[Convolution], MinLen(1)]
Norm = Literal["batch", "instance"]
PatchLayers = Annotated[int, Interval(ge=1, le=8)]

Spec_ = TypeVar("Spec_", ImageSpec, RowSpec, TextSpec)
_CONTENTS = {ImageSpec: "images", RowSpec: "rows of a table", TextSpec: "sentences"}

FEW_CHANNELS = 4  # output channels up to which a transposed convolution on a CPU is faster as a matrix product


class FastConv2d(nn.Conv2d):
    """torch's convolution, computed as a matrix product for images of one channel; the numbers are the same.

    oneDNN takes four times as long for the gradient of such an image. The product leaves the result in memory pixel by
    pixel (channels last), which makes oneDNN's next convolution faster.

    Shape:
        as `torch.nn.Conv2d`: [N, in_channels, H, W] -> [N, out_channels, H', W'].
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's own name
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros" and input.dim() == 4
        if not plain or isinstance(self.padding, str) or input.shape[1] != self.in_channels:
            return super().forward(input)
        return self.convolved(input, self.weight)

    def convolved(self, images: Tensor, kernels: Tensor) -> Tensor:
        """Compute the convolution of images [N, in_channels, H, W] with kernels of the weight's shape."""
        padding = (int(self.padding[0]), int(self.padding[1]))
        if self.in_channels != 1 or images.device.type != "cpu":
            return conv2d(images, kernels, self.bias, self.stride, padding)
        height, width = (
            (images.shape[2 + axis] + 2 * padding[axis] - self.kernel_size[axis]) // self.stride[axis] + 1
            for axis in (0, 1)
        )
        patches = unfold(images, self.kernel_size, padding=padding, stride=self.stride).transpose(1, 2)
        made = linear(patches.reshape(len(images) * height * width, -1), kernels.flatten(1), self.bias)
        return made.view(len(images), height, width, self.out_channels).permute(0, 3, 1, 2)


class FastConvTranspose2d(nn.ConvTranspose2d):
    """torch's transposed convolution, computed as one matrix product where that is faster; the numbers are the same.

    The result of one pixel is its channels times the kernel, for which oneDNN takes four times as long; it is left in
    memory pixel by pixel (channels last), as in `FastConv2d`. For an image of one or three channels oneDNN leaves most
    of a CPU idle.

    Shape:
        as `torch.nn.ConvTranspose2d`: [N, in_channels, H, W] -> [N, out_channels, H', W'].
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002  torch's own name
        plain = output_size is None and self.groups == 1 and self.dilation == (1, 1) and input.dim() == 4
        if not plain or input.shape[1] != self.in_channels:
            return super().forward(input, output_size)
        return self.grown(input, self.weight)

    def grown(self, images: Tensor, kernels: Tensor) -> Tensor:
        """Compute the transposed convolution of images [N, in_channels, H, W] with kernels of the weight's shape."""
        padding, extra = (int(self.padding[0]), int(self.padding[1])), self.output_padding
        if images.shape[2:] == (1, 1) and padding == extra == (0, 0):
            product = images.flatten(1) @ kernels.permute(0, 2, 3, 1).flatten(1)  # [N, kernel * kernel * out_channels]
            return self._biased(product.view(-1, *self.kernel_size, self.out_channels).permute(0, 3, 1, 2))
        if self.out_channels > FEW_CHANNELS or images.device.type != "cpu":
            return conv_transpose2d(images, kernels, self.bias, self.stride, padding, extra)
        count, channels, height, width = images.shape
        pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
        patches = (pixels @ kernels.flatten(1)).view(count, height * width, -1).transpose(1, 2)
        sizes = [
            (size - 1) * self.stride[axis] - 2 * padding[axis] + self.kernel_size[axis] + extra[axis]
            for axis, size in enumerate((height, width))
        ]
        return self._biased(fold(patches, tuple(sizes), self.kernel_size, stride=self.stride, padding=padding))

    def _biased(self, images: Tensor) -> Tensor:
        return images if self.bias is None else images + self.bias.view(1, -1, 1, 1)


class FastDropout(nn.Dropout):
    """torch's dropout (Srivastava et al. 2014), with faster random numbers on a CPU.

    torch draws a number of 53 bits for each activation, a fifth of a small network's step. Here four activations share
    64 bits: `p` is met to 1/65,536, and the rest is scaled by the share that is really kept.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's own name
        level = round(self.p * 2**16)
        if not self.training or input.device.type != "cpu" or not 0 < level < 2**16:
            return super().forward(input)
        count = input.numel()
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        numbers = bits.view(torch.int16)[:count].float()  # exact, and compared four times as fast as integers
        kept = numbers.ge_(level - 2**15).to(input.dtype).mul_(2**16 / (2**16 - level))
        if not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last):
            count, channels, height, width = input.shape
            return input * kept.view(count, height, width, channels).permute(0, 3, 1, 2)
        return input * kept.view(input.shape)


class ClassLinear(torch.autograd.Function):
    """A linear layer of a class's embedding beside an input, the embedding's part computed once for each class.

    The numbers are those of `linear(cat([embeddings[labels], inputs], dim=1), weight, bias)`, except for rounding. For
    an embedding as wide as the input, half of the multiplications are saved. The weight's gradient is written in one
    piece; autograd would fill a weight's worth of zeros for each slice of it.

    Shape:
        inputs [N, K], labels [N], embeddings [classes, E], weight [outputs, E + K], bias [outputs] -> [N, outputs].
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, labels: Tensor, embeddings: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, labels, embeddings, weight)
        width = embeddings.shape[1]
        of_class = linear(embeddings, weight[:, :width], bias)  # [classes, outputs]
        return torch.addmm(of_class[labels], inputs, weight[:, width:].t())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients, that of the inputs alone in the generator's turn."""
        inputs, labels, embeddings, weight = ctx.saved_tensors
        width, needs = embeddings.shape[1], ctx.needs_input_grad
        of_inputs = gradient @ weight[:, width:] if needs[0] else None
        if not (needs[2] or needs[3] or needs[4]):
            return of_inputs, None, None, None, None
        # The sum over the images of a class: [classes, outputs].
        shared = gradient.new_zeros(len(embeddings), len(weight)).index_add(0, labels, gradient)
        of_embeddings = shared @ weight[:, :width]
        if torch.is_grad_enabled():  # a penalty differentiates this once more
            of_weight = torch.cat([shared.t() @ embeddings, gradient.t() @ inputs], dim=1)
        else:
            of_weight = torch.empty_like(weight)
            torch.mm(shared.t(), embeddings, out=of_weight[:, :width])
            torch.mm(gradient.t().contiguous(), inputs, out=of_weight[:, width:])
        return of_inputs, None, of_embeddings, of_weight, gradient.sum(0)


class ConvolutionalClassifier(nn.Module):
    """Convolutions with pools, and linear layers. LeCun et al. 1998.

    Args:
        channels: of the images.
        convolutions: each is followed by a (leaky) ReLU and by one of `pools`.
        pools: as many as `convolutions`.
        area: pixels that the last pool leaves of an image.
        hidden: width of each hidden linear layer, at least one.
        outputs: how many numbers the network returns.
        slope: of every activation below zero; 0 makes it a ReLU.

    Shape:
        [N, channels, H, W] -> [N, outputs].
    """

    def __init__(
        self,
        channels: int,
        convolutions: Sequence[Convolution],
        pools: Sequence[nn.Module],
        area: int,
        hidden: Sequence[int],
        outputs: int,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for (width, kernel, stride, padding), pool in zip(convolutions, pools, strict=True):
            layers += [nn.Conv2d(channels, width, kernel, stride, padding), _activation(slope), pool]
            channels = width
        layers += [nn.Flatten(), nn.Linear(channels * area, hidden[0])]
        for before, after in pairwise(hidden):
            layers += [_activation(slope), nn.Linear(before, after)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(_activation(slope), nn.Linear(hidden[-1], outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch; its features are the last hidden layer's output before the activation."""
        return self.head(self.features(images))


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


class PatchGAN(nn.Sequential):
    """A discriminator that scores patches: each logit depends on a square of pixels only.

    Isola et al. 2017, arXiv:1611.07004, app. 6.1.2: C64-C128-C256-C512 sees 70x70 pixels.

    Args:
        channels: of its input.
        width: channels of the first convolution; they double up to 8 times of it.
        layers: convolutions of stride 2, before two of stride 1. With 1, 2, 3 and 4 patches have 16, 34, 70 and 142
            pixels on a side.
        norm: follows all convolutions but the first and the last. BatchNorm brings the bias of its convolution.

    Shape:
        [N, channels, H, W] -> [N, 1, H', W'], logits.
    """

    def __init__(self, channels: int, *, width: int, layers: int, norm: Norm) -> None:
        modules: list[nn.Module] = []
        for layer in range(layers + 1):
            wide, stride = width * min(2**layer, 8), 2 if layer < layers else 1
            modules.append(nn.Conv2d(channels, wide, 4, stride, 1, bias=layer == 0 or norm == "instance"))
            modules += [normalisation(norm, wide)] if layer else []
            modules.append(nn.LeakyReLU(0.2))
            channels = wide
        super().__init__(*modules, nn.Conv2d(channels, 1, 4, 1, 1))


def normalisation(norm: Norm, width: int) -> nn.Module:
    """Return the normalisation of images of `width` channels.

    `batch` is BatchNorm without running statistics: at test time it also uses those of the batch (Isola et al. 2017,
    sec. 3.4). `instance` normalises each image alone, without weights (Ulyanov et al. 2016, arXiv:1607.08022).
    """
    return nn.BatchNorm2d(width, track_running_stats=False) if norm == "batch" else nn.InstanceNorm2d(width)


def init_normal(module: nn.Module) -> None:
    """Draw weights from a normal distribution of deviation 0.02, around 1 in BatchNorm; set biases to 0.

    Radford et al. 2016, arXiv:1511.06434, sec. 4; Isola et al. 2017, app. 6.2; Zhu et al. 2017, arXiv:1703.10593,
    app. 7.1.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=float(isinstance(module, nn.BatchNorm2d)), std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_generator(module: nn.Module) -> None:
    """Draw a generator's convolutions from a normal distribution of deviation 0.02. Radford et al. 2016, sec. 4.

    From torch's own start the discriminator wins before the generator has learned to make smooth images. The paper
    starts the discriminator in the same way; these small ones then answer 0.5 for long (docs/measured.md).
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)


def upsampling_layers(channels: int, convolutions: Sequence[Convolution]) -> Iterator[nn.Module]:
    """Yield transposed convolutions from [N, channels] to images, and Tanh. Radford et al. 2016, sec. 3.

    BatchNorm and ReLU follow all convolutions but the last.
    """
    yield nn.Unflatten(1, (channels, 1, 1))
    for index, (width, kernel, stride, padding) in enumerate(convolutions):
        yield FastConvTranspose2d(channels, width, kernel, stride, padding)
        if index < len(convolutions) - 1:
            yield nn.BatchNorm2d(width)
            yield nn.ReLU()
        channels = width
    yield nn.Tanh()


def downsampling_layers(
    channels: int, convolutions: Sequence[Convolution], *, norm: bool, dropout: float | None = None
) -> Iterator[nn.Module]:
    """Yield convolutions from images to logits; LeakyReLU 0.2 and dropout follow all but the last.

    Args:
        channels: of the images.
        convolutions: the last one has one channel.
        norm: puts BatchNorm before each LeakyReLU but the first.
        dropout: share of the activations that is dropped; None leaves these layers out.
    """
    for index, (width, kernel, stride, padding) in enumerate(convolutions):
        yield FastConv2d(channels, width, kernel, stride, padding)
        if index < len(convolutions) - 1:
            if index and norm:
                yield nn.BatchNorm2d(width)
            yield nn.LeakyReLU(0.2)
            if dropout is not None:
                yield FastDropout(dropout)
        channels = width
    yield nn.Flatten()


def check_ends(data: ImageSpec, generator: Sequence[Convolution], discriminator: Sequence[Convolution]) -> None:
    """Raise RecipeError if a generator does not end in the data's channels, or a discriminator not in one."""
    if generator[-1][0] != data.channels:
        raise RecipeError(
            f"model.generator: the last layer makes {generator[-1][0]} channels, but the data's images have "
            f"{data.channels}; change its first number, or data.channels"
        )
    if discriminator[-1][0] != 1:
        raise RecipeError(
            f"model.discriminator: the last layer makes {discriminator[-1][0]} channels, but a score is 1 number; "
            "change its first number to 1"
        )


def check_halves(data: ImageSpec, times: int, model: str, *, least: int, levels: str = "") -> None:
    """Raise RecipeError if the data's sides cannot be halved so often.

    Args:
        data: the size of the images.
        times: how often the model halves them.
        model: its name.
        least: pixels on a side of the smallest image that it takes.
        levels: the key that sets `times`, if any.
    """
    sides, multiple = (data.height, data.width), 2**times
    if not any(side % multiple for side in sides):
        return
    height, width = (max(least, round(side / multiple) * multiple) for side in sides)
    near = height if height == width and data.height == data.width else [height, width]
    often = math.gcd(*sides) & -math.gcd(*sides)  # the largest power of 2 that divides both
    fewer = f", or {levels}={often.bit_length() - 1}" if levels and often > 1 else ""
    count = "twice" if times == 2 else f"{times} times"
    raise RecipeError(
        f"data.size: {model} halves an image {count}, which {data.height}x{data.width} does not allow; "
        f"try {near}{fewer}"
    )


def expect(data: Spec, wanted: type[Spec_], model: str) -> Spec_:
    """Return the data's spec; raise RecipeError if the model cannot learn from such data."""
    if not isinstance(data, wanted):
        raise RecipeError(
            f"data.source: {model} learns from {_CONTENTS[wanted]}, but these data are {_CONTENTS[type(data)]}; use "
            "another source or model"
        )
    return data
