"""The plots of a search: how it went, what mattered, and which values led to which metric."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gantool.report.findings import Findings, result, score
from gantool.report.scales import Scale, metric_scale, scale_of
from gantool.tune.space import names
from gantool.tune.study import disqualified

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, and matplotlib's viridis: the colour-blind tell them apart.
_FINISHED, _STOPPED, _FAILED, _BEST, _QUIET = "#0072B2", "#E69F00", "#444444", "#D55E00", "#B4B4B4"
_STAR: dict[str, Any] = {"marker": "*", "color": _BEST, "edgecolors": "white", "linewidths": 0.7}
_COLUMNS = 3  # of scatter plots
_LETTERS = 28  # that stand side by side below a scatter plot
_GOLDEN = 0.618  # multiples of the golden section spread numbers evenly


def _figure(width: float, height: float, title: str) -> Figure:
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    figure = Figure(figsize=(width, height), label=title)
    figure.suptitle(textwrap.fill(title, int(9.5 * width)), x=0.01, ha="left")
    return figure


def history(findings: Findings) -> Figure:
    """Draw the metric of each trial in the order in which they came."""
    best = findings.best
    told = f"the winner is {findings.called(best.number)}" if best else "none has finished"
    figure = _figure(8, 4, f"{findings.metric} of each trial: {told}")
    axes = figure.add_subplot(xlabel="trial", ylabel=f"{findings.metric} (lower is better)")
    seeds = [(one.number, value) for one in findings.confirmed for value in one.values if math.isfinite(value)]
    scale = metric_scale([*map(score, findings.measured), *(value for _, value in seeds)])
    _label(axes.yaxis, scale)
    axes.set_ylim(scale.low, scale.high)
    for label, trials, look in _groups(findings):
        places = [scale.place(score(trial)) for trial in trials]
        axes.scatter([trial.number for trial in trials], places, label=label, zorder=3, **look)
    if seeds:
        places = [scale.place(value) for _, value in seeds]
        axes.scatter([number for number, _ in seeds], places, s=90, marker="_", color=_BEST, label="other seeds")
    _mark_failures(axes, [trial.number for trial in findings.unmeasured])
    _best_so_far(axes, findings, scale)
    last = max((trial.number for trial in findings.trials), default=0)
    _label(axes.xaxis, Scale("linear", 0, max(1, last), whole=True))
    axes.set_xlim(-0.5 - last / 80, max(1, last) + 0.5 + last / 80)
    _legend(figure, axes)
    return figure


def _groups(findings: Findings) -> list[tuple[str, list[FrozenTrial], dict[str, Any]]]:
    """Sort the measured trials by their state, each with the look of its points."""
    measured = findings.measured
    stopped = [trial for trial in measured if not math.isfinite(result(trial))]
    copies = [trial for trial in measured if math.isfinite(result(trial)) and disqualified(trial)]
    sound = [trial for trial in measured if trial not in stopped and trial not in copies]
    groups: list[tuple[str, list[FrozenTrial], dict[str, Any]]] = [
        ("finished", sound, {"color": _FINISHED}),
        ("copies of training images", copies, {"facecolors": "white", "edgecolors": _FINISHED}),
        ("stopped early, at its best", stopped, {"color": _STOPPED, "marker": "v", "s": 24}),
    ]
    return [group for group in groups if group[1]]


def _mark_failures(axes: Axes, places: Sequence[float]) -> None:
    """Put crosses at the upper edge."""
    if places:
        look: dict[str, Any] = {"marker": "x", "color": _FAILED, "s": 28, "linewidths": 1.2, "clip_on": False}
        axes.scatter(
            places, [1.0] * len(places), transform=axes.get_xaxis_transform(), label="failed", zorder=4, **look
        )


def _best_so_far(axes: Axes, findings: Findings, scale: Scale) -> None:
    ranked = sorted(findings.ranked, key=lambda trial: trial.number)
    if not ranked:
        return
    low = list(accumulate(map(result, ranked), min))
    numbers = [trial.number for trial in ranked]
    places = [scale.place(value) for value in low]
    last = max(trial.number for trial in findings.ended)
    axes.step([*numbers, last], [*places, places[-1]], where="post", color=_BEST, label="best so far", zorder=2)
    if findings.best is not None:
        axes.scatter(findings.best.number, scale.place(result(findings.best)), s=170, zorder=5, label="winner", **_STAR)


def _legend(figure: Figure, *grid: Axes) -> None:
    """Say once what each kind of point means, whichever plots have it."""
    known = {}
    for axes in grid:
        known.update({label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    if known:
        columns = math.ceil(len(known) / math.ceil(len(known) / 4))
        figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=columns)


def _label(axis: Axis, scale: Scale) -> None:
    ticks = scale.ticks()
    axis.set_ticks(list(ticks), list(ticks.values()))


def importances(findings: Findings, importances: dict[str, float]) -> Figure | None:
    """Draw how much each parameter mattered."""
    if not importances:
        return None
    ranked = sorted(importances.items(), key=lambda pair: pair[1])
    called = names([*findings.keys, *importances])
    title = f"{called[ranked[-1][0]]} mattered most for a low {findings.metric}{findings.caveat}"
    figure = _figure(8, 1.5 + 0.36 * len(ranked), title)
    axes = figure.add_subplot(xlabel="share of the importance (%), by PED-ANOVA")
    shares = [100 * share for _, share in ranked]
    bars = axes.barh([called[key] for key, _ in ranked], shares, color=_FINISHED, height=0.65)
    axes.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=4)
    axes.set_xlim(0, 1.12 * max(shares))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


def parallel(findings: Findings) -> Figure | None:
    """Draw each trial as a line through its values to its metric."""
    if not findings.keys:
        return None
    scales = {key: scale_of(findings, key) for key in findings.keys}
    metric = metric_scale(map(result, findings.finished))
    called = [*names(findings.keys).values(), findings.metric]
    room = max(1.4, 0.11 * max(map(len, called)))
    figure = _figure(max(7, 1 + len(called) * room), 4.8, _crowd(findings))
    axes = figure.add_subplot(xlim=(-0.2, len(scales) + 0.6), ylim=(-0.04, 1.04), yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(called)), called)
    axes.tick_params(axis="x", length=0, labelsize=11)
    ranks = {trial.number: rank for rank, trial in enumerate(findings.ranked)}
    for trial, values in zip(findings.trials, findings.values, strict=True):
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        heights = [scale.share(values[key]) if key in values else math.nan for key, scale in scales.items()]
        look = _line(trial, findings, metric.share(result(trial)))
        depth = 3 - ranks.get(trial.number, len(ranks)) / (len(ranks) + 1)  # the better, the nearer
        axes.plot([*heights, metric.share(result(trial))], **{"zorder": depth, **look})
    for place, scale in enumerate([*scales.values(), metric]):
        _upright(axes, place, scale)
    shades = [[step / 100] for step in range(100)]
    steps = [step / 100 for step in range(101)]
    axes.pcolormesh([len(scales) - 0.025, len(scales) + 0.025], steps, shades, cmap="viridis", zorder=5)
    return figure


def _crowd(findings: Findings) -> str:
    grey = "; thin and grey: stopped early" if any(trial.state == TrialState.PRUNED for trial in findings.ended) else ""
    best = f"; thick: trial {findings.best.number}, the winner" if findings.best else ""
    return f"What led to which {findings.metric}{best}{grey}"


def _line(trial: FrozenTrial, findings: Findings, share: float) -> dict[str, Any]:
    """Give the look of a trial's line; a point between two gaps is seen by its marker."""
    import matplotlib

    if findings.best is not None and trial.number == findings.best.number:
        return {"color": _BEST, "linewidth": 3, "marker": "o", "markersize": 6, "zorder": 4}
    if not math.isfinite(share):
        return {"color": _QUIET, "linewidth": 0.6, "marker": ".", "markersize": 2, "zorder": 1}
    return {"color": matplotlib.colormaps["viridis"](share), "linewidth": 1.2, "marker": ".", "markersize": 4}


def _upright(axes: Axes, place: int, scale: Scale) -> None:
    """Draw an axis with its ticks at its right side."""
    axes.vlines(place, 0, 1, color="black", linewidth=0.8, zorder=4)
    for at, text in scale.ticks().items():
        height = (at - scale.low) / (scale.high - scale.low)
        axes.hlines(height, place, place + 0.03, color="black", linewidth=0.8, zorder=4)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
        axes.text(place + 0.06, height, text, va="center", fontsize=8, bbox=box, zorder=6)


def slices(findings: Findings) -> Figure | None:
    """Draw the metric against the values of each parameter."""
    if not findings.keys:
        return None
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    called = names(findings.keys)
    columns, rows = min(_COLUMNS, len(called)), math.ceil(len(called) / _COLUMNS)
    figure = _figure(max(5.5, 3.3 * columns + 0.8), 2.7 * rows + 1, f"{findings.metric} by the value of each parameter")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    metric = metric_scale(map(score, findings.measured))
    last = max((trial.number for trial in findings.trials), default=0)
    for axes, key in zip(grid.flat, called, strict=False):
        _slice(axes, findings, key, metric, last)
        axes.set_xlabel(called[key])
    for axes in list(grid.flat)[len(called) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{findings.metric} (lower is better)")
    if findings.finished:
        shades = ScalarMappable(Normalize(0, max(1, last)), "viridis")
        ticks = list(Scale("linear", 0, max(1, last), whole=True).ticks())
        bar = figure.colorbar(shades, ax=grid, label="trial", ticks=ticks, aspect=40, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
    _legend(figure, *grid.flat)
    return figure


def _slice(axes: Axes, findings: Findings, key: str, metric: Scale, last: int) -> None:
    scale = scale_of(findings, key)
    _label(axes.xaxis, scale)
    _label(axes.yaxis, metric)
    if sum(map(len, scale.choices)) > _LETTERS:
        axes.tick_params(axis="x", labelrotation=15)
    room = 0.04 * (scale.high - scale.low)
    axes.set(xlim=(scale.low - room, scale.high + room), ylim=(metric.low, metric.high))
    # Choices have few places: trials with the same one stand side by side.
    apart = 0.4 if scale.kind == "choice" else 0.0
    known = zip(findings.trials, findings.values, strict=True)
    places = {
        trial.number: scale.place(values[key]) + apart * (trial.number * _GOLDEN % 1 - 0.5)
        for trial, values in known
        if key in values
    }
    for label, trials, look in _groups(findings):
        shown = [trial for trial in trials if trial.number in places]
        at, up = [places[trial.number] for trial in shown], [metric.place(score(trial)) for trial in shown]
        if label == "finished":
            numbers = [trial.number for trial in shown]
            axes.scatter(at, up, c=numbers, cmap="viridis", vmin=0, vmax=max(1, last), s=26, label=label, zorder=3)
        else:
            axes.scatter(at, up, **{**look, "s": 16, "zorder": 2}, label=label)
    _mark_failures(axes, [places[trial.number] for trial in findings.unmeasured if trial.number in places])
    best = findings.best
    if best is not None and best.number in places:
        axes.scatter(places[best.number], metric.place(score(best)), s=170, label="winner", zorder=5, **_STAR)
