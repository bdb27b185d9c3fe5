"""How the values and ranges of a search are written."""

from __future__ import annotations

import pytest
from gantool.report.findings import Parameter, figure
from optuna.distributions import FloatDistribution, IntDistribution

from reported import BETA, DIM, LOSS, LR, SECOND, SPANS, findings, trial


@pytest.mark.parametrize("value", [1e-5, 2.5e-4, 0.012, 0.5, 0.9995, 0.99985, 1.0, 12.5, 400.0, 2e6, -3e-3, 0.0])
def test_figures_are_read_back_as_the_same_number(value):
    assert float(figure(value)) == value
    assert len(figure(value)) <= 7


@pytest.mark.parametrize(
    ("span", "complement", "ticks"),
    [
        (SPANS[LR], False, {0: "1e-5", 0.25: "1e-4", 0.5: "1e-3", 0.75: "0.01", 1: "0.1"}),
        (FloatDistribution(0.01, 0.1, log=True), True, {1: "0.99", 0.699: "0.98", 0.301: "0.95", 0: "0.9"}),
        (IntDistribution(0, 200), False, {0: "0", 0.25: "50", 0.5: "100", 0.75: "150", 1: "200"}),
        (FloatDistribution(0, 0.95), False, {0: "0", 0.25: "0.237", 0.5: "0.475", 0.75: "0.712", 1: "0.95"}),
        (FloatDistribution(3.1, 3.2, log=True), False, {0: "3.1", 1: "3.2"}),
        (FloatDistribution(7.0, 7.0), False, {0: "7"}),
        (SPANS[LOSS], False, {0: "hinge", 1 / 3: "<b>$x^2$", 2 / 3: "null", 1: "true"}),
    ],
)
def test_ticks_are_values_at_their_places_in_a_range(span, complement, ticks):
    found = Parameter("key", "name", span, complement).ticks()
    assert list(found.values()) == list(ticks.values())
    assert list(found) == pytest.approx(list(ticks), abs=1e-3)


def test_parameters_and_values_are_the_recipes_own():
    found = findings([trial(1.0), trial(2.0, point={SECOND: 0.001})])
    assert [(one.key, one.name) for one in found.parameters] == [
        (LR, "lr"), (BETA, "betas.1"), (DIM, "latent_dim"), (LOSS, "loss.name"),
    ]  # fmt: skip
    assert found.values(found.trials[1]) == {BETA: 0.999}
