from __future__ import annotations

import inspect

import pytest
from gantool import errors
from gantool.errors import GantoolError, unknown

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
    kinds = inspect.getmembers(errors, lambda found: inspect.isclass(found) and issubclass(found, GantoolError))

    assert {name: kind.exit_code for name, kind in kinds} == CODES


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("hinged", ["hinge", "minimax"], "unknown loss 'hinged'; did you mean 'hinge'?"),
        ("zzz", ["hinge", "minimax"], "unknown loss 'zzz'; known: hinge, minimax"),
        ("zzz", [], "unknown loss 'zzz'; there is none"),
        (5, ["b", "a"], "unknown loss 5; known: a, b"),
        ("zzz", map(str, range(20)), "unknown loss 'zzz'; known: " + ", ".join(sorted(map(str, range(20))))),
        (
            "zzz",
            (f"{index:03d}" for index in range(1000)),
            f"unknown loss 'zzz'; known: {', '.join(f'{index:03d}' for index in range(20))} and 980 more",
        ),
    ],
)
def test_the_nearest_name_is_suggested_or_up_to_twenty_are_listed(name, known, message):
    assert unknown("loss", name, known) == message
