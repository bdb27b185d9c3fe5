"""Where tensors live, and random numbers that nothing outside can change."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys

import pytest
import torch
from gantool import devices
from gantool.errors import ResourceError

CPU = torch.device("cpu")


def test_auto_is_the_fastest_device_and_the_cpu_always_exists():
    wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert devices.choose() == devices.choose("auto") == torch.device(wanted)
    assert devices.choose("cpu").type == devices.choose("cpu:0").type == "cpu"


@pytest.mark.parametrize(
    "name",
    ["cpu:", "cpu:1", "cpu:-1", "cpu:x", "cpu:²", "cpu:٠", "cuda:", "cuda:99", "gpu", "", "CPU", "meta", "auto:0"],
)
def test_any_other_name_is_refused_with_those_that_are_there(name):
    with pytest.raises(ResourceError, match=rf"^--device {re.escape(name)}: not on this machine; here are: auto, cpu"):
        devices.choose(name)


def test_a_block_continues_its_own_random_numbers_and_changes_none_outside_even_if_it_fails():
    torch.manual_seed(0)
    before, states = torch.get_rng_state(), devices.rng_states(CPU, 5)
    drawn = []
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), devices.rng_scope(CPU, states):
            drawn.append(torch.randn(4))
            raise ZeroDivisionError
        assert torch.equal(before, torch.get_rng_state())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        assert all(torch.equal(torch.randn(4), one) for one in drawn)
    assert not torch.equal(devices.rng_states(CPU, 2**32 - 1)["cpu"], devices.rng_states(CPU, 2**32 - 2)["cpu"])


def test_convolutions_are_whole_inside_of_the_block_only_even_when_it_fails():
    before = torch.backends.cudnn.allow_tf32
    try:
        for outside in (True, False):
            torch.backends.cudnn.allow_tf32 = outside
            with contextlib.suppress(ZeroDivisionError), devices.full_precision():
                assert not torch.backends.cudnn.allow_tf32
                raise ZeroDivisionError
            assert torch.backends.cudnn.allow_tf32 is outside
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_devices_numbers_are_kept_apart_too():
    place = torch.device("cuda")
    outside = torch.cuda.get_rng_state()
    states = devices.rng_states(place, 3)
    assert set(states) == {"cpu", "cuda"}
    with devices.rng_scope(place, states):
        first = torch.randn(4, device=place)
    assert torch.equal(outside, torch.cuda.get_rng_state())
    with devices.rng_scope(place, devices.rng_states(place, 3)):
        assert torch.equal(torch.randn(4, device=place), first)


# The cores that a process may use


def test_a_process_that_is_held_to_one_core_has_one():
    """As `taskset -c 0` does."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from gantool.devices import available_cores; print(available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, [1.5]),
        ({"cpu.max": "max 100000\n"}, []),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, [0.5]),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        ({"cpu.max": "nonsense\n"}, []),
        ({}, []),
    ],
)
def test_the_quota_of_a_container_is_read_in_both_versions(files, cores, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert list(devices._quotas(tmp_path)) == cores


def test_quotas_and_allotments_lower_the_cores_to_at_least_one(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)), raising=False)
    monkeypatch.setattr(devices, "_quotas", lambda: iter([]))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    assert devices.available_cores() == 32
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    assert devices.available_cores() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert devices.available_cores() == 4
    monkeypatch.setattr(devices, "_quotas", lambda: iter([0.5]))
    assert devices.available_cores() == 1


def test_keeping_freed_memory_changes_no_number():
    devices.keep_freed_memory()
    kept = torch.ones(3_000_000).cumsum(0)[-1]
    devices.keep_freed_memory(False)
    assert kept == torch.ones(3_000_000).cumsum(0)[-1]
    devices.keep_freed_memory()
