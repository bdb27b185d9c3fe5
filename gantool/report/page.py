"""One page about a search: what it taught, its plots and its trials, in a file that needs no other."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from gantool import terminal
from gantool.report.findings import Findings, figure, result, score
from gantool.tune.space import names

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --back: #fff; --quiet: #6b6b70; --line: #d8d8dc; --mark: #fdf0e6 }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececf0; --back: #161618; --quiet: #a0a0a8; --line: #3a3a40; --mark: #3d2a1a }
}
body { margin: 0 auto; max-width: 70rem; padding: 1rem; color: var(--text); background: var(--back);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.2 } h2 { font-size: 1.15rem; margin-top: 2rem }
figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto; background: #fff; border-radius: 0.4rem }
.table { overflow-x: auto } table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.25rem 0.7rem 0.25rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
th { color: var(--quiet); font-weight: 600 } td:last-child { white-space: normal; min-width: 12rem }
.number { text-align: right } .best td { background: var(--mark); font-weight: 600 }
""".strip()


def page(findings: Findings, sentences: Sequence[str], pictures: Iterable[tuple[Path, str]]) -> str:
    """Write the page.

    Args:
        findings: whose trials it lists, the best first.
        sentences: what the search taught.
        pictures: PNG files and what they show, in words.
    """
    told = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    made_with = f"<p>{escape(findings.made_with)}</p>\n" if findings.made_with else ""
    plots = "".join(f"{_picture(path, what)}\n" for path, what in pictures)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_title(findings))}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        f"<h1>{escape(_title(findings))}</h1>\n{made_with}<ul>\n{told}</ul>\n{plots}"
        f"<h2>Trials: the winner, then the lowest {escape(findings.metric)} with one seed</h2>\n"
        f'<div class="table">\n{_table(findings)}</div>\n</body>\n</html>\n'
    )


def _title(findings: Findings) -> str:
    count = len(findings.trials)
    return f"What a search of {count} trial{'' if count == 1 else 's'} found"


def _picture(path: Path, what: str) -> str:
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{encoded}" alt="{escape(what)}"></figure>'


def _table(findings: Findings) -> str:
    called = names(findings.keys)
    again = {
        one.number: f"{one} ({terminal.several(len(one.values), 'seed')})" if math.isfinite(one.mean) else str(one)
        for one in findings.confirmed
    }
    numbers = ("trial", findings.metric, "epoch", "seconds")
    heads = [*numbers, *(["new seeds"] if again else []), *called.values(), "state", "what was seen"]
    lines = [f"<tr>{''.join(_cell('th', head, head in numbers) for head in heads)}</tr>\n"]
    rows = sorted(zip(findings.trials, findings.values, strict=True), key=lambda row: _rank(row[0], findings))
    best = findings.best
    for trial, values in rows:
        told = trial.user_attrs
        seconds = f"{told['seconds']:.0f}" if "seconds" in told else ""
        measured = [str(trial.number), _score(trial), str(trial.last_step or ""), seconds]
        rest = [again.get(trial.number, "")] if again else []
        rest += [figure(values[key]) if key in values else "" for key in called]
        rest += [STATES[trial.state], _seen(trial, findings)]
        cells = "".join([_cell("td", text, True) for text in measured] + [_cell("td", text, False) for text in rest])
        mark = ' class="best"' if best is not None and trial.number == best.number else ""
        lines.append(f"<tr{mark}>{cells}</tr>\n")
    return f"<table>\n{''.join(lines)}</table>\n"


def _cell(kind: str, text: str, number: bool) -> str:
    look = ' class="number"' if number else ""
    return f"<{kind}{look}>{escape(text)}</{kind}>"


def _rank(trial: FrozenTrial, findings: Findings) -> tuple[bool, bool, bool, bool, float, int]:
    """Put the winner first, then those that finished well, finished, and were at least measured."""
    best, measured = findings.best, score(trial)
    return (
        best is None or trial.number != best.number,
        not math.isfinite(result(trial)),
        not findings.counts(trial),
        trial.state == TrialState.FAIL or not math.isfinite(measured),
        measured if math.isfinite(measured) else 0.0,
        trial.number,
    )


def _score(trial: FrozenTrial) -> str:
    return terminal.number(score(trial)) if math.isfinite(score(trial)) else ""


def _seen(trial: FrozenTrial, findings: Findings) -> str:
    told = [*trial.user_attrs.get("diagnoses", ()), str(trial.user_attrs.get("why", ""))]
    own = ["the recipe's own values"] if trial.number == findings.own else []
    return "; ".join(part for part in own + told if part)
