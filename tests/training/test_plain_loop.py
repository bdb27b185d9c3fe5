"""The engine's step against the plain training loop that a textbook would write, to the last digits."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from gantool import devices, models
from gantool.batches import ImageSpec, Labeled
from gantool.training import engine
from gantool.training.trainer import Trainer
from torch import nn

CPU = torch.device("cpu")
SEED = 11
BATCH = 4
STEPS = 20


def without_dropout(name, changes=None):
    recipe = engine.open_recipe(name, changes)
    if hasattr(recipe.model, "dropout"):
        recipe = engine.change(recipe, {"model.dropout": 0.0})
    block = recipe.data
    classes = ("Egg", "Rice", "Soup") if name == "cgan_egg" else ("digit",)
    torch.manual_seed(0)
    return recipe, models.build(recipe, ImageSpec(block.channels or 3, block.height, block.width, classes)).double()


def batches(model, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.rand(BATCH, *model.data.shape, generator=generator, dtype=torch.float64) * 2 - 1
        yield Labeled(images, torch.randint(len(model.data.classes), (BATCH,), generator=generator))


def plain_adam(network, recipe):
    settings = recipe.train.optimizer
    return torch.optim.Adam(network.parameters(), lr=settings.lr, betas=settings.betas, foreach=False, fused=False)


def alternating(generator, discriminator, recipe, data):
    """Train as the course notes do: real pass, fake pass, then the generator on the same fake images."""
    criterion = nn.BCEWithLogitsLoss()
    d_optimizer, g_optimizer = plain_adam(discriminator, recipe), plain_adam(generator, recipe)
    embedding = getattr(generator, "embedding", None)  # a conditional model takes a class beside each image
    told = []
    for images, labels in data:
        real_labels, fake_labels = torch.ones(BATCH, 1).double(), torch.zeros(BATCH, 1).double()
        own = [] if embedding is None else [labels]
        made = [] if embedding is None else [torch.randint(embedding.num_embeddings, (BATCH,))]
        latents = torch.randn(BATCH, recipe.model.latent_dim, dtype=torch.float64)
        fake_images = generator(latents, *made)

        d_optimizer.zero_grad()
        d_loss_real = criterion(discriminator(images, *own), real_labels)
        d_loss_fake = criterion(discriminator(fake_images.detach(), *made), fake_labels)
        d_loss = d_loss_real + d_loss_fake
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = criterion(discriminator(fake_images, *made), real_labels)
        g_loss.backward()
        g_optimizer.step()
        told.append((d_loss.item(), g_loss.item()))
    return told


def simultaneous(generator, discriminator, recipe, data):
    """Both players from the same passes: all gradients first, as two gradient tapes take them, then both steps."""
    cross_entropy = nn.BCEWithLogitsLoss()
    d_optimizer, g_optimizer = plain_adam(discriminator, recipe), plain_adam(generator, recipe)
    told = []
    for images, _ in data:
        noise = torch.randn(BATCH, recipe.model.latent_dim, dtype=torch.float64)
        generated_images = generator(noise)
        real_output = discriminator(images)
        fake_output = discriminator(generated_images)
        gen_loss = cross_entropy(fake_output, torch.ones_like(fake_output))
        real_loss = cross_entropy(real_output, torch.ones_like(real_output))
        fake_loss = cross_entropy(fake_output, torch.zeros_like(fake_output))
        disc_loss = real_loss + fake_loss
        generator_gradients = torch.autograd.grad(gen_loss, list(generator.parameters()), retain_graph=True)
        discriminator_gradients = torch.autograd.grad(disc_loss, list(discriminator.parameters()))
        for network, gradients in ((generator, generator_gradients), (discriminator, discriminator_gradients)):
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
        g_optimizer.step()
        d_optimizer.step()
        told.append((disc_loss.item(), gen_loss.item()))
    return told


def idle_numbers(network):
    """Names of the biases that a BatchNorm right behind them takes away again, and of the means that it then keeps."""
    found = set()
    for (before, layer), (after, norm) in pairwise(network.named_modules()):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and getattr(layer, "bias", None) is not None:
            found |= {f"{before}.bias", f"{after}.running_mean"}
    return found


@pytest.mark.parametrize(
    ("name", "loop", "changes"),
    [
        ("gan28", alternating, {}),
        ("gan14", alternating, {}),
        ("dcgan14", alternating, {}),
        ("dcgan28", alternating, {}),
        ("dcgan_tf28", simultaneous, {}),
        ("cgan_egg", alternating, {"data.size": 16}),  # whose layers grow with the size, and the time with them
    ],
)
def test_a_recipe_trains_exactly_as_the_plain_loop_does(name, loop, changes):
    recipe, model = without_dropout(name, changes)
    generator, discriminator = deepcopy(model.generator), deepcopy(model.discriminator)
    trainer = Trainer(model, recipe.train, CPU)
    trainer.randomness.update(devices.rng_states(CPU, SEED))
    mine = []
    with devices.rng_scope(CPU, trainer.randomness):
        for batch in batches(model, STEPS):
            told = trainer.step(batch)
            mine.append((told["discriminator/adversarial"].item(), told["generator/adversarial"].item()))

    with devices.rng_scope(CPU, devices.rng_states(CPU, SEED)):
        theirs = loop(generator, discriminator, recipe, batches(model, STEPS))

    torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=0, atol=1e-12)
    for own, plain in ((model.generator, generator), (model.discriminator, discriminator)):
        for (key, value), wanted in zip(own.state_dict().items(), plain.state_dict().values(), strict=True):
            # A bias in front of BatchNorm has no effect and no gradient but rounding, which Adam turns into steps.
            tolerance = 1e-9 if key in idle_numbers(own) else 1e-10
            torch.testing.assert_close(
                value, wanted, rtol=0, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_the_loops_really_train():
    recipe, model = without_dropout("gan14")
    before = deepcopy(model.state_dict())
    with devices.rng_scope(CPU, devices.rng_states(CPU, SEED)):
        alternating(model.generator, model.discriminator, recipe, batches(model, 2))
    assert not any(torch.equal(value, before[key]) for key, value in model.state_dict().items())
