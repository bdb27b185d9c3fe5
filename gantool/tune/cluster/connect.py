"""A Ray cluster for trials: a new one on this machine or an existing one, and how many trials fit on it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
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
from gantool.files import remove
from gantool.recipe.blocks import Tune
from gantool.terminal import several

_QUIET = {  # unless Ray's messages are shown
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
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots are not used
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that outlives the connection must not start another Ray
}
_SHORT_TIMEOUTS = {"RAY_gcs_rpc_server_connect_timeout_s": "2", "RAY_py_gcs_connect_timeout_s": "2"}
CONNECT_TIMEOUT = 3.0  # seconds within which a cluster must answer
MAX_FOLDER_LENGTH = 25  # letters: a socket's path has at most 103, of which Ray's part takes 78
MAX_GPU_SHARE = 0.9  # of a GPU's memory


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: Ray's identifier, its address, logical cores and GPUs."""

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and the cores and GPUs of each."""

    count: int  # trials at once
    cpus: int  # of each trial; also its threads
    gpus: float  # of each trial; a fraction if trials share a GPU
    reason: str  # why not more

    def sentence(self) -> str:
        """Return the number of trials at once, and the reason."""
        on_each = f", {round(1 / self.gpus)} on each GPU" if self.gpus else ""
        return f"{several(self.count, 'trial')} at once{on_each}: {self.reason}"


@contextlib.contextmanager
def connected(address: str = "local", *, verbose: bool = False) -> Iterator[list[Node]]:
    """Start a Ray on this machine or join a cluster, yield its nodes, and leave it at the end.

    `address` is `local` for a new Ray, even if another one runs, `auto` for the cluster that this machine belongs to,
    or HOST:PORT of a head node.

    Raises:
        NetworkError: no such cluster exists, or it does not answer.
    """
    handler = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        options = stack.enter_context(_private()) if address == "local" else {}
        _set_environment(verbose)
        import ray

        try:
            with _own_process_group(), _no_dashboard():
                level = logging.INFO if verbose else logging.ERROR
                ray.init(address=address, log_to_driver=verbose, logging_level=level, **options)
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            raise _connection_error(address, error) from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own prints a stack trace and ends the process at once
        try:
            yield [
                Node(node["NodeID"], node["NodeManagerAddress"], int(has.get("CPU", 0)), int(has.get("GPU", 0)))
                for node in ray.nodes()  # type: ignore[no-untyped-call]
                if node["Alive"] and (has := node["Resources"]) is not None
            ]
        finally:
            ray.shutdown()


def _connection_error(address: str, error: Exception) -> GantoolError:
    problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if address == "local":
        return ResourceError(f"Ray cannot start on this machine ({problem}); use --engine inline, which needs no Ray")
    if not isinstance(error, ConnectionError):
        return NetworkError(f"--address {address}: {problem}")
    where = "no Ray cluster runs on this machine" if address == "auto" else "no Ray answers there"
    return NetworkError(f"--address {address}: {where}; start one with: ray start --head; or leave --address out")


@contextlib.contextmanager
def _private() -> Iterator[dict[str, Any]]:
    """Yield the options of a Ray that only this user can use or read: on the loopback, with a random token."""
    folder, before = _short_folder(), dict(os.environ)
    names = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # read at Ray's import: with 0 it listens only on the loopback
    }
    os.environ.update(names)
    try:
        # Everybody may read Ray's own folder, so it is inside of a private one.
        yield {"include_dashboard": False, "num_cpus": available_cores(), "_temp_dir": str(folder / "r")}
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in names if name in before})
        remove(folder)


@contextlib.contextmanager
def _no_dashboard() -> Iterator[None]:
    """Start a Ray without the dashboard's process. Ray starts it even if it is not wanted.

    It serves nothing then, but asks the metadata addresses of clouds where it runs.
    """
    from ray._private.node import Node

    start = Node.start_api_server
    Node.start_api_server = lambda self, **_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node.start_api_server = start  # type: ignore[method-assign]


def _short_folder() -> Path:
    """Make a folder for Ray's files whose path leaves room for the name of a socket."""
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


def _set_environment(verbose: bool) -> None:
    """Set Ray's environment variables, silence its loggers, and make it read its token again."""
    for name, value in (_ALWAYS if verbose else {**_ALWAYS, **_QUIET}).items():
        os.environ.setdefault(name, value)
    import ray  # noqa: F401  its loggers are made by the import

    if not verbose:
        for name in ("ray", "ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"ray\.")
    with contextlib.suppress(ImportError, AttributeError):  # it keeps the first token, perhaps that of another cluster
        from ray import _raylet

        _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def share(nodes: list[Node], tune: Tune, device: str, need: tuple[int, int] | None = None) -> Slots:
    """Return how many trials run at once on the nodes of a cluster; each trial runs on one node.

    The device `cpu` does not use GPUs, `cuda` needs one, and `auto` uses them if they exist. `need` has the bytes of a
    GPU's memory that a trial takes, and those of a GPU, if they were measured.

    Raises:
        ResourceError: no node can run a trial.
    """
    cpus, per_card = tune.cpus_per_trial, 0
    largest = max((node.cpus for node in nodes), default=0)
    has_gpus = device != "cpu" and any(node.gpus for node in nodes)
    if cpus > largest:
        raise ResourceError(
            f"tune.cpus_per_trial: {cpus} cores on one machine, but the largest has {largest}; ask for fewer"
        )
    if device not in {"auto", "cpu"} and not has_gpus:
        raise ResourceError(f"--device {device}: no machine of this Ray has a GPU; leave it out")
    if has_gpus:
        per_card, reason = _trials_per_gpu(nodes, tune, need)
        count = sum(min(node.cpus // cpus, node.gpus * per_card) for node in nodes)
    else:
        count = sum(node.cpus // cpus for node in nodes)
        reason = "one on each core" if cpus == 1 else f"{cpus} cores each"
    if not count:
        raise ResourceError(f"tune.cpus_per_trial: {cpus} cores beside a GPU, but no machine with a GPU has as many")
    if tune.parallel is not None and tune.parallel < count:
        count, reason = tune.parallel, f"tune.parallel {tune.parallel}"
    return Slots(count, cpus, 1 / per_card if per_card else 0, reason)


def _trials_per_gpu(nodes: list[Node], tune: Tune, need: tuple[int, int] | None) -> tuple[int, str]:
    """Return how many trials share a GPU, and the reason."""
    if tune.trials_per_gpu:
        return tune.trials_per_gpu, f"tune.trials_per_gpu {tune.trials_per_gpu}"
    cpus = tune.cpus_per_trial
    cores = max(1, min(node.cpus // node.gpus for node in nodes if node.gpus) // cpus)
    reason = f"as many as a GPU has cores ({cores * cpus})"
    if not need:
        return cores, reason
    fit = max(1, int(MAX_GPU_SHARE * need[1] / need[0]))
    took = f"a trial takes {need[0] / 1e9:.1f} of {need[1] / 1e9:.0f} GB"
    return (fit, took) if fit < cores else (cores, f"{reason}; {took}")


def check_address(address: str) -> None:
    """Raise an error if no Ray answers at an address. Ray itself would try for five minutes and end the process."""
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
        raise NetworkError(
            f"--address {address}: no answer ({error.strerror or error}); check the address, and that ray start --head "
            "ran"
        ) from None
    if not _is_head(address):
        raise NetworkError(
            f"--address {address}: is not the head of a Ray cluster; check the port that ray start --head printed, and "
            "set RAY_AUTH_MODE=token if the cluster asks for a token"
        )


def _is_head(address: str) -> bool:
    """Return whether Ray's health check succeeds, in another process because the check cannot be cancelled."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [*command, "--address", address],
            env={**os.environ, **_SHORT_TIMEOUTS},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10 * CONNECT_TIMEOUT,
            check=False,
        )
        return done.returncode == 0
    return False


@contextlib.contextmanager
def _own_process_group() -> Iterator[None]:
    """Start processes in another group: a signal to ours would end Ray before the search is saved."""
    if not hasattr(os, "setpgid"):  # on Windows Ray's processes have their own group
        yield
        return
    own = os.getpgrp()
    leader = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, process_group=0
    )
    moved = False
    try:
        with contextlib.suppress(PermissionError):  # the leader of a session cannot leave its group
            os.setpgid(0, leader.pid)
            moved = True
        yield
    finally:
        if moved:
            with contextlib.suppress(PermissionError):  # the old group has ended meanwhile
                os.setpgid(0, own)
        leader.communicate()
