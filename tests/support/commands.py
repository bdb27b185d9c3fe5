"""The command line in this process, and a training of a second."""

from __future__ import annotations

import pytest
from gantool.cli import main

TINY = {
    "data.source": "digits",
    "data.size": 8,
    "model.latent_dim": 8,
    "model.generator": "[16]",
    "model.discriminator": "[16]",
    "train.evaluate_images": 32,
    "train.evaluate_every": 1,
    "train.extractors": ["rand"],
    "train.epochs": 2,
}


def sets(**changes):
    """Return the --set options of the tiny recipe, with changes; `__` stands for a dot."""
    values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def code(*arguments):
    """Run the command line in this process and give its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    return stop.value.code or 0
