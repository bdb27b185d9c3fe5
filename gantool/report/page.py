"""One page about a search: what it found, its charts and its trials, in a file that needs no other and no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from optuna.trial import FrozenTrial, TrialState

from gantool import terminal
from gantool.files import output, remove
from gantool.report.charts import charts
from gantool.report.findings import Findings, figure, score
from gantool.runs import STUDY

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
# What plotly.js shows on hovering. Some of its other buttons upload the data.
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
}
_OLD_FILES = ("history.png", "importances.png", "parallel.png", "slices.png")  # of reports before they were one page


def write_page(findings: Findings, importances: Mapping[str, float], sentences: Sequence[str], path: Path) -> None:
    """Write the page of a search to a file, and delete the PNG files of a study's older report.

    Args:
        findings: the trials; none need have finished.
        importances: shares by dotted key. If it is empty, their chart is left out.
        sentences: what the search found.
        path: the file. Its folder is made if it does not exist.

    Raises:
        ResourceError: the file cannot be written.
    """
    output(path, page(findings, importances, sentences))
    if (path.parents[1] / STUDY).is_file():  # so the folder is a study's own, and not one of the user
        for name in _OLD_FILES:
            remove(path.parent / name)


def page(findings: Findings, importances: Mapping[str, float], sentences: Sequence[str]) -> str:
    """Return the HTML of the page of a search."""
    environment = Environment(
        loader=PackageLoader("gantool", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    found = f"what a search of {terminal.several(len(findings.trials), 'trial')} found"
    heads, rows = _table(findings)
    return environment.get_template("page.html").render(
        title=f"{findings.name}: {found}" if findings.name else found.capitalize(),
        made_with=findings.made_with,
        sentences=sentences,
        charts=_embedded(findings, importances),
        metric=findings.metric,
        heads=heads,
        rows=rows,
        numbers=4,  # columns that are aligned to the right
    )


def _embedded(findings: Findings, importances: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the charts as HTML; the first figure brings plotly.js for all."""
    drawn: list[dict[str, Any]] = []
    for chart in charts(findings, importances):
        figures = [
            one.to_html(
                full_html=False,
                include_plotlyjs=not drawn and index == 0,
                div_id=f"{chart.name}-{index}",  # not a random one, so that the same findings give the same page
                config=_CONFIG,
            )
            for index, one in enumerate(chart.figures)
        ]
        drawn.append({"title": chart.title, "min_width": chart.min_width, "figures": figures})
    return drawn


def _table(findings: Findings) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the heads and the rows of the table of trials.

    The winner is first. It is followed by the trials that finished, were stopped, and failed, the lowest metric first.
    """
    again = {
        one.number: f"{one} ({terminal.several(len(one.values), 'seed')})" if math.isfinite(one.mean) else str(one)
        for one in findings.confirmed
    }
    heads = ["trial", findings.metric, "epoch", "seconds", *(["new seeds"] if again else [])]
    heads += [*(one.name for one in findings.parameters), "state", "what was seen"]
    winner = [trial for trial in findings.trials if trial.number == findings.winner]
    ranked = [*winner, *findings.ranked, *sorted(findings.finished, key=score)]
    ranked += [*sorted(findings.measured, key=score), *findings.trials]
    rows = []
    for trial in {trial.number: trial for trial in ranked}.values():
        seconds, values = trial.user_attrs.get("seconds"), findings.values(trial)
        cells = [str(trial.number), terminal.number(score(trial)) if math.isfinite(score(trial)) else ""]
        cells += [str(trial.last_step or ""), "" if seconds is None else f"{seconds:.0f}"]
        cells += [again.get(trial.number, "")] if again else []
        cells += [figure(values[one.key]) if one.key in values else "" for one in findings.parameters]
        cells += [STATES[trial.state], _seen(trial, findings)]
        rows.append({"cells": cells, "best": trial.number == findings.winner})
    return heads, rows


def _seen(trial: FrozenTrial, findings: Findings) -> str:
    """Return what was noticed about a trial: whose values it has, its diagnoses and the reason of its failure."""
    own = "your recipe" if trial.number == findings.own else ""
    return "; ".join(filter(None, [own, *trial.user_attrs.get("diagnoses", ()), str(trial.user_attrs.get("why", ""))]))
