"""The command line: parse, call one function, show what it gives. Heavy imports wait inside of the commands."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from gantool.cli import data, runs, tuning
from gantool.errors import GantoolError

app = typer.Typer(
    name="gantool",
    help="Train, search, sample and understand generative adversarial networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.data_app, name="data")
app.add_typer(tuning.study_app, name="study")
for command in (  # in the order of the help
    runs.train,
    tuning.tune,
    runs.sample,
    runs.animate,
    runs.score,
    runs.compare,
    runs.nearest,
    runs.explain,
    runs.shapes,
):
    app.command()(command)


class _LogHandler(logging.Handler):
    """Prints what the package logs; rich is loaded with the first line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record."""
        from gantool import terminal

        terminal.status(record.getMessage())


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Print what gantool logs while the block runs."""
    logger, handler = logging.getLogger("gantool"), _LogHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 when all went well, else with the code of what did not (see `errors`)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a letter shows `?` for it
            stream.reconfigure(errors="replace")
    try:
        try:
            app(arguments)
        finally:
            if sys.stdout:  # None where it was closed before the start
                sys.stdout.flush()
    except GantoolError as error:
        from gantool import terminal

        terminal.error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Train, search, sample and understand generative adversarial networks."""
    context.with_resource(_logged())
    if show_version:
        from gantool import __version__

        typer.echo(f"gantool {__version__}")
        raise typer.Exit
