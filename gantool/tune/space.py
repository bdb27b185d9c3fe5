"""The search space of a recipe: from dotted keys and ranges to Optuna's distributions, and back."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from gantool.errors import GantoolError, RecipeError
from gantool.recipe.blocks import Choice, Range, Recipe
from gantool.recipe.schema import plain
from gantool.training import engine

ALIKE = (
    *("name", "tune", "train.epochs", "train.evaluate_every", "train.keep_every"),
    *("train.evaluate_images", "train.extractors"),
    *("data.source", "data.classes", "data.folder", "data.held_out"),
)  # in every trial of a search: distances are compared on the same images, measured alike
COMPLEMENT = "1 - "  # before Optuna's name of a key of which 1 - value is searched
_NOTHING = object()  # what a recipe has at a key that is not its own


class Space:
    """The keys that a recipe's `tune.space` searches, with their ranges.

    Args:
        recipe: with a `tune` block. Its own values are the first point of a search.

    Raises:
        RecipeError: it has no `tune` block, a key is not the recipe's or the same in all trials, a range is empty, a
            condition can never hold, or the recipe's own value is outside of its range.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.tune is None:
            raise RecipeError(f"{recipe.name}: has no tune block; add one with a space, such as tune.space")
        self.recipe = recipe
        given = recipe.tune.space
        spans = {key: Choice(choice=span) if isinstance(span, list) else span for key, span in given.items()}
        self.ranges: dict[str, Range | Choice] = _ordered(spans)
        self.own: dict[str, Any] = {}  # the recipe's own values of the keys that are searched
        self.distributions: dict[str, BaseDistribution] = {}  # by Optuna's name of a key
        for key, span in self.ranges.items():
            own = _own_value(recipe, key, span)
            if self.searched(key, self.own):
                if own is _NOTHING:
                    near = difflib.get_close_matches(key, _keys(plain(recipe)), 1, 0.8)
                    advice = f"did you mean {near[0]}?" if near else "name one that it has"
                    raise RecipeError(f"tune.space.{key}: the recipe {recipe.name} has no such key; {advice}")
                self.own[key] = own
            self.distributions[self.parameter(key)] = _distribution(key, span, own if key in self.own else _NOTHING)
        for key in sorted(self.own.keys() & {"loss", "model"}):
            self._check_nothing_is_dropped(key)

    @property
    def own_point(self) -> dict[str, Any]:
        """The recipe's own values, as a point of Optuna's."""
        return {self.parameter(key): self._complement(key, value) for key, value in self.own.items()}

    def parameter(self, key: str) -> str:
        """Return Optuna's name of a key. If 1 - value is searched, the name says so."""
        return f"{COMPLEMENT}{key}" if self._is_complement(key) else key

    def ask(self, study: optuna.Study) -> optuna.Trial:
        """Start a trial: the study's sampler chooses the value of each key that is searched, one after the other."""
        trial = study.ask()
        values: dict[str, Any] = {}
        for key in self.ranges:
            if self.searched(key, values):
                name = self.parameter(key)
                values[key] = self._complement(key, trial._suggest(name, self.distributions[name]))
        return trial

    def changes(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe's values at a point of Optuna's, in the order in which they are set."""
        point = self.renamed(point)
        named = {key: self.parameter(key) for key in self.ranges}
        return {key: self._complement(key, point[name]) for key, name in named.items() if name in point}

    def point(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return Optuna's point of a recipe's values, or None if one is missing or outside of its range."""
        found: dict[str, Any] = {}
        for key in self.ranges:
            if not self.searched(key, values):
                continue
            name = self.parameter(key)
            try:
                found[name] = self._complement(key, values[key])
                span = self.distributions[name]
                if not span._contains(span.to_internal_repr(found[name])):
                    return None
            except (KeyError, TypeError, ValueError):
                return None
        return found

    def renamed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a point under this version's names. In version 0.1, 1 - value stood under the key itself."""
        return {self.parameter(name) if name in self.ranges else name: value for name, value in params.items()}

    def searched(self, key: str, values: Mapping[str, Any]) -> bool:
        """Return whether a key is searched, given the values of the keys before it."""
        conditions = self.ranges[key].when or {}
        return all(
            other in values and values[other] in (wanted if isinstance(wanted, list) else [wanted])
            for other, wanted in conditions.items()
        )

    def check(self, data_dir: Path) -> None:
        """Build the recipe at both ends of every range and with every choice, before any trial.

        Raises:
            RecipeError, ShapeError: it cannot be built; the message names the key and the value.
        """
        for key, span in self.ranges.items():
            for value in [span.low, span.high] if isinstance(span, Range) else span.choice:
                changes = {**self._conditions(key), key: value}
                try:
                    recipe = engine.change(self.recipe, changes)
                    if any(one.startswith(("model", "data.")) for one in changes):
                        engine.shapes(recipe, data_dir)
                except GantoolError as error:
                    message = str(error).replace(f"--set {key}: ", "")
                    raise type(error)(f"tune.space.{key}: {value} cannot be built: {message}") from None

    def largest(self) -> Recipe:
        """Return the recipe with the values that take the most memory: the upper ends of its widths and batches."""
        upper = {
            key: span.high
            for key, span in self.ranges.items()
            if isinstance(span, Range) and not span.when and key.startswith(("model.", "train.batch_size"))
        }
        return engine.change(self.recipe, upper)

    def _check_nothing_is_dropped(self, key: str) -> None:
        """Raise an error if choosing a block by its name drops settings of the recipe's own block."""
        own, chosen = plain(self.recipe)[key], plain(engine.change(self.recipe, self.own))[key]
        dropped = ", ".join(f"{name} {value}" for name, value in own.items() if chosen[name] != value)
        if dropped:
            raise RecipeError(
                f"tune.space.{key}: would drop {dropped} of the recipe's own {own['name']}; search {key}.name, which "
                "keeps it"
            )

    def _conditions(self, key: str) -> dict[str, Any]:
        """Return values at which a key is searched."""
        found: dict[str, Any] = {}
        for other, wanted in (self.ranges[key].when or {}).items():
            found |= {**self._conditions(other), other: wanted[0] if isinstance(wanted, list) else wanted}
        return found

    def _is_complement(self, key: str) -> bool:
        span = self.ranges[key]
        return isinstance(span, Range) and span.log_complement

    def _complement(self, key: str, value: Any) -> Any:
        return 1 - value if self._is_complement(key) else value


def _ordered(spans: Mapping[str, Range | Choice]) -> dict[str, Range | Choice]:
    """Put every key behind those that its condition names, and behind the block that it is inside of."""
    for key, span in spans.items():
        if any(key == alike or key.startswith(f"{alike}.") for alike in ALIKE):
            raise RecipeError(f"tune.space.{key}: is the same for all trials; leave it out")
        for other, wanted in (span.when or {}).items():
            if other not in spans:
                raise RecipeError(f"tune.space.{key}.when: {other} is not searched; name a key of tune.space")
            for value in wanted if isinstance(wanted, list) else [wanted]:
                never = _never(spans[other], value)
                if never:
                    raise RecipeError(f"tune.space.{key}.when: {other} is {never}")
    first = {
        key: {*(span.when or {}), *(other for other in spans if key.startswith(f"{other}."))}
        for key, span in spans.items()
    }
    placed: dict[str, Range | Choice] = {}
    while len(placed) < len(spans):
        ready = [key for key in spans if key not in placed and first[key] <= placed.keys()]
        if not ready:
            circle = ", ".join(key for key in spans if key not in placed)
            raise RecipeError(f"tune.space: the conditions of {circle} wait for each other; leave one out")
        placed[ready[0]] = spans[ready[0]]
    return placed


def _never(span: Range | Choice, value: Any) -> str:
    """Return why a key with this range never has a value; empty if it may have it."""
    if isinstance(span, Choice):
        return "" if value in span.choice else f"never {value}; choose from {span.choice}"
    if not (isinstance(span.low, int) and isinstance(span.high, int)):
        return f"hardly ever just {value}; make it a list of choices"
    step = int(span.step or 1)
    if isinstance(value, int) and value in range(span.low, span.high + 1, max(1, step)):
        return ""
    return f"never {value}; choose from {span.low} to {span.high}{f' in steps of {step}' if step > 1 else ''}"


def _keys(block: Any, prefix: str = "") -> list[str]:
    """List the dotted keys of a recipe."""
    pairs = block.items() if isinstance(block, dict) else enumerate(block) if isinstance(block, list) else ()
    return [key for name, value in pairs for key in (f"{prefix}{name}", *_keys(value, f"{prefix}{name}."))]


def _own_value(recipe: Recipe, key: str, span: Range | Choice) -> Any:
    value: Any = plain(recipe)
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return _NOTHING
        if value is None and key.startswith(("train.generator.", "train.discriminator.")):
            return _own_value(recipe, "train.optimizer." + key.split(".", 2)[2], span)
    if isinstance(value, dict) and "name" in value and isinstance(span, Choice):
        return value["name"]  # `loss: [hinge, minimax]`: a block that is only a name
    return value


def _distribution(key: str, span: Range | Choice, own: Any) -> BaseDistribution:
    place = f"tune.space.{key}"
    if isinstance(span, Choice):
        if own is not _NOTHING and own not in span.choice:
            raise RecipeError(f"{place}: the recipe's own value {own} is not among {span.choice}; add it")
        return CategoricalDistribution(span.choice)
    _check_range(place, span, own)
    if span.log_complement:
        return FloatDistribution(1 - span.high, 1 - span.low, log=True)
    whole = isinstance(span.low, int) and isinstance(span.high, int) and (own is _NOTHING or isinstance(own, int))
    if span.step is not None:
        return _stepped(place, span, own, span.step, whole)
    if whole:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


def _check_range(place: str, span: Range, own: Any) -> None:
    if not span.low < span.high:
        raise RecipeError(f"{place}: low {span.low} is not below high {span.high}; swap or widen them")
    outside = own is not _NOTHING and (isinstance(own, bool | str) or own is None or not span.low <= own <= span.high)
    if outside:
        raise RecipeError(f"{place}: the recipe's own value {own} is outside of {span.low} to {span.high}; widen it")
    if span.log and span.low <= 0:
        raise RecipeError(f"{place}: low {span.low} has no logarithm; make it more than 0")
    if span.log_complement and span.high >= 1:
        raise RecipeError(f"{place}: 1 - high {span.high} has no logarithm; make high less than 1")
    if span.step is not None and (span.log or span.log_complement):
        raise RecipeError(f"{place}: step {span.step} does not go with a logarithm; leave one out")


def _stepped(place: str, span: Range, own: Any, step: float, whole: bool) -> BaseDistribution:
    if step <= 0:
        raise RecipeError(f"{place}: step {step} is not more than 0; leave it out")
    if whole and step != int(step):
        raise RecipeError(f"{place}: step {step} is not a whole number, as low and high are; round it")
    found: FloatDistribution | IntDistribution
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the last step may end before `high`
        if whole:
            found = IntDistribution(int(span.low), int(span.high), step=int(step))
        else:
            found = FloatDistribution(span.low, span.high, step=step)
    steps = 0.0 if own is _NOTHING else (own - span.low) / step
    if abs(steps - round(steps)) > 1e-8 or (own is not _NOTHING and own > found.high + 1e-8 * step):
        raise RecipeError(f"{place}: the recipe's own value {own} is not {span.low} and a number of steps of {step}")
    return found


def short(key: str) -> str:
    """Name a dotted key by its end.

    >>> short("train.optimizer.betas.0"), short("model.latent_dim"), short("loss.name")
    ('betas.0', 'latent_dim', 'loss.name')
    """
    parts = key.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() or parts[-1] == "name" else parts[-1]


def names(keys: Iterable[str]) -> dict[str, str]:
    """Name dotted keys by their ends, and by longer ends if two would have the same name.

    >>> names(["train.optimizer.lr", "train.generator.lr", "model.latent_dim"])
    {'train.optimizer.lr': 'optimizer.lr', 'train.generator.lr': 'generator.lr', 'model.latent_dim': 'latent_dim'}
    """
    given = dict.fromkeys(keys)
    found = {}
    for key in given:
        parts, length = key.split("."), short(key).count(".") + 1
        while length < len(parts) and sum(f".{other}".endswith("." + ".".join(parts[-length:])) for other in given) > 1:
            length += 1
        found[key] = ".".join(parts[-length:])
    return found
