"""Runs that tests train, and what they left."""

from __future__ import annotations

import contextlib

import torch
from gantool import batches, checkpoints, devices, models
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, state

CLOCKS = {"seconds", "measured_seconds", "images_per_second"}


def run_in(path, recipe):
    """A new run in a directory."""
    return Run.create(dump(recipe), name=recipe.name, out=path)


def untrained(path, recipe, spec, examples=None, checkpoint="best"):
    """A run of fresh weights, as training would have saved it after epoch 7."""
    run, cpu = run_in(path, recipe), torch.device("cpu")
    with devices.rng_scope(cpu, devices.rng_states(cpu, 0)):
        model = models.build(recipe, spec)
        for name, buffer in model.named_buffers():  # statistics as of a model that has seen something
            if name.endswith(("running_mean", "running_var")):
                torch.nn.init.uniform_(buffer, *((-0.2, 0.2) if name.endswith("mean") else (0.5, 2)))
    content = {"recipe": dump(recipe), "spec": batches.plain(spec), "classes": list(spec.classes), "epoch": 7}
    content |= {"model": model.state_dict(), "examples": examples, "metric": {}, "data": None}
    checkpoints.save(run.checkpoints / f"{checkpoint}.pt", content)
    return run


def train(recipe, run, data_dir, stop_after=None, **rest):
    """Train to the end, or until so many reports have come; return the reports."""
    reports = []
    with contextlib.closing(engine.train(recipe, run, data_dir=data_dir, device="cpu", **rest)) as course:
        for report in course:
            reports.append(report)
            if len(reports) == stop_after:
                break
    return reports


def weights(run, checkpoint="last"):
    return state.read(run.checkpoints / f"{checkpoint}.pt").model


def log(run):
    """The log without the values of clocks."""
    return [{key: value for key, value in entry.items() if key not in CLOCKS} for entry in run.entries()]


def tensors(nested, prefix=""):
    """All tensors of nested blocks, by dotted key."""
    found = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            found |= tensors(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            found[f"{prefix}{key}"] = value
    return found


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def assert_same_end(one, other):
    """Two runs have the same log, checkpoints and images, to the last bit."""
    assert log(one) == log(other)
    for checkpoint in ("last", "best"):
        states = [tensors(checkpoints.load(run.checkpoints / f"{checkpoint}.pt")) for run in (one, other)]
        assert same(*states)
    grids = [{path.name: path.read_bytes() for path in run.samples.iterdir()} for run in (one, other)]
    assert grids[0] == grids[1]
