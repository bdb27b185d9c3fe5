"""Drawings of rendered foods, the sources of the pairs in `egg_edges`."""

from __future__ import annotations

from math import pi

import numpy as np
from numpy.typing import NDArray

from gantool.data.sources.eggs import _FORMS, Array, _body, _ramp, factors, render

LINE = 0.12  # change of a colour, 0 to 1, over two pixels that a drawing shows as a black line


def edges(name: str, index: int, size: int = 64, kind: str | None = None) -> NDArray[np.uint8]:
    """Draw the image that `render` returns for the same arguments: [size, size], black lines on white.

    The outline of the body comes from its geometry. The other lines are where the colour of the smoothed image changes
    most: where its gradient is large, and larger than beside it, across the line. Speckles, the shaded side and the
    gaps between boards make such lines. Grain, weave and soft shadows make hardly any.
    """
    true = factors(name, index, kind)
    inside = _body(_FORMS[name].profile, true, size, 0, 0).inside * size
    outline = 1 - _ramp(np.abs(inside), 0.3, 1.1)
    lines = _lines(render(name, index, size, kind)) * _ramp(np.abs(inside), 1.5, 2.5)  # the outline is not drawn twice
    drawing: NDArray[np.uint8] = (255 * (1 - np.maximum(outline, lines)) + 0.5).astype(np.uint8)
    return drawing


def _lines(image: NDArray[np.uint8]) -> Array:
    """Return where the colours of an image change most, 0 to 1: [H, W]."""
    height, width = image.shape[:2]
    padded = np.pad(image.astype(np.float32) / 255, ((3, 3), (3, 3), (0, 0)), "edge")
    for _ in range(2):
        padded = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        padded = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    # The channel that changes most has the direction.
    strongest = (across**2 + down**2).argmax(2)[..., None]
    across, down = (np.take_along_axis(change, strongest, 2)[..., 0] for change in (across, down))
    slope = np.hypot(across, down)
    around = np.pad(slope, 1, "edge")
    sector = np.round(np.arctan2(down, across) * (4 / pi)).astype(np.int32) % 4
    thin = np.zeros((height, width), bool)
    for turn, (right, below) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        before = around[1 - below : 1 - below + height, 1 - right : 1 - right + width]
        after = around[1 + below : 1 + below + height, 1 + right : 1 + right + width]
        thin |= (sector == turn) & (slope >= before) & (slope > after)
    return np.where(thin, _ramp(slope, LINE / 2, LINE), 0)
