"""The sheet of several models; tests of `compare` and `nearest` as commands are in test_scoring.py."""

from __future__ import annotations

import torch
from gantool import images, load
from gantool.images import to_float
from gantool.inference.compare import COLUMNS, side_by_side
from gantool.training import engine

from small import small, spec
from trained import untrained


def test_translations_stand_below_their_sources_which_neighbours_share(tmp_path):
    recipe = engine.open_recipe("pix2pix", small("pix2pix"))
    captions, rows, models = ["source", "a", "b", "source", "c"], [], []
    for name, value in (("a", 10), ("b", 10), ("c", 200)):
        sources = torch.full((1, *spec(recipe).shape), value, dtype=torch.uint8)
        examples = {"seeds": [0], "labels": [0], "sources": sources, "targets": sources}
        run = untrained(tmp_path / name, recipe, spec(recipe), examples)
        models.append((name, load(run.path, device="cpu")))
        rows += [] if name == "b" else [to_float(sources).expand(COLUMNS, -1, -1, -1)]
        rows.append(models[-1][1].sample(range(COLUMNS)))
    texts = [text for name in captions for text in (name, *[""] * (COLUMNS - 1))]
    expected = images.grid(torch.cat(rows), columns=COLUMNS, captions=texts)
    assert side_by_side(models).tobytes() == expected.tobytes()
