from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from annotated_types import MinLen
from gantool.recipe.schema import (
    Block,
    Count,
    Fraction,
    Mismatch,
    Size,
    Weight,
    check,
    plain,
    signature,
)


class Inner(Block):
    """A block in a block."""

    low: int | float
    log: bool = False


class Outer(Block):
    """One of each kind of key."""

    count: Count = 1
    share: Fraction = 0.0
    weight: Weight = 0.0
    size: Size | tuple[Size, Size] = 8
    name: str = "a"
    maybe: Literal[1, 3] | None = None
    rows: Annotated[list[tuple[Count, Count]], MinLen(1)] = [(1, 2)]  # noqa: RUF012
    inner: Inner = Inner(low=0)
    space: dict[str, Inner | list[int]] = {}  # noqa: RUF012
    flag: bool = True
    free: dict[str, Any] = {}  # noqa: RUF012


def problems(values, schema=Outer):
    with pytest.raises(Mismatch) as caught:
        check(schema, values)
    return [(".".join(map(str, place)), message) for place, message in caught.value.problems]


@pytest.mark.parametrize(
    ("values", "place", "message"),
    [
        ({"count": 0}, "count", "expected at least 1, got 0"),
        ({"count": 5.0}, "count", "expected a whole number, got 5.0"),
        ({"count": True}, "count", "expected a whole number, got true"),
        ({"count": 10**30}, "count", "expected at most 1,000,000, got 1" + "0" * 30),
        ({"share": 1}, "share", "expected less than 1.0, got 1"),
        ({"share": -0.1}, "share", "expected at least 0.0, got -0.1"),
        ({"size": "big"}, "size", 'expected a whole number or a list, got "big"'),
        ({"size": [8, 8, 8]}, "size", "expected a whole number or at most 2 values, got [8, 8, 8]"),
        ({"size": [8]}, "size", "expected a whole number or more values, got [8]"),
        ({"size": [8, -8]}, "size.1", "expected at least 1, got -8"),
        ({"name": 5}, "name", 'expected text, got 5; in quotes it is text: "5"'),
        ({"name": True}, "name", 'expected text, got true; in quotes it is text: "true"'),
        ({"name": ["x" * 80]}, "name", 'expected text, got ["' + "x" * 55 + "..."),
        ({"maybe": 2}, "maybe", "expected one of 1 or 3, got 2"),
        ({"rows": []}, "rows", "expected at least 1 values, got []"),
        ({"rows": 5}, "rows", "expected a list, got 5"),
        ({"rows": [[1, 2, 3]]}, "rows.0", "expected at most 2 values, got [1, 2, 3]"),
        ({"rows": [[1, 2], [1, "x"]]}, "rows.1.1", 'expected a whole number, got "x"'),
        ({"inner": 5}, "inner", "expected a block of keys, got 5"),
        ({"inner": {}}, "inner", "missing key 'low'"),
        ({"inner": {"low": 1, "logg": 2}}, "inner.logg", "unknown key 'logg'; did you mean 'log'?"),
        ({"space": {"a.b": {"lo": 5, "low": 1}}}, "space.a.b.lo", "unknown key 'lo'; did you mean 'low'?"),
        ({"space": {"a.b": [1, "x"]}}, "space.a.b.1", 'expected a whole number, got "x"'),
        ({"cuont": 5}, "cuont", "unknown key 'cuont'; did you mean 'count'?"),
        ({"flag": 1}, "flag", "expected true or false, got 1"),
    ],
)
def test_a_problem_has_its_place_and_one_sentence(values, place, message):
    assert problems(values) == [(place, message)]


@pytest.mark.parametrize("key", ["int", "none", "Inner", "a-b", "list[int]"])
def test_a_key_that_looks_like_a_type_is_a_key(key):
    ((place, message),) = problems({"inner": {"low": 1, key: 5}})

    assert place == f"inner.{key}"
    assert message.startswith(f"unknown key {key!r}; ")


def test_a_place_is_followed_by_the_keys_of_the_block():
    with pytest.raises(Mismatch, match=r"^expected at least 1, got 0; missing key 'low'$") as caught:
        check(Outer, {"count": 0, "inner": {}}, ("model",))
    assert [problem.place for problem in caught.value.problems] == [("model", "count"), ("model", "inner")]


def test_what_json_allows_is_allowed_and_plain_values_make_the_same_block_again():
    block = check(Outer, {"share": 0, "weight": 3, "size": [4, 5], "rows": [[1, 2]], "space": {"a.b": {"low": 1.5}}})
    assert (block.share, block.weight, block.size, block.rows) == (0.0, 3.0, (4, 5), [(1, 2)])
    assert check(Outer, plain(block)) == block


def test_a_signature_gives_the_keys_their_types_and_their_defaults():
    def target(first, *, width: Count, share: Fraction = 0.5):
        """Take one positional and two keyword parameters."""
        return first, width, share

    schema = signature(target)

    assert list(schema.model_fields) == ["name", "width", "share"]
    assert check(schema, {"name": "target", "width": 3}).make("data") == ("data", 3, 0.5)
    assert problems({"name": "target", "first": 1}, schema) == [
        ("", "missing key 'width'"),
        ("first", "unknown key 'first'; known: name, share, width"),
    ]
