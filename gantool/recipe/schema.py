"""A block of a recipe, checked against the signature that it will be passed to.

The signature is the schema: a model's keyword parameters are the keys of its block, their annotations the types,
their defaults the defaults. Values are checked as JSON is, strictly: a list is a tuple, an int is a float, and
nothing else is converted ("10" is not 10).
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args

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


class NamedBlock(Block):
    """A block that names a class or a function and holds the keyword arguments for it."""

    name: str
    target: ClassVar[Any]

    def make(self, *arguments: Any) -> Any:
        """Call the class or function with these arguments and those of the block."""
        return type(self).target(*arguments, **{key: value for key, value in self if key != "name"})


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
        raise Mismatch(_merged([_problem(dict(one), values, schema, place) for one in error.errors()])) from None


@functools.cache
def signature(target: Callable[..., Any]) -> type[NamedBlock]:
    """Return the schema of the blocks that name `target`: its keyword-only parameters."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(target, eval_str=True).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (parameter.annotation, default)
    schema = create_model(getattr(target, "__name__", "block"), __base__=NamedBlock, **fields)
    schema.target = staticmethod(target)
    return schema


def plain(block: Block) -> dict[str, Any]:
    """Return a block as the numbers, texts, lists and mappings that YAML holds."""
    values: dict[str, Any] = block.model_dump(mode="json")
    return values


def _problem(error: dict[str, Any], values: Any, schema: type[Block], place: tuple[str | int, ...]) -> Problem:
    """Return pydantic's error as a problem. Its `loc` names keys, indices and members of unions."""
    *parents, last = error["loc"]
    where = [*place]
    for part in error["loc"]:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and part in range(len(values))):
            where.append(part)
            values = values[part]
    kind, value, limits = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem((*where,), unknown("key", last, _block_at(parents, schema).model_fields))
    if kind == "missing":
        wanted = "expected more values, got " + _shown(value) if isinstance(last, int) else f"missing key {last!r}"
        return Problem((*where,), wanted)
    quoted = f'; in quotes it is text: "{_shown(value)}"' if kind == "string_type" and isinstance(value, int) else ""
    return Problem((*where,), f"expected {_expected(kind, limits, error['msg'])}, got {_shown(value)}{quoted}")


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


def _block_at(where: Iterable[str | int], schema: type[Block]) -> type[Block]:
    """Return the schema of the nested block at `where`."""
    blocks = [schema]
    for part in where:
        named = [block for block in blocks if block.__name__ == part]
        if part in blocks[0].model_fields:
            blocks = list(_blocks_in(blocks[0].model_fields[str(part)].annotation))
        elif named:
            blocks = named
    return blocks[0]


def _blocks_in(annotation: Any) -> Iterator[type[Block]]:
    """Yield the blocks that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield annotation
    for part in get_args(annotation):
        yield from _blocks_in(part)


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
