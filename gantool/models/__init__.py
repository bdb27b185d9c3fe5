"""The models, one a file; a file's name is the name that recipes use."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gantool.errors import RecipeError, unknown
from gantool.models import losses

if TYPE_CHECKING:
    from gantool.batches import Spec
    from gantool.models.base import Model
    from gantool.recipe.blocks import Recipe
    from gantool.recipe.load import Find

_SHARED = {"base", "blocks", "losses", "augment", "shapes"}  # what models are made of


def names() -> list[str]:
    """List the models by listing this folder; none of them is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def find_model(name: str) -> type[Model]:
    """Return the model class that the file `name` defines.

    Raises:
        RecipeError: no such file exists.
    """
    if name not in names():
        raise RecipeError(unknown("model", name, names()))
    from gantool.models.base import Model

    module = importlib.import_module(f"{__name__}.{name}")
    (model,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    return model


KINDS: Mapping[str, Find] = {"model": find_model, "loss": losses.find_loss}


def build(recipe: Recipe, data: Spec) -> Model:
    """Make the model of a recipe for its data, with fresh weights."""
    losses = [] if recipe.loss is None else [recipe.loss.make()]
    return recipe.model.make(data, *losses)
