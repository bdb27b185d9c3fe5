"""The directory of a run: its files and its log."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
from collections.abc import Iterator, Mapping, Set
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from gantool.errors import CheckpointError, DiskError, RunError, command_line
from gantool.files import BusyError, append, disk, exclusive_lock, is_file, make_folder, remove, sweep, undo, write

logger = logging.getLogger(__name__)

STUDY = "study.json"  # the file that makes a directory a study, as `recipe.yaml` makes it a run
_LEFT_OF_RUN = {"samples", "checkpoints", "environment.json"}  # by a start that was killed before its recipe
_LEFT_OF_STUDY = {"trials", STUDY, "study.db", "study.db-journal"}
_NUMBERS = {"images", "seconds", "measured_seconds", "images_per_second"}  # values of a log's entry


class Run:
    """The directory of one training: `recipe.yaml`, `environment.json`, `log.jsonl`, `checkpoints/` and `samples/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = path / "samples"  # grids of the same latents, one for each epoch
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, recipe: str, *, name: str, out: Path | None = None) -> Self:
        """Create the directory of a new run for the text of a recipe: `out`, or `runs/<name>-<NNN>`.

        Raises:
            RunError: `out` is a file, or a directory that is not empty.
            BusyError: another process makes a run there.
            DiskError: the directory cannot be created.
        """
        run = cls(make_directory(out, name))
        with exclusive_lock(run.path / "lock"):
            if is_file(run.path / "recipe.yaml"):
                raise BusyError(run.path, "a training that has just started")
            try:
                for folder in (run.samples, run.checkpoints):
                    make_folder(folder)
                write(run.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
                write(run.path / "recipe.yaml", recipe)
            except DiskError:
                remove(run.path)
                raise
        return run

    def discard(self) -> None:
        """Delete the directory, unless the run has trained an epoch, or another process has taken it."""
        with contextlib.suppress(BusyError, DiskError), self.lock():
            if not self.entries() and not any(self.checkpoints.glob("*")):
                remove(self.path)
        undo([self.path])  # Windows deletes no file that is locked

    @classmethod
    def open(cls, place: str | None) -> Self:
        """Return the run at a path, of a name in `runs/`, or the newest one in `runs/` if `place` is None.

        A study stands for the training of its winner. The newest run may be that of a study which has a winner.

        Raises:
            RunError: no such run exists.
        """
        path = find_directory(place, "recipe.yaml", "run", "gantool train RECIPE")
        return cls(_winner(path) if is_file(path / STUDY) else path)

    @classmethod
    def newest(cls, name: str | None = None) -> Self | None:
        """Return the newest run of the recipe called `name`, or of any recipe; None if there is none."""
        found = [path for path in Path("runs").glob("*") if is_file(path / "recipe.yaml") and not is_file(path / STUDY)]
        if name is not None:
            found = [path for path in found if path.name.rpartition("-")[0] == name and _number(path)]
        return cls(max(found, key=_number)) if found else None

    @property
    def title(self) -> str:
        """The run's name beside others: its directory's, and for a trial that of its study too."""
        study = self.path.absolute().parent.parent
        return f"{study.name}/{self.path.name}" if is_file(study / STUDY) else self.path.name

    @property
    def data_dir(self) -> Path | None:
        """The directory of data that the run was last trained with; None if it is unknown or no longer exists."""
        found = self._environment().get("data_dir")
        return Path(found) if isinstance(found, str) and Path(found).is_dir() else None

    def remember(self, data_dir: Path, numerics: Mapping[str, str]) -> list[str]:
        """Write the data directory and what decides the last digits of the training into `environment.json`.

        Returns:
            What the run was trained with before, where that differs, such as `torch 2.10.0`.
        """
        known = self._environment()
        new = {**known, "data_dir": str(data_dir.absolute()), "numerics": dict(numerics)}
        if known != new:
            write(self.path / "environment.json", json.dumps(new, indent=2) + "\n")
        before = known.get("numerics")
        before = before if isinstance(before, dict) else {}
        return [f"{name} {before[name]}" for name, value in numerics.items() if before.get(name, value) != value]

    def _environment(self) -> dict[str, Any]:
        try:
            content = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one object to `log.jsonl`."""
        append(self.path / "log.jsonl", json.dumps(dict(entry)))

    def entries(self) -> list[dict[str, Any]]:
        """Return the objects of the log. A line that is no entry is left out with a warning.

        The last line is left out in silence if a killed process left it incomplete.

        Raises:
            CheckpointError: the log cannot be read.
        """
        path = self.path / "log.jsonl"
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror}); restore a copy or delete it") from None
        rows = []
        for number, line in enumerate(lines, 1):
            entry: Any = None
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line.decode())
            if _is_entry(entry):
                rows.append(entry)
            elif line.strip() and number < len(lines):
                logger.warning(f"{path}: line {number} is no entry of a log; it is left out")
        return rows

    def best(self, metric: str) -> dict[str, Any]:
        """Return the entry of the log with the lowest finite value of a metric; empty if there is none."""
        key = f"metrics/{metric}"
        measured = [entry for entry in self.entries() if entry.get(key) is not None and math.isfinite(entry[key])]
        return min(measured, key=lambda entry: entry[key], default={})

    def rewind(self, epoch: int) -> None:
        """Remove the entries of the log after `epoch`, where training resumes."""
        kept = [entry for entry in self.entries() if entry["epoch"] <= epoch]
        write(self.path / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in kept))

    @contextlib.contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[None]:
        """Hold the run's `exclusive_lock` while the block runs, without what a killed process left."""
        with exclusive_lock(self.path / "lock", wait=wait):
            for name in ("recipe.yaml", "environment.json", "log.jsonl", "pairs.png"):
                sweep(self.path / name)
            for folder in (self.checkpoints, self.samples):
                sweep(folder)
            yield


def _is_entry(entry: Any) -> bool:
    """Return whether a line of a log is as training writes it: an epoch, and numbers by name."""
    if not isinstance(entry, dict) or type(entry.get("epoch")) is not int or entry["epoch"] < 1:
        return False
    numbers = {name: value for name, value in entry.items() if "/" in name or name in _NUMBERS}
    codes = entry.get("diagnoses", [])
    return all(value is None or type(value) in (int, float) for value in numbers.values()) and isinstance(codes, list)


def _place_of_winner(study: Path) -> str | None:
    """Return where in the study the run of its winner is, or None if it has no winner yet."""
    place: Any = ...
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        place = json.loads((study / STUDY).read_text(encoding="utf-8")).get("run")
    # A study names runs inside of it.
    is_inside = isinstance(place, str) and not Path(place).is_absolute() and ".." not in Path(place).parts
    if place is not None and not is_inside:
        raise RunError(f"{study / STUDY}: is damaged; restore a copy, or name one of its trials")
    return place if place else None


def _winner(study: Path) -> Path:
    """Return the directory of the winner of a study."""
    place = _place_of_winner(study)
    if not place:
        state = "of an older version" if is_file(study / "best.yaml") else "in which no trial has finished yet"
        raise RunError(f"{study}: is a study {state}; continue with: {command_line('tune', study)}")
    if not is_file(study / place / "recipe.yaml"):
        raise RunError(f"{study / place}: is missing, but the study stands for it; name another of its trials")
    return study / place


def is_study(path: Path) -> bool:
    """Return whether a directory is a study; one that was killed while it was made lacks its recipe."""
    return is_file(path / STUDY) and is_file(path / "recipe.yaml")


def make_directory(out: Path | None, name: str, *, of_study: bool = False) -> Path:
    """Create the directory of a new run or study: `out`, or `runs/<name>-<NNN>` with the next free number."""
    advice = "" if of_study else ", or resume with --resume"
    try:
        if out is not None:
            if out.exists() and not (out.is_dir() and _is_unused(out, _LEFT_OF_STUDY if of_study else _LEFT_OF_RUN)):
                kind = "already holds something" if out.is_dir() else "is a file"
                raise RunError(f"{out}: {kind}; name a new directory with --out{advice}")
            make_folder(out)
            return out
        parent = Path("runs")
        make_folder(parent)
        # All recipes share one count, so that the highest number is the newest.
        number = 1 + max(map(_number, parent.iterdir()), default=0)
        while True:
            path = parent / f"{name}-{number:03d}"
            try:
                make_folder(path, exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return path
    except OSError as error:
        raise disk(out or Path("runs"), error) from None


def _is_unused(path: Path, left: Set[str]) -> bool:
    """Return whether a directory is empty, or holds no more than a start left that was killed before its recipe."""
    files = [file for file in path.iterdir() if not (file.name.startswith(".") and file.name.endswith(".part"))]
    folders = [file for file in files if file.is_dir()]
    return {file.name for file in files} <= left | {"lock", ".lock"} and not any(map(os.listdir, folders))


def find_directory(place: str | None, inside: str, kind: str, first: str) -> Path:
    """Return the directory of a run or study, which holds the file `inside`; see `Run.open`."""
    parent = Path("runs")
    if place is None:
        for path in filter(lambda path: is_file(path / inside), numbered(parent)):
            # A study has a recipe too, and is a run by its winner.
            if inside == STUDY or not is_file(path / STUDY) or _place_of_winner(path):
                return path
        raise RunError(f"runs: no {kind} here yet; make one with: {first}")
    for path in (Path(place), parent / place):
        if is_file(path / inside):
            return path
    names = sorted(path.name for path in parent.glob("*") if (path / inside).is_file())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    known = f"; here are: {', '.join(names[-8:])}{more}" if names else f"; make one with: {first}"
    raise RunError(f"{place}: no {kind} of this name and no directory with a {inside}{known}")


def numbered(folder: Path) -> list[Path]:
    """Return the runs and studies in a folder, the newest first: by number, since copying changes times."""
    found = [path for path in folder.glob("*") if is_file(path / "recipe.yaml") or is_file(path / STUDY)]
    return sorted(found, key=lambda path: (_number(path), path.name), reverse=True)


def data_root(given: Path | None, saved: Path | None = None) -> Path:
    """Return the data directory: the given one, else the one that a run remembers, else one in the user's cache."""
    if given is not None:
        return given.expanduser().absolute()
    if saved is not None:
        return saved
    from platformdirs import user_cache_path

    return user_cache_path("gantool", appauthor=False)


def environment() -> dict[str, Any]:
    """Return versions and the machine, which decide the results of a run."""
    packages = {}
    for name in ("gantool", "torch", "torchvision", "numpy", "pillow", "ray", "optuna"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "packages": packages,
    }


def _number(path: Path) -> int:
    """Return NNN of a directory called <name>-<NNN>, else 0."""
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 9 else 0
