"""Translate and classify files with a trained model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gantool import images
from gantool.batches import ImageSpec
from gantool.data import decode
from gantool.data.tables import encode
from gantool.errors import DataError, DiskError, GantoolError, RunError
from gantool.files import output as write_output
from gantool.files import undo
from gantool.images import to_float
from gantool.inference.sampling import TrainedModel
from gantool.metrics.evaluate import SampleRequest
from gantool.models.base import GeneratorInput, Translator

MIN_SIDE = 8  # pixels on a side; the padding in a network needs as many to mirror


class Target(NamedTuple):
    """An image to translate, the seed of what is random in its translation, and the file to write."""

    source: Path
    seed: int
    path: Path


class Prediction(NamedTuple):
    """A classifier's input, its answer with its probability, and the right answer if it is known."""

    input: str
    answer: str
    probability: float
    right: str


def targets(trained: TrainedModel, given: Path, output: Path, seeds: Sequence[int], *, single: bool) -> list[Target]:
    """List the images to translate, and the files to write.

    `output` is a folder for them. If the user named it (`single`) and it has an ending, it is the one file to write.

    Raises:
        RunError: the model does not translate images.
        DataError: `given` does not exist or is empty.
    """
    if not isinstance(trained.model, Translator):
        raise RunError(f"--input {given}: {trained.name} makes images from noise; leave it out")
    files = _images(given)
    if single and output.suffix:
        if given.is_dir() or len(seeds) > 1:
            raise GantoolError(f"-o {output}: several images are made; name a folder for them, without an ending")
        return [Target(files[0], seeds[0], output)]
    made: dict[Path, Target] = {}
    for file in files:
        inside = file.relative_to(given).parent if given.is_dir() else Path()
        for seed in seeds:
            ending = f"-{seed}" if len(seeds) > 1 else ""
            path = output / inside / f"{file.stem}{ending}.png"
            if path in made:  # a.jpg beside a.png
                path = output / inside / f"{file.stem}-{file.suffix[1:]}{ending}.png"
            made[path] = Target(file, seed, path)
    return list(made.values())


def translate(trained: TrainedModel, wanted: Sequence[Target], class_name: str | None) -> Iterator[tuple[str, str]]:
    """Translate images of any size, and write each in the size and mode of its source.

    Grey images stay grey, unless the run learned to colour them, and transparency is kept. Files that are no images are
    left out. A model that translates both ways makes images of the named class, or of the second class without a name.

    Yields:
        name and reason of each file that could not be read.

    Raises:
        DiskError: a file cannot be written; those before it are deleted again.
    """
    label = len(trained.data.classes) - 1 if class_name is None else trained.label(class_name)
    colouring = _colours(trained.shown, label)
    new: list[Path] = []
    for source, seed, path in wanted:
        try:
            pixels, opacity = decode.whole(source)
        except decode.Unreadable as error:
            yield str(source), error.reason
            continue
        made = _translated(trained, pixels, label, seed)
        if pixels.ndim == 2 and not colouring:
            made = made.convert("L")
        elif pixels.ndim == 3:
            made = made.convert("RGB")
        if opacity is not None:
            made.putalpha(Image.fromarray(opacity))
        try:
            new += images.save(made, path)
        except DiskError:
            undo(new)
            raise


def predictions(trained: TrainedModel, given: Path | None) -> list[Prediction]:
    """Return a classifier's answers.

    Args:
        trained: the run's model.
        given: a table (CSV with a head), a text with one sentence in each line, an image or a folder of images; without
            it, the examples that the run keeps.

    Raises:
        DataError: the file is of another kind than the data that the model learned from.
    """
    right: list[str] = []
    if given is None:
        kept = trained.examples or {}
        inputs, texts = kept["inputs"], list(kept["texts"])
        right = [trained.data.classes[label] for label in kept["labels"].tolist()]
    elif isinstance(trained.data, ImageSpec):
        inputs, texts = _decoded(given, trained.data)
    else:
        array, texts = encode(trained.data, given)
        inputs = torch.from_numpy(array)
    chances = trained.answer(to_float(inputs) if inputs.dtype == torch.uint8 else inputs)
    best = chances.max(1)
    found = [trained.data.classes[index] for index in best.indices.tolist()]
    return [
        Prediction(*row) for row in zip(texts, found, best.values.tolist(), right or [""] * len(texts), strict=True)
    ]


def write_predictions(rows: Sequence[Prediction], path: Path) -> None:
    """Write answers as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("input", "answer", "probability"))
    writer.writerows((row.input, row.answer, f"{row.probability:.6f}") for row in rows)
    write_output(path, text.getvalue())


def _images(given: Path) -> list[Path]:
    """List the files of a folder, at any depth, or the one that is given."""
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise DataError(f"--input {given}: no such file or folder")
    files = [path for path in sorted(given.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise DataError(f"--input {given}: no files in it; name an image or a folder of images")
    return files


def _translated(trained: TrainedModel, pixels: NDArray[np.uint8], label: int, seed: int) -> Image.Image:
    """Translate an image of any size: pad it by its mirror image, translate, and crop."""
    model = trained.generator
    height, width = pixels.shape[:2]
    array = decode.convert(Image.fromarray(pixels), channels=model.data.channels, height=height, width=width)
    margins = [_margins(side, model.stride) for side in (height, width)]
    padded = np.pad(array, ((0, 0), *margins), mode="reflect")
    source = to_float(torch.from_numpy(padded)[None])
    made = trained.render(GeneratorInput(source, torch.tensor([label]), torch.tensor([seed])))
    (top, _), (left, _) = margins
    found = images.to_pixels(made[:, :, top : top + height, left : left + width])[0]
    return Image.fromarray(found[..., 0] if found.shape[-1] == 1 else found)


def _margins(side: int, stride: int) -> tuple[int, int]:
    """Return how many pixels to add before and after a side, so that the network accepts it."""
    wanted = max(MIN_SIDE, side)
    missing = -(-wanted // stride) * stride - side
    return missing // 2, missing - missing // 2


def _colours(shown: SampleRequest | None, label: int) -> bool:
    """Return whether a run learned to colour grey images, by the examples that it keeps."""
    if shown is None or shown.sources is None:
        return False
    others = [row for row, own in enumerate(shown.labels) if own != label]
    before = shown.sources[[row for row, own in enumerate(shown.labels) if own == label or shown.targets is not None]]
    after = shown.targets if shown.targets is not None else shown.sources[others]
    return not _coloured(before) and _coloured(after)


def _coloured(samples: torch.Tensor) -> bool:
    return bool((samples != samples[:, :1]).any())


def _decoded(given: Path, spec: ImageSpec) -> tuple[torch.Tensor, list[str]]:
    found, names = [], []
    for file in _images(given):
        try:
            found.append(decode.decode(file, channels=spec.channels, height=spec.height, width=spec.width))
            names.append(str(file.relative_to(given)) if given.is_dir() else file.name)
        except decode.Unreadable as error:
            if not given.is_dir():
                raise DataError(f"--input {file}: {error.reason}; name an image or a folder of images") from None
    if not found:
        raise DataError(f"--input {given}: none of its files can be read as an image")
    return torch.from_numpy(np.stack(found)), names
