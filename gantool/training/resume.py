"""Where a training starts: in a new run, or in one that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gantool.errors import RunError
from gantool.files import write
from gantool.recipe import load as recipes
from gantool.recipe import schema
from gantool.recipe.blocks import Recipe
from gantool.runs import Run
from gantool.training.engine import change, open_recipe

FREE = {
    "name",
    "train.epochs",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.keep_every",
}  # when resuming


def begin(name: str | None, changes: Mapping[str, Any], *, out: Path | None, resume: bool) -> tuple[Recipe, Run]:
    """Return the recipe and the run, new or old, that training starts or goes on with.

    Args:
        name: of a recipe; with `resume` also of a run, and the newest run where it is None.
        changes: of the recipe, by dotted key.
        out: the run's directory; without it `runs/<recipe>-<NNN>`.
        resume: go on with a run at `out`, of this name, or the newest of this recipe; a new one where there is none.

    Raises:
        RunError: there is nothing to start or to go on with, or the run was started with something else.
    """
    run = _old_run(name, out) if resume else None
    if name is None and run is None:
        raise RunError("train: name a recipe, such as: gantool train gan14; or go on with --resume")
    is_run = run is not None and (name is None or run.path in (Path(name), Path("runs") / name))
    recipe = None if is_run else open_recipe(name or "", changes)
    if run is not None:
        return resumed(run, recipe, changes), run
    assert recipe is not None
    return recipe, Run.create(recipes.dump(recipe), name=recipe.name, out=out)


def resumed(run: Run, given: Recipe | None, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a run goes on with: its own, with changes of what may change on the way.

    Args:
        run: the run.
        given: the whole recipe that the person named, if any; it must be the run's.
        changes: dotted changes of the run's own recipe.

    Raises:
        RunError: something else would change, which would make it another run.
    """
    own = open_recipe(str(run.path / "recipe.yaml"))
    wanted = given or change(own, changes)
    before, after = _flat(schema.plain(own)), _flat(schema.plain(wanted))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and key not in FREE and not key.startswith("tune"):
            raise RunError(
                f"{run.path}: was started with {key}={before.get(key)}, not {after.get(key)}; start a new run for that"
            )
    wanted = wanted.model_copy(update={"name": own.name})
    if wanted != own:
        write(run.path / "recipe.yaml", recipes.dump(wanted))
    return wanted


def _old_run(name: str | None, out: Path | None) -> Run | None:
    """Return the run to go on with: at `out`, of this name, or the newest of this recipe; None where there is none."""
    if out is not None:
        return Run(out) if (out / "recipe.yaml").is_file() else None
    if name is None:
        return Run.open(None)
    try:
        return Run.open(name)
    except RunError:
        return Run.newest(Path(name).stem)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested blocks as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
