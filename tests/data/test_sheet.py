"""Contact sheets: which images they show, and under which names."""

from __future__ import annotations

import numpy as np
import pytest
from gantool.batches import ImageSpec
from gantool.data.sheet import pair_sheet
from gantool.data.store import Store
from PIL import Image


def pairs(count):
    """Pairs whose source has the red of its number, and whose target the blue."""
    images = np.zeros((2 * count, 3, 56, 56), np.uint8)
    numbers = 10 + np.arange(count, dtype=np.uint8)[:, None, None]
    images[::2, 0], images[1::2, 2] = numbers, numbers
    return Store(None, images, np.tile([0, 1], count), ImageSpec(3, 56, 56, ("edges", "egg")), {"skipped": []})


@pytest.mark.parametrize(
    ("count", "chosen"), [(3, [0, 1, 2]), (8, list(range(8))), (29, [0, 4, 8, 12, 16, 20, 24, 28])]
)
def test_up_to_eight_pairs_stand_side_by_side_above_the_names_of_their_classes(tmp_path, count, chosen):
    pair_sheet(pairs(count), tmp_path / "pairs.png")
    pixels = np.asarray(Image.open(tmp_path / "pairs.png"))
    columns = min(8, 2 * count)
    width = (pixels.shape[1] - 2) // columns
    rows = [row for row in range(1, len(pixels)) if pixels[row, 10].max() < 255 == pixels[row - 1, 10].min()]
    middles = [pixels[row + 28, 2 + column * width + width // 2].tolist() for row in rows for column in range(columns)]

    wanted = [colour for index in chosen for colour in ([10 + index, 0, 0], [0, 0, 10 + index])]
    assert middles[: len(wanted)] == wanted
    captions = [pixels[58:74, 2 + column * width : (column + 1) * width] for column in range(columns)]
    assert all(caption.min() < 128 for caption in captions)
    assert all(np.array_equal(captions[column], captions[column % 2]) for column in range(columns))
    assert not np.array_equal(captions[0], captions[1])
