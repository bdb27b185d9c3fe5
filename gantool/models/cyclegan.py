"""Translation learned from two kinds of images without pairs. Zhu et al. 2017, arXiv:1703.10593 (CycleGAN)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from gantool.batches import Batch, ImageSpec, Unpaired
from gantool.models.base import GeneratorInput, Translator, Turn
from gantool.models.blocks import PatchGAN, PatchLayers, check_halves, init_normal
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count, Weight

Length = Annotated[int, Interval(ge=0, le=10_000)]


class CycleGAN(Translator):
    """Two generators, from kind `a` to kind `b` and back; both together must return the image that they started from.

    Each kind has a PatchGAN that judges its images. As in the authors' code the generators move first. The paper halves
    the discriminators' loss, which makes no difference to Adam. The paper's loss is `least_squares`.

    Args:
        width: channels of a generator's first convolution.
        blocks: residual blocks of a generator; null for 9 from 256 pixels on and 6 below (app. 7.2).
        adversarial: weight of the generators' adversarial losses. 2 for the paper's squared distance, which
            `least_squares` halves.
        cycle: weight of the distance between an image and its translation back (lambda, eq. 3).
        identity: weight of a generator's change of images that are already of its kind (sec. 5.2), as a share of
            `cycle`. 0 leaves it out.
        history: earlier fake images that are kept for the discriminators (sec. 4).
        discriminator_width: channels of a PatchGAN's first convolution.
        discriminator_layers: convolutions of stride 2 in a PatchGAN; 3 see patches of 70x70 pixels.
    """

    consumes = Unpaired
    conditional = True
    stride = 4

    def __init__(
        self,
        data: ImageSpec,
        loss: Adversarial,
        *,
        width: Count = 64,
        blocks: Count | None = None,
        adversarial: Weight = 1.0,
        cycle: Weight = 10.0,
        identity: Weight = 0.5,
        history: Length = 50,
        discriminator_width: Count = 64,
        discriminator_layers: PatchLayers = 3,
    ) -> None:
        super().__init__(data, loss)
        check_halves(data, 2, "cyclegan", least=8)
        self.adversarial, self.cycle, self.identity = adversarial, cycle, identity
        blocks = blocks or (9 if min(data.height, data.width) >= 256 else 6)
        self.generator = nn.ModuleDict(
            {way: ResNet(data.channels, width=width, blocks=blocks) for way in ("a_to_b", "b_to_a")}
        )
        self.discriminator = nn.ModuleDict(
            {
                kind: PatchGAN(data.channels, width=discriminator_width, layers=discriminator_layers, norm="instance")
                for kind in ("a", "b")
            }
        )
        self.history = nn.ModuleDict({kind: History(history, data.shape) for kind in ("a", "b")})
        self.apply(init_normal)

    def play(self, batch: Batch) -> Iterator[Turn]:
        """Play one step: both generators, then both discriminators on images of this and earlier steps."""
        assert isinstance(batch, Unpaired)
        a, b = batch
        fake_b, fake_a = self.generator["a_to_b"](a), self.generator["b_to_a"](b)
        losses = {
            "adversarial_a": self.adversarial * self.against("a", a, fake_a),
            "adversarial_b": self.adversarial * self.against("b", b, fake_b),
            "cycle_a": self.cycle * l1_loss(self.generator["b_to_a"](fake_b), a),
            "cycle_b": self.cycle * l1_loss(self.generator["a_to_b"](fake_a), b),
        }
        if self.identity:
            weight = self.cycle * self.identity
            losses["identity_a"] = weight * l1_loss(self.generator["b_to_a"](a), a)
            losses["identity_b"] = weight * l1_loss(self.generator["a_to_b"](b), b)
        yield Turn(self.generator, losses)
        yield self.discriminators_turn(
            {"a": (a, self.history["a"](fake_a.detach())), "b": (b, self.history["b"](fake_b.detach()))}
        )

    def against(self, kind: str, real: Tensor, fake: Tensor) -> Tensor:
        """Return the adversarial loss of the generator that makes images of a kind."""
        return self.loss.generator(fake=self.logits(kind, fake), real=lambda: self.logits(kind, real))

    def discriminators_turn(self, images: dict[str, tuple[Tensor, Tensor]]) -> Turn:
        """Return the turn of both discriminators, on real and fake images of each kind; the fake ones hold no graph."""
        losses, logits = {}, []
        for kind, (real, fake) in images.items():
            pair = self.logits(kind, real), self.logits(kind, fake)
            own, _ = self.loss.discriminator(*pair, partial(self.logits, kind), real, fake)
            losses.update({f"{name}_{kind}": loss for name, loss in own.items()})
            logits.append(pair)
        of_real, of_fake = (torch.cat(both) for both in zip(*logits, strict=True))
        return Turn(self.discriminator, losses, self.loss.discriminator_stats(real=of_real, fake=of_fake))

    def logits(self, kind: str, images: Tensor) -> Tensor:
        """Return the logits of images by the discriminator of a kind, after augmentation: [N, 1, H, W]."""
        return self.discriminator[kind](self.loss.augmented(images))

    def sample(self, prompt: GeneratorInput) -> Tensor:
        """Translate each row's source to the kind of its label, 0 for `a` and 1 for `b`: [N, C, H, W]."""
        images = torch.empty_like(prompt.source)
        for label, way in enumerate(("b_to_a", "a_to_b")):
            rows = prompt.labels == label
            if rows.any():
                images[rows] = self.generator[way](prompt.source[rows])
        return images


class ResNet(nn.Sequential):
    """A generator: two convolutions that halve an image, residual blocks, two that double it. App. 7.2.

    With width 64 and 9 blocks c7s1-64, d128, d256, R256 (9 times), u128, u64, c7s1-3, after Johnson et al. 2016,
    arXiv:1603.08155.

    Shape:
        [N, channels, H, W] -> the same, -1 to 1; H and W are multiples of 4.
    """

    def __init__(self, channels: int, *, width: int, blocks: int) -> None:
        super().__init__(
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels, width, 7),
            *_normalised(width),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            *_normalised(2 * width),  # [N, 2 * width, H/2, W/2]
            nn.Conv2d(2 * width, 4 * width, 3, 2, 1),
            *_normalised(4 * width),  # [N, 4 * width, H/4, W/4]
            *(Residual(4 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, output_padding=1),
            *_normalised(2 * width),
            nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1),
            *_normalised(width),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, channels, 7),
            nn.Tanh(),
        )


class Residual(nn.Module):
    """Two convolutions whose output is added to their input [N, width, H, W]. He et al. 2016, arXiv:1512.03385."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            *_normalised(width),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, images: Tensor) -> Tensor:
        return images + self.layers(images)


class History(nn.Module):
    """Fake images of earlier steps for a discriminator. Sec. 4, after Shrivastava et al. 2017, arXiv:1612.07828.

    With them it does not forget a generator's earlier mistakes (sec. 2.3 there).

    Args:
        size: images that are kept; with 0 every image is shown once.
        shape: of an image, (C, H, W).
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape), persistent=False)
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def forward(self, fake: Tensor) -> Tensor:
        """Return images for the discriminator in place of new ones [N, C, H, W].

        Until the history is full it keeps each one; then every second one, on average, is exchanged for an old one.
        """
        return torch.cat([self._exchanged(image) for image in fake[:, None].unbind()]) if self.size else fake

    def _exchanged(self, image: Tensor) -> Tensor:
        """Keep, exchange or return one image; all in tensors, as a GPU would wait for an `if`."""
        full = self.filled >= self.size
        exchange = full & (torch.rand((), device=image.device) < 0.5)
        place = torch.where(full, torch.randint(self.size, (), device=image.device), self.filled)[None]
        old = self.images.index_select(0, place)
        self.images.index_copy_(0, place, torch.where(full & ~exchange, old, image))
        self.filled += ~full
        return torch.where(exchange, old, image)


def _normalised(width: int) -> Iterator[nn.Module]:
    yield nn.InstanceNorm2d(width)
    yield nn.ReLU()
