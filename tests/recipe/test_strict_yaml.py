from __future__ import annotations

import math

import pytest
from gantool.errors import RecipeError
from gantool.recipe import strict_yaml
from gantool.recipe.strict_yaml import MAX_BYTES, MAX_DEPTH, dump, parse, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4), ("1E3", 1000.0), ("1e+3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-0.5", -0.5), ("+1.5", 1.5),
        ("0", 0), ("-7", -7), ("+5", 5), ("1_000", 1000), ("0.0", 0.0), ("0e5", 0.0), (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None),
        ("[0.5, 0.999]", [0.5, 0.999]), ("{a: 1}", {"a": 1}), ("[]", []), ("hinge", "hinge"),
    ],
)  # fmt: skip
def test_a_scalar_is_what_a_person_reads(text, value):
    result = scalar(text, "--set x")
    assert result == value
    assert type(result) is type(value)
    assert math.isnan(scalar(".nan", "x"))


@pytest.mark.parametrize(
    "text",
    [
        "no", "yes", "on", "off", "No", "True", "NULL", "010", "00", "1:30", "2024-08-05", "0x10", "0b1", "0o7", "1__0",
        "1_", "_1", "1e", "e5", ".", "+", "1.2.3", "-x", "=", "<<", "1,000", ".Inf", "nan", "007.5",
    ],
)  # fmt: skip
def test_what_yaml_would_take_for_something_else_is_text(text):
    assert scalar(text, "x") == text


@pytest.mark.parametrize("text", ['"5"', "'5'", '"true"', '"null"', "'2e-4'"])
def test_in_quotes_everything_is_text(text):
    assert scalar(text, "x") == text[1:-1]


def test_a_number_too_long_for_a_whole_one_is_a_float():
    assert scalar("9" * 5000, "x") == math.inf
    assert scalar("9" * 30, "x") == pytest.approx(1e30)


def test_keys_and_items_have_their_lines():
    text = "a: 1\nb:\n  c: [1,\n    2]\n  d: {e: 5}\n\n# a remark\nf:\n- x\n- y\n"
    values, lines = parse(text, "r.yaml")
    assert values == {"a": 1, "b": {"c": [1, 2], "d": {"e": 5}}, "f": ["x", "y"]}
    assert lines[("a",)] == 1
    assert lines[("b", "c")] == 3
    assert lines[("b", "c", 1)] == 4
    assert lines[("b", "d", "e")] == 5
    assert lines[("f", 1)] == 10


@pytest.mark.parametrize("text", ["", b"", "# nothing\n", "---\n", "\n\n", b"\xef\xbb\xbf"])
def test_an_empty_document_is_nothing(text):
    assert parse(text, "r.yaml")[0] is None


@pytest.mark.parametrize(
    "text", ["a: 1\n", b"a: 1\n", "\ufeffa: 1\n", b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"%YAML 1.1\n---\na: 1\n"]
)
def test_a_byte_order_mark_and_windows_lines_are_fine(text):
    assert parse(text, "r.yaml")[0] == {"a": 1}


BRACKETS = "indent with spaces and close every bracket"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: key 'a' is given twice, first in line 1; keep one"),
        ("b:\n  x: 1\n  x: 1\n", ":3: key 'x' is given twice, first in line 2; keep one"),
        ("a: {x: 1, x: 1}\n", ":1: key 'x' is given twice, first in line 1; keep one"),
        ("a: 1\nb: !!python/object/apply:os.system [x]\n",
         ":2: a tag (tag:yaml.org,2002:python/object/apply:os.system) is not used in recipes; write a plain value"),
        ("a: !mine 5\n", ":1: a tag (!mine) is not used in recipes; write a plain value"),
        ("!!set {b}\n", ":1: a tag (tag:yaml.org,2002:set) is not used in recipes; write a plain value"),
        ("a: &x [1]\nb: *x\n", ":2: an alias (*x) is not used in recipes; write the value out"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", ":3: an alias (*x) is not used in recipes; write the value out"),
        ("? [a, b]\n: 1\n", ":1: a key is text, not a list or a block"),
        ("a:\n\tb: 2\n", f":2: found character '\\t' that cannot start any token; {BRACKETS}"),
        ("a: [1, 2\nb: 3\n", f":2: expected ',' or ']', but got ':'; {BRACKETS}"),
        ("a: 1\n---\nb: 1\n", f":2: but found another document; {BRACKETS}"),
        ("a: 'open\n", f":2: found unexpected end of stream; {BRACKETS}"),
        ("a: \0b", ": holds characters that text does not; is this a YAML file?"),
        (bytes(range(256)), ": not a text file in UTF-8; save the recipe as UTF-8"),
        ("a: ä\n".encode("latin-1"), ": not a text file in UTF-8; save the recipe as UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_plain_yaml_is_refused_with_its_line(text, message):
    with pytest.raises(RecipeError) as caught:
        parse(text, "r.yaml")
    assert str(caught.value) == f"r.yaml{message}"


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 3000 + "]" * 3000, "{a: " * 3000 + "1" + "}" * 3000, "- " * 3000 + "a", "[" * 50_000),
        "\n".join(" " * depth + "a:" for depth in range(400)),
    ],
)
def test_a_deep_nest_is_refused_before_the_rest_is_read(text, monkeypatch):
    read = []
    fetch = strict_yaml._Loader.fetch_more_tokens
    monkeypatch.setattr(strict_yaml._Loader, "fetch_more_tokens", lambda self: read.append(self.index) or fetch(self))
    with pytest.raises(RecipeError, match=rf"^r.yaml:\d+: blocks are nested too deep; the limit is {MAX_DEPTH}$"):
        parse(text, "r.yaml")
    assert read[-1] < 1100  # to know a key, YAML looks 1,024 characters ahead


@pytest.mark.parametrize("text", ["#" * 2_000_000, b"x" * (MAX_BYTES + 1), "[" + "1, " * 50_000 + "]"])
def test_a_large_file_is_refused_before_it_is_read(text, monkeypatch):
    monkeypatch.setattr(strict_yaml, "_Loader", None)
    with pytest.raises(RecipeError, match=r"^r.yaml: [\d,]+ bytes is too large for a recipe; the limit is 100,000$"):
        parse(text, "r.yaml")


@pytest.mark.parametrize(
    "value",
    [
        "2e-4", "1e5", "no", "010", "1_000", "5", "", "null", "~", "true", "a: b", "- x", "#x", " x ", "개", "🥚",
        "x\ny",         "1:30", "2024-08-05", "'", '"',
        "*a", "&a", "!a", "%a", "@a", "=", "<<", "0x10", ".5", "5.", ".inf", "+5", "x" * 300,
        2e-4, 1e-05, 1e20, 0.1, 5, -1, True, False, None, [], {}, [1, [2.5, "a"]], {"a": {"b": [None, "1e3"]}},
    ],
)  # fmt: skip
def test_what_is_dumped_is_read_again(value):
    assert parse(dump({"key": [value]}), "r.yaml")[0] == {"key": [value]}
