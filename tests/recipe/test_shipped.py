"""Every recipe that comes with gantool."""

from __future__ import annotations

import pytest
from gantool.data.prepare import find_source
from gantool.data.sources.catalog import SOURCES
from gantool.models import KINDS
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Range
from gantool.recipe.load import shipped
from gantool.recipe.strict_yaml import parse
from gantool.training.engine import change, open_recipe

from small import RECIPES, offline

each = pytest.mark.parametrize("name", RECIPES)


@each
def test_it_loads_by_name_and_by_path_and_dumps_and_loads_again_equal(name):
    loaded = open_recipe(name)
    assert loaded == open_recipe(str(shipped()[name]))
    assert loaded.name == name == name.lower()
    assert recipes.parse(recipes.dump(loaded), "again.yaml", KINDS) == loaded
    head = [line for line in shipped()[name].read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(line.split()[:4] == ["#", "gantool", "train", name] for line in head)


@each
def test_its_source_is_known_and_it_can_be_trained_on_data_that_need_no_network(name, tmp_path):
    loaded = open_recipe(name)
    assert loaded.data.source in SOURCES
    chosen = change(loaded, offline(name))
    assert find_source(chosen.data, tmp_path, chosen.batch_type).exists(tmp_path)


@each
def test_both_ends_of_its_search_space_are_recipes_and_its_search_ends_in_trained_models(name):
    loaded = open_recipe(name)
    for key, searched in loaded.tune.space.items():
        ends = [searched.low, searched.high] if isinstance(searched, Range) else getattr(searched, "choice", searched)
        for end in ends:
            assert change(loaded, {key: end}) is not None
    written = parse(shipped()[name].read_text(encoding="utf-8"), name)[0]["tune"]["space"]
    assert list(written) == list(loaded.tune.space)
    assert loaded.tune.finish


FACADES = {"width": 64, "levels": 8, "norm": "batch", "dropout": 0.5, "l1": 100, "discriminator_layers": 3}
ZEBRA = {"width": 64, "blocks": 9, "cycle": 10, "identity": 0.5, "history": 50, "discriminator_layers": 3}


@pytest.mark.parametrize(
    ("name", "lr", "betas", "batch", "epochs", "loss", "model"),
    [
        ("gan28", 2e-4, (0.9, 0.999), 64, 10, "non_saturating", {"latent_dim": 100}),
        ("gan14", 2e-4, (0.5, 0.999), 128, 30, "non_saturating", {"latent_dim": 100}),
        ("dcgan14", 2e-4, (0.5, 0.999), 128, 30, "non_saturating", {"latent_dim": 100}),
        ("dcgan28", 2e-4, (0.5, 0.999), 128, 30, "non_saturating", {"latent_dim": 100}),
        ("dcgan_tf28", 1e-4, (0.9, 0.999), 256, 50, "non_saturating", {"latent_dim": 100}),
        ("cgan_egg", 2e-4, (0.5, 0.999), 32, 500, "non_saturating", {"latent_dim": 100}),
        ("wgan_gp28", 1e-4, (0.0, 0.9), 64, 30, "wasserstein", {"latent_dim": 100}),
        ("pix2pix_facades", 2e-4, (0.5, 0.999), 1, 200, "non_saturating", FACADES),
        ("cyclegan_horse2zebra", 2e-4, (0.5, 0.999), 1, 200, "least_squares", ZEBRA),
    ],
)
def test_it_trains_with_its_published_settings(name, lr, betas, batch, epochs, loss, model):
    recipe = open_recipe(name)
    for player in ("generator", "discriminator"):
        adam = recipe.train.optimizer_of(player)
        assert (adam.name, adam.lr, adam.betas) == ("adam", lr, betas)
    assert (recipe.train.batch_size, recipe.train.epochs) == (batch, epochs)
    assert dict(recipe.model).items() >= model.items()
    assert (recipe.loss.name, recipe.loss.gradient_penalty) == (loss, 10.0 if loss == "wasserstein" else 0.0)
    if epochs == 200:  # translators
        data = recipe.data
        assert (data.size, data.channels, data.flip, data.jitter, recipe.train.decay_after) == (256, 3, True, 30, 100)
        assert data.classes == (["B", "A"] if name == "pix2pix_facades" else ["A", "B"])
