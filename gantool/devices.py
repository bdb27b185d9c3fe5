"""Devices, random number generators, threads and memory of this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gantool.errors import ResourceError

MAX_RNG_STATE = 5056  # bytes: the CPU's generator, which has the largest state

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def choose(name: str = "auto") -> torch.device:
    """Return the device called `auto`, `cpu`, `cuda` (also `cuda:1`) or `mps`; `auto` is the fastest.

    Raises:
        ResourceError: this machine, or this build of torch, has no such device.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if has["cuda"] else "mps" if has["mps"] else "cpu")
    kind, colon, index = name.partition(":")
    many = torch.cuda.device_count() if kind == "cuda" else 1
    if not has.get(kind) or (colon and not (index.isdecimal() and index.isascii() and int(index) < many)):
        known = ", ".join(["auto", *(kind for kind, found in has.items() if found)])
        raise ResourceError(f"--device {name}: not on this machine; here are: {known}")
    return torch.device(name)


def rng_states(device: torch.device, seed: int) -> dict[str, Tensor]:
    """Return the states of random number generators that `seed` starts; see `rng_scope`."""
    kinds = {"cpu": torch.device("cpu"), device.type: device}
    return {kind: torch.Generator(place).manual_seed(seed).get_state() for kind, place in kinds.items()}


def numerics(device: torch.device) -> dict[str, str]:
    """Return what decides the last digits of a training besides its number of threads."""
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"torch": torch.__version__, "device": place, "instructions": torch.backends.cpu.get_cpu_capability()}


def is_rng_state(kind: str, state: Tensor) -> bool:
    """Return whether a tensor is a state of the random number generator of `cpu`, `cuda` or `mps`.

    Only a machine that has such a device can tell for sure. Elsewhere the state is not used.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if state.dtype != torch.uint8 or state.dim() != 1 or not 0 < len(state) <= MAX_RNG_STATE:
        return False
    try:
        if has[kind]:
            torch.Generator(kind).set_state(state)
    except (RuntimeError, TypeError):
        return False
    return True


@contextlib.contextmanager
def rng_scope(device: torch.device, states: dict[str, Tensor]) -> Iterator[None]:
    """Run the block with torch's generators in `states`, store their new states there, and restore the old ones.

    So the random numbers of the block and those of its caller do not depend on each other. The states are by `cpu`,
    `cuda` or `mps`.
    """
    outside = _states(device)
    _set_states(device, states)
    try:
        yield
    finally:
        states.update(_states(device))
        _set_states(device, outside)


def _states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_states(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run the block with so many processor threads, and restore their number afterwards; None keeps it.

    The last digits of a sum depend on the number of threads.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> contextlib._GeneratorContextManager[None]:
    """Run the block with one thread, so that its numbers do not depend on the cores of a machine."""
    return threads(1)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute convolutions of the block in float32, where cuDNN would round their inputs to 10 bits (TF32)."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def available_cores() -> int:
    """Return how many processor cores this process may use, at least 1.

    Affinity (`taskset`), the quota of a container (cgroup version 1 or 2) and Slurm can allow fewer than the machine
    has.
    """
    found = [float(os.cpu_count() or 1), *_quotas()]
    if hasattr(os, "sched_getaffinity"):
        found.append(len(os.sched_getaffinity(0)))
    allotted = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    if allotted.isdecimal():
        found.append(int(allotted))
    return max(1, int(min(found)))


def _quotas(root: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """Yield the cores that a container's quota of processor time allows, if it has one."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((root / name).read_text(encoding="ascii") for name in names).split()
            if quota not in {"max", "-1"}:
                yield int(quota) / int(period)


def keep_freed_memory(keep: bool = True) -> None:
    """Let the C library keep the memory of freed tensors for the next ones, or give it back to the system again.

    glibc maps each large tensor anew, and the system clears every page of it on first use. Networks with large layers
    spend a quarter of their time on a CPU on that. The peak of memory stays the same. Without glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(_M_MMAP_MAX, 0 if keep else 65536)
        glibc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if keep else 128 * 1024)
