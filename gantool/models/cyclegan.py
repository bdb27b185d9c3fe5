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
from gantool.errors import RecipeError
from gantool.models.base import GeneratorInput, Translator, Turn
from gantool.models.blocks import PatchGAN, PatchLayers, init_normal
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count, Weight

Length = Annotated[int, Interval(ge=0, le=10_000)]


class CycleGAN(Translator):
    """Two generators, from kind `a` to kind `b` and back, which together must come back to where they began.

    Each kind has a PatchGAN that judges images of it. As in the authors' code the generators move first. The paper
    halves the discriminators' loss, which to Adam is the same.

    Args:
        data: images of two kinds with sides that are multiples of 4.
        loss: the adversarial loss; the paper's is `least_squares`.
        width: channels of a generator's first convolution.
        blocks: residual blocks of a generator; null for 9 from 256 pixels on and 6 below (app. 7.2).
        adversarial: weight of the generators' adversarial losses. 2 for the paper's squared distance, which
            `least_squares` halves.
        cycle: weight of the distance of an image to what came back (lambda, eq. 3).
        identity: how far a generator is to leave images alone that are of its kind already (sec. 5.2): the weight of
            that distance as a share of `cycle`. 0 leaves it out.
        history: fake images that are kept to be shown to a discriminator again (sec. 4).
        discriminator_width: channels of a PatchGAN's first convolution.
        discriminator_layers: convolutions that halve in a PatchGAN; 3 see patches of 70x70 pixels.

    Raises:
        RecipeError: the images cannot be halved twice.
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
        if data.height % 4 or data.width % 4:
            near = [max(8, round(side / 4) * 4) for side in (data.height, data.width)]
            raise RecipeError(
                f"data.size: cyclegan halves an image twice, which {data.height}x{data.width} does not allow; "
                f"try {near if data.height != data.width else near[0]}"
            )
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
        """Play one step: both generators, then both discriminators on images made before that and earlier."""
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
        """Return the loss by which a generator makes images that pass as of a kind."""
        return self.loss.generator(fake=self.logits(kind, fake), real=lambda: self.logits(kind, real))

    def discriminators_turn(self, shown: dict[str, tuple[Tensor, Tensor]]) -> Turn:
        """Return both discriminators' move on real and fake images of their kind, the latter without a graph."""
        losses, scores = {}, []
        for kind, (real, fake) in shown.items():
            real_scores, fake_scores = self.logits(kind, real), self.logits(kind, fake)
            own, _ = self.loss.discriminator(real_scores, fake_scores, partial(self.logits, kind), real, fake)
            losses.update({f"{name}_{kind}": loss for name, loss in own.items()})
            scores.append((real_scores, fake_scores))
        real_scores, fake_scores = (torch.cat(both) for both in zip(*scores, strict=True))
        return Turn(self.discriminator, losses, self.loss.discriminator_stats(real=real_scores, fake=fake_scores))

    def logits(self, kind: str, images: Tensor) -> Tensor:
        """Return the scores of images by the discriminator of a kind, as it is shown them: [N, 1, H, W]."""
        scores: Tensor = self.discriminator[kind](self.loss.augmented(images))
        return scores

    def sample(self, prompt: GeneratorInput) -> Tensor:
        """Translate each row's source to the kind that its label says, 0 for `a` and 1 for `b`: [N, C, H, W]."""
        images = torch.empty_like(prompt.source)
        for label, way in enumerate(("b_to_a", "a_to_b")):
            rows = prompt.labels == label
            if rows.any():
                images[rows] = self.generator[way](prompt.source[rows])
        return images


class ResNet(nn.Sequential):
    """A generator: halves an image twice, changes it in residual blocks, doubles it twice. App. 7.2.

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
    """Two convolutions whose result is added to what went in. He et al. 2016, arXiv:1512.03385.

    Shape:
        [N, width, H, W] -> the same.
    """

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
        """Return the sum."""
        return images + self.layers(images)


class History(nn.Module):
    """Fake images of earlier steps, which a discriminator sees again. Sec. 4, after Shrivastava et al. 2017.

    So it does not forget what a generator has left behind, and the two do not chase each other in circles
    (arXiv:1612.07828, sec. 2.3).

    Args:
        size: images that are kept; with 0 every image is shown once.
        shape: of an image, (C, H, W).

    Shape:
        [N, C, H, W] -> the same.
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
        """Return what a discriminator is shown in place of new images.

        Until the history is full it keeps each one; then one in two is exchanged for an old one.
        """
        if not self.size:
            return fake
        return torch.cat([self._exchanged(image) for image in fake[:, None].unbind()])

    def _exchanged(self, image: Tensor) -> Tensor:
        """Keep, exchange or pass on one image; all in tensors, as what is decided is known to the device only."""
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
