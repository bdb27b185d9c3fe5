"""Deep convolutional GAN with the recipe's own convolutions. Radford et al. 2016, arXiv:1511.06434."""

from __future__ import annotations

from torch import nn

from gantool.batches import ImageSpec
from gantool.models.base import UnconditionalGAN
from gantool.models.blocks import Convolutions, check_ends, downsampling_layers, init_generator, upsampling_layers
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count, Fraction


class DCGAN(UnconditionalGAN):
    """Transposed convolutions from a latent of 1x1 pixels up to an image, convolutions from it down to one score.

    Departs from the paper: dropout in the discriminator, which starts as torch does, and the recipe's own layers.

    Args:
        latent_dim: numbers in a latent.
        generator: the transposed convolutions; BatchNorm and ReLU follow all but the last, Tanh the last.
        discriminator: the convolutions; LeakyReLU 0.2 and dropout follow all but the last, BatchNorm stands before
            each LeakyReLU but the first.
        dropout: share of the discriminator's hidden activations that is dropped.
    """

    def __init__(
        self,
        data: ImageSpec,
        loss: Adversarial,
        *,
        latent_dim: Count = 100,
        generator: Convolutions,
        discriminator: Convolutions,
        dropout: Fraction = 0.25,
    ) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        check_ends(data, generator, discriminator)
        self.generator = nn.Sequential(*upsampling_layers(latent_dim, generator))
        self.discriminator = nn.Sequential(
            *downsampling_layers(data.channels, discriminator, norm=True, dropout=dropout)
        )
        self.generator.apply(init_generator)
