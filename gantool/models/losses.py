"""Adversarial losses, one function each, and gradient penalties.

A loss takes the discriminator's logits: one number an image or, from a PatchGAN, one a patch. It takes `fake` alone in
the generator's turn and `real` too in the discriminator's, whose loss is the sum of a real and a fake part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, TypeAlias

import torch
from annotated_types import MinLen
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import relu, softplus

from gantool.errors import RecipeError, unknown
from gantool.models.augment import Augmentation, augmented
from gantool.recipe.schema import Weight

LossFunction: TypeAlias = Callable[..., Tensor]
"""From logits of any shape, `fake` and in the discriminator's turn `real`, to a scalar that the player minimises."""


def non_saturating(*, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Binary cross-entropy; the generator raises log D(G(z)). Goodfellow et al. 2014, arXiv:1406.2661, sec. 3."""
    if real is None:
        return cross_entropy(fake, torch.ones_like(fake))
    return cross_entropy(real, torch.ones_like(real)) + cross_entropy(fake, torch.zeros_like(fake))


def minimax(*, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Binary cross-entropy; the generator lowers log(1 - D(G(z))). Goodfellow et al. 2014, eq. 1."""
    if real is None:
        return -cross_entropy(fake, torch.zeros_like(fake))
    return non_saturating(fake=fake, real=real)


def least_squares(*, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Half the squared distance to 1 for real, 0 for fake. Mao et al. 2017, arXiv:1611.04076, eq. 9."""
    if real is None:
        return 0.5 * (fake - 1).square().mean()
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def hinge(*, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Margin of 1 on either side. Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16."""
    if real is None:
        return -fake.mean()
    return relu(1 - real).mean() + relu(1 + fake).mean()


def wasserstein(*, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Difference of mean scores; needs a gradient penalty. Arjovsky et al. 2017, arXiv:1701.07875."""
    if real is None:
        return -fake.mean()
    return fake.mean() - real.mean()


def relativistic(*, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """How much more real one of a pair is than the other. Jolicoeur-Martineau 2019, arXiv:1807.00734, as RpGAN.

    Huang et al. 2024, arXiv:2501.05441, eq. 2. The generator minimises the same with the roles exchanged, so both turns
    need both logits.
    """
    if real is None:
        raise ValueError("a relativistic loss compares two scores; call Adversarial.generator")
    return softplus(fake - real).mean()


@dataclass(frozen=True)
class Loss:
    """A loss, and what its logits mean."""

    function: LossFunction
    border: float | None  # logits above it mean "real"; None if they only rank images
    optimum: float | None  # D(x) and D(G(z)) of a perfect generator; None if the loss sets no such value
    probabilities: bool = False  # whether D(x) is the sigmoid of the logit; else it is the logit


# The optimum is 1/2 for cross-entropy (Goodfellow et al. 2014, prop. 1) and for least squares (Mao et al. 2017, eq. 5).
LOSSES = {
    loss.function.__name__: loss
    for loss in (
        Loss(non_saturating, border=0.0, optimum=0.5, probabilities=True),
        Loss(minimax, border=0.0, optimum=0.5, probabilities=True),
        Loss(least_squares, border=0.5, optimum=0.5),
        Loss(hinge, border=0.0, optimum=None),
        Loss(wasserstein, border=None, optimum=None),
        Loss(relativistic, border=None, optimum=None),
    )
}


@functools.cache
def find_loss(name: str) -> Callable[..., Adversarial]:
    """Return the constructor of the loss called `name`, which takes the other keys of its recipe block.

    Raises:
        RecipeError: no loss has this name.
    """
    if name not in LOSSES:
        raise RecipeError(unknown("loss", name, LOSSES))
    return functools.partial(Adversarial, LOSSES[name])


@dataclass(frozen=True)
class Adversarial:
    """An adversarial loss with the penalties that a recipe adds to it.

    Args:
        loss: the loss.
        gradient_penalty: weight of `gradient_penalty`; 10 is Gulrajani et al.'s. 0 leaves it out.
        r1: weight (gamma) of `r1_penalty` at real images. 0 leaves it out.
        r2: weight (gamma) of the same at fake images. 0 leaves it out.
        augment: what is done to every image before a discriminator sees it; see `augment`.
    """

    loss: Loss
    _: KW_ONLY
    gradient_penalty: Weight = 0.0
    r1: Weight = 0.0
    r2: Weight = 0.0
    augment: Annotated[list[Augmentation], MinLen(1)] | None = None

    def augmented(self, images: Tensor) -> Tensor:
        """Return images after the loss's augmentations, as the discriminator sees them: [N, C, H, W]."""
        return augmented(images, self.augment or ())

    def generator(self, *, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """Return the generator's loss. Only a relativistic loss calls `real`, for the logits of as many real images."""
        if self.loss.function is relativistic:
            return self.loss.function(fake=real(), real=fake)
        return self.loss.function(fake=fake)

    def discriminator(
        self, real_logits: Tensor, fake_logits: Tensor, score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return losses and scores of the discriminator's turn. The penalties need `score`, from images to logits."""
        losses = {"adversarial": self.loss.function(real=real_logits, fake=fake_logits)}
        if self.gradient_penalty:
            losses["gradient_penalty"] = self.gradient_penalty * gradient_penalty(score, real, fake)
        if self.r1:
            losses["r1"] = 0.5 * self.r1 * r1_penalty(score, real)
        if self.r2:
            losses["r2"] = 0.5 * self.r2 * r1_penalty(score, fake)
        return losses, self.discriminator_stats(real=real_logits, fake=fake_logits)

    @property
    def optimum(self) -> float | None:
        """D(x) and D(G(z)) of a perfect generator; None if the loss sets no such value."""
        return self.loss.optimum

    def discriminator_stats(self, *, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return D(x) and D(G(z)), the mean scores of real and fake images, and the share that is scored right.

        Scores are probabilities of "real" for the cross-entropy losses and logits for others. `accuracy` is over as
        many real as fake images. For a relativistic loss it is the share of pairs whose real image has the higher
        logit. A Wasserstein critic only ranks images, so it has no accuracy.
        """
        stats = {}
        border = self.loss.border
        if border is not None:
            stats["accuracy"] = 0.5 * ((real > border).float().mean() + (fake <= border).float().mean())
        if self.loss.function is relativistic:
            stats["accuracy"] = (real > fake).float().mean()
        if self.loss.probabilities:
            real, fake = real.sigmoid(), fake.sigmoid()
        return {"real": real.mean().detach(), "fake": fake.mean().detach(), **stats}


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Squared distance of the gradient's norm from 1, between real and fake images.

    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3, without its weight.

    Shape:
        real, fake: [N, C, H, W] -> scalar.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real, share).requires_grad_()
    return (_gradient(score, between).flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(score: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Squared norm of the gradient at real images. Mescheder et al. 2018, arXiv:1801.04406, eq. 9, without gamma/2.

    At fake images it is R2, eq. 10.

    Shape:
        real: [N, C, H, W] -> scalar.
    """
    return _gradient(score, real.detach().requires_grad_()).square().flatten(1).sum(1).mean()


def _gradient(score: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(score(images).sum(), images, create_graph=True)
    return gradient
