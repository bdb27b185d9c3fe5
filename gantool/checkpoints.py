"""A checkpoint file: tensors and plain values behind a checksum. It cannot hold code.

Layout: the line `gantool checkpoint 1`, the SHA-256 of the rest in hexadecimal and a newline, then the output of
`torch.save`. torch alone does not notice a flipped bit, and its messages about damaged files advise unsafe loading.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantool import batches
from gantool.batches import Spec
from gantool.errors import CheckpointError
from gantool.files import atomic_write

_KIND = b"gantool checkpoint "
_MAGIC = _KIND + b"1\n"
_HEADER = len(_MAGIC) + 65


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, texts, and lists and mappings of them, atomically.

    Raises:
        DiskError: the file cannot be written.
    """
    stream = io.BytesIO()
    torch.save(content, stream)
    payload = stream.getbuffer()
    with atomic_write(path) as aside, aside.open("wb") as file:
        file.write(_MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, or of a newer gantool.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.startswith(_MAGIC):
        if data.startswith(_KIND):
            raise CheckpointError(f"{path}: written by a newer gantool; upgrade with: pip install -U gantool")
        what = "is empty" if not data else "is not a gantool checkpoint"
        raise CheckpointError(f"{path}: {what}; use another checkpoint of the run")
    payload = memoryview(data)[_HEADER:]
    if hashlib.sha256(payload).hexdigest().encode() != data[len(_MAGIC) : _HEADER - 1]:
        raise CheckpointError(f"{path}: is damaged (its SHA-256 does not match); use another checkpoint of the run")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they give advice about torch's own files
            content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError):
        raise CheckpointError(
            f"{path}: holds something that is not tensors; use another checkpoint of the run"
        ) from None
    return content


def load_weights(model: torch.nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Load weights into a model.

    Raises:
        CheckpointError: a weight is missing, has another shape or is not finite; the message names the first.
    """
    own = model.state_dict()
    for name in dict.fromkeys([*own, *state]):
        if name not in own or name not in state:
            who = "the model" if name not in own else "the checkpoint"
            raise CheckpointError(f"{file}: of another model: {who} has no {name}")
        if own[name].shape != state[name].shape:
            shape, wanted = list(state[name].shape), list(own[name].shape)
            raise CheckpointError(f"{file}: of another model: {name} is {shape}, but the recipe makes it {wanted}")
        if not bool(state[name].isfinite().all()):
            raise CheckpointError(f"{file}: {name} is not finite; use another checkpoint of the run")
    model.load_state_dict(state)


def spec_of(state: Mapping[str, Any]) -> Spec:
    """Return the spec of the data that a checkpoint was trained on."""
    return batches.spec_of(state["spec"], tuple(state["classes"]))
