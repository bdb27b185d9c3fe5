"""A run's directory: its files, and a log of one object a line."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from gantool.errors import RunError, command_line
from gantool.files import disk, exclusive_lock, is_directory, is_file, write

STUDY = "study.json"  # the file that makes a directory a study, as `recipe.yaml` makes it a run


class Run:
    """The directory of one training run.

    `recipe.yaml`, `environment.json`, `log.jsonl`, `checkpoints/`, `samples/`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, recipe: str, *, name: str, out: Path | None = None) -> Self:
        """Make the directory of a new run.

        Args:
            recipe: the text of `recipe.yaml`.
            name: the recipe's name; without `out` the run is called `runs/<name>-<NNN>`.
            out: the directory itself; it must be new or empty.

        Raises:
            RunError: `out` is a file, or a directory that holds something.
            DiskError: the directory cannot be made.
        """
        path = make_directory(out, name)
        run = cls(path)
        for folder in (run.samples, run.checkpoints):
            folder.mkdir(exist_ok=True)
        write(path / "environment.json", json.dumps(environment(), indent=2) + "\n")
        write(path / "recipe.yaml", recipe)
        return run

    @classmethod
    def open(cls, place: str | None) -> Self:
        """Return the run at a path, of a name in `runs/`, or the newest one in `runs/` where `place` is None.

        A study stands for the training of its winner.

        Raises:
            RunError: there is none.
        """
        path = find_directory(place, "recipe.yaml", "run", "gantool train RECIPE")
        return cls(_winner(path) if is_file(path / STUDY) else path)

    @property
    def title(self) -> str:
        """What a run is called beside others: by its directory, a trial by that of its study too."""
        study = self.path.absolute().parent.parent
        return f"{study.name}/{self.path.name}" if is_file(study / STUDY) else self.path.name

    @classmethod
    def newest(cls, name: str) -> Self | None:
        """Return the newest run of the recipe called `name`, or None."""
        runs = (path for path in Path("runs").glob("*") if path.name.rpartition("-")[0] == name and _number(path))
        found = [path for path in runs if (path / "recipe.yaml").is_file()]
        return cls(max(found, key=_number)) if found else None

    @property
    def data_dir(self) -> Path | None:
        """The directory of data that the run was last trained with, or None where it is unknown or gone."""
        found = self._environment().get("data_dir")
        return Path(found) if isinstance(found, str) and is_directory(Path(found)) else None

    def remember(self, data_dir: Path) -> None:
        """Note in `environment.json` which directory of data the run is trained with."""
        known, place = self._environment(), str(data_dir.absolute())
        if known.get("data_dir") != place:
            write(self.path / "environment.json", json.dumps(known | {"data_dir": place}, indent=2) + "\n")

    def _environment(self) -> dict[str, Any]:
        try:
            content = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def samples(self) -> Path:
        """Where the grids of the fixed latents are, one an epoch."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def log(self, entry: Mapping[str, Any]) -> None:
        """Add one object to `log.jsonl`."""
        try:
            with (self.path / "log.jsonl").open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(dict(entry)) + "\n")
        except OSError as error:
            raise disk(self.path / "log.jsonl", error) from None

    def entries(self) -> list[dict[str, Any]]:
        """Return the log's objects; a last line that a dying process left half-written is no object."""
        path = self.path / "log.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def rewind(self, epoch: int) -> None:
        """Drop what the log says after `epoch`: training goes on from there."""
        kept = [entry for entry in self.entries() if entry["epoch"] <= epoch]
        write(self.path / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in kept))

    @contextlib.contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[None]:
        """Hold the run's `exclusive_lock` while the block runs, and remove what a killed process left."""
        with exclusive_lock(self.path / "lock", wait=wait):
            for folder in (self.path, self.checkpoints):
                for left in folder.glob(".*.part"):
                    left.unlink(missing_ok=True)
            for left in self.samples.glob(f".{'[0-9a-f]' * 16}.png"):  # a grid under way, see `images`
                left.unlink(missing_ok=True)
            yield


def _winner(study: Path) -> Path:
    """Return the directory of the training that a study stands for."""
    try:
        place = json.loads((study / STUDY).read_text(encoding="utf-8")).get("run")
    except (OSError, ValueError, AttributeError):
        raise RunError(f"{study / STUDY}: is damaged; restore a copy, or name one of its trials") from None
    if not place:
        state = "of an older version" if is_file(study / "best.yaml") else "in which no trial has finished yet"
        raise RunError(f"{study}: is a study {state}; continue with: {command_line('tune', study)}")
    if not is_file(study / place / "recipe.yaml"):
        raise RunError(f"{study / place}: is missing, but the study stands for it; name another one of its trials")
    return study / place


def make_directory(out: Path | None, name: str, advice: str = ", or resume with --resume") -> Path:
    """Make the directory of a new run or study: `out`, or `runs/<name>-<NNN>` with the next free number."""
    try:
        if out is not None:
            if out.exists() and not (out.is_dir() and not any(out.iterdir())):
                kind = "already holds something" if out.is_dir() else "is a file"
                raise RunError(f"{out}: {kind}; name a new directory with --out{advice}")
            out.mkdir(parents=True, exist_ok=True)
            return out
        parent = Path("runs")
        parent.mkdir(exist_ok=True)
        # One count for all recipes, so that the names tell the order.
        number = 1 + max(map(_number, parent.iterdir()), default=0)
        while True:
            path = parent / f"{name}-{number:03d}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path
    except OSError as error:
        raise disk(out or Path("runs"), error) from None


def find_directory(place: str | None, inside: str, kind: str, first: str) -> Path:
    """Return the directory of an old run or study, which holds the file `inside`."""
    parent = Path("runs")
    if place is None:
        # By number, not by time: copying a directory does not make it newer.
        # A study has a recipe too, but is no run.
        wanted = inside == STUDY
        found = [path for path in parent.glob("*") if is_file(path / inside) and is_file(path / STUDY) == wanted]
        if not found:
            raise RunError(f"runs: no {kind} here yet; make one with: {first}")
        return max(found, key=_number)
    for path in (Path(place), parent / place):
        if is_file(path / inside):
            return path
    names = sorted(path.name for path in parent.glob("*") if (path / inside).is_file())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    known = f"; here are: {', '.join(names[-8:])}{more}" if names else f"; make one with: {first}"
    raise RunError(f"{place}: no {kind} of this name and no directory with a {inside}{known}")


def data_root(given: Path | None, remembered: Path | None = None) -> Path:
    """Return the data directory: the given one, else the one that a run remembers, else one in the user's cache."""
    if given is not None:
        return given.expanduser().absolute()
    if remembered is not None:
        return remembered
    from platformdirs import user_cache_path

    return user_cache_path("gantool", appauthor=False)


def environment() -> dict[str, Any]:
    """Return what a run was made with: versions and the machine."""
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
