"""The blocks of a recipe: the meaning, type, range and default of each key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Interval, MinLen
from pydantic import Discriminator, Field, Tag, model_validator

from gantool.batches import Batch
from gantool.recipe.schema import Block, Count, Fraction, NamedBlock, Size

LearningRate = Annotated[float, Interval(gt=0, le=1000)]
Betas = tuple[Fraction, Fraction]


class Data(Block):
    """The training data.

    Args:
        source: name of a dataset (`gantool data list`), or a path: a folder of images, an archive of one, arrays (npz,
            npy or idx files, or a folder of them), parquet files, or a CSV file of files and classes.
        size: pixels on a side, or [height, width]. Images of other sizes are resized and centre-cropped. null for a
            table.
        channels: 1 for grey, 3 for colour; null keeps the channels of the source.
        classes: names of the classes to keep, in the order of their labels; null keeps all. A model that translates
            images reads them as [from, to].
        folder: use this folder of the source only, such as `valid`; `.` uses the images that are in no subfolder. Of
            arrays it is the split, such as `test` for `x_test`.
        limit: number of images (pairs, rows) of the source to use; null uses all. They are a fixed random part with the
            same share of each class, which does not depend on `train.seed`.
        held_out: share of the images that training never sees, but at least 12 images. 0 holds out none. No image is
            held out if fewer than 8 would be left.
        flip: mirror half of the images, left to right, in training.
        jitter: pixels by which images are enlarged in training, before a window of their size is cut at random.
    """

    source: Annotated[str, MinLen(1)]
    size: Size | tuple[Size, Size] | None = None
    channels: Literal[1, 3] | None = None
    classes: Annotated[list[str], MinLen(1)] | None = None
    folder: str | None = None
    limit: Count | None = None
    held_out: Annotated[float, Interval(ge=0, le=0.5)] = 0.2
    flip: bool = False
    jitter: Annotated[int, Interval(ge=0, le=1024)] = 0

    @property
    def height(self) -> int:
        """Height of every image, in pixels."""
        return self._sides[0]

    @property
    def width(self) -> int:
        """Width of every image, in pixels."""
        return self._sides[1]

    @property
    def _sides(self) -> tuple[int, int]:
        if self.size is None:
            raise ValueError("data.size: a table has no pixels")
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class Optimizer(Block):
    """The optimizer of all players, which are the networks that are trained.

    Args:
        name: `adam` (Kingma and Ba 2015, arXiv:1412.6980), or `sgd`, stochastic gradient descent.
        lr: learning rate.
        betas: for `adam`: decay of the running means of the gradient and of its square.
        momentum: for `sgd`: share of the last step that is added to the next.
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: LearningRate = 2e-4
    betas: Betas = (0.5, 0.999)
    momentum: Fraction = 0.0


class PlayerOptimizer(Block):
    """Settings of one player that replace those of `train.optimizer`.

    Args:
        lr: learning rate; null takes that of `train.optimizer`.
        betas: for `adam`; null takes those of `train.optimizer`.
    """

    lr: LearningRate | None = None
    betas: Betas | None = None


class Train(Block):
    """Settings of the training.

    Args:
        epochs: passes over the data.
        batch_size: images in a step. The last, smaller batch of an epoch is left out unless it is the only one.
        seed: decides the first weights, the order of the data, latents and dropout.
        optimizer: the optimizer of all players.
        generator: settings of the generator that replace those of `train.optimizer`.
        discriminator: settings of the discriminator that replace those of `train.optimizer`.
        threads: processor threads of the training; null takes one for each core. Losses differ in their last digits
            between numbers of threads. Set a number to get equal logs on machines of one kind with other numbers of
            cores. A resumed run keeps the number that it was started with.
        decay_after: epochs at the full learning rate, which then falls linearly to 0 at the end of the last epoch;
            null keeps the rate constant.
        ema: share of the running mean of the generator's weights that a step keeps, such as 0.999. Images are then
            generated with this mean. null generates them with the weights themselves.
        evaluate_every: epochs between measurements; the first and the last epoch are always measured. null measures
            after the first epoch, after 1, 2, 5, 10, 20, 35, 50, 75 and 100 % of the epochs, and at evenly spaced
            epochs between them. There are up to 100 measurements as long as all of them together are predicted to
            take at most a tenth of the training. The prediction is for one processor core and uses no clock, so it is
            the same on every machine.
        evaluate_images: generated images in a measurement.
        extractors: networks and filters that turn images into the features of `fd` and of the other metrics. `auto`
            takes `rand` and `texture`; with 60 images or more also `pretext`, and with 250 images or more of two or
            more classes also `judge`. The last two are left out if they learned too little.
        checkpoint_every: epochs between the checkpoints that a run resumes from; the last epoch always has one.
        keep_every: epochs between checkpoints that are never deleted; 0 keeps only the best and the last two.
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
        """Return the share of the learning rate that is left after this many epochs, 0 to 1."""
        if self.decay_after is None or epochs <= self.decay_after:
            return 1.0
        return max(0.0, (self.epochs - epochs) / (self.epochs - self.decay_after))


Scalar = int | float | str | bool
Conditions = dict[str, Scalar | Annotated[list[Scalar], MinLen(1)]]


class Range(Block):
    """The range of a searched number: from `low` to `high`, both included; whole numbers if both are whole.

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
    """A list of values without an order. A plain list is a choice too.

    Args:
        choice: the values.
        when: as for a range.
    """

    choice: Annotated[list[Scalar], MinLen(1)]
    when: Conditions | None = None


def _form(searched: Any) -> str | None:
    """Return the form of a searched key; errors are then about this form only."""
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
    """Trainings with new seeds, which decide whether the best setting is better than the recipe's own values.

    Args:
        top: number of best trials that are trained with two new seeds. The best of them becomes the contender.
        seeds: the largest number of further seeds with which the contender and the recipe's own values are trained.
            They stop earlier if the verdict is clear. The verdict is never `better` with fewer than 4.
        epochs: length of each of these trainings; null takes `tune.epochs`.
    """

    top: Annotated[int, Interval(ge=1, le=100)] = 3
    seeds: Annotated[int, Interval(ge=1, le=100)] = 8
    epochs: Count | None = None


class Tune(Block):
    """Settings of a search with `gantool tune`.

    Args:
        metric: the metric that is minimised. It also decides which checkpoint of a run is the best. null takes `fd`,
            or `error` (1 - accuracy) for a classifier.
        trials: settings to try; the first trial has the recipe's own values.
        hours: wall time that the search may take, in all of its starts together; null sets no limit.
        gpu_hours: GPU time that its trials may take; null sets no limit.
        epochs: length of a trial that is not stopped early; null takes `train.epochs`.
        seed: decides which values are tried.
        sampler: chooses the values of the next trial from the results of earlier ones; from Optuna.
        pruner: stops a trial that is worse than others were at its epoch. `ratio` is gantool's own, the others are
            Optuna's.
        deterministic: the same seed tries the same values, however fast each trial is. Trials start in batches of
            `parallel`, or of as many as run at once.
        parallel: the largest number of trials at once; null runs as many as there is room for.
        cpus_per_trial: cores of each trial, and its threads.
        trials_per_gpu: trials that share a GPU; null measures the memory of one trial and takes as many as fit.
        confirm: how the best trials are trained again; null leaves this out.
        finish: epochs to which the winner and the recipe's own values are trained when the search is over. `full` is
            `train.epochs`; null leaves this out.
        storage: address of the database that keeps the study, such as postgresql://user@host/studies; null takes a
            file in the study's directory.
        space: dotted keys of the recipe, each with a range, a choice or a list of values.
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
    """All settings of a run; `model` and `loss` are checked against the constructors that they name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    model: NamedBlock
    data: Data
    loss: NamedBlock | None = None
    train: Train
    tune: Tune | None = None

    @property
    def batch_type(self) -> type[Batch]:
        """The type of the batches that the model consumes."""
        return self.model.target.consumes

    @property
    def metric(self) -> str:
        """The metric that compares two models; lower is better."""
        return (self.tune and self.tune.metric) or ("error" if self.loss is None else "fd")
