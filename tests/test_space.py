"""The search space: from a recipe's ranges to Optuna's distributions, and what is refused before Ray starts."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gantool import engine
from gantool.errors import RecipeError, ShapeError
from gantool.tune.space import Space


def recipe(space, **changes):
    return engine.open_recipe("dcgan14", {"tune.space": space, **changes})


def test_kinds_of_ranges_become_the_distributions_of_optuna():
    found = Space(
        recipe(
            {
                "train.optimizer.lr": {"low": 1e-5, "high": 1e-2, "log": True},
                "train.optimizer.betas.0": {"low": 0, "high": 0.95},
                "train.optimizer.betas.1": {"low": 0.9, "high": 0.9999, "one_minus_log": True},
                "model.latent_dim": {"low": 20, "high": 200, "step": 20},
                "train.batch_size": {"low": 16, "high": 256, "log": True},
                "loss.name": ["non_saturating", "hinge"],
                "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
            }
        )
    ).distributions
    assert found["train.optimizer.lr"] == FloatDistribution(1e-5, 1e-2, log=True)
    assert found["train.optimizer.betas.0"] == FloatDistribution(0, 0.95)
    assert found["train.optimizer.betas.1"].low == pytest.approx(1e-4)
    assert found["train.optimizer.betas.1"].high == pytest.approx(0.1)
    assert found["train.optimizer.betas.1"].log
    assert found["model.latent_dim"] == IntDistribution(20, 200, step=20)
    assert found["train.batch_size"] == IntDistribution(16, 256, log=True)
    assert found["loss.name"] == CategoricalDistribution(["non_saturating", "hinge"])
    assert found["model.dropout"] == FloatDistribution(0, 0.5, step=0.25)


@pytest.mark.parametrize("name", ["gan14", "gan28", "dcgan14", "dcgan28", "dcgan_tf28", "cgan_egg"])
def test_every_shipped_space_holds_the_recipes_own_values_and_builds_at_its_ends(name, tmp_path):
    chosen = engine.open_recipe(name)
    space = Space(chosen)
    space.check(tmp_path)
    assert engine.change(chosen, space.changes(space.own_point)).model == chosen.model
    assert engine.change(chosen, space.changes(space.own_point)).train.optimizer.lr == chosen.train.optimizer.lr
    for key, distribution in space.distributions.items():
        assert distribution._contains(distribution.to_internal_repr(space.own_point[key]))


def test_points_of_a_mirrored_range_come_back_as_the_recipes_values():
    space = Space(recipe({"train.optimizer.betas.1": {"low": 0.9, "high": 0.9999, "one_minus_log": True}}))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        value = space.changes(study.ask(space.distributions).params)["train.optimizer.betas.1"]
        assert 0.9 <= value <= 0.9999


def test_a_players_own_rate_is_searched_from_the_shared_one():
    space = Space(recipe({"train.discriminator.lr": {"low": 1e-5, "high": 1e-2, "log": True}}))
    assert space.own_point == {"train.discriminator.lr": 2e-4}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.optimizer.lr": {"low": 1e-3, "high": 1e-2}}, "own value 0.0002 is outside of 0.001 to 0.01; widen it"),
        ({"train.optimizer.lr": {"low": 1e-2, "high": 1e-3}}, "low 0.01 is not below high 0.001; swap or widen them"),
        ({"train.optimizer.lr": {"low": 0, "high": 1e-3, "log": True}}, "low 0 has no logarithm; make it more than 0"),
        (
            {"train.optimizer.betas.1": {"low": 0.5, "high": 1, "one_minus_log": True}},
            "1 - high 1 has no logarithm; make high less than 1",
        ),
        (
            {"model.latent_dim": {"low": 10, "high": 100, "log": True, "step": 5}},
            "step 5 does not go with a logarithm; leave one out",
        ),
        ({"model.latent_dim": [16, 32]}, "own value 100 is not among [16, 32]; add it"),
        ({"model.laten_dim": [16]}, "tune.space.model.laten_dim: the recipe dcgan14 has no such key"),
        ({"train.optimizer.betas.2": {"low": 0, "high": 0.5}}, "has no such key; name one that it has"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_its_key(space, message):
    with pytest.raises(RecipeError) as caught:
        Space(recipe(space))
    assert message in str(caught.value)
    assert str(caught.value).startswith("tune.space.")


def test_a_recipe_without_a_tune_block_says_so():
    with pytest.raises(RecipeError, match="gan14: has no tune block; add one"):
        Space(engine.open_recipe("gan14", {"tune": None}))


def test_an_end_of_a_range_that_the_recipe_refuses_is_named_before_any_trial(tmp_path):
    space = Space(recipe({"train.optimizer.betas.0": {"low": 0.0, "high": 1.5}}))
    with pytest.raises(RecipeError, match=r"tune.space.train.optimizer.betas.0: 1.5 cannot be built: .*less than 1"):
        space.check(tmp_path)


def test_a_choice_whose_networks_do_not_fit_is_named_before_any_trial(tmp_path):
    space = Space(recipe({"data.size": [14, 17]}))
    with pytest.raises(
        ShapeError, match=r"tune.space.data.size: 17 cannot be built: generator: makes images of 1x14x14"
    ):
        space.check(tmp_path)
