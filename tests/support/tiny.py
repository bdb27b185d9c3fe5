"""Commands that take a tenth of a second: 32 images of 8x8, a network of one layer, two epochs."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from gantool import checkpoints
from gantool.cli import main
from gantool.recipe.load import parse_changes
from PIL import Image

CLOCKS = {"seconds", "epoch_seconds", "measured_seconds", "images_per_second"}
RECIPE = {
    "data.size": 8,
    "model.latent_dim": 4,
    "model.generator": "[8]",
    "model.discriminator": "[8]",
    "train.batch_size": 8,
    "train.evaluate_images": 16,
    "train.evaluate_every": 1,
    "train.extractors": '["rand"]',
    "train.epochs": 2,
}
SEARCH = {
    "tune.epochs": 2,
    "tune.trials": 2,
    "tune.confirm": "null",
    "tune.finish": "null",
    "tune.space": '{"train.optimizer.lr": {"low": 0.00001, "high": 0.1, "log": true}}',
}


def photos(folder):
    """Make a folder of 32 images in two classes."""
    noise = np.random.default_rng(0)
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for index in range(16):
            Image.fromarray(noise.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


def train(source, *rest, **changed):
    """Return the words of `gantool train`; `__` in the name of a change stands for a dot."""
    return ["train", "gan14", *_sets(source, RECIPE, changed), *rest]


def tune(source, *rest, **changed):
    """Return the words of `gantool tune`, in this process."""
    return ["tune", "gan14", *_sets(source, RECIPE | SEARCH, changed), "--engine", "inline", *rest]


def changes(source, **changed):
    """Return the changes of the recipe as Python needs them."""
    return parse_changes([f"{key}={value}" for key, value in _values(source, RECIPE, changed).items()])


def _values(source, values, changed):
    return {"data.source": source} | values | {key.replace("__", "."): value for key, value in changed.items()}


def _sets(source, values, changed):
    return [word for key, value in _values(source, values, changed).items() for word in ("--set", f"{key}={value}")]


def run(*words):
    """Run a command in this process; return the exit code and standard error, or the name of what it raised."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            return stop.code or 0, err.getvalue()
        except Exception as error:  # a bug: the message would be a traceback
            return f"{type(error).__name__}: {error}", err.getvalue()
    raise AssertionError("main returned")


def errors(text):
    """Return the lines of standard error that say what went wrong."""
    return [line for line in text.splitlines() if re.match(r"(error|gantool): ", line)]


def plain(value):
    """Return the content of a checkpoint as comparable values, without those of clocks."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items() if key not in CLOCKS}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if hasattr(value, "numpy"):
        array = value.detach().cpu().contiguous().view(-1).numpy()
        return str(value.dtype), list(value.shape), hashlib.sha256(array.tobytes()).hexdigest()
    return value


def content(folder):
    """Return everything in a run or a study that is the same each time, by path."""
    found = {}
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            name = path.relative_to(folder).as_posix()
            if path.suffix == ".pt" and path.name != "previous.pt":
                found[name] = plain(checkpoints.load(path))
            elif path.suffix == ".jsonl":
                found[name] = [_entry(line) for line in path.read_text(encoding="utf-8").splitlines()]
            elif path.suffix == ".csv":
                rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
                found[name] = [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]
            elif path.suffix in (".png", ".gif", ".yaml", ".u8", ".i64") and "artifacts" not in path.parts:
                found[name] = path.read_bytes()
    return found


def _entry(line):
    try:
        return plain(json.loads(line))
    except ValueError:  # half of one
        return line


@contextlib.contextmanager
def workplace(folder, **changes):
    """Work in a folder with images, and a run and a study of them; `changes` are the run's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANTOOL_DATA", str(folder / "data"))
        patch.chdir(folder)
        source = photos(folder / "photos")
        assert run(*train(source, "--out", "run", **changes))[0] == 0
        assert run(*tune(source, "--out", "study"))[0] == 0
        yield
