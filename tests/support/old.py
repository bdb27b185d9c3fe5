"""Checkpoints as version 0.1 wrote them: the line `gantool checkpoint 1`, and the output of `torch.save`."""

from __future__ import annotations

import hashlib
import io

import torch

NAMES = {"ema_generator": "average", "stateful_children": "memories", "rng_states": "randomness"}


def packed(payload):
    """The content of a file whose checksum is right."""
    return b"gantool checkpoint 1\n" + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def save_old(path, content):
    stream = io.BytesIO()
    torch.save(content, stream)
    path.write_bytes(packed(stream.getvalue()))


def as_old(state):
    """The content of a checkpoint as version 0.1 had it."""
    old = {key: value for key, value in state.items() if key not in ("data", "threads")}
    if "trainer" in state:
        trainer = {NAMES.get(name, name): value for name, value in state["trainer"].items()}
        trainer["optimizers"] = {
            player: {"state": {int(key): own for key, own in states.items()}, "param_groups": [{"lr": 0.1}]}
            for player, states in trainer["optimizers"].items()
        }
        position = {**state["position"], "trained_seconds": 1.0, "last_cost": 2.0}
        old |= {"trainer": trainer, "position": position, "model": trainer["model"]}
    return old
