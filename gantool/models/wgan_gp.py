"""Wasserstein GAN with gradient penalty, of convolutions. Gulrajani et al. 2017, arXiv:1704.00028."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from gantool.batches import Batch, ImageSpec, Labeled
from gantool.models.base import Turn, UnconditionalGAN
from gantool.models.blocks import Convolutions, check_ends, downsampling_layers, init_generator, upsampling_layers
from gantool.models.losses import Adversarial
from gantool.recipe.schema import Count


class WGANGP(UnconditionalGAN):
    """The networks of `dcgan`, without BatchNorm in the critic, which takes several turns for each of the generator's.

    A critic that is penalised at each image must not look at a batch as a whole (sec. 4, "No critic batch
    normalization"). Departs from the paper: all turns of a step see the same real images, each with new fake ones.

    Args:
        latent_dim: numbers in a latent.
        generator: the transposed convolutions; BatchNorm and ReLU follow all but the last, Tanh the last.
        discriminator: the critic's convolutions; LeakyReLU 0.2 follows all but the last.
        critic_steps: turns of the critic for each of the generator's.
    """

    def __init__(
        self,
        data: ImageSpec,
        loss: Adversarial,
        *,
        latent_dim: Count = 100,
        generator: Convolutions,
        discriminator: Convolutions,
        critic_steps: Count = 5,
    ) -> None:
        super().__init__(data, loss, latent_dim=latent_dim)
        check_ends(data, generator, discriminator)
        self.critic_steps = critic_steps
        self.generator = nn.Sequential(*upsampling_layers(latent_dim, generator))
        self.discriminator = nn.Sequential(*downsampling_layers(data.channels, discriminator, norm=False))
        self.generator.apply(init_generator)

    def play(self, batch: Batch) -> Iterator[Turn]:
        """Play one step: the critic's turns, each against new fake images, then the generator's. Alg. 1."""
        assert isinstance(batch, Labeled)
        real = batch.images
        for _ in range(self.critic_steps):
            fake = self.generator(self.latents(real)).detach()
            yield self.discriminators_turn(real, fake)
        fake = self.generator(self.latents(real))
        yield self.generators_turn(real, fake)
