"""Linear layers that find the class of a row of a table; without hidden ones, Rosenblatt's perceptron."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from gantool.batches import RowSpec, Spec, TableBatch
from gantool.errors import RecipeError
from gantool.models.base import Classifier
from gantool.models.blocks import expect
from gantool.recipe.schema import Count


class Dense(Classifier):
    """Linear layers from a row's columns to its class.

    Args:
        hidden: width of each hidden layer; none leaves a single linear layer.
        activation: after each hidden layer.
        output: `sigmoid` has one logit, for the second of two classes; `softmax` has one for each class.
    """

    consumes = TableBatch

    def __init__(
        self,
        data: Spec,
        *,
        hidden: list[Count] = [],  # noqa: B006  read only; a tuple would not be YAML
        activation: Literal["sigmoid", "relu"] = "relu",
        output: Literal["sigmoid", "softmax"],
    ) -> None:
        super().__init__(data)
        columns, classes = expect(data, RowSpec, "dense").columns, len(data.classes)
        if output == "sigmoid" and classes != 2:
            raise RecipeError(
                f"model.output: sigmoid tells two classes apart, but the data have {classes}; use softmax"
            )
        ends = 1 if output == "sigmoid" else classes
        self.classifier = nn.Sequential(*_layers([len(columns), *hidden, ends], activation))


def _layers(widths: Sequence[int], activation: str) -> Iterator[nn.Module]:
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        if index:
            yield nn.Sigmoid() if activation == "sigmoid" else nn.ReLU()
        yield nn.Linear(inputs, outputs)
