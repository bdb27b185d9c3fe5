"""Options and helpers that several commands share."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gantool.errors import GantoolError

if TYPE_CHECKING:
    from gantool.runs import Run

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's path, or the bare name of a shipped one.")
]
RunName = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's directory or name; the newest one when left out."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, dotted; repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The new directory; runs/<recipe>-<NNN> without it."),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or mps.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", envvar="GANTOOL_DATA", help="Where fetched and decoded data live."),
]
ClassName = Annotated[str | None, typer.Option("--class", metavar="NAME", help="Images of this class only.")]
Checkpoint = Annotated[str, typer.Option("--checkpoint", metavar="WHICH", help="best, last, or a kept epoch's number.")]
SourceImage = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write.")]
Images = Annotated[
    int | None,
    typer.Option(
        "--images", min=16, max=50_000, metavar="N", help="Generated images, in place of the recipe's evaluate_images."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a file that is already there.")]


@contextlib.contextmanager
def stopping(begun: Callable[[], bool]) -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM in the given list, so that a loop can end well; a second one ends at once.

    So does the first, as long as there is nothing to lose because the work has not `begun`.
    """
    caught: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if not begun():
            raise SystemExit(128 + number)
        for kind, old in before.items():
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else old)

    kinds = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
    before: dict[signal.Signals, Any] = {kind: signal.signal(kind, handle) for kind in kinds}
    try:
        yield caught
    finally:
        for kind, old in before.items():
            signal.signal(kind, old)


def find_run(name: str | None) -> Run:
    """Open the run of this name or path; the newest one for None."""
    from gantool.runs import Run

    return Run.open(name)


def data_root(given: Path | None, *runs: Run) -> Path:
    """Return the directory of data: the given one, else one that a run remembers, else one in the user's cache."""
    if given is not None:
        return given.expanduser().absolute()
    for run in runs:
        if remembered := run.data_dir:
            return remembered
    from platformdirs import user_cache_path

    return user_cache_path("gantool", appauthor=False)


def read_seeds(text: str) -> list[int]:
    """Read `7`, `0-15` or `1,5,9-12`."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise GantoolError(f"--seeds {text}: expected whole numbers such as 7, 0-15 or 1,5,9-12")
        count = len(numbers) + last - first + 1
        if count > 100_000:
            raise GantoolError(f"--seeds {text}: {count:,} images are too many at once; the limit is 100,000")
        numbers += range(first, last + 1)
    return numbers


def typed(path: Path | str) -> str:
    """Write a path as it is typed into a shell."""
    return f'"{path}"' if " " in str(path) else str(path)


def check_overwrite(path: Path, overwrite: bool) -> None:
    """Raise where a file is already there that is not to be written over."""
    if path.is_file() and not overwrite:
        raise GantoolError(f"{path}: is already there; name another file, or add --overwrite")
