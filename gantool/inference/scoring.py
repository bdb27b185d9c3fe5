"""Measure trained models and folders of images: `score`."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gantool.batches import Labeled
from gantool.data import decode
from gantool.data.loader import Dataset, tensor
from gantool.data.prepare import prepare
from gantool.data.sources.folders import Folder
from gantool.errors import DataError, GantoolError, unknown
from gantool.files import disk_errors, exclusive_lock, sweep, write
from gantool.images import to_float
from gantool.inference.sampling import TrainedModel
from gantool.metrics import distances, pixels
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import MAX_COMPARED, MIN_PER_CLASS, Evaluator, features
from gantool.metrics.inception import Inception
from gantool.metrics.reference import ReferenceSet, learn
from gantool.models.base import Classifier
from gantool.recipe.blocks import Data
from gantool.runs import Run
from gantool.training import engine, setup

SIZE_SAMPLE = 100  # images of a folder that decide at which size they are compared
LOCK_TIMEOUT = 60.0  # seconds to wait for another process that adds a result to the same file
MAX_SIDE = 256  # pixels on a side at which folders are compared, at most

METRICS = {
    "fd": "Fréchet distance on gantool's own features: lower is better, 1 is what real images get",
    "kd": "kernel distance (KID's formula) on the same features, unbiased: 0 is perfect",
    "coverage": "share of the real images with a generated one near by",
    "nearest_neighbour": "how well the nearest image tells generated from real: 0.5 is perfect, below it are copies",
    "copying": "C_T: below 0 nearer to training images than unseen real ones are, above 0 farther; below -3 is copying",
    "support": "about how many different images there are, by counting near twins",
    "precision": "for information: share of generated images inside of the real ones' region",
    "recall": "for information: share of real images inside of the generated ones' region",
    "density": "for information: how densely real images surround the generated ones",
    "inception_score": "for information: the judge's Inception score",
    "judge_accuracy": "share of generated images in which a judge sees the class that was asked for",
    "class_fd": "mean over the classes of fd_rand within each",
    "fd_v1": "fd as gantool 0.1 had it, blind to fine texture; for comparison with its tables",
    "fid": "Inception-FID, comparable with papers where size, counts and data are theirs",
    "l1": "mean absolute difference from the image of the same name, of 0 to 2",
    "psnr": "peak signal-to-noise ratio against the image of the same name, in decibels",
    "ssim": "structural similarity with the image of the same name: 1 is equal",
    "error": "share of wrong answers to what training never saw",
    "accuracy": "share of right ones",
    "balanced_accuracy": "mean over the classes of the share of right ones",
    "train_accuracy": "share of right answers to what was learned from",
    "cross_entropy": "mean of -log(probability given to the right class)",
}
PARTS = {
    "fd_rand": "its part on a fixed random network: shapes, colours and contrast",
    "fd_texture": "its part on spatial frequencies: noise, chequers and blur",
    "fd_pretext": "its part on features learned from the images: what is where",
    "fd_judge": "its part on features learned from the classes",
}
FOR_INFORMATION = tuple(name for name, meaning in METRICS.items() if meaning.startswith("for information"))
PAIRED = ("l1", "psnr", "ssim")
ANSWERED = ("error", "accuracy", "balanced_accuracy", "train_accuracy", "cross_entropy")
BY_ITSELF = tuple(name for name in METRICS if name not in ("fid", "fd_v1", *PAIRED, *ANSWERED))  # without --metrics


class Value(NamedTuple):
    """One number of a score."""

    name: str
    value: float  # NaN if the images are too few
    perfect: float | None = None  # the value of real images, if it is known
    deviation: float | None = None  # standard deviation over other draws of the images, if it is known


class Score(NamedTuple):
    """The result of a measurement."""

    what: str  # the run or folder
    values: list[Value]
    about: dict[str, Any]  # counts, extractors, size, split and seed
    missing: tuple[str, ...] = ()  # metrics that were asked for by name and that these images cannot give

    def entry(self) -> dict[str, Any]:
        """Return it as plain values; a value that is not finite is null."""
        values = {row.name: row.value if math.isfinite(row.value) else None for row in self.values}
        values |= {
            f"{row.name}_deviation": row.deviation
            for row in self.values
            if row.deviation is not None and math.isfinite(row.deviation)
        }
        return {"what": self.what, "values": values, "measured_with": self.about}


def chosen(text: str | None) -> Sequence[str]:
    """Read a list of metrics, such as `fd,kd`; without one, return `BY_ITSELF`."""
    if text is None:
        return BY_ITSELF
    names = [name.strip() for name in text.split(",") if name.strip()] or [text]
    for name in names:
        if name not in METRICS:
            raise GantoolError(f"--metrics {name}: " + unknown("metric", name, METRICS))
    return names


def score_run(
    run: Run,
    names: Sequence[str],
    *,
    against: Path | None,
    count: int | None = None,
    checkpoint: str,
    device: str,
    data_dir: Path,
) -> Score:
    """Measure a run, and add the result to its `scores.jsonl`.

    Without `against`, a folder of real images, and `count`, a number of generated ones, its numbers are those of
    training: the same latents, real images and extractors.
    """
    trained = TrainedModel(run, checkpoint, device)
    if isinstance(trained.model, Classifier):
        values, about = _answers(trained, names, against, count, data_dir)
    else:
        values, about = _images(trained, names, against, count, data_dir)
    found = _score(str(run.path), names, values, {**about, "checkpoint": checkpoint, "epoch": trained.epoch})
    path = run.path / "scores.jsonl"
    with exclusive_lock(run.path / "scores.lock", wait=LOCK_TIMEOUT), disk_errors(path):
        sweep(path)
        lines = path.read_bytes() if path.exists() else b""
        write(path, lines + json.dumps(found.entry()).encode() + b"\n")
    return found


def score_folder(folder: Path, against: Path, names: Sequence[str], *, data_dir: Path) -> Score:
    """Measure the images of one folder against those of another, at the size of the second one's images."""
    size, channels = _native(against)
    shape: dict[str, Any] = {"size": size, "channels": channels}
    fake = prepare(Data(source=str(folder), **shape), data_dir)
    real = prepare(Data(source=str(against), **shape), data_dir)
    if names is BY_ITSELF or not set(names) <= set(PAIRED):
        _check_several(folder, fake)
        _check_several(against, real)
    evaluator = _evaluator(real, len(fake), data_dir)
    values = _values(evaluator, tensor(fake.inputs), None, names, data_dir)
    if pairs := [name for name in names if name in PAIRED]:
        values += _paired(folder, against, fake, real, pairs)
    return _score(str(folder), names, values, {**evaluator.about, "against": str(against)})


def _score(what: str, names: Sequence[str], values: list[Value], about: dict[str, Any]) -> Score:
    found = {value.name for value in values}
    missing = () if names is BY_ITSELF else tuple(name for name in names if name not in found)
    return Score(what, values, about, missing)


def _images(
    trained: TrainedModel, names: Sequence[str], against: Path | None, count: int | None, data_dir: Path
) -> tuple[list[Value], dict[str, Any]]:
    """Measure generated images."""
    evaluator = evaluator_of(trained, against, count, data_dir)
    paired = against is None and evaluator.request.targets is not None
    for name in names:
        if name in ANSWERED:
            raise GantoolError(f"--metrics {name}: is about answers, but {trained.name} makes images")
        if name in PAIRED and not paired:
            raise GantoolError(
                f"--metrics {name}: compares images of the same name; name two folders: FOLDER --against"
            )
    fake = evaluator.generate(trained.images)
    labels = evaluator.request.labels if evaluator.conditional else None
    values = _values(evaluator, fake, labels, [*names, *PAIRED] if paired and names is BY_ITSELF else names, data_dir)
    about = dict(evaluator.about)
    if against is not None:
        about["against"] = str(against)
    if evaluator.request.sources is not None:
        about["translations"] = True
    return values, about


def _answers(
    trained: TrainedModel, names: Sequence[str], against: Path | None, count: int | None, data_dir: Path
) -> tuple[list[Value], dict[str, Any]]:
    """Measure the answers of a classifier."""
    wanted = ANSWERED if names is BY_ITSELF else names
    for name in wanted:
        if name not in ANSWERED:
            raise GantoolError(
                f"--metrics {name}: is about images, but {trained.name} answers; use {', '.join(ANSWERED)}"
            )
    if against is not None:
        raise GantoolError(f"--against {against}: compares images, but {trained.name} makes none; leave it out")
    if count is not None:
        raise GantoolError(f"--images {count}: counts generated images, but {trained.name} makes none; leave it out")
    evaluator = setup.prepare_training(trained.recipe, data_dir, store=trained.dataset(data_dir)).evaluator
    assert isinstance(evaluator, ClassifierEvaluator)
    found = evaluator.measure(trained.answer)
    return [Value(name, found[name]) for name in wanted], evaluator.about


def evaluator_of(trained: TrainedModel, against: Path | None, count: int | None, data_dir: Path) -> Evaluator:
    """Return the evaluator of a trained generator: that of training, or with a folder or another count."""
    recipe, spec = trained.recipe, trained.generator.data
    count = count or recipe.train.evaluate_images
    if against is None:
        recipe = engine.change(recipe, {"train.evaluate_images": count})
        evaluator = setup.evaluator_of(recipe, trained.dataset(data_dir), data_dir)
        assert isinstance(evaluator, Evaluator)
        return evaluator
    if trained.shown is not None:
        raise GantoolError(f"--against {against}: {trained.name} translates images of its own data only; leave it out")
    _check_folder(against)
    data = Data(source=str(against), size=(spec.height, spec.width), channels=3 if spec.channels == 3 else 1)
    real = prepare(data, data_dir)
    _check_several(against, real)
    return _evaluator(real, count, data_dir)


def _evaluator(store: Dataset, count: int, data_dir: Path) -> Evaluator:
    share = Data.model_fields["held_out"].default
    reality = ReferenceSet.of(store, store.split(share, Labeled))
    extractors = learn(reality, "auto", data_dir / "extractors", f"{store.key}-{round(100 * share)}")
    return Evaluator(reality, extractors, count)


def _values(
    evaluator: Evaluator, fake: Tensor, labels: Sequence[int] | None, names: Sequence[str], data_dir: Path
) -> list[Value]:
    """Compute the named metrics; those that these images cannot give are left out."""
    found = evaluator.measure(fake, labels).metrics
    real = evaluator.real[evaluator.base_extractor]
    made = features(evaluator.extractors[evaluator.base_extractor], fake)
    count = min(MAX_COMPARED, len(real), len(made))
    perfect: dict[str, float | None] = {
        "fd": 1.0 if math.isfinite(evaluator.floor.deviation) else None,
        "coverage": distances.expected_coverage(count, count),
        "nearest_neighbour": 0.5,
        "copying": 0.0,
    }
    values: list[Value] = []
    for name in names:
        if name == "fd":
            values.append(Value(name, found[name], perfect[name], found["fd_deviation"]))
            values += [Value(f"fd_{part}", found[f"fd_{part}"], perfect[name]) for part in evaluator.extractors]
        elif name in found:
            values.append(Value(name, found[name], perfect.get(name)))
        elif name in ("precision", "recall", "density", "kd"):
            values.append(_of_features(name, real, made, count))
        elif name == "inception_score" and evaluator.judge:
            sets = [features(evaluator.judge.probabilities, part) for part in (fake, evaluator.reality.train)]
            values.append(Value(name, *map(distances.inception_score, sets)))
        elif name == "fd_v1":
            values.append(Value(name, evaluator.first_version(found)))
        elif name == "class_fd" and labels is not None:
            values += _by_class(evaluator, fake, labels)
        elif name == "fid":
            network = Inception.open(data_dir)
            sets = [features(network, part) for part in (evaluator.reality.train, fake)]
            values.append(Value(name, distances.frechet_distance(sets[0], sets[1])))
    return values


def _of_features(name: str, real: Tensor, made: Tensor, count: int) -> Value:
    if name == "kd":
        return Value(name, distances.kernel_distance(real, made), 0.0)
    if name == "density":
        return Value(name, distances.density_coverage(real[:count], made[:count]).density, 1.0)
    return Value(name, getattr(distances.precision_recall(real[:count], made[:count]), name))


def _by_class(evaluator: Evaluator, fake: Tensor, labels: Sequence[int]) -> list[Value]:
    """Return the mean of the Fréchet distances within the classes, and those of each class with enough images."""
    extractor, wanted = evaluator.extractors[evaluator.base_extractor], torch.tensor(labels)
    made, real = features(extractor, fake), evaluator.real[evaluator.base_extractor]
    unit = evaluator.floor.units[evaluator.base_extractor]
    rows = []
    for label, name in enumerate(evaluator.reality.classes):
        own, other = real[evaluator.reality.train_labels == label], made[wanted == label]
        if len(own) >= MIN_PER_CLASS and len(other) >= MIN_PER_CLASS:
            rows.append(Value(f"fd of {name}", distances.frechet_distance(own, other) / unit))
    return [Value("class_fd", math.fsum(row.value for row in rows) / len(rows)), *rows] if rows else []


def _paired(folder: Path, against: Path, fake: Dataset, real: Dataset, names: Sequence[str]) -> list[Value]:
    """Compare images of the same name."""
    stems = []
    for place, store in ((folder, fake), (against, real)):
        found, skipped = Folder(place), {Path(name).stem for name, _ in store.skipped}
        listed = [file.stem for name in found.classes for file in found.files[name]]
        stems.append([stem for stem in listed if stem not in skipped])
    if stems[0] != stems[1]:
        lone = sorted(set(stems[0]) ^ set(stems[1])) or ["their order differs"]
        raise DataError(
            f"{folder}: {', '.join(names)} compare images of the same name, but {lone[0]!r} has no partner in both "
            f"folders; leave it out, or name other --metrics"
        )
    one, other = (to_float(tensor(store.inputs)) for store in (fake, real))
    return [Value(name, getattr(pixels, name)(one, other)) for name in names]


def _check_several(folder: Path, images: Dataset) -> None:
    """Raise DataError for one image, which has no variety to compare."""
    if len(images) == 1:
        raise DataError(f"{folder}: holds one image, but a score compares many; give a folder of 12 or more")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; score compares a run, or a folder of images, with a folder")


def _native(folder: Path) -> tuple[int, int]:
    """Return the size and the channels at which a folder's images are compared.

    They are the median of the shorter sides of some images, at most `MAX_SIDE`, and the channels of most of them.
    """
    _check_folder(folder)
    found = Folder(folder)
    natives: list[tuple[int, int, int]] = []
    for file in (file for name in found.classes for file in found.files[name]):
        if len(natives) < SIZE_SAMPLE:
            with contextlib.suppress(decode.Unreadable):
                natives.append(decode.native(file))
    if not natives:
        raise DataError(f"{folder}: no readable images in it; a folder of images is what score compares")
    side = int(statistics.median(min(height, width) for _, height, width in natives))
    grey = sum(channels == 1 for channels, _, _ in natives)
    return max(1, min(MAX_SIDE, side)), 1 if grey > len(natives) / 2 else 3
