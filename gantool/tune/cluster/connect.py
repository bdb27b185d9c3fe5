"""A Ray cluster to run trials on: this machine's own or one that is there, and how many trials it has room for."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gantool.devices import available_cores
from gantool.errors import GantoolError, NetworkError, ResourceError
from gantool.recipe.blocks import Tune

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_ALWAYS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a trial's relative paths stay the driver's
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command line has its own, which Tune's would replace
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the study remembers; nobody reads Tune's snapshots
}
_BRIEF = {"RAY_gcs_rpc_server_connect_timeout_s": "2", "RAY_py_gcs_connect_timeout_s": "2"}  # a check's patience
CONNECT_TIMEOUT = 3.0  # seconds in which a cluster has to answer
MAX_FOLDER_LENGTH = (
    25  # letters of the folder that holds Ray's: a socket's path has at most 103, of which Ray's part takes 78
)
MAX_GPU_SHARE = 0.9  # of a GPU's memory, at the most


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Args:
        id: Ray's name of it.
        name: its address.
        cpus: logical cores.
        gpus: cards.
    """

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and what each one gets.

    Args:
        count: trials at once.
        cpus: of each trial; also its threads.
        gpus: of each trial; a fraction where trials share a card.
        reason: why not more.
    """

    count: int
    cpus: int
    gpus: float
    reason: str

    def sentence(self) -> str:
        """Return the number of trials at once, and the reason, as a sentence."""
        trials = "1 trial at once" if self.count == 1 else f"{self.count} trials at once"
        if not self.gpus:
            return f"{trials}: {self.reason}"
        return f"{trials}, {round(1 / self.gpus)} on each GPU: {self.reason}"


@contextlib.contextmanager
def connected(address: str = "local", *, verbose: bool = False) -> Iterator[list[Node]]:
    """Start a Ray of this machine's own, or join a cluster; give its nodes, and leave it at the end.

    Args:
        address: `local` for one of its own, even where somebody else's runs; `auto` for the cluster that this machine
            is of; HOST:PORT of a head node.
        verbose: let Ray say what it likes.

    Raises:
        NetworkError: there is no such cluster, or it does not answer.
    """
    handler = signal.getsignal(signal.SIGTERM)
    level = logging.INFO if verbose else logging.ERROR
    with contextlib.ExitStack() as stack:
        options = stack.enter_context(_private()) if address == "local" else {}
        _quieten(verbose)
        _forget_token()
        yield from _joined(address, handler, verbose, level, options)


def _joined(address: str, handler: Any, verbose: bool, level: int, options: dict[str, Any]) -> Iterator[list[Node]]:
    import ray

    try:
        with _group_of_its_own():
            ray.init(address=address, log_to_driver=verbose, logging_level=level, **options)
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        if address == "local":
            raise ResourceError(
                f"Ray cannot start on this machine ({_first_line(error)}); use --engine inline, which needs no Ray"
            ) from None
        if not isinstance(error, ConnectionError):
            raise NetworkError(f"--address {address}: {_first_line(error)}") from None
        where = "no Ray cluster runs on this machine" if address == "auto" else "no Ray answers there"
        raise NetworkError(
            f"--address {address}: {where}; start one with: ray start --head; or leave --address out"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would print a stack trace and end the process at once
    try:
        yield _nodes()
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _private() -> Iterator[dict[str, Any]]:
    """Return the options of a Ray that nobody else of this machine can use or read; clean up after it.

    It listens on the loopback, asks for a random token, and keeps its files in a folder of the user's own.

    Raises:
        ResourceError: there is no folder for its sockets.
    """
    folder = _short_folder()
    names = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), _MANY_MACHINES: "0"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield {
            "include_dashboard": False,
            "num_cpus": available_cores(),
            "_temp_dir": str(folder / "r"),  # which Ray opens to everybody
        }
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def _forget_token() -> None:
    """Let Ray read its token anew: it keeps the first that it saw, which may be that of another cluster."""
    with contextlib.suppress(ImportError, AttributeError):  # a Ray without it has no token to forget
        from ray import _raylet

        _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def _short_folder() -> Path:
    """Make a folder for Ray's files, whose path leaves room for the name of a socket."""
    tried = []
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/dev/shm", str(Path.home())]):
        if sys.platform != "win32" and len(parent) > MAX_FOLDER_LENGTH:
            tried.append(f"{parent} is too long")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="gt-", dir=parent))  # only its owner may enter
        except OSError as error:
            tried.append(f"{parent} ({error.strerror})")
    raise ResourceError(
        f"Ray needs a folder for its sockets, with a path of at most {MAX_FOLDER_LENGTH} letters: {'; '.join(tried)}; "
        "set TMPDIR to one, or use --engine inline"
    )


_MANY_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0 Ray listens on the loopback alone, on Linux too. It reads that when it is imported."""


def _quieten(verbose: bool) -> None:
    """Set what Ray reads from the environment, and let it say nothing that is not asked for."""
    for name, value in (_ALWAYS if verbose else {**_ALWAYS, **_QUIET}).items():
        os.environ.setdefault(name, value)
    import ray  # noqa: F401  its loggers are made by the import

    if not verbose:
        for name in ("ray", "ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"ray\.")


def _nodes() -> list[Node]:
    import ray

    return [
        Node(node["NodeID"], node["NodeManagerAddress"], int(has.get("CPU", 0)), int(has.get("GPU", 0)))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and (has := node["Resources"]) is not None
    ]


def share(nodes: list[Node], tune: Tune, device: str, need: tuple[int, int] | None = None) -> Slots:
    """Divide the nodes of a cluster: a trial lives on one node, so the sum of all would promise too much.

    Args:
        nodes: of the cluster.
        tune: what the recipe asks for.
        device: `cpu` leaves GPUs alone; `cuda` has to have one; `auto` takes them where they are.
        need: bytes that a trial takes of a GPU's memory, and what a GPU has; None where it was not measured.

    Raises:
        ResourceError: no node can run a single trial.
    """
    cpus = tune.cpus_per_trial
    largest = max((node.cpus for node in nodes), default=0)
    cards = sum(node.gpus for node in nodes) if device != "cpu" else 0
    if cpus > largest:
        raise ResourceError(
            f"tune.cpus_per_trial: {cpus} cores on one machine, but the largest has {largest}; ask for fewer"
        )
    if device not in {"auto", "cpu"} and not cards:
        raise ResourceError(f"--device {device}: no machine of this Ray has a GPU; leave it out")
    if not cards:
        count = sum(node.cpus // cpus for node in nodes)
        reason = "one on each core" if cpus == 1 else f"{cpus} cores each"
        return _limited(Slots(count, cpus, 0, reason), tune)
    cores = max(1, min(node.cpus // node.gpus for node in nodes if node.gpus) // cpus)
    per_card, reason = cores, f"as many as a GPU has cores ({cores * cpus})"
    if tune.trials_per_gpu:
        per_card, reason = tune.trials_per_gpu, f"tune.trials_per_gpu {tune.trials_per_gpu}"
    elif need:
        fit = max(1, int(MAX_GPU_SHARE * need[1] / need[0]))
        took = f"a trial takes {need[0] / 1e9:.1f} of {need[1] / 1e9:.0f} GB"
        per_card, reason = (fit, took) if fit < cores else (cores, f"{reason}; {took}")
    count = sum(min(node.cpus // cpus, node.gpus * per_card) for node in nodes)
    if not count:
        raise ResourceError(f"tune.cpus_per_trial: {cpus} cores beside a GPU, but no machine with a GPU has as many")
    return _limited(Slots(count, cpus, 1 / per_card, reason), tune)


def _limited(slots: Slots, tune: Tune) -> Slots:
    if tune.parallel is None or tune.parallel >= slots.count:
        return slots
    return Slots(tune.parallel, slots.cpus, slots.gpus, f"tune.parallel {tune.parallel}")


def reach(address: str) -> None:
    """Refuse an address at which no Ray can be: Ray itself would try for five minutes, and then end the process."""
    if address in {"local", "auto"}:
        return
    if address.startswith("ray://"):
        raise GantoolError(
            f"--address {address}: gantool does not use Ray's client; on a machine of the cluster use --address auto, "
            "or from outside: ray job submit --address http://HEAD:8265 -- gantool tune RECIPE --address auto"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise GantoolError(f"--address {address}: expected local, auto or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        said = error.strerror or str(error)
        raise NetworkError(
            f"--address {address}: nobody answers there ({said}); check the address, and that ray start --head ran"
        ) from None
    if not _is_head(address):
        raise NetworkError(
            f"--address {address}: what answers there is no head of a Ray cluster; check the port, which ray start "
            "--head has named, and set RAY_AUTH_MODE=token if the cluster asks for a token"
        )


def _is_head(address: str) -> bool:
    """Ask as Kubernetes does, and in a process of its own, since it cannot be called off."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check"]
    try:
        done = subprocess.run(
            [*command, "--address", address],
            env={**os.environ, **_BRIEF},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10 * CONNECT_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@contextlib.contextmanager
def _group_of_its_own() -> Iterator[None]:
    """Put what the block starts into a process group of its own.

    A signal to our whole group, such as `timeout` or a shell sends, would end Ray's processes before ours has saved.
    """
    if not hasattr(os, "setpgid"):  # Windows: Ray's processes have a group of their own there
        yield
        return
    own = os.getpgrp()
    leader = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, process_group=0
    )
    moved = False
    try:
        with contextlib.suppress(PermissionError):  # a session's leader cannot leave its group
            os.setpgid(0, leader.pid)
            moved = True
        yield
    finally:
        if moved:
            with contextlib.suppress(PermissionError):  # everyone else of the old group has gone meanwhile
                os.setpgid(0, own)
        leader.communicate()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
