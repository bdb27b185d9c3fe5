"""Exceptions that a user can act on, each kind with its exit code.

The command line shows one as a single message: the place, what is wrong with the offending value, and what to do. Any
other exception is an error of gantool and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable

MAX_LISTED = 20  # names that a message lists


class GantoolError(Exception):
    """What was asked for does not exist or does not fit; the base of all others."""

    exit_code = 2


class RecipeError(GantoolError):
    """A recipe cannot be read, or asks for something that does not exist."""


class ShapeError(GantoolError):
    """The networks of a recipe do not fit together, or do not fit the data."""


class RunError(GantoolError):
    """A run or a study cannot be created, found or continued."""


class DataError(GantoolError):
    """A dataset is missing, damaged or of the wrong kind."""

    exit_code = 3


class TrainingError(GantoolError):
    """Training failed: a loss is no longer finite, a run diverged, or no trial finished."""

    exit_code = 4


class CheckpointError(GantoolError):
    """A checkpoint is damaged or belongs to another model."""

    exit_code = 5


class NetworkError(GantoolError):
    """A download failed."""

    exit_code = 6


class ResourceError(GantoolError):
    """A disk, memory or a device is missing or insufficient."""

    exit_code = 7


class DiskError(ResourceError):
    """A file cannot be written: the disk is full, or a permission is missing."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the nearest known one, or with all of them if they are few.

    >>> unknown("loss", "hinged", ["hinge", "minimax"])
    "unknown loss 'hinged'; did you mean 'hinge'?"
    """
    names = sorted(known)
    lower = {one.lower(): one for one in names}
    nearest = difflib.get_close_matches(str(name).lower(), lower, 1, 0.6)
    if nearest:
        return f"unknown {kind} {name!r}; did you mean {lower[nearest[0]]!r}?"
    shown = ", ".join(names[:MAX_LISTED]) + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")
    return f"unknown {kind} {name!r}; " + (f"known: {shown}" if names else "there is none")


def command_line(*words: object) -> str:
    """Return a gantool command as it can be pasted into a shell.

    >>> command_line("sample", "runs/my eggs", "--seeds", "0-3")
    "gantool sample 'runs/my eggs' --seeds 0-3"
    """
    texts = ["gantool", *map(str, words)]
    if os.name != "nt":
        return shlex.join(texts)
    import subprocess

    return subprocess.list2cmdline(texts)
