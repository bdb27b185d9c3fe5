"""The charts of a search: Optuna's own figures, and what they leave out, such as failed trials and the winner."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gantool import terminal
from gantool.report.findings import Findings, by_key, figure, result, score
from gantool.tune.space import COMPLEMENT, names
from gantool.tune.study import disqualified

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Colors close to those of Okabe and Ito, which color-blind people can tell apart. They are seen in light and dark.
_FINISHED, _STOPPED, _FAILED, _BEST, _OWN = "#0072B2", "#C77F00", "#444444", "#D55E00", "#000000"
_MARKERS: dict[str, dict[str, Any]] = {
    "copies of training images": {"symbol": "circle-open", "color": _FINISHED, "size": 12, "line": {"width": 2}},
    "stopped early, at its best": {"symbol": "triangle-down", "color": _STOPPED, "size": 9},
    "failed": {"symbol": "x-thin", "size": 8, "line": {"width": 2, "color": _FAILED}},
    "your recipe": {"symbol": "square-open", "color": _OWN, "size": 15, "line": {"width": 2}},
    "winner": {"symbol": "star", "color": _BEST, "size": 16, "line": {"width": 1, "color": "white"}},
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
        importances: shares by dotted key. If there are none, their chart is left out.

    Returns:
        The charts in the order in which they are read.
    """
    study = _study(findings)
    drawn = [_history(findings, study), _importances(findings, importances)]
    if findings.ranked:
        drawn += [_parallel(findings, study), _slices(findings, study)]
    return [chart for chart in drawn if chart.figures]


def _study(findings: Findings) -> optuna.Study:
    """Return a study for `optuna.visualization`, which shows every complete trial as a result.

    Trials keep their numbers. Only trials that can win are complete. Parameters have their short names, and choices are
    text.
    """
    labels, ranked = _labels(findings), {trial.number for trial in findings.ranked}
    spans = {key: _span(findings, key) for key in labels}
    study = optuna.create_study()
    for trial, values in zip(findings.trials, findings.values, strict=True):
        is_result = trial.number in ranked
        params = {key: by_key(trial.params, key) for key in values}
        params |= {key: _text(params[key]) for key in params if isinstance(spans[key], CategoricalDistribution)}
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_result else TrialState.FAIL,
                value=result(trial) if is_result else None,
                params={labels[key]: value for key, value in params.items()},
                distributions={labels[key]: spans[key] for key in params},
            )
        )
    return study


def _labels(findings: Findings) -> dict[str, str]:
    """Return the name of each parameter on an axis, by dotted key."""
    called = names(findings.keys)
    return {key: _escaped(f"{COMPLEMENT if key in findings.complements else ''}{called[key]}") for key in called}


def _span(findings: Findings, key: str) -> BaseDistribution:
    """Return the range of a parameter, with its choices as text."""
    span = next(span for trial in findings.trials if (span := by_key(trial.distributions, key)) is not None)
    if isinstance(span, CategoricalDistribution):
        return CategoricalDistribution(list(dict.fromkeys(map(_text, span.choices))))
    return span


def _text(value: Any) -> str:
    return _escaped(figure(value))


def _escaped(text: str) -> str:
    """Return a line of text for plotly, which reads some HTML."""
    line = " ".join(text.split()) or repr(text)
    return escape(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…", quote=False)


def _history(findings: Findings, study: optuna.Study) -> Chart:
    """Draw the metric of each trial in the order in which they were started."""
    from optuna.visualization import plot_optimization_history
    from plotly.graph_objects import Figure

    metric, best = _escaped(findings.metric), findings.best
    drawn = Figure()
    if findings.ranked:
        drawn = plot_optimization_history(study, target_name=metric)
        results, line = drawn.data[:2]
        line.update(name="best so far", line={"color": _BEST, "shape": "hv", "dash": "dot"}, hoverinfo="skip")
        drawn.data = [line, results]
        _describe(drawn, findings, results.x)
    _add_others(drawn, findings, {trial.number: trial.number for trial in findings.trials})
    seeds = [(one.number, value) for one in findings.confirmed for value in one.values if math.isfinite(value)]
    if seeds:
        drawn.add_scatter(
            x=[number for number, _ in seeds],
            y=[value for _, value in seeds],
            name="new seeds",
            mode="markers",
            marker={"symbol": "line-ew", "size": 14, "line": {"width": 2, "color": _BEST}},
            hovertemplate=f"trial %{{x}} with a new seed<br>{metric} %{{y:.4g}}<extra></extra>",
        )
    drawn.update_xaxes(title="trial", zeroline=False)
    drawn.update_layout(yaxis={"title": f"{metric} (lower is better)", "zeroline": False, **_metric_axis(findings)})
    drawn.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.2, "yanchor": "top"})
    winner = f"the winner is {findings.called(best.number)}" if best else "none has finished"
    return Chart("history", f"{findings.metric} of each trial: {winner}", [_styled(drawn, 440)])


def _describe(drawn: Figure, findings: Findings, numbers: Iterable[int]) -> None:
    """Set the name, the color and the hover texts of Optuna's points, which are trials of these numbers."""
    texts = _hover_texts(findings)
    drawn.update_traces(
        {
            "name": "finished",
            "marker": {"color": _FINISHED, "size": 8, "showscale": False},
            "hovertext": [texts[number] for number in numbers],
            "hoverinfo": "text",
        },
        selector={"mode": "markers"},
    )


def _add_others(drawn: Figure, findings: Findings, places: Mapping[int, Any]) -> None:
    """Add the trials that are no results, which Optuna leaves out, and mark the recipe's own one and the winner.

    Args:
        drawn: a figure of Optuna's.
        findings: the trials.
        places: where trials are on the horizontal axis, by number. The others are left out.
    """
    ended = {
        "copies of training images": list(filter(disqualified, findings.finished)),
        "stopped early, at its best": [trial for trial in findings.measured if trial.state == TrialState.PRUNED],
        "failed": findings.unmeasured,
        "your recipe": [trial for trial in findings.measured if trial.number == findings.own],
        "winner": [findings.best] if findings.best else [],
    }
    texts = _hover_texts(findings)
    for name, trials in ended.items():
        shown = [trial for trial in trials if trial.number in places]
        failed = name == "failed"
        if not shown:
            continue
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
    called, texts = names(findings.keys), {}
    for trial, values in zip(findings.trials, findings.values, strict=True):
        lines = [f"trial {trial.number}", *(f"{called[key]} {figure(value)}" for key, value in values.items())]
        if math.isfinite(score(trial)):
            lines.insert(1, f"{findings.metric} {terminal.number(score(trial))}")
        if "why" in trial.user_attrs:
            lines += textwrap.wrap(str(trial.user_attrs["why"]), 40, max_lines=3, placeholder=" …")
        texts[trial.number] = "<br>".join(map(_escaped, lines))
    return texts


def _importances(findings: Findings, importances: Mapping[str, float]) -> Chart:
    """Draw the share of each parameter; `plot_param_importances` would compute other ones, from results alone."""
    from plotly.graph_objects import Bar, Figure

    if not importances:
        return Chart("importances", "", [])
    ranked = sorted(importances.items(), key=lambda pair: pair[1])
    called = names([*findings.keys, *importances])
    shares = [100 * share for _, share in ranked]
    labels = [_escaped(called[key]) for key, _ in ranked]
    drawn = Figure(
        Bar(
            x=shares,
            y=labels,
            orientation="h",
            marker_color=_FINISHED,
            texttemplate="%{x:.0f} %",
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
    )
    drawn.update_xaxes(title="importance in %, by PED-ANOVA", range=[0, 1.12 * max(shares)])
    drawn.update_yaxes(type="category", showgrid=False, ticksuffix=" ")
    title = f"{called[ranked[-1][0]]} mattered most for a low {findings.metric}{findings.caveat}"
    return Chart("importances", title, [_styled(drawn, 110 + 34 * len(ranked))])


def _parallel(findings: Findings, study: optuna.Study) -> Chart:
    """Draw each result as a line through its values, for the parameters that all of them have."""
    from optuna.visualization import plot_parallel_coordinate

    results = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    shared = [label for label in results[0].params if all(label in trial.params for trial in results)]
    if not shared:
        return Chart("parallel", "", [])
    metric = _escaped(findings.metric)
    if _spans_orders(result(trial) for trial in findings.ranked):
        drawn = plot_parallel_coordinate(
            study, shared, target=lambda trial: math.log10(trial.values[0]), target_name=f"log10 of {metric}"
        )
    else:
        drawn = plot_parallel_coordinate(study, shared, target_name=metric)
    title = f"What led to which {findings.metric}, of the trials that finished"
    title += ", without copies of training images" if len(findings.ranked) < len(findings.finished) else ""
    drawn.update_traces(labelangle=0, selector={"type": "parcoords"})  # Optuna 4's one trace of all trials
    if drawn.data[0].type == "scatter":  # Optuna 5's line a trial
        _color_lines(drawn, results, findings.winner)
        title += f"; thick: {findings.called(findings.winner)}, the winner" if findings.winner is not None else ""
    return Chart("parallel", title, [_styled(drawn, 400)], _AXIS_WIDTH * (1 + len(shared)))


def _color_lines(drawn: Figure, results: list[FrozenTrial], winner: int | None) -> None:
    """Color the lines of parallel coordinates so that those of high values are seen too, and mark the winner's."""
    from plotly.colors import sample_colorscale

    scale = sample_colorscale("Viridis", [0.0, 0.2, 0.4, 0.6, 0.8])  # without its yellow, which is hard to see
    heights = [line.y[0] for line in drawn.data[: len(results)]]  # of the metric, which is the first axis, from 0 to 1
    for line, trial, color in zip(drawn.data, results, sample_colorscale(scale, heights), strict=False):
        best = trial.number == winner
        line.update(
            line={"color": _BEST if best else color, "width": 4 if best else 2}, opacity=1, zorder=1 if best else 0
        )
    drawn.data[-1].marker.update(colorscale=scale, reversescale=False)
    drawn.update_annotations(bgcolor="rgba(255, 255, 255, 0.7)")


def _slices(findings: Findings, study: optuna.Study) -> Chart:
    """Draw the metric against the values of each parameter, a figure each."""
    from optuna.visualization import plot_slice

    drawn = []
    for key, label in _labels(findings).items():
        if not any(trial.state == TrialState.COMPLETE and label in trial.params for trial in study.trials):
            continue  # Optuna raises an error where no result has the parameter
        one = plot_slice(study, [label], target_name=_escaped(findings.metric))
        places = {trial.number: trial.params[label] for trial in study.trials if label in trial.params}
        span = _span(findings, key)
        if isinstance(span, CategoricalDistribution):
            shown = dict(zip(span.choices, one.layout.xaxis.categoryarray, strict=True))  # Optuna 5 quotes them
            places = {number: shown[choice] for number, choice in places.items()}
            one.update_xaxes(tickvals=list(shown.values()), ticktext=list(shown))
        elif isinstance(span, FloatDistribution | IntDistribution):
            one.update_xaxes(**_ends(span, key in findings.complements))
        if key in findings.complements:
            one.update_xaxes(title=_escaped(names(findings.keys)[key]))
        _describe(one, findings, one.data[0].marker.color)
        _add_others(one, findings, places)
        one.update_layout(showlegend=False, yaxis={"zeroline": False, **_metric_axis(findings)})
        drawn.append(_styled(one, 280))
    return Chart("slices", f"{findings.metric} by the value of each parameter, marked as above", drawn)


def _ends(span: FloatDistribution | IntDistribution, complements: bool) -> dict[str, Any]:
    """Return the settings of an axis that is as wide as a range, so that values at its ends are seen.

    On a mirrored axis, 1 - value is drawn from right to left, with the values themselves beside it.
    """
    low, high = (math.log10(end) if span.log else float(end) for end in (span.low, span.high))
    room = 0.05 * (high - low) or 0.5
    ends = [high + room, low - room] if complements else [low - room, high + room]
    return {"range": ends, **(_ticks(span.low, span.high, complements) if span.log else {})}


def _ticks(low: float, high: float, complements: bool = False) -> dict[str, Any]:
    """Return the ticks of a logarithmic axis; plotly itself writes 2e-4 as a small 2."""
    decades = math.log10(high / low)
    leads = (1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, 1 + math.floor(decades / 8))
    ticks = [float(f"{lead}e{power}") for power in powers for lead in leads]
    if sum(low <= tick <= high for tick in ticks) < 2:
        return {}
    return {"tickvals": ticks, "ticktext": [figure(1 - tick if complements else tick) for tick in ticks]}


def _metric_axis(findings: Findings) -> dict[str, Any]:
    """Return the settings of the metric's axis, which is logarithmic if its values are more than ten times apart."""
    known = [score(trial) for trial in findings.measured]
    known += [value for one in findings.confirmed for value in one.values if math.isfinite(value)]
    return {"type": "log", **_ticks(min(known), max(known))} if _spans_orders(known) else {"type": "linear"}


def _spans_orders(values: Iterable[float]) -> bool:
    """Return whether values are positive and more than ten times apart."""
    known = list(values)
    return bool(known) and 0 < min(known) < max(known) / 10


def _styled(drawn: Figure, height: int) -> Figure:
    """Return a figure in the style of the page, which has the titles."""
    drawn.update_layout(
        template="plotly_white",
        title=None,
        height=height,
        margin={"l": 55, "r": 15, "t": 25, "b": 45},
        hoverlabel={"bgcolor": "white", "align": "left"},
        dragmode=False,  # a finger that moves over a chart scrolls the page
    )
    return drawn
