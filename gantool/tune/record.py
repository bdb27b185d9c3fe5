"""What a study keeps on disk: its recipe and settings, and its trials in Optuna's database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from gantool.errors import CheckpointError, RunError
from gantool.files import make_folder, remove, write
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.recipe.schema import plain
from gantool.runs import STUDY, environment
from gantool.training import engine
from gantool.tune.samplers import pruner
from gantool.tune.space import Space, dotted
from gantool.tune.storage import DATABASE, Access, database_errors, open_storage
from gantool.tune.validation import check_study, unreadable_rows

SETTINGS = "settings"  # in study.json: how a search was started, besides its recipe
MADE_WITH = "environment"  # attribute of Optuna's study: versions and machine
DATA = "data"  # attribute of Optuna's study: what identifies its data and their place
DIGEST = "data_digest"  # and what identifies the content of its data, wherever they are
TAKEN = "taken_over"  # attribute of Optuna's study: finished trials of an earlier study, and how many that one had
FREE = {
    *("trials", "hours", "gpu_hours", "parallel", "cpus_per_trial", "trials_per_gpu"),
    *("confirm", "finish", "sampler", "pruner", "deterministic"),
}  # keys of `tune` that may change when a study resumes, because no trial becomes wrong


class StudyRecord:
    """The directory of a study.

    It holds `study.json` (which database and study it is), `recipe.yaml` (with every default), `study.db` (Optuna's, in
    SQLite), `trials/<number>/`, which are runs, and the files of `results`. Nothing in `ray/` is needed.

    Args:
        path: the directory.
        recipe: the study's own by default.
        access: `read` writes nothing, also in a database elsewhere. `write` needs a study that exists; `new` makes one.

    Raises:
        CheckpointError: the study's database is damaged, or does not hold the study.
        ResourceError: the database that `tune.storage` names cannot be reached.
    """

    def __init__(self, path: Path, recipe: Recipe | None = None, access: Access = "read") -> None:
        self.path = path.absolute()
        self.recipe = recipe or engine.open_recipe(str(self.path / "recipe.yaml"))
        self.space = Space(self.recipe)
        self.tune, self.epochs = self.space.tune, self.space.epochs
        finish = self.tune.finish
        # To which the winner is trained; fewer if the time is limited.
        self.full_epochs = finish if isinstance(finish, int) else self.recipe.train.epochs
        self._cache: dict[optuna.Study, list[FrozenTrial]] = {}
        self._states: dict[int, dict[str, Any]] = {}  # what a sampler keeps in a trial that it has drawn
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        name = _name(self.path / STUDY)
        with self.database_errors(), unreadable_rows(self.database):
            self._storage = open_storage(self.path, self.tune.storage, access)
            self.phases = self.search, self.confirmation, self.finishing = [
                self._phase(name, end, access) for end in ("", "-confirm", "-finish")
            ]
            if access == "new":
                self.search.set_user_attr(MADE_WITH, environment())
            # A damaged database fails here, not in the middle of a search.
            check_study(self.database, self.phases, self.space)

    @property
    def database(self) -> Path:
        """What messages call the database: its file, or for one elsewhere the directory."""
        return self.path if self.tune.storage else self.path / DATABASE

    def _phase(self, name: str, end: str, access: Access) -> optuna.Study:
        """Return one of Optuna's studies. Those of version 0.1 may have only the first."""
        rule = optuna.pruners.NopPruner() if end else pruner(self.tune, self.epochs)
        if access != "new":
            try:
                return optuna.load_study(study_name=f"{name}{end}", storage=self._storage, pruner=rule)
            except KeyError:
                if not end:
                    raise CheckpointError(
                        f"{self.path / STUDY}: its database holds no study of the name {name}; restore a copy, or "
                        "search anew with --fresh"
                    ) from None
        storage = None if access == "read" else self._storage
        return optuna.create_study(study_name=f"{name}{end}", storage=storage, pruner=rule)

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> Self:
        """Make a study in a new or empty directory, or in one whose making was killed: the recipe comes last."""
        make_folder(path / "trials")
        for left in path.glob(f"{DATABASE}*"):
            remove(left)
        assert recipe.tune is not None
        # In a database that people share, a name must be unique.
        name = f"{path.name}-{uuid.uuid4().hex[:8]}" if recipe.tune.storage else recipe.name
        write(path / STUDY, json.dumps({"study": name}) + "\n")
        study = cls(path, recipe, "new")
        write(path / "recipe.yaml", recipes.dump(recipe))
        return study

    @classmethod
    def resume(cls, path: Path, recipe: Recipe) -> Self:
        """Open a study to continue it.

        Raises:
            RunError: it is the study of another recipe.
        """
        different = differs(path, recipe)
        if different:
            raise RunError(
                f"{path}: is the study of another recipe ({different} differs); search in a new directory, or "
                "move this one aside with --fresh"
            )
        study = cls(path, recipe, "write")  # fails before anything is written
        write(path / "recipe.yaml", recipes.dump(recipe))
        return study

    @property
    def shown(self) -> Path:
        """The directory, relative to the working directory if it is inside of it."""
        here = Path.cwd()
        return self.path.relative_to(here) if self.path.is_relative_to(here) else self.path

    @property
    def made_with(self) -> str:
        """The versions and the machine that the study started with, in a line; empty for studies of version 0.1."""
        known = self.search.user_attrs.get(MADE_WITH)
        if not known:
            return ""
        names = [name for name in ("gantool", "torch", "ray", "optuna") if name in known["packages"]]
        packages = ", ".join(f"{name} {known['packages'][name]}" for name in names)
        return f"{packages}; Python {known['python']}, {known['system']}, {known['cores']} cores"

    # Settings

    @property
    def settings(self) -> dict[str, str]:
        """How the search was started: `data_dir`, `engine`, `address`, `device`; empty for older studies."""
        return read_settings(self.path)

    @property
    def data_dir(self) -> Path | None:
        """The data directory that the search was started with; None if it is unknown or no longer exists."""
        path = Path(self.settings.get("data_dir", ""))
        return path if path.is_absolute() and path.is_dir() else None

    def remember(self, **settings: str) -> None:
        """Write the settings of a search that are not in its recipe, so that it resumes with them."""
        self._note(SETTINGS, settings)

    def point_to(self, folder: Path) -> None:
        """Write which training a study stands for."""
        self._note("run", folder.relative_to(self.path).as_posix())

    def points_to(self, folder: Path) -> bool:
        """Return whether the study stands for this training."""
        return self._notes().get("run") == folder.relative_to(self.path).as_posix()

    def _notes(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / STUDY).read_text(encoding="utf-8"))
        return found

    def _note(self, key: str, value: Any) -> None:
        before = self._notes()
        if before.get(key) != value:
            write(self.path / STUDY, json.dumps({**before, key: value}) + "\n")

    def replan(self, **changes: Any) -> None:
        """Change keys of `tune` that may change, also on disk."""
        self.tune = self.tune.model_copy(update=changes)
        self.recipe = self.recipe.model_copy(update={"tune": self.tune})
        write(self.path / "recipe.yaml", recipes.dump(self.recipe))

    # Trials

    def database_errors(self) -> AbstractContextManager[None]:
        """Raise an error of one line if the database fails in the block."""
        return database_errors(self.path, self.tune.storage)

    @contextmanager
    def cached_trials(self) -> Iterator[None]:
        """Read the trials once while the block runs; no trial may change in it."""
        if self._cache:  # a block inside of another
            yield
            return
        self._cache = {phase: self._read(phase) for phase in self.phases}
        try:
            yield
        finally:
            self._cache = {}

    def _read(self, study: optuna.Study) -> list[FrozenTrial]:
        if study in self._cache:
            return self._cache[study]
        with self.database_errors():
            return study.get_trials(deepcopy=False)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials of the search."""
        return self._read(self.search)

    def runs(self) -> list[FrozenTrial]:
        """Return the trainings with new seeds; the attributes `of` and `seed` name the trial and the seed."""
        return self._read(self.confirmation)

    def finishes(self) -> list[FrozenTrial]:
        """Return the trainings to the recipe's full length; see `runs`."""
        return self._read(self.finishing)

    @property
    def taken(self) -> int:
        """How many trials were taken over from an earlier study."""
        return int(self.search.user_attrs.get(TAKEN, (0, 0))[0])

    def folder(self, number: int, seed: int | None = None) -> Path:
        """Return the directory of a trial, or of its training with a new seed."""
        return self.path / "trials" / (f"{number:04d}" if seed is None else f"{number:04d}-seed-{seed}")

    def folder_of(self, trial: FrozenTrial) -> Path:
        """Return the directory of a trial of the search, or of a further training."""
        return self.folder(trial.user_attrs.get("of", trial.number), trial.user_attrs.get("seed"))

    def label(self, study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> str:
        """Return the name of a training for people: `3`, `3 seed 7` or `3 to the end` for trial 3."""
        seed = trial.user_attrs.get("seed")
        label = f"{trial.user_attrs.get('of', trial.number)}{'' if seed is None else f' seed {seed}'}"
        return f"{label} to the end" if study is self.finishing else label

    def unended(self) -> list[str]:
        """Return the labels of the trainings that started and have not ended."""
        return [
            self.label(study, trial)
            for study in self.phases
            for trial in self._read(study)
            if trial.state == TrialState.RUNNING
        ]

    def begin(self, study: optuna.Study, params: dict[str, Any], **attributes: Any) -> optuna.Trial:
        """Start a trial of one of the three studies with these values."""
        self.add(study, TrialState.RUNNING, params, user_attrs=attributes)
        return optuna.Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)

    def add(self, study: optuna.Study, state: TrialState, params: dict[str, Any], **more: Any) -> None:
        """Add a trial to one of the three studies, perhaps with the values of a trial of an older version."""
        params = self.space.renamed(params)
        spans = {key: self.space.distributions[key] for key in params}
        study.add_trial(optuna.trial.create_trial(state=state, params=params, distributions=spans, **more))

    def begin_further(self, study: optuna.Study, number: int, seed: int | None, **attributes: Any) -> optuna.Trial:
        """Start a further training of a trial of the search."""
        return self.begin(study, self.trials()[number].params, of=number, seed=seed, **attributes)


def read_settings(path: Path) -> dict[str, str]:
    """Return how the search of the study in a directory was started; empty for an older or a damaged study."""
    try:
        known = json.loads((path / STUDY).read_text(encoding="utf-8")).get(SETTINGS, {})
        return {key: value for key, value in known.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def differs(path: Path, recipe: Recipe) -> str | None:
    """Return the dotted key by which a recipe differs from that of a study, or None if the search is the same."""
    before, after = (dotted(plain(one)) for one in (engine.open_recipe(str(path / "recipe.yaml")), recipe))
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        is_block = isinstance(old, dict) and isinstance(new, dict)
        is_free = key == "name" or (key.startswith("tune.") and key.split(".")[1] in FREE)
        if old != new and not is_block and not is_free:
            return key
    return None


def _name(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["study"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{file}: is damaged; restore a copy, or search anew") from None
