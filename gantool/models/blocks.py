"""Layers that two or more models are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import fold

FEW = 4  # output channels up to which a transposed convolution on a CPU is quicker as a matrix product


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch's transposed convolution, computed as one matrix product where that is quicker; the numbers are the same.

    Of one pixel the result is the pixel's channels times the kernel: oneDNN takes four times as long for it. And for
    an image of one or three channels oneDNN leaves most of a CPU idle.

    Shape:
        as `torch.nn.ConvTranspose2d`: [N, in_channels, H, W] -> [N, out_channels, H', W'].
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002  torch's own name
        """Give the transposed convolution of a batch."""
        plain = output_size is None and self.groups == 1 and self.dilation == (1, 1) and input.dim() == 4
        if not plain or input.shape[1] != self.in_channels or self.output_padding != (0, 0):
            return super().forward(input, output_size)
        if input.shape[2:] == (1, 1) and self.padding == (0, 0):
            product = input.flatten(1) @ self.weight.flatten(1)  # [N, out_channels * kernel * kernel]
            return self._biased(product.view(-1, self.out_channels, *self.kernel_size))
        if self.out_channels > FEW or input.device.type != "cpu":
            return super().forward(input, output_size)
        count, channels, height, width = input.shape
        pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
        patches = (pixels @ self.weight.flatten(1)).view(count, height * width, -1).transpose(1, 2)
        sizes = [
            (size - 1) * self.stride[axis] - 2 * int(self.padding[axis]) + self.kernel_size[axis]
            for axis, size in enumerate((height, width))
        ]
        padding = (int(self.padding[0]), int(self.padding[1]))
        return self._biased(fold(patches, tuple(sizes), self.kernel_size, stride=self.stride, padding=padding))

    def _biased(self, images: Tensor) -> Tensor:
        return images if self.bias is None else images + self.bias.view(1, -1, 1, 1)


class Dropout(nn.Dropout):
    """torch's dropout (Srivastava et al. 2014), with quicker random numbers on a CPU.

    torch draws a number of 53 bits for each activation, a fifth of a small network's step. Here four activations share
    64 bits: `p` is met to 1/65,536, and what is kept is scaled by exactly what is met.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's own name
        """Drop activations of a batch of any shape, in training mode."""
        level = round(self.p * 2**16)
        if not self.training or input.device.type != "cpu" or not 0 < level < 2**16:
            return super().forward(input)
        count = input.numel()
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[:count].view(input.shape) >= level - 2**15
        return input * kept.to(input.dtype).mul_(2**16 / (2**16 - level))
