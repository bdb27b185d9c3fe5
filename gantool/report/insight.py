"""The sentences about a search: whether a setting is better, which parameters mattered, and why trials failed."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gantool import terminal
from gantool.report.findings import MIN_TRIALS_FOR_IMPORTANCE, Findings, Parameter, figure, result, score
from gantool.tune.space import COMPLEMENT

MIN_FINISHED = 8  # finished trials, below which nothing is said about parameters
MIN_IMPORTANCE = 0.05  # below which a second parameter is not named
MIN_FAILED, MIN_OTHERS = 3, 5  # failed and other trials, below which a parameter may tell them apart by chance
BEST_TRIALS = 5  # trials that count as the best ones
END_SHARE = 0.02  # of a range, within which a value is at its end
EDGE_SHARE = 0.1  # of a range, at each of its ends
MAX_REASON_LENGTH = 100  # letters of a reason in a sentence
MAX_SENTENCES = 5


def importances(findings: Findings) -> dict[str, float]:
    """Compute how much each parameter decides whether a trial is one of the best, by PED-ANOVA (arXiv:2304.10255).

    Trials that were stopped early count with their best measurement.

    Returns:
        Shares that sum to 1 by dotted key, the largest first. Parameters that some trial lacks have none: the few
        trials that have them would make them seem to matter. If trials are too few or equal, the result is empty.
    """
    # The import takes a second where scikit-learn is installed, so only a report does it.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    trials = findings.measured
    scores = [score(trial) for trial in trials]
    if len(scores) < MIN_FINISHED or min(scores) == max(scores):
        return {}
    spans = trials[0].distributions.items()
    shared = [name for name, span in spans if not span.single() and all(name in trial.params for trial in trials)]
    if not shared:
        return {}
    study = optuna.create_study()
    study.add_trials(
        create_trial(value=score(trial), params=trial.params, distributions=trial.distributions) for trial in trials
    )
    quantile = max(0.1, min(0.5, BEST_TRIALS / len(scores)))  # fewer than five good trials tell little
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that parts of it are experimental, and that trials are few
        try:
            evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
            found = get_param_importances(study, evaluator=evaluator, params=shared)
        except ValueError:
            return {}
    shares = sorted(found.items(), key=lambda pair: -pair[1])
    equal = len(shares) > 1 and shares[0][1] == shares[-1][1]  # so Optuna says that it learned nothing
    if equal or not all(map(math.isfinite, found.values())):
        return {}
    return {name.removeprefix(COMPLEMENT): share for name, share in shares}


def caveat(findings: Findings) -> str:
    """Return what is added to importances that rest on few trials."""
    count = len(findings.measured)
    return f"; with {count} trials this is a guess" if count < MIN_TRIALS_FOR_IMPORTANCE else ""


def sentences(findings: Findings, importances: Mapping[str, float]) -> list[str]:
    """Return what a search found, the most important sentence first."""
    found = (
        findings.verdict.sentence() if findings.verdict else None,
        _history(findings),
        _mattered(findings, importances),
        _failures(findings, importances),
        _best_at_an_end(findings) or at_an_end(findings),
        _stopped(findings),
    )
    return [sentence for sentence in found if sentence][:MAX_SENTENCES]


def _history(findings: Findings) -> str | None:
    """Return which trial has the lowest metric with the search's own seed, and whether later ones improved on it."""
    ended = len(findings.ended)
    if not findings.ranked:
        return f"none of {ended} trials finished" if ended > 1 else None
    best = findings.ranked[0]
    lowest = f"the lowest {findings.metric}, {terminal.number(result(best))}"
    if any(result(trial) < result(best) for trial in findings.finished):
        lowest += " (copies of training images do not count)"
    later = sum(trial.number > best.number for trial in findings.ended)
    if ended == 1:
        return f"only one trial has finished, with {findings.metric} {terminal.number(result(best))}"
    who = f"with one seed, {findings.called(best.number)} has {lowest}"
    if not later:
        return f"{who}; it was the last trial, so more trials may find a lower one"
    return f"{who}; {'the later trial is not lower' if later == 1 else f'none of the {later} later trials is lower'}"


def _mattered(findings: Findings, importances: Mapping[str, float]) -> str | None:
    """Return which parameters mattered most; nothing if only one was searched."""
    if len(importances) < 2:
        return None
    called = {one.key: one.name for one in findings.parameters}
    (first, share), (second, next_share) = sorted(importances.items(), key=lambda pair: -pair[1])[:2]
    text = f"{called[first]} mattered most ({100 * share:.0f} %)"
    if next_share >= MIN_IMPORTANCE:
        text += f", then {called[second]} ({100 * next_share:.0f} %)"
    return text + caveat(findings)


def _failures(findings: Findings, importances: Mapping[str, float]) -> str | None:
    """Return how many trials failed, and where or why."""
    failed = [trial for trial in findings.ended if trial.state == TrialState.FAIL]
    if not failed:
        return None
    text = f"{len(failed)} of {len(findings.ended)} trials failed"
    found = [(_separation(findings, one), -importances.get(one.key, 0.0)) for one in findings.parameters]
    where = [(one[0], weight, one[1]) for one, weight in found if one]
    if where:
        return f"{text}, all with {min(where)[2]}"
    reasons = [str(trial.user_attrs["why"]).partition(":")[0].strip() for trial in failed if "why" in trial.user_attrs]
    if not reasons:
        return text
    reason, times = Counter(reasons).most_common(1)[0]
    often = ":" if times == len(failed) else ", most often:"
    return f"{text}{often} {textwrap.shorten(reason, MAX_REASON_LENGTH, placeholder='…')}"


def _separation(findings: Findings, parameter: Parameter) -> tuple[int, str] | None:
    """Return the side of a threshold that holds all failed trials, behind the number of others that it holds.

    Nothing is returned if it holds more than a fifth of the others.
    """
    with_key = [trial for trial in findings.ended if parameter.key in findings.values(trial)]
    failed = [trial for trial in findings.ended if trial.state == TrialState.FAIL]
    others = [findings.values(trial)[parameter.key] for trial in with_key if trial.state != TrialState.FAIL]
    bad = [findings.values(trial)[parameter.key] for trial in with_key if trial.state == TrialState.FAIL]
    few = len(failed) < MIN_FAILED or len(others) < MIN_OTHERS or len(bad) < len(failed)
    if few or isinstance(parameter.span, CategoricalDistribution):
        return None
    for side, sign in (("above", 1), ("below", -1)):
        edge = min(sign * value for value in bad)
        within = [value for value in others if sign * value < edge]
        beyond = len(others) - len(within)
        if 5 * beyond <= len(others):
            inner = max(within, key=lambda value: sign * value)
            return beyond, f"{parameter.name} {side} {_between(parameter, inner, sign * edge)}"
    return None


def _between(parameter: Parameter, inner: float, edge: float) -> str:
    """Return a number of few digits between two values of a parameter; it may be equal to the first one."""
    middle = (inner + edge) / 2
    if parameter.complement:
        middle = 1 - math.sqrt((1 - inner) * (1 - edge))
    elif getattr(parameter.span, "log", False):
        middle = math.sqrt(inner * edge)
    if isinstance(inner, int) and isinstance(edge, int):
        middle = inner + int(middle - inner)
    for digits in range(1, 17):
        rounded = float(f"{middle:.{digits}g}")
        if rounded == inner or min(inner, edge) < rounded < max(inner, edge):
            return figure(rounded, max(4, digits))
    return figure(float(inner), 17)


def _best_at_an_end(findings: Findings) -> str | None:
    """Return which ranges end too early, because the best trials all lie at one end."""
    best = findings.ranked[:BEST_TRIALS]
    if len(findings.finished) < MIN_FINISHED or len(best) < BEST_TRIALS:
        return None
    ends = {one.name: {_end(findings, trial, one, EDGE_SHARE) for trial in best} for one in findings.parameters}
    found = [f"{name} in the {end} tenth" for name, (end, *others) in ends.items() if end and not others]
    if not found:
        return None
    ranges = "its range; widen the range" if len(found) == 1 else "their ranges; widen the ranges"
    return f"the {BEST_TRIALS} best trials all have {' and '.join(found)} of {ranges}"


def at_an_end(findings: Findings) -> str | None:
    """Return which values of the best setting lie at an end of their ranges, beyond which a better one may be."""
    number = findings.verdict.number if findings.verdict else None
    found = []
    for trial in (trial for trial in findings.trials if trial.number == number):
        for one in findings.parameters:
            end = _end(findings, trial, one, END_SHARE)
            if end:
                found.append(f"{one.name} {figure(findings.values(trial)[one.key])}, the {end} end of its range")
    if not found:
        return None
    return f"trial {number} has {', and '.join(found)}; widen the range{'s' if len(found) > 1 else ''}"


def _end(findings: Findings, trial: FrozenTrial, parameter: Parameter, share: float) -> str:
    """Return the end of its range, within a share of it, at which a trial's value lies: `upper`, `lower` or neither.

    A range that starts at 0 has no lower end: most parameters mean nothing below it, so it cannot be widened.
    """
    span, values = parameter.span, findings.values(trial)
    if isinstance(span, CategoricalDistribution) or span.single() or parameter.key not in values:
        return ""
    place = parameter.place(values[parameter.key])
    if place >= 1 - share:
        return "upper"
    return "lower" if place <= share and getattr(span, "low", 0) != 0 else ""


def _stopped(findings: Findings) -> str | None:
    """Return how many trials were stopped early, and how much time that saved."""
    ended, stopped = findings.ended, findings.stopped
    if not stopped:
        return None
    text = f"{len(stopped)} of {len(ended)} trials were stopped early"
    full = max(trial.last_step or 0 for trial in ended)
    saved = sum(_seconds([trial]) / trial.last_step * (full - trial.last_step) for trial in stopped if trial.last_step)
    if saved < 1:
        return text
    return f"{text}, which saved about {_about(saved)} of {_about(saved + _seconds(ended))}"


def _seconds(trials: Iterable[FrozenTrial]) -> float:
    return sum(trial.user_attrs.get("seconds", 0.0) for trial in trials)


def _about(seconds: float) -> str:
    return f"{round(seconds / 60)}m" if 60 <= seconds < 3600 else terminal.duration(seconds)
