"""A block of a recipe, checked against the signature that it is passed to.

The signature is the schema: a model's keyword-only parameters are the keys of its block, with their types and defaults.
Values are checked strictly, as JSON is: a list becomes a tuple, an int becomes a float, and nothing else is converted
("10" is not 10).
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin

from annotated_types import Interval
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from gantool.errors import unknown
from gantool.recipe.strict_yaml import KeyPath

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
    """A mistake in a recipe, and the keys and indices that lead to it."""

    place: KeyPath
    message: str


class Mismatch(Exception):  # noqa: N818  it always becomes a RecipeError, once the lines are known
    """A block does not fit its schema; `problems` says where and why."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


def check(schema: type[Block_], values: Mapping[str, Any], place: KeyPath = ()) -> Block_:
    """Return the block that `values` describe.

    Raises:
        Mismatch: with every problem of the block; each place starts with `place`.
    """
    try:
        return schema.model_validate_json(json.dumps(values))
    except ValidationError as error:
        found = _problems(error, values, schema)
        raise Mismatch(Problem((*place, *where), message) for where, message in found) from None


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
    return block.model_dump(mode="json")


def nested_key(key: str, schema: type[Block]) -> str | None:
    """Return the dotted key of a block inside of `schema` whose last part is `key`, such as `train.epochs`."""
    for name, field in schema.model_fields.items():
        if any(key in block.model_fields for block in _blocks_in(field.annotation)):
            return f"{name}.{key}"
    return None


def types_of(key: str, schema: type[Block]) -> set[Any]:
    """Return the types that the value of a dotted key in `schema` may have; none if the key is unknown."""
    first, _, rest = key.partition(".")
    field = schema.model_fields.get(first)
    if field is None:
        return set()
    if rest:
        return {kind for block in _blocks_in(field.annotation) for kind in types_of(rest, block)}
    forms = get_args(field.annotation) or (field.annotation,)
    return {get_args(form)[0] if get_origin(form) is Annotated else form for form in forms}


def _problems(error: ValidationError, values: Mapping[str, Any], schema: type[Block]) -> Iterator[Problem]:
    """Yield pydantic's errors as problems, one a place: pydantic has one for each form that a value may take."""
    found: dict[tuple[KeyPath, str], list[str]] = {}
    for one in error.errors():
        place = _place(one["loc"], values)
        expected, message = _message(dict(one), schema)
        forms = found.setdefault((place, message), [])
        forms += [expected] if expected not in forms else []
    for (place, message), forms in found.items():
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other, _ in found)
        if forms == [""]:
            yield Problem(place, message)
        elif not deeper:  # the form that fits further says more
            yield Problem(place, f"expected {' or '.join(forms)}, got {message}")


def _place(loc: Iterable[str | int], values: Any) -> KeyPath:
    """Return the keys and indices in pydantic's location, which also names the members of unions."""
    place: list[str | int] = []
    for part in loc:
        if part in (values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()):
            place.append(part)
            values = values[part]
    return tuple(place)


def _message(error: Mapping[str, Any], schema: type[Block]) -> tuple[str, str]:
    """Return what was expected, and what was found; or nothing, and what is wrong with a key."""
    (*parents, last), kind, value = error["loc"], error["type"], error.get("input")
    if kind == "extra_forbidden":
        nested = None if parents else nested_key(str(last), schema)
        if nested:
            return "", f"unknown key {last!r}; did you mean {nested!r}?"
        return "", unknown("key", last, _block_at(parents, schema).model_fields)
    if kind == "missing":
        return ("more values", _shown(value)) if isinstance(last, int) else ("", f"missing key {last!r}")
    quoted = f'; in quotes it is text: "{_shown(value)}"' if kind == "string_type" and isinstance(value, int) else ""
    message = error["msg"]
    expected = (
        _EXPECTED[kind].format(**error.get("ctx", {})) if kind in _EXPECTED else message[:1].lower() + message[1:]
    )
    return expected, _shown(value) + quoted


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


_EXPECTED = {
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a block of keys"),
    "finite_number": "a finite number",
    "string_type": "text",
    "none_required": "null",
    "union_tag_not_found": "a block of keys or a list",
    "literal_error": "one of {expected}",
    "greater_than": "more than {gt:,}",
    "greater_than_equal": "at least {ge:,}",
    "less_than": "less than {lt:,}",
    "less_than_equal": "at most {le:,}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text that is not empty",
    "too_long": "at most {max_length} values",
    "too_short": "at least {min_length} values",
}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
