"""The part of a dataset that `data.limit` leaves: fixed, random, and with the same share of each class."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from gantool.errors import DataError


def choose(groups: Sequence[Hashable], limit: int, step: int = 1) -> list[bool]:
    """Return which examples are in the part.

    The order of the examples decides, and nothing else, so that every trial and every resumed run has the same part.

    Args:
        groups: the class of each example, in the order of the data.
        limit: number of examples in the part; a smaller part is in every larger one.
        step: 2 if two successive examples are a pair, which is counted once, by the class of its first.

    Raises:
        DataError: there are more classes than `limit`.
    """
    known: dict[Hashable, int] = {}
    places = np.array([known.setdefault(group, len(known)) for group in groups[::step]], np.int64)
    if limit < len(known):
        raise DataError(f"data.limit: {limit} is less than the {len(known)} classes; each needs an example")
    counts = np.bincount(places)
    rows = np.lexsort((scattered(len(places)), places))
    rank = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)  # of each row within its class
    # The first of each class comes first. The others are spread evenly, so that any number of them is a fair part.
    share = np.where(rank == 0, 0.0, (rank + 0.5) / counts[places[rows]])
    chosen = np.zeros(len(places), bool)
    chosen[rows[np.lexsort((places[rows], share))[:limit]]] = True
    return np.repeat(chosen, step).tolist()


def describe_part(count: int, of: int) -> str:
    """Return the size of a part, such as "5,000 of 60,000"; empty if it is the whole."""
    return f"{count:,} of {of:,}" if of > count else ""


def scattered(count: int) -> NDArray[np.uint64]:
    """Return numbers in no order, which no library version can change: [count]."""
    bits = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for _ in range(2):
        bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return bits ^ (bits >> np.uint64(32))
