"""How commands describe themselves and refuse bad options: Typer's classes, with gantool's form of help and errors."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from gantool.errors import unknown

SECTIONS = {
    "Train and look": ("train", "sample", "animate", "score", "compare", "nearest", "explain", "shapes"),
    "Search": ("tune", "study"),
    "What exists": ("list", "recipes", "data"),
}
QUIET = {"-q", "--quiet"}

# Newer versions of Typer have a copy of Click, so the classes of errors are reached through those that Typer exports.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
ClickException: type[Exception] = UsageError.__mro__[1]


class _Plain:
    """Help in plain words, and `-q` for every command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `-q` out of the arguments, wherever it stands."""
        if QUIET & set(args):
            from gantool import terminal

            terminal.quiet = True
            ctx.find_root().call_on_close(lambda: setattr(terminal, "quiet", False))
            args = [word for word in args if word not in QUIET]
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except UsageError as error:
            error.ctx = ctx  # type: ignore[attr-defined] # Click leaves it out where an option lacks its value
            raise

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage, such as `gantool compare RUN RUN... [OPTIONS]`."""
        words = [_place(one) for one in self.params if one.param_type_name == "argument"]  # type: ignore[attr-defined]
        words += ["COMMAND"] if isinstance(self, TyperGroup) else []
        formatter.write_usage(ctx.command_path, " ".join([*words, "[OPTIONS]"]))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options and, for a group, its commands."""
        params = self.get_params(ctx)  # type: ignore[attr-defined]
        arguments = [(_name(one), one.help or "") for one in params if one.param_type_name == "argument"]
        options = [_option(one) for one in params if one.param_type_name == "option"]
        options.insert(-1, ("-q, --quiet", "Print only results, warnings and errors."))
        for title, rows in (("Arguments", arguments), *self._commands(ctx), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _commands(self, ctx: Any) -> list[tuple[str, list[tuple[str, str]]]]:
        return []


class Command(_Plain, TyperCommand):
    """A command."""


class Group(_Plain, TyperGroup):
    """A group of commands, in sections where the commands of `SECTIONS` are among them."""

    def _commands(self, ctx: Any) -> list[tuple[str, list[tuple[str, str]]]]:
        names = self.list_commands(ctx)
        sections = SECTIONS if "train" in names else {"Commands": tuple(names)}
        return [
            (title, [(name, _summary(self.get_command(ctx, name))) for name in own]) for title, own in sections.items()
        ]


def usage_error(error: Any) -> str:
    """Return an error of Click as one line in the form of gantool's own: place: what is wrong; what to do."""
    kind, context = type(error).__name__, error.ctx
    path = context.command_path if context else "gantool"
    option, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
    message = error.format_message().replace("\n", " ").rstrip(".")
    if kind == "NoSuchOption":
        known = [word for one in context.command.get_params(context) for word in one.opts if word.startswith("--")]
        key = _key_of_recipe(str(option)) if "--set" in known else None
        message = f"unknown option {option!r}; did you mean '--set {key}=VALUE'?" if key else ""
        message = message or unknown("option", option, known)
    elif kind == "MissingParameter" and parameter is not None:
        message = f"{path}: {_name(parameter)} is missing"
    elif parameter is not None:
        problem = error.message.removeprefix("Value error, ").partition(", unable")[0].rstrip(".")
        message = f"{_name(parameter)}: {problem[:1].lower()}{problem[1:]}"
    elif message.startswith("No such command"):
        message = unknown("command", message.split("'")[1], context.command.list_commands(context))
    elif message.startswith("Got unexpected extra argument"):
        message = f"{path}: unexpected argument {message.rpartition('(')[2].rstrip(')')}"
    elif option is not None:
        message = f"{option}: needs a value"
    return f"{message}{' ' if message.endswith('?') else '; '}see: {path} --help"


def _key_of_recipe(option: str) -> str | None:
    """Return the key of a recipe that an unknown option may mean."""
    from gantool.recipe.blocks import Recipe
    from gantool.recipe.schema import nested_key

    return nested_key(option.lstrip("-").replace("-", "_"), Recipe)


def _place(argument: Any) -> str:
    """Return an argument as the usage shows it: in brackets if it can be left out."""
    return _name(argument) if argument.required else f"[{_name(argument)}]"


def _name(parameter: Any) -> str:
    """Return what an argument or an option is called."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper())


def _option(option: Any) -> tuple[str, str]:
    """Return the row of an option: its names with what it takes, and its help with the default."""
    names = ", ".join(sorted(option.opts, key=len))
    if not option.is_flag and not option.count:
        names += f" {option.metavar or 'N'}"
    default = getattr(option.default, "value", option.default)
    known = default is not None and not isinstance(default, bool) and not callable(default)
    notes = [f"default: {default}"] if known else []
    notes += [f"environment: {option.envvar}"] if option.envvar else []
    notes += ["required"] if option.required else []
    help_text = option.help or "Show this message and exit."
    return names, help_text + (f" [{', '.join(notes)}]" if notes else "")


def _summary(command: Any) -> str:
    """Return the first sentence of a command's help."""
    return " ".join((command.help or "").split()).partition(". ")[0].rstrip(".") + "."
