"""Finished generators side by side, and beside the training images that are nearest: `compare` and `nearest`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
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
from gantool.training import setup

logger = logging.getLogger(__name__)

ROWS, NEIGHBOURS = 8, 4  # of the sheet of nearest images: generated images, and real ones beside each


class Row(NamedTuple):
    """A run in a comparison.

    Args:
        run: its directory.
        name: the last part of it.
        model: its model's name.
        epoch: of the checkpoint.
        values: its numbers by metric.
        fakes: generated images.
        diagnoses: what was wrong when it ended.
        same: whether it was measured against the same images, and with as many, as the first run.
    """

    run: str
    name: str
    model: str
    epoch: int
    values: dict[str, float]
    fakes: int
    diagnoses: list[str]
    same: bool


def compare(
    runs: Sequence[Run],
    path: Path,
    *,
    device: str,
    data_dir: Path,
    count: int | None = None,
    columns: int = 8,
) -> list[Row]:
    """Measure several runs alike, and draw what each makes of the same seeds, a row a run, translations below sources.

    Args:
        runs: two or more.
        path: the image to write.
        device: see `devices.choose`.
        data_dir: where fetched and decoded data are.
        count: generated images of each, in place of each recipe's `train.evaluate_images`.
        columns: images of each run.
    """
    rows, lines = [], []
    first: Evaluator | None = None
    for run in runs:
        trained = TrainedModel(run, "best", device)
        evaluator = evaluator_of(trained, None, count, data_dir)
        first = first or evaluator
        alike = all(evaluator.about[name] == first.about[name] for name in ("extractors", "fake", "within_classes"))
        same = alike and torch.equal(evaluator.reality.train, first.reality.train)
        found = evaluator(trained.images).metrics
        last = [entry.get("diagnoses", []) for entry in run.entries()][-1:]
        name, fakes = trained.name, len(evaluator.request)
        rows.append(Row(str(run.path), run.title, name, trained.epoch, found, fakes, last[0] if last else [], same))
        lines.append(_line(run.title, trained, columns))
    # The best first, in the table and on the sheet; what cannot be compared last.
    order = sorted(range(len(rows)), key=lambda index: (not rows[index].same, rows[index].values["fd"]))
    images.save(_sheet([lines[index] for index in order], columns), path)
    return [rows[index] for index in order]


def side_by_side(named: Mapping[str, TrainedModel], columns: int = 8, width: int = 120) -> Image.Image:
    """Draw what several models make of the same seeds, a row a model, translations below their sources.

    Args:
        named: the models, by the caption of their row.
        columns: images of each.
        width: pixels to which small images are enlarged, at least.
    """
    lines = [_line(name, trained, columns) for name, trained in named.items()]
    return _sheet(lines, columns, max(1, math.ceil(width / lines[0][1].shape[-1])))


def _line(name: str, trained: TrainedModel, columns: int) -> tuple[str, Tensor, Tensor | None]:
    request = trained.request(range(columns))
    sources = None if request is None or request.sources is None else to_float(request.sources)
    return name, trained.sample(range(columns)), sources


def _sheet(runs: Sequence[tuple[str, Tensor, Tensor | None]], columns: int, scale: int | None = None) -> Image.Image:
    lines = _lines(runs)
    captions = [text for name, _ in lines for text in (name, *[""] * (columns - 1))]
    return images.grid(torch.cat(_alike([line for _, line in lines])), columns=columns, captions=captions, scale=scale)


def _lines(runs: Sequence[tuple[str, Tensor, Tensor | None]]) -> list[tuple[str, Tensor]]:
    """Put each run's images below their sources, where it has any, once for neighbours that share them."""
    found = []
    above: Tensor | None = None
    for name, made, sources in runs:
        if sources is not None and (above is None or not torch.equal(sources, above)):
            found.append(("source", sources))
        above = sources
        found.append((name, made))
    return found


def nearest(run: Run, path: Path, *, checkpoint: str, device: str, data_dir: Path) -> dict[str, float]:
    """Draw generated images, each beside the training images that are nearest to it.

    Returns:
        `copying`, where images were held out, and `copied`; see `Evaluator`.
    """
    trained = TrainedModel(run, checkpoint, device)
    evaluator = evaluator_of(trained, None, None, data_dir)
    store = setup.data_of(trained.recipe, data_dir)
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


def _alike(sheets: Sequence[Tensor]) -> list[Tensor]:
    """Enlarge images to the largest size, and make grey ones colour where any is: for one sheet."""
    height, width = (max(sheet.shape[axis] for sheet in sheets) for axis in (2, 3))
    channels = max(sheet.shape[1] for sheet in sheets)
    return [interpolate(sheet, (height, width)).expand(-1, channels, -1, -1) for sheet in sheets]
