"""A search from its recipe to its winner: the same call starts, goes on and extends."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import TrialState

from gantool import devices
from gantool.errors import DataError, GantoolError, TrainingError
from gantool.files import exclusive_lock
from gantool.recipe.blocks import Recipe
from gantool.runs import data_root
from gantool.terminal import several
from gantool.training import setup
from gantool.training.setup import TrainingSetup
from gantool.tune import inline, results
from gantool.tune.board import Board
from gantool.tune.cluster import connect
from gantool.tune.earlier import begin_with, take_over
from gantool.tune.inline import Objective
from gantool.tune.plan import Plan, epoch_seconds
from gantool.tune.samplers import sampler
from gantool.tune.space import Space
from gantool.tune.study import Study, earlier_study, find_study, settings_of
from gantool.tune.trial import run_trial
from gantool.tune.trials import TrialEnvironment, Trials

logger = logging.getLogger(__name__)

MIN_IMAGES = 16  # images without which a search cannot tell settings apart


@dataclass(frozen=True)
class SearchBackend:
    """How a search runs.

    Args:
        engine: `ray`, or `inline` for one trial at a time in this process. Empty: as the study remembers, or `ray`.
        address: of the Ray cluster; see `connect.connected`. Empty: as the study remembers, or `local`.
        device: see `devices.choose`. Empty: as the study remembers, or `auto`.
        verbose: whether to show the messages of Ray.
        minutes: time limit of the whole search. Trials, seeds and epochs are planned so that they fit.
        source: directory of another study, whose best values a new study tries first.
    """

    engine: str = ""
    address: str = ""
    device: str = ""
    verbose: bool = False
    minutes: float | None = None
    source: Path | None = None

    def resolved(self, remembered: Mapping[str, str]) -> SearchBackend:
        """Return it with the settings that a study remembers, or the defaults, in place of empty ones."""
        return replace(
            self,
            engine=self.engine or remembered.get("engine", "ray"),
            address=self.address or remembered.get("address", "local"),
            device=self.device or remembered.get("device", "auto"),
        )


def search(
    recipe: Recipe,
    *,
    out: Path | None,
    fresh: bool,
    data_dir: Path | None,
    board: Board,
    stopped: list[int],
    way: SearchBackend = SearchBackend(),
    objective: Objective = run_trial,
) -> Study:
    """Search the space of a recipe, decide with new seeds whether a setting beats it, and train the two to the end.

    Args:
        recipe: with a `tune` block.
        out: directory of the study; without it the newest study of this recipe goes on, or a new one begins.
        fresh: begin anew.
        data_dir: the data directory; None is what the study remembers, or the default.
        board: shows how the search stands.
        stopped: the search ends well as soon as this list is not empty.
        way: how it runs.
        objective: what runs one trial.

    Raises:
        TrainingError: no trial finished; with the commonest reason.
    """
    space = Space(recipe)
    assert recipe.tune is not None
    _check(way.resolved({}))
    sampler(recipe.tune, 0)  # says what is not installed, before there is a directory
    other = Study(way.source) if way.source else None
    if other is None and not out and not fresh:
        other = earlier_study(recipe)
    path, old = find_study(out, recipe, fresh=fresh)
    with _taken_back(path, new=not old), exclusive_lock(path / "lock"):
        study = Study.resume(path, recipe) if old else Study.create(path, recipe)
        trials, data_dir = None, data_root(data_dir, study.data_dir)
        way = way.resolved(settings_of(path))
        _check(way)
        study.remember(data_dir=str(data_dir), engine=way.engine, address=way.address, device=way.device)
        if old and study.is_done() and way.minutes is None:
            board.begin(study)
        else:
            space.check(data_dir)
            trials = _search(study, None if old else other, data_dir, board, stopped, way, objective)
        results.write(study)
        done = study.is_done()
        if done and study.finished():
            results.settle(study)
        board.finish(interrupted=bool(stopped), over=trials.over() if trials and not done else "")
        if done and not study.finished():
            reasons = [
                trial.user_attrs.get("why", "") if trial.state == TrialState.FAIL else "stopped early"
                for trial in study.spent()
            ]
            raise TrainingError(f"{study.shown}: no trial finished; most often: {max(reasons, key=reasons.count)}")
    return study


def _check(way: SearchBackend) -> None:
    """Refuse a place that is not there, before anything is prepared for it."""
    if way.engine == "inline":
        if way.address != "local":
            raise GantoolError(f"--address {way.address}: --engine inline runs in this process; leave one of them out")
        devices.choose(way.device)
        return
    if way.device not in {"auto", "cpu", "cuda"}:
        raise GantoolError(f"--device {way.device}: workers know auto, cpu and cuda; use --engine inline for others")
    if way.address == "local":
        devices.choose(way.device)
    connect.reach(way.address)


def _search(
    study: Study,
    other: Study | None,
    data_dir: Path,
    board: Board,
    stopped: list[int],
    way: SearchBackend,
    objective: Objective,
) -> Trials:
    recipe = study.recipe
    materials = setup.prepare_training(recipe, data_dir)  # what is made once, before all trials need it
    data = materials.store
    if data.path and len(data) < MIN_IMAGES:
        raise DataError(
            f"{recipe.data.source}: has {len(data)} images, too few to tell settings apart; give it "
            f"{MIN_IMAGES} or more, or use gantool train"
        )
    study.learn_from(data.key)
    if other is not None:
        _learn_from(study, other, board, points=way.source is not None)
    searched = any(key.startswith("data.") for key in study.space.ranges)
    store = "" if searched or data.path is None else str(data.path)
    place = TrialEnvironment(data_dir, store, way.device)
    start = time.monotonic()
    if way.engine == "inline":
        trials = Trials(study, board, place, stopped, _planned(study, materials, place, board, way))
        board.begin(study, trials)
        inline.run_trials(trials, objective)
    else:
        trials = _on_ray(study, materials, place, board, stopped, way, objective)
    if trials.failure is not None:
        raise trials.failure
    with study.database_errors():
        trials.save_time()
        study.search.set_user_attr("slots", trials.place.slots)
    if way.engine == "ray" and not trials.stopping:
        board.log_if_quicker_inline(time.monotonic() - start)
    return trials


def _learn_from(study: Study, other: Study, board: Board, *, points: bool) -> None:
    """Begin a new study with what an earlier one has: trials that are the same here, and perhaps its best values."""
    taken = take_over(study, other)
    if taken:
        logger.info(f"{several(taken, 'finished trial')} of {other.shown} {'are' if taken > 1 else 'is'} taken over")
    if points:
        logger.info(f"{begin_with(study, other)} of the best values of {other.shown} come first")


def _planned(
    study: Study, materials: TrainingSetup, place: TrialEnvironment, board: Board, way: SearchBackend
) -> Plan | None:
    """Plan trials, seeds and epochs into the time, where it is limited; and say so."""
    if way.minutes is None:
        return None
    device = "cuda" if place.device in {"cuda", "auto"} and place.gpus else "cpu"
    epoch = epoch_seconds(study.recipe, materials, device, study.tune.cpus_per_trial)
    plan = Plan.of(study.recipe, 60 * way.minutes - (time.monotonic() - board.start), epoch, place.slots)
    assert plan.recipe.tune is not None
    study.replan(plan.recipe.tune)
    logger.info(plan.sentence())
    return plan


def _on_ray(
    study: Study,
    materials: TrainingSetup,
    place: TrialEnvironment,
    board: Board,
    stopped: list[int],
    way: SearchBackend,
    objective: Objective,
) -> Trials:
    from gantool.tune.cluster import nodes

    board.study = study  # from here on a signal is heard, not obeyed at once: Ray does not like to be cut off
    logger.info("starting workers" if way.address == "local" else f"joining the cluster at {way.address}")
    with connect.connected(way.address, verbose=way.verbose) as found:
        from gantool.tune.cluster import pool

        place = nodes.agreed(found, study, place)
        need = nodes.memory(found, study, place)
        slots = connect.share(found, study.tune, place.device, need)
        device = "cuda" if slots.gpus else "cpu"
        place = TrialEnvironment(place.data_dir, place.store, device, slots.gpus, slots.count)
        logger.info(slots.sentence())
        trials = Trials(study, board, place, stopped, _planned(study, materials, place, board, way))
        board.begin(study, trials)
        pool.run_trials(trials, slots, objective)
    return trials


@contextlib.contextmanager
def _taken_back(path: Path, *, new: bool) -> Iterator[None]:
    """Remove the directory of a new study that fails before its first trial, such as for want of its data."""
    try:
        yield
    except TrainingError:
        raise
    except (GantoolError, KeyboardInterrupt, SystemExit):
        if new and not any((path / "trials").glob("*")):
            shutil.rmtree(path, ignore_errors=True)
        raise
