"""How good a classifier is, measured without touching its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gantool.data.loader import Dataset, Split
from gantool.images import to_float

TRAIN, HELD_OUT = 5000, 10_000  # examples of each kind that are classified, at the most
CHUNK = 1000  # of them at a time
SEED = 20_240_805  # decides which, the same in every run
MIN_PROBABILITY = 1e-7  # of the right class, the resolution of float32; it keeps the log loss finite

Probabilities = Callable[[Tensor], Tensor]
"""Returns the probability of each class for a batch of the model's inputs: [N, classes]."""


class LabeledExamples(NamedTuple):
    """Examples to classify, their right classes, [N], and each as text, but for images.

    The inputs are images, uint8 [N, C, H, W], rows, float [N, D], or sentences, int64 [N, L].
    """

    inputs: Tensor
    labels: Tensor
    texts: Sequence[str] = ()


class ClassifierEvaluator:
    """Measures classifiers: the share of right answers for examples that training never saw.

    If none are held out, as for a truth table, the training examples are classified.
    """

    def __init__(self, train: LabeledExamples, held_out: LabeledExamples, classes: Sequence[str]) -> None:
        self.train = train
        self.shown = held_out if len(held_out.labels) else train
        counts = torch.bincount(self.shown.labels, minlength=len(classes))
        shares = (counts / counts.sum()).tolist()
        self.about: dict[str, Any] = {
            "train": len(train.labels),
            "held_out": len(held_out.labels),
            "classes": {name: round(share, 4) for name, share in zip(classes, shares, strict=True)},
            "guessing": round(max(shares), 4),  # the accuracy of always answering with the commonest class
            "seed": SEED,
        }

    @classmethod
    def of(cls, data: Dataset, rows: Split) -> ClassifierEvaluator:
        """Measure with rows of a table in their order, or with images in random order: the first show all classes."""

        def examples(chosen: NDArray[np.int64], most: int) -> LabeledExamples:
            chosen = np.random.default_rng(SEED).permutation(chosen)[:most]
            chosen = np.sort(chosen) if data.texts else chosen
            inputs, labels = torch.from_numpy(data.inputs[chosen]), torch.from_numpy(data.labels[chosen])
            return LabeledExamples(inputs, labels, [data.texts[row] for row in chosen] if data.texts else ())

        found = cls(examples(rows.train, TRAIN), examples(rows.held_out, HELD_OUT), data.spec.classes)
        found.about |= {"part": data.part} if data.part else {}
        return found

    def measure(self, answer: Probabilities) -> dict[str, float]:
        """Measure a classifier.

        Returns:
            accuracy: share of right answers.
            error: 1 - accuracy.
            balanced_accuracy: the mean of the classes' accuracies, which answering with the commonest class keeps low.
            cross_entropy: the mean log loss.
            train_accuracy: of training examples; if it is much above `accuracy`, the model has memorised them.
        """
        probabilities, labels = _answers(answer, self.shown.inputs), self.shown.labels
        right = (probabilities.argmax(1) == labels).double()
        known = right
        if self.shown is not self.train:
            known = (_answers(answer, self.train.inputs).argmax(1) == self.train.labels).double()
        accuracy = float(right.mean())
        by_class = [right[labels == label].mean() for label in torch.unique(labels)]
        of_the_right = probabilities.gather(1, labels[:, None]).double()
        return {
            "error": 1 - accuracy,
            "accuracy": accuracy,
            "balanced_accuracy": float(torch.stack(by_class).mean()),
            "cross_entropy": float(-of_the_right.clamp_min(MIN_PROBABILITY).log().mean()),
            "train_accuracy": float(known.mean()),
        }


@torch.no_grad()
def _answers(answer: Probabilities, inputs: Tensor) -> Tensor:
    """Return the probabilities of all inputs, on the CPU: [N, classes]."""
    images = inputs.dtype == torch.uint8
    parts = (to_float(part) if images else part for part in torch.split(inputs, CHUNK))
    return torch.cat([answer(part).float().cpu() for part in parts])
