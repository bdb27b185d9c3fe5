"""What `gantool train` concludes from the log of a run, and how it refuses a run in place of a recipe."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from gantool.cli.training import still_falls
from gantool.errors import RunError
from gantool.training.resume import begin


def log(*values: tuple[int, float, float]) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "metrics/fd": value, "metrics/fd_deviation": deviation} for epoch, value, deviation in values
    ]


@pytest.mark.parametrize(
    ("entries", "falls"),
    [
        (log((10, 50.0, 1.0), (20, 40.0, 1.0), (30, 30.0, 1.0)), True),
        (log((10, 50.0, 1.0), (20, 40.0, 1.0), (30, 38.0, 1.0)), False),
        (log((10, 50.0, 1.0), (20, 40.0, 1.0), (30, 60.0, 1.0)), False),
        (log((10, 50.0, math.nan), (20, 40.0, math.nan), (30, 30.0, math.nan)), False),
        (log((10, 50.0, 1.0), (20, 40.0, 1.0)), False),
        (log((30, 30.0, 1.0)), False),
        ([{"epoch": 10}, {"epoch": 30, "metrics/fd": 3.0}], False),
        ([], False),
    ],
)
def test_a_metric_still_falls_only_beyond_two_deviations(entries, falls):
    assert still_falls(entries, "fd", 30) == falls


def test_a_run_in_place_of_a_recipe_is_refused_with_both_ways_out(inside):
    run = inside / "gan14-001"
    run.mkdir()
    (run / "recipe.yaml").write_text("")

    with pytest.raises(RunError) as refused:
        begin("gan14-001", {}, out=None, resume=False)

    assert str(refused.value) == (
        "gan14-001: is a run; resume it with: gantool train gan14-001 --resume; "
        f"or train its recipe anew with: gantool train {Path('gan14-001/recipe.yaml')}"
    )
