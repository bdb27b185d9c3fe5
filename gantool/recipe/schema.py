"""A block of a recipe, checked against the signature that it will be passed to.

The signature is the schema: a model's keyword parameters are the keys of its block, their annotations the types,
their defaults the defaults. Values are checked as JSON is, strictly: a list is a tuple, an int is a float, and
nothing else is converted ("10" is not 10).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from annotated_types import Interval
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from gantool.errors import unknown

Block_ = TypeVar("Block_", bound="Block")

Count = Annotated[int, Interval(ge=1, le=1_000_000)]
Size = Annotated[int, Interval(ge=1, le=4096)]
Fraction = Annotated[float, Interval(ge=0, lt=1)]
Weight = Annotated[float, Interval(ge=0, le=1_000_000)]


class Block(BaseModel):
    """A block of a recipe: its annotated fields are its keys, and no others are known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Problem(NamedTuple):
    """What is wrong, and at which keys and indices of the document."""

    place: tuple[str | int, ...]
    message: str


class Mismatch(Exception):  # noqa: N818  it always becomes a RecipeError, once the lines are known
    """A block does not fit its schema; `problems` says where and why."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


def check(schema: type[Block_], values: Mapping[str, Any], place: tuple[str | int, ...] = ()) -> Block_:
    """Return the block that `values` describe.

    Raises:
        Mismatch: with every problem of the block, each `place` followed by its own keys.
    """
    try:
        return schema.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise Mismatch(_merged([_problem(dict(one), place, schema) for one in error.errors()])) from None


def signature(target: Callable[..., Any]) -> type[Block]:
    """Return the schema of `target`: its keyword-only parameters."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(target, eval_str=True).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (parameter.annotation, default)
    return create_model(getattr(target, "__name__", "block"), __base__=Block, **fields)


def arguments(block: Block) -> dict[str, Any]:
    """Return the keyword arguments that a checked block holds."""
    return {name: getattr(block, name) for name in type(block).model_fields}


def plain(block: Block) -> dict[str, Any]:
    """Return a block as the numbers, texts, lists and mappings that YAML holds."""
    values: dict[str, Any] = block.model_dump(mode="json")
    return values


def _problem(error: dict[str, Any], place: tuple[str | int, ...], schema: type[Block]) -> Problem:
    blocks = {block.__name__: block for block in Block.__subclasses__()}
    where = tuple(part for part in error["loc"] if not _names_a_type(part, blocks))
    kind, value, limits = error["type"], error.get("input"), error.get("ctx", {})
    if kind in {"extra_forbidden", "missing"} and where[-1:] != error["loc"][-1:]:
        where += error["loc"][-1:]  # the last one is a key, whatever it looks like
    if kind == "extra_forbidden":
        inner = _block_at(error["loc"][:-1], schema, blocks)
        return Problem((*place, *where), unknown("key", where[-1], inner.model_fields))
    if kind == "missing":
        if where and isinstance(where[-1], int):
            return Problem((*place, *where[:-1]), f"expected more values, got {_shown(value)}")
        return Problem((*place, *where[:-1]), f"missing key {where[-1]!r}")
    quoted = f'; in quotes it is text: "{_shown(value)}"' if kind == "string_type" and isinstance(value, int) else ""
    return Problem((*place, *where), f"expected {_expected(kind, limits, error['msg'])}, got {_shown(value)}{quoted}")


def _merged(problems: list[Problem]) -> list[Problem]:
    """Join what pydantic says of each form that a value could have had into one problem a place."""
    forms: dict[tuple[tuple[str | int, ...], str], str] = {}
    for place, message in problems:
        deeper = any(other != place and other[: len(place)] == place for other, _ in problems)
        if deeper and not message.startswith("missing"):
            continue  # the form that got further says more
        expected = message.startswith("expected ")
        key = (place, "expected" if expected else message)
        told = forms.get(key, "")
        wanted, _, got = message.removeprefix("expected ").rpartition(", got ")
        before = told.removeprefix("expected ").rpartition(", got ")[0].split(" or ") if told and expected else []
        if wanted not in before:  # two forms that are blocks are told as one
            forms[key] = f"expected {' or '.join([*before, wanted])}, got {got}" if before else message
    return [Problem(place, message) for (place, _), message in forms.items()]


def _names_a_type(part: str | int, blocks: Mapping[str, type[Block]]) -> bool:
    """Return whether a part of pydantic's location is its name for a member of a union, and not a key of a recipe."""
    words = {"int", "float", "str", "bool", "none", "list"}
    return isinstance(part, str) and (part in words or part in blocks or "[" in part or "-" in part)


def _block_at(where: tuple[str | int, ...], schema: type[Block], blocks: Mapping[str, type[Block]]) -> type[Block]:
    """Return the schema of the nested block at `where`."""
    for part in where:
        field = schema.model_fields.get(str(part))
        inner = blocks.get(str(part), field.annotation if field else None)
        forms = [form for form in (inner, *get_args(inner)) if isinstance(form, type) and issubclass(form, Block)]
        schema = forms[0] if forms else schema
    return schema


_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a block of keys",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "none_required": "null",
    "union_tag_not_found": "a block of keys or a list",
}


def _expected(kind: str, limits: Mapping[str, Any], message: str) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "literal_error":
        return "one of " + str(limits["expected"])
    bounds = {
        "greater_than": ("gt", "more than"),
        "greater_than_equal": ("ge", "at least"),
        "less_than": ("lt", "less than"),
        "less_than_equal": ("le", "at most"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        return f"{words} {limits[key]:,}"
    if kind == "string_pattern_mismatch":
        return f"text that matches {limits['pattern']}"
    if kind == "string_too_short":
        return "text that is not empty"
    if kind in {"too_long", "too_short"}:
        amount = limits.get("max_length", limits.get("min_length"))
        return f"{'at most' if kind == 'too_long' else 'at least'} {amount} values"
    return message[:1].lower() + message[1:]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
