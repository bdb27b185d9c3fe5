"""A search from its recipe to its winner: the same call starts, resumes and extends it."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import TrialState

from gantool import devices
from gantool.errors import DataError, GantoolError, TrainingError
from gantool.files import exclusive_lock
from gantool.recipe.blocks import Recipe
from gantool.runs import data_root
from gantool.terminal import several
from gantool.training.setup import TrainingSetup, prepare_training
from gantool.tune import inline, results
from gantool.tune.cluster import connect
from gantool.tune.earlier import begin_with, take_over
from gantool.tune.events import Event, SearchEnded, SearchStarted
from gantool.tune.find import earlier_study, find_study
from gantool.tune.plan import Plan, epoch_seconds
from gantool.tune.samplers import sampler
from gantool.tune.space import Space
from gantool.tune.study import Study
from gantool.tune.trial import Objective, run_trial
from gantool.tune.trials import TrialEnvironment, Trials

logger = logging.getLogger(__name__)

MIN_IMAGES = 16  # with fewer, a search cannot tell settings apart


@dataclass(frozen=True)
class SearchBackend:
    """What runs the trials. An empty setting means the one that the study remembers, or the default.

    Args:
        engine: `ray` (the default), or `inline` for one trial at a time in this process.
        address: of the Ray cluster; see `connect.connected`. Default: `local`.
        device: see `devices.choose`. Default: `auto`.
        verbose: whether to show the messages of Ray.
    """

    engine: str = ""
    address: str = ""
    device: str = ""
    verbose: bool = False

    def resolved(self, remembered: Mapping[str, str]) -> SearchBackend:
        """Return it with remembered settings or the defaults in place of empty ones."""
        return replace(
            self,
            engine=self.engine or remembered.get("engine", "ray"),
            address=self.address or remembered.get("address", "local"),
            device=self.device or remembered.get("device", "auto"),
        )

    def check(self) -> None:
        """Refuse a setting that is unknown or does not fit the others, and an address without a cluster."""
        if self.engine == "inline" and self.address != "local":
            raise GantoolError(f"--address {self.address}: --engine inline runs in this process; leave one of them out")
        if self.engine == "ray" and self.device not in {"auto", "cpu", "cuda"}:
            raise GantoolError(
                f"--device {self.device}: workers know auto, cpu and cuda; use --engine inline for others"
            )
        if self.address == "local":
            devices.choose(self.device)
        else:
            connect.check_address(self.address)


@dataclass(frozen=True)
class _Search:
    """A search whose study is open, with the arguments of `search`; `start` is on the monotonic clock."""

    study: Study
    data_dir: Path
    backend: SearchBackend
    stopped: list[int]
    objective: Objective
    minutes: float | None
    start: float

    def prepare(self, other: Study | None, *, points: bool) -> TrainingSetup:
        """Prepare the data before trials need them, and start a new study with the results of an earlier one."""
        study = self.study
        study.space.check(self.data_dir)
        made = prepare_training(study.recipe, self.data_dir)
        if made.store.path and len(made.store) < MIN_IMAGES:
            raise DataError(
                f"{study.recipe.data.source}: has {len(made.store)} images, too few to tell settings apart; give it "
                f"{MIN_IMAGES} or more, or use gantool train"
            )
        study.learn_from(made.store.key)
        if other is not None:
            taken = take_over(study, other)
            if taken:
                verb = "are" if taken > 1 else "is"
                logger.info(f"{several(taken, 'finished trial')} of {other.shown} {verb} taken over")
            if points:
                logger.info(f"{begin_with(study, other)} of the best values of {other.shown} come first")
        return made

    def run(self, materials: TrainingSetup) -> Generator[Event, None, str]:
        """Run the trials; return the budget that is spent, if one is."""
        study, path = self.study, materials.store.path
        searched = any(key.startswith("data.") for key in study.space.ranges)
        store = "" if searched or path is None else str(path)
        environment = TrialEnvironment(self.data_dir, store, self.backend.device)
        if self.backend.engine == "inline":
            trials = self._trials(environment, materials)
            yield from inline.run_trials(trials, self.objective)
        else:
            trials = yield from self._run_on_ray(environment, materials)
        if trials.failure is not None:
            raise trials.failure
        with study.database_errors():
            trials.save_time()
            study.search.set_user_attr("slots", trials.environment.slots)
        return trials.over()

    def _run_on_ray(self, environment: TrialEnvironment, materials: TrainingSetup) -> Generator[Event, None, Trials]:
        from gantool.tune.cluster import nodes

        address = self.backend.address
        logger.info("starting workers" if address == "local" else f"joining the cluster at {address}")
        with connect.connected(address, verbose=self.backend.verbose) as found:
            from gantool.tune.cluster import pool

            environment = nodes.check_nodes(found, self.study, environment)
            need = nodes.memory(found, self.study, environment)
            slots = connect.share(found, self.study.tune, environment.device, need)
            device = "cuda" if slots.gpus else "cpu"
            environment = replace(environment, device=device, gpus=slots.gpus, slots=slots.count)
            logger.info(slots.sentence())
            trials = self._trials(environment, materials)
            yield from pool.run_trials(trials, slots, self.objective)
        return trials

    def _trials(self, environment: TrialEnvironment, materials: TrainingSetup) -> Trials:
        """Return the trials; if the time is limited, plan how many trials, seeds and epochs fit into it."""
        plan = None
        if self.minutes is not None:
            device = "cuda" if environment.device in {"cuda", "auto"} and environment.gpus else "cpu"
            epoch = epoch_seconds(self.study.recipe, materials, device, self.study.tune.cpus_per_trial)
            left = 60 * self.minutes - (time.monotonic() - self.start)
            plan = Plan.of(self.study.recipe, left, epoch, environment.slots)
            assert plan.recipe.tune is not None
            self.study.replan(confirm=plan.recipe.tune.confirm)
            logger.info(plan.sentence())
        return Trials(self.study, environment, self.stopped, plan)


def search(
    recipe: Recipe,
    *,
    out: Path | None = None,
    fresh: bool = False,
    data_dir: Path | None = None,
    backend: SearchBackend = SearchBackend(),
    minutes: float | None = None,
    source: Path | None = None,
    stopped: list[int] | None = None,
    objective: Objective = run_trial,
) -> Iterator[Event]:
    """Search the space of a recipe, decide with new seeds whether a setting beats it, and train the two to the end.

    Close the iterator to stop: running trials are saved, and the same call resumes the search.

    Args:
        recipe: with a `tune` block.
        out: directory of the study; by default the newest study of this recipe, or a new one.
        fresh: start a new study.
        data_dir: the data directory; None is the one that the study remembers, or the default.
        backend: what runs the trials.
        minutes: time limit of the whole search. Trials, seeds and epochs are planned so that they fit.
        source: directory of another study, whose best values a new study tries first.
        stopped: the search stops as soon as this list is not empty; a signal handler may fill it.
        objective: what runs one trial.

    Yields:
        events, of which the last one is `SearchEnded`.

    Raises:
        TrainingError: no trial finished; with the commonest reason.
    """
    start, stopped = time.monotonic(), [] if stopped is None else stopped
    Space(recipe)
    assert recipe.tune is not None
    given = backend.resolved({})
    given.check()
    sampler(recipe.tune, 0)  # fails for a missing package before a directory is made
    other = Study(source) if source else None
    if other is None and not out and not fresh:
        other = earlier_study(recipe)
    path, old = find_study(out, recipe, fresh=fresh)
    with _removed_on_failure(path, new=not old), exclusive_lock(path / "lock"):
        study = Study.resume(path, recipe) if old else Study.create(path, recipe)
        root, resolved, budget = data_root(data_dir, study.data_dir), backend.resolved(study.settings), ""
        if resolved != given:
            resolved.check()
        study.remember(data_dir=str(root), engine=resolved.engine, address=resolved.address, device=resolved.device)
        if old and study.is_done() and minutes is None:
            yield SearchStarted.of(study)
        else:
            run = _Search(study, root, resolved, stopped, objective, minutes, start)
            materials = run.prepare(None if old else other, points=source is not None)
            yield SearchStarted.of(study, resumes=True)
            budget = yield from run.run(materials)
        results.write(study)
        done = study.is_done()
        if done and study.finished():
            results.settle(study)
        yield SearchEnded(study, bool(stopped), "" if done else budget)
        if done and not study.finished():
            raise TrainingError(f"{study.shown}: no trial finished; most often: {_commonest_reason(study)}")


def _commonest_reason(study: Study) -> str:
    """Return the most frequent reason for which trials of a study did not finish."""
    reasons = [
        str(trial.user_attrs.get("why", "")) if trial.state == TrialState.FAIL else "stopped early"
        for trial in study.spent()
    ]
    return max(reasons, key=reasons.count)


@contextlib.contextmanager
def _removed_on_failure(path: Path, *, new: bool) -> Iterator[None]:
    """Remove the directory of a new study that fails before its first trial, for example because data are missing."""
    try:
        yield
    except TrainingError:
        raise
    except (GantoolError, KeyboardInterrupt, SystemExit, GeneratorExit):
        if new and not any((path / "trials").glob("*")):
            shutil.rmtree(path, ignore_errors=True)
        raise
