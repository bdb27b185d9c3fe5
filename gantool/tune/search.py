"""A search from its recipe to its winner: the same call starts, resumes and extends it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import TrialState

from gantool import devices
from gantool.errors import DataError, GantoolError, TrainingError
from gantool.files import BusyError, exclusive_lock, remove, sweep
from gantool.recipe.blocks import Recipe
from gantool.runs import data_root, is_study
from gantool.terminal import several
from gantool.training.setup import TrainingSetup, prepare_training
from gantool.tune import inline, results
from gantool.tune.cluster import connect
from gantool.tune.earlier import begin_with, earlier_study, find_study, new_study, take_over
from gantool.tune.events import Event, SearchEnded, SearchStarted
from gantool.tune.plan import Plan, epoch_seconds
from gantool.tune.record import DATA, DIGEST, read_settings
from gantool.tune.samplers import sampler
from gantool.tune.space import Space
from gantool.tune.storage import database_errors
from gantool.tune.study import Study
from gantool.tune.trial import Objective, run_trial
from gantool.tune.trials import TrialEnvironment, Trials

logger = logging.getLogger(__name__)

MIN_IMAGES = 16  # with fewer, a search cannot tell settings apart


@dataclass(frozen=True)
class SearchBackend:
    """What runs the trials. An empty setting means the one that the study remembers, or the default."""

    engine: str = ""  # `ray` (the default), or `inline` for one trial at a time in this process
    address: str = ""  # of the Ray cluster; see `connect.connected`; `local` by default
    device: str = ""  # see `devices.choose`; `auto` by default
    verbose: bool = False  # whether to show the messages of Ray

    def resolved(self, saved: Mapping[str, str]) -> SearchBackend:
        """Return it with saved settings or the defaults in place of empty ones.

        Raises:
            GantoolError: a setting is unknown, does not fit the others, or no cluster has the address.
        """
        engine = self.engine or saved.get("engine", "ray")
        address = self.address or saved.get("address", "local")
        device = self.device or saved.get("device", "auto")
        if engine == "inline" and address != "local":
            raise GantoolError(f"--address {address}: --engine inline runs in this process; leave one of them out")
        if engine == "ray" and device not in {"auto", "cpu", "cuda"}:
            raise GantoolError(f"--device {device}: workers know auto, cpu and cuda; use --engine inline for others")
        if address == "local":
            devices.choose(device)
        else:
            connect.check_address(address)
        return SearchBackend(engine, address, device, self.verbose)


@dataclass(frozen=True)
class _Search:
    """A search whose study is open and whose data are prepared; `end` is on the monotonic clock."""

    study: Study
    materials: TrainingSetup
    data_dir: Path
    backend: SearchBackend
    stopped: list[int]
    objective: Objective
    end: float | None

    def run(self) -> Generator[Event, None, str]:
        """Run the trials; return the budget that is spent, if one is."""
        study, path = self.study, self.materials.store.path
        is_searched = any(key.startswith("data.") for key in study.space.ranges)
        store = "" if is_searched or path is None else str(path)
        environment = TrialEnvironment(self.data_dir, store, self.backend.device)
        if self.backend.engine == "inline":
            trials = self._trials(environment)
            yield from inline.run_trials(trials, self.objective)
        else:
            trials = yield from self._run_on_ray(environment)
        if trials.failure is not None:
            raise trials.failure
        with study.database_errors():
            trials.save_time()
            study.search.set_user_attr("slots", trials.environment.slots)
        return trials.over()

    def _run_on_ray(self, environment: TrialEnvironment) -> Generator[Event, None, Trials]:
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
            trials = self._trials(environment)
            yield from pool.run_trials(trials, slots, self.objective)
        return trials

    def _trials(self, environment: TrialEnvironment) -> Trials:
        """Return the trials; if the time is limited, plan how many trials, seeds and epochs fit into it."""
        study, plan = self.study, None
        if self.end is not None:
            device = "cuda" if environment.device in {"cuda", "auto"} and environment.gpus else "cpu"
            epoch = epoch_seconds(study.recipe, study.epochs, self.materials, device, study.tune.cpus_per_trial)
            plan = Plan(study, self.end - time.monotonic(), epoch, environment.slots)
            logger.info(plan.sentence())
        return Trials(study, environment, self.stopped, plan)


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

    The last event is `SearchEnded`. Close the iterator to stop: trials are saved, and the same call resumes the search.

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

    Raises:
        TrainingError: no trial finished; with the commonest reason.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    stopped = [] if stopped is None else stopped
    settings = Space(recipe).tune
    sampler(settings, 0)  # fails for a missing package before a directory is made
    old = None if fresh else find_study(out, recipe)
    backend = backend.resolved(read_settings(old) if old else {})
    other = Study(source) if source else None
    if not (other or old or out or fresh):
        other = earlier_study(recipe)
    path = old or new_study(out, recipe)
    with _lock(path, new=old is None), database_errors(path, settings.storage):
        study, budget = Study.resume(path, recipe) if old else Study.create(path, recipe), ""
        root = data_root(data_dir, study.data_dir)
        study.remember(data_dir=str(root), engine=backend.engine, address=backend.address, device=backend.device)
        if old and study.is_done() and minutes is None:
            yield SearchStarted.of(study)
        else:
            materials = _prepare(study, root, None if study.trials() else other, points=source is not None)
            yield SearchStarted.of(study, resumes=True)
            budget = yield from _Search(study, materials, root, backend, stopped, objective, end).run()
        results.write(study)
        done = study.is_done()
        if done and study.finished():
            study.agree()
            results.compare(study)
        yield SearchEnded(study, bool(stopped), "" if done else budget)
        if done and not study.finished():
            raise TrainingError(f"{study.shown}: no trial finished; most often: {_commonest_reason(study)}")


def _prepare(study: Study, data_dir: Path, other: Study | None, *, points: bool) -> TrainingSetup:
    """Prepare the data before trials need them, and start a new study with the results of an earlier one."""
    if not study.trials():
        study.agree()
    study.space.check(data_dir)
    made = prepare_training(study.recipe, data_dir)
    if made.store.path and len(made.store) < MIN_IMAGES:
        raise DataError(
            f"{study.recipe.data.source}: has {len(made.store)} images, too few to tell settings apart; give it "
            f"{MIN_IMAGES} or more, or use gantool train"
        )
    if DATA not in study.search.user_attrs:
        study.search.set_user_attr(DATA, made.store.key)
    digest = study.search.user_attrs.get(DIGEST)
    if not digest:
        study.search.set_user_attr(DIGEST, made.store.digest)
    elif made.store.digest and made.store.digest != digest:
        raise DataError(f"{study.shown}: its data have changed since it began; bring them back, or use --fresh")
    if other is not None:
        taken = take_over(study, other)
        if taken:
            verb = "are" if taken > 1 else "is"
            logger.info(f"{several(taken, 'finished trial')} of {other.shown} {verb} taken over")
        if points:
            logger.info(f"{begin_with(study, other)} of the best values of {other.shown} come first")
    return made


def _commonest_reason(study: Study) -> str:
    """Return the most frequent reason for which trials of a study did not finish."""
    reasons = [
        str(trial.user_attrs.get("why", "")) if trial.state == TrialState.FAIL else "stopped early"
        for trial in study.spent()
    ]
    return max(reasons, key=reasons.count)


@contextlib.contextmanager
def _lock(path: Path, *, new: bool) -> Iterator[None]:
    """Hold the lock of a study, without what a killed process left.

    A new one that fails before its first trial, for example because data are missing, is deleted under its lock, so
    that no other search is in it.
    """
    with exclusive_lock(path / "lock"):
        if new and is_study(path):
            raise BusyError(path, "a search that has just started")
        for name in results.FILES:
            sweep(path / name)
        try:
            yield
        except TrainingError:
            raise
        except (GantoolError, KeyboardInterrupt, SystemExit, GeneratorExit):
            if new and not any((path / "trials").glob("*")):
                remove(path)
            raise
