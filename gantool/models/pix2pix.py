"""Translation learned from pairs of images. Isola et al. 2017, arXiv:1611.07004 (pix2pix)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.functional import dropout, l1_loss

from gantool.batches import Batch, ImageSpec, Paired
from gantool.models.base import GeneratorInput, Translator, Turn
from gantool.models.blocks import (
    FastConvTranspose2d,
    Norm,
    PatchGAN,
    PatchLayers,
    check_halves,
    init_normal,
    normalisation,
)
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count, Fraction, Weight

Levels = Annotated[int, Interval(ge=1, le=12)]


class Pix2Pix(Translator):
    """A U-Net makes the target of a source; a PatchGAN judges source and target together.

    The generator lowers the adversarial loss plus `l1` times the distance to the target (eq. 4). Its noise is dropout,
    which is active at test time too (sec. 2.1). The paper halves the discriminator's loss, which to Adam is the same.

    Args:
        width: channels of the U-Net's first convolution; they double up to 8 times of it.
        levels: how often the U-Net halves an image. 8 take 256 pixels to one.
        norm: `batch`, as in the paper, or `instance`, for batches of more than one pair.
        dropout: share of the activations that is dropped on the three innermost ways up; 0 for no noise.
        l1: weight of the mean absolute distance to the target (lambda).
        discriminator_width: channels of the PatchGAN's first convolution.
        discriminator_layers: convolutions of stride 2 in the PatchGAN; 3 see patches of 70x70 pixels.
    """

    consumes = Paired

    def __init__(
        self,
        data: ImageSpec,
        loss: Adversarial,
        *,
        width: Count = 64,
        levels: Levels = 8,
        norm: Norm = "batch",
        dropout: Fraction = 0.5,
        l1: Weight = 100.0,
        discriminator_width: Count = 64,
        discriminator_layers: PatchLayers = 3,
    ) -> None:
        super().__init__(data, loss)
        check_halves(data, levels, "pix2pix", least=2**levels, levels="model.levels")
        self.stride = 2**levels
        self.l1 = l1
        self.generator = UNet(data.channels, width=width, levels=levels, norm=norm, dropout=dropout)
        self.discriminator = PatchGAN(
            2 * data.channels, width=discriminator_width, layers=discriminator_layers, norm=norm
        )
        self.apply(init_normal)

    def play(self, batch: Batch) -> Iterator[Turn]:
        """Play one step: the discriminator on real and fake pairs, then the generator against the new one."""
        assert isinstance(batch, Paired)
        source, target = batch
        fake = self.generator(source)
        pair, score = (self.logits(source, target), self.logits(source, fake.detach())), partial(self.logits, source)
        yield Turn(self.discriminator, *self.loss.discriminator(*pair, score, target, fake))
        adversarial = self.loss.generator(fake=self.logits(source, fake), real=lambda: self.logits(source, target))
        yield Turn(self.generator, {"adversarial": adversarial, "l1": self.l1 * l1_loss(fake, target)})

    def logits(self, source: Tensor, images: Tensor) -> Tensor:
        """Return the logits of pairs, whose halves are augmented alike: [N, 1, H, W]."""
        return self.discriminator(self.loss.augmented(torch.cat([source, images], dim=1)))

    def sample(self, prompt: GeneratorInput) -> Tensor:
        """Make the target of each row's source: [N, C, H, W], -1 to 1.

        One at a time: BatchNorm takes the statistics of one image (sec. 3.4), and its seed decides its noise.
        """
        seeds = [torch.Generator().manual_seed(seed) for seed in prompt.seeds.tolist()]
        sources = prompt.source[:, None].unbind()
        return torch.cat([self.generator(source, seed) for source, seed in zip(sources, seeds, strict=True)])


class UNet(nn.Module):
    """Halves an image level by level, then doubles it; each way up also sees the way down of its level. App. 6.1.1.

    With 8 levels of width 64 the ways down are C64-C128-C256-C512-C512-C512-C512-C512, the ways up
    CD512-CD1024-CD1024-C1024-C1024-C512-C256-C128 and the last one to an image. No normalisation follows the
    outermost ones, nor the innermost way down: one pixel normalised is 0.

    Args:
        channels: of the images.
        width: of the first way down; doubles up to 8 times of it.
        levels: how often an image is halved.
        norm: follows the other convolutions. BatchNorm brings their bias.
        dropout: share that is dropped on the three innermost ways up.

    Shape:
        [N, channels, H, W] -> the same, -1 to 1; H and W are multiples of 2 to the power of `levels`.
    """

    def __init__(self, channels: int, *, width: int, levels: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        widths = [channels, *(width * min(2**level, 8) for level in range(levels))]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (outer, inner) in enumerate(pairwise(widths)):
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if level else []
            layers.append(nn.Conv2d(outer, inner, 4, 2, 1, bias=norm == "instance"))
            layers += [normalisation(norm, inner)] if 0 < level < levels - 1 else []
            self.down.append(nn.Sequential(*layers))
        for level, (outer, inner) in reversed([*enumerate(pairwise(widths))]):
            seen = inner if level == levels - 1 else 2 * inner
            grown = FastConvTranspose2d(seen, outer, 4, 2, 1, bias=level == 0 or norm == "instance")
            self.up.append(nn.Sequential(nn.ReLU(), grown, normalisation(norm, outer) if level else nn.Tanh()))
        self.noise = nn.ModuleList(DropoutNoise(dropout) for _ in range(min(3, levels - 1)))

    def forward(self, images: Tensor, seed: torch.Generator | None = None) -> Tensor:
        """Translate images, with noise drawn from `seed`, or from torch's own random numbers without it."""
        seen = []
        for layer in self.down:
            images = layer(images)
            seen.append(images)
        images = seen.pop()
        for index, layer in enumerate(self.up):
            images = layer(images)
            if index < len(self.noise):
                images = self.noise[index](images, seed)
            if seen:
                images = torch.cat([images, seen.pop()], dim=1)
        return images


class DropoutNoise(nn.Module):
    """Dropout (Srivastava et al. 2014) at test time too: it is the generator's noise.

    Args:
        share: of the activations that is dropped; the others are scaled up.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, activations: Tensor, seed: torch.Generator | None = None) -> Tensor:
        """Drop activations of a batch of any shape; a `seed` draws alike on every device."""
        if not self.share or seed is None:
            return dropout(activations, self.share)
        kept = torch.rand(activations.shape, generator=seed) >= self.share
        return activations * kept.to(activations) / (1 - self.share)
