"""Finished generators and folders of images, measured: `score`."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
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
from gantool.files import atomic_write
from gantool.images import to_float
from gantool.inference.sampling import TrainedModel
from gantool.metrics import distances, pixels
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import MAX_COMPARED, Evaluator, features, probabilities
from gantool.metrics.inception import Inception
from gantool.metrics.reference import ReferenceSet, learn
from gantool.models.base import Classifier
from gantool.recipe.blocks import Data
from gantool.runs import Run
from gantool.training import engine, setup

SIZE_SAMPLE = 100  # images of a folder that decide at which size they are compared
MAX_SIDE = 256  # pixels on a side at which folders are compared, at the most
MIN_PER_CLASS = 50  # real images of a class from which its own distance means something

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
PAIRED = ("l1", "psnr", "ssim")
ANSWERED = ("error", "accuracy", "balanced_accuracy", "train_accuracy", "cross_entropy")
BY_ITSELF = tuple(
    name for name in METRICS if name not in ("fid", "fd_v1", *PAIRED, *ANSWERED)
)  # the rest need more than two sets, or are asked for by name


class Value(NamedTuple):
    """One number of a score.

    Args:
        name: the metric.
        value: what it is; not a number where there are too few images.
        perfect: what real images against real ones get, where that is known.
        deviation: standard deviation over other draws of the images, where that is known.
    """

    name: str
    value: float
    perfect: float | None = None
    deviation: float | None = None


class Score(NamedTuple):
    """What was measured, and with what.

    Args:
        what: the run or folder.
        values: the numbers.
        about: counts, extractors, size, split and seed, which stand beside every number.
        missing: metrics that were asked for by name and cannot be had of these images.
    """

    what: str
    values: list[Value]
    about: dict[str, Any]
    missing: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """Return it as plain values; what is not finite is null."""
        values = {row.name: row.value if math.isfinite(row.value) else None for row in self.values}
        values |= {
            f"{row.name}_deviation": row.deviation
            for row in self.values
            if row.deviation is not None and math.isfinite(row.deviation)
        }
        return {"what": self.what, "values": values, "measured_with": self.about}


def chosen(text: str | None) -> list[str]:
    """Read a list of metrics, such as `fd,kd`; without one, all that need nothing else."""
    if text is None:
        return list(BY_ITSELF)
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
    """Measure a run's generator against its own images, or those of a folder; adds to the run's `scores.jsonl`.

    Without `against` and `count` its numbers are those of training: the same latents, real images and extractors.

    Args:
        run: the run.
        names: of the metrics.
        against: a folder of real images, in place of the run's own.
        count: generated images, in place of the recipe's `train.evaluate_images`.
        checkpoint: which one of the run's.
        device: see `devices.choose`.
        data_dir: where fetched and decoded data are.
    """
    trained = TrainedModel(run, checkpoint, device)
    if isinstance(trained.model, Classifier):
        values, about = _answers(trained, names, against, count, data_dir)
    else:
        values, about = _images(trained, names, against, count, data_dir)
    about = {**about, "checkpoint": checkpoint, "epoch": trained.epoch}
    found = Score(str(run.path), values, about, _missing(names, values))
    lines = (run.path / "scores.jsonl").read_text("utf-8") if (run.path / "scores.jsonl").exists() else ""
    with atomic_write(run.path / "scores.jsonl") as aside:
        aside.write_text(lines + json.dumps(found.entry()) + "\n", encoding="utf-8", newline="\n")
    return found


def _images(
    trained: TrainedModel,
    names: Sequence[str],
    against: Path | None,
    count: int | None,
    data_dir: Path,
) -> tuple[list[Value], dict[str, Any]]:
    """Measure the images of a run's generator."""
    evaluator = evaluator_of(trained, against, count, data_dir)
    paired = against is None and evaluator.request.targets is not None
    for name in names:
        if name in ANSWERED or (name in PAIRED and not paired):
            raise GantoolError(
                f"--metrics {name}: compares images of the same name; name two folders: FOLDER --against"
                if name in PAIRED
                else f"--metrics {name}: is about answers, but {trained.name} makes images"
            )
    fake = evaluator.generate(trained.images)
    wanted = [*names, *PAIRED] if paired and list(names) == list(BY_ITSELF) else names
    values = _values(evaluator, fake, evaluator.request.labels if evaluator.conditional else None, wanted, data_dir)
    about = dict(evaluator.about)
    if against is not None:
        about["against"] = str(against)
    if evaluator.request.sources is not None:
        about["translations"] = True
    return values, about


def _answers(
    trained: TrainedModel,
    names: Sequence[str],
    against: Path | None,
    count: int | None,
    data_dir: Path,
) -> tuple[list[Value], dict[str, Any]]:
    """Measure the answers of a run's classifier."""
    wanted = ANSWERED if list(names) == list(BY_ITSELF) else names
    for name in wanted:
        if name not in ANSWERED:
            raise GantoolError(
                f"--metrics {name}: is about images, but {trained.name} answers; use {', '.join(ANSWERED)}"
            )
    if against is not None:
        raise GantoolError(f"--against {against}: compares images, but {trained.name} makes none; leave it out")
    if count is not None:
        raise GantoolError(f"--images {count}: counts generated images, but {trained.name} makes none; leave it out")
    exam = setup.prepare_training(trained.recipe, data_dir).evaluator
    assert isinstance(exam, ClassifierEvaluator)
    found = exam.measure(trained.answer)
    return [Value(name, found[name]) for name in wanted if name in found], exam.about


def score_folder(folder: Path, against: Path, names: Sequence[str], *, data_dir: Path) -> Score:
    """Measure the images of one folder against those of another, at the size of the second one's images."""
    size, channels = _native(against)
    shape: dict[str, Any] = {"size": size, "channels": channels}
    fake = prepare(Data(source=str(folder), **shape), data_dir)
    real = prepare(Data(source=str(against), **shape), data_dir)
    evaluator = _evaluator(real, len(fake), data_dir)
    made = tensor(fake.inputs)
    plain = [name for name in names if name not in PAIRED]
    values = _values(evaluator, made, None, plain, data_dir)
    if len(plain) < len(names):
        values += _paired(folder, against, fake, real, [name for name in names if name not in plain])
    return Score(str(folder), values, {**evaluator.about, "against": str(against)}, _missing(names, values))


def _missing(names: Sequence[str], values: Sequence[Value]) -> tuple[str, ...]:
    """Name what was asked for and is not there; nobody misses what was not asked for by name."""
    there = {value.name for value in values}
    return () if list(names) == list(BY_ITSELF) else tuple(name for name in names if name not in there)


def evaluator_of(trained: TrainedModel, against: Path | None, count: int | None, data_dir: Path) -> Evaluator:
    """Return what measures a trained generator: as training did, or against a folder, or with another count."""
    recipe, spec = trained.recipe, trained.generator.data
    count = count or recipe.train.evaluate_images
    if against is None:
        recipe = engine.change(recipe, {"train.evaluate_images": count})
        evaluator = setup.evaluator_of(recipe, setup.data_of(recipe, data_dir), data_dir)
        assert isinstance(evaluator, Evaluator)
        return evaluator
    if trained.shown is not None:
        raise GantoolError(f"--against {against}: {trained.name} translates images of its own data only; leave it out")
    _check_missing(against)
    data = Data(source=str(against), size=(spec.height, spec.width), channels=3 if spec.channels == 3 else 1)
    return _evaluator(prepare(data, data_dir), count, data_dir)


def _evaluator(store: Dataset, count: int, data_dir: Path) -> Evaluator:
    share = Data.model_fields["held_out"].default
    reality = ReferenceSet.of(store, store.split(share, Labeled))
    extractors = learn(reality, "auto", data_dir / "extractors", f"{store.key}-{round(100 * share)}")
    return Evaluator(reality, extractors, count)


def _values(
    evaluator: Evaluator, fake: Tensor, labels: Sequence[int] | None, names: Sequence[str], data_dir: Path
) -> list[Value]:
    """Compute the named metrics; one that these images cannot give is left out."""
    found = evaluator.measure(fake, labels).metrics
    real = evaluator.real[evaluator.base_extractor]
    made = features(evaluator.extractors[evaluator.base_extractor], fake)
    count = min(MAX_COMPARED, len(real), len(made))
    parts = (real[:count], made[:count])
    judge = evaluator.judge
    perfect: dict[str, float | None] = {
        "fd": 1.0 if math.isfinite(evaluator.floor.deviation) else None,
        "coverage": distances.expected_coverage(count, count),
        "nearest_neighbour": 0.5,
        "copying": 0.0,
    }
    rows = {name: [Value(name, found[name], perfect.get(name))] for name in names if name in found}
    if "fd" in rows:
        rows["fd"] = [rows["fd"][0]._replace(deviation=found["fd_deviation"])]
        rows["fd"] += [Value(f"fd_{name}", found[f"fd_{name}"], perfect["fd"]) for name in evaluator.extractors]

    def inception_score() -> list[Value]:
        sets = [probabilities(judge, part) for part in (fake, evaluator.reality.train)] if judge else []
        return [Value("inception_score", *map(distances.inception_score, sets))] if sets else []

    def fid() -> list[Value]:
        network = Inception.open(data_dir)
        sets = [features(network, part) for part in (evaluator.reality.train, fake)]
        return [Value("fid", distances.frechet_distance(sets[0], sets[1]))]

    more: dict[str, Callable[[], list[Value]]] = {
        "fd_v1": lambda: [Value("fd_v1", evaluator.first_version(found))],
        "kd": lambda: [Value("kd", distances.kernel_distance(real, made), 0.0)],
        "precision": lambda: [Value("precision", distances.precision_recall(*parts).precision)],
        "recall": lambda: [Value("recall", distances.precision_recall(*parts).recall)],
        "density": lambda: [Value("density", distances.density_coverage(*parts).density, 1.0)],
        "inception_score": inception_score,
        "class_fd": lambda: _by_class(evaluator, fake, labels) if labels is not None else [],
        "fid": fid,
    }
    rows |= {name: more[name]() for name in names if name in more}
    return [value for name in names for value in rows.get(name, [])]


def _by_class(evaluator: Evaluator, fake: Tensor, labels: Sequence[int]) -> list[Value]:
    """Return the Fréchet distance within each class that has enough images of both kinds, and their mean."""
    extractor, asked = evaluator.extractors[evaluator.base_extractor], torch.tensor(labels)
    made, real = features(extractor, fake), evaluator.real[evaluator.base_extractor]
    rows = []
    for label, name in enumerate(evaluator.reality.classes):
        own, other = real[evaluator.reality.train_labels == label], made[asked == label]
        if len(own) >= MIN_PER_CLASS and len(other) >= MIN_PER_CLASS:
            unit = evaluator.floor.units[evaluator.base_extractor]
            rows.append(Value(f"fd of {name}", distances.frechet_distance(own, other) / unit))
    mean = [Value("class_fd", math.fsum(row.value for row in rows) / len(rows))] if rows else []
    return mean + rows


def _paired(folder: Path, against: Path, fake: Dataset, real: Dataset, names: Sequence[str]) -> list[Value]:
    """Compare images of the same name."""
    stems = []
    for place, store in ((folder, fake), (against, real)):
        found = Folder(place)
        listed = [file.stem for name in found.classes for file in found.files[name]]
        skipped = {Path(name).stem for name, _ in store.skipped}
        stems.append([stem for stem in listed if stem not in skipped])
    if stems[0] != stems[1]:
        lone = sorted(set(stems[0]) ^ set(stems[1])) or ["their order differs"]
        raise DataError(
            f"{folder}: {', '.join(names)} compare images of the same name, but {lone[0]!r} has no partner in both "
            f"folders; leave it out, or name other --metrics"
        )
    compare = {"l1": pixels.l1, "psnr": pixels.psnr, "ssim": pixels.ssim}
    images_of = [to_float(tensor(store.inputs)) for store in (fake, real)]
    return [Value(name, compare[name](*images_of)) for name in names]


def _check_missing(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; score compares a run, or a folder of images, with a folder")


def _native(folder: Path) -> tuple[int, int]:
    """Return the pixels on a side, and the channels, at which a folder's images are compared.

    The median of their shorter sides, at most `MAX_SIDE`, and the channels of most.
    """
    _check_missing(folder)
    found = Folder(folder)
    sides: list[int] = []
    channels: list[int] = []
    for file in (file for name in found.classes for file in found.files[name]):
        if len(sides) == SIZE_SAMPLE:
            break
        with contextlib.suppress(decode.Unreadable):
            own, height, width = decode.native(file)
            sides.append(min(height, width))
            channels.append(own)
    if not sides:
        raise DataError(f"{folder}: no readable images in it; a folder of images is what score compares")
    return max(1, min(MAX_SIDE, int(statistics.median(sides)))), 1 if channels.count(1) > len(sides) / 2 else 3
