"""A convolutional network that finds the class of an image: a small LeNet. LeCun et al. 1998."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import MinLen
from torch import nn

from gantool.batches import ImageSpec, Labeled, Spec
from gantool.errors import RecipeError
from gantool.models.base import Classifier
from gantool.models.blocks import Convolution, ConvolutionalClassifier, Convolutions, expect
from gantool.recipe.schema import Count

POOL = 2  # pixels on a side of which max-pooling keeps the largest


class CNN(Classifier):
    """Convolutions with ReLU and max-pooling, then linear layers with ReLU.

    Departs from the paper: max-pooling and ReLU for sub-sampling and tanh, and the recipe's own layers.

    Args:
        convolutions: each is followed by ReLU and max-pooling of 2x2 pixels.
        hidden: width of each hidden linear layer, followed by ReLU.
    """

    consumes = Labeled

    def __init__(
        self,
        data: Spec,
        *,
        convolutions: Convolutions = [(6, 5, 1, 0), (16, 5, 1, 0)],  # noqa: B006  read only; a tuple is not YAML
        hidden: Annotated[list[Count], MinLen(1)] = [120, 84],  # noqa: B006
    ) -> None:
        super().__init__(data)
        images = expect(data, ImageSpec, "cnn")
        self.classifier = ConvolutionalClassifier(
            images.channels,
            convolutions,
            pools=[nn.MaxPool2d(POOL) for _ in convolutions],
            area=_left(images.height, convolutions) * _left(images.width, convolutions),
            hidden=hidden,
            outputs=len(images.classes),
        )


def _left(side: int, convolutions: Sequence[Convolution]) -> int:
    """Return how many of a side's pixels are left after the last pool."""
    left = side
    for index, (_, kernel, stride, padding) in enumerate(convolutions):
        before = left
        left = ((before + 2 * padding - kernel) // stride + 1) // POOL
        if left < 1:
            raise RecipeError(
                f"data.size: of {side} pixels, {before} reach model.convolutions.{index}, which with its pool leaves "
                "none; use larger images, or a smaller kernel or stride"
            )
    return left
