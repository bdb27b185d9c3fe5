"""Every recipe that comes with gantool."""

from __future__ import annotations

import pytest
from gantool import models
from gantool.data.prepare import find_source
from gantool.data.sources.catalog import SOURCES
from gantool.models import KINDS
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Range
from gantool.recipe.load import shipped
from gantool.recipe.strict_yaml import parse
from gantool.training.engine import change, open_recipe

from small import offline, small, spec

NAMES = sorted(shipped())
each = pytest.mark.parametrize("name", NAMES)


def test_there_are_recipes_and_their_names_are_plain():
    assert {"cgan_egg", "dcgan14", "dcgan28", "dcgan_tf28", "gan14", "gan28", "pix2pix", "cyclegan"} <= set(NAMES)
    assert all(name.replace("_", "").isalnum() and name.islower() for name in NAMES)


@each
def test_it_loads_by_bare_name_and_by_path(name):
    assert open_recipe(name) == open_recipe(str(shipped()[name]))
    assert open_recipe(name).name == name


@each
def test_it_dumps_and_loads_again_equal(name):
    loaded = open_recipe(name)
    text = recipes.dump(loaded)

    assert recipes.parse(text, "again.yaml", KINDS) == loaded
    assert recipes.dump(recipes.parse(text, "again.yaml", KINDS)) == text


@each
def test_its_source_is_known(name):
    assert open_recipe(name).data.source in SOURCES


@each
def test_it_begins_with_how_it_is_trained(name):
    head = [line for line in shipped()[name].read_text(encoding="utf-8").splitlines() if line.startswith("#")]

    assert any(line.split()[:4] == ["#", "gantool", "train", name] for line in head)


@each
def test_it_trains_on_data_that_need_no_network(name, tmp_path):
    chosen = change(open_recipe(name), offline(name))
    found = find_source(chosen.data, tmp_path, chosen.batch_type)

    assert found.exists(tmp_path)


@each
def test_both_ends_of_its_search_space_are_recipes(name):
    loaded = open_recipe(name)

    for key, searched in loaded.tune.space.items():
        ends = [searched.low, searched.high] if isinstance(searched, Range) else getattr(searched, "choice", searched)
        for end in ends:
            assert change(loaded, {key: end}) is not None
    key_lines = parse(shipped()[name].read_text(encoding="utf-8"), name)[0]["tune"]["space"]
    assert list(key_lines) == list(loaded.tune.space)


@each
def test_its_search_ends_in_trained_models(name):
    assert open_recipe(name).tune.finish


@each
def test_its_model_can_be_built_and_plays_its_data(name):
    model = models.build(open_recipe(name, small(name)), spec(open_recipe(name, small(name))))

    assert isinstance(model.blank(2), model.consumes)
    assert list(model.play(model.blank(2)))
