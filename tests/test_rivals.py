"""The bench's rival is the notes' networks, and trains as gantool does where the mathematics is the same."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from gantool import devices, models
from gantool.batches import ImageSpec, Labeled
from gantool.training import engine
from gantool.training.trainer import Trainer
from torch import nn

import bench
import rivals

CPU = torch.device("cpu")
PUBLISHED = {
    "gan14": (38_212, 50_689),
    "gan28": (1_486_352, 1_460_225),
    "dcgan14": (1_259_265, 19_521),
    "dcgan28": (2_308_609, 52_737),
    "dcgan_tf28": (2_305_472, 212_865),
    "cgan_egg": (6_495_716, 12_760_065),
}


def ours(name, changes=None):
    recipe = engine.open_recipe(name, changes)
    block = recipe.data
    torch.manual_seed(0)
    return recipe, models.build(recipe, ImageSpec(block.channels or 3, block.height, block.width, ("Egg",)))


def rival_of(name, recipe, model):
    """Return the rival with a model's weights, which have other names there; dcgan_tf28's pads in another way."""
    if name == "dcgan_tf28":
        adam, networks = recipe.train.optimizer, (deepcopy(model.generator), deepcopy(model.discriminator))
        return rivals.Rival(*networks, adam.lr, adam.betas, recipe.train.batch_size)
    rival = rivals.cgan_egg(size=16) if name == "cgan_egg" else rivals.NETWORKS[name]()
    for own, plain in ((model.generator, rival.generator), (model.discriminator, rival.discriminator)):
        plain.double().load_state_dict(dict(zip(plain.state_dict(), own.state_dict().values(), strict=True)))
    return rival


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_have_the_published_number_of_parameters_and_the_recipes_settings(name):
    recipe, model = ours(name)
    rival, train = rivals.NETWORKS[name](), recipe.train
    for networks in ((model.generator, model.discriminator), (rival.generator, rival.discriminator)):
        assert tuple(sum(part.numel() for part in network.parameters()) for network in networks) == PUBLISHED[name]
    assert (rival.lr, rival.betas, rival.batch_size) == (train.optimizer.lr, train.optimizer.betas, train.batch_size)
    for optimizer, network in zip(rival.optimizers(), (rival.generator, rival.discriminator), strict=True):
        assert optimizer.defaults["fused"] is optimizer.defaults["foreach"] is None
        leaves = [module for module in network.modules() if not list(module.children())]
        assert all(type(module).__module__.startswith("torch.nn.") for module in leaves)


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_train_alike(name):
    changes = {"data.size": 16} if name == "cgan_egg" else {}  # whose layers grow with the size, and the time with them
    recipe, model = ours(name, changes)
    model = model.double()
    rival = rival_of(name, recipe, model)
    for module in (*model.modules(), *rival.generator.modules(), *rival.discriminator.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch.manual_seed(1)
    images, labels = torch.rand(6, *model.data.shape, dtype=torch.float64) * 2 - 1, torch.zeros(6, dtype=torch.int64)
    before = deepcopy(model.state_dict())

    torch.set_default_dtype(torch.float64)
    try:
        trainer = Trainer(model, recipe.train, CPU)
        trainer.rng_states.update(devices.rng_states(CPU, 11))
        with devices.rng_scope(CPU, trainer.rng_states):
            for _ in range(5):
                trainer.step(Labeled(images, labels))
        with devices.rng_scope(CPU, devices.rng_states(CPU, 11)):
            loop = rivals.LOOPS.get(name, rivals.alternating)(rival, [(images, labels)])
            assert [next(loop) for _ in range(5)] == [6] * 5
    finally:
        torch.set_default_dtype(torch.float32)

    classes = (labels[:4],) if name == "cgan_egg" else ()
    latents = torch.randn(4, 100, dtype=torch.float64)
    mine, theirs = (network.train()(latents, *classes) for network in (model.generator, rival.generator))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    scores = [network(mine, *classes) for network in (model.discriminator, rival.discriminator)]
    own = scores[0] if name == "dcgan_tf28" else scores[0].sigmoid()
    torch.testing.assert_close(own, scores[1], rtol=0, atol=1e-9)
    assert not all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_race_counts_a_whole_run_and_gives_the_rival_as_much_time():
    rival, own, measured = bench.race("gan14", images=320, epochs=2)
    assert own.images == 2 * 2 * 128  # a fifth of the images is held out
    assert rival.images % 64 == 0
    assert rival.seconds >= own.seconds > 0
    assert 0 < measured < 1
