"""One page about a search: what it taught, its charts and its trials, in a file that needs no other and no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from optuna.trial import FrozenTrial, TrialState

from gantool import terminal
from gantool.files import disk, write
from gantool.report.charts import charts
from gantool.report.findings import Findings, figure, result, score
from gantool.tune.space import names

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
# What plotly.js shows on hovering; of its other buttons some upload the data.
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
}
_NUMBERS = 4  # columns of the table that are aligned to the right


def write_page(findings: Findings, importances: Mapping[str, float], sentences: Sequence[str], path: Path) -> None:
    """Write the page of a search to a file.

    Args:
        findings: the trials; none need have finished.
        importances: shares by dotted key. If there are none, their chart is left out.
        sentences: what the search taught.
        path: the file. Its folder is made if it does not exist.

    Raises:
        ResourceError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk(path.parent, error) from None
    write(path, page(findings, importances, sentences))


def page(findings: Findings, importances: Mapping[str, float], sentences: Sequence[str]) -> str:
    """Return the HTML of the page of a search."""
    environment = Environment(
        loader=PackageLoader("gantool", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    heads, rows = _table(findings)
    return environment.get_template("page.html").render(
        title=_title(findings),
        made_with=findings.made_with,
        sentences=sentences,
        charts=_embedded(findings, importances),
        metric=findings.metric,
        heads=heads,
        rows=rows,
        numbers=_NUMBERS,
    )


def _title(findings: Findings) -> str:
    found = f"what a search of {terminal.several(len(findings.trials), 'trial')} found"
    return f"{findings.name}: {found}" if findings.name else found.capitalize()


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
    """Return the heads and the rows of the table of trials, the winner first."""
    called = names(findings.keys)
    again = {
        one.number: f"{one} ({terminal.several(len(one.values), 'seed')})" if math.isfinite(one.mean) else str(one)
        for one in findings.confirmed
    }
    heads = ["trial", findings.metric, "epoch", "seconds", *(["new seeds"] if again else []), *called.values()]
    heads += ["state", "what was seen"]
    rows = []
    pairs = sorted(zip(findings.trials, findings.values, strict=True), key=lambda pair: _rank(pair[0], findings))
    for trial, values in pairs:
        seconds = trial.user_attrs.get("seconds")
        cells = [str(trial.number), terminal.number(score(trial)) if math.isfinite(score(trial)) else ""]
        cells += [str(trial.last_step or ""), "" if seconds is None else f"{seconds:.0f}"]
        cells += [again.get(trial.number, "")] if again else []
        cells += [figure(values[key]) if key in values else "" for key in called]
        cells += [STATES[trial.state], _seen(trial, findings)]
        rows.append({"cells": cells, "best": trial.number == findings.winner})
    return heads, rows


def _rank(trial: FrozenTrial, findings: Findings) -> tuple[bool, bool, bool, bool, float, int]:
    """Return a key that puts the winner first, then trials that count, finished, and were at least measured."""
    measured = score(trial)
    return (
        trial.number != findings.winner,
        not math.isfinite(result(trial)),
        not findings.counts(trial),
        trial.state == TrialState.FAIL or not math.isfinite(measured),
        measured if math.isfinite(measured) else 0.0,
        trial.number,
    )


def _seen(trial: FrozenTrial, findings: Findings) -> str:
    """Return what was noticed about a trial: whose values it has, its diagnoses and the reason of its failure."""
    told = [*trial.user_attrs.get("diagnoses", ()), str(trial.user_attrs.get("why", ""))]
    own = ["the recipe's own values"] if trial.number == findings.own else []
    return "; ".join(part for part in own + told if part)
