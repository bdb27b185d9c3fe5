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
SAME = [name for name in PUBLISHED if name != "dcgan_tf28"]  # whose padding is torch's own


def ours(name, changes=None):
    recipe = engine.open_recipe(name, changes)
    block = recipe.data
    torch.manual_seed(0)
    return recipe, models.build(recipe, ImageSpec(block.channels or 3, block.height, block.width, ("Egg",)))


def with_weights_of(model, rival):
    """Return the rival a model's weights: theirs come in the same order, under other names."""
    for own, plain in ((model.generator, rival.generator), (model.discriminator, rival.discriminator)):
        values = list(own.state_dict().values())
        names = list(plain.state_dict())
        plain.load_state_dict(dict(zip(names, values, strict=True)))
    return rival


def batch_of(shape, count=6):
    torch.manual_seed(1)
    images = torch.rand(count, *shape, dtype=torch.float64) * 2 - 1
    return images, torch.zeros(count, dtype=torch.int64)


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


def without_dropout(network):
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


@pytest.mark.parametrize("name", SAME)
def test_both_train_alike(name):
    changes = {"data.size": 16} if name == "cgan_egg" else {}  # whose layers grow with the size, and the time with them
    recipe, model = ours(name, changes)
    model = model.double()
    rival = rivals.cgan_egg(size=16) if changes else rivals.NETWORKS[name]()
    with_weights_of(model, rival)
    rival.generator.double()
    rival.discriminator.double()
    for network in (model, rival.generator, rival.discriminator):
        without_dropout(network)
    images, labels = batch_of(model.data.shape)
    before = deepcopy(model.state_dict())
    steps = 5
    told = (labels[:1],) if name == "cgan_egg" else ()
    with torch.no_grad():
        scores = [network.eval()(images[:1], *told) for network in (model.discriminator, rival.discriminator)]
    torch.testing.assert_close(scores[0].sigmoid(), scores[1], rtol=0, atol=1e-12)
    rival.discriminator.train()
    model.train()

    torch.set_default_dtype(torch.float64)
    try:
        trainer = Trainer(model, recipe.train, CPU)
        trainer.randomness.update(devices.rng_states(CPU, 11))
        with devices.rng_scope(CPU, trainer.randomness):
            for _ in range(steps):
                trainer.step(Labeled(images, labels))
        with devices.rng_scope(CPU, devices.rng_states(CPU, 11)):
            loop = rivals.LOOPS.get(name, rivals.alternating)(rival, [(images, labels)])
            for _ in range(steps):
                assert next(loop) == len(images)
    finally:
        torch.set_default_dtype(torch.float32)

    latents = torch.randn(4, 100, dtype=torch.float64)
    told = (labels[:4],) if name == "cgan_egg" else ()
    with torch.no_grad():
        mine, theirs = (network.train()(latents, *told) for network in (model.generator, rival.generator))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    assert not all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_tutorials_loop_moves_both_players():
    rival = rivals.dcgan_tf28()
    before = deepcopy((rival.generator.state_dict(), rival.discriminator.state_dict()))
    loop = rivals.simultaneous(rival, [(torch.zeros(2, 1, 28, 28), torch.zeros(2))])
    assert [next(loop), next(loop)] == [2, 2]
    for network, old in zip((rival.generator, rival.discriminator), before, strict=True):
        changed = [key for key, value in network.state_dict().items() if not torch.equal(value, old[key])]
        assert set(changed) >= {name for name, _ in network.named_parameters()}


def test_a_race_counts_a_whole_run_and_gives_the_rival_as_much_time():
    rival, own, measured = bench.race("gan14", images=320, epochs=2)
    assert own.images == 2 * 2 * 128  # a fifth of the images is held out
    assert rival.images % 64 == 0
    assert rival.seconds >= own.seconds > 0
    assert 0 < measured < 1
