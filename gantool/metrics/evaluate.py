"""How good a generator is, measured without touching its training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gantool.batches import Batch, Paired
from gantool.data.decode import RESIZE
from gantool.data.loader import Dataset, Split
from gantool.devices import one_thread
from gantool.images import to_float, to_uint8
from gantool.metrics import distances, pixels
from gantool.metrics.distances import FrechetTerms
from gantool.metrics.features import Extractor
from gantool.metrics.learned import Judge
from gantool.metrics.reference import BATCH, FD_WEIGHTS, SEED, ReferenceSet
from gantool.models.base import Generative, GeneratorInput, LatentModel

MAX_COMPARED = 500  # real and generated images for metrics that compare all pairs
MIN_PER_CLASS = 50  # real and generated images from which a class has its own distance
SPLITS = 10  # of the real images into halves, which give the floor
EQUAL_PSNR = 99.0  # decibels, in place of the infinite ratio of equal images, which JSON cannot hold


@dataclass(frozen=True)
class SampleRequest:
    """A request for images of a generator, with a seed and the label of a class for each.

    `sources` are the images that they are made from, uint8 [N, C, H, W], or None if they are made from noise. `targets`
    are the images that they should become, if known.
    """

    seeds: list[int]
    labels: list[int]
    sources: Tensor | None = None
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, chosen: Sequence[int]) -> SampleRequest:
        """Return the request for some of the images."""
        images = (None if part is None else part[list(chosen)] for part in (self.sources, self.targets))
        return SampleRequest([self.seeds[row] for row in chosen], [self.labels[row] for row in chosen], *images)

    @classmethod
    def translations(cls, store: Dataset, rows: Split, kind: type[Batch], most: int) -> SampleRequest:
        """Return a request for at most so many translations of held-out images, or of training images if none are.

        If `kind` is Unpaired, each kind of images is translated to the other. For `rows` see `loader.rows_of`.
        """
        chosen = rows.held_out if len(rows.held_out) else rows.train
        generator = torch.Generator().manual_seed(SEED)
        chosen = chosen[torch.randperm(len(chosen), generator=generator).numpy()]
        if kind is Paired:
            chosen = chosen[:most]
            images = (torch.from_numpy(store.inputs[part]) for part in (chosen, chosen + 1))
            return cls(list(range(len(chosen))), [0] * len(chosen), *images)
        sides = [chosen[store.labels[chosen] == label][: max(1, most // 2)] for label in (0, 1)]
        labels = [1] * len(sides[0]) + [0] * len(sides[1])
        return cls(list(range(len(labels))), labels, torch.from_numpy(store.inputs[np.concatenate(sides)]))


Sample = Callable[[SampleRequest], Tensor]
"""Makes the images of a request: [N, C, H, W], -1 to 1."""


def prompt_of(model: Generative, request: SampleRequest) -> GeneratorInput:
    """Return a model's input for the images of a request."""
    if request.sources is not None:
        return GeneratorInput(to_float(request.sources), torch.tensor(request.labels), torch.tensor(request.seeds))
    assert isinstance(model, LatentModel)
    return model.prompt(request.seeds, request.labels)


class Floor(NamedTuple):
    """The distances between real images and as many other real images. Only copies can be nearer.

    `units` are the Fréchet distances by extractor. `fd` and its parts are multiples of them, so that their floor is 1.
    `deviation` is the standard deviation of `fd` between sets of real images. With fewer than 4 real images no floor
    exists: the units are 1, and the deviation is nan.
    """

    units: dict[str, float]
    deviation: float


class Measured(NamedTuple):
    """Metrics by name, and the names of the classes that hardly any generated image shows."""

    metrics: dict[str, float]
    lost_classes: tuple[str, ...] = ()


class Evaluator:
    """Measures generated images against real ones.

    `fd` is the weighted geometric mean of the Fréchet distances on the extractors' features, each divided by its floor,
    the distance of real images from other real ones. So 1 is as near as real images are.

    Latents and labels are the same in every measurement. Measuring draws no random number of the run.

    Args:
        reality: the real images.
        extractors: from images to features, by name.
        request: images to generate, or their number; then they are made from noise, with classes as frequent as among
            the real images.
        conditional: whether the generator receives the class, so that a judge can check it.
    """

    def __init__(
        self,
        reality: ReferenceSet,
        extractors: Mapping[str, Extractor],
        request: int | SampleRequest,
        *,
        conditional: bool = False,
    ) -> None:
        self.reality, self.extractors, self.conditional = reality, dict(extractors), conditional
        if isinstance(request, int):
            generator = torch.Generator().manual_seed(SEED)
            shown = torch.multinomial(reality.shares, request, replacement=True, generator=generator)
            request = SampleRequest(list(range(SEED, SEED + request)), shown.tolist())
        self.request = request if len(request) > 1 else request.rows([0, 0])  # one image has no deviation
        self.within_classes = conditional and self._enough_of_each_class()
        self.real = {name: features(extractor, reality.train) for name, extractor in self.extractors.items()}
        self.held_out = {name: features(extractor, reality.held_out) for name, extractor in self.extractors.items()}
        self.base_extractor = next(iter(self.extractors))  # whose features decide which images are near
        self.deviation, self.saturated = _contrast(reality.train)
        # The share of the images that a perfect translator changes, if the targets are known.
        self.change: float | None = None
        if self.request.sources is not None and self.request.targets is not None:
            self.change = pixels.l1(to_float(self.request.sources), to_float(self.request.targets))
        judge = self.extractors.get("judge")
        self.judge = judge if isinstance(judge, Judge) else None
        self.expected: list[float] = []  # how often the judge sees each class among the real images
        if self.judge is not None:
            seen = features(self.judge.probabilities, reality.train).argmax(1)
            self.expected = (torch.bincount(seen, minlength=len(reality.classes)) / len(seen)).tolist()
        self.floor = self._floor()

    def _enough_of_each_class(self) -> bool:
        """Return whether each class can have its own distance.

        Without it, a generator of the right classes for the wrong labels would pass, and a translator that returns its
        input.
        """
        classes = len(self.reality.classes)
        least = MIN_PER_CLASS if self.request.sources is None else 2
        sets = (self.reality.train_labels, torch.tensor(self.request.labels))
        return classes > 1 and all(int(torch.bincount(labels, minlength=classes).min()) >= least for labels in sets)

    @property
    def about(self) -> dict[str, Any]:
        """The conditions of a measurement, which are logged with its numbers."""
        real, deviation = self.reality.train, self.floor.deviation
        return {
            "real": len(real),
            "held_out": len(self.reality.held_out),
            "fake": len(self.request),
            "within_classes": self.within_classes,
            "compared_one_by_one": min(MAX_COMPARED, len(real), len(self.request)),
            "extractors": [extractor.identity for extractor in self.extractors.values()],
            "split": round(self.reality.split, 4),
            **({"part": self.reality.part} if self.reality.part else {}),
            "size": "x".join(map(str, real.shape[1:])),
            "resize": RESIZE,
            "seed": SEED,
            "units": {name: float(f"{value:.6g}") for name, value in self.floor.units.items()},
            "floor_deviation": deviation if math.isfinite(deviation) else None,
        }

    def __call__(self, sample: Sample) -> Measured:
        """Measure a generator."""
        return self.measure(self.generate(sample), self.request.labels)

    def generate(self, sample: Sample) -> Tensor:
        """Return the images of a measurement, in the 8 bits that are written: uint8 [N, C, H, W]."""
        parts = torch.split(torch.arange(len(self.request)), BATCH)
        return torch.cat([to_uint8(sample(self.request.rows(part.tolist()))) for part in parts])

    def measure(self, fake: Tensor, labels: Sequence[int] | None = None) -> Measured:
        """Measure generated images, uint8 [N, C, H, W], and the labels that the generator received, if any."""
        found = {name: features(extractor, fake) for name, extractor in self.extractors.items()}
        request = torch.tensor(self.request.labels if labels is None else labels)
        terms = {
            name: self._frechet(self.real[name], found[name], self.reality.train_labels, request) for name in found
        }
        contrast, saturated = _contrast(fake)
        parts = {name: own.distance / self.floor.units[name] for name, own in terms.items()}
        fd = combined(parts)
        metrics = {
            "fd": fd,
            "fd_deviation": self._deviation(fd, terms),
            **{f"fd_{name}": value for name, value in parts.items()},
            **self._neighbour_metrics(found[self.base_extractor]),
            "contrast": contrast / max(self.deviation, 1e-6),
            "saturated": saturated,
            **self._translation_metrics(fake),
        }
        if self.judge is None:
            return Measured(metrics)
        shown = features(self.judge.probabilities, fake).argmax(1)
        if self.conditional and labels is not None:
            metrics["judge_accuracy"] = float((shown == torch.tensor(labels)).float().mean())
        lost = self._missing_classes(shown)
        return Measured({**metrics, "lost_classes": float(len(lost))}, lost)

    def first_version(self, metrics: Mapping[str, float]) -> float:
        """Return the `fd` of gantool 0.1 from what `measure` found.

        It is the geometric mean of the distances on `rand` and `pretext`, not divided by their floors.
        """
        names = [name for name in ("rand", "pretext") if name in self.extractors]
        raw = [metrics[f"fd_{name}"] * self.floor.units[name] for name in names]
        return math.prod(raw) ** (1 / max(1, len(raw)))

    def _frechet(self, real: Tensor, fake: Tensor, real_labels: Tensor, fake_labels: Tensor) -> FrechetTerms:
        """Return the Fréchet distance, or the mean of those within each class."""
        if not self.within_classes:
            return distances.frechet_terms(real, fake)
        classes = len(self.reality.classes)
        terms = [torch.zeros(len(part), dtype=torch.float64) for part in (real, fake)]
        values = []
        for label in range(classes):
            rows = (real_labels == label, fake_labels == label)
            found = distances.frechet_terms(real[rows[0]], fake[rows[1]])
            values.append(found.distance)
            for own, mask, part in zip(terms, rows, (found.real, found.fake), strict=True):
                own[mask] = part / classes
        return FrechetTerms(math.fsum(values) / classes, *terms)

    def _deviation(self, fd: float, terms: Mapping[str, FrechetTerms]) -> float:
        """Return the standard deviation of `fd` over other draws of the generated and of the real images.

        It is computed to first order from the images' influence. That vanishes for sets of the same distribution, where
        the floor's deviation remains.
        """
        weight = sum(FD_WEIGHTS[name] for name in terms)
        known = {name: own for name, own in terms.items() if 0 < own.distance < math.inf}
        relative = 0.0
        for kind in ("real", "fake"):
            parts = [FD_WEIGHTS[name] / weight * getattr(own, kind) / own.distance for name, own in known.items()]
            if parts:
                relative += float(torch.stack(parts).sum(0).square().sum())
        return math.hypot(fd * math.sqrt(relative), self.floor.deviation)

    def _neighbour_metrics(self, fake: Tensor) -> dict[str, float]:
        """Measure what `fd` misses: copies, few distinct images, and real images that nothing resembles."""
        real, held_out = self.real[self.base_extractor], self.held_out[self.base_extractor]
        count = min(MAX_COMPARED, len(real), len(fake))  # coverage and 1-NN need equal numbers
        nearest = distances.nearest_neighbour_accuracy(real[:count], fake[:count])
        some = fake[:MAX_COMPARED]
        support = distances.support_size(real[:MAX_COMPARED], some)
        found = {
            "coverage": distances.density_coverage(real[:count], fake[:count]).coverage,
            "nearest_neighbour": nearest.accuracy,
            "nearest_neighbour_fake": nearest.fake,
            "support": min(support.size, len(some) * (len(some) - 1) / 2),  # a lower bound if nothing collides
            "collisions": float(support.collisions),
            "copied": distances.copied_share(real, some),
        }
        if len(held_out):
            found["copying"] = distances.data_copying(real, held_out, some)
        return found

    def _translation_metrics(self, fake: Tensor) -> dict[str, float]:
        """Compare translations with their sources, and with their targets if known."""
        sources, targets = self.request.sources, self.request.targets
        if sources is None or len(fake) != len(sources):
            return {}
        made = to_float(fake)
        found = {"change": pixels.l1(made, to_float(sources))}
        if targets is not None:
            wanted = to_float(targets)
            found["l1"] = pixels.l1(made, wanted)
            found["psnr"] = min(EQUAL_PSNR, pixels.psnr(made, wanted))
            found["ssim"] = pixels.ssim(made, wanted)
        return found

    def _missing_classes(self, shown: Tensor) -> tuple[str, ...]:
        """Return the classes that are shown less than a tenth as often as among the real images, and not by chance."""
        counts = torch.bincount(shown, minlength=len(self.reality.classes)).tolist()
        return tuple(
            name
            for name, share, count in zip(self.reality.classes, self.expected, counts, strict=True)
            if count < 0.1 * share * len(shown) and _at_most(count, len(shown), share) < 1e-6
        )

    def _floor(self) -> Floor:
        """Measure random halves of the real images against each other; the units are geometric means over the splits.

        A Fréchet distance between two samples of one distribution is about proportional to 1/N + 1/M (Chong and Forsyth
        2020, arXiv:1911.07023), which scales the halves to the numbers of a measurement.
        """
        # Without held-out images their features have another width.
        everything = {
            name: torch.cat([real, self.held_out[name]]) if len(self.held_out[name]) else real
            for name, real in self.real.items()
        }
        labels = torch.cat([self.reality.train_labels, self.reality.held_out_labels])
        half = len(labels) // 2
        if half < 2:
            return Floor(dict.fromkeys(everything, 1.0), math.nan)
        generator = torch.Generator().manual_seed(SEED)
        scale = (1 / len(self.reality.train) + 1 / len(self.request)) / (2 / half)
        found: dict[str, list[float]] = {name: [] for name in everything}
        for _ in range(SPLITS):
            rows = torch.randperm(len(labels), generator=generator)
            rows = rows[labels[rows].argsort(stable=True)]
            one, other = rows[::2], rows[1::2]  # halves of every class
            for name, part in everything.items():
                halves = self._frechet(part[one], part[other], labels[one], labels[other])
                found[name].append(scale * halves.distance)
        units = {
            name: math.exp(statistics.fmean(map(math.log, values))) if all(values) else 1.0
            for name, values in found.items()
        }
        splits = [combined({name: found[name][split] / units[name] for name in found}) for split in range(SPLITS)]
        return Floor(units, statistics.stdev(splits))


@one_thread()
def features(extractor: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the features, or a judge's probabilities, of uint8 images: [N, C, H, W] -> [N, D], on the CPU."""
    if not len(images):
        return torch.empty(0, 0)
    return torch.cat([extractor(to_float(part)) for part in torch.split(images, BATCH)])


def combined(distances_by_name: Mapping[str, float]) -> float:
    """Return the geometric mean of distances by extractor, weighted with `FD_WEIGHTS`; 0 if one of them is 0.

    Distances whose sizes differ by orders of magnitude contribute alike.
    """
    if not all(distances_by_name.values()):
        return 0.0
    total = sum(FD_WEIGHTS[name] for name in distances_by_name)
    logs = (FD_WEIGHTS[name] * math.log(value) for name, value in distances_by_name.items())
    return math.exp(math.fsum(logs) / total)


@one_thread()
def _contrast(images: Tensor) -> tuple[float, float]:
    """Return the deviation of all pixels, and the share of black and white ones."""
    some = to_float(images[:MAX_COMPARED])
    return float(some.std()), float((some.abs() > 0.99).float().mean())


def _at_most(count: int, trials: int, share: float) -> float:
    """Return the probability of at most `count` hits in `trials` if each hits with probability `share`."""
    hits = torch.arange(count + 1, dtype=torch.float64)
    law = torch.distributions.Binomial(trials, torch.tensor(min(share, 1 - 1e-12), dtype=torch.float64))
    return float(law.log_prob(hits).exp().sum())  # type: ignore[no-untyped-call]
