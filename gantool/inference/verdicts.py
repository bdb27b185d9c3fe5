"""Summaries of measurements in one sentence, printed before the numbers. docs/metrics.md explains the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gantool.metrics.reference import MIN_IMAGES_TO_LEARN
from gantool.training.diagnoses import COPIED_SHARE, COPYING_C_T, FEW_DISTINCT_IMAGES

if TYPE_CHECKING:
    from gantool.inference.compare import Row
    from gantool.inference.scoring import Score

LEVELS = (
    (1.8, "as near to real images as other real images are"),
    (5, "close to real images"),
    (20, "recognisable, not yet clean"),
    (75, "rough, only simple shapes can be recognised"),
    (math.inf, "far from real images"),
)  # upper limits of fd, in floors
CLOSE = 5  # the only limit for translations, whose fd is low from the start
NOISE = 2.0  # deviations by which two values differ at least


def of_score(found: Score) -> str:
    """Return how good images or answers are, in a sentence; empty if the metrics that it needs are missing."""
    values = {row.name: row.value for row in found.values if math.isfinite(row.value)}
    perfect = {row.name: row.perfect for row in found.values}
    if "fake" not in found.about:
        return _of_answers(values, found.about["guessing"], found.about["held_out"])
    translated = "translations" in found.about
    parts = []
    if "fd" in values:
        level = next(words for limit, words in LEVELS if values["fd"] <= limit)
        if translated and values["fd"] > CLOSE:
            level = "not yet close to real images"
        parts.append(f"fd is {_number(values['fd'])}, and real images get 1: {level}")
        if found.about["real"] + found.about["held_out"] < MIN_IMAGES_TO_LEARN:
            parts[0] = "with so few images fd ranks generators, but does not measure quality"
    if "copying" in values and not translated:
        parts.append(_copies(values["copying"]))
    best = perfect.get("coverage")
    if "coverage" in values and best:
        parts.append(f"{min(1.0, values['coverage'] / best):.0%} of the variety of real images")
    if values.get("support", math.inf) < min(FEW_DISTINCT_IMAGES, found.about["real"] / 2) and not translated:
        count = round(values["support"])
        parts.append(f"only about {count} different image{'' if count == 1 else 's'}")
    return "; ".join(parts)


def _of_answers(values: Mapping[str, float], guessing: float, held_out: int) -> str:
    if "error" not in values:
        return ""
    kind = "unseen examples" if held_out else "the examples that it learned from"
    right = f"{1 - values['error']:.1%} of the answers to {kind} are right"
    return f"{right}; always naming the commonest class gets {guessing:.1%}"


def of_comparison(rows: Sequence[Row]) -> str:
    """Return which of the runs that `compare` returned is best, if its lead is more than noise and copies."""
    first, second = rows[:2]
    if not second.same:
        return f"{first.name} and {second.name} were measured on different images: their values cannot be compared"
    unsure = f"cannot tell whether {first.name} or {second.name} is better"
    low, high = first.values["fd"], second.values["fd"]
    noise = NOISE * math.hypot(*(row.values["fd_deviation"] for row in (first, second)))
    if math.isnan(noise):
        return f"{unsure}: the real images are too few to know the noise"
    if high - low <= noise:
        return f"{unsure}: their fd differ by at most two standard deviations of the difference"
    if first.values.get("copying", 0) < COPYING_C_T and "change" not in first.values:  # translations have a change
        return f"{unsure}: the fd of {first.name} is lower, but its images may be copies of training images"
    others = "the others" if len(rows) > 2 else second.name
    return (
        f"{first.name} is better than {others}: its fd is {1 - low / high:.0%} lower than {_number(high)}, "
        "which is more than the noise of the measurement; other seeds of the training may differ"
    )


def of_copying(values: Mapping[str, float]) -> list[str]:
    """Return whether generated images are copies, in sentences, by `copied` and, if it is known, `copying` (C_T)."""
    share, copying = values["copied"], values.get("copying")
    if copying is None:
        first = "no images were held out of the training, so copies cannot be recognised"
    elif copying < COPYING_C_T and share > COPIED_SHARE:
        first = f"copies: C_T is {copying:+.1f}, and copies are below {COPYING_C_T}"
    else:
        first = f"{_copies(copying)}: C_T is {copying:+.1f}, and copies are below {COPYING_C_T}"
    return [first, f"{share:.0%} of the generated images are almost equal to a training image"]


def _copies(copying: float) -> str:
    return "possible copies of training images" if copying < COPYING_C_T else "no sign of copies"


def _number(fd: float) -> str:
    return f"{fd:.1f}" if fd < 10 else f"{fd:,.0f}"
