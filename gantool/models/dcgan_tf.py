"""The DCGAN of TensorFlow's tutorial for 28x28 digits, layer for layer, with Keras' own defaults."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gantool.batches import Batch, ImageSpec, Labeled
from gantool.models.base import Turn, UnconditionalGAN
from gantool.models.blocks import FastConv2d, FastConvTranspose2d, FastDropout, check_halves
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count, Fraction

SLOPE = 0.3  # of Keras' LeakyReLU
FFT_PIXELS = 400  # pixels up to which a CPU convolves through the Fourier transform


class DCGANTF(UnconditionalGAN):
    """5x5 convolutions with 'same' padding; both players move at once, from the same forward passes.

    Between `turn` and `back` a network holds its images turned by half a turn, which makes torch's padding Keras'.

    Args:
        latent_dim: numbers in a latent.
        dropout: share of the discriminator's hidden activations that is dropped.
    """

    def __init__(self, data: ImageSpec, loss: Adversarial, *, latent_dim: Count = 100, dropout: Fraction = 0.3) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        check_halves(data, 2, "dcgan_tf", least=4)
        height, width = data.height // 4, data.width // 4
        features = 256 * height * width
        # The names are those of version 0.1's checkpoints, which counted paddings as layers.
        self.generator = _named(
            ("0", nn.Linear(latent_dim, features, bias=False)),
            ("1", _norm(nn.BatchNorm1d, features)),
            ("2", nn.LeakyReLU(SLOPE)),
            ("3", nn.Unflatten(1, (256, height, width))),
            ("4", FourierConvTranspose2d(256, 128)),  # [N, 128, H/4, W/4]
            ("turn", HalfTurn()),
            ("5", _norm(nn.BatchNorm2d, 128)),
            ("6", nn.LeakyReLU(SLOPE)),
            ("7", TurnedConvTranspose2d(128, 64)),  # [N, 64, H/2, W/2]
            ("9", _norm(nn.BatchNorm2d, 64)),
            ("10", nn.LeakyReLU(SLOPE)),
            ("11", TurnedConvTranspose2d(64, data.channels)),  # [N, C, H, W]
            ("back", HalfTurn()),
            ("13", nn.Tanh()),
        )
        self.discriminator = _named(
            ("turn", HalfTurn()),
            ("1", TurnedConv2d(data.channels, 64)),  # [N, 64, H/2, W/2]
            ("2", nn.LeakyReLU(SLOPE)),
            ("3", FastDropout(dropout)),
            ("5", TurnedConv2d(64, 128)),  # [N, 128, H/4, W/4]
            ("back", HalfTurn()),
            ("6", nn.LeakyReLU(SLOPE)),
            ("7", FastDropout(dropout)),
            ("8", nn.Flatten()),
            ("9", nn.Linear(128 * height * width, 1)),
        )
        self.apply(_init_keras)

    def play(self, batch: Batch) -> Iterator[Turn | tuple[Turn, ...]]:
        """Play one step: one pass of each image through each network, from which both players move together.

        Real and fake images pass the discriminator separately, so that the generator's gradient passes only the fake.
        """
        assert isinstance(batch, Labeled)
        real = batch.images
        fake = self.generator(self.latents(real))
        self.check_fit(real, fake)
        of_real, of_fake = self.logits(real), self.logits(fake)
        yield (
            Turn(self.discriminator, *self.loss.discriminator(of_real, of_fake, self.logits, real, fake)),
            Turn(self.generator, {"adversarial": self.loss.generator(fake=of_fake, real=lambda: of_real)}),
        )


def _named(*layers: tuple[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


class HalfTurn(nn.Module):
    """Half a turn of images [N, C, H, W]: the first pixel becomes the last one."""

    def forward(self, images: Tensor) -> Tensor:
        return images.contiguous().flip(2, 3)


class TurnedConv2d(FastConv2d):
    """Keras' 5x5 convolution of stride 2 with 'same' padding, on images that are turned by half a turn.

    Keras pads 1 pixel before and 2 after; torch pads both sides alike. With 2 on both sides of an even size, stride 2
    never reaches the last one. That leaves 2 before and 1 after, which is Keras' padding of the turned image. The
    weights are Keras', and are turned when they are used.

    Shape:
        [N, channels, H, W] -> [N, width, H/2, W/2].
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 5, 2, 2)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's own name
        return self.convolved(input, self.weight.flip(2, 3))


class TurnedConvTranspose2d(FastConvTranspose2d):
    """Keras' 5x5 transposed convolution of stride 2 with 'same' padding, on turned images; as `TurnedConv2d`.

    Keras cuts 1 pixel before and 2 after. On the turned image that is torch's padding of 2 with an output padding of 1,
    which computes no pixel that is cut.

    Shape:
        [N, channels, H, W] -> [N, width, 2H, 2W].
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 5, 2, 2, 1, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002  torch's own name
        if input.device.type == "cpu":
            input = input.contiguous(memory_format=torch.channels_last)  # noqa: A001  in which oneDNN is faster
        return self.grown(input, self.weight.flip(2, 3))


class FourierConvTranspose2d(nn.ConvTranspose2d):
    """Keras' 5x5 transposed convolution of stride 1 with 'same' padding, on a CPU through the Fourier transform.

    A convolution is a product at each frequency (Mathieu et al. 2014, arXiv:1312.5851). Matrix products transform such
    small images. At 7x7 pixels this takes a quarter of the time, and rounds no more than torch.

    Shape:
        [N, channels, H, W] -> [N, width, H, W].
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 5, 1, 2, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002  torch's own name
        count, channels, height, width = input.shape
        if input.device.type != "cpu" or channels != self.in_channels or height * width > FFT_PIXELS:
            return super().forward(input, output_size)
        of_images, of_kernels, back = (part.to(input.dtype) for part in _waves(height, width, 5))
        images = of_images @ input.reshape(count * channels, -1).t()
        kernels = of_kernels @ self.weight.flatten(2).flatten(0, 1).t()
        cosines, sines = images.view(2, -1, count, channels).unbind()
        even, odd = kernels.view(2, -1, channels, self.out_channels).unbind()
        # (cosines - i sines) (even - i odd), [frequencies, N, width]
        real = torch.baddbmm(cosines @ even, sines, odd, alpha=-1).flatten(1)
        imaginary = torch.baddbmm(cosines @ odd, sines, even).flatten(1)
        made = torch.addmm(real.t() @ back[0], imaginary.t(), back[1])
        return made.view(count, self.out_channels, height, width)


@functools.lru_cache(maxsize=4)
def _waves(height: int, width: int, kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices to and from the frequencies of a transposed convolution with 'same' padding.

    The period is the image and the padding of one side, so only pixels that are cut wrap around. One of two frequencies
    that mirror each other is kept, and counts twice on the way back.

    Shape:
        cosines and sines of images, [2 * frequencies, height * width]; the same of kernels,
        [2 * frequencies, kernel * kernel]; back, [2, frequencies, height * width]; float64.
    """
    cut = kernel // 2
    down, across = height + cut, width + cut
    row, column = (part.flatten() for part in np.indices((down, across)))
    number, mirror = row * across + column, -row % down * across + -column % across
    kept = number <= mirror
    row, column = row[kept, None, None], column[kept, None, None]
    twice = np.where(number == mirror, 1, 2)[kept, None] / (down * across)

    def angles(first: int, rows: int, columns: int) -> NDArray[np.float64]:
        y, x = np.arange(first, first + rows)[:, None], np.arange(first, first + columns)
        found: NDArray[np.float64] = 2 * np.pi * (row * y / down + column * x / across)
        return found.reshape(len(row), -1)

    images, kernels, made = angles(0, height, width), angles(0, kernel, kernel), angles(cut, height, width)
    return (
        torch.from_numpy(np.concatenate([np.cos(images), np.sin(images)])),
        torch.from_numpy(np.concatenate([np.cos(kernels), np.sin(kernels)])),
        torch.from_numpy(np.stack([twice * np.cos(made), twice * np.sin(made)])),
    )


def _norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], features: int) -> nn.Module:
    return kind(features, eps=1e-3, momentum=0.01)  # Keras' epsilon, and 1 - Keras' momentum of 0.99


def _init_keras(module: nn.Module) -> None:
    """Draw Glorot uniform weights and set biases to 0, as Keras does. Glorot and Bengio 2010."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
