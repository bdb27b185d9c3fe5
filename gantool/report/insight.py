"""What a search taught: which parameters mattered, where trials failed, and whether the best one stays it."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gantool import terminal
from gantool.report.findings import Findings, by_key, figure, is_number, result, score
from gantool.tune.race import Confirmed
from gantool.tune.space import COMPLEMENT, names, short

__all__ = ["Confirmed", "Findings", "importances", "sentences", "short"]

MIN_FINISHED = 8  # finished trials, below which nothing is said of parameters
MIN_IMPORTANCE = 0.05  # of importance, below which a second parameter is not worth a word
FAILURES, OTHERS = 3, 5  # failed and other trials, below which it is easily chance that a parameter tells them apart
BEST_TRIALS = 5  # trials that count as the best ones
END_SHARE = 0.02  # of a range, within which a value is at its end
EDGE_SHARE = 0.1  # of a range, at each of its ends
MAX_REASON_LENGTH = 100  # letters of a reason in a sentence
MAX_SENTENCES = 5  # sentences, for more are not read


def importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Share out among the parameters what makes a trial one of the best, by PED-ANOVA (arXiv:2304.10255).

    Args:
        trials: those of a search; what was stopped early counts with the best that it was measured at. Too few, or
            equal ones, tell nothing.

    Returns:
        Shares that sum to 1 by dotted key, the largest first. A key that some trial lacks has none: the few trials that
        have it would make it seem to matter.
    """
    # It imports scikit-learn where that is installed: a second that only a report is worth.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    measured = [trial for trial in trials if trial.state in ended and math.isfinite(score(trial))]
    scores = [score(trial) for trial in measured]
    if len(scores) < MIN_FINISHED or min(scores) == max(scores):
        return {}
    known = [
        create_trial(value=score(trial), params=_keyed(trial.params), distributions=_keyed(trial.distributions))
        for trial in measured
    ]
    spans = known[0].distributions.items()
    shared = [key for key, span in spans if not span.single() and all(key in trial.params for trial in known)]
    if not shared:
        return {}
    # Fewer good trials than five tell merit badly from chance, so that of few trials more than a tenth count as good.
    quantile = max(0.1, min(0.5, BEST_TRIALS / len(scores)))
    study = optuna.create_study()
    study.add_trials(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls parts of itself experimental, and few trials few
        try:
            evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
            found = get_param_importances(study, evaluator=evaluator, params=shared)
        except ValueError:
            return {}
    shares = sorted(found.items(), key=lambda pair: -pair[1])
    alike = len(shares) > 1 and shares[0][1] == shares[-1][1]  # what Optuna gives where it has learned nothing
    if alike or not all(math.isfinite(share) for _, share in shares):
        return {}
    return dict(shares)


def _keyed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return Optuna's values or distributions by dotted key, whichever version named them."""
    return {name.removeprefix(COMPLEMENT): value for name, value in values.items()}


def sentences(findings: Findings, importances: dict[str, float]) -> list[str]:
    """Return what a search taught, the weightiest sentence first."""
    told = (
        _verdict(findings),
        _history(findings),
        _mattered(findings, importances),
        _failures(findings, importances),
        _edges(findings) or at_an_edge(findings),
        _stopped(findings),
    )
    return [sentence for sentence in told if sentence][:MAX_SENTENCES]


def _verdict(findings: Findings) -> str | None:
    """Return whether the best setting beats the recipe's own values."""
    if findings.verdict is None:
        return None
    told = findings.verdict.sentence()
    return f"trial {findings.verdict.number} is {told}" if findings.verdict.kind == "better" else told


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _history(findings: Findings) -> str | None:
    """Return which trial had the lowest metric with the search's own seed, and whether later ones improved on it."""
    ended = len(findings.ended)
    if not findings.ranked:
        return f"none of {ended} trials finished" if ended > 1 else None
    lowest = findings.ranked[0]
    told = f"{findings.metric} {terminal.number(result(lowest))}"
    if any(result(trial) < result(lowest) for trial in findings.finished):
        told += "; copies of training images left out"
    later = sum(trial.number > lowest.number for trial in findings.ended)
    if ended == 1:
        return f"one trial finished, with {told}: it takes more to learn from"
    if not later:
        return (
            f"with one seed the last trial, {lowest.number}, was the lowest ({told}): more trials may find a lower one"
        )
    who = "the recipe's own values were" if lowest.number == findings.own else f"trial {lowest.number} was"
    last = f"the last {later} of {ended} trials were" if later > 1 else f"the last of {ended} trials was"
    return f"with one seed {who} the lowest ({told}); {last} not lower"


def _mattered(findings: Findings, importances: dict[str, float]) -> str | None:
    """Return which parameters mattered most."""
    ranked = sorted(importances, key=lambda key: -importances[key])
    if len(ranked) < 2:
        return None  # of the only one it goes without saying
    called = names([*findings.keys, *ranked])
    shares = [f"({100 * importances[key]:.0f} %)" for key in ranked]
    told = f"{called[ranked[0]]} mattered most {shares[0]}"
    if importances[ranked[1]] >= MIN_IMPORTANCE:
        told += f", then {called[ranked[1]]} {shares[1]}"
    return told + findings.caveat


def _failures(findings: Findings, importances: dict[str, float]) -> str | None:
    """Return how many trials failed, and where or why."""
    failed = [trial for trial in findings.ended if trial.state == TrialState.FAIL]
    if not failed:
        return None
    told = f"{len(failed)} of {len(findings.ended)} failed"
    where = [_separation(findings, key, importances.get(key, 0.0)) for key in findings.keys]
    found = [one for one in where if one]
    if found:
        return f"{told}, all with {min(found)[2]}"
    reasons = [str(trial.user_attrs["why"]).partition(":")[0].strip() for trial in failed if "why" in trial.user_attrs]
    if not reasons:
        return told
    reason, times = Counter(reasons).most_common(1)[0]
    often = ":" if times == len(failed) else ", most often:"
    return f"{told}{often} {textwrap.shorten(reason, MAX_REASON_LENGTH, placeholder='…')}"


def _separation(findings: Findings, key: str, importance: float) -> tuple[int, float, str] | None:
    """Return the side of a threshold that holds all failed trials and few of the others, behind its rank."""
    failed: list[Any] = []
    others: list[Any] = []
    for trial, values in zip(findings.trials, findings.values, strict=True):
        if trial.state == TrialState.FAIL:
            failed.append(values.get(key))
        elif trial.state.is_finished() and key in values:
            others.append(values[key])
    if len(failed) < FAILURES or len(others) < OTHERS or not all(map(is_number, failed + others)):
        return None
    for side, sign in (("above", 1), ("below", -1)):
        edge = min(sign * value for value in failed)
        within = [value for value in others if sign * value < edge]
        beyond = len(others) - len(within)
        if 5 * beyond <= len(others):
            bound = _round_between(max(within, key=lambda value: sign * value), sign * edge, findings, key)
            return beyond, -importance, f"{names(findings.keys)[key]} {side} {bound}"
    return None


def _round_between(inner: float, edge: float, findings: Findings, key: str) -> str:
    """Return a number of few digits between two; it may be equal to the first one."""
    middle = (inner + edge) / 2
    if key in findings.logarithmic and min(inner, edge) > 0:
        middle = math.sqrt(inner * edge)
    elif key in findings.complements and max(inner, edge) < 1:
        middle = 1 - math.sqrt((1 - inner) * (1 - edge))
    if isinstance(inner, int) and isinstance(edge, int):
        middle = inner + int(middle - inner)
    for digits in range(1, 17):
        rounded = float(f"{middle:.{digits}g}")
        if rounded == inner or min(inner, edge) < rounded < max(inner, edge):
            return figure(rounded, max(4, digits))
    return figure(float(inner), 17)


def _edges(findings: Findings) -> str | None:
    """Return which ranges end too early, because the best trials all lie at one end."""
    best = findings.ranked[:BEST_TRIALS]
    if len(findings.finished) < MIN_FINISHED or len(best) < BEST_TRIALS:
        return None
    found = []
    for key, name in names(findings.keys).items():
        places = [_place(trial, key, findings) for trial in best]
        if all(place is not None and place >= 1 - EDGE_SHARE for place in places):
            found.append(f"{name} in the top tenth")
        elif all(place is not None and place <= EDGE_SHARE for place in places) and not _starts_at_zero(best[0], key):
            found.append(f"{name} in the bottom tenth")
    if not found:
        return None
    ends = "its range: widen it" if len(found) == 1 else "their ranges: widen them"
    return f"the {BEST_TRIALS} best all have {_listed(found)} of {ends}"


def at_an_edge(findings: Findings) -> str | None:
    """Return which values of the best setting lie at an end of their ranges, beyond which a better one may be."""
    number = findings.verdict.number if findings.verdict else None
    trial = next((one for one in findings.trials if one.number == number), None)
    if trial is None:
        return None
    called, found = names(findings.keys), []
    for key, value in findings.values[findings.trials.index(trial)].items():
        place = _place(trial, key, findings)
        if place is None or (place < END_SHARE and _starts_at_zero(trial, key)):
            continue
        if place < END_SHARE or place > 1 - END_SHARE:
            found.append(
                f"{called[key]} {figure(value)} is at the {'lower' if place < END_SHARE else 'upper'} end of its range"
            )
    if not found:
        return None
    return f"of trial {number} {_listed(found)}: widen {'it' if len(found) == 1 else 'them'}"


def _place(trial: FrozenTrial, key: str, findings: Findings) -> float | None:
    """Return how far up in its range a trial's value lies, from 0 to 1, or None for a choice."""
    span, value = by_key(trial.distributions, key), by_key(trial.params, key)
    if not isinstance(span, FloatDistribution | IntDistribution) or value is None or span.single():
        return None
    low, high, at = (math.log(one) if span.log else one for one in (span.low, span.high, value))
    place = (at - low) / (high - low)
    return 1 - place if key in findings.complements else place


def _starts_at_zero(trial: FrozenTrial, key: str) -> bool:
    """Return whether a range starts at 0, below which most parameters mean nothing, so that it cannot be widened."""
    span = by_key(trial.distributions, key)
    return isinstance(span, FloatDistribution | IntDistribution) and span.low == 0


def _stopped(findings: Findings) -> str | None:
    """Return how many trials were stopped early, and what that saved."""
    stopped = [trial for trial in findings.ended if trial.state == TrialState.PRUNED]
    if not stopped:
        return None
    told = f"{len(stopped)} of {len(findings.ended)} were stopped early"
    full = max(trial.last_step or 0 for trial in findings.ended)
    known = [(trial.user_attrs.get("seconds", 0.0), trial.last_step) for trial in stopped if trial.last_step]
    saved = sum(seconds / epoch * (full - epoch) for seconds, epoch in known)
    if saved < 1:
        return told
    total = saved + sum(trial.user_attrs.get("seconds", 0.0) for trial in findings.ended)
    return f"{told}, which saved about {_about(saved)} of {_about(total)}"


def _about(seconds: float) -> str:
    return f"{round(seconds / 60)}m" if 60 <= seconds < 3600 else terminal.duration(seconds)
