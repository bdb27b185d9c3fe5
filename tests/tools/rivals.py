"""The course notes' networks and training loops, as a person writes them in torch: what the bench races against.

Nothing here is gantool's. The layers are torch's own, the discriminators end in Sigmoid where the notes' do, Adam is
torch's default, the discriminator sees real and fake images in passes of their own, and both losses are read in each
step. The loops measure nothing and write nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]
LATENT = 100


class Rival(NamedTuple):
    """Both networks, and the loop that trains them."""

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


def gan28() -> Rival:
    generator = nn.Sequential(
        nn.Linear(LATENT, 256),
        nn.ReLU(),
        nn.Linear(256, 512),
        nn.ReLU(),
        nn.Linear(512, 1024),
        nn.ReLU(),
        nn.Linear(1024, 28 * 28),
        nn.Tanh(),
        nn.Unflatten(1, (1, 28, 28)),
    )
    discriminator = nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, 1024),
        nn.LeakyReLU(0.2),
        nn.Linear(1024, 512),
        nn.LeakyReLU(0.2),
        nn.Linear(512, 256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, 1),
        nn.Sigmoid(),
    )
    return Rival(generator, discriminator, 2e-4, (0.9, 0.999), 64)


def gan14() -> Rival:
    generator = nn.Sequential(
        nn.Linear(LATENT, 128),
        nn.LeakyReLU(0.2),
        nn.Linear(128, 14 * 14),
        nn.Tanh(),
        nn.Unflatten(1, (1, 14, 14)),
    )
    discriminator = nn.Sequential(
        nn.Flatten(),
        nn.Linear(14 * 14, 256),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Linear(256, 1),
        nn.Sigmoid(),
    )
    return Rival(generator, discriminator, 2e-4, (0.5, 0.999), 128)


def dcgan14() -> Rival:
    generator = nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 256, 7, 1, 0),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.ConvTranspose2d(256, 1, 4, 2, 1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.25),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.25),
        nn.Conv2d(64, 1, 3, 2, 0),
        nn.Flatten(),
        nn.Sigmoid(),
    )
    return Rival(generator, discriminator, 2e-4, (0.5, 0.999), 128)


def dcgan28() -> Rival:
    generator = nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 256, 7, 1, 0),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.ConvTranspose2d(256, 256, 4, 2, 1),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.ConvTranspose2d(256, 1, 4, 2, 1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.25),
        nn.Conv2d(32, 64, 5, 2, 0),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.25),
        nn.Conv2d(64, 1, 4, 2, 0),
        nn.Flatten(),
        nn.Sigmoid(),
    )
    return Rival(generator, discriminator, 2e-4, (0.5, 0.999), 128)


def dcgan_tf28() -> Rival:
    """The TensorFlow tutorial's, with Keras' defaults but for the padding, which is torch's own: alike on both sides.

    Keras pads 1 before and 2 after. A port with padding 2 has the same sizes, parameters and number of products.
    """
    generator = nn.Sequential(
        nn.Linear(LATENT, 7 * 7 * 256, bias=False),
        nn.BatchNorm1d(7 * 7 * 256, eps=1e-3, momentum=0.01),
        nn.LeakyReLU(0.3),
        nn.Unflatten(1, (256, 7, 7)),
        nn.ConvTranspose2d(256, 128, 5, 1, padding=2, bias=False),
        nn.BatchNorm2d(128, eps=1e-3, momentum=0.01),
        nn.LeakyReLU(0.3),
        nn.ConvTranspose2d(128, 64, 5, 2, padding=2, output_padding=1, bias=False),
        nn.BatchNorm2d(64, eps=1e-3, momentum=0.01),
        nn.LeakyReLU(0.3),
        nn.ConvTranspose2d(64, 1, 5, 2, padding=2, output_padding=1, bias=False),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 5, 2, padding=2),
        nn.LeakyReLU(0.3),
        nn.Dropout(0.3),
        nn.Conv2d(64, 128, 5, 2, padding=2),
        nn.LeakyReLU(0.3),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(7 * 7 * 128, 1),
    )
    return Rival(generator, discriminator, 1e-4, (0.9, 0.999), 256)


class ConditionalGenerator(nn.Module):
    """Latents [N, 100] and labels [N] to images [N, 3, size, size]."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, LATENT)
        self.layers = nn.Sequential(
            nn.Linear(2 * LATENT, 128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, 3 * size * size),
            nn.Tanh(),
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
        self.layers = nn.Sequential(
            nn.Linear(2 * pixels, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.layers(torch.cat((self.embedding(labels), images.flatten(1)), 1))


def cgan_egg(classes: int = 1, size: int = 64) -> Rival:
    return Rival(ConditionalGenerator(classes, size), ConditionalDiscriminator(classes, size), 2e-4, (0.5, 0.999), 32)


def alternating(rival: Rival, loader: Batches) -> Iterator[int]:
    """Train epoch after epoch: real pass, fake pass, then the generator. Yields the images of each step."""
    generator, discriminator = rival.generator, rival.discriminator
    criterion = nn.BCELoss()
    g_optimizer, d_optimizer = rival.optimizers()
    while True:
        for images, _ in loader:
            count = len(images)
            real_labels, fake_labels = torch.ones(count, 1), torch.zeros(count, 1)
            fake_images = generator(torch.randn(count, LATENT))

            d_optimizer.zero_grad()
            d_loss_real = criterion(discriminator(images), real_labels)
            d_loss_fake = criterion(discriminator(fake_images.detach()), fake_labels)
            d_loss = d_loss_real + d_loss_fake
            d_loss.backward()
            d_optimizer.step()

            g_optimizer.zero_grad()
            g_loss = criterion(discriminator(fake_images), real_labels)
            g_loss.backward()
            g_optimizer.step()
            d_loss.item(), g_loss.item()
            yield count


def conditional(rival: Rival, loader: Batches, classes: int = 1) -> Iterator[int]:
    """The same with a class beside each image, real or made."""
    generator, discriminator = rival.generator, rival.discriminator
    criterion = nn.BCELoss()
    g_optimizer, d_optimizer = rival.optimizers()
    while True:
        for images, labels in loader:
            count = len(images)
            valid, fake = torch.ones(count, 1), torch.zeros(count, 1)
            made_labels = torch.randint(classes, (count,))
            made_images = generator(torch.randn(count, LATENT), made_labels)

            d_optimizer.zero_grad()
            d_loss_real = criterion(discriminator(images, labels), valid)
            d_loss_fake = criterion(discriminator(made_images.detach(), made_labels), fake)
            d_loss = d_loss_real + d_loss_fake
            d_loss.backward()
            d_optimizer.step()

            g_optimizer.zero_grad()
            g_loss = criterion(discriminator(made_images, made_labels), valid)
            g_loss.backward()
            g_optimizer.step()
            d_loss.item(), g_loss.item()
            yield count


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


NETWORKS = {
    "gan14": gan14,
    "gan28": gan28,
    "cgan_egg": cgan_egg,
    "dcgan14": dcgan14,
    "dcgan28": dcgan28,
    "dcgan_tf28": dcgan_tf28,
}
LOOPS = {"cgan_egg": conditional, "dcgan_tf28": simultaneous}
"""The loop of each recipe; `alternating` of the others."""
