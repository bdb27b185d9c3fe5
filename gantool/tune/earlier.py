"""Studies that exist already: the one that a search resumes, and one whose results a new study uses."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gantool.errors import DiskError, GantoolError, ResourceError
from gantool.files import BusyError, copy_folder, is_locked, remove, rename
from gantool.recipe.blocks import Recipe
from gantool.recipe.schema import plain
from gantool.runs import environment, is_study, make_directory
from gantool.training import engine
from gantool.tune.record import DATA, TAKEN, differs
from gantool.tune.study import FIRST_POINTS, Study

logger = logging.getLogger(__name__)

MAX_FIRST_POINTS = 3  # of an earlier study that are tried first


def find_study(out: Path | None, recipe: Recipe) -> Path | None:
    """Return the study at `out`, or by default the newest one of this recipe in `runs/`, if it exists."""
    if out is not None:
        return out if is_study(out) else None
    keys = {path: _difference(path, recipe) for path in _studies(recipe)}
    same = [path for path, key in keys.items() if key is None]
    for path, key in list(keys.items())[-1:]:
        if key and not same:
            logger.info(f"{path} differs in {key}: a new study starts (--from takes its best values)")
    return same[-1] if same else None


def new_study(out: Path | None, recipe: Recipe) -> Path:
    """Make the directory of a new study: `out`, from which a study is moved aside, or a new one in `runs/`."""
    if out is None:
        return make_directory(None, recipe.name, of_study=True)
    if is_study(out):
        if is_locked(out / "lock"):
            raise BusyError(out, "a search")
        number = 1
        while (aside := out.with_name(f"{out.name}-old-{number}")).exists():
            number += 1
        try:
            rename(out, aside)
        except DiskError as error:
            raise ResourceError(f"{out}: cannot be moved aside, because {error}") from None
    return make_directory(out, recipe.name, of_study=True)


def earlier_study(recipe: Recipe) -> Study | None:
    """Return the newest study of a recipe's name in `runs/`, if it can be read."""
    for path in _studies(recipe)[-1:]:
        with contextlib.suppress(GantoolError):
            return Study(path)
    return None


def _difference(path: Path, recipe: Recipe) -> str | None:
    with contextlib.suppress(GantoolError):
        return differs(path, recipe)
    return ""  # an unreadable study must not prevent a new one


def _studies(recipe: Recipe) -> list[Path]:
    """Return the studies of a recipe's name in `runs/`, the newest last."""
    found = [path for path in Path("runs").glob(f"{recipe.name}-*") if is_study(path)]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def begin_with(study: Study, other: Study) -> int:
    """Let a study try the best values of another one first, after the recipe's own; return how many there are.

    Values that this study does not search are replaced by its own.
    """
    winner = other.winner()
    known = [study.space.own_point, *(trial.params for trial in study.trials())]
    points: list[dict[str, Any]] = []
    for trial in sorted(other.finished(), key=lambda trial: trial != winner):
        point = study.space.point({**study.space.own, **other.space.changes(trial.params)})
        is_new = not trial.user_attrs.get("own") and point not in (*known, *points)
        if point is not None and is_new and len(points) < MAX_FIRST_POINTS:
            points.append(point)
    study.search.set_user_attr(FIRST_POINTS, points)
    return len(points)


def take_over(study: Study, other: Study) -> int:
    """Copy the finished trials of another study that would be trained equally in this one; return how many there are.

    Their values of all keys, data, number of epochs, and versions of gantool and torch are equal. They count as trials
    of this study, in addition to `tune.trials`.
    """
    found: list[tuple[FrozenTrial, dict[str, Any]]] = []
    if other.search.user_attrs.get(DATA) == study.search.user_attrs.get(DATA, ""):
        for trial in sorted(other.finished(), key=lambda one: (not one.user_attrs.get("own"), one.number)):
            point = _same_training(study, other, trial)
            if point is not None:
                found.append((trial, point))
    try:
        for number, (trial, _) in enumerate(found):
            copy_folder(other.folder(trial.number), study.folder(number))
    except DiskError:
        for number in range(len(found)):
            remove(study.folder(number))
        raise
    for trial, point in found:
        attributes = {**trial.user_attrs, "own": point == study.space.own_point, "taken_from": other.path.name}
        results = {"value": trial.value, "intermediate_values": trial.intermediate_values}
        study.add(study.search, TrialState.COMPLETE, point, user_attrs=attributes, **results)
    study.search.set_user_attr(TAKEN, (len(found), len(other.trials())))
    return len(found)


def _same_training(study: Study, other: Study, trial: FrozenTrial) -> dict[str, Any] | None:
    """Return the point of this study at which a trial of another one would be trained again, if it exists."""
    if study.epochs != other.epochs or not _is_of_this_version(other.folder(trial.number)):
        return None
    changes = other.space.changes(trial.params)
    point = study.space.point({**study.space.own, **changes})
    if point is None:
        return None
    there, here = (
        plain(engine.change(one.recipe, values))
        for one, values in ((other, changes), (study, study.space.changes(point)))
    )
    for block in (there, here):  # the studies have equal epochs
        block["train"].pop("epochs")
        block.pop("name")
        block.pop("tune")
    return point if there == here else None


def _is_of_this_version(folder: Path) -> bool:
    """Return whether the run in a directory was made with the versions of gantool and torch that run now."""
    try:
        before = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["packages"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    now = environment()["packages"]
    return all(before.get(name) == now.get(name) for name in ("gantool", "torch"))
