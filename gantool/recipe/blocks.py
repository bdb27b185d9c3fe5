"""The blocks of a recipe: what each key means, its type, its range and its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Interval, MinLen
from pydantic import Discriminator, Field, Tag, model_validator

from gantool.recipe.schema import Block, Count, Fraction, Size

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
        held_out: share of the pictures that training never sees, at least 12 of them; `loader.split` says which.
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
        """Return the settings of the network called `player`."""
        own = {"generator": self.generator, "discriminator": self.discriminator}.get(player, PlayerOptimizer())
        return self.optimizer.model_copy(update={name: value for name, value in own if value is not None})

    def rate(self, epochs: float) -> float:
        """Return what share of the learning rate is left after so many epochs, 0 to 1."""
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
        log_complement: search orders of magnitude of 1 - value evenly; for an Adam's second beta.
        step: only `low`, `low + step`, `low + 2 step`, and so on.
        when: searched only where other searched keys have these values; elsewhere the recipe's own value stays.
    """

    low: int | float
    high: int | float
    log: bool = False
    log_complement: bool = False
    step: int | float | None = None
    when: Conditions | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, given: Any) -> Any:
        """Accept `one_minus_log`, as version 0.1 called `log_complement`."""
        if isinstance(given, dict) and "one_minus_log" in given and "log_complement" not in given:
            return {"log_complement" if key == "one_minus_log" else key: value for key, value in given.items()}
        return given


class Choice(Block):
    """A list of values to choose from; a plain list is one too.

    Args:
        choice: the values, which have no order.
        when: see `Range`.
    """

    choice: Annotated[list[Scalar], MinLen(1)]
    when: Conditions | None = None


def _form(searched: Any) -> str | None:
    """Return the form of a searched key, so that errors are those of this form only."""
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
