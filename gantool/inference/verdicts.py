"""What measurements say, in a sentence that stands before the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gantool.metrics.reference import MIN_IMAGES_TO_LEARN
from gantool.terminal import number
from gantool.training.diagnoses import COPIED_SHARE, COPYING_C_T

if TYPE_CHECKING:
    from gantool.inference.compare import Row
    from gantool.inference.scoring import Score

# Upper limits of fd, in floors. Real images get about 1, and digits that are read easily 15 to 70 (docs/metrics.md).
LEVELS = (
    (2.0, "close to real images"),
    (10.0, "near real images, with visible faults"),
    (100.0, "recognisable, not yet clean"),
    (math.inf, "far from real images"),
)
NOISE = 2.0  # deviations by which two values differ at least


def of_score(found: Score) -> str:
    """Return how good images or answers are, in a sentence; empty if the metrics that it needs are missing."""
    values = {row.name: row.value for row in found.values if math.isfinite(row.value)}
    perfect = {row.name: row.perfect for row in found.values}
    if "error" in values:
        return f"{1 - values['error']:.1%} of the answers are right"
    parts = []
    if "fd" in values:
        level = next(words for limit, words in LEVELS if values["fd"] < limit)
        if found.about["real"] + found.about["held_out"] < MIN_IMAGES_TO_LEARN:
            level = "with so few images this ranks generators, but does not measure quality"
        parts.append(f"fd is {number(values['fd'])} times its floor: {level}")
    if "copying" in values:
        parts.append(_copies(values["copying"]))
    best = perfect.get("coverage")
    if "coverage" in values and best:
        parts.append(f"{min(1.0, values['coverage'] / best):.0%} of the variety of real images")
    return "; ".join(parts)


def of_comparison(rows: Sequence[Row]) -> str:
    """Return which run is best, if their values differ by more than noise.

    Args:
        rows: runs, the best first, as `compare` returns them.
    """
    first, second = rows[:2]
    if not second.same:
        return f"{first.name} and {second.name} were measured on different images: their values cannot be compared"
    low, high = first.values["fd"], second.values["fd"]
    noise = NOISE * math.hypot(*(row.values["fd_deviation"] for row in (first, second)))
    if not high - low > noise:
        return f"cannot tell whether {first.name} or {second.name} is better: their fd differ by less than the noise"
    others = "the others" if len(rows) > 2 else second.name
    return (
        f"{first.name} is better than {others}: its fd is {1 - low / high:.0%} lower than {number(high)}, "
        "which is more than the noise of the measurement; other seeds of the training may differ"
    )


def of_copying(values: Mapping[str, float]) -> list[str]:
    """Return whether generated images are copies, in sentences.

    Args:
        values: `copying` (C_T), if images were held out, and `copied`; see `Evaluator`.
    """
    share, copying = values["copied"], values.get("copying")
    if copying is None:
        first = "no images were held out of the training, so copies cannot be told from luck"
    elif copying < COPYING_C_T and share > COPIED_SHARE:
        first = f"copies: C_T is {copying:+.1f}, and copies are below {COPYING_C_T}"
    else:
        first = f"{_copies(copying)}: C_T is {copying:+.1f}, and copies are below {COPYING_C_T}"
    return [first, f"{share:.0%} of the generated images are almost equal to a training image"]


def _copies(copying: float) -> str:
    return "possible copies of training images" if copying < COPYING_C_T else "no sign of copies"
