"""The search space of a recipe: from dotted keys and ranges to Optuna's distributions, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from gantool import engine
from gantool.errors import GantoolError, RecipeError
from gantool.recipe import Range, Recipe
from gantool.schema import plain


class Space:
    """What a recipe's `tune.space` searches.

    Args:
        recipe: its own values are the first point of a search, which so never ends worse than it began.

    Raises:
        RecipeError: it has no `tune` block, a key is not the recipe's, a range is empty, or the recipe's own value is
            outside of it.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.tune is None:
            raise RecipeError(f"{recipe.name}: has no tune block; add one with a space, such as tune.space")
        self.recipe = recipe
        self.ranges = recipe.tune.space
        self.own = {key: _own_value(recipe, key) for key in self.ranges}
        self.distributions = {key: _distribution(key, self.ranges[key], self.own[key]) for key in self.ranges}

    @property
    def own_point(self) -> dict[str, Any]:
        """The recipe's own values, as Optuna counts them."""
        return {key: self._inward(key, value) for key, value in self.own.items()}

    def changes(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Give the recipe's values at a point of Optuna's."""
        return {key: 1 - value if self._mirrored(key) else value for key, value in point.items()}

    def check(self, data_dir: Path) -> None:
        """Build the recipe at both ends of every range and at every choice, so that no trial meets a bad one.

        Raises:
            RecipeError, ShapeError: it cannot be built there; the message names the key and the value.
        """
        for key, span in self.ranges.items():
            for value in [span.low, span.high] if isinstance(span, Range) else span:
                try:
                    recipe = engine.change(self.recipe, {key: value})
                    if key.startswith(("model.", "data.")):
                        engine.shapes(recipe, data_dir)
                except GantoolError as error:
                    message = str(error).replace(f"--set {key}: ", "")
                    raise type(error)(f"tune.space.{key}: {value} cannot be built: {message}") from None

    def _inward(self, key: str, value: Any) -> Any:
        return 1 - value if self._mirrored(key) else value

    def _mirrored(self, key: str) -> bool:
        span = self.ranges[key]
        return isinstance(span, Range) and span.one_minus_log


def _own_value(recipe: Recipe, key: str) -> Any:
    value: Any = plain(recipe)
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise RecipeError(f"tune.space.{key}: the recipe {recipe.name} has no such key; name one that it has")
        if value is None and key.startswith(("train.generator.", "train.discriminator.")):
            return _own_value(recipe, "train.optimizer." + key.split(".", 2)[2])
    return value


def _distribution(key: str, span: Range | list[Any], own: Any) -> BaseDistribution:
    place = f"tune.space.{key}"
    if not isinstance(span, Range):
        if own not in span:
            raise RecipeError(f"{place}: the recipe's own value {own} is not among {span}; add it")
        return CategoricalDistribution(span)
    if not span.low < span.high:
        raise RecipeError(f"{place}: low {span.low} is not below high {span.high}; swap or widen them")
    if isinstance(own, bool | str) or own is None or not span.low <= own <= span.high:
        raise RecipeError(f"{place}: the recipe's own value {own} is outside of {span.low} to {span.high}; widen it")
    if span.log and span.low <= 0:
        raise RecipeError(f"{place}: low {span.low} has no logarithm; make it more than 0")
    if span.one_minus_log and span.high >= 1:
        raise RecipeError(f"{place}: 1 - high {span.high} has no logarithm; make high less than 1")
    if span.step is not None and (span.log or span.one_minus_log):
        raise RecipeError(f"{place}: step {span.step} does not go with a logarithm; leave one out")
    if isinstance(own, int) and isinstance(span.low, int) and isinstance(span.high, int):
        return IntDistribution(span.low, span.high, log=span.log, step=int(span.step or 1))
    if span.one_minus_log:
        return FloatDistribution(1 - span.high, 1 - span.low, log=True)
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)
