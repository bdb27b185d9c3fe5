"""What the checkpoints of a training hold, and the check of all of it. Nothing of a file is used before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from annotated_types import Interval, Len, Predicate
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Strict, Tag, ValidationError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gantool import batches, checkpoints, devices, models
from gantool.batches import ImageSpec, Paired, Spec, TableBatch, TextSpec, Unpaired
from gantool.checkpoints import ANOTHER, check_shapes, check_values, printable
from gantool.errors import CheckpointError, GantoolError
from gantool.models.base import Classifier, LatentModel, Model
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.recipe.schema import Count, Size
from gantool.training.diagnoses import RULES
from gantool.training.trainer import initial_state

_Count = Annotated[int, Strict(), Interval(ge=0, le=2**53)]
_Number = Annotated[int, Strict(), Interval(ge=1, le=2**53)]  # of an epoch, from 1
_Amount = Annotated[float, Strict(), Interval(ge=0), Field(allow_inf_nan=False)]
_Score = Annotated[float, Strict(), Interval(ge=0), Field(allow_inf_nan=True)]  # infinite if it is not known

# Names of version 0.1 that are no longer kept in `position`, and those that `trainer` had for today's.
_OLD_POSITION = {"trained_seconds", "last_cost"}
_RENAMED = {"average": "ema_generator", "memories": "stateful_children", "randomness": "rng_states"}

Part_ = TypeVar("Part_", bound="_Part")


@dataclass
class Progress:
    """The progress of a training. A checkpoint keeps all of it under `position`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    epoch: _Number = 1  # the current epoch
    batch: _Count = 0  # batches of it that are done
    images: _Count = 0  # real images shown so far
    seconds: _Amount = 0.0  # of the finished epochs
    epoch_seconds: _Amount = 0.0  # of this epoch
    measured_seconds: _Amount = 0.0  # of all measurements, part of `seconds`
    best: _Score = math.inf  # the lowest value of the run's metric
    best_epoch: _Count = 0  # its epoch; 0 before the first measurement
    tie: _Score = math.inf  # the cross-entropy at `best`, which decides between equal errors of classifiers
    # Sum and count of each logged value of this epoch.
    sums: dict[str, Annotated[list[Annotated[float, Strict(), Field(allow_inf_nan=False)]], Len(2, 2)]] = field(
        default_factory=dict
    )
    first_gradients: list[_Amount] = field(default_factory=list)  # norms of the generator's gradient in the first steps
    # The newest mean norm of the generator's gradient; NaN if it is not known.
    gradient: Annotated[float, Strict(), Predicate(lambda norm: math.isnan(norm) or 0 <= norm < math.inf)] = math.nan

    def next_epoch(self) -> None:
        """Start the next epoch."""
        self.epoch, self.batch, self.sums, self.epoch_seconds = self.epoch + 1, 0, {}, 0.0


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


class _ImageSpec(_Part):
    channels: Annotated[int, Predicate(lambda count: count in (1, 3))]  # Literal[1, 3] would take True
    height: Size
    width: Size


class _RowSpec(_Part):
    columns: Annotated[list[Annotated[tuple[str, list[str], float, float], Strict(False)]], Len(1)]


class _TextSpec(_Part):
    words: list[str]
    length: Count


def _kind_of_spec(spec: Any) -> str:
    keys = spec.keys() if isinstance(spec, dict) else ()
    return "row" if "columns" in keys else "text" if "words" in keys else "image"


_Spec = Annotated[
    Annotated[_ImageSpec, Tag("image")] | Annotated[_RowSpec, Tag("row")] | Annotated[_TextSpec, Tag("text")],
    Discriminator(_kind_of_spec),
]


class DataMark(_Part):
    """What a checkpoint knows of the data that it was trained on."""

    digest: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]  # see `Dataset`
    count: _Number  # of examples


class _Translations(_Part):
    seeds: Annotated[list[_Count], Len(1)]
    labels: list[_Count]
    sources: Tensor
    targets: Tensor | None


class _Answers(_Part):
    inputs: Tensor
    labels: Tensor
    texts: list[str]


class _TrainerState(_Part):
    model: dict[str, Tensor]
    optimizers: dict[str, dict[str, dict[str, Tensor]]]
    ema_generator: dict[str, Tensor] | None
    stateful_children: dict[str, dict[str, Tensor]]
    rng_states: dict[Literal["cpu", "cuda", "mps"], Tensor]
    steps: _Count


class _RuleState(_Part):
    held: _Count
    failed_at: _Number | None
    active: bool


class _HealthState(_Part):
    best: list[_Amount | None]
    first: _Amount | None
    states: dict[str, _RuleState]


def _complete(position: Any) -> Any:
    """Refuse a position that lacks a value, for which pydantic would take the default."""
    if isinstance(position, dict):
        for each in fields(Progress):
            if each.name not in position:
                raise ValueError(f"lacks {each.name}")
    return position


class _Shared(_Part):
    recipe: str
    spec: _Spec
    classes: Annotated[list[str], Len(1)]
    epoch: _Count
    metric: dict[str, _Score]
    examples: dict[str, Any] | None
    data: DataMark | None


class _Weights(_Shared):
    model: dict[str, Tensor]


class Resumable(_Shared):
    """The content of a checkpoint from which training resumes; see `Training`."""

    trainer: _TrainerState
    health: _HealthState
    position: Annotated[Progress, BeforeValidator(_complete)]
    threads: Annotated[int, Interval(ge=1, le=1024)] | None


class _NoNormal(TorchFunctionMode):
    """Draw no normal numbers, for which the meta device would load torch's compiler for more than a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.nn.init.normal_, Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole and fits its own recipe.

    The examples are those of `Monitor`. `resumable` is None if it holds weights only.
    """

    recipe: Recipe
    recipe_text: str
    spec: Spec
    epoch: int
    model: dict[str, Tensor]  # weights that make images or answer, with the running means if the recipe asks for them
    examples: dict[str, Any] | None
    data: DataMark | None
    resumable: Resumable | None


def read(file: Path) -> Checkpoint:
    """Read a checkpoint of a run and check all of it: every name, type, shape and range.

    Raises:
        CheckpointError: the file is missing, damaged, or deviates; the message is one line.
    """
    state = checkpoints.load(file, _upgraded)
    kind = Resumable if state.keys() & {"trainer", "health", "position"} else _Weights
    values = _validated(kind, state, file)
    recipe, spec = _recipe(values, file), batches.spec_of(state["spec"], tuple(values.classes))
    _check_spec(recipe, spec, file)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _NoNormal():  # takes no memory
            model = models.build(recipe, spec)
    except Exception:  # a forged recipe can make a constructor raise anything
        raise CheckpointError(f"{file}: its recipe makes no networks for its data; {ANOTHER}") from None
    if isinstance(values, Resumable):
        weights = _checked_trainer(values, initial_state(model, recipe.train), file)
    else:
        assert isinstance(values, _Weights)
        weights = values.model
        check_shapes(weights, model.state_dict(), file)
        check_values(weights, file)
    if not set(values.metric) <= {recipe.metric}:
        raise CheckpointError(f"{file}: metric is not {recipe.metric}, as its recipe has it; {ANOTHER}")
    _check_examples(values.examples, model, file)
    resumable = values if isinstance(values, Resumable) else None
    return Checkpoint(recipe, values.recipe, spec, values.epoch, weights, values.examples, values.data, resumable)


def _upgraded(old: Any) -> dict[str, Any]:
    """Return the content of a file of version 1, which lacked some names and had others, as it is now."""
    state = {"data": None, **old}
    if "trainer" not in old:
        return state
    trainer = {_RENAMED.get(name, name): value for name, value in old["trainer"].items()}
    trainer["optimizers"] = {
        player: {
            str(index): {name: value for name, value in own.items() if value is not None}
            for index, own in optimizer["state"].items()
        }
        for player, optimizer in trainer["optimizers"].items()
    }
    position = {name: value for name, value in old["position"].items() if name not in _OLD_POSITION}
    del state["model"]  # a copy of the trainer's
    return {"threads": None, **state, "trainer": trainer, "position": position}


def _validated(kind: type[Part_], values: Any, file: Path, place: str = "") -> Part_:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = printable(place + ".".join(map(str, first["loc"])))
        why = printable(first["msg"][:1].lower() + first["msg"][1:])
        raise CheckpointError(f"{file}: {where} is wrong ({why}); {ANOTHER}") from None


def _recipe(values: _Shared, file: Path) -> Recipe:
    try:
        return recipes.parse(values.recipe, "recipe", models.KINDS)
    except (GantoolError, ValueError) as error:
        raise CheckpointError(f"{file}: {printable(str(error).splitlines()[0])}; {ANOTHER}") from None


def _check_spec(recipe: Recipe, spec: Spec, file: Path) -> None:
    """Check that a recipe asks for the data that a checkpoint describes."""
    data, fits = recipe.data, isinstance(spec, ImageSpec) == (recipe.batch_type is not TableBatch)
    if fits and isinstance(spec, ImageSpec):
        fits = (spec.height, spec.width) == (data.height, data.width) and data.channels in (None, spec.channels)
        fits = fits and data.classes in (None, list(spec.classes))
    if recipe.batch_type in (Paired, Unpaired):
        fits = fits and len(spec.classes) == 2
    if not fits:
        raise CheckpointError(f"{file}: its recipe is of other data than its spec; {ANOTHER}")


def _checked_trainer(values: Resumable, wanted: dict[str, Any], file: Path) -> dict[str, Tensor]:
    """Check what only a checkpoint has from which training resumes, and return the weights that make images."""
    trainer = values.trainer
    for name in wanted:
        own = getattr(trainer, name)
        if (own is None) != (wanted[name] is None):
            raise CheckpointError(f"{file}: trainer.{name} does not fit train.ema of its recipe; {ANOTHER}")
        place = "" if name == "model" else f"{name}."
        check_shapes(own or {}, wanted[name] or {}, file, place)
        check_values(own or {}, file, place)
    for kind, rng_state in trainer.rng_states.items():
        if not devices.is_rng_state(kind, rng_state):
            raise CheckpointError(f"{file}: trainer.rng_states.{kind} is no state of random numbers; {ANOTHER}")
    if "cpu" not in trainer.rng_states:
        raise CheckpointError(f"{file}: trainer.rng_states.cpu is missing; {ANOTHER}")
    if values.health.states.keys() != {rule.code for rule in RULES}:
        raise CheckpointError(f"{file}: health.states are not those of the diagnoses; {ANOTHER}")
    if values.epoch != values.position.epoch - 1:
        raise CheckpointError(f"{file}: epoch is {values.epoch}, but position.epoch {values.position.epoch}; {ANOTHER}")
    return trainer.model | {f"generator.{name}": value for name, value in (trainer.ema_generator or {}).items()}


def _check_examples(examples: dict[str, Any] | None, model: Model, file: Path) -> None:
    """Check the examples that a translator or a classifier shows."""
    if (examples is None) != isinstance(model, LatentModel):
        raise CheckpointError(f"{file}: examples do not fit the model of its recipe; {ANOTHER}")
    if examples is None:
        return
    data, given = model.data, dict(examples)
    limits = {"labels": len(data.classes)}
    with torch.device("meta"):
        if isinstance(model, Classifier):
            given.pop("texts", None)
            inputs, labels = model.blank(len(_validated(_Answers, examples, file, "examples.").texts))
            wanted = {"inputs": inputs.byte() if isinstance(data, ImageSpec) else inputs, "labels": labels}
            limits |= {"inputs": len(data.words) + 2} if isinstance(data, TextSpec) else {}
        else:
            assert isinstance(data, ImageSpec)
            shown = _validated(_Translations, examples, file, "examples.")
            given = {name: value for name, value in vars(shown).items() if isinstance(value, Tensor)}
            given["labels"] = torch.tensor(shown.labels, device="cpu")
            images = torch.zeros(len(shown.seeds), *data.shape, dtype=torch.uint8)
            wanted = {"sources": images, "labels": torch.zeros(len(images), dtype=torch.int64)}
            wanted |= {"targets": images} if model.consumes is Paired else {}
    check_shapes(given, wanted, file, "examples.")
    check_values(given, file, "examples.")
    for name, limit in limits.items():
        if bool((given[name] >= limit).any()):
            raise CheckpointError(f"{file}: examples.{name} reach beyond {limit - 1}; {ANOTHER}")
