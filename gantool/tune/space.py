"""The search space of a recipe: from dotted keys and ranges to Optuna's distributions, and back."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator, Mapping
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
_NOTHING = object()  # the value of a key that a recipe does not have


class Space:
    """The keys that a recipe's `tune.space` searches, with their ranges.

    Raises:
        RecipeError: it has no `tune` block, a key is not the recipe's or the same in all trials, a range is empty, a
            condition can never hold, or the recipe's own value is outside of its range.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.tune is None:
            raise RecipeError(f"{recipe.name}: has no tune block; add one with a space, such as tune.space")
        self.recipe, self.tune = recipe, recipe.tune
        self.epochs = recipe.tune.epochs or recipe.train.epochs  # of a trial
        given = recipe.tune.space
        spans = {key: Choice(choice=span) if isinstance(span, list) else span for key, span in given.items()}
        self.ranges: dict[str, Range | Choice] = _ordered(spans)
        self.own: dict[str, Any] = {}  # the recipe's own values of the keys that are searched
        self.distributions: dict[str, BaseDistribution] = {}  # by Optuna's name of a key
        values = dotted(plain(recipe))
        for key, span in self.ranges.items():
            own = _own_value(values, key, span)
            if self.searched(key, self.own):
                if own is _NOTHING:
                    near = difflib.get_close_matches(key, values, 1, 0.8)
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


def dotted(block: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a recipe by their dotted keys: blocks, lists, and what they hold."""
    pairs = block.items() if isinstance(block, dict) else enumerate(block) if isinstance(block, list) else ()
    found: dict[str, Any] = {}
    for name, value in pairs:
        found |= {f"{prefix}{name}": value, **dotted(value, f"{prefix}{name}.")}
    return found


def _own_value(values: Mapping[str, Any], key: str, span: Range | Choice) -> Any:
    parts = key.split(".")
    is_player = parts[:2] in (["train", "generator"], ["train", "discriminator"])
    if is_player and values.get(".".join(parts[:3]), _NOTHING) is None:
        key = ".".join(["train", "optimizer", *parts[2:]])
    value = values.get(key, _NOTHING)
    if isinstance(value, dict) and "name" in value and isinstance(span, Choice):
        return value["name"]  # `loss: [hinge, minimax]`: a block that is only a name
    return value


def _distribution(key: str, span: Range | Choice, own: Any) -> BaseDistribution:
    """Return Optuna's distribution of a range; `own` is the recipe's own value, or `_NOTHING`."""
    if isinstance(span, Choice):
        if own is not _NOTHING and own not in span.choice:
            raise RecipeError(f"tune.space.{key}: the recipe's own value {own} is not among {span.choice}; add it")
        return CategoricalDistribution(span.choice)
    whole = isinstance(span.low, int) and isinstance(span.high, int) and (own is _NOTHING or isinstance(own, int))
    problem = next(_problems(span, own, whole), None)
    if problem is not None:
        raise RecipeError(f"tune.space.{key}: {problem}")
    if span.log_complement:
        return FloatDistribution(1 - span.high, 1 - span.low, log=True)
    found: FloatDistribution | IntDistribution
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the last step may end before `high`
        if whole:
            found = IntDistribution(int(span.low), int(span.high), log=span.log, step=int(span.step or 1))
        else:
            found = FloatDistribution(span.low, span.high, log=span.log, step=span.step)
    if span.step is not None and own is not _NOTHING:
        steps = (own - span.low) / span.step
        if abs(steps - round(steps)) > 1e-8 or own > found.high + 1e-8 * span.step:
            raise RecipeError(
                f"tune.space.{key}: the recipe's own value {own} is not {span.low} and a number of steps of {span.step}"
            )
    return found


def _problems(span: Range, own: Any, whole: bool) -> Iterator[str]:
    if not span.low < span.high:
        yield f"low {span.low} is not below high {span.high}; swap or widen them"
    if own is not _NOTHING and (isinstance(own, bool | str) or own is None or not span.low <= own <= span.high):
        yield f"the recipe's own value {own} is outside of {span.low} to {span.high}; widen it"
    if span.log and span.low <= 0:
        yield f"low {span.low} has no logarithm; make it more than 0"
    if span.log_complement and span.high >= 1:
        yield f"1 - high {span.high} has no logarithm; make high less than 1"
    if span.step is None:
        return
    if span.log or span.log_complement:
        yield f"step {span.step} cannot be combined with a logarithm; leave one out"
    if span.step <= 0:
        yield f"step {span.step} is not more than 0; leave it out"
    if whole and span.step != int(span.step):
        yield f"step {span.step} is not a whole number, as low and high are; round it"


def names(keys: Iterable[str]) -> dict[str, str]:
    """Return short names of dotted keys: their ends, as long as needed to differ.

    >>> names(["train.optimizer.lr", "train.generator.lr", "train.optimizer.betas.0"])
    {'train.optimizer.lr': 'optimizer.lr', 'train.generator.lr': 'generator.lr', 'train.optimizer.betas.0': 'betas.0'}
    """
    given = dict.fromkeys(keys)
    found = {}
    for key in given:
        parts = key.split(".")
        length = 2 if parts[-1].isdigit() or parts[-1] == "name" else 1
        while length < len(parts) and sum(f".{other}".endswith("." + ".".join(parts[-length:])) for other in given) > 1:
            length += 1
        found[key] = ".".join(parts[-length:])
    return found
