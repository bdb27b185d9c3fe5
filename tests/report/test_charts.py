"""The charts of a search show what happened, whatever the trials were."""

from __future__ import annotations

import math

import pytest
from gantool.report.charts import charts
from gantool.report.page import page

from reported import DIM, DONE, FAILED, LOSS, LR, R1, RUNNING, SECOND, SPANS, STOPPED, findings, scattered, trial, usual


def drawn(found, name, weights=None):
    return next(chart for chart in charts(found, weights or {}) if chart.name == name)


def points(figure):
    """Return the places of a figure's points by the name of their group."""
    return {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in figure.data if trace.mode == "markers"}


def test_the_history_shows_every_ended_trial_once_and_only_results_as_results():
    found = usual()
    chart = drawn(found, "history")
    assert chart.title == "fd of each trial: the winner is trial 6"
    (figure,) = chart.figures
    shown = points(figure)
    numbers = {state: [one.number for one in found.trials if one.state == state] for state in (DONE, STOPPED, FAILED)}
    assert sorted(number for number, _ in shown["finished"]) == [number for number in numbers[DONE] if number != 1]
    assert shown["copies of training images"] == [(1, found.trials[1].value)]
    assert shown["stopped early, at its best"] == [(number, 900.0 + number) for number in numbers[STOPPED]]
    assert [number for number, _ in shown["failed"]] == numbers[FAILED]
    assert shown["your recipe"] == [(0, found.trials[0].value)]
    assert shown["winner"] == [(6, found.trials[6].value)]
    assert shown["new seeds"] == [(6, 90), (3, 150), (3, 160), (0, 200), (0, 210)]
    (line,) = [trace for trace in figure.data if trace.name == "best so far"]
    assert list(line.y) == sorted(line.y, reverse=True)
    assert (line.x[-1], line.y[-1]) == (39, found.ranked[0].value)
    axis = figure.layout.yaxis
    assert axis.type == "log", "40 to 900 and more are orders of magnitude"
    assert list(axis.ticktext) == [str(value) for value in map(int, axis.tickvals)] == ["50", "100", "200", "500"]


def test_failed_trials_stand_at_the_upper_edge_with_their_reason_and_not_at_a_number():
    (figure,) = drawn(findings([trial(1.0), trial(state=FAILED, why="diverged: <b>")]), "history").figures
    (failed,) = [trace for trace in figure.data if trace.name == "failed"]
    assert (failed.yaxis, tuple(failed.y), tuple(figure.layout.yaxis2.range)) == ("y2", (1,), (0, 1))
    assert failed.hovertext[0].endswith("<br>diverged: &lt;b&gt;")
    assert figure.layout.yaxis.type == "linear"


def test_copies_are_results_if_the_images_of_the_recipe_are_copies_too_and_stay_marked():
    shown = points(drawn(findings([trial(2.0, own=True, copies=True), trial(1.0, copies=True)]), "history").figures[0])
    assert shown["finished"] == [(1, 1.0), (0, 2.0)]
    assert [number for number, _ in shown["copies of training images"]] == [0, 1]


def test_bars_are_as_long_as_the_shares_the_largest_above():
    weights = {LR: 0.7, DIM: 0.2, "train.optimizer.betas.1": 0.1}
    chart = drawn(usual(), "importances", weights)
    assert chart.title == "lr mattered most for a low fd"
    (bars,) = chart.figures[0].data
    assert list(bars.x) == pytest.approx([10, 20, 70])
    assert list(bars.y) == ["betas.1", "latent_dim", "lr"]
    assert [chart.name for chart in charts(usual(), weights)] == ["history", "importances", "parallel", "slices"]


def test_parallel_lines_lead_through_the_parameters_that_all_results_have():
    found = usual()
    chart = drawn(found, "parallel")
    assert chart.title.endswith(", without copies of training images; thick: trial 6, the winner")
    (figure,) = chart.figures
    low, high = found.ranked[0].value, found.ranked[-1].value
    heights = [(one.value - low) / (high - low) for one in found.ranked if one.number != 6]
    winner = [(found.trials[6].value - low) / (high - low)]
    assert [line.y[0] for line in figure.data] == pytest.approx(heights + winner)
    assert [line.line.width for line in figure.data] == [2] * len(heights) + [4]
    assert list(figure.layout.xaxis.ticktext) == ["fd", "lr", "betas.1", "latent_dim", "loss.name"]
    assert all(0 <= place <= 1 for line in figure.data for place in line.y)
    texts = {index: [] for index in range(5)}
    for label in figure.layout.annotations:
        texts[label.x].append(label.text)
    assert texts[2] == ["0.9999", "0.9997", "0.999", "0.997", "0.99", "0.97", "0.9"]
    assert texts[4] == ["hinge", "&lt;b&gt;$x^2$", "null", "true"]
    assert {label.bgcolor for label in figure.layout.annotations} == {"white"}, "no line crosses a label"


def test_parallel_lines_have_a_logarithmic_metric_if_results_are_more_than_ten_times_apart():
    (figure,) = drawn(findings([trial(10.0**index) for index in range(3)]), "parallel").figures
    assert [line.y[0] for line in figure.data] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize("keys", [(LR,), (LR, SECOND, DIM), tuple(SPANS)])
def test_slices_have_a_figure_a_parameter_as_wide_as_its_range(keys):
    trials = scattered(11, lambda point: 1 + point[LR], keys, [DONE] * 8 + [STOPPED, FAILED, RUNNING])
    found = findings(trials, winner=3)
    figures = {figure.layout.xaxis.title.text: figure for figure in drawn(found, "slices").figures}
    assert list(figures) == ["lr", "betas.1", "latent_dim", "loss.name", "r1"][: len(keys)]
    axis = figures["lr"].layout.xaxis
    assert tuple(axis.range) == (-0.05, 1.05)
    assert dict(zip(axis.ticktext, axis.tickvals, strict=True))["1e-3"] == 0.5
    shown = points(figures["lr"])
    places = [pytest.approx((math.log10(one.params[LR]) + 5) / 4) for one in found.trials]
    assert shown["finished"] == [(places[one.number], one.value) for one in found.ranked]
    assert shown["stopped early, at its best"] == [(places[8], 908.0)]
    assert shown["winner"] == [(places[3], trials[3].value)]
    assert [place for place, _ in shown["failed"]] == [places[9]]


STRANGE = {
    "none": [],
    "one": [trial(1.0)],
    "one failed": [trial(state=FAILED, why="x")],
    "all failed": [trial(state=FAILED) for _ in range(5)],
    "all stopped": scattered(5, max, states=[STOPPED]),
    "all running": [trial(state=RUNNING) for _ in range(2)],
    "equal": [trial(7.0) for _ in range(5)],
    "infinite": [trial(math.inf if index % 2 else 3.0) for index in range(5)],
    "only infinite": [trial(-math.inf) for _ in range(3)],
    "negative": [trial(index - 3.0) for index in range(6)],
    "far apart": [trial(10.0 ** (9 * index - 20)) for index in range(5)],
    "all copies": [trial(1.0 + index, copies=True) for index in range(5)],
    "choices": scattered(5, lambda point: 1.0, (LOSS,)),
    "sometimes": scattered(9, lambda point: 1.0, (LOSS, R1)),
    "no parameters": [trial(1.0, point={}) for _ in range(5)],
    "never together": [trial(1.0, point={LR: 1e-3} if index % 2 else {DIM: 3}) for index in range(6)],
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_trials_are_drawn_too(name):
    found = findings(STRANGE[name])
    expected = ["history"]
    if found.ranked and name != "no parameters":
        expected += ["slices"] if name == "never together" else ["parallel", "slices"]
    assert [chart.name for chart in charts(found, {})] == expected
    assert page(found, {}, []).rpartition("<table")[2].count("<tr") == 1 + len(found.trials)  # plotly has one too
