"""A checkpoint file: tensors and plain values behind a checksum. It cannot hold code.

Layout: the line `gantool checkpoint 2`, the SHA-256 of the rest in hexadecimal and a newline, then a file in the format
of safetensors. A tensor's name is the keys that lead to it, joined by `/`. The entry `values` of the metadata is a JSON
document of all other values; like Python's json it writes NaN and Infinity. safetensors does not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gantool.errors import CheckpointError
from gantool.files import atomic_write

ANOTHER = "use another checkpoint of the run"

_KIND = b"gantool checkpoint "
_MAGIC, _OLD_MAGIC = _KIND + b"2\n", _KIND + b"1\n"
_HEADER = len(_MAGIC) + 65
_NOT_NEGATIVE = {"exp_avg_sq", "step", "running_var"}  # floats by the last part of their name

Upgrade = Callable[[Any], dict[str, Any]]


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, texts, lists of them, and mappings of all these by text, atomically.

    Raises:
        DiskError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    values = _without_tensors(state, "", tensors)
    stored: set[int] = set()
    for place, tensor in tensors.items():  # safetensors refuses tensors that share memory
        if tensor.untyped_storage().data_ptr() in stored:
            tensors[place] = tensor.clone()
        stored.add(tensor.untyped_storage().data_ptr())
    payload = safetensors.torch.save(tensors, {"values": json.dumps(values)})
    with atomic_write(path) as aside, aside.open("wb") as file:
        file.write(_MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)


def load(path: Path, upgrade: Upgrade | None = None) -> dict[str, Any]:
    """Read a checkpoint; its tensors are on the CPU.

    Args:
        path: the file.
        upgrade: turns the content of a file of gantool 0.1 into today's. Without it such a file is refused.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, or of another version.
    """
    magic, payload = _checked(path)
    try:
        if magic == _MAGIC:
            return _parse(payload)
        if upgrade is not None:
            return upgrade(_parse_old(payload))
    except Exception:  # a forged file can make these libraries raise anything
        raise CheckpointError(f"{path}: holds something that gantool did not write; {ANOTHER}") from None
    raise CheckpointError(f"{path}: written by an older gantool; {ANOTHER}")


def _checked(path: Path) -> tuple[bytes, bytes]:
    """Return the first line and the content of a file whose checksum is right."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise CheckpointError(f"{path}: is not a file; {ANOTHER}")
        if path.is_symlink() and path.parent.resolve() not in path.resolve().parents:
            raise CheckpointError(f"{path}: is a link out of its folder; {ANOTHER}")
        with path.open("rb") as file:
            head = file.read(_HEADER)
            magic, digest = head[: len(_MAGIC)], head[len(_MAGIC) : -1]
            if magic not in (_MAGIC, _OLD_MAGIC):
                raise CheckpointError(f"{path}: {_foreign(head)}")
            payload = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (OSError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else "out of memory"
        raise CheckpointError(f"{path}: cannot be read ({reason})") from None
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise CheckpointError(f"{path}: is damaged (its SHA-256 does not match); {ANOTHER}")
    return magic, payload


def _foreign(head: bytes) -> str:
    if head.startswith(_KIND):
        return "written by a newer gantool; upgrade with: pip install -U gantool"
    return f"is {'not a gantool checkpoint' if head else 'empty'}; {ANOTHER}"


def _without_tensors(state: Mapping[str, Any], place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return nested values without their tensors, which are added to `tensors` by their place."""
    values: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[place + key] = value.detach().contiguous()
        else:
            values[key] = _without_tensors(value, f"{place}{key}/", tensors) if isinstance(value, Mapping) else value
    return values


def _parse(payload: bytes) -> dict[str, Any]:
    tensors = safetensors.torch.load(payload)
    header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    state = json.loads(header["__metadata__"]["values"])
    if not isinstance(state, dict):
        raise TypeError(type(state))
    for place, tensor in tensors.items():
        *parents, key = place.split("/")
        at = state
        for parent in parents:
            at = at[parent]
        if at.setdefault(key, tensor) is not tensor:
            raise ValueError(f"two values of {place}")
    return state


def _parse_old(payload: bytes) -> Any:
    """Read the output of `torch.save`, as version 1 had it: a pickle, of which `weights_only` runs no code."""
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(payload):  # a bomb: torch.save does not compress
            raise ValueError("compressed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they give advice about torch's own files
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    _check_plain(state)
    return state


def _check_plain(state: Any) -> None:
    """Raise TypeError if a tensor of version 1 has no values, or stores them in another way than one after another."""
    for value in state.values() if isinstance(state, dict) else ():
        _check_plain(value)
    if isinstance(state, Tensor) and (
        state.is_nested or state.is_quantized or state.layout is not torch.strided or state.device.type != "cpu"
    ):
        raise TypeError(type(state))


def check_shapes(given: Mapping[str, Any], wanted: Mapping[str, Any], file: Path, place: str = "") -> None:
    """Compare the names, shapes and types of tensors, which may be nested, with those that a model has.

    Raises:
        CheckpointError: one is missing, unknown or of another shape or type; the message names the first.
    """
    for name in dict.fromkeys([*wanted, *given]):
        where = printable(place + name)
        if name not in wanted or name not in given:
            who = "the model" if name not in wanted else "the checkpoint"
            raise CheckpointError(f"{file}: of another model: {who} has no {where}")
        value, own = given[name], wanted[name]
        if isinstance(own, Mapping):
            check_shapes(value, own, file, f"{place}{name}.")
            continue
        for found, expected in ((list(value.shape), list(own.shape)), (value.dtype, own.dtype)):
            if found != expected:
                found, expected = (str(each).removeprefix("torch.") for each in (found, expected))
                raise CheckpointError(
                    f"{file}: of another model: {where} is {found}, but the recipe makes it {expected}"
                )


def check_values(given: Mapping[str, Any], file: Path, place: str = "") -> None:
    """Check that the values of tensors are finite, and that counts and variances are not negative.

    Raises:
        CheckpointError: the message names the first that is not.
    """
    for name, value in given.items():
        where = printable(place + name)
        if isinstance(value, Mapping):
            check_values(value, file, f"{place}{name}.")
            continue
        if value.is_floating_point() and not (value.sum().isfinite() or value.isfinite().all()):
            raise CheckpointError(f"{file}: {where} is not finite; {ANOTHER}")
        signed = value.is_floating_point() and name.rpartition(".")[2] not in _NOT_NEGATIVE
        if not signed and value.numel() and value.min() < 0:
            raise CheckpointError(f"{file}: {where} is negative; {ANOTHER}")


def printable(name: str) -> str:
    """Return a name that a file chose, on one line and not too long."""
    return repr(name)[1:-1][:100]
