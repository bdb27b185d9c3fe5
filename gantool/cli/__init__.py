"""The command line: parse, call one function, print its result. Commands import heavy packages when they run."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from typing import Annotated, NoReturn

import typer
from typer import Option

from gantool.cli import data, generating, listing, measuring, studies, training, tuning
from gantool.cli.commands import ClickException, Command, Group, usage_error
from gantool.cli.stand_ins import use_stand_ins
from gantool.errors import GantoolError, ResourceError

CLOSED_PIPE = 141  # the exit code that shells report for SIGPIPE
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}

app = typer.Typer(
    name="gantool",
    cls=Group,
    help="Train, search, sample and understand generative adversarial networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.data_app, name="data")
app.add_typer(studies.study_app, name="study")
app.add_typer(listing.recipes_app, name="recipes")
app.command("list", cls=Command)(listing.list_all)
for command in (  # in the order of the help
    training.train,
    tuning.tune,
    generating.sample,
    generating.animate,
    measuring.score,
    measuring.compare,
    measuring.nearest,
    training.explain,
    training.shapes,
):
    app.command(cls=Command)(command)


class _LogHandler(logging.Handler):
    """Prints what the package logs; rich is loaded with the first line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record; with `-q` only warnings."""
        from gantool import terminal

        if record.levelno >= logging.WARNING or not terminal.quiet:
            terminal.status(record.getMessage())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with 0, or with the exit code of the error (see `errors`)."""
    use_stand_ins(sys.stdout, sys.stderr)
    logger, handler = logging.getLogger("gantool"), _LogHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        code = app(arguments, prog_name="gantool", standalone_mode=False)
        if sys.stdout:  # None where it was closed before the start
            sys.stdout.flush()
    except GantoolError as error:
        _fail(str(error), error.exit_code)
    except ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error)
            sys.exit(2)
        _fail(usage_error(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has closed it
        _discard_output()
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        if error.errno not in FULL_DISK or error.filename is not None:  # files that gantool writes have a name
            raise
        with contextlib.suppress(OSError):  # standard error may be on the same disk
            _print_error(f"the output cannot be written ({error.strerror}); free some space on its disk")
        _discard_output()
        sys.exit(ResourceError.exit_code)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    sys.exit(code or 0)


def _discard_output() -> None:
    """Let what is still buffered go nowhere, since its file or pipe takes no more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None or closed
            os.dup2(nowhere, stream.fileno())


def _fail(message: str, code: int) -> NoReturn:
    _print_error(message)
    sys.exit(code)


def _print_error(message: str) -> None:
    from gantool import terminal

    terminal.error(message)


@app.callback(invoke_without_command=True)
def version(
    show_version: Annotated[bool, Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Train, search, sample and understand generative adversarial networks."""
    if show_version:
        from gantool import __version__

        typer.echo(f"gantool {__version__}")
        raise typer.Exit
