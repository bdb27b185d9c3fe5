"""A study on disk: what was searched, what came of each trial, and what a search goes on with. Optuna remembers."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gantool import engine
from gantool import recipe as recipes
from gantool.errors import CheckpointError, GantoolError, RecipeError, ResourceError, RunError
from gantool.recipe import Recipe, Tune
from gantool.runs import STUDY, make_directory, write
from gantool.schema import plain
from gantool.tune.findings import SPOILT, Confirmed
from gantool.tune.samplers import pruner, sampler
from gantool.tune.space import Space

DATABASE = "study.db"
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
FREE = {
    *("trials", "hours", "gpu_hours", "parallel", "cpus_per_trial", "trials_per_gpu"),
    *("confirm", "sampler", "pruner", "deterministic"),
}  # what may change when a study goes on: no trial that it has becomes wrong


class Study:
    """The directory of a search.

    `study.json` (which database and study it is), `recipe.yaml` (with every default), `study.db` (Optuna's, in SQLite),
    `trials/<number>/`, which are runs, and what `results` writes. `ray/` is Ray's own, and may be deleted.

    Args:
        path: the directory of a study that is there; `create` makes one.
        recipe: what is searched; without it, what its `recipe.yaml` says.
        new: whether its database is still to be made.

    Raises:
        CheckpointError: the study's database is damaged.
        ResourceError: the database that `tune.storage` names cannot be reached.
    """

    def __init__(self, path: Path, recipe: Recipe | None = None, *, new: bool = False) -> None:
        self.path = path.absolute()
        self.recipe = recipe or engine.open_recipe(str(self.path / "recipe.yaml"))
        self.space = Space(self.recipe)
        assert self.recipe.tune is not None  # Space has refused that
        self.tune: Tune = self.recipe.tune
        self.epochs = self.tune.epochs or self.recipe.train.epochs
        self._still: tuple[list[FrozenTrial], list[FrozenTrial]] | None = None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        name = _name(self.path / STUDY)
        with self.told():
            if not new and not self.tune.storage and not (self.path / DATABASE).is_file():
                raise CheckpointError(
                    f"{self.path / DATABASE}: is missing; restore a copy, or search anew with --fresh"
                )
            storage = _storage(self.tune.storage or f"sqlite:///{(self.path / DATABASE).as_posix()}")
            self.search = _open(storage, name, pruner(self.tune, self.epochs))
            self.confirmation = _open(storage, f"{name}-confirm", optuna.pruners.NopPruner())

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> Self:
        """Make a study in a new or empty directory."""
        (path / "trials").mkdir(exist_ok=True)
        write(path / "recipe.yaml", recipes.dump(recipe))
        assert recipe.tune is not None
        # In a database that people share, a name has to be one of a kind.
        name = f"{path.name}-{uuid.uuid4().hex[:8]}" if recipe.tune.storage else recipe.name
        write(path / STUDY, json.dumps({"study": name}) + "\n")
        return cls(path, recipe, new=True)

    @classmethod
    def resume(cls, path: Path, recipe: Recipe) -> Self:
        """Open a study to go on with.

        Raises:
            RunError: it is the study of another recipe.
        """
        different = differs(path, recipe)
        if different:
            shown = _shown(path)
            raise RunError(
                f"{shown}: is the study of another recipe ({different} differs); search in a new directory, or move "
                "this one aside with --fresh"
            )
        write(path / "recipe.yaml", recipes.dump(recipe))
        return cls(path, recipe)

    @property
    def shown(self) -> Path:
        """The directory as a person standing here would type it."""
        return _shown(self.path)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Read the trials once while the block runs, in which nothing changes."""
        if self._still:  # a block inside of another
            yield
            return
        self._still = (self.trials(), self.runs())
        try:
            yield
        finally:
            self._still = None

    def trials(self) -> list[FrozenTrial]:
        """Give all trials of the search."""
        if self._still:
            return self._still[0]
        with self.told():
            return self.search.get_trials(deepcopy=False)

    def runs(self) -> list[FrozenTrial]:
        """Give the candidates' trainings with other seeds; the attributes `of` and `seed` say which."""
        if self._still:
            return self._still[1]
        with self.told():
            return self.confirmation.get_trials(deepcopy=False)

    def spent(self) -> list[FrozenTrial]:
        """Give the trials that count: finished, stopped early or failed."""
        return [trial for trial in self.trials() if trial.state in ENDED]

    def finished(self) -> list[FrozenTrial]:
        """Give the trials that ran to their end, the best first; those that collapsed or memorised come last."""
        found = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return sorted(found, key=lambda trial: (bool(spoilt(trial)), _value(trial), trial.number))

    def candidates(self) -> list[FrozenTrial]:
        """Give the trials to train again with other seeds: the best, and the recipe's own to compare them with."""
        if self.tune.confirm is None:
            return []
        best = self.finished()[: self.tune.confirm.top]
        own = [trial for trial in self.finished() if trial.user_attrs.get("own") and trial not in best]
        return best + own if len(best) + len(own) > 1 else []

    def seeds(self) -> list[int]:
        """Give the seeds to confirm with; that of the search chose the candidates, and would flatter them."""
        count = self.tune.confirm.seeds if self.tune.confirm else 0
        return [(self.recipe.train.seed + 1 + index) % 2**32 for index in range(count)]

    def confirmed(self) -> list[Confirmed]:
        """Give what came of the candidates with every seed, the best first; empty until all of them are through."""
        ended = {(run.user_attrs["of"], run.user_attrs["seed"]): run for run in self.runs() if run.state in ENDED}
        found = []
        for trial in self.candidates():
            own = [ended.get((trial.number, seed)) for seed in self.seeds()]
            if None in own:
                return []
            through = [run for run in own if run is not None]
            met = sorted(set().union(spoilt(trial), *map(spoilt, through)))
            found.append(Confirmed(trial.number, tuple(map(_value, through)), tuple(met)))
        return sorted(found, key=lambda one: (bool(one.spoilt), one.mean, one.number))

    def folder(self, number: int, seed: int | None = None) -> Path:
        """Give the directory of a trial, or of its training with another seed."""
        return self.path / "trials" / (f"{number:04d}" if seed is None else f"{number:04d}-seed-{seed}")

    def ask(self, **attributes: Any) -> optuna.Trial:
        """Begin a new trial, whose values depend on the trials so far and the recipe's seed alone.

        Its values are drawn in memory: on disk a trial appears with all of them at once, or not at all.
        """
        trials = self.search.get_trials(deepcopy=False)
        if trials:
            memory = optuna.create_study(sampler=sampler(self.tune, len(trials)))
            memory.add_trials(trials)
            drawn = self.space.ask(memory)
            # CMA-ES keeps there what it has learned.
            kept = memory.get_trials(deepcopy=False)[-1].system_attrs
            return self.begin(self.search, drawn.params, kept, **attributes)
        return self.begin(self.search, self.space.own_point, own=True, **attributes)

    def begin(
        self,
        study: optuna.Study,
        params: dict[str, Any],
        system_attrs: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> optuna.Trial:
        """Begin a trial of the search or its confirmation with these values."""
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions={key: self.space.distributions[key] for key in params},
                user_attrs=attributes,
                system_attrs=system_attrs,
            )
        )
        return optuna.Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say in one line what is wrong with the database, if something is."""
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> CheckpointError | ResourceError:
        said = str(error.__cause__ or error)
        if any(words in said for words in ("disk is full", "disk I/O", "readonly", "unable to open")):
            return ResourceError(
                f"{self.path}: the study cannot be written ({said.splitlines()[0]}); make room, or check the folder's "
                "permissions; then run the same command"
            )
        if self.tune.storage:
            return ResourceError(f"tune.storage: {_clean(said)}; check the address, and that its server runs")
        return CheckpointError(
            f"{self.path / DATABASE}: not a study, or damaged; it is left as it is: restore a copy, or search in a new "
            "directory"
        )


def spoilt(trial: FrozenTrial) -> frozenset[str]:
    """Give the diagnoses of a trial with which it is crowned only among its kind."""
    return SPOILT & set(trial.user_attrs.get("diagnoses", []))


def epochs_of(trial: FrozenTrial) -> int:
    """Give the last epoch that a trial was measured after; 0 for none."""
    return int(trial.last_step or 0)


def lowest(trial: FrozenTrial) -> float | None:
    """Give the metric of a trial at its best; Optuna's own value of one that was stopped is its last."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return min(trial.intermediate_values.values(), default=None)


def best_epoch_of(trial: FrozenTrial) -> int:
    """Give the epoch in which a trial was best."""
    return min(trial.intermediate_values, key=lambda epoch: (trial.intermediate_values[epoch], epoch))


def differs(path: Path, recipe: Recipe) -> str | None:
    """Name the block by which a recipe is another one than a study's, or None where it is the same search."""
    before, after = plain(engine.open_recipe(str(path / "recipe.yaml"))), plain(recipe)
    for block in (before, after):
        block["tune"] = {key: value for key, value in (block["tune"] or {}).items() if key not in FREE}
        block.pop("name")
    return next((key for key in before if before[key] != after[key]), None)


def find_study(out: Path | None, recipe: Recipe, *, fresh: bool) -> tuple[Path, bool]:
    """Give the directory of a search, and whether a study is in it that goes on.

    Args:
        out: the directory; without it the newest study of this recipe in `runs/`, or a new one.
        recipe: what is searched.
        fresh: start anew; a study at `out` is moved aside.
    """
    if out is None:
        mine = (path for path in Path("runs").glob(f"{recipe.name}-*") if (path / STUDY).is_file())
        old = [] if fresh else [path for path in mine if _is_of(path, recipe)]
        if old:
            return max(old, key=lambda path: (len(path.name), path.name)), True
        return make_directory(None, recipe.name), False
    if (out / STUDY).is_file():
        if not fresh:
            return out, True
        number = 1
        while (aside := out.with_name(f"{out.name}-old-{number}")).exists():
            number += 1
        try:
            out.rename(aside)
        except OSError as error:
            raise ResourceError(f"{out}: cannot be moved to {aside} ({error.strerror}); end what uses it") from None
    return make_directory(out, recipe.name, ""), False


def _name(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["study"])
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{file}: is damaged; restore a copy, or search anew") from None


def _is_of(path: Path, recipe: Recipe) -> bool:
    try:
        return differs(path, recipe) is None
    except GantoolError:  # one that cannot be read is no reason not to begin another
        return False


def _open(storage: optuna.storages.BaseStorage, name: str, stop: optuna.pruners.BasePruner) -> optuna.Study:
    study = optuna.create_study(
        study_name=name, storage=storage, load_if_exists=True, direction="minimize", pruner=stop
    )
    study.get_trials(deepcopy=False)  # a damaged database shows itself here, not in the middle of a search
    return study


def _storage(address: str) -> optuna.storages.BaseStorage:
    try:
        return optuna.storages.RDBStorage(address)
    except ImportError as error:
        missing = str(getattr(error.__cause__ or error, "name", None) or "its driver")
        package = PACKAGES.get(missing, missing)
        raise RecipeError(f"tune.storage: {_clean(address)} needs {missing}; pip install '{package}'") from None
    except (ValueError, ArgumentError) as error:
        raise RecipeError(f"tune.storage: {_clean(str(error))}") from None


def _clean(text: str) -> str:
    """Give one line, with nothing of an address but its kind and its server: the rest may hold a password."""
    line = (text.splitlines() or [""])[0]
    line = re.sub(r"(\w+://)\S*@", r"\1", line)
    return re.sub(r"(\w+://[^\s?]*)\?\S*", r"\1", line)


def _value(trial: FrozenTrial) -> float:
    return math.inf if trial.value is None else trial.value


def _shown(path: Path) -> Path:
    here, path = Path.cwd(), path.absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path
