"""The search space: from a recipe's ranges to Optuna's distributions, and mistakes that are refused before trials."""

from __future__ import annotations

import re

import optuna
import pytest
from gantool.errors import RecipeError, ShapeError
from gantool.training import engine
from gantool.tune.space import Space
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution


def recipe(space, **changes):
    return engine.open_recipe("dcgan14", {"tune.space": space, **changes})


def test_kinds_of_ranges_become_the_distributions_of_optuna():
    found = Space(
        recipe(
            {
                "train.optimizer.lr": {"low": 1e-5, "high": 1e-2, "log": True},
                "train.optimizer.betas.0": {"low": 0, "high": 0.95},
                "train.optimizer.betas.1": {"low": 0.9, "high": 0.9999, "log_complement": True},
                "model.latent_dim": {"low": 20, "high": 200, "step": 20},
                "train.batch_size": {"low": 16, "high": 256, "log": True},
                "loss.name": ["non_saturating", "hinge"],
                "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
            }
        )
    ).distributions
    assert found["train.optimizer.lr"] == FloatDistribution(1e-5, 1e-2, log=True)
    assert found["train.optimizer.betas.0"] == FloatDistribution(0, 0.95)
    second = found["1 - train.optimizer.betas.1"]
    assert (second.low, second.high, second.log) == (pytest.approx(1e-4), pytest.approx(0.1), True)
    assert found["model.latent_dim"] == IntDistribution(20, 200, step=20)
    assert found["train.batch_size"] == IntDistribution(16, 256, log=True)
    assert found["loss.name"] == CategoricalDistribution(["non_saturating", "hinge"])
    assert found["model.dropout"] == FloatDistribution(0, 0.5, step=0.25)
    assert "train.optimizer.betas.1" not in found, "a name says what its value is"


@pytest.mark.parametrize("name", ["gan14", "gan28", "dcgan14", "dcgan28", "dcgan_tf28", "cgan_egg"])
def test_every_shipped_space_holds_the_recipes_own_values_and_builds_at_its_ends(name, tmp_path):
    chosen = engine.open_recipe(name)
    space = Space(chosen)
    space.check(tmp_path)
    assert engine.change(chosen, space.changes(space.own_point)).model == chosen.model
    assert engine.change(chosen, space.changes(space.own_point)).train.optimizer.lr == chosen.train.optimizer.lr
    for key, distribution in space.distributions.items():
        assert distribution._contains(distribution.to_internal_repr(space.own_point[key]))


def test_a_point_may_have_the_names_of_version_0_1():
    written = {"train.optimizer.betas.1": {"low": 0.9, "high": 0.9999, "log_complement": True}, "model.dropout": [0.25]}
    space = Space(recipe(written))
    old = {"train.optimizer.betas.1": 0.005, "model.dropout": 0.25}
    new = {"1 - train.optimizer.betas.1": 0.005, "model.dropout": 0.25}
    assert space.changes(old) == space.changes(new) == {"train.optimizer.betas.1": 0.995, "model.dropout": 0.25}
    assert space.renamed(old) == space.renamed(new) == new
    assert space.own_point == {"1 - train.optimizer.betas.1": pytest.approx(0.001), "model.dropout": 0.25}


def test_a_recipe_without_a_tune_block_says_so():
    with pytest.raises(RecipeError, match="gan14: has no tune block; add one"):
        Space(engine.open_recipe("gan14", {"tune": None}))


LOSSES = ["non_saturating", "hinge", "wasserstein"]
PENALTY = {"low": 1.0, "high": 20.0, "log": True}


def suggested(space, count=50):
    """Return the changes that trials make to the recipe, the recipe's own values first."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.own_point)
    found = []
    for number in range(count):
        trial = space.ask(study)
        found.append(space.changes(trial.params))
        study.tell(trial, float(number % 7))
    return found


def test_a_conditional_key_is_searched_only_if_its_condition_holds():
    penalty = {**PENALTY, "when": {"loss.name": "wasserstein"}}
    space = Space(recipe({"loss.gradient_penalty": penalty, "loss.name": LOSSES}))
    found = suggested(space)
    assert found[0] == {"loss.name": "non_saturating"}, "the recipe's own penalty of 0 is not in the range"
    assert {point["loss.name"] for point in found} == set(LOSSES)
    assert all(("loss.gradient_penalty" in point) == (point["loss.name"] == "wasserstein") for point in found)
    quiet = [engine.change(space.recipe, point) for point in found if point["loss.name"] == "hinge"]
    assert {one.loss.gradient_penalty for one in quiet} == {0.0}, "elsewhere the recipe's own value stays"


def test_conditions_chain_whatever_the_order_in_which_the_keys_are_written(tmp_path):
    written = {
        "train.discriminator.lr": {"low": 1e-5, "high": 1e-2, "log": True, "when": {"loss.r1": [1, 2]}},
        "loss.r1": {"choice": [0, 1, 2], "when": {"loss.name": "hinge"}},
        "loss.name": LOSSES,
    }
    space = Space(recipe(written))
    assert list(space.ranges) == ["loss.name", "loss.r1", "train.discriminator.lr"]
    found = suggested(space)
    assert found[0] == {"loss.name": "non_saturating"}
    assert {len(point) for point in found} == {1, 2, 3}
    for point in found:
        assert ("loss.r1" in point) == (point["loss.name"] == "hinge")
        assert ("train.discriminator.lr" in point) == (point.get("loss.r1", 0) > 0)
    space.check(tmp_path)


def test_a_key_that_the_recipe_has_only_with_another_choice_is_not_in_its_own_point(tmp_path):
    slope = {"choice": ["relu", "leaky_relu"], "when": {"model.name": "mlp"}}
    written = {"model.generator_activation": slope, "model.name": ["cgan", "mlp"]}
    cgan = engine.open_recipe("cgan_egg", {"tune.space": written})
    space = Space(cgan)
    assert "generator_activation" not in cgan.model
    assert space.own_point == {"model.name": "cgan"}
    assert {engine.change(cgan, point).model.name for point in suggested(space)} == {"cgan", "mlp"}
    space.check(tmp_path)


def test_a_block_is_chosen_by_its_name_unless_that_would_drop_its_settings(tmp_path):
    chosen = recipe({"loss": ["hinge", "non_saturating"]})
    space = Space(chosen)
    assert space.own_point == {"loss": "non_saturating"}
    assert {engine.change(chosen, point).loss.name for point in suggested(space)} == {"hinge", "non_saturating"}
    space.check(tmp_path)
    with pytest.raises(RecipeError) as caught:
        Space(recipe({"loss": ["hinge", "non_saturating"]}, **{"loss.gradient_penalty": 10.0}))
    assert str(caught.value) == (
        "tune.space.loss: would drop gradient_penalty 10.0 of the recipe's own non_saturating; search loss.name, "
        "which keeps it"
    )
    kept = Space(recipe({"loss.name": ["hinge", "non_saturating"]}, **{"loss.gradient_penalty": 10.0}))
    assert {engine.change(kept.recipe, point).loss.gradient_penalty for point in suggested(kept)} == {10.0}
    weight = {"low": 1.0, "high": 20.0, "when": {"loss": "wasserstein"}}
    own = {"loss.name": "wasserstein", "loss.gradient_penalty": 10.0}
    searched = Space(recipe({"loss": ["hinge", "wasserstein"], "loss.gradient_penalty": weight}, **own))
    assert searched.own_point == {"loss": "wasserstein", "loss.gradient_penalty": 10.0}


def test_each_player_has_its_own_rate_and_widths_and_batches_are_whole_numbers(tmp_path):
    rate = {"low": 1e-5, "high": 1e-2, "log": True}
    written = {
        "train.generator.lr": rate,
        "train.discriminator.lr": rate,
        "model.generator.0": {"low": 16, "high": 256, "step": 16},
        "train.batch_size": {"low": 16, "high": 256, "log": True},
    }
    chosen = engine.open_recipe("gan14", {"data.source": "digits", "tune.space": written})
    space = Space(chosen)
    space.check(tmp_path)
    assert space.own_point == {
        "train.generator.lr": 2e-4,
        "train.discriminator.lr": 2e-4,
        "model.generator.0": 128,
        "train.batch_size": 128,
    }
    for point in suggested(space, 10):
        made = engine.change(chosen, point)
        assert made.train.optimizer_of("generator").lr == point["train.generator.lr"]
        assert made.train.optimizer_of("discriminator").lr == point["train.discriminator.lr"]
        assert made.model.generator == [point["model.generator.0"]]
        assert point["model.generator.0"] % 16 == 0
        assert type(point["train.batch_size"]) is int
    assert space.largest().model.generator == [256]
    assert space.largest().train.batch_size == 256


def test_ends_are_built_with_their_conditions_fulfilled(tmp_path):
    depth = {"low": 14, "high": 17, "when": {"loss.name": "hinge", "model.dropout": [0.5, 0.25]}}
    space = Space(recipe({"data.size": depth, "loss.name": LOSSES[:2], "model.dropout": [0.25, 0.5]}))
    with pytest.raises(ShapeError, match=r"tune.space.data.size: 17 cannot be built: generator: makes images of 1x14"):
        space.check(tmp_path)
    penalty = {"low": -1.0, "high": 1.0, "when": {"loss.name": "wasserstein"}}
    space = Space(recipe({"loss.gradient_penalty": penalty, "loss.name": LOSSES}))
    with pytest.raises(RecipeError, match=r"tune.space.loss.gradient_penalty: -1.0 cannot be built: "):
        space.check(tmp_path)


DIM, RATE, R1, NAME = "model.latent_dim", "train.optimizer.lr", "loss.r1", "loss.name"
TWENTIES = {"low": 20, "high": 200, "step": 20}


def r1(**conditions):
    """Return a choice of `loss.r1` with a condition; `__` stands for a dot."""
    return {R1: {"choice": [0, 1], "when": {key.replace("__", "."): value for key, value in conditions.items()}}}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({RATE: {"low": 1e-3, "high": 1e-2}}, "own value 0.0002 is outside of 0.001 to 0.01; widen it"),
        ({RATE: {"low": 1e-2, "high": 1e-3}}, "low 0.01 is not below high 0.001; swap or widen them"),
        ({RATE: {"low": 0, "high": 1e-3, "log": True}}, "low 0 has no logarithm; make it more than 0"),
        (
            {RATE: {"low": 1e-5, "high": 1, "log_complement": True}},
            "1 - high 1 has no logarithm; make high less than",
        ),
        ({DIM: {"low": 10, "high": 100, "log": True, "step": 5}}, "step 5 cannot be combined with a logarithm; leave"),
        ({DIM: [16, 32]}, "own value 100 is not among [16, 32]; add it"),
        ({"sprocket": [16]}, ".sprocket: the recipe dcgan14 has no such key; name one that it has"),
        ({"train.optimizer.betas.2": {"low": 0, "high": 0.5}}, "no such key; did you mean train.optimizer.betas.1?"),
        (r1(loss__name="hinge"), ".loss.r1.when: loss.name is not searched; name a key of tune.space"),
        ({**r1(loss__name=["hinge", "x"]), NAME: LOSSES}, f".loss.r1.when: loss.name is never x; choose from {LOSSES}"),
        ({**r1(model__latent_dim=1000), DIM: {"low": 20, "high": 200}}, f"{DIM} is never 1000; choose from 20 to 200"),
        ({**r1(model__latent_dim=90), DIM: TWENTIES}, f"{DIM} is never 90; choose from 20 to 200 in steps of 20"),
        (
            {**r1(model__dropout=0.25), "model.dropout": {"low": 0.0, "high": 0.5}},
            "model.dropout is hardly ever just 0.25; make it a list of choices",
        ),
        (
            {**r1(loss__gradient_penalty=1), "loss.gradient_penalty": {"choice": [0, 1], "when": {R1: 1}}},
            "the conditions of loss.r1, loss.gradient_penalty wait for each other; leave one out",
        ),
        (r1(loss__r1=1), "the conditions of loss.r1 wait for each other; leave one out"),
        ({DIM: {"low": 16, "high": 256, "step": 16}}, "own value 100 is not 16 and a number of steps of 16"),
        ({DIM: TWENTIES | {"step": -20}}, "step -20 is not more than 0; leave it out"),
        ({DIM: TWENTIES | {"step": 0.5}}, "step 0.5 is not a whole number, as low and high are; round it"),
        ({"tune.trials": [24, 30]}, "tune.trials: is the same for all trials; leave it out"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_its_key(space, message):
    with pytest.raises(RecipeError, match=rf"tune\.space.*{re.escape(message)}"):
        Space(recipe(space))


def test_a_range_that_is_not_a_whole_number_of_steps_ends_at_its_last_step():
    space = Space(recipe({"model.latent_dim": {"low": 20, "high": 211, "step": 40}, "model.dropout": [0.25]}))
    assert {point["model.latent_dim"] for point in suggested(space)} <= {20, 60, 100, 140, 180}
    steps = Space(recipe({"model.dropout": {"low": 0.05, "high": 0.42, "step": 0.1}}))
    assert {round(point["model.dropout"], 6) for point in suggested(steps)} == {0.05, 0.15, 0.25, 0.35}
    assert steps.own_point == {"model.dropout": 0.25}
