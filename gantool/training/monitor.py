"""The metrics of a model while it trains, and the image that is kept of each epoch."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from gantool import images
from gantool.batches import Labeled, RowSpec
from gantool.images import to_float, to_uint8
from gantool.metrics import drawings
from gantool.metrics.classification import ClassifierEvaluator
from gantool.metrics.evaluate import Evaluator, SampleRequest, prompt_of
from gantool.models.base import Classifier, Generative, GeneratorInput, LatentModel, Model

GRID_IMAGES = 16  # latents, or examples, whose images are kept each epoch
GRID_TRANSLATIONS = 8  # translations that are kept, each of which fills two or three places
MAX_SCORED = 500  # images of each kind whose scores tell whether the discriminator knows its images by heart
OF_GENERATED = {"support", "collisions", "copying", "nearest_neighbour_fake", "copied"}  # a translator does not choose


class Measurement(NamedTuple):
    """A measurement of a model."""

    metrics: dict[str, float]  # by name, for the log
    values: dict[str, float]  # for the diagnoses, see `rule.Observation`
    lost_classes: tuple[str, ...] = ()  # classes that hardly any generated image shows


class Monitor(ABC):
    """Measures and draws a model as it trains."""

    about: Mapping[str, Any]  # what its metrics were measured with
    count: int  # images that a measurement makes, or examples that it asks about
    pixels: tuple[int, int] | None = None  # height and width of the images that are compared by their features
    examples: Mapping[str, Any] | None = None  # kept in a checkpoint, to be shown without the data

    @staticmethod
    def of(evaluator: Evaluator | ClassifierEvaluator, model: Model, device: torch.device) -> Monitor:
        """Return the monitor of a model."""
        if isinstance(evaluator, ClassifierEvaluator):
            assert isinstance(model, Classifier)
            return ClassifierMonitor(evaluator, model, device)
        assert isinstance(model, Generative)
        return GeneratorMonitor(evaluator, model, device)

    @abstractmethod
    def measure(self) -> Measurement:
        """Measure the model."""

    @abstractmethod
    def draw(self) -> tuple[Image.Image, dict[str, float]]:
        """Draw the image of an epoch, and return what the diagnoses need to know of it."""


class GeneratorMonitor(Monitor):
    """Generated images: their distances from real ones, and a grid of the same few."""

    def __init__(self, evaluator: Evaluator, model: Generative, device: torch.device) -> None:
        self.evaluator, self.model, self.device, self.about = evaluator, model, device, evaluator.about
        self.count, self.pixels = len(evaluator.request), model.data.shape[1:]
        seeds = list(range(GRID_IMAGES))
        self.shown = SampleRequest(seeds, [seed % len(model.data.classes) for seed in seeds])
        if evaluator.request.sources is not None:
            self.shown = some(evaluator.request)
            self.examples = vars(self.shown)

    def measure(self) -> Measurement:  # noqa: D102
        evaluate = self.evaluator
        fake = evaluate.generate(self._make)
        metrics, lost_classes = evaluate.measure(fake, evaluate.request.labels)
        values = {
            **metrics,
            "held_out_images": len(evaluate.reality.held_out),
            "floor_deviation": evaluate.floor.deviation,
            "real_saturated": evaluate.saturated,
        }
        if evaluate.change is not None:
            values["real_change"] = evaluate.change
        if isinstance(self.model, LatentModel):
            values |= self._scores(self.model, fake)
        else:
            values = {name: value for name, value in values.items() if name not in OF_GENERATED}
        return Measurement(metrics, values, lost_classes)

    def draw(self) -> tuple[Image.Image, dict[str, float]]:  # noqa: D102
        made = self._make(self.shown).cpu()
        written = to_float(to_uint8(made))
        values = {
            "contrast": float(written.std()) / max(self.evaluator.deviation, 1e-6),
            "saturated": float((written.abs() > 0.99).float().mean()),
            "real_saturated": self.evaluator.saturated,
        }
        return sheet(self.shown, made, self.model.data.classes), values

    def _make(self, request: SampleRequest) -> Tensor:
        with _evaluating(self.model):
            prompt = prompt_of(self.model, request)
            return self.model.sample(GeneratorInput(*(part.to(self.device) for part in prompt)))

    def _scores(self, model: LatentModel, fake: Tensor) -> dict[str, float]:
        """Return the discriminator's mean scores of training, held-out and generated images."""
        reality, labels = self.evaluator.reality, torch.tensor(self.evaluator.request.labels)
        parts = {
            "real_train_score": (reality.train, reality.train_labels),
            "real_held_out_score": (reality.held_out, reality.held_out_labels),
            "fake_score": (fake, labels),
        }
        found = {}
        with _evaluating(model):
            for name, (samples, own) in parts.items():
                if len(own):
                    batch = Labeled(to_float(samples[:MAX_SCORED]).to(self.device), own[:MAX_SCORED].to(self.device))
                    found[name] = float(model.plain_logits(batch).mean())
        return found


class ClassifierMonitor(Monitor):
    """Answers: the share of right ones, and an image of them."""

    def __init__(self, evaluator: ClassifierEvaluator, model: Classifier, device: torch.device) -> None:
        self.evaluator, self.model, self.device, self.about = evaluator, model, device, evaluator.about
        inputs, labels, texts = evaluator.shown
        self.count = len(labels)
        inputs, labels = inputs[:GRID_IMAGES].clone(), labels[:GRID_IMAGES].clone()
        names = list(texts[:GRID_IMAGES]) or [f"image {number}" for number in range(1, 1 + len(labels))]
        self.examples = {"inputs": inputs, "labels": labels, "texts": names}

    def measure(self) -> Measurement:  # noqa: D102
        return Measurement(self.evaluator.measure(self._answer), {})

    def draw(self) -> tuple[Image.Image, dict[str, float]]:
        """Draw the answers: over the plane if there are two columns, under images, or counted."""
        inputs, labels, _ = self.evaluator.shown
        spec = self.model.data
        if isinstance(spec, RowSpec) and (len(spec.columns), len(spec.classes)) == (2, 2):
            return drawings.decision_map(self._answer, inputs, labels, spec.classes), {}
        found = self._answer(inputs)
        if inputs.dtype == torch.uint8:
            first = slice(None, GRID_IMAGES)
            samples = to_float(inputs[first])
            return drawings.answered_images(samples, found[first], labels[first], spec.classes), {}
        return drawings.confusion(labels, found.argmax(1), spec.classes), {}

    def _answer(self, inputs: Tensor) -> Tensor:
        with _evaluating(self.model):
            given = to_float(inputs) if inputs.dtype == torch.uint8 else inputs
            return self.model.answer(given.to(self.device)).cpu()


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Use the networks as after training, without gradients."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()


def some(request: SampleRequest) -> SampleRequest:
    """Choose a few translations to show, as many of each label."""
    labels = sorted(set(request.labels), reverse=True)
    rows = [[row for row, label in enumerate(request.labels) if label == own] for own in labels]
    return request.rows([row for own in rows for row in own[: GRID_TRANSLATIONS // len(labels)]])


def sheet(request: SampleRequest, made: Tensor, classes: tuple[str, ...]) -> Image.Image:
    """Draw the images [N, C, H, W] that were made of a request as a grid.

    Translations have their sources on the left and their targets on the right.
    """
    if request.sources is None:
        return images.grid(made)
    parts = [to_float(request.sources), made] + ([] if request.targets is None else [to_float(request.targets)])
    captions: list[str] = []
    for label in request.labels:
        paired = request.targets is not None
        source, target = classes if paired else (classes[1 - label], classes[label])
        captions += [source, f"{target}, made", *([target] if paired else [])]
    rows = torch.stack(parts, dim=1).flatten(0, 1)  # source, made, target, source, ...
    return images.grid(rows, columns=2 * len(parts), captions=captions)
