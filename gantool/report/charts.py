"""The charts of a search: its history, importances, parallel coordinates, and the metric over each parameter."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from gantool import terminal
from gantool.report.findings import Findings, Parameter, figure, result, round_values, score
from gantool.report.insight import caveat
from gantool.tune.study import disqualified

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Colors close to those of Okabe and Ito, which color-blind people can tell apart. They are seen in light and dark.
_FINISHED, _STOPPED, _FAILED, _BEST, _OWN = "#0072B2", "#C77F00", "#444444", "#D55E00", "#000000"
_MARKERS: dict[str, dict[str, Any]] = {
    "finished": {"symbol": "circle", "color": _FINISHED, "size": 8},
    "copies of training images": {"symbol": "circle-open", "color": _FINISHED, "size": 12, "line": {"width": 2}},
    "stopped early, at its best": {"symbol": "triangle-down", "color": _STOPPED, "size": 9},
    "failed": {"symbol": "x-thin", "size": 8, "line": {"width": 2, "color": _FAILED}},
    "your recipe": {"symbol": "square-open", "color": _OWN, "size": 15, "line": {"width": 2}},
    "winner": {"symbol": "star", "color": _BEST, "size": 16, "line": {"width": 1, "color": "white"}},
    "new seeds": {"symbol": "line-ew", "size": 14, "line": {"width": 2, "color": _BEST}},
}
_LONGEST = 80  # characters of a line that shows on hovering
_AXIS_WIDTH = 120  # pixels of width that an axis of parallel coordinates needs


@dataclass(frozen=True)
class Chart:
    """One or more figures side by side."""

    name: str
    title: str  # what the figures show
    figures: list[Figure]
    min_width: int = 0  # pixels; on a narrower screen the figure scrolls


def charts(findings: Findings, importances: Mapping[str, float]) -> list[Chart]:
    """Draw what a search found.

    Args:
        findings: the trials. If none has finished, only their history is drawn.
        importances: shares by dotted key. If it is empty, their chart is left out.

    Returns:
        The charts in the order in which they are read.
    """
    drawn = [_history(findings)]
    if importances:
        drawn.append(_importances(findings, importances))
    if findings.ranked:
        drawn += [_parallel(findings), _slices(findings)]
    return [chart for chart in drawn if chart.figures]


def _history(findings: Findings) -> Chart:
    """Draw the metric of each trial in the order in which they were started."""
    from plotly.graph_objects import Figure

    drawn, metric = Figure(), _escaped(findings.metric)
    results = sorted(findings.ranked, key=lambda trial: trial.number)
    if results:
        drawn.add_scatter(
            x=[trial.number for trial in results] + [findings.trials[-1].number],
            y=list(itertools.accumulate([*map(result, results), math.inf], min)),
            name="best so far",
            mode="lines",
            line={"color": _BEST, "shape": "hv", "dash": "dot"},
            hoverinfo="skip",
        )
    _add_trials(drawn, findings, {trial.number: trial.number for trial in findings.trials})
    seeds = [(one.number, value) for one in findings.confirmed for value in one.values if math.isfinite(value)]
    if seeds:
        drawn.add_scatter(
            x=[number for number, _ in seeds],
            y=[value for _, value in seeds],
            name="new seeds",
            mode="markers",
            marker=_MARKERS["new seeds"],
            hovertemplate=f"trial %{{x}} with a new seed<br>{metric} %{{y:.4g}}<extra></extra>",
        )
    drawn.update_xaxes(title="trial", zeroline=False)
    drawn.update_layout(yaxis={"title": f"{metric} (lower is better)", **_metric_axis(findings)})
    drawn.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.2, "yanchor": "top"})
    winner = "none has finished" if findings.winner is None else f"the winner is {findings.called(findings.winner)}"
    return Chart("history", f"{findings.metric} of each trial: {winner}", [_styled(drawn, 440)])


def _importances(findings: Findings, importances: Mapping[str, float]) -> Chart:
    """Draw the share of each parameter as a bar, the largest above."""
    from plotly.graph_objects import Figure

    called = {one.key: one.name for one in findings.parameters}
    ranked = sorted((100 * share, called[key]) for key, share in importances.items())
    drawn = Figure()
    drawn.add_bar(
        x=[share for share, _ in ranked],
        y=[_escaped(name) for _, name in ranked],
        orientation="h",
        marker_color=_FINISHED,
        texttemplate="%{x:.0f} %",
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    drawn.update_xaxes(title="importance in %, by PED-ANOVA", range=[0, 1.12 * ranked[-1][0]])
    drawn.update_yaxes(type="category", showgrid=False, ticksuffix=" ")
    title = f"{ranked[-1][1]} mattered most for a low {findings.metric}{caveat(findings)}"
    return Chart("importances", title, [_styled(drawn, 110 + 34 * len(ranked))])


def _parallel(findings: Findings) -> Chart:
    """Draw each result as a line through its values, for the parameters that all results have."""
    from plotly.colors import sample_colorscale
    from plotly.graph_objects import Figure

    results, drawn = findings.ranked, Figure()
    values = {trial.number: findings.values(trial) for trial in results}
    shared = [one for one in findings.parameters if all(one.key in found for found in values.values())]
    if not shared:
        return Chart("parallel", "", [])
    low, high = result(results[0]), result(results[-1])
    metric = Parameter("", findings.metric, FloatDistribution(low, high, log=0 < low < high / 10))
    scale = sample_colorscale("Viridis", [0.0, 0.2, 0.4, 0.6, 0.8])  # without its yellow, which is hard to see
    texts = _hover_texts(findings)
    for trial in sorted(results, key=lambda trial: trial.number == findings.winner):  # the winner above the others
        best, height = trial.number == findings.winner, metric.place(result(trial))
        color = _BEST if best else sample_colorscale(scale, height)[0]
        drawn.add_scatter(
            x=list(range(1 + len(shared))),
            y=[height, *(one.place(values[trial.number][one.key]) for one in shared)],
            mode="lines",
            line={"color": color, "width": 4 if best else 2},
            hovertext=texts[trial.number],
            hoverinfo="text",
        )
    axes = [metric, *shared]
    for index, axis in enumerate(axes):
        for place, text in axis.ticks().items():
            label = {"text": _escaped(text), "font": {"size": 10}, "bgcolor": "white", "borderpad": 1}
            drawn.add_annotation(x=index, y=place, xanchor="right", xshift=-2, showarrow=False, **label)
    names = [_escaped(axis.name) for axis in axes]
    drawn.update_xaxes(tickvals=list(range(len(axes))), ticktext=names, range=[-0.3, len(axes) - 0.8])
    drawn.update_xaxes(gridcolor="#888", zeroline=False)
    drawn.update_layout(showlegend=False, yaxis={"range": [-0.05, 1.05], "visible": False})
    title = f"What led to which {findings.metric}, of the trials that finished"
    title += ", without copies of training images" if len(results) < len(findings.finished) else ""
    title += f"; thick: {findings.called(findings.winner)}, the winner" if findings.winner is not None else ""
    return Chart("parallel", title, [_styled(drawn, 400)], _AXIS_WIDTH * len(axes))


def _slices(findings: Findings) -> Chart:
    """Draw the metric against the values of each parameter, a figure each."""
    from plotly.graph_objects import Figure

    figures = []
    for one in findings.parameters:
        values = {trial.number: findings.values(trial) for trial in findings.trials}
        places = {number: one.place(found[one.key]) for number, found in values.items() if one.key in found}
        if not any(trial.number in places for trial in findings.ranked):
            continue
        drawn, ticks = Figure(), one.ticks()
        _add_trials(drawn, findings, places)
        drawn.update_xaxes(title=_escaped(one.name), range=[-0.05, 1.05], zeroline=False)
        drawn.update_xaxes(tickvals=list(ticks), ticktext=list(map(_escaped, ticks.values())))
        drawn.update_layout(yaxis={"title": _escaped(findings.metric), **_metric_axis(findings)}, showlegend=False)
        figures.append(_styled(drawn, 280))
    return Chart("slices", f"{findings.metric} by the value of each parameter, marked as above", figures)


def _add_trials(drawn: Figure, findings: Findings, places: Mapping[int, float]) -> None:
    """Add the trials that ended, and mark the recipe's own one and the winner.

    Args:
        drawn: the figure.
        findings: the trials.
        places: where trials are on the horizontal axis, by number. The others are left out.
    """
    lost = (TrialState.FAIL, TrialState.COMPLETE)
    groups = {
        "finished": findings.ranked,
        "copies of training images": list(filter(disqualified, findings.finished)),
        "stopped early, at its best": [trial for trial in findings.stopped if math.isfinite(score(trial))],
        "failed": [trial for trial in findings.ended if trial.state in lost and not math.isfinite(result(trial))],
        "your recipe": [trial for trial in findings.measured if trial.number == findings.own],
        "winner": [trial for trial in findings.trials if trial.number == findings.winner],
    }
    texts = _hover_texts(findings)
    for name, trials in groups.items():
        shown = [trial for trial in trials if trial.number in places]
        if not shown:
            continue
        failed = name == "failed"
        drawn.add_scatter(
            x=[places[trial.number] for trial in shown],
            y=[1.0 if failed else score(trial) for trial in shown],  # failed ones stand at the upper edge
            yaxis="y2" if failed else "y",
            name=name,
            mode="markers",
            marker=_MARKERS[name],
            hovertext=[texts[trial.number] for trial in shown],
            hoverinfo="text",
            cliponaxis=False,
        )
        if failed:
            drawn.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False})


def _hover_texts(findings: Findings) -> dict[int, str]:
    """Return what is known of each trial, by number."""
    called, texts = {one.key: one.name for one in findings.parameters}, {}
    for trial in findings.trials:
        lines = [f"trial {trial.number}"]
        if math.isfinite(score(trial)):
            lines.append(f"{findings.metric} {terminal.number(score(trial))}")
        lines += [f"{called[key]} {figure(value)}" for key, value in findings.values(trial).items()]
        if "why" in trial.user_attrs:
            lines += textwrap.wrap(str(trial.user_attrs["why"]), 40, max_lines=3, placeholder=" …")
        texts[trial.number] = "<br>".join(map(_escaped, lines))
    return texts


def _metric_axis(findings: Findings) -> dict[str, Any]:
    """Return the settings of the metric's axis, which is logarithmic if its values are more than ten times apart."""
    known = [score(trial) for trial in findings.measured]
    known += [value for one in findings.confirmed for value in one.values if math.isfinite(value)]
    if not known or not 0 < min(known) < max(known) / 10:
        return {"zeroline": False, "type": "linear"}
    ticks = round_values(min(known), max(known))  # plotly itself writes 200 as a small 2
    return {"type": "log", "tickvals": ticks, "ticktext": list(map(figure, ticks))}


def _escaped(text: str) -> str:
    """Return a line of text for plotly, which reads some HTML."""
    line = " ".join(text.split()) or repr(text)
    return escape(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…", quote=False)


def _styled(drawn: Figure, height: int) -> Figure:
    """Return a figure in the style of the page, which has the titles."""
    drawn.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 55, "r": 15, "t": 25, "b": 45},
        hoverlabel={"bgcolor": "white", "align": "left"},
        dragmode=False,  # a finger that moves over a chart scrolls the page
    )
    return drawn
