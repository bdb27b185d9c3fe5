"""Start or resume a training: the recipe and the directory of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gantool.errors import RunError, command_line
from gantool.files import is_file, write
from gantool.recipe import load as recipes
from gantool.recipe import schema
from gantool.recipe.blocks import Recipe
from gantool.runs import Run, data_root
from gantool.training.engine import change, open_recipe
from gantool.training.setup import check_same_data, data_of
from gantool.training.state import read

# Keys that may change when a run resumes.
FREE = {"name", "train.epochs", "train.evaluate_every", "train.checkpoint_every", "train.keep_every"}


def begin(
    name: str | None, changes: Mapping[str, Any], *, out: Path | None, resume: bool, data_dir: Path | None = None
) -> tuple[Recipe, Run]:
    """Return the recipe and the run, new or old, of a training that starts or resumes.

    Args:
        name: name or path of a recipe. With `resume` also of a run; None is the newest run.
        changes: changes of the recipe, by dotted key.
        out: directory of the run; without it `runs/<recipe>-<NNN>`.
        resume: resume the run at `out`, of this name, or the newest run of this recipe. If there is none, start one.
        data_dir: the directory of data that the user named.

    Raises:
        RunError: nothing can be started or resumed, or the run was started with other settings.
    """
    run = _old_run(name, out) if resume else None
    if name is None and run is None:
        if resume and out is None:
            raise RunError("runs: no run here yet; make one with: gantool train RECIPE")
        raise RunError("train: name a recipe, such as: gantool train gan14; or resume the newest run with --resume")
    if not resume and name is not None and is_file(Path(name) / "recipe.yaml"):
        raise RunError(
            f"{name}: is a run; resume it with: {command_line('train', name, '--resume')}; "
            f"or train its recipe anew with: {command_line('train', Path(name) / 'recipe.yaml')}"
        )
    is_run = run is not None and (name is None or run.path in (Path(name), Path("runs") / name))
    recipe = None if is_run else open_recipe(name or "", changes)
    if run is not None:
        return resumed(run, recipe, changes, data_dir), run
    assert recipe is not None
    return recipe, Run.create(recipes.dump(recipe), name=recipe.name, out=out)


def resumed(run: Run, given: Recipe | None, changes: Mapping[str, Any], data_dir: Path | None = None) -> Recipe:
    """Return the recipe with which a run resumes: its own, with changes of keys that may change.

    If the user named a recipe (`given`), it must be the run's. `data.source` may change if the data there are the same.

    Raises:
        RunError: another key would change.
        DataError: `data.source` would change to other data.
    """
    own = open_recipe(str(run.path / "recipe.yaml"))
    wanted = given or change(own, changes)
    before, after = _flat(schema.plain(own)), _flat(schema.plain(wanted))
    free = set(FREE)
    if before["data.source"] != after["data.source"] and "data.source" in changes:
        _check_moved(run, wanted, data_root(data_dir, run.data_dir))
        free.add("data.source")
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and key not in free and not key.startswith("tune"):
            keep = f"resume it as it was with: {command_line('train', run.path, '--resume')}; or " if given else ""
            raise RunError(
                f"{run.path}: was started with {key}={before.get(key)}, not {after.get(key)}; "
                f"{keep}start a new run for that"
            )
    wanted = wanted.model_copy(update={"name": own.name})
    if wanted != own:
        write(run.path / "recipe.yaml", recipes.dump(wanted))
    return wanted


def _check_moved(run: Run, recipe: Recipe, data_dir: Path) -> None:
    """Raise an error unless the data of a recipe are those of the run's newest checkpoint."""
    files = [run.checkpoints / f"{name}.pt" for name in ("last", "previous")]
    file = next((file for file in files if file.exists()), None)
    saved = None if file is None else read(file).data
    if file is None or saved is None:
        raise RunError(f"{run.path}: does not know its data, so data.source cannot change; start a new run for that")
    check_same_data(saved, file, data_of(recipe, data_dir), "start a new run")


def _old_run(name: str | None, out: Path | None) -> Run | None:
    """Return the run to resume: at `out`, of this name, or the newest of this recipe; None if there is none."""
    if out is not None:
        return Run(out) if (out / "recipe.yaml").is_file() else None
    if name is None:
        return Run.newest()
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
