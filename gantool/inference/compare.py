"""Finished generators side by side, and beside the training images that are nearest: `compare` and `nearest`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from gantool import images
from gantool.batches import Paired
from gantool.data.loader import tensor
from gantool.images import to_float, to_uint8
from gantool.inference.sampling import TrainedModel
from gantool.inference.scoring import evaluator_of
from gantool.metrics.evaluate import Evaluator
from gantool.runs import Run

logger = logging.getLogger(__name__)

COLUMNS = 8  # images of each run in a comparison
ROWS, NEIGHBOURS = 8, 4  # of the sheet of nearest images: generated images, and real ones beside each


class Row(NamedTuple):
    """A run in a comparison."""

    run: str  # its directory
    name: str  # the last part of it
    model: str
    epoch: int  # of the checkpoint
    values: dict[str, float]  # by metric
    fakes: int  # generated images
    diagnoses: list[str]  # at the end of the run
    same: bool  # whether it was measured on the same images, and with as many, as the first run


def compare(runs: Sequence[Run], path: Path, *, device: str, data_dir: Path, count: int | None = None) -> list[Row]:
    """Measure two runs or more in the same way, and draw images of the same seeds. Return the best run first.

    `count` generated images of each are measured, without it as many as each recipe's `train.evaluate_images`.
    """
    found: list[tuple[Row, TrainedModel]] = []
    first: Evaluator | None = None
    for run in runs:
        trained = TrainedModel(run, "best", device)
        evaluator = evaluator_of(trained, None, count, data_dir)
        first = first or evaluator
        alike = all(evaluator.about[name] == first.about[name] for name in ("extractors", "fake", "within_classes"))
        same = alike and torch.equal(evaluator.reality.train, first.reality.train)
        values, fakes = evaluator(trained.images).metrics, len(evaluator.request)
        diagnoses = (run.entries() or [{}])[-1].get("diagnoses", [])
        row = Row(str(run.path), run.title, trained.name, trained.epoch, values, fakes, diagnoses, same)
        found.append((row, trained))
    found.sort(key=lambda each: (not each[0].same, each[0].values["fd"]))  # runs that cannot be compared come last
    images.save(side_by_side([(row.name, trained) for row, trained in found]), path)
    return [row for row, _ in found]


def side_by_side(named: Sequence[tuple[str, TrainedModel]], width: int | None = None) -> Image.Image:
    """Draw images of the same seeds, a row for each model, whose name is its caption.

    Translations stand below their sources. Small images are enlarged to at least `width` pixels.
    """
    rows: list[tuple[str, Tensor]] = []
    above: Tensor | None = None
    for name, trained in named:
        request, made = trained.request(range(COLUMNS)), trained.sample(range(COLUMNS))
        sources = None if request is None or request.sources is None else to_float(request.sources)
        if sources is not None and (above is None or not torch.equal(sources, above)):
            rows.append(("source", sources))  # once for neighbours that share them
        above = sources
        rows.append((name, made))
    height, long, channels = (max(row.shape[axis] for _, row in rows) for axis in (2, 3, 1))
    alike = [interpolate(row, (height, long)).expand(-1, channels, -1, -1) for _, row in rows]
    scale = None if width is None else max(1, math.ceil(width / rows[0][1].shape[-1]))
    captions = [text for name, _ in rows for text in (name, *[""] * (COLUMNS - 1))]
    return images.grid(torch.cat(alike), columns=COLUMNS, captions=captions, scale=scale)


def nearest(run: Run, path: Path, *, checkpoint: str, device: str, data_dir: Path) -> dict[str, float]:
    """Draw generated images beside the training images nearest to them. Return `copied`, and `copying` if known."""
    trained = TrainedModel(run, checkpoint, device)
    evaluator = evaluator_of(trained, None, None, data_dir)
    store = trained.dataset(data_dir)
    extractor = evaluator.extractors[evaluator.base_extractor]
    rows = store.split(trained.recipe.data.held_out, trained.model.consumes).train
    if trained.model.consumes is Paired:
        rows = rows + 1  # what is made is of the targets' kind
    seen = tensor(store.inputs)
    logger.info(f"looking through {len(rows):,} training images")
    known = torch.cat([extractor(to_float(seen[part])) for part in torch.split(torch.from_numpy(rows), 256)])
    made = trained.sample(range(ROWS))
    apart = torch.cdist(extractor(to_float(to_uint8(made))), known)
    near = apart.topk(min(NEIGHBOURS, len(rows)), largest=False)
    tiles, captions = [], []
    for index in range(ROWS):
        tiles += [made[index : index + 1], to_float(seen[rows[near.indices[index].numpy()]])]
        captions += [f"seed {index}", *(f"{value:.1f}" for value in near.values[index].tolist())]
    images.save(images.grid(torch.cat(tiles), columns=1 + near.indices.shape[1], captions=captions), path)
    found = evaluator.measure(evaluator.generate(trained.images)).metrics
    return {name: found[name] for name in ("copying", "copied") if name in found}
