"""What is seen of a model while it trains: what is measured of it, and the image that is kept of each epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

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

GRID_IMAGES = 16  # fixed latents, or examples, whose images are kept each epoch
GRID_TRANSLATIONS = 8  # the same of images that are translated, each of which fills two or three places
MAX_SCORED = 500  # images of each kind whose scores tell whether the discriminator knows its images by heart


class Monitor(ABC):
    """What is seen of a model.

    Args:
        model: as it trains.
        device: where it is.
    """

    about: Mapping[str, Any]  # what its metrics were measured with
    count: int  # images that a measurement makes, or examples that it asks about
    pixels: tuple[int, int] | None = None  # height and width of the images that are compared by their features
    examples: Mapping[str, Any] | None = None  # what a checkpoint keeps to be shown without the data

    @staticmethod
    def of(evaluator: Evaluator | ClassifierEvaluator, model: Model, device: torch.device) -> Monitor:
        """Return what is seen of a model by what measures it."""
        if isinstance(evaluator, ClassifierEvaluator):
            assert isinstance(model, Classifier)
            return ClassifierMonitor(evaluator, model, device)
        assert isinstance(model, Generative)
        return GeneratorMonitor(evaluator, model, device)

    @abstractmethod
    def measure(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Return its metrics by name, and what a diagnosis needs besides, as `diagnoses.Observation` takes it."""

    @abstractmethod
    def draw(self) -> tuple[Image.Image, dict[str, Any]]:
        """Draw how it stands, and return what the few images drawn tell a diagnosis, as `measure` does."""


class GeneratorMonitor(Monitor):
    """A model that makes images: their distances from real ones, and a grid of the same few."""

    def __init__(self, evaluator: Evaluator, model: Generative, device: torch.device) -> None:
        self.evaluator, self.model, self.device, self.about = evaluator, model, device, evaluator.about
        self.count, self.pixels = len(evaluator.request), model.data.shape[1:]
        self.shown = SampleRequest(
            list(range(GRID_IMAGES)), [index % len(model.data.classes) for index in range(GRID_IMAGES)]
        )
        if evaluator.request.sources is not None:
            self.shown = some(evaluator.request)
            self.examples = vars(self.shown)

    def measure(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the images that the evaluator asks for."""
        evaluate, reality = self.evaluator, self.evaluator.reality
        fake = evaluate.generate(self._make)
        metrics, lost_classes = evaluate.measure(fake, evaluate.request.labels)
        seen = {
            "contrast": metrics["contrast"],
            "saturated": metrics["saturated"],
            "real_saturated": evaluate.saturated,
            "fd": metrics["fd"],
            "floor_deviation": evaluate.floor.deviation,
            "held_out_images": len(reality.held_out),
            "lost_classes": lost_classes,
            "change": metrics.get("change"),
            "real_change": evaluate.change,
        }
        if isinstance(self.model, LatentModel):  # how many a translator makes is decided by what it is given
            train, held_out, made = self._scores(self.model, fake)
            seen |= {
                "real_train_score": train,
                "real_held_out_score": held_out,
                "fake_score": made,
                "support": metrics["support"],
                "collisions": int(metrics["collisions"]),
                "copying": metrics.get("copying"),
                "nearest_fake": metrics["nearest_neighbour_fake"],
                "copied": metrics["copied"],
            }
        return metrics, seen

    def draw(self) -> tuple[Image.Image, dict[str, Any]]:
        """Draw the same few images, translations beside their sources, and tell whether they vary."""
        made = self._make(self.shown).cpu()
        written = to_float(to_uint8(made))
        seen = {
            "contrast": float(written.std()) / max(self.evaluator.deviation, 1e-6),
            "saturated": float((written.abs() > 0.99).float().mean()),
            "real_saturated": self.evaluator.saturated,
        }
        return sheet(self.shown, made, self.model.data.classes), seen

    @torch.no_grad()
    def _make(self, ask: SampleRequest) -> Tensor:
        self.model.eval()
        try:
            return self.model.sample(GeneratorInput(*(part.to(self.device) for part in prompt_of(self.model, ask))))
        finally:
            self.model.train()

    def _scores(self, model: LatentModel, fake: Tensor) -> tuple[float | None, float | None, float | None]:
        """Return the discriminator's mean scores of images that it learns from, that it never saw, and of fake ones."""
        reality, labels = self.evaluator.reality, torch.tensor(self.evaluator.request.labels)
        parts = [
            (reality.train, reality.train_labels),
            (reality.held_out, reality.held_out_labels),
            (fake, labels),
        ]
        model.eval()
        found = []
        with torch.no_grad():
            for samples, own in parts:
                batch = Labeled(to_float(samples[:MAX_SCORED]).to(self.device), own[:MAX_SCORED].to(self.device))
                found.append(float(model.plain_logits(batch).mean()) if len(own) else None)
        model.train()
        return found[0], found[1], found[2]


class ClassifierMonitor(Monitor):
    """A model that answers: the share of right answers, and an image of what it answers to what."""

    def __init__(self, exam: ClassifierEvaluator, model: Classifier, device: torch.device) -> None:
        self.exam, self.model, self.device, self.about = exam, model, device, exam.about
        self.count = len(exam.shown.labels)
        inputs, labels, texts = exam.shown
        shown = list(texts[:GRID_IMAGES]) or [f"image {number}" for number in range(1, 1 + len(labels[:GRID_IMAGES]))]
        self.examples = {"inputs": inputs[:GRID_IMAGES].clone(), "labels": labels[:GRID_IMAGES].clone(), "texts": shown}

    def measure(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the answers to what training never saw."""
        return self.exam.measure(self._answer), {"held_out_images": self.exam.about["held_out"]}

    def draw(self) -> tuple[Image.Image, dict[str, Any]]:
        """Draw the answers, which tell a diagnosis nothing."""
        return self._image(), {}

    def _image(self) -> Image.Image:
        """Draw the answers: over the plane for two columns, under images, or counted."""
        inputs, labels, _ = self.exam.shown
        spec = self.model.data
        if isinstance(spec, RowSpec) and (len(spec.columns), len(spec.classes)) == (2, 2):
            return drawings.decision_map(self._answer, inputs, labels, self.model.data.classes)
        found = self._answer(inputs)
        if inputs.dtype == torch.uint8:
            first = slice(None, GRID_IMAGES)
            samples = to_float(inputs[first])
            return drawings.answered_images(samples, found[first], labels[first], self.model.data.classes)
        return drawings.confusion(labels, found.argmax(1), self.model.data.classes)

    @torch.no_grad()
    def _answer(self, inputs: Tensor) -> Tensor:
        self.model.eval()
        try:
            given = to_float(inputs) if inputs.dtype == torch.uint8 else inputs
            return self.model.answer(given.to(self.device)).cpu()
        finally:
            self.model.train()


def some(ask: SampleRequest) -> SampleRequest:
    """Choose a few translations to show, as many of each label."""
    labels = sorted(set(ask.labels), reverse=True)
    rows = [[row for row, label in enumerate(ask.labels) if label == own] for own in labels]
    return ask.rows([row for own in rows for row in own[: GRID_TRANSLATIONS // len(labels)]])


def sheet(ask: SampleRequest, made: Tensor, classes: tuple[str, ...]) -> Image.Image:
    """Lay images out in a grid; translations with their sources on the left and their targets on the right.

    Args:
        ask: what was asked for.
        made: what was made of it, [N, C, H, W], -1 to 1.
        classes: names, by label.
    """
    if ask.sources is None:
        return images.grid(made)
    parts = [to_float(ask.sources), made] + ([] if ask.targets is None else [to_float(ask.targets)])
    captions: list[str] = []
    for label in ask.labels:
        paired = ask.targets is not None
        source, target = classes if paired else (classes[1 - label], classes[label])
        captions += [source, f"{target}, made", *([target] if paired else [])]
    rows = torch.stack(parts, dim=1).flatten(0, 1)  # source, made, target, source, ...
    return images.grid(rows, columns=2 * len(parts), captions=captions)
