"""The course notes' networks and training loops, as a person writes them in torch: what the bench races against.

Nothing here is gantool's. The layers are torch's own, the discriminators end in Sigmoid where the notes' do, Adam is
torch's default, the discriminator sees real and fake images in separate passes, and both losses are read in each step.
The loops measure nothing and write nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]
LATENT = 100


class Rival(NamedTuple):
    """Both networks, and the settings of the loop that trains them."""

    generator: nn.Module
    discriminator: nn.Module
    lr: float
    betas: tuple[float, float]
    batch_size: int

    def optimizers(self) -> tuple[torch.optim.Adam, torch.optim.Adam]:
        """Return the generator's and the discriminator's optimizer."""
        generator, discriminator = (
            torch.optim.Adam(network.parameters(), lr=self.lr, betas=self.betas)
            for network in (self.generator, self.discriminator)
        )
        return generator, discriminator


def dense(*widths: int, activation: type[nn.Module] | None = None, slope: float = 0.2) -> list[nn.Module]:
    """Return linear layers of these widths, each with an activation, LeakyReLU by default."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation() if activation else nn.LeakyReLU(slope)]
    return layers


def up(inputs: int, outputs: int, *shape: int) -> list[nn.Module]:
    """Return a transposed convolution with BatchNorm and ReLU."""
    return [nn.ConvTranspose2d(inputs, outputs, *shape), nn.BatchNorm2d(outputs), nn.ReLU()]


def down(inputs: int, outputs: int, *shape: int, normed: bool = True) -> list[nn.Module]:
    """Return a convolution with LeakyReLU and dropout."""
    norm = [nn.BatchNorm2d(outputs)] if normed else []
    return [nn.Conv2d(inputs, outputs, *shape), *norm, nn.LeakyReLU(0.2), nn.Dropout(0.25)]


def image(side: int) -> list[nn.Module]:
    return [nn.Tanh(), nn.Unflatten(1, (1, side, side))]


def gan28() -> Rival:
    hidden = dense(LATENT, 256, 512, 1024, activation=nn.ReLU)
    generator = nn.Sequential(*hidden, nn.Linear(1024, 28 * 28), *image(28))
    discriminator = nn.Sequential(nn.Flatten(), *dense(28 * 28, 1024, 512, 256), nn.Linear(256, 1), nn.Sigmoid())
    return Rival(generator, discriminator, 2e-4, (0.9, 0.999), 64)


def gan14() -> Rival:
    generator = nn.Sequential(*dense(LATENT, 128), nn.Linear(128, 14 * 14), *image(14))
    hidden = dense(14 * 14, 256)
    discriminator = nn.Sequential(nn.Flatten(), *hidden, nn.Dropout(0.3), nn.Linear(256, 1), nn.Sigmoid())
    return Rival(generator, discriminator, 2e-4, (0.5, 0.999), 128)


def dcgan14() -> Rival:
    start = [nn.Unflatten(1, (LATENT, 1, 1)), *up(LATENT, 256, 7, 1, 0)]
    generator = nn.Sequential(*start, nn.ConvTranspose2d(256, 1, 4, 2, 1), nn.Tanh())
    hidden = [*down(1, 32, 3, 2, 1, normed=False), *down(32, 64, 3, 2, 1)]
    discriminator = nn.Sequential(*hidden, nn.Conv2d(64, 1, 3, 2, 0), nn.Flatten(), nn.Sigmoid())
    return Rival(generator, discriminator, 2e-4, (0.5, 0.999), 128)


def dcgan28() -> Rival:
    start = [nn.Unflatten(1, (LATENT, 1, 1)), *up(LATENT, 256, 7, 1, 0), *up(256, 256, 4, 2, 1)]
    generator = nn.Sequential(*start, nn.ConvTranspose2d(256, 1, 4, 2, 1), nn.Tanh())
    hidden = [*down(1, 32, 3, 2, 1, normed=False), *down(32, 64, 5, 2, 0)]
    discriminator = nn.Sequential(*hidden, nn.Conv2d(64, 1, 4, 2, 0), nn.Flatten(), nn.Sigmoid())
    return Rival(generator, discriminator, 2e-4, (0.5, 0.999), 128)


def dcgan_tf28() -> Rival:
    """The TensorFlow tutorial's, with Keras' defaults but for the padding, which is torch's own on both sides.

    Keras pads 1 before and 2 after. A port with padding 2 has the same sizes, parameters and number of products.
    """

    def grown(inputs: int, outputs: int, stride: int) -> nn.Module:
        return nn.ConvTranspose2d(inputs, outputs, 5, stride, padding=2, output_padding=stride - 1, bias=False)

    def normed(norm: nn.Module) -> list[nn.Module]:
        norm.eps, norm.momentum = 1e-3, 0.01
        return [norm, nn.LeakyReLU(0.3)]

    generator = nn.Sequential(
        *(nn.Linear(LATENT, 7 * 7 * 256, bias=False), *normed(nn.BatchNorm1d(7 * 7 * 256))),
        *(nn.Unflatten(1, (256, 7, 7)), grown(256, 128, 1), *normed(nn.BatchNorm2d(128))),
        *(grown(128, 64, 2), *normed(nn.BatchNorm2d(64)), grown(64, 1, 2), nn.Tanh()),
    )
    discriminator = nn.Sequential(
        *(nn.Conv2d(1, 64, 5, 2, padding=2), nn.LeakyReLU(0.3), nn.Dropout(0.3)),
        *(nn.Conv2d(64, 128, 5, 2, padding=2), nn.LeakyReLU(0.3), nn.Dropout(0.3)),
        *(nn.Flatten(), nn.Linear(7 * 7 * 128, 1)),
    )
    return Rival(generator, discriminator, 1e-4, (0.9, 0.999), 256)


class ConditionalGenerator(nn.Module):
    """Latents [N, 100] and labels [N] to images [N, 3, size, size]."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, LATENT)
        self.layers = nn.Sequential(
            *(nn.Linear(2 * LATENT, 128), nn.ReLU()),
            *(nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU()),
            *(nn.Linear(256, 512), nn.BatchNorm1d(512), nn.ReLU()),
            *(nn.Linear(512, 3 * size * size), nn.Tanh()),
        )
        self.shape = (3, size, size)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.layers(torch.cat((self.embedding(labels), latents), 1)).view(-1, *self.shape)


class ConditionalDiscriminator(nn.Module):
    """Images [N, 3, size, size] and labels [N] to probabilities [N, 1]."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        pixels = 3 * size * size
        self.embedding = nn.Embedding(classes, pixels)
        self.layers = nn.Sequential(*dense(2 * pixels, 512, 256, 128), nn.Linear(128, 1), nn.Sigmoid())

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.layers(torch.cat((self.embedding(labels), images.flatten(1)), 1))


def cgan_egg(classes: int = 1, size: int = 64) -> Rival:
    return Rival(ConditionalGenerator(classes, size), ConditionalDiscriminator(classes, size), 2e-4, (0.5, 0.999), 32)


def alternating(rival: Rival, loader: Batches, *, conditional: bool = False) -> Iterator[int]:
    """Train epoch after epoch: real pass, fake pass, then the generator. Yields the images of each step.

    A conditional rival has a class, the only one, beside each image.
    """
    generator, discriminator = rival.generator, rival.discriminator
    criterion = nn.BCELoss()
    g_optimizer, d_optimizer = rival.optimizers()
    while True:
        for images, labels in loader:
            count = len(images)
            valid, fake = torch.ones(count, 1), torch.zeros(count, 1)
            real_classes = (labels,) if conditional else ()
            made_classes = (torch.randint(1, (count,)),) if conditional else ()
            made_images = generator(torch.randn(count, LATENT), *made_classes)

            d_optimizer.zero_grad()
            d_loss_real = criterion(discriminator(images, *real_classes), valid)
            d_loss_fake = criterion(discriminator(made_images.detach(), *made_classes), fake)
            d_loss = d_loss_real + d_loss_fake
            d_loss.backward()
            d_optimizer.step()

            g_optimizer.zero_grad()
            g_loss = criterion(discriminator(made_images, *made_classes), valid)
            g_loss.backward()
            g_optimizer.step()
            d_loss.item(), g_loss.item()
            yield count


def conditional(rival: Rival, loader: Batches) -> Iterator[int]:
    return alternating(rival, loader, conditional=True)


def simultaneous(rival: Rival, loader: Batches) -> Iterator[int]:
    """The TensorFlow tutorial's step: one pass of each network, a gradient tape for each, then both steps."""
    generator, discriminator = rival.generator, rival.discriminator
    cross_entropy = nn.BCEWithLogitsLoss()
    g_optimizer, d_optimizer = rival.optimizers()
    while True:
        for images, *_ in loader:
            generated = generator(torch.randn(len(images), LATENT))
            real_output = discriminator(images)
            fake_output = discriminator(generated)
            gen_loss = cross_entropy(fake_output, torch.ones_like(fake_output))
            real_loss = cross_entropy(real_output, torch.ones_like(real_output))
            fake_loss = cross_entropy(fake_output, torch.zeros_like(fake_output))
            disc_loss = real_loss + fake_loss
            gen_gradients = torch.autograd.grad(gen_loss, list(generator.parameters()), retain_graph=True)
            disc_gradients = torch.autograd.grad(disc_loss, list(discriminator.parameters()))
            for network, gradients in ((generator, gen_gradients), (discriminator, disc_gradients)):
                for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                    parameter.grad = gradient
            g_optimizer.step()
            d_optimizer.step()
            gen_loss.item(), disc_loss.item()
            yield len(images)


NETWORKS = {network.__name__: network for network in (gan14, gan28, cgan_egg, dcgan14, dcgan28, dcgan_tf28)}
LOOPS = {"cgan_egg": conditional, "dcgan_tf28": simultaneous}
"""The loop of each recipe; `alternating` for the others."""
