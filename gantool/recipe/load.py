"""Read and write recipes: `load` reads one, `override` changes dotted keys, `dump` writes every key with its value."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import create_model

from gantool.batches import TableBatch
from gantool.errors import GantoolError, RecipeError, unknown
from gantool.files import is_file
from gantool.recipe import strict_yaml
from gantool.recipe.blocks import Choice, Optimizer, PlayerOptimizer, Range, Recipe
from gantool.recipe.schema import Mismatch, NamedBlock, Problem, check, plain, signature, types_of
from gantool.recipe.strict_yaml import KeyPath

Find = Callable[[str], Callable[..., Any]]
"""Returns what a `name:` stands for; its keyword-only parameters are the schema of the rest of the block."""


def shipped() -> dict[str, Path]:
    """Return the recipes that come with gantool, by name."""
    inside = Path(__file__).parents[1] / "recipes"  # in an installed package
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"  # in a checkout
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, by its path, its run's directory or the bare name of a shipped one.

    Raises:
        RecipeError: no such recipe exists.
    """
    path, known = Path(name), shipped()
    for file in (path / "recipe.yaml", path):
        if is_file(file):
            return file
    if name in known:
        return known[name]
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        hint = f"; the shipped recipe is called {path.stem!r}" if path.stem in known else ""
        raise RecipeError(f"{name}: no such recipe file{hint}")
    raise RecipeError(unknown("recipe", name, known))


def load(name: str, changes: Mapping[str, Any], kinds: Mapping[str, Find]) -> Recipe:
    """Read a recipe, change dotted keys, and check all of it.

    Args:
        name: a path, or the bare name of a shipped recipe.
        changes: new values by dotted key, such as {"train.batch_size": 64, "train.optimizer.betas.0": 0.0}.
        kinds: for the blocks `model` and `loss`, a function from a `name` to the constructor that it stands for.

    Raises:
        RecipeError: with every problem of the file, each with its line and dotted place.
    """
    path = find_recipe(name)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    return parse(text, str(path), kinds, changes)


def parse(text: str | bytes, source: str, kinds: Mapping[str, Find], changes: Mapping[str, Any] = {}) -> Recipe:
    """Check the text of a recipe; see `load`. Messages call it `source`."""
    document, lines = strict_yaml.parse(text, source)
    if not isinstance(document, dict):
        raise RecipeError(f"{source}: a recipe is a block of keys (model, data, loss, train), not {document!r:.40}")
    document.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(source).stem).strip("_.-")[:64] or "recipe")
    return _checked(document, changes, kinds, source, lines)


def override(recipe: Recipe, changes: Mapping[str, Any], kinds: Mapping[str, Find]) -> Recipe:
    """Return the recipe with new values at dotted keys; see `load`."""
    return _checked(plain(recipe), changes, kinds, recipe.name, {})


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default written out, which is a recipe itself."""
    return strict_yaml.dump(plain(recipe))


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """Return the changes that `--set key=value` texts ask for.

    The value of a key that takes text, such as `data.source`, is the rest of the text; quotes around it are removed.
    Any other value is YAML.

    Raises:
        RecipeError: a text is not of that form.
    """
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set {text}: expected key=value, such as train.epochs=5")
        key = key.strip()
        strict_yaml.check_text(text, f"--set {key}")
        types = types_of(key, Recipe)
        if str not in types or types - {str, type(None)}:
            changes[key] = strict_yaml.scalar(value, f"--set {key}")
        elif value[:1] in {"'", '"'} and len(value) > 1 and value[0] == value[-1]:
            changes[key] = value[1:-1]
        else:
            changes[key] = None if value == "null" and type(None) in types else value
    return changes


def _checked(
    document: dict[str, Any],
    changes: Mapping[str, Any],
    kinds: Mapping[str, Find],
    source: str,
    lines: Mapping[KeyPath, int],
) -> Recipe:
    # A change at an index (betas.0) needs the list's other values, so it follows when the defaults are known.
    at_index = {key: value for key, value in changes.items() if re.search(r"\.\d+(\.|$)", key)}
    at_key = {key: value for key, value in changes.items() if key not in at_index}
    try:
        recipe = _recipe(_changed(document, at_key), kinds)
        return _recipe(_changed(plain(recipe), at_index), kinds) if at_index else recipe
    except Mismatch as error:
        rows = dict.fromkeys(_sentence(problem, source, lines, changes) for problem in error.problems)
        raise RecipeError("\n".join(rows)) from None


def _recipe(values: dict[str, Any], kinds: Mapping[str, Find]) -> Recipe:
    """Check a document; `model` and `loss` are checked against the signatures of what they name."""
    blocks: dict[str, Any] = {}
    problems: list[Problem] = []
    for block, find in kinds.items():
        if values.get(block) is not None:  # a game of one player has no loss
            if isinstance(values[block], str):
                values[block] = {"name": values[block]}
            try:
                blocks[block] = _named(block, values[block], find)
            except Mismatch as error:
                problems += error.problems
                blocks[block] = Any
    try:
        recipe = check(_schema(**blocks), values)
    except Mismatch as error:
        raise Mismatch(error.problems + problems) from None
    if not problems:
        problems += [*_together(recipe), *_settings(recipe)]
    if problems:
        raise Mismatch(problems)
    if recipe.tune and recipe.tune.metric is None:
        recipe = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"metric": recipe.metric})})
    return recipe


@functools.cache
def _schema(**blocks: Any) -> type[Recipe]:
    """Return the schema of recipes whose `model` and `loss` have these schemas."""
    fields: dict[str, Any] = {name: (block, ...) for name, block in blocks.items()}
    return create_model("Recipe", __base__=Recipe, **fields)


def _named(block: str, values: Any, find: Find) -> type[NamedBlock]:
    """Return the schema of a block by the name that it holds."""
    if not isinstance(values, dict):
        raise Mismatch([Problem((block,), f"expected a name or a block of keys, got {values!r:.40}")])
    if not isinstance(values.get("name"), str):
        raise Mismatch([Problem((block,), "missing key 'name'")])
    try:
        return signature(find(values["name"]))
    except GantoolError as error:
        raise Mismatch([Problem((block, "name"), str(error))]) from None


def _together(recipe: Recipe) -> Iterator[Problem]:
    """Return the conflicts between blocks."""
    name = recipe.model.name
    if "loss" in inspect.signature(recipe.model.target).parameters:
        if recipe.loss is None:
            yield Problem((), "missing key 'loss'")
    elif recipe.loss is not None:
        yield Problem(("loss",), f"{name} has one player and no adversary; leave the block out")
    metric = recipe.tune.metric if recipe.tune else None
    if metric and (metric == "error") != (recipe.loss is None):
        wanted = "error" if recipe.loss is None else "fd, fd_rand, fd_texture, fd_pretext or fd_judge"
        yield Problem(("tune", "metric"), f"{name} cannot be measured by {metric}; use {wanted}")
    if recipe.batch_type is TableBatch:
        if recipe.data.size is not None:
            yield Problem(("data", "size"), f"{name} learns from a table, which has no pixels; leave it out")
    elif recipe.data.size is None:
        yield Problem(("data",), "missing key 'size'")


def _settings(recipe: Recipe) -> Iterator[Problem]:
    """Return the conflicts between settings of training."""
    optimizer = recipe.train.optimizer
    if optimizer.name == "adam" and optimizer.momentum:
        yield Problem(("train", "optimizer", "momentum"), "is sgd's; adam has betas")
    if optimizer.name == "sgd" and optimizer.betas != Optimizer().betas:
        yield Problem(("train", "optimizer", "betas"), "are adam's; sgd has momentum")
    name = recipe.model.name
    if recipe.train.ema is not None and recipe.loss is None:
        yield Problem(("train", "ema"), f"averages a generator's weights, and {name} has none; leave it out")
    for player in ("generator", "discriminator"):
        own = getattr(recipe.train, player)
        if recipe.loss is None and own != PlayerOptimizer():
            yield Problem(("train", player), f"{name} has one player; set train.optimizer")
        elif optimizer.name == "sgd" and own.betas is not None:
            yield Problem(("train", player, "betas"), "are adam's; sgd has momentum")


def _changed(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    document = deepcopy(document)
    for key, value in changes.items():
        *parents, last = parts = _parts(key)
        at: Any = document
        for depth, part in enumerate(parents, 1):
            index = _index(at, part, parts)
            if isinstance(at, dict) and at.get(part) is None:
                at[part] = {}
            if parts[0] == "loss" and isinstance(at[index], str):
                at[index] = {"name": at[index]}
            at = at[index]
            if not isinstance(at, dict | list):
                raise Mismatch([Problem(tuple(parts), f"{'.'.join(parts[:depth])} holds no keys")])
        at[_index(at, last, parts)] = value
    return document


def _index(at: Any, part: str, place: list[str]) -> str | int:
    """Return the key or index of a part of a dotted key."""
    if isinstance(at, dict):
        return part
    if not (part.isdecimal() and int(part) < len(at)):
        raise Mismatch([Problem(tuple(place), f"no item {part!r} in a list of {len(at)}")])
    return int(part)


def _parts(key: str) -> list[str]:
    """Split a dotted key; the keys of `tune.space` are dotted themselves."""
    if not key.startswith("tune.space."):
        return key.split(".")
    searched, _, last = key.removeprefix("tune.space.").rpartition(".")
    if searched and last in {*Range.model_fields, *Choice.model_fields}:
        return ["tune", "space", searched, last]
    return ["tune", "space", key.removeprefix("tune.space.")]


def _sentence(problem: Problem, source: str, lines: Mapping[KeyPath, int], changes: Mapping[str, Any]) -> str:
    place, message = problem
    dotted = ".".join(map(str, place))
    for key in changes:
        if dotted == key or dotted.startswith(key + ".") or key.startswith(dotted + "."):
            return f"--set {key}: {message}"
    while place and place not in lines:
        place = place[:-1]
    line = f":{lines[place]}" if place in lines else ""
    return f"{source}{line}: {dotted + ': ' if dotted else ''}{message}"
