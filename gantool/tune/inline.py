"""The trials of a search one after the other in this process, without Ray: for short searches and tests."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from gantool.tune.events import Event
from gantool.tune.trial import Objective
from gantool.tune.trials import Trials


def run_trials(trials: Trials, objective: Objective) -> Iterator[Event]:
    """Run all remaining trials, and yield their events."""
    for key in map(str, itertools.count()):
        config = trials.next(key)
        yield from trials.pending_events()
        if config is None:
            return
        with contextlib.closing(objective(config, lambda: trials.stopping)) as found:
            for result in found:
                stop = trials.measured(key, result)
                try:
                    yield from trials.pending_events()
                except GeneratorExit:  # the trial saves its state and ends
                    trials.stopped.append(0)
                    for _ in found:
                        pass
                    raise
                if stop:
                    break
        trials.ended(key, died=False)
        yield from trials.pending_events()
