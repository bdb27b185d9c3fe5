"""The convolutional classifier: that it learns, and the sizes that it takes."""

from __future__ import annotations

import pytest
import torch
from gantool.batches import ImageSpec, Labeled, TextSpec
from gantool.errors import RecipeError
from gantool.models.cnn import CNN
from gantool.recipe.blocks import Optimizer, Train
from gantool.training.trainer import Trainer


def test_images_are_learned():
    torch.manual_seed(0)
    labels = torch.arange(10).repeat(4)
    images = torch.randn(10, 1, 16, 16)[labels] * 0.3
    model = CNN(ImageSpec(1, 16, 16, tuple("0123456789")))
    trainer = Trainer(model, Train(epochs=1, optimizer=Optimizer(lr=3e-3)), torch.device("cpu"))
    for _ in range(60):
        logs = trainer.step(Labeled(images, labels))
    assert float(logs["scores/accuracy"]) == 1


def test_the_smallest_images_that_fit_do_and_smaller_ones_are_refused():
    assert CNN(ImageSpec(3, 16, 17, ("a", "b"))).answer(torch.zeros(2, 3, 16, 17)).shape == (2, 2)
    message = "data.size: of 12 pixels, 4 reach model.convolutions.1, which with its pool leaves none; use larger"
    with pytest.raises(RecipeError, match=f"^{message}"):
        CNN(ImageSpec(1, 16, 12, ("a", "b")))
    with pytest.raises(RecipeError, match=r"^data.source: cnn learns from images, but these data are sentences; use"):
        CNN(TextSpec(("good",), 5, ("a", "b")))
