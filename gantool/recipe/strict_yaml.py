"""YAML as people read it, or an error with its line.

PyYAML follows YAML 1.1: `2e-4` is text, `no` is false, `010` is eight, `1:30` is ninety, the second of two equal keys
replaces the first, and an alias can stand for gigabytes. Here `2e-4` is a number, only `true` and `false` are booleans,
and repeated keys and aliases are errors. No dependency of gantool reads YAML in this way.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from gantool.errors import RecipeError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 100_000  # bytes; the longest shipped recipe has about 2,000
MAX_DEPTH = 20  # blocks in blocks; the deepest recipe has 5

_PLAIN = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own form
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse what recipes do without before it is built."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        place = f"{self.name}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(f"{place}: an alias (*{event.anchor}) is not used in recipes; write the value out")
        if event.tag is not None:
            raise RecipeError(f"{place}: a tag ({event.tag}) is not used in recipes; write a plain value")
        if self.depth > MAX_DEPTH:
            raise RecipeError(f"{place}: blocks are nested too deep; the limit is {MAX_DEPTH}")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Also quotes text that is text to PyYAML, but would be a number here."""


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("int", r"^[-+]?(?:0|[1-9](?:_?[0-9]){0,18})$", "-+0123456789"),
    ("float", r"^[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^[-+]?\.(?:inf|nan)$", "-+."),
):
    _Loader.add_implicit_resolver(_PLAIN + _tag, re.compile(_pattern), list(_first))
    _Dumper.add_implicit_resolver(_PLAIN + _tag, re.compile(_pattern), list(_first))


def parse(text: str | bytes, name: str) -> tuple[Any, dict[KeyPath, int]]:
    """Return the value that a YAML document holds, and the line of each of its keys and list items.

    Bytes are read as UTF-8, with or without a byte order mark. Messages call the document `name`.

    Raises:
        RecipeError: with the line: not YAML, a key given twice, a tag, an alias, too deep, too large.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{name}: {len(text):,} bytes is too large for a recipe; the limit is {MAX_BYTES:,}")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RecipeError(f"{name}: not a text file in UTF-8; save the recipe as UTF-8") from None
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        loader.name = name
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _note(node, (), lines, name)
        return loader.construct_document(node), lines
    except yaml.reader.ReaderError:
        raise RecipeError(f"{name}: holds characters that text does not; is this a YAML file?") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = (error.problem or "not YAML").replace("\n", " ")
        raise RecipeError(f"{name}:{line}: {problem}; indent with spaces and close every bracket") from None


def scalar(text: str, name: str) -> Any:
    """Return the value of a short text such as `2e-4`, `[0.5, 0.999]` or `hinge`, as it would stand in a recipe.

    Raises:
        RecipeError: as `parse` does, or a part of the text is a comment in YAML.
    """
    value = parse(text, name)[0]
    node = yaml.compose(text, Loader=_Loader)
    rest = text[node.end_mark.index if node else 0 :].strip()
    if rest:
        raise RecipeError(f"{name}: {rest!r} is a comment in YAML; leave it out, or put the whole value in quotes")
    return value


def check_text(text: str, place: str) -> None:
    """Raise a RecipeError if a text cannot be written as UTF-8, such as the name of a file in another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{place}: {text[error.start]!a} is no character; rename what it names, or correct it"
        ) from None


def dump(values: Any) -> str:
    """Write plain values so that `parse` gives them back."""
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    return text


def _note(node: yaml.Node, place: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    """Note the lines of keys and items, and refuse repeated keys; keys are text, whatever they look like."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        check_text(node.value, f"{name}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note(item, (*place, index), lines, name)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line, inside = key.start_mark.line + 1, (*place, key.value)
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"{name}:{line}: a key is text, not a list or a block")
            check_text(key.value, f"{name}:{line}")
            if inside in lines:
                first = lines[inside]
                raise RecipeError(f"{name}:{line}: key {key.value!r} is given twice, first in line {first}; keep one")
            lines[inside], key.tag = line, f"{_PLAIN}str"
            _note(value, inside, lines, name)
