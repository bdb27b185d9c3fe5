"""The trials of a search one after the other in this process, without Ray: for tests, debugging and short searches."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator
from typing import Any

from gantool.tune.trials import Trials

Objective = Callable[[dict[str, Any], Callable[[], bool]], Generator[dict[str, Any], None, None]]


def run_trials(trials: Trials, objective: Objective) -> None:
    """Run all trials that are left."""
    for count in itertools.count():
        config = trials.next(str(count))
        if config is None:
            return
        with contextlib.closing(objective(config, lambda: trials.stopping)) as results:
            for result in results:
                if trials.measured(str(count), result):
                    break
        trials.ended(str(count), died=False)
