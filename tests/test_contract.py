"""What every model and every recipe must do; a new one is tested by being there."""

from __future__ import annotations

import ast
import inspect
import io
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from gantool import devices, engine, losses, models, shapes
from gantool.batches import DataSpec, Labeled
from gantool.models.base import Model, Turn
from gantool.recipe import shipped
from gantool.trainer import Trainer

CPU = torch.device("cpu")
RECIPES = list(shipped())
PENALISED = {"loss.gradient_penalty": 10.0, "loss.r1": 1.0}
SMALL = {"mlp": 4, "dcgan": 14, "dcgan_tf": 8, "cgan": 4}  # pixels on a side at which a model is quick


def spec(recipe, classes=3):
    names = recipe.data.classes or [f"class {index}" for index in range(classes)]
    return DataSpec(recipe.data.channels or 3, recipe.data.height, recipe.data.width, tuple(names))


def built(name, changes=None):
    recipe = engine.open_recipe(name, changes or {})
    with devices.randomness(CPU, devices.seeded(CPU, 0)):
        return recipe, models.build(recipe, spec(recipe))


def batch(model, count=4, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *model.data.shape, generator=generator) * 2 - 1
    labels = torch.randint(len(model.data.classes), (count,), generator=generator)
    return Labeled(images.to(device), labels.to(device))


def turns(model, given):
    """All turns of a step, in order; none is applied."""
    return [turn for move in model.play(given) for turn in ((move,) if isinstance(move, Turn) else move)]


def weights(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def changed(module, before):
    return {name for name, value in module.named_parameters() if not torch.equal(value.detach(), before[name])}


def one_recipe_of(name):
    return next(recipe for recipe in RECIPES if engine.open_recipe(recipe).model["name"] == name)


# Every model file


@pytest.mark.parametrize("name", models.names())
def test_a_model_file_defines_one_model_says_what_it_is_and_has_a_recipe(name):
    model = models.find(name)
    assert issubclass(model, Model)
    assert not inspect.isabstract(model)
    assert inspect.getdoc(inspect.getmodule(model))
    assert "Args:" in inspect.getdoc(model)
    assert one_recipe_of(name)


@pytest.mark.parametrize("name", models.names())
def test_every_key_of_a_models_block_is_documented(name):
    told = inspect.getdoc(models.find(name))
    for parameter in inspect.signature(models.find(name)).parameters:
        assert f"{parameter}:" in told


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("loss", ["non_saturating", "minimax", "least_squares", "hinge", "wasserstein"])
def test_every_model_plays_every_loss_with_both_penalties(name, loss):
    recipe, model = built(one_recipe_of(name), {"data.size": SMALL.get(name, 8), "loss.name": loss, **PENALISED})
    trainer = Trainer(model, recipe.train, CPU)
    with devices.randomness(CPU, trainer.randomness):
        for seed in range(2):
            told = trainer.step(batch(model, seed=seed))
    assert {"discriminator/gradient_penalty", "discriminator/r1", "generator/adversarial"} <= told.keys()
    assert all(bool(value.isfinite()) for value in told.values())
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


FORBIDDEN = {"item", "tolist", "numpy", "cpu", "cuda", "nonzero", "synchronize"}


def waits(function):
    """Calls in a function that would make a GPU wait."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in FORBIDDEN or (isinstance(node.func, ast.Name) and name in {"float", "int", "bool", "print"}):
                yield f"{function.name}: {name}"


@pytest.mark.parametrize(
    "file", ["losses.py", "trainer.py", *(f"models/{name}.py" for name in [*models.names(), "base"])]
)
def test_no_step_waits_for_a_number(file):
    tree = ast.parse((Path(inspect.getfile(losses)).parent / file).read_text(encoding="utf-8"))
    stepping = {"play", "step", "_gradients", "score_both", "latents", "forward", "answers", "penalties", "__call__"}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    watched = [node for node in functions if node.name in stepping or file == "losses.py"]
    assert [call for function in watched for call in waits(function)] == []


# Every recipe


@pytest.mark.parametrize("name", RECIPES)
def test_both_players_get_a_turn_and_only_the_player_moves(name):
    recipe, model = built(name)
    trainer = Trainer(model, recipe.train, CPU)
    moved = []
    for move in model.play(batch(model)):
        together = (move,) if isinstance(move, Turn) else move
        for turn in together:
            trainer._gradients(turn, keep_graph=turn is not together[-1])
        for turn in together:
            before = weights(model)
            trainer.optimizers[turn.player].step()
            own = {f"{trainer.names[turn.player]}.{key}" for key, _ in turn.player.named_parameters()}
            found = changed(model, before)
            assert found, "somebody moved"
            assert found <= own
            if name != "cgan_egg":  # whose embedding only moves at the classes that came up
                assert found == own
            moved.append(trainer.names[turn.player])
    assert sorted(moved) == ["discriminator", "generator"]


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_scalars_by_name_and_scores_hold_no_graph(name):
    _, model = built(name)
    for turn in turns(model, batch(model)):
        assert turn.losses
        assert all(value.shape == () and value.requires_grad for value in turn.losses.values())
        assert not any(value.requires_grad for value in turn.scores.values())


# Keras' game has one pass for both losses; there it is the trainer that keeps them apart.
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "dcgan_tf28"])
def test_a_discriminators_turn_never_reaches_the_generators_weights(name):
    _, model = built(name)
    turn = next(turn for turn in turns(model, batch(model)) if turn.player is model.discriminator)
    total = sum(turn.losses.values())
    found = torch.autograd.grad(total, list(model.generator.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)


@pytest.mark.parametrize("name", RECIPES)
def test_samples_are_images_of_the_datas_shape_and_range(name):
    _, model = built(name)
    with torch.no_grad():
        for network in (model.train(), model.eval()):
            made = network.sample(model.prompt(range(5)))
            assert made.shape == (5, *model.data.shape)
            assert made.dtype == torch.float32
            assert bool((made.abs() <= 1).all())


@pytest.mark.parametrize("name", RECIPES)
def test_a_seed_is_one_latent_whatever_the_others_are(name):
    _, model = built(name)
    many, one = model.prompt(range(10)), model.prompt([7])
    assert torch.equal(many.latents[7], one.latents[0])
    assert many.latents.shape == (10, model.latent_dim)
    assert many.labels.tolist() == [index % len(model.data.classes) for index in range(10)]
    assert model.prompt([1, 2], [0, 0]).labels.tolist() == [0, 0]


@pytest.mark.parametrize("name", RECIPES)
def test_prompts_and_samples_draw_none_of_the_callers_random_numbers(name):
    _, model = built(name)
    before = torch.get_rng_state()
    with torch.no_grad():
        model.eval().sample(model.prompt(range(3)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", RECIPES)
def test_a_state_goes_through_a_file_of_tensors_and_steps_on_bit_for_bit(name):
    recipe, model = built(name)
    straight = Trainer(model, recipe.train, CPU)
    with devices.randomness(CPU, straight.randomness):
        straight.step(batch(model, seed=1))
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    fresh = Trainer(models.build(recipe, spec(recipe)), recipe.train, CPU)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    told = []
    for trainer in (straight, fresh):
        with devices.randomness(CPU, trainer.randomness):
            told.append(trainer.step(batch(model, seed=2)))
    assert told[0].keys() == told[1].keys()
    assert all(torch.equal(told[0][key], told[1][key]) for key in told[0])
    ends = [trainer.model.state_dict() for trainer in (straight, fresh)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("name", RECIPES)
def test_the_whole_game_traces_without_numbers(name):
    recipe = engine.open_recipe(name)
    layers = shapes.trace(lambda: models.build(recipe, spec(recipe)))
    assert {layer.network for layer in layers} == {"generator", "discriminator"}
    # On the meta device a number that anybody asked for would be an error: so none is, in losses and gradients too.
    with torch.device("meta"):
        model = models.build(recipe, spec(recipe))
        given = Labeled(torch.zeros(4, *model.data.shape), torch.zeros(4, dtype=torch.int64))
    for turn in turns(model, given):
        total = torch.stack(list(turn.losses.values())).sum()
        torch.autograd.backward(total, inputs=list(turn.player.parameters()), retain_graph=True)


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seed_starts_the_same_weights(name):
    one, other = built(name)[1].state_dict(), built(name)[1].state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_is_not_changed_by_playing_with_it(name):
    _, model = built(name)
    given = batch(model)
    kept = deepcopy(given)
    turns(model, given)
    assert torch.equal(given.images, kept.images)
    assert torch.equal(given.labels, kept.labels)
    assert not given.images.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_on_a_gpu_never_waits_for_it(name):
    recipe, model = built(name)
    trainer = Trainer(model.to("cuda"), recipe.train, torch.device("cuda"))
    given = batch(model, device="cuda")
    trainer.step(given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
