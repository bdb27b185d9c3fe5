"""What a new study learns from an earlier one: trials that it need not train again, and values to try first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gantool.recipe.blocks import Recipe
from gantool.recipe.schema import plain
from gantool.runs import environment
from gantool.training import engine
from gantool.tune.record import DATA, TAKEN
from gantool.tune.study import FIRST_POINTS, Study

MAX_FIRST_POINTS = 3  # of an earlier study that are tried first


def begin_with(study: Study, other: Study) -> int:
    """Try the best values of another study first, after the recipe's own; return how many there are.

    Values that this study does not search are left out, and its own take their place.
    """
    ranked = [trial for trial in other.finished() if not trial.user_attrs.get("own")]
    winner = other.winner()
    if winner is not None and winner in ranked:
        ranked = [winner, *(trial for trial in ranked if trial is not winner)]
    known = [study.space.own_point, *(trial.params for trial in study.trials())]
    points: list[dict[str, Any]] = []
    for trial in ranked:
        point = study.space.point({**study.space.own, **other.space.changes(trial.params)})
        if point is not None and point not in known and point not in points:
            points.append(point)
    study.search.set_user_attr(FIRST_POINTS, points[:MAX_FIRST_POINTS])
    return len(points[:MAX_FIRST_POINTS])


def take_over(study: Study, other: Study) -> int:
    """Copy the finished trials of another study that would be trained in the same way in this one.

    These have equal values of all keys, equal data, as many epochs, and were trained by the same version of gantool
    and torch. They count as trials of this study, in addition to `tune.trials`.

    Returns:
        how many there are.
    """
    found: list[tuple[FrozenTrial, dict[str, Any]]] = []
    if other.search.user_attrs.get(DATA) == study.search.user_attrs.get(DATA, ""):
        for trial in sorted(other.finished(), key=lambda one: (not one.user_attrs.get("own"), one.number)):
            point = _same_training(study, other, trial)
            if point is not None:
                found.append((trial, point))
    for number, (trial, point) in enumerate(found):
        shutil.copytree(other.folder(trial.number), study.folder(number))
        attributes = {**trial.user_attrs, "own": point == study.space.own_point, "taken_from": other.path.name}
        study.search.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=trial.value,
                params=point,
                distributions={name: study.space.distributions[name] for name in point},
                user_attrs=attributes,
                intermediate_values=trial.intermediate_values,
            )
        )
    study.search.set_user_attr(TAKEN, (len(found), len(other.trials())))
    return len(found)


def _same_training(study: Study, other: Study, trial: FrozenTrial) -> dict[str, Any] | None:
    """Return the point of this study at which a trial of another one would be trained again, if there is one."""
    if study.epochs != other.epochs or not _is_of_this_version(other.folder(trial.number)):
        return None
    there = other.space.changes(trial.params)
    point = study.space.point({**study.space.own, **there})
    if point is None:
        return None
    here = engine.change(study.recipe, study.space.changes(point))
    return point if _trained(engine.change(other.recipe, there)) == _trained(here) else None


def _trained(recipe: Recipe) -> dict[str, Any]:
    """Return what decides how a trial of a recipe is trained; its epochs are the study's."""
    block: dict[str, Any] = plain(recipe)
    block["train"].pop("epochs")
    return {name: value for name, value in block.items() if name not in {"name", "tune"}}


def _is_of_this_version(folder: Path) -> bool:
    """Return whether the run in a directory was made with the versions of gantool and torch that run now."""
    try:
        before = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["packages"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    now = environment()["packages"]
    return all(before.get(name) == now.get(name) for name in ("gantool", "torch"))
