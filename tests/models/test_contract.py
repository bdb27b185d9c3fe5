"""What every model and every recipe must do; a new one is tested by being there."""

from __future__ import annotations

import inspect
import io
from copy import deepcopy

import pytest
import torch
from gantool import devices, models
from gantool.errors import RecipeError
from gantool.models import losses, shapes
from gantool.models.base import Classifier, Generative, GeneratorInput, LatentModel, Model, Translator, Turn
from gantool.training import engine
from gantool.training.trainer import Trainer

from small import RECIPES, kind, of, small, spec
from trained import same, tensors

CPU = torch.device("cpu")
LOSSES = list(losses.LOSSES)
EVERYTHING = {
    **{"loss.gradient_penalty": 10.0, "loss.r1": 1.0, "loss.r2": 1.0},
    "loss.augment": ["color", "translation", "cutout"],
}


def built(name, changes=None):
    recipe = engine.open_recipe(name, changes or {})
    with devices.rng_scope(CPU, devices.rng_states(CPU, 0)):
        return recipe, models.build(recipe, spec(recipe))


def batch(model, count=4, seed=0, device="cpu"):
    """Random content in the form that the model consumes."""
    generator = torch.Generator().manual_seed(seed)
    blank = model.blank(count)

    def filled(part):
        if part.dtype == torch.float32:
            return torch.rand(part.shape, generator=generator) * 2 - 1
        most = len(model.data.classes) if part.dim() == 1 else len(model.data.words) + 2
        return torch.randint(most, part.shape, generator=generator)

    return type(blank)(*(filled(part).to(device) for part in blank))


def prompt(model, seeds):
    """What the model makes images from, one a seed."""
    if isinstance(model, LatentModel):
        return model.prompt(seeds)
    sources = [batch(model, 1, seed)[0] for seed in seeds]
    labels = [seed % len(model.data.classes) for seed in seeds]
    return GeneratorInput(torch.cat(sources), torch.tensor(labels), torch.tensor(list(seeds)))


def moves(model, given):
    """The turns of a step, those that are applied together in one tuple."""
    return ((move,) if isinstance(move, Turn) else move for move in model.play(given))


def turns(model, given):
    """All turns of a step, in order; none is applied."""
    return [turn for together in moves(model, given) for turn in together]


def step_without_numbers(recipe):
    """Compute losses and gradients on the meta device, where reading a number, for which a GPU waits, is an error."""
    with torch.device("meta"):
        model = models.build(recipe, spec(recipe))
        given = model.blank(4)
    for turn in turns(model, given):
        total = torch.stack(list(turn.losses.values())).sum()
        torch.autograd.backward(total, inputs=list(turn.player.parameters()), retain_graph=True)


def one_recipe_of(name):
    return next(recipe for recipe in RECIPES if engine.open_recipe(recipe).model.name == name)


# Every model file


@pytest.mark.parametrize("name", models.names())
def test_a_model_file_defines_one_model_documents_its_keys_and_has_a_recipe(name):
    model = models.find_model(name)
    assert issubclass(model, Model)
    assert not inspect.isabstract(model)
    assert inspect.getdoc(inspect.getmodule(model))
    text = inspect.getdoc(model)
    for parameter in inspect.signature(model).parameters.values():
        assert parameter.kind is not parameter.KEYWORD_ONLY or f"{parameter.name}:" in text
    assert one_recipe_of(name)


def test_an_unknown_model_names_the_nearest_and_shared_files_are_no_models():
    with pytest.raises(RecipeError, match=r"^unknown model 'dcgan_ft'; did you mean 'dcgan_tf'\?$"):
        models.find_model("dcgan_ft")
    assert not models._SHARED & set(models.names())


ADVERSARIAL = [name for name in models.names() if issubclass(models.find_model(name), Generative)]


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_model_plays_every_loss_with_every_penalty_and_augmentation(name, loss):
    recipe_name = one_recipe_of(name)
    recipe, model = built(recipe_name, {**small(recipe_name), "loss.name": loss, **EVERYTHING})
    trainer = Trainer(model, recipe.train, CPU)
    with devices.rng_scope(CPU, trainer.rng_states):
        logs = trainer.step(batch(model))
    for penalty in ("gradient_penalty", "r1", "r2", "adversarial"):
        assert any(name.startswith(f"discriminator/{penalty}") for name in logs)
    assert all(bool(value.isfinite()) for value in logs.values())
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    step_without_numbers(recipe)


# Every recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_player_gets_a_turn_and_only_the_player_moves(name):
    recipe, model = built(name, small(name))
    trainer = Trainer(model, recipe.train, CPU)
    given, moved = batch(model), set()
    kept = deepcopy(given)
    for together in moves(model, given):
        for turn in together:
            assert turn.losses
            assert all(value.shape == () and value.requires_grad for value in turn.losses.values())
            assert not any(value.requires_grad for value in turn.scores.values())
            trainer._gradients(turn, keep_graph=turn is not together[-1])
        for turn in together:
            before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
            trainer.optimizers[turn.player].step()
            changed = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
            own = {f"{trainer.names[turn.player]}.{key}": weight for key, weight in turn.player.named_parameters()}
            # A weight without a gradient stays: of a class that is not in the batch, a bias before a normalisation.
            pushed = {key for key, weight in own.items() if weight.grad is not None and weight.grad.abs().max() > 1e-6}
            assert pushed <= changed <= own.keys()
            assert len(pushed) >= len(own) / 3
            moved.add(turn.player)
    assert moved == trainer.optimizers.keys()
    assert all(torch.equal(one, other) and not one.requires_grad for one, other in zip(given, kept, strict=True))


# Keras' game has one pass for both losses; there it is the trainer that keeps them apart.
@pytest.mark.parametrize("name", [name for name in of(Generative) if name != "dcgan_tf28"])
def test_a_discriminators_turn_never_reaches_the_generators_weights(name):
    _, model = built(name, small(name))
    turn = next(turn for turn in turns(model, batch(model)) if turn.player is model.discriminator)
    total = sum(turn.losses.values())
    found = torch.autograd.grad(total, list(model.generator.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)


@pytest.mark.parametrize("name", of(Generative))
def test_samples_are_images_of_the_datas_shape_and_range_and_draw_no_random_numbers_of_the_caller(name):
    _, model = built(name, small(name))
    before = torch.get_rng_state()
    with torch.no_grad():
        for network in (model.train(), model.eval()):
            made = network.sample(prompt(model, range(5)))
            assert (made.shape, made.dtype) == ((5, *model.data.shape), torch.float32)
            assert bool((made.abs() <= 1).all())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", of(Translator))
def test_a_translation_depends_on_its_own_row_and_takes_sides_that_are_multiples_of_the_stride(name):
    _, model = built(name, small(name))
    given = prompt(model.eval(), range(6))
    side = max(8, model.stride)
    wide = torch.rand(1, model.data.channels, side, 3 * side) * 2 - 1
    with torch.no_grad():
        together = model.sample(given)
        for row in range(6):
            alone = model.sample(GeneratorInput(*(part[row : row + 1] for part in given)))
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)
        made = model.sample(GeneratorInput(wide, torch.tensor([1]), torch.tensor([0])))
    assert made.shape == wide.shape
    assert bool((made.abs() <= 1).all())


@pytest.mark.parametrize("name", of(Classifier))
def test_answers_are_probabilities_and_each_depends_on_its_own_input(name):
    _, model = built(name)
    given = batch(model, 6)
    with torch.no_grad():
        answers = model.eval().answer(given[0])
        assert answers.shape == (6, len(model.data.classes))
        torch.testing.assert_close(answers.sum(1), torch.ones(6))
        torch.testing.assert_close(model.answer(given[0][2:3])[0], answers[2])


@pytest.mark.parametrize("name", RECIPES)
def test_a_state_goes_through_a_file_of_tensors_and_resumes_bit_for_bit(name):
    recipe, model = built(name, small(name))
    straight = Trainer(model, recipe.train, CPU)
    with devices.rng_scope(CPU, straight.rng_states):
        straight.step(batch(model, seed=1))
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    fresh = Trainer(models.build(recipe, spec(recipe)), recipe.train, CPU)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    logs = []
    for trainer in (straight, fresh):
        with devices.rng_scope(CPU, trainer.rng_states):
            logs.append(trainer.step(batch(model, seed=2)))
    assert same(*logs)
    assert same(*(tensors(trainer.state_dict()) for trainer in (straight, fresh)))


@pytest.mark.parametrize("name", RECIPES)
def test_the_whole_game_traces_without_numbers(name):
    recipe = engine.open_recipe(name)
    layers = shapes.trace(lambda: models.build(recipe, spec(recipe)))
    adversarial = issubclass(kind(name), Generative)
    assert {layer.network for layer in layers} == ({"generator", "discriminator"} if adversarial else {"classifier"})
    step_without_numbers(recipe)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_on_a_gpu_never_waits_for_it(name):
    recipe, model = built(name, small(name))
    trainer = Trainer(model.to("cuda"), recipe.train, torch.device("cuda"))
    given = batch(model, device="cuda")
    trainer.step(given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
