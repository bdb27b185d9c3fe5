"""Quick searches: scripted trials, new studies, and the command line in its own process."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from gantool import models
from gantool.recipe import load as recipes
from gantool.schedule import measured_epochs
from gantool.training import engine
from gantool.tune.board import Board
from gantool.tune.events import SearchStarted
from gantool.tune.search import SearchBackend, search
from gantool.tune.study import Study
from gantool.tune.trial import TrialResult
from gantool.tune.trials import TrialEnvironment, Trials

RATE, BETA = "train.optimizer.lr", "train.optimizer.betas.0"
TINY = {
    "data.source": "digits",
    "data.size": 8,
    "model.generator": [16],
    "model.discriminator": [16],
    "train.evaluate_images": 64,
    "train.extractors": ["rand"],
    "tune.epochs": 4,
    "tune.trials": 6,
    "tune.confirm": None,
    "tune.finish": None,
    "tune.space": {RATE: {"low": 1e-5, "high": 1e-1, "log": True}, BETA: {"low": 0.0, "high": 0.9}},
}
TYPED = [part for key, value in TINY.items() for part in ("--set", f"{key}={json.dumps(value)}")]
DEADLINE = 300.0  # seconds; a slow and busy machine needs some


def tiny(**changes):
    """Return a recipe of which a search takes milliseconds a trial; `__` stands for a dot."""
    return engine.open_recipe("gan14", TINY | {key.replace("__", "."): value for key, value in changes.items()})


def made(path, **changes):
    """Return a new study."""
    path.mkdir(parents=True)
    return Study.create(path, tiny(**changes))


# Trials that are scripted


def quick(score, diagnoses=lambda recipe: ()):
    """Return an objective that measures `score(recipe, epoch)` in place of training."""

    def objective(config, interrupted):
        recipe = recipes.parse(config.recipe, "trial", models.KINDS)
        last, codes, best = recipe.train.epochs, tuple(diagnoses(recipe)), math.inf
        Path(config.folder).mkdir(exist_ok=True)
        for epoch in measured_epochs(last, every=recipe.train.evaluate_every):
            found = score(recipe, epoch)
            best = min(best, found)
            state = "finished" if epoch == last else "running"
            yield TrialResult(found, best, epoch, 0.01 * epoch, codes, "memorised" in codes, state=state)
            if interrupted() and epoch < last:
                yield TrialResult(state="interrupted")
                return

    return objective


def bowl(recipe, epoch):
    """Return a metric with its minimum at a rate of 1e-3 and a first beta of 0.3, far from the recipe's own."""
    rate, beta = recipe.train.optimizer.lr, recipe.train.optimizer.betas[0]
    return 1 + (math.log10(rate) + 3) ** 2 + (beta - 0.3) ** 2 + 1 / epoch


def planned(plan):
    """Return an objective with the metric `plan(number, seed)`, or its list of a metric and diagnoses, or a reason."""

    def objective(config, interrupted):
        number = int(config.label.partition(" ")[0])
        found = plan(number, recipes.parse(config.recipe, "trial", models.KINDS).train.seed)
        value, *codes = found if isinstance(found, list) else [found]
        if isinstance(value, str):
            yield TrialResult(state="failed", why=value)
        else:
            yield from quick(lambda recipe, epoch: value + 1 / epoch, lambda recipe: codes)(config, interrupted)

    return objective


def run(recipe, out, data_dir, objective=None, *, as_json=False, **options):
    """Search in this process, and return the study."""
    options = {"backend": SearchBackend("inline"), "objective": objective or quick(bowl)} | options
    with Board(recipe, as_json=as_json) as board:
        for event in search(recipe, out=out, data_dir=data_dir, **options):
            board.show(event)
    return event.study


class Backend:
    """A backend whose trials a test runs step by step; the board shows their events."""

    def __init__(self, study, data_dir, *, slots=1, gpus=0.0, as_json=False):
        self.study, self.stopped = study, []
        self.board = Board(study.recipe, as_json=as_json)
        environment = TrialEnvironment(data_dir, "", "cpu", gpus=gpus, slots=slots)
        self.trials = Trials(study, environment, self.stopped)
        self.board.show(SearchStarted.of(study, resumes=True))

    def _show(self, found):
        for event in self.trials.pending_events():
            self.board.show(event)
        return found

    def next(self, key):
        """Start the next training."""
        return self._show(self.trials.next(key))

    def measured(self, key, *results):
        """Report results of a training, each an epoch and its metric, or a whole result."""
        stop = False
        for result in results:
            stop = self.trials.measured(key, result if isinstance(result, TrialResult) else measured(*result))
        return self._show(stop)

    def ended(self, key, *results, died=False):
        """Report the last results of a training and its end."""
        self.measured(key, *results)
        self._show(self.trials.ended(key, died=died))


def measured(epoch, score, codes=(), last=4):
    """Return a measurement after an epoch of `last`."""
    state = "finished" if epoch >= last else "running"
    return TrialResult(score, score, epoch, 0.1, codes, "memorised" in codes, state=state)


def drive(study, data_dir, *, order, slots=3, measurements=None, objective=None):
    """Run the trials of a study on some slots in random turns, perhaps only up to a number of measurements."""
    backend = Backend(study, data_dir, slots=slots)
    turn, names, live = random.Random(order), map(str, itertools.count()), {}
    objective, taken = objective or quick(bowl), itertools.count(1)
    while not backend.trials.finished:
        while len(live) < slots and (config := backend.next(key := next(names))) is not None:
            live[key] = objective(config, lambda: backend.trials.stopping)
        key = turn.choice(sorted(live))
        result = next(live[key], None)
        if measurements and next(taken) == measurements:
            backend.stopped.append(2)
        if result is None or backend.measured(key, result):
            live.pop(key).close()
            backend.ended(key)
    assert backend.trials.failure is None
    return study


# What a study has


def rows(path):
    return list(csv.DictReader((path / "trials.csv").read_text(encoding="utf-8").splitlines()))


def states(study):
    return [trial.state.name for trial in study.trials()]


def params(study):
    return [trial.params for trial in study.trials()]


def reseeded(study):
    """Return the trial, the seed and the state of each training with a new seed."""
    return [(one.user_attrs["of"], one.user_attrs["seed"], one.state.name) for one in study.runs()]


# The command line in its own process


def environment():
    """Return a user's environment: Ray gives each worker as many threads as it has cores."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}


def gantool(*arguments, folder, **options):
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gantool", *map(str, arguments)],
        cwd=folder,
        env=environment() | options.pop("variables", {}),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        **options,
    )


class Driver:
    """A command that runs while a test looks at it; its output goes to files."""

    def __init__(self, *arguments, folder, variables=None, **options):
        number = len(list(folder.glob("*.out")))
        self.files = [folder / f"{number}.{kind}" for kind in ("out", "err")]
        with self.files[0].open("w") as out, self.files[1].open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gantool", *map(str, arguments)],
                cwd=folder,
                env=environment() | (variables or {}),
                stdout=out,
                stderr=err,
                **options,
            )

    def until(self, seen):
        """Wait for something that happens while it runs, and return it."""
        deadline = time.monotonic() + DEADLINE
        while not (found := seen()):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        return found

    def send(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def ended(self):
        """Wait for its end, and return the exit code."""
        return self.process.wait(DEADLINE)

    def output(self):
        """Return all that it printed."""
        return "".join(file.read_text() for file in self.files)
