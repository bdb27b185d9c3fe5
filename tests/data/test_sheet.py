from __future__ import annotations

import numpy as np
import pytest
from gantool.batches import ImageSpec
from gantool.data.sheet import pair_sheet
from gantool.data.store import Item, build_store
from PIL import Image

SPEC = ImageSpec(3, 56, 56, ("edges", "egg"))


def store(root, count):
    """Pairs whose source has the red of its number, and whose target the blue."""

    def items():
        for index in range(count):
            for label, channel in ((0, 0), (1, 2)):
                image = np.zeros(SPEC.shape, np.uint8)
                image[channel] = 10 + index
                yield Item(str(index), label, image)

    return build_store(root / "store", items(), SPEC, {"source": "test"})


def tiles(path, columns):
    """Return the colour in the middle of each tile, and whether something is written under it."""
    pixels = np.asarray(Image.open(path))
    width = (pixels.shape[1] - 2) // columns
    found = []
    rows = [row for row in range(1, len(pixels)) if pixels[row, 10].max() < 255 == pixels[row - 1, 10].min()]
    for row in rows:
        for column in range(columns):
            left = 2 + column * width
            under = pixels[row + 56 : row + 72, left : left + width]
            found.append((*pixels[row + 28, left + width // 2].tolist(), bool(under.min() < 128)))
    return found


@pytest.mark.parametrize(
    ("count", "chosen"), [(3, [0, 1, 2]), (8, list(range(8))), (29, [0, 4, 8, 12, 16, 20, 24, 28])]
)
def test_eight_pairs_stand_side_by_side_with_the_names_of_their_classes(tmp_path, count, chosen):
    pair_sheet(store(tmp_path, count), tmp_path / "pairs.png")

    found = tiles(tmp_path / "pairs.png", min(8, 2 * count))[: 2 * len(chosen)]
    assert found == [tile for index in chosen for tile in ((10 + index, 0, 0, True), (0, 0, 10 + index, True))]


def test_the_captions_of_sources_differ_from_those_of_targets(tmp_path):
    pair_sheet(store(tmp_path, 8), tmp_path / "pairs.png")

    pixels = np.asarray(Image.open(tmp_path / "pairs.png").convert("L"))
    width = (pixels.shape[1] - 2) // 8
    captions = [pixels[58:74, 2 + column * width : (column + 1) * width] for column in range(8)]
    assert all(np.array_equal(captions[column], captions[column % 2]) for column in range(8))
    assert not np.array_equal(captions[0], captions[1])
