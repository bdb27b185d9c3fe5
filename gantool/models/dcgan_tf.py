"""The DCGAN of TensorFlow's tutorial for 28x28 digits, layer for layer, with Keras' own defaults."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from gantool.batches import Batch, DataSpec, Labeled
from gantool.errors import RecipeError
from gantool.losses import Adversarial
from gantool.models.base import NoiseModel, Turn
from gantool.models.blocks import ConvTranspose2d, Dropout
from gantool.schema import Count, Fraction

SLOPE = 0.3  # of Keras' LeakyReLU


class DCGANTF(NoiseModel):
    """5x5 convolutions with 'same' padding; both players move at once, from the same forward passes.

    Args:
        data: images whose size is a multiple of 4.
        loss: the adversarial loss.
        latent_dim: numbers in a latent.
        dropout: share of the discriminator's hidden activations that is dropped.

    Raises:
        RecipeError: the size is not a multiple of 4.
    """

    def __init__(self, data: DataSpec, loss: Adversarial, *, latent_dim: Count = 100, dropout: Fraction = 0.3) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        if data.height % 4 or data.width % 4:
            size = f"{data.height}x{data.width}"
            near = max(4, round(data.height / 4) * 4)
            raise RecipeError(f"data.size: dcgan_tf halves an image twice, which {size} does not allow; try {near}")
        height, width = data.height // 4, data.width // 4
        features = 256 * height * width
        self.generator = nn.Sequential(
            nn.Linear(latent_dim, features, bias=False),
            _norm(nn.BatchNorm1d, features),
            nn.LeakyReLU(SLOPE),
            nn.Unflatten(1, (256, height, width)),
            *_grow(256, 128, stride=1),  # [N, 128, H/4, W/4]
            *_grow(128, 64, stride=2),  # [N, 64, H/2, W/2]
            *_transposed(64, data.channels, stride=2),  # [N, C, H, W]
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            *_shrink(data.channels, 64, dropout),  # [N, 64, H/2, W/2]
            *_shrink(64, 128, dropout),  # [N, 128, H/4, W/4]
            nn.Flatten(),
            nn.Linear(128 * height * width, 1),
        )
        self.apply(_keras_start)

    def play(self, batch: Batch) -> Iterator[Turn | tuple[Turn, ...]]:
        """Play one step: one pass of each network, from which both players move together."""
        assert isinstance(batch, Labeled)
        real = batch.images
        fake = self.generator(self.latents(real))
        real_scores, fake_scores = self.score_both(real, fake)
        against = {
            "adversarial": self.loss(real=real_scores, fake=fake_scores),
            **self.loss.penalties(self.judged, real, fake),
        }
        yield (
            Turn(self.discriminator, against, self.loss.answers(real=real_scores, fake=fake_scores)),
            Turn(self.generator, {"adversarial": self.loss.generator(fake=fake_scores, real=lambda: real_scores)}),
        )


def _grow(channels: int, width: int, stride: int) -> Iterator[nn.Module]:
    yield from _transposed(channels, width, stride)
    yield _norm(nn.BatchNorm2d, width)
    yield nn.LeakyReLU(SLOPE)


def _transposed(channels: int, width: int, stride: int) -> Iterator[nn.Module]:
    """A transposed convolution with Keras' 'same' padding: the size times `stride`.

    Of the kernel - stride pixels too many, the odd one is cut at the end; torch cuts both sides alike.
    """
    start, end = (5 - stride) // 2, (5 - stride + 1) // 2
    yield ConvTranspose2d(channels, width, 5, stride, start, bias=False)
    if end > start:
        yield nn.ZeroPad2d((0, start - end, 0, start - end))  # negative: cuts


def _shrink(channels: int, width: int, dropout: float) -> Iterator[nn.Module]:
    """A convolution of stride 2 with Keras' 'same' padding: of 3 pixels, 1 before and 2 after."""
    yield nn.ZeroPad2d((1, 2, 1, 2))
    yield nn.Conv2d(channels, width, 5, 2)
    yield nn.LeakyReLU(SLOPE)
    yield Dropout(dropout)


def _norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], features: int) -> nn.Module:
    return kind(features, eps=1e-3, momentum=0.01)  # Keras' epsilon, and 1 - Keras' momentum of 0.99


def _keras_start(module: nn.Module) -> None:
    """Start as Keras does: Glorot uniform weights, zero biases. Glorot and Bengio 2010."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
