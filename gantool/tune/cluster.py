"""A Ray cluster to run trials on, without a word from Ray while all is well."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a trial's relative paths stay the driver's
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command line has its own, which Tune's would replace
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
SHARE = 4  # trials on one GPU at the most: small networks leave most of a GPU idle


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and what each one gets.

    Args:
        count: trials at once.
        cpus: of each trial; also its threads.
        gpus: of each trial; a fraction where trials share a card.
    """

    count: int
    cpus: int
    gpus: float

    def sentence(self) -> str:
        """Say it."""
        if not self.gpus:
            return f"{self.count} trials at once, one on each core"
        return f"{self.count} trials at once, {round(1 / self.gpus)} on each GPU"


@contextlib.contextmanager
def connected() -> Iterator[Slots]:
    """Start a Ray cluster of this machine's own, and stop it at the end.

    It never joins a cluster that somebody else runs here.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ray\.")
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would print a stack trace and end the process at once
    try:
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        yield _slots([node["Resources"] for node in nodes if node["Alive"]])
    finally:
        ray.shutdown()


def _slots(nodes: list[dict[str, float]]) -> Slots:
    """Divide the nodes of a cluster: a trial lives on one node, so the sum of all would promise too much."""
    cards = sum(int(node.get("GPU", 0)) for node in nodes)
    cores = sum(int(node.get("CPU", 0)) for node in nodes)
    if not cards:
        return Slots(max(1, cores), 1, 0)
    per_card = max(1, min(SHARE, cores // cards))
    count = sum(min(int(node.get("CPU", 0)), int(node.get("GPU", 0)) * per_card) for node in nodes)
    return Slots(max(1, count), 1, 1 / per_card)
