from __future__ import annotations

import inspect

import pytest
from gantool import errors
from gantool.errors import MAX_LISTED, GantoolError, unknown

CODES = {
    "GantoolError": 2,
    "RecipeError": 2,
    "ShapeError": 2,
    "RunError": 2,
    "DataError": 3,
    "TrainingError": 4,
    "CheckpointError": 5,
    "NetworkError": 6,
    "ResourceError": 7,
    "DiskError": 7,
}


def test_every_error_has_its_exit_code():
    kinds = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, GantoolError)
    }

    assert kinds == CODES


def test_the_table_in_the_documentation_is_true():
    for name, code in CODES.items():
        assert any(name in line and str(code) in line.split() for line in errors.__doc__.splitlines()), name


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("hinged", ["hinge", "minimax"], "unknown loss 'hinged'; did you mean 'hinge'?"),
        ("zzz", ["hinge", "minimax"], "unknown loss 'zzz'; known: hinge, minimax"),
        ("zzz", [], "unknown loss 'zzz'; there is none"),
        (5, ["b", "a"], "unknown loss 5; known: a, b"),
        (
            "zzz",
            map(str, range(100, 100 + MAX_LISTED)),
            "unknown loss 'zzz'; known: " + ", ".join(map(str, range(100, 120))),
        ),
    ],
)
def test_the_nearest_name_is_told_or_all_of_them(name, known, message):
    assert unknown("loss", name, known) == message


def test_of_many_names_a_few_are_told():
    message = unknown("class", "zzz", [f"{index:04d}" for index in range(1000)])

    assert message.endswith("0018, 0019 and 980 more")
    assert len(message) < 200
