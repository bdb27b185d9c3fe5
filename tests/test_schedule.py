"""Which epochs are measured, by the recipe and the data alone, and what that costs by the prediction."""

from __future__ import annotations

import pytest
import torch
from gantool import models, schedule
from gantool.batches import ImageSpec
from gantool.models import losses, shapes
from gantool.models.base import Classifier, UnconditionalGAN
from gantool.schedule import Work, allowed, measured_epochs, measurement_seconds, training_seconds
from gantool.training import engine
from torch import nn

from small import RECIPES, of, offline
from small import spec as spec_of_recipe

# Images per second of one core's own time, as `nox -s bench` counts them.
SPEED = {"gan14": 36_600, "gan28": 3_160, "cgan_egg": 227, "dcgan14": 2_140, "dcgan28": 255, "dcgan_tf28": 200}
LARGE = {"pix2pix_facades", "cyclegan_horse2zebra"}  # a step takes seconds
DIGITS, EGGS = 1438, 240  # training images
# As README trains them: training images, epochs and, of translations, the held-out images that are translated.
DOCUMENTED = {
    "gan14": (DIGITS, 300),
    "gan28": (DIGITS, 100),
    "dcgan14": (DIGITS, 60),
    "dcgan28": (DIGITS, 30),
    "dcgan_tf28": (DIGITS, 60),
    "wgan_gp28": (DIGITS, 60),
    "cdcgan28": (DIGITS, 60),
    "cgan_egg": (EGGS, 300),
    "folder64": (160, 200),
    "pix2pix": (320, 80, 80),
}
QUICK = {"gan14"}  # trains so fast that the fixed measurements alone take more than a tenth


def predicted(name, images, epochs, count=None):
    """The measured epochs of a recipe and the share of the training's seconds that they are predicted to take."""
    recipe = engine.open_recipe(name, {} if name == "cgan_egg" else offline(name))
    spec = spec_of_recipe(recipe)
    work = shapes.work(lambda: models.build(recipe, spec), min(2, recipe.train.batch_size))
    batch = min(recipe.train.batch_size, images)
    training = training_seconds(epochs * (images // batch), batch, work)
    pixels = None if name in of(Classifier) else spec.shape[1:]
    measurement = measurement_seconds(count or recipe.train.evaluate_images, pixels, work)
    found = measured_epochs(epochs, allowed(training, measurement))
    return found, len(found) * measurement / training


@pytest.mark.parametrize("allow", [0, 5, 9, 10, 11, 25, 100])
@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20, 99, 100, 300, 1000, 1_000_000])
def test_the_first_the_last_and_fixed_shares_are_always_measured_and_no_more_than_allowed_besides(epochs, allow):
    found = measured_epochs(epochs, allow)
    fixed = measured_epochs(epochs)

    assert list(found) == sorted(set(found))
    assert found[0] == 1
    assert found[-1] == epochs
    assert set(fixed) <= set(found)
    assert len(fixed) <= 10
    assert len(found) <= max(allow, len(fixed))


@pytest.mark.parametrize(
    ("arguments", "epochs"),
    [
        ((100,), (1, 2, 5, 10, 20, 35, 50, 75, 100)),
        ((300,), (1, 3, 6, 15, 30, 60, 105, 150, 225, 300)),
        ((10,), (1, 2, 4, 5, 8, 10)),
        ((3,), (1, 2, 3)),
        ((30, 30), tuple(range(1, 31))),
        ((30, 100), tuple(range(1, 31))),
        ((20, 100, 8), (1, 8, 16, 20)),
        ((3, 0, 10), (1, 3)),
    ],
)
def test_measured_epochs_of_known_runs(arguments, epochs):
    assert measured_epochs(*arguments) == epochs


def test_measurements_get_a_tenth_of_the_training_and_are_at_most_a_hundred():
    assert (allowed(100.0, 1.0), allowed(99.0, 1.0)) == (10, 9)
    assert allowed(1e9, 1.0) == schedule.MAX_MEASUREMENTS == 100


@pytest.mark.parametrize("allow", [20, 40, 100])
def test_epochs_between_are_evenly_spaced_and_as_many_as_are_allowed(allow):
    found = measured_epochs(1000, allow)
    spacing = next(step for step in range(1, 1001) if set(range(step, 1001, step)) <= set(found))

    assert set(found) == set(measured_epochs(1000)) | set(range(spacing, 1001, spacing))
    assert 1000 // spacing > allow - 15


def test_what_a_step_computes_is_counted_layer_by_layer():
    generator = nn.Sequential(nn.Linear(3, 2 * 4 * 4), nn.Unflatten(1, (2, 4, 4)), nn.ConvTranspose2d(2, 1, 4, 2, 1))
    discriminator = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Flatten(), nn.Linear(32, 1))

    class Small(UnconditionalGAN):
        def __init__(self):
            super().__init__(ImageSpec(1, 8, 8), losses.find_loss("non_saturating")(), latent_dim=3)
            self.generator, self.discriminator = generator, discriminator

    # The generator once, and the discriminator of a real image and, in each turn, of a made one.
    made = (3 * 32 + 32) + 2 * 16 * 4 * 4
    scored = 2 * 9 * 16 + (32 + 1)
    outputs = (32 + 32 + 64) + 3 * (32 + 32 + 1)
    before = torch.get_rng_state()
    assert shapes.work(Small, 2) == shapes.work(Small, 5) == Work(made + 3 * scored, outputs)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", SPEED)
def test_the_prediction_is_near_the_measured_speed(name):
    recipe = engine.open_recipe(name)
    work = shapes.work(lambda: models.build(recipe, spec_of_recipe(recipe)))
    batch = recipe.train.batch_size
    speed = batch / training_seconds(1, batch, work)

    assert 0.7 * SPEED[name] < speed < 1.7 * SPEED[name]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_runs_are_measured_as_often_as_a_tenth_allows(name):
    found, share = predicted(name, *DOCUMENTED[name])
    fixed = measured_epochs(DOCUMENTED[name][1])

    assert len(found) <= 100
    assert share <= (0.15 if name in QUICK else 0.1)
    assert found == fixed or name not in QUICK


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in LARGE])
def test_every_recipe_is_measured_at_its_own_length(name):
    recipe = engine.open_recipe(name)
    images = 60_000 if "mnist" in recipe.data.source else 400
    found, share = predicted(name, images, recipe.train.epochs)
    fixed = measured_epochs(recipe.train.epochs)

    assert set(fixed) <= set(found)
    assert share <= 0.1 or found == fixed
