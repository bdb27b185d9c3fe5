"""A search: a directory with a study that is always true, from which the same command goes on."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gantool import engine
from gantool import recipe as recipes
from gantool.data.prepare import prepare
from gantool.errors import CheckpointError, DataError, ResourceError, RunError, TrainingError
from gantool.locks import alone
from gantool.recipe import Recipe, Tune
from gantool.runs import make_directory, replacing, write
from gantool.schema import plain
from gantool.tune.cluster import Slots, connected
from gantool.tune.search import Interrupted, StudyScheduler, StudySearch
from gantool.tune.space import Space
from gantool.tune.trial import run_trial

if TYPE_CHECKING:
    from gantool.tune.board import Board

DATABASE = "study.db"
SPOILT = {"mode-collapse", "memorised"}  # diagnoses of a generator that nobody wants, however near it is
MEASUREMENTS = 5  # of a trial, where the recipe does not say how often
LEAST = 16  # pictures without which a search cannot tell settings apart
RETRIES = 3  # of a trial whose worker process died; a trial that merely fails is not tried again


class Study:
    """The directory of a search.

    `recipe.yaml` (with every default), `study.db` (Optuna's, in SQLite), `best.yaml`, `best.png`, `trials.csv`,
    `trials/<number>/`, which are runs, and `ray/`, which may be deleted.

    Args:
        path: the directory; a new one is made in `runs/` where it is None.
        recipe: what is searched. A study goes on with its own recipe only, but may be given more trials.

    Raises:
        RunError: the directory holds something else, or the study of another recipe.
        CheckpointError: the study's database is damaged.
    """

    def __init__(self, path: Path | None, recipe: Recipe) -> None:
        self.recipe, self.space = recipe, Space(recipe)
        assert recipe.tune is not None  # Space has refused that
        self.tune: Tune = recipe.tune
        if path is not None and (path / DATABASE).is_file():
            self.path = path.absolute()
            self._refuse_another()
        else:
            self.path = make_directory(path, recipe.name).absolute()
            (self.path / "trials").mkdir()
        write(self.path / "recipe.yaml", recipes.dump(recipe))

        self.study = self._open()
        self.crowned = ""  # which trial is the best, in words, once one has finished

    @property
    def shown(self) -> Path:
        """The directory as a person standing here would type it."""
        here = Path.cwd()
        return self.path.relative_to(here) if self.path.is_relative_to(here) else self.path

    def _open(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        epochs = self.tune.epochs or self.recipe.train.epochs
        try:
            study = optuna.create_study(
                study_name=self.recipe.name,
                storage=f"sqlite:///{(self.path / DATABASE).as_posix()}",
                load_if_exists=True,
                direction="minimize",
                pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, epochs // 4), reduction_factor=3),
            )
            count = len(study.get_trials(deepcopy=False))
        except Exception as error:
            if type(error).__module__.startswith("sqlalchemy"):
                raise CheckpointError(
                    f"{self.path / DATABASE}: not a study, or damaged; it is left as it is: restore a copy, or search "
                    "in a new directory"
                ) from None
            raise
        # A sampler that starts from the same seed after a restart would propose the same points again.
        study.sampler = optuna.samplers.TPESampler(seed=self.tune.seed + count, n_startup_trials=5)
        return study

    def line_up(self) -> None:
        """Put first in line the recipe's own values, or what an earlier search left unfinished."""
        old = self.study.get_trials(deepcopy=False)
        if not old:
            self.study.enqueue_trial(self.space.own_point, user_attrs={"own": True})
        for trial in old:
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
                own = {name: value for name, value in trial.user_attrs.items() if name == "own"}
                self.study.enqueue_trial(trial.params, user_attrs={**own, "again": trial.number})

    def spent(self) -> list[FrozenTrial]:
        """Give the trials that count: finished, pruned, or failed for a reason of their own."""
        done = (TrialState.COMPLETE, TrialState.PRUNED)
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state in done or (trial.state == TrialState.FAIL and "why" in trial.user_attrs)
        ]

    def folder(self, number: int) -> Path:
        """Give the directory of a trial."""
        return self.path / "trials" / f"{number:04d}"

    def configure(self, data_dir: Path) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
        """Give what makes a trial's configuration from its number and values."""
        epochs = self.tune.epochs or self.recipe.train.epochs

        def configuration(number: int, values: dict[str, Any]) -> dict[str, Any]:
            # Trials are compared epoch by epoch, so that each is measured after the same ones.
            every = self.recipe.train.evaluate_every or max(1, epochs // MEASUREMENTS)
            fixed = {"train.epochs": epochs, "train.keep_every": 0, "train.evaluate_every": every}
            chosen = engine.change(self.recipe, {**values, **fixed})
            return {
                "number": number,
                "recipe": recipes.dump(chosen),
                "folder": str(self.folder(number)),
                "data_dir": str(data_dir),
            }

        return configuration

    def write_results(self) -> None:
        """Write `trials.csv`, and `best.yaml` and `best.png` once a trial has finished; drop the losers' weights."""
        rows = self.study.get_trials(deepcopy=False)
        finished = [trial for trial in rows if trial.state == TrialState.COMPLETE]
        write(self.path / "trials.csv", self._table(rows))
        if not finished:
            return
        # A distance rewards copies, and can be low for few different pictures: such a trial wins only among its kind.
        sound = [trial for trial in finished if not SPOILT & set(trial.user_attrs.get("diagnoses", []))]
        best = min(sound or finished, key=lambda trial: math.inf if trial.value is None else trial.value)
        chosen = engine.change(self.recipe, self.space.changes(best.params))
        told = f"{self.tune.metric} {best.value:.4g} after {best.user_attrs['epoch']} epochs"
        spoilt = "".join(f"; {code}" for code in best.user_attrs.get("diagnoses", []) if code in SPOILT)
        head = f"Trial {best.number} of {len(rows)}: {told}{spoilt}"
        write(self.path / "best.yaml", f"# {head}.\n" + recipes.dump(chosen))
        passed = sum((trial.value or 0) < (best.value or 0) for trial in finished)
        self.crowned = head + (f"; {passed} with a lower one collapsed or memorised" if passed else "")
        grid = self.folder(best.number) / "samples" / f"epoch-{best.user_attrs['best_epoch']:04d}.png"
        if grid.exists():
            with replacing(self.path / "best.png") as aside:
                shutil.copyfile(grid, aside)
        for trial in rows:
            if trial.number != best.number and trial.state != TrialState.RUNNING:
                shutil.rmtree(self.folder(trial.number) / "checkpoints", ignore_errors=True)

    def _table(self, rows: list[FrozenTrial]) -> str:
        text = io.StringIO()
        keys = list(self.space.ranges)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["number", "state", self.tune.metric, *keys, "epochs", "seconds", "diagnoses", "why"])
        for trial in rows:
            values = self.space.changes(trial.params)
            last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else ""
            score = trial.value if trial.value is not None else last
            told = trial.user_attrs
            writer.writerow(
                [
                    *(trial.number, trial.state.name.lower(), score),
                    *(values.get(key, "") for key in keys),
                    *(told.get(name, "") for name in ("epoch", "seconds")),
                    *(" ".join(told.get("diagnoses", [])), told.get("why", "")),
                ]
            )
        return text.getvalue()

    def _refuse_another(self) -> None:
        old = engine.open_recipe(str(self.path / "recipe.yaml"))
        before, after = plain(old), plain(self.recipe)
        for block in (before, after):
            block["tune"].pop("trials")
            block.pop("name")
        for key in before:
            if before[key] != after[key]:
                raise RunError(
                    f"{self.shown}: is the study of another recipe ({key} differs); search in a new directory, or "
                    "leave only --trials different"
                )


def search(recipe: Recipe, *, out: Path | None, data_dir: Path, board: Board, stopped: list[int]) -> Study:
    """Search the space of a recipe until its trials are spent, and keep what was found.

    Args:
        recipe: with a `tune` block.
        out: directory of the study; one that holds this recipe's study goes on with it.
        data_dir: where fetched and decoded data are.
        board: shows how the search stands.
        stopped: the search ends well as soon as this list is not empty.

    Raises:
        TrainingError: no trial finished; with the commonest reason.
    """
    Space(recipe).check(data_dir)
    home = Study(out, recipe)
    with alone(home.path / "lock"):
        store = prepare(recipe.data, data_dir, tell=board.tell)
        if len(store) < LEAST:
            raise DataError(
                f"{recipe.data.source}: has {len(store)} pictures, too few to tell settings apart; give it {LEAST} or "
                "more, or use gantool train"
            )
        board.tell(engine.counted(recipe, store))
        engine.evaluator_of(recipe, store, data_dir, tell=board.tell)  # what is learned once, before all trials need it
        home.line_up()
        left = home.tune.trials - len(home.spent())
        board.begin(home, home.spent())
        if left > 0 and not stopped:
            with connected() as slots:
                board.tell(slots.sentence())
                _fit(home, left, slots, data_dir, board, stopped)
        home.write_results()
        finished = [trial for trial in home.spent() if trial.state == TrialState.COMPLETE]
        board.finish()
        if not finished and not stopped:
            reasons = [trial.user_attrs.get("why", "stopped early") for trial in home.spent()]
            raise TrainingError(f"{home.shown}: no trial finished; most often: {max(reasons, key=reasons.count)}")
    return home


def _fit(home: Study, left: int, slots: Slots, data_dir: Path, board: Board, stopped: list[int]) -> None:
    """Let Ray Tune run the trials that are left."""
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter

    finder = StudySearch(home.study, home.space, home.configure(data_dir), board, stopped)
    scratch = home.path / "ray"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        tune.Tuner(
            tune.with_resources(run_trial, {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                num_samples=left,
                search_alg=ConcurrencyLimiter(finder, slots.count),
                scheduler=StudyScheduler(finder),
                reuse_actors=True,  # a worker with torch loaded costs seconds
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}",
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(home.path),
                verbose=0,
                stop=Interrupted(stopped),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    except OSError as error:
        raise ResourceError(f"{home.path}: {error.strerror or error}; make room, then run the same command") from None
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch, ignore_errors=True)
