"""Check what the database of a study holds, before anything uses it: others may have made or changed it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gantool.errors import CheckpointError
from gantool.tune.space import Space

_Index = Annotated[int, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Attributes(BaseModel):
    """Attributes of a trial. Other programs, such as optuna-dashboard, may add some."""

    model_config = ConfigDict(strict=True)

    own: bool = False
    of: _Index = 0
    seed: _Index | None = None
    epochs: _Count = 1
    seconds: _Seconds = 0.0
    resumed: _Index = 0
    batch: _Index = 0
    copies: bool = False
    diagnoses: list[str] = []
    why: str = ""
    sampler: str = ""
    pruner: str = ""
    tune_seed: int = 0
    taken_from: str = ""


class _Environment(BaseModel):
    """What made a study; see `runs.environment`."""

    packages: dict[str, str]
    python: str
    system: str
    cores: int | None


class _StudyAttributes(BaseModel):
    """Attributes of Optuna's study of the search."""

    model_config = ConfigDict(strict=True)

    environment: _Environment | None = None
    data: str = ""
    data_digest: str = ""
    taken_over: Annotated[list[_Index], Field(min_length=2, max_length=2)] = [0, 0]
    first_points: list[dict[str, bool | int | float | str | None]] = []
    slots: _Count = 1
    seconds: _Seconds = 0.0
    gpu_seconds: _Seconds = 0.0


@contextmanager
def unreadable_rows(place: Path) -> Iterator[None]:
    """Raise a CheckpointError if Optuna does not understand what the database at `place` holds."""
    try:
        yield
    except RuntimeError:  # its version of the tables; a RecursionError is one too
        _refuse(str(place), f"does not fit the installed Optuna {optuna.__version__}")
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError, DuplicatedStudyError):
        _refuse(str(place), "holds values that are not Optuna's")


def check_study(place: Path, phases: Sequence[optuna.Study], space: Space) -> None:
    """Check the trials of a study and their attributes.

    Args:
        place: the database, for messages.
        phases: Optuna's studies: of the search, and of the further trainings of its trials.
        space: what is searched.

    Raises:
        CheckpointError: one of them cannot be what a search has written; the message names the first.
    """
    search = phases[0]
    _check_attributes(f"{place}: the study", search.user_attrs, _StudyAttributes)
    for phase in phases:
        phase._storage.get_study_system_attrs(phase._study_id)  # fails if they are no JSON
        if phase.directions != [StudyDirection.MINIMIZE]:
            _refuse(f"{place}: the study", "is not one that minimises")
        for number, trial in enumerate(phase.get_trials(deepcopy=False)):
            where = f"{place}: {'trial' if phase is search else 'further training'} {number}"
            if trial.number != number:
                _refuse(where, "is missing")
            _check_attributes(where, trial.user_attrs, _Attributes)
            _check_results(where, trial)
            _check_values(where, trial, space)
            if phase is search:
                continue
            if not {"of", "seed"} <= trial.user_attrs.keys():
                _refuse(where, "does not name its trial and its seed")
            if trial.user_attrs["of"] >= len(search.get_trials(deepcopy=False)):
                _refuse(where, "is of a trial that does not exist")


def _check_attributes(where: str, attributes: dict[str, Any], model: type[BaseModel]) -> None:
    try:
        model.model_validate(attributes)
    except ValidationError as error:
        first = error.errors()[0]
        _refuse(where, f"has a wrong {'.'.join(map(str, first['loc']))}")


def _check_results(where: str, trial: FrozenTrial) -> None:
    """Check the value of a trial and those of its epochs."""
    if trial.state == TrialState.COMPLETE and (
        len(trial.values or ()) != 1 or type(trial.value) is not float or math.isnan(trial.value)
    ):
        _refuse(where, "has finished without a value")
    if trial.state.is_finished() and trial.datetime_complete is None:
        _refuse(where, "has ended at no time")
    for epoch, value in trial.intermediate_values.items():
        if type(epoch) is not int or epoch < 1 or type(value) is not float:
            _refuse(where, "has a wrong value of an epoch")


def _check_values(where: str, trial: FrozenTrial, space: Space) -> None:
    """Check that a trial has a value of each key that is searched, and that it is one of the key's."""
    point = space.renamed(trial.params)
    for name, value in point.items():
        span = space.distributions.get(name)
        try:
            is_one = span is not None and span._contains(span.to_internal_repr(value))
        except (ValueError, TypeError):
            is_one = False
        if not is_one:
            _refuse(where, f"has a wrong {name!r}")
    values = space.changes(trial.params)
    missing = [key for key in space.ranges if space.searched(key, values) and space.parameter(key) not in point]
    if missing:
        _refuse(where, f"has no {missing[0]}")


def _refuse(where: str, problem: str) -> NoReturn:
    raise CheckpointError(f"{where} {problem}; restore a copy of the database, or search anew with --fresh")
