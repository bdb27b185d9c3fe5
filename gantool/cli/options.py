"""Options and helpers that several commands share."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from typer import Argument, Option

from gantool.errors import GantoolError

RecipeName = Annotated[str, Argument(metavar="RECIPE", help="Path of a recipe, or name of a shipped one.")]
RunName = Annotated[str | None, Argument(metavar="RUN", help="Directory or name of a run. Default: the newest one.")]
Changes = Annotated[
    list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe. Can be repeated.")
]
Out = Annotated[Path | None, Option("--out", metavar="DIR", help="The new directory. Default: runs/<recipe>-<NNN>.")]
Device = Annotated[str, Option("--device", metavar="DEVICE", help="auto, cpu, cuda or mps.")]
DataDir = Annotated[
    Path | None,
    Option(
        "--data-dir",
        metavar="DIR",
        envvar="GANTOOL_DATA",
        help="Directory of downloaded and decoded data. A run remembers its own.",
    ),
]
ClassName = Annotated[str | None, Option("--class", metavar="NAME", help="Only images of this class.")]
Checkpoint = Annotated[str, Option("--checkpoint", metavar="WHICH", help="best, last, or the number of an epoch.")]
OutputFile = Annotated[Path | None, Option("-o", "--output", metavar="FILE", help="The file to write.")]
Images = Annotated[
    int | None,
    Option(
        "--images",
        min=16,
        max=50_000,
        metavar="N",
        help="Number of generated images, 16 to 50,000. Default: the recipe's evaluate_images.",
    ),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an existing file.")]
AsJson = Annotated[bool, Option("--json", help="Print the result as JSON.")]


@contextlib.contextmanager
def stopping(started: Callable[[], bool], message: str) -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM in the yielded list, so that a loop can save; a second one exits at once.

    The first one exits at once too if the work has not `started`, because nothing can be lost. Otherwise it prints a
    message that says what is being saved.
    """
    from gantool import terminal

    caught: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if not started():
            raise SystemExit(128 + number)
        for kind, old in before.items():
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else old)
        with contextlib.suppress(OSError):  # a closed terminal must not keep the work from being saved
            terminal.status(message)

    kinds = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
    # nohup, and shells for jobs in the background, start a process so that it ignores a signal.
    kinds = [kind for kind in kinds if signal.getsignal(kind) is not signal.SIG_IGN]
    before: dict[signal.Signals, Any] = {kind: signal.signal(kind, handle) for kind in kinds}
    try:
        yield caught
    finally:
        for kind, old in before.items():
            signal.signal(kind, old)
        if caught and not started():
            with contextlib.suppress(OSError):  # not by rich, which would repeat a line that the signal interrupted
                print("stopped before the first step", file=sys.stderr)


def check_overwrite(path: Path, overwrite: bool) -> None:
    """Raise an error if a file exists that must not be replaced."""
    if path.is_file() and not overwrite:
        raise GantoolError(f"{path}: already exists; name another file, or add --overwrite")


def output_file(given: Path | None, default: Path, overwrite: bool) -> Path:
    """Return the file to write. One that the user names is replaced only with --overwrite."""
    if given is not None:
        check_overwrite(given, overwrite)
    return given or default
