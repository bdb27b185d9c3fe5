"""Linear layers for a table: one step by hand, and that they learn."""

from __future__ import annotations

import math

import pytest
import torch
from gantool import devices, models
from gantool.batches import Column, ImageSpec, RowSpec, TableBatch, TextSpec
from gantool.errors import RecipeError
from gantool.models.dense import Dense
from gantool.recipe.blocks import Optimizer, Train
from gantool.training import engine, setup
from gantool.training.trainer import Trainer

CPU = torch.device("cpu")
PAIR = RowSpec((Column("a"), Column("b")), ("0", "1"))


def trainer(model, lr):
    return Trainer(model, Train(epochs=1, optimizer=Optimizer(name="sgd", lr=lr)), CPU)


def test_a_perceptrons_step_is_the_error_times_the_input():
    """The gradient of binary cross-entropy after a sigmoid is (p - y) x; a step of SGD goes against it."""
    model = Dense(PAIR, output="sigmoid")
    (layer,) = model.classifier
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -1.0]]))
        layer.bias.fill_(0.25)
    logs = trainer(model, 0.1).step(TableBatch(torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([0, 1])))
    first, second = (1 / (1 + math.exp(-z)) for z in (0.5 + 0.25, 1.0 - 3.0 + 0.25))
    assert float(logs["classifier/cross_entropy"]) == pytest.approx(-(math.log(1 - first) + math.log(second)) / 2, 1e-6)
    errors = [first - 0, second - 1]
    wanted = [0.5 - 0.1 * (errors[0] * 1 + errors[1] * 2) / 2, -1.0 - 0.1 * errors[1] * 3 / 2]
    assert layer.weight[0].detach().tolist() == pytest.approx(wanted, rel=1e-6)
    assert float(layer.bias.detach()) == pytest.approx(0.25 - 0.1 * sum(errors) / 2, rel=1e-6)
    assert float(logs["scores/accuracy"]) == 0


def learned(name, seed, epochs, tmp_path):
    """Train a table's recipe, and return the share of right answers about all of its rows."""
    recipe = engine.open_recipe(name, {"train.seed": seed})
    table = setup.data_of(recipe, tmp_path)
    inputs, labels = torch.from_numpy(table.inputs), torch.from_numpy(table.labels)
    with devices.rng_scope(CPU, devices.rng_states(CPU, seed)):
        model = models.build(recipe, table.spec)
    learner = Trainer(model, recipe.train, CPU)
    order, train = torch.Generator().manual_seed(seed), torch.from_numpy(table.train)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=order)].split(recipe.train.batch_size):
            learner.step(TableBatch(inputs[rows], labels[rows]))
    held_out = torch.from_numpy(table.held_out if len(table.held_out) else table.train)
    with torch.no_grad():
        return float((model.answer(inputs[held_out]).argmax(1) == labels[held_out]).float().mean())


@pytest.mark.parametrize(
    ("name", "epochs", "seeds"), [("perceptron_and", 400, 2), ("mlp_xor", 600, 1), ("lstm_sentiment", 100, 2)]
)
def test_a_table_is_learned_without_an_error(name, epochs, seeds, tmp_path):
    assert epochs <= engine.open_recipe(name).train.epochs
    assert [learned(name, seed, epochs, tmp_path) for seed in range(seeds)] == [1.0] * seeds


def test_one_layer_does_not_learn_xor():
    inputs, labels = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1, 1, 0])
    model = Dense(PAIR, output="sigmoid")
    learner = trainer(model, 0.5)
    for _ in range(300):
        logs = learner.step(TableBatch(inputs, labels))
    assert float(logs["classifier/cross_entropy"]) == pytest.approx(math.log(2), abs=0.01)
    assert float((model.answer(inputs).argmax(1) == labels).float().mean()) < 1


@pytest.mark.parametrize(
    ("data", "output", "message"),
    [
        (TextSpec(("a",), 5, ("x", "y")), "softmax", "data.source: dense learns from rows of a table, .* sentences"),
        (ImageSpec(1, 2, 2, ("x", "y")), "softmax", "data.source: dense learns from rows of a table, .* are images"),
        (RowSpec((Column("a"),), ("x", "y", "z")), "sigmoid", "model.output: sigmoid tells two classes apart, but the "
         "data have 3; use softmax"),
        (RowSpec((Column("a"),), ("x",)), "softmax", "data.classes: there is only 'x', and telling classes apart needs "
         "two; keep"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_are_refused(data, output, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        Dense(data, output=output)
