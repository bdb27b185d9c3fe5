"""Read files that were changed at random with every command, and count what goes wrong: `nox -s fuzz`.

Each input is a small good file or directory in which one thing was changed: a bit, a length, a value of JSON, YAML or a
database, a file that is missing or of another kind. A command reads it in this process. It must succeed, or exit with a
documented code and one line that begins with `error: ` (a recipe has one for each mistake).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from gantool import models
from gantool.cli import main as command_line
from gantool.errors import GantoolError
from gantool.recipe import load as recipes
from PIL import Image

import archives
from commands import sets
from searches import TYPED

HANG = 120  # seconds
CODES = {0, 2, 3, 4, 5, 6, 7}  # docs/runs.md
VALUES = (
    *(None, True, "", "x", [], {}, [1], {"a": 1}, "\x1b]0;title\x07", "../../x", "/etc/passwd", "\x00", "é" * 300),
    *(0, -1, 1, 2**31, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "nan", "1e400"),
)
PLANTED = (b"", b"\x00" * 64, b"<html>", b"\xff\xfe\x00", b"{", b"[" * 5000, b"123", b"null", b"\x89PNG\r\n\x1a\n")

Mutate = Callable[[Path, random.Random], str]
Check = Callable[[Path], list[str]]


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one random change."""
    found, place = bytearray(data), rng.randrange(len(data) or 1)
    match rng.randrange(6):
        case 0 if found:
            found[place] ^= 1 << rng.randrange(8)
        case 1:
            del found[place:]
        case 2:
            del found[place : place + rng.randrange(1, 9)]
        case 3:
            found[place:place] = rng.randbytes(rng.randrange(1, 9))
        case 4:
            found[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"])
        case _:
            return rng.choice(PLANTED)
    return bytes(found)


def changed_value(value: object, rng: random.Random) -> object:
    """Return nested lists and mappings with one random change."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return rng.choice(VALUES)
    parent, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(["x", "", "a.b", "\x1b[2J", "__class__"])] = rng.choice(VALUES)
        case 1:
            parent.insert(key, rng.choice(VALUES))
        case _:
            parent[key] = rng.choice(VALUES)
    return value


def _places(value: object) -> Iterator[tuple[dict | list, str | int]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def changed_tree(folder: Path, rng: random.Random) -> str:
    """Change one file of a directory; return what was done."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    name, kind = path.relative_to(folder), rng.randrange(10)
    if kind == 0:
        path.unlink()
        return f"{name} removed"
    if kind == 1:
        path.unlink()
        path.mkdir()
        return f"{name} is a folder"
    if path.suffix == ".db" and kind < 8:
        return f"{name}: {changed_database(path, rng)}"
    if path.suffix in {".json", ".jsonl", ".yaml"} and kind < 8:
        return f"{name}: {changed_text(path, rng)}"
    path.write_bytes(changed_bytes(path.read_bytes(), rng))
    return f"{name}: bytes"


def changed_text(path: Path, rng: random.Random) -> str:
    """Change a value in a file of JSON, lines of JSON, or YAML."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(changed_value(yaml.safe_load(text), rng), sort_keys=False), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(changed_value(json.loads(text), rng)), encoding="utf-8")
    else:
        lines = text.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(changed_value(json.loads(lines[place]), rng))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "a value"


def changed_database(path: Path, rng: random.Random) -> str:
    """Change one value, row or table of a database."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = rng.choice([name for name in tables if database.execute(f"SELECT * FROM {name}").fetchone()])
        rows = database.execute(f"SELECT rowid, * FROM {table}").fetchall()
        columns = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
        row, column = rng.choice(rows), rng.choice(columns)
        match rng.randrange(8):
            case 0:
                database.execute(f"DELETE FROM {table} WHERE rowid = ?", (row[0],))
                return f"a row of {table} removed"
            case 1:
                database.execute(f"DROP TABLE {table}")
                return f"{table} removed"
        value = row[1 + columns.index(column)]
        if isinstance(value, str) and value[:1] in '{["0123456789' and rng.random() < 0.7:
            with contextlib.suppress(ValueError):
                value = json.dumps(changed_value(json.loads(value), rng))
        else:
            value = rng.choice([None, "", "x", -1, 10**18, 1e308, b"\x00\xff", "NaN"])
        with contextlib.suppress(sqlite3.Error):  # a constraint of the table
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row[0]))
        return f"{table}.{column} = {value!r}"


# What reads them


class HangError(Exception):
    """A command takes too long."""


def problem_of(arguments: list[str]) -> tuple[int, str]:
    """Run a command; return its exit code, and what is wrong with its end."""
    out, err = io.StringIO(), io.StringIO()

    def alarm(*_: object) -> None:
        raise HangError

    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, alarm)
        signal.alarm(HANG)
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command_line(arguments)
    except SystemExit as stop:
        code = stop.code or 0
    except HangError:
        return -1, "hangs"
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "gantool" in frame.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return -1, f"{type(error).__name__} at {where}: {str(error)[:160]}"
    finally:
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)
    lines = err.getvalue().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    text = out.getvalue() + err.getvalue()
    if code not in CODES:
        return -1, f"exit code {code}: {lines[-1:]}"
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in text):
        return code, f"control characters are printed: {text!r:.200}"
    most = (
        len(errors) if code == 2 and all(".yaml" in line for line in errors) else 1
    )  # one for each mistake in a recipe
    if code and (not 1 <= len(errors) <= most or lines[-1] != errors[-1]):
        return code, f"exit code {code} with {len(errors)} error lines: {lines[-3:]}"
    return code, ""


class Target:
    """Good inputs of one kind, a way to change them, and the commands that read them."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"

    def change(self, rng: random.Random, place: Path) -> tuple[str, Path]:
        """Make a changed input in `place`; return what was changed, and the input."""
        raise NotImplementedError

    def commands(self, rng: random.Random, path: Path) -> list[list[str]]:
        """Return the command lines that read an input."""
        raise NotImplementedError

    def changed_meaning(self, path: Path) -> str:
        """Return what was accepted although it means something else, if anything was."""
        return ""


class Recipes(Target):
    """Texts of recipes, and values of keys."""

    name = "recipes"

    def change(self, rng, place):
        """Change one byte or one value of a recipe that comes with gantool."""
        path, text = place / "recipe.yaml", recipes.shipped()[rng.choice(sorted(recipes.shipped()))].read_bytes()
        path.write_bytes(text)
        if rng.random() < 0.4:
            path.write_bytes(changed_bytes(text, rng))
            return "bytes", path
        return changed_text(path, rng), path

    def commands(self, rng, path):
        """Read it; its networks are built by another kind of test."""
        return [["shapes", str(path)]]

    def changed_meaning(self, path):
        """An accepted recipe holds each value that its text holds."""
        try:
            recipe = recipes.parse(path.read_bytes(), "recipe", models.KINDS)
            given = yaml.safe_load(path.read_bytes())
        except (GantoolError, ValueError, yaml.YAMLError):
            return ""
        kept = recipes.parse(recipes.dump(recipe), "recipe", models.KINDS)
        if kept != recipe:
            return "its dump is another recipe"
        full = yaml.safe_load(recipes.dump(recipe))
        lost = [
            key for key, value in _leaves(given) if _leaf(full, key) != value and str(_leaf(full, key)) != str(value)
        ]
        return "".join(
            f"{'.'.join(map(str, key))} is {_leaf(full, key)!r}" for key in lost if _differs(given, full, key)
        )


def _leaves(value: object, key: tuple = ()) -> Iterator[tuple[tuple, object]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, (*key, name))
    else:
        yield key, value


def _leaf(value: object, key: tuple) -> object:
    for name in key:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _differs(given: object, full: object, key: tuple) -> bool:
    """A block may be only its name."""
    before, after = _leaf(given, key), _leaf(full, key)
    return not (_same(before, after) or (isinstance(after, dict) and after.get("name") == before))


def _same(before: object, after: object) -> bool:
    """Numbers may change their form: 2e-4 and 0.0002, 1 and 1.0."""
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    try:
        return float(before) == float(after)
    except (TypeError, ValueError):
        return before == after


class Images(Target):
    """Files of images."""

    name = "images"
    KINDS = ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm")

    def change(self, rng, place):
        """Make a folder of good images and two changed ones."""
        for index in range(6):
            noise = Image.frombytes("RGB", (12, 10), rng.randbytes(360))
            noise.save(place / f"{index}.png")
        kind = rng.choice(self.KINDS)
        mode = rng.choice(["RGB", "L"])
        for index in range(2):
            stream = io.BytesIO()
            Image.frombytes(mode, (12, 10), rng.randbytes(120 * len(mode))).save(
                stream, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind)
            )
            (place / f"changed-{index}.{kind}").write_bytes(changed_bytes(stream.getvalue(), rng))
        return kind, place

    def commands(self, rng, path):
        """Decode the folder."""
        return [["data", "show", str(path), "--data-dir", str(path / ".data"), "-o", str(path / "sheet.png")]]


class Archives(Target):
    """Zip and tar files of images."""

    name = "archives"

    def change(self, rng, place):
        """Make an archive of good images and change it."""
        stream = io.BytesIO()
        Image.frombytes("RGB", (12, 10), rng.randbytes(360)).save(stream, "png")
        kind = rng.choice(["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
        path = archives.make(
            place / f"images.{kind}", [(f"{name}.png", stream.getvalue()) for name in ("a/1", "a/2", "b/1")]
        )
        path.write_bytes(changed_bytes(path.read_bytes(), rng))
        return kind, path

    def commands(self, rng, path):
        """Unpack and decode it."""
        return [
            ["data", "show", str(path), "--data-dir", str(path.parent / "data"), "-o", str(path.parent / "sheet.png")]
        ]


class Runs(Target):
    """Directories of runs."""

    name = "runs"

    def __init__(self, folder):
        """Train two epochs."""
        super().__init__(folder)
        self.good = folder / "run"
        code, problem = problem_of(["train", "gan14", *sets(), "--out", str(self.good), "--data-dir", str(self.data)])
        assert (code, problem) == (0, "")

    def change(self, rng, place):
        """Change a copy of the run."""
        path = place / "run"
        shutil.copytree(self.good, path)
        return changed_tree(path, rng), path

    def commands(self, rng, path):
        """Use it by each command in turn."""
        output = str(path.parent / "out.png")
        every = [
            ["sample", str(path), "-o", output, "--overwrite"],
            ["score", str(path), "--json"],
            ["animate", str(path), "-o", str(path.parent / "out.gif"), "--overwrite"],
            ["nearest", str(path), "-o", output, "--overwrite"],
            ["compare", str(path), str(self.good), "-o", output, "--overwrite"],
            ["shapes", str(path / "recipe.yaml")],
            ["train", str(path), "--resume", "--data-dir", str(self.data)],
        ]
        return rng.sample(every[:-1], 2) + every[-1:]


class Checkpoints(Runs):
    """Checkpoints whose checksum is right: gantool itself may have written them, for all that it can tell."""

    name = "checkpoints"

    def change(self, rng, place):
        """Change a value or a tensor of one checkpoint of a copy of the run, and sign it anew."""
        path = place / "run"
        shutil.copytree(self.good, path)
        file = rng.choice(sorted((path / "checkpoints").glob("*.pt")))
        magic, _, payload = file.read_bytes().split(b"\n", 2)
        size = int.from_bytes(payload[:8], "little")
        header, body = json.loads(payload[8 : 8 + size]), payload[8 + size :]
        match rng.randrange(4):
            case 0:
                payload = changed_bytes(payload, rng)
                what = "bytes"
            case 1:
                header, what = changed_value(header, rng), "the header"
            case _:
                values = json.loads(header["__metadata__"]["values"])
                header["__metadata__"]["values"] = json.dumps(changed_value(values, rng))
                what = "a value"
        if what != "bytes":
            head = json.dumps(header).encode()
            payload = len(head).to_bytes(8, "little") + head + body
        file.write_bytes(b"\n".join([magic, hashlib.sha256(payload).hexdigest().encode(), payload]))
        return f"{file.name}: {what}", path

    def commands(self, rng, path):
        """Make images with both checkpoints, and resume."""
        sample = ["sample", str(path), "-o", str(path.parent / "out.png"), "--overwrite", "--checkpoint"]
        return [[*sample, "best"], [*sample, "last"], super().commands(rng, path)[-1]]


class Studies(Target):
    """Directories of studies."""

    name = "studies"

    def __init__(self, folder):
        """Search with two trials."""
        super().__init__(folder)
        self.good = folder / "study"
        options = ["--trials", "2", "--set", "tune.epochs=2", "--engine", "inline", "--data-dir", str(self.data)]
        code, problem = problem_of(["tune", "gan14", *TYPED, *options, "--out", str(self.good)])
        assert (code, problem) == (0, "")

    def change(self, rng, place):
        """Change a copy of the study, most often its database."""
        path = place / "study"
        shutil.copytree(self.good, path)
        if rng.random() < 0.5:
            return f"study.db: {changed_database(path / 'study.db', rng)}", path
        return changed_tree(path, rng), path

    def commands(self, rng, path):
        """Look into it, and search on."""
        output = str(path.parent / "out")
        every = [
            ["study", "report", str(path), "-o", output],
            ["study", "export", str(path), "-o", f"{output}.csv"],
            ["study", "export", str(path), "-o", f"{output}.yaml"],
            ["sample", str(path), "-o", f"{output}.png"],
            ["study", "status", str(path), "--json"],
            ["tune", str(path), "--trials", "3", "--engine", "inline", "--data-dir", str(self.data)],
        ]
        return [["study", "status", str(path)], *rng.sample(every[:-1], 2), every[-1]]


TARGETS = {target.name: target for target in (Recipes, Images, Archives, Runs, Checkpoints, Studies)}


def fuzz(target: Target, seeds: Iterator[int] | range, folder: Path) -> Iterator[tuple[int, str, list[str], int, str]]:
    """Yield (seed, change, command, exit code, problem) for each command that reads a changed input."""
    for seed in seeds:
        rng, place = random.Random(f"{target.name} {seed}"), folder / f"{target.name}-{seed}"
        place.mkdir()
        change, path = target.change(rng, place)
        for arguments in target.commands(rng, path):
            before = _tree(path) if arguments[:2] == ["study", "status"] else None
            code, problem = problem_of(arguments)
            if not problem and code == 0:
                problem = target.changed_meaning(path)
            if not problem and before is not None and _tree(path) != before:
                problem = "a command that only reads has written"
            yield seed, change, arguments, code, problem
        shutil.rmtree(place)


def _tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def main(arguments: list[str] | None = None) -> int:
    """Fuzz for a time or a number of inputs; return the exit status."""
    os.environ |= {"NO_COLOR": "1", "COLUMNS": "200"}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=500, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("kinds", nargs="*", default=sorted(TARGETS), help=", ".join(sorted(TARGETS)))
    options = parser.parse_args(arguments)
    logging.getLogger("gantool").setLevel(logging.INFO)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            place, start, codes, bad = Path(folder) / kind, time.monotonic(), Counter(), set()
            place.mkdir()
            target = TARGETS[kind](place)
            for seed, change, command, code, problem in fuzz(
                target, range(options.seed, options.seed + options.inputs), place
            ):
                codes[code] += 1
                if problem:
                    bad.add(seed)
                    print(f"{kind} {seed}: {change}: {' '.join(command)}: {problem}", flush=True)
            failed += len(bad)
            counted = ", ".join(f"exit code {code}: {count}" for code, count in sorted(codes.items()))
            print(
                f"{kind}: {options.inputs} inputs, {len(bad)} bad; {counted}; {time.monotonic() - start:.0f} s",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
