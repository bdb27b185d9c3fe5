"""Every shipped recipe, made small enough for a test, without knowing any of them."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

from gantool import models
from gantool.batches import ImageSpec, Labeled, Paired, TableBatch, Unpaired
from gantool.data.prepare import describe
from gantool.data.sources.catalog import SOURCES
from gantool.errors import GantoolError
from gantool.models import shapes
from gantool.models.base import Classifier
from gantool.recipe.load import shipped
from gantool.recipe.schema import plain
from gantool.training import engine

RECIPES = list(shipped())
NARROW = {"width": 4, "discriminator_width": 4, "levels": 3, "blocks": 1}
OFFLINE = {Labeled: "digits", Paired: "egg_edges", Unpaired: "egg_colours", TableBatch: "income"}


def kind(name):
    return engine.open_recipe(name).model.target


def of(*kinds):
    return [name for name in RECIPES if issubclass(kind(name), kinds)]


def spec(recipe):
    """What the recipe's data are like; a folder that is not there has three classes."""
    found = describe(recipe.data, Path("nowhere"), recipe.batch_type)
    if not isinstance(found, ImageSpec) or len(found.classes) > 1 or recipe.data.classes:
        return found
    return ImageSpec(found.channels, found.height, found.width, ("class 0", "class 1", "class 2"))


def small(name, **more):
    """Changes that make a recipe's networks quick: narrow where they can be, and the smallest images that fit."""
    if issubclass(kind(name), Classifier):
        return more
    narrow = narrowed(name)
    return {"data.size": smallest(name), **narrow, **more}


def narrowed(name):
    """Changes that make a recipe's layers narrow: those that a number sets, and those that are listed."""
    listed = {
        f"model.{key}": narrower(value)
        for key, value in plain(engine.open_recipe(name).model).items()
        if is_list(value)
    }
    keys = inspect.signature(kind(name)).parameters
    return listed | {f"model.{key}": value for key, value in NARROW.items() if key in keys}


def is_list(value):
    return isinstance(value, list)


def narrower(layers):
    """Widths, or layers that begin with theirs: an eighth of it, but 4 or more where it was so."""
    return [
        [*narrower(layer[:1]), *layer[1:]] if is_list(layer) else max(min(layer, 4), layer // 8) for layer in layers
    ]


@functools.cache
def smallest(name):
    """The first of these sizes that the networks take; those of most recipes take one only."""
    recipe = engine.open_recipe(name, narrowed(name))
    return next(size for size in (4, 8, 12, 14, 16, 24, 28, 32, 64) if fits(recipe, size))


def fits(recipe, size):
    data = spec(recipe)
    try:
        shapes.trace(lambda: models.build(recipe, ImageSpec(data.channels, size, size, data.classes)))
    except GantoolError:
        return False
    return True


def offline(name):
    """Changes that make a recipe learn from what comes with gantool or scikit-learn, and from no more than it must."""
    source = SOURCES.get(engine.open_recipe(name).data.source)
    if source is None:
        return {}
    found = {"data.source": OFFLINE[kind(name).consumes], "data.classes": None} if source.needs else {}
    if kind(name).consumes is Labeled:
        found["data.held_out"] = 0.5
        classes = spec(engine.open_recipe(name, found)).classes
        if len(classes) > 2:
            found["data.classes"] = list(classes[:2])
    return found
