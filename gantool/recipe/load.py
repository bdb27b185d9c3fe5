"""A recipe: everything that decides a run, in one strict YAML file.

`load` reads one, `override` changes dotted keys of one, `dump` writes one with every default spelled out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval, MinLen
from pydantic import Discriminator, Field, Tag

from gantool.batches import Examples
from gantool.errors import GantoolError, RecipeError, unknown
from gantool.files import is_file
from gantool.recipe import strict_yaml
from gantool.recipe.schema import Block, Count, Fraction, Mismatch, Problem, Size, check, plain, signature
from gantool.recipe.strict_yaml import Place

Find = Callable[[str], Callable[..., Any]]
"""Gives what a `name:` stands for; its keyword-only parameters are the schema of the rest of the block."""

LearningRate = Annotated[float, Interval(gt=0, le=1000)]
Betas = tuple[Fraction, Fraction]


class Data(Block):
    """What is trained on.

    Args:
        source: a source's name (`gantool data list`), or a path to a folder of images or an archive of one.
        size: pixels on a side, or [height, width]; other sizes are resized and centre-cropped. null for a table.
        channels: 1 grey, 3 colour; null for what the source has.
        classes: names of the classes to keep, in the order of their labels; null for all. Of pictures that are
            translated, the kind to translate from and the kind to translate to.
        folder: look in this folder of the source only, such as `valid`.
        held_out: share of the pictures that training never sees, at least 12 of them; `stream.split` says which.
        flip: mirror half of the pictures, left to right, in training.
        jitter: pixels by which pictures are enlarged in training, before a window of their size is cut at random.
    """

    source: Annotated[str, MinLen(1)]
    size: Size | tuple[Size, Size] | None = None
    channels: Literal[1, 3] | None = None
    classes: Annotated[list[str], MinLen(1)] | None = None
    folder: str | None = None
    held_out: Annotated[float, Interval(ge=0, le=0.5)] = 0.2
    flip: bool = False
    jitter: Annotated[int, Interval(ge=0, le=1024)] = 0

    @property
    def height(self) -> int:
        """Of every image, in pixels."""
        return self._sides[0]

    @property
    def width(self) -> int:
        """Of every image, in pixels."""
        return self._sides[1]

    @property
    def _sides(self) -> tuple[int, int]:
        if self.size is None:
            raise ValueError("data.size: a table has no pixels")
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class Optimizer(Block):
    """What moves every player's weights.

    Args:
        name: `adam` (Kingma and Ba 2015, arXiv:1412.6980), or `sgd`, stochastic gradient descent.
        lr: learning rate.
        betas: of adam: decay of the running means of the gradient and of its square.
        momentum: of sgd: share of the last step that is added to the next.
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: LearningRate = 2e-4
    betas: Betas = (0.5, 0.999)
    momentum: Fraction = 0.0


class PlayerOptimizer(Block):
    """What one player's optimizer does differently; null keeps `train.optimizer`."""

    lr: LearningRate | None = None
    betas: Betas | None = None


class Train(Block):
    """How training goes.

    Args:
        epochs: passes over the data.
        batch_size: images in a step. The last, smaller batch of an epoch is left out unless it is the only one.
        seed: decides the first weights, the order of the data, latents and dropout.
        optimizer: what moves every player's weights.
        generator: what the generator's optimizer does differently.
        discriminator: what the discriminator's optimizer does differently.
        threads: processor threads that training computes with; null takes one for each core. Other numbers add up in
            another order, so that losses differ in their last digits. Give a number to get equal logs on machines of
            one kind with other numbers of cores. A resumed run keeps the number that it was started with.
        decay_after: epochs at the whole learning rate, which then falls evenly to 0 at the end of the last one; null
            never lowers it.
        ema: how much of the running mean of the generator's weights, which then makes the pictures, is kept in a
            step, such as 0.999; null makes them with the weights themselves.
        evaluate_every: epochs between measurements; the first and the last epoch are always measured. null measures
            after the first epoch, after 1, 2, 5, 10, 20, 35, 50, 75 and 100 % of the epochs, and evenly between, up to
            100 times, as long as all measurements together are predicted to cost at most a tenth of the training. The
            prediction is for one processor core and the same on every machine.
        evaluate_images: generated images in a measurement.
        extractors: what turns images into features for `fd` and the rest; `auto` takes `rand` and `texture` and, from
            60 images on, `pretext`, and reports a `judge`'s numbers beside them where there are labels to learn.
        checkpoint_every: epochs between checkpoints to go on from; the last epoch always has one.
        keep_every: epochs between checkpoints that are kept for ever; 0 keeps none but the best and the last two.
    """

    epochs: Count
    batch_size: Annotated[int, Interval(ge=1, le=65_536)] = 64
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    optimizer: Optimizer = Optimizer()
    generator: PlayerOptimizer = PlayerOptimizer()
    discriminator: PlayerOptimizer = PlayerOptimizer()
    threads: Annotated[int, Interval(ge=1, le=1024)] | None = None
    decay_after: Annotated[int, Interval(ge=0, le=1_000_000)] | None = None
    ema: Annotated[float, Interval(gt=0, lt=1)] | None = None
    evaluate_every: Count | None = None
    evaluate_images: Annotated[int, Interval(ge=16, le=50_000)] = 1000
    extractors: Literal["auto"] | Annotated[list[Literal["rand", "texture", "pretext", "judge"]], MinLen(1)] = "auto"
    checkpoint_every: Count = 1
    keep_every: Annotated[int, Interval(ge=0, le=1_000_000)] = 0

    def optimizer_of(self, player: str) -> Optimizer:
        """Give the settings of the network called `player`."""
        own = {"generator": self.generator, "discriminator": self.discriminator}.get(player, PlayerOptimizer())
        return self.optimizer.model_copy(update={name: value for name, value in own if value is not None})

    def rate(self, epochs: float) -> float:
        """Give what share of the learning rate is left after so many epochs, 0 to 1."""
        if self.decay_after is None or epochs <= self.decay_after:
            return 1.0
        return max(0.0, (self.epochs - epochs) / (self.epochs - self.decay_after))


Scalar = int | float | str | bool
Conditions = dict[str, Scalar | Annotated[list[Scalar], MinLen(1)]]


class Range(Block):
    """Where a number is searched: from `low` to `high`, both included; whole numbers when both are whole.

    Args:
        low: the smallest value.
        high: the largest value.
        log: search orders of magnitude evenly; for learning rates.
        one_minus_log: search orders of magnitude of 1 - value evenly; for an Adam's second beta.
        step: only `low`, `low + step`, `low + 2 step`, and so on.
        when: searched only where other searched keys have these values; elsewhere the recipe's own value stays.
    """

    low: int | float
    high: int | float
    log: bool = False
    one_minus_log: bool = False
    step: int | float | None = None
    when: Conditions | None = None


class Choice(Block):
    """A list of values to choose from; a plain list is one too.

    Args:
        choice: the values, which have no order.
        when: see `Range`.
    """

    choice: Annotated[list[Scalar], MinLen(1)]
    when: Conditions | None = None


def _form(searched: Any) -> str | None:
    """Tell which form a searched key has, so that its mistakes are those of this form only."""
    if isinstance(searched, Block):
        return type(searched).__name__
    if isinstance(searched, dict):
        return "Choice" if "choice" in searched else "Range"
    return "list" if isinstance(searched, list) else None


Searched = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choice, Tag("Choice")] | Annotated[list[Scalar], MinLen(1), Tag("list")],
    Discriminator(_form),
]


class Confirm(Block):
    """Training the best trials again with new seeds, to tell whether the best setting beats the recipe's own values.

    Args:
        top: trials of which two new seeds choose the contender.
        seeds: with which the contender and the recipe's own values are then trained, at the most; fewer where the
            verdict is clear before. With fewer than 4 there is none.
        epochs: of each of these trainings; null for `tune.epochs`.
    """

    top: Annotated[int, Interval(ge=1, le=100)] = 3
    seeds: Annotated[int, Interval(ge=1, le=100)] = 8
    epochs: Count | None = None


class Tune(Block):
    """What `gantool tune` searches.

    Args:
        metric: what is minimised, and decides which checkpoint of a run is the best; null is `fd`, and `error` (1 -
            accuracy) for a game of one player.
        trials: configurations to try; the first is the recipe's own.
        hours: of wall time that the search may take, in all of its starts; null for as many as it needs.
        gpu_hours: of GPUs that its trials may use; null for as many as they need.
        epochs: passes over the data of a trial that is not stopped early; null for `train.epochs`.
        seed: decides what is tried.
        sampler: what chooses the next trial by the earlier ones.
        pruner: what stops a trial that is worse than others were at its epoch; `ratio` is gantool's own, the others
            are Optuna's.
        deterministic: the same seed tries the same values, however fast each trial is; trials start in batches.
        parallel: trials at once, at the most; null for as many as there is room for.
        cpus_per_trial: cores of each trial, and its threads.
        trials_per_gpu: trials that share a GPU; null for as many as fit by the memory that one takes.
        confirm: how the best ones are trained again; null leaves it out.
        finish: epochs to which the winner and the recipe's own values are trained on when the search is over; `full` is
            `train.epochs`; null leaves that out.
        storage: address of the database that keeps the study, such as postgresql://user@host/studies; null for a
            file in the study's directory.
        space: dotted recipe keys, each with a range or a list of choices.
    """

    metric: Literal["fd", "fd_rand", "fd_texture", "fd_pretext", "fd_judge", "error"] | None = None
    trials: Annotated[int, Interval(ge=1, le=100_000)] = 20
    hours: Annotated[float, Interval(gt=0, le=100_000)] | None = None
    gpu_hours: Annotated[float, Interval(gt=0, le=100_000)] | None = None
    epochs: Count | None = None
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    sampler: Literal["tpe", "random", "gp", "cmaes"] = "tpe"
    pruner: Literal["ratio", "median", "successive_halving", "hyperband", "none"] = "ratio"
    deterministic: bool = False
    parallel: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    cpus_per_trial: Annotated[int, Interval(ge=1, le=1024)] = 1
    trials_per_gpu: Annotated[int, Interval(ge=1, le=64)] | None = None
    confirm: Confirm | None = Confirm()
    finish: Literal["full"] | Count | None = "full"
    storage: Annotated[str, Field(pattern=r"^[A-Za-z0-9+]+://")] | None = None
    space: Annotated[dict[str, Searched], MinLen(1)]


class Recipe(Block):
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    model: dict[str, Any]
    data: Data
    loss: dict[str, Any] | None = None
    train: Train
    tune: Tune | None = None

    @property
    def metric(self) -> str:
        """What decides which of two models is the better one; lower is better."""
        return (self.tune and self.tune.metric) or ("error" if self.loss is None else "fd")


def shipped() -> dict[str, Path]:
    """Give the recipes that come with gantool, by name."""
    inside = Path(__file__).parents[1] / "recipes"  # in an installed package
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"  # in a checkout
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name: str) -> Path:
    """Give the file that `name`, a path or a shipped recipe's bare name, stands for.

    Raises:
        RecipeError: there is none.
    """
    path = Path(name)
    if is_file(path / "recipe.yaml"):
        return path / "recipe.yaml"
    if is_file(path):
        return path
    known = shipped()
    if name in known:
        return known[name]
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        hint = f"; the shipped recipe is called {path.stem!r}" if path.stem in known else ""
        raise RecipeError(f"{name}: no such recipe file{hint}")
    raise RecipeError(unknown("recipe", name, known))


def load(name: str, changes: Mapping[str, Any], kinds: Mapping[str, Find]) -> Recipe:
    """Read a recipe, change dotted keys of it, and check all of it.

    Args:
        name: a path, or the bare name of a shipped recipe.
        changes: new values by dotted key, such as {"train.batch_size": 64, "train.optimizer.betas.0": 0.0}.
        kinds: for the blocks `model` and `loss`, what gives the constructor that a `name` in it stands for.

    Raises:
        RecipeError: with every problem of the file, each with its line and dotted place.
    """
    path = find(name)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    return parse(text, str(path), kinds, changes)


def parse(
    text: str | bytes, source: str, kinds: Mapping[str, Find], changes: Mapping[str, Any] | None = None
) -> Recipe:
    """Check the text of a recipe; see `load`. `source` is what messages call it."""
    document, lines = strict_yaml.parse(text, source)
    if not isinstance(document, dict):
        raise RecipeError(f"{source}: a recipe is a block of keys (model, data, loss, train), not {document!r:.40}")
    document.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(source).stem).strip("_.-")[:64] or "recipe")
    return _checked(document, changes or {}, kinds, source, lines)


def override(recipe: Recipe, changes: Mapping[str, Any], kinds: Mapping[str, Find]) -> Recipe:
    """Give the recipe with new values at dotted keys; see `load`."""
    return _checked(plain(recipe), changes, kinds, recipe.name, {})


def dump(recipe: Recipe) -> str:
    """Give the recipe as YAML with every default spelled out; it trains again as it is."""
    return strict_yaml.dump(plain(recipe))


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """Give the changes that `--set key=value` texts ask for.

    Raises:
        RecipeError: a text is not of that form.
    """
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set {text}: expected key=value, such as train.epochs=5")
        changes[key.strip()] = strict_yaml.scalar(value, f"--set {key}")
    return changes


def _checked(
    document: dict[str, Any],
    changes: Mapping[str, Any],
    kinds: Mapping[str, Find],
    source: str,
    lines: Mapping[Place, int],
) -> Recipe:
    # A change at an index (betas.0) needs the list's other values, so it waits until the defaults are spelled out.
    at_index = {key: value for key, value in changes.items() if re.search(r"\.\d+(\.|$)", key)}
    at_key = {key: value for key, value in changes.items() if key not in at_index}
    try:
        recipe = _recipe(_changed(document, at_key), kinds)
        if at_index:
            recipe = _recipe(_changed(plain(recipe), at_index), kinds)
    except Mismatch as error:
        rows = dict.fromkeys(_sentence(problem, source, lines, changes) for problem in error.problems)
        raise RecipeError("\n".join(rows)) from None
    return recipe


def _recipe(document: dict[str, Any], kinds: Mapping[str, Find]) -> Recipe:
    problems: list[Problem] = []
    values = dict(document)
    for block, finder in kinds.items():
        if values.get(block, "") is not None and block in values:  # a game of one player has no loss to name
            try:
                values[block] = _named(block, values[block], finder)
            except Mismatch as error:
                problems += error.problems
                values[block] = {}
    try:
        recipe = check(Recipe, values)
    except Mismatch as error:
        raise Mismatch(error.problems + problems) from None
    if not problems:
        problems += [*_together(recipe, kinds["model"](recipe.model["name"])), *_settings(recipe)]
    if problems:
        raise Mismatch(problems)
    if recipe.tune and recipe.tune.metric is None:
        recipe = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"metric": recipe.metric})})
    return recipe


def _together(recipe: Recipe, model: Callable[..., Any]) -> Iterator[Problem]:
    """Say which blocks do not go with each other."""
    name = recipe.model["name"]
    if "loss" in inspect.signature(model).parameters:
        if recipe.loss is None:
            yield Problem((), "missing key 'loss'")
    elif recipe.loss is not None:
        yield Problem(("loss",), f"{name} has one player and no adversary; leave the block out")
    metric = recipe.tune.metric if recipe.tune else None
    if metric and (metric == "error") != (recipe.loss is None):
        wanted = "error" if recipe.loss is None else "fd, fd_rand, fd_texture, fd_pretext or fd_judge"
        yield Problem(("tune", "metric"), f"{name} cannot be measured by {metric}; use {wanted}")
    if getattr(model, "consumes", None) is Examples:
        if recipe.data.size is not None:
            yield Problem(("data", "size"), f"{name} learns from a table, which has no pixels; leave it out")
    elif recipe.data.size is None:
        yield Problem(("data",), "missing key 'size'")


def _settings(recipe: Recipe) -> Iterator[Problem]:
    """Say which settings of training do not go with each other."""
    optimizer = recipe.train.optimizer
    if optimizer.name == "adam" and optimizer.momentum:
        yield Problem(("train", "optimizer", "momentum"), "is sgd's; adam has betas")
    if optimizer.name == "sgd" and optimizer.betas != Optimizer().betas:
        yield Problem(("train", "optimizer", "betas"), "are adam's; sgd has momentum")
    name = recipe.model["name"]
    if recipe.train.ema is not None and recipe.loss is None:
        yield Problem(("train", "ema"), f"averages a generator's weights, and {name} has none; leave it out")
    for player in ("generator", "discriminator"):
        own = getattr(recipe.train, player)
        if recipe.loss is None and own != PlayerOptimizer():
            yield Problem(("train", player), f"{name} has one player; set train.optimizer")
        elif optimizer.name == "sgd" and own.betas is not None:
            yield Problem(("train", player, "betas"), "are adam's; sgd has momentum")


def _named(block: str, values: Any, finder: Find) -> dict[str, Any]:
    """Check a block that is a `name` and the keyword arguments of what it stands for."""
    if isinstance(values, str):
        values = {"name": values}
    if not isinstance(values, dict):
        raise Mismatch([Problem((block,), f"expected a name or a block of keys, got {values!r:.40}")])
    if not isinstance(values.get("name"), str):
        raise Mismatch([Problem((block,), "missing key 'name'")])
    try:
        target = finder(values["name"])
    except GantoolError as error:
        raise Mismatch([Problem((block, "name"), str(error))]) from None
    rest = {key: value for key, value in values.items() if key != "name"}
    return {"name": values["name"], **plain(check(signature(target), rest, (block,)))}


def _changed(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    document = deepcopy(document)
    for key, value in changes.items():
        parts = _parts(key)
        at: Any = document
        for depth, part in enumerate(parts):
            index: str | int = int(part) if isinstance(at, list) and part.isdecimal() else part
            if isinstance(at, list) and not (isinstance(index, int) and index < len(at)):
                raise Mismatch([Problem(tuple(parts), f"no item {part!r} in a list of {len(at)}")])
            if depth == len(parts) - 1:
                at[index] = value
            else:
                if isinstance(at, dict) and at.get(part) is None:
                    at[part] = {}
                if parts[:1] == ["loss"] and isinstance(at[index], str):
                    at[index] = {"name": at[index]}
                at = at[index]
            if not isinstance(at, dict | list):
                raise Mismatch([Problem(tuple(parts), f"{'.'.join(parts[: depth + 1])} holds no keys")])
    return document


def _parts(key: str) -> list[str]:
    """Split a dotted key; what stands in `tune.space` is a dotted key itself."""
    space = "tune.space."
    if not key.startswith(space):
        return key.split(".")
    searched, _, last = key.removeprefix(space).rpartition(".")
    inside = (
        [searched, last]
        if searched and last in {*Range.model_fields, *Choice.model_fields}
        else [key.removeprefix(space)]
    )
    return ["tune", "space", *inside]


def _sentence(problem: Problem, source: str, lines: Mapping[Place, int], changes: Mapping[str, Any]) -> str:
    dotted = ".".join(str(part) for part in problem.place)
    for key in changes:
        if dotted == key or dotted.startswith(key + ".") or key.startswith(dotted + "."):
            return f"--set {key}: {problem.message}"
    place = problem.place
    while place and place not in lines:
        place = place[:-1]
    line = f":{lines[place]}" if place in lines else ""
    return f"{source}{line}: {dotted + ': ' if dotted else ''}{problem.message}"
