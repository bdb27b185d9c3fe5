"""A study on disk: what was searched, what came of each trial, and what a search goes on with. Optuna remembers."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
import math
import re
import sqlite3
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import QueuePool, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gantool.errors import CheckpointError, GantoolError, RecipeError, ResourceError, RunError
from gantool.files import write
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe, Tune
from gantool.recipe.schema import plain
from gantool.runs import STUDY, environment, make_directory
from gantool.training import engine
from gantool.tune.race import SELECTION_SEEDS, Confirmed, Outcome, Race, race
from gantool.tune.samplers import derived, pruner, sampler
from gantool.tune.space import Space
from gantool.tune.verdict import Verdict

logger = logging.getLogger(__name__)

DATABASE = "study.db"
SETTINGS = "settings"  # in study.json: what a search was started with, besides its recipe
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
CONSTRAINTS = "constraints"  # Optuna's name of what makes a trial infeasible
FIRST_POINTS = "first_points"  # attribute of Optuna's study: what is tried after the recipe's own values
MADE_WITH = "environment"  # attribute of Optuna's study: versions and machine
DATA = "data"  # attribute of Optuna's study: what identifies the content of its data
EARLIER = "an earlier study"  # what chose those points, as a trial's attribute `sampler` says
TAKEN = "taken_over"  # attribute of Optuna's study: finished trials of an earlier study, and how many that one had
LOCK_TIMEOUT = 20.0  # seconds to wait for another process that writes to a study's file
SEED_LIMIT = 1_000_000  # new seeds lie below, so that people can type them
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
FREE = {
    *("trials", "hours", "gpu_hours", "parallel", "cpus_per_trial", "trials_per_gpu"),
    *("confirm", "finish", "sampler", "pruner", "deterministic"),
}  # what may change when a study goes on: no trial that it has becomes wrong


class BestRun(NamedTuple):
    """A finished training of a trial.

    Args:
        folder: its run's directory.
        epochs: that it was trained for.
        value: the metric that it reached.
        epoch: of its best checkpoint.
        seed: the new seed; None for the search's own.
    """

    folder: Path
    epochs: int
    value: float
    epoch: int
    seed: int | None


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
        self.full_epochs = finish_epochs(self.recipe)  # to which the winner goes on; fewer where the time is limited
        self._still: tuple[list[FrozenTrial], list[FrozenTrial], list[FrozenTrial]] | None = None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        name = _name(self.path / STUDY)
        with self.database_errors():
            if not new and not self.tune.storage and not (self.path / DATABASE).is_file():
                raise CheckpointError(
                    f"{self.path / DATABASE}: is missing; restore a copy, or search anew with --fresh"
                )
            storage = _storage(self.tune.storage) if self.tune.storage else _file_storage(self.path / DATABASE)
            self._storage = storage
            self.search = _open(storage, name, pruner(self.tune, self.epochs))
            if new:
                self.search.set_user_attr(MADE_WITH, environment())
                self._describe()
            self.confirmation = _open(storage, f"{name}-confirm", optuna.pruners.NopPruner())
            self.finishing = _open(storage, f"{name}-finish", optuna.pruners.NopPruner())

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
    def made_with(self) -> str:
        """The versions and the machine that the study began with, in a line; nothing in studies of version 0.1."""
        known = self.search.user_attrs.get(MADE_WITH)
        if not known:
            return ""
        packages = ", ".join(
            f"{name} {known['packages'][name]}"
            for name in ("gantool", "torch", "ray", "optuna")
            if name in known["packages"]
        )
        return f"{packages}; Python {known['python']}, {known['system']}, {known['cores']} cores"

    @property
    def shown(self) -> Path:
        """The directory as a person standing here would type it."""
        return _shown(self.path)

    @contextmanager
    def cached_trials(self) -> Iterator[None]:
        """Read the trials once while the block runs, in which nothing changes."""
        if self._still:  # a block inside of another
            yield
            return
        self._still = (self.trials(), self.runs(), self.finishes())
        try:
            yield
        finally:
            self._still = None

    def trials(self) -> list[FrozenTrial]:
        """Return all trials of the search."""
        if self._still:
            return self._still[0]
        with self.database_errors():
            return self.search.get_trials(deepcopy=False)

    def runs(self) -> list[FrozenTrial]:
        """Return the candidates' trainings with other seeds; the attributes `of` and `seed` say which."""
        if self._still:
            return self._still[1]
        with self.database_errors():
            return self.confirmation.get_trials(deepcopy=False)

    def finishes(self) -> list[FrozenTrial]:
        """Return the trainings that go on to the recipe's full length; `of` and `seed` say which."""
        if self._still:
            return self._still[2]
        with self.database_errors():
            return self.finishing.get_trials(deepcopy=False)

    @property
    def wanted(self) -> int:
        """The trials in all: those of the recipe, and those that were taken over from an earlier study."""
        return self.tune.trials + self.taken

    @property
    def taken(self) -> int:
        """How many trials were taken over from an earlier study."""
        return int(self.search.user_attrs.get(TAKEN, (0, 0))[0])

    def spent(self) -> list[FrozenTrial]:
        """Return the trials that count: finished, stopped early or failed."""
        return [trial for trial in self.trials() if trial.state in ENDED]

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that ran to their end, the best first; disqualified ones come last."""
        found = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        own = self.own()
        # Where even the recipe's own values copy, copying tells no setting from another.
        all_copy = own is not None and disqualified(own)
        return sorted(found, key=lambda trial: (disqualified(trial) and not all_copy, _value(trial), trial.number))

    def own(self) -> FrozenTrial | None:
        """Return the trial with the recipe's own values, once it has begun."""
        return next((trial for trial in self.trials() if trial.user_attrs.get("own")), None)

    def candidates(self) -> list[FrozenTrial]:
        """Return the trials that are trained with new seeds, the best first: without the recipe's own values."""
        if self.tune.confirm is None or self.own() is None:
            return []
        others = [trial for trial in self.finished() if not trial.user_attrs.get("own")]
        sound = [trial for trial in others if not disqualified(trial)]
        return (sound or others)[: self.tune.confirm.top]

    @property
    def confirm_epochs(self) -> int:
        """The epochs of the trainings with new seeds."""
        return (self.tune.confirm and self.tune.confirm.epochs) or self.epochs

    def seeds(self) -> list[int]:
        """Return the new seeds: those that choose the contender, then those that decide.

        None of them is the search's own, which chose the candidates and would flatter them.
        """
        wanted = SELECTION_SEEDS + self.tune.confirm.seeds if self.tune.confirm else 0
        found: dict[int, None] = {}
        for index in itertools.count():
            if len(found) == wanted:
                return list(found)
            seed = derived(self.tune.seed, "confirm", index) % SEED_LIMIT
            if seed != self.recipe.train.seed:
                found[seed] = None
        return []

    def race(self) -> Race:
        """Return how far the trainings with new seeds are, and what they tell."""
        own, candidates = self.own(), self.candidates()
        if own is None or not candidates:
            return Race(())
        numbers = [trial.number for trial in candidates]
        return race(self.recipe.metric, own.number, numbers, self._outcomes(), self.seeds(), self.confirm_epochs)

    def _outcomes(self) -> dict[tuple[int, int], Outcome]:
        """Return the trainings with new seeds that ended and have the epochs that are asked for now."""
        return {
            (run.user_attrs["of"], run.user_attrs["seed"]): Outcome(_value(run), disqualified(run))
            for run in self.runs()
            if run.state in ENDED and run.user_attrs.get("epochs", self.epochs) == self.confirm_epochs
        }

    def confirmed(self) -> list[Confirmed]:
        """Return the means over new seeds of each trial's longest trainings, the winner and then the lowest first."""
        found: dict[int, dict[int, list[FrozenTrial]]] = {}
        for run in self.runs():
            if run.state in ENDED:
                epochs = run.user_attrs.get("epochs", self.epochs)
                found.setdefault(run.user_attrs["of"], {}).setdefault(epochs, []).append(run)
        means = []
        for number, lengths in found.items():
            epochs, runs = max(lengths.items())
            means.append(Confirmed(number, tuple(map(_value, runs)), any(map(disqualified, runs)), epochs))
        winner = self.winner()
        first = None if winner is None else winner.number
        return sorted(means, key=lambda one: (one.number != first, one.mean, one.number))

    def verdict(self) -> Verdict | None:
        """Return what the search can say so far about its best setting; None before a trial has finished."""
        finished = self.finished()
        if not finished:
            return None
        found, own, metric = self.race().verdict, self.own(), self.recipe.metric
        if found is not None and (own is None or own.state != TrialState.COMPLETE):
            # The recipe fails with the seed that it has, so that nobody can keep it, however it does with other seeds.
            return replace(found, kind="unconfirmed", own=(), effect=None, copies=False)
        if found is not None:
            return found
        others = [trial for trial in finished if not trial.user_attrs.get("own")]
        best = others[0] if others else None
        values = () if best is None else (_value(best),)
        own_values = (_value(own),) if own is not None and own.state == TrialState.COMPLETE else ()
        number = None if best is None else best.number
        copies = best is not None and bool(own_values) and best != finished[0] and disqualified(best)
        return Verdict("unconfirmed", number, metric, values, own_values, epochs=self.epochs, copies=copies)

    def winner(self) -> FrozenTrial | None:
        """Return the trial that the search recommends: never one that its evidence puts behind the recipe's own values.

        Before there are trainings with new seeds it is the trial with the lowest metric. Then it is the recipe itself,
        unless another setting is better, or every training with it was better than every one with the recipe.
        """
        finished, own = self.finished(), self.own()
        verdict = self.race().verdict
        if verdict is None:
            return finished[0] if finished else None
        if verdict.kind == "better" or verdict.leads or own is None or own.state != TrialState.COMPLETE:
            return self.trials()[verdict.number] if verdict.number is not None else own
        return own

    def folder(self, number: int, seed: int | None = None) -> Path:
        """Return the directory of a trial, or of its training with another seed."""
        return self.path / "trials" / (f"{number:04d}" if seed is None else f"{number:04d}-seed-{seed}")

    def to_finish(self) -> list[tuple[int, int | None]]:
        """Return the trials and seeds whose trainings go on to the recipe's full length, once the verdict is there.

        They are the recipe's own values and, unless it is worse, the best other setting.
        """
        verdict, own = self.verdict(), self.own()
        if self.tune.finish is None or verdict is None or not self.race().over:
            return []
        numbers = [] if own is None else [own.number]
        behind = verdict.kind == "keep" or (verdict.kind == "unconfirmed" and self.winner() is own)
        if verdict.number is not None and not behind:
            numbers.append(verdict.number)
        found = [(number, self.best_run(number)) for number in numbers]
        full = self.full_epochs
        failed = {
            (run.user_attrs["of"], run.user_attrs["seed"])
            for run in self.finishes()
            if run.state in (TrialState.FAIL, TrialState.PRUNED)
        }
        wanted = [(number, best.seed) for number, best in found if best is not None and best.epochs < full]
        return [pair for pair in wanted if pair not in failed]

    def replan(self, tune: Tune) -> None:
        """Change what may change while a study goes on, on disk too."""
        self.tune, self.recipe = tune, self.recipe.model_copy(update={"tune": tune})
        write(self.path / "recipe.yaml", recipes.dump(self.recipe))

    def adopt_runs(self) -> None:
        """End the race with the decision seeds that the contender and the recipe's own values both have.

        Without any, the search ends unconfirmed.
        """
        race, confirm, own = self.race(), self.tune.confirm, self.own()
        if race.over or confirm is None:
            return
        ended, seeds = self._outcomes(), self.seeds()[SELECTION_SEEDS:]
        pairs = 0
        if race.contender is not None and own is not None:
            while pairs < len(seeds) and all((one, seeds[pairs]) in ended for one in (race.contender, own.number)):
                pairs += 1
        self.replan(
            self.tune.model_copy(update={"confirm": confirm.model_copy(update={"seeds": pairs}) if pairs else None})
        )

    def is_done(self) -> bool:
        """Return whether nothing is left to train."""
        return len(self.spent()) >= self.wanted and self.race().over and not self.to_finish()

    def folder_of(self, trial: FrozenTrial) -> Path:
        """Return the directory of a trial of the search, or of a training with a new seed."""
        return self.folder(trial.user_attrs.get("of", trial.number), trial.user_attrs.get("seed"))

    def unended(self) -> list[str]:
        """Return what people call the trainings that started and have not ended: of 3, `3 seed 7`, `3 to the end`."""
        found = [str(trial.number) for trial in self.trials() if trial.state == TrialState.RUNNING]
        for runs, end in ((self.runs(), ""), (self.finishes(), " to the end")):
            for run in runs:
                if run.state == TrialState.RUNNING:
                    seed = run.user_attrs["seed"]
                    found.append(f"{run.user_attrs['of']}{'' if seed is None else f' seed {seed}'}{end}")
        return found

    def best_run(self, number: int) -> BestRun | None:
        """Return the best of the longest finished trainings of a trial, with any seed."""
        found = [trial for trial in self.trials() if trial.number == number]
        found += [run for run in [*self.runs(), *self.finishes()] if run.user_attrs["of"] == number]
        known = [
            BestRun(self.folder_of(run), epochs_of(run), _value(run), best_epoch_of(run), run.user_attrs.get("seed"))
            for run in found
            if run.state == TrialState.COMPLETE and run.intermediate_values
        ]
        return min(known, key=lambda one: (-one.epochs, one.value), default=None)

    def agree(self) -> None:
        """Make the winner the `best_trial` of Optuna's study, as its dashboard shows it.

        Optuna goes by the values, which are of one seed. So every trial whose value is lower than the winner's gets a
        violated constraint. Optuna itself lets nobody change a finished trial, and its table is written to directly.
        """
        winner, trials = self.winner(), self.trials()
        if winner is None:
            return
        rank = (_value(winner), winner.number)
        lower = [
            trial._trial_id
            for trial in trials
            if trial.state == TrialState.COMPLETE and (_value(trial), trial.number) < rank
        ]
        drop = text("DELETE FROM trial_system_attributes WHERE key = :key AND trial_id = :trial")
        add = text("INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (:trial, :key, '[1.0]')")
        with self.database_errors(), self._storage.engine.begin() as connection:
            for trial in trials:
                connection.execute(drop, {"key": CONSTRAINTS, "trial": trial._trial_id})
            for number in lower:
                connection.execute(add, {"key": CONSTRAINTS, "trial": number})
        with self.database_errors():
            self._describe()

    def _describe(self) -> None:
        """Write the metric's name and the verdict where optuna-dashboard shows them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.search.set_metric_names([self.recipe.metric])
        verdict, winner = self.verdict(), self.winner()
        note = f"A search of the recipe {self.recipe.name} by gantool. Values are of one seed each; lower is better."
        if self.made_with:
            note = f"{note}\n\n{self.made_with}."
        if verdict is not None and winner is not None:
            note = f"{note}\n\n{verdict.sentence()}. The winner is trial {winner.number}."
        storage, key = self.search._storage, self.search._study_id
        version = storage.get_study_system_attrs(key).get("dashboard:note_ver", 0)
        for name, value in (("dashboard:note_str:0", note[:2045]), ("dashboard:note_ver", version + 1)):
            storage.set_study_system_attr(key, name, value)

    def keep_image(self, trial: optuna.Trial, image: Path) -> None:
        """Keep an image as an artifact of a running trial, which `optuna-dashboard --artifact-dir` shows."""
        folder = self.path / "artifacts"
        folder.mkdir(exist_ok=True)
        store = optuna.artifacts.FileSystemArtifactStore(str(folder))
        optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(image), study_or_trial=trial)

    def point_to(self, folder: Path) -> bool:
        """Write down which training a study stands for, and return whether it is another one than before."""
        return self._note("run", folder.relative_to(self.path).as_posix())

    def remember(self, **settings: str) -> None:
        """Write down the settings of a search that are not in its recipe, so that it resumes with them."""
        self._note(SETTINGS, settings)

    @property
    def data_dir(self) -> Path | None:
        """The data directory that the search was started with, if it is known and still exists."""
        path = Path(settings_of(self.path).get("data_dir", ""))
        return path if path.is_absolute() and path.is_dir() else None

    def _note(self, key: str, value: Any) -> bool:
        file = self.path / STUDY
        before = json.loads(file.read_text(encoding="utf-8"))
        if before.get(key) == value:
            return False
        write(file, json.dumps({**before, key: value}) + "\n")
        return True

    def ask(self, **attributes: Any) -> optuna.Trial:
        """Begin a new trial, whose values depend on the trials so far and the recipe's seed alone.

        Its values are drawn in memory: on disk a trial appears with all of them at once, or not at all.
        """
        trials = self.search.get_trials(deepcopy=False)
        attributes |= {"sampler": self.tune.sampler, "pruner": self.tune.pruner, "tune_seed": self.tune.seed}
        if not any(trial.user_attrs.get("own") for trial in trials):
            return self.begin(self.search, self.space.own_point, own=True, **attributes)
        given = self.search.user_attrs.get(FIRST_POINTS, [])
        taken, of = self.search.user_attrs.get(TAKEN, (0, 0))
        tried = sum(trial.user_attrs.get("sampler") == EARLIER for trial in trials[taken:])
        if tried < len(given):
            return self.begin(self.search, given[tried], **attributes | {"sampler": EARLIER})
        # Where trials were taken over, the numbers that the earlier study drew with are not used again.
        memory = optuna.create_study(sampler=sampler(self.tune, len(trials) - taken + of))
        memory.add_trials([self._for_sampler(trial, trials) for trial in trials])
        drawn = self.space.ask(memory)
        # CMA-ES keeps there what it has learned.
        kept = memory.get_trials(deepcopy=False)[-1].system_attrs
        return self.begin(self.search, drawn.params, kept, **attributes)

    def learn_from(self, data: str) -> None:
        """Write down what identifies the content of the data, once."""
        if DATA not in self.search.user_attrs:
            self.search.set_user_attr(DATA, data)

    def _for_sampler(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial:
        """Return a trial as a sampler should see it.

        Its parameters have this version's names, it has no constraint of `agree`, and where its images are copies, its
        value is the worst of all, so that nothing is drawn to it.
        """
        seen = copy.copy(trial)
        seen.system_attrs = {name: value for name, value in trial.system_attrs.items() if name != CONSTRAINTS}
        seen.params, seen.distributions = map(self.space.renamed, (trial.params, trial.distributions))
        if trial.state == TrialState.COMPLETE and disqualified(trial):
            seen.value = max(_value(one) for one in trials if one.state == TrialState.COMPLETE)
        return seen

    def begin(
        self,
        study: optuna.Study,
        params: dict[str, Any],
        system_attrs: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> optuna.Trial:
        """Begin a trial of one of the three studies with these values, perhaps those of an older version's trial."""
        params = self.space.renamed(params)
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
    def database_errors(self) -> Iterator[None]:
        """Raise a one-line RunError if the database fails in the block."""
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


def settings_of(path: Path) -> dict[str, str]:
    """Return the settings that a study remembers: `data_dir`, `engine`, `address`, `device`; older ones have none."""
    try:
        known = json.loads((path / STUDY).read_text(encoding="utf-8")).get(SETTINGS, {})
        return {key: value for key, value in known.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError):  # `Study` says that the file is damaged
        return {}


def finish_epochs(recipe: Recipe) -> int:
    """Return the epochs to which a search trains its winner."""
    finish = recipe.tune.finish if recipe.tune else None
    return finish if isinstance(finish, int) else recipe.train.epochs


def epochs_of(trial: FrozenTrial) -> int:
    """Return the last epoch that a trial was measured after; 0 for none."""
    return int(trial.last_step or 0)


def lowest(trial: FrozenTrial) -> float | None:
    """Return the metric of a trial at its best; Optuna's own value of one that was stopped is its last."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return min(trial.intermediate_values.values(), default=None)


def best_epoch_of(trial: FrozenTrial) -> int:
    """Return the epoch in which a trial was best."""
    return min(trial.intermediate_values, key=lambda epoch: (trial.intermediate_values[epoch], epoch))


def disqualified(trial: FrozenTrial) -> bool:
    """Return whether a trial's metric is no guide, because its images are copies of training images.

    `fd` rewards copies. It does not reward anything else that a diagnosis warns of, so that no other one counts. Trials
    of version 0.1 have only their diagnoses to tell.
    """
    return bool(trial.user_attrs.get("copies", "memorised" in trial.user_attrs.get("diagnoses", ())))


def differs(path: Path, recipe: Recipe) -> str | None:
    """Return the dotted key by which a recipe is another one than a study's, or None where it is the same search."""
    before, after = plain(engine.open_recipe(str(path / "recipe.yaml"))), plain(recipe)
    for block in (before, after):
        block["tune"] = {key: value for key, value in (block["tune"] or {}).items() if key not in FREE}
        block.pop("name")
    return _first_difference(before, after)


def _first_difference(before: Any, after: Any, key: str = "") -> str | None:
    if isinstance(before, dict) and isinstance(after, dict) and key != "tune.space.":
        found = (_first_difference(before.get(name), after.get(name), f"{key}{name}.") for name in {**before, **after})
        return next((one for one in found if one), None)
    if key == "tune.space." and before != after:
        named = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return f"tune.space.{named[0]}"
    return key.rstrip(".") if before != after else None


def find_study(out: Path | None, recipe: Recipe, *, fresh: bool) -> tuple[Path, bool]:
    """Return the directory of a search, and whether a study is in it that goes on.

    Args:
        out: the directory; without it the newest study of this recipe in `runs/`, or a new one.
        recipe: what is searched.
        fresh: start anew; a study at `out` is moved aside.
    """
    if out is None:
        mine = _studies(recipe)
        old = [] if fresh else [path for path in mine if _is_of(path, recipe)]
        if old:
            return old[-1], True
        if mine and not fresh:
            with contextlib.suppress(GantoolError):
                key = differs(mine[-1], recipe)
                logger.info(f"{mine[-1]} differs in {key}: a new study begins (--from takes its best values)")
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


def earlier_study(recipe: Recipe) -> Study | None:
    """Return the newest study of a recipe's name in `runs/`, if it can be read."""
    for path in _studies(recipe)[-1:]:
        with contextlib.suppress(GantoolError):
            return Study(path)
    return None


def _studies(recipe: Recipe) -> list[Path]:
    """Return the studies of a recipe's name in `runs/`, the newest last."""
    found = [path for path in Path("runs").glob(f"{recipe.name}-*") if (path / STUDY).is_file()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


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


def _file_storage(path: Path) -> optuna.storages.RDBStorage:
    """Return the storage in a file, which is opened by its path: in an address `?`, `%` and `#` mean something."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(str(path), timeout=LOCK_TIMEOUT, check_same_thread=False)

    return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": QueuePool})


def _storage(address: str) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(address)
    except ImportError as error:
        missing = str(getattr(error.__cause__ or error, "name", None) or "its driver")
        package = PACKAGES.get(missing, missing)
        raise RecipeError(f"tune.storage: {_clean(address)} needs {missing}; pip install '{package}'") from None
    except (ValueError, ArgumentError) as error:
        raise RecipeError(f"tune.storage: {_clean(str(error))}") from None


def _clean(text: str) -> str:
    """Return one line, with nothing of an address but its kind and its server: the rest may hold a password."""
    line = (text.splitlines() or [""])[0]
    line = re.sub(r"(\w+://)\S*@", r"\1", line)
    return re.sub(r"(\w+://[^\s?]*)\?\S*", r"\1", line)


def _value(trial: FrozenTrial) -> float:
    return math.inf if trial.value is None else trial.value


def _shown(path: Path) -> Path:
    here, path = Path.cwd(), path.absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path
