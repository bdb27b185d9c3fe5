"""Games of one player: their networks, their arithmetic, that they learn, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from gantool import devices, models
from gantool.batches import Column, ImageSpec, Labeled, RowSpec, TableBatch, TextSpec
from gantool.data.sources import tables
from gantool.errors import RecipeError
from gantool.models import shapes
from gantool.models.base import Classifier
from gantool.models.blocks import ConvolutionalClassifier
from gantool.models.cnn import CNN
from gantool.models.dense import Dense
from gantool.models.lstm import LSTM
from gantool.recipe.blocks import Optimizer, Train
from gantool.training import engine
from gantool.training.trainer import Trainer

CPU = torch.device("cpu")
PICTURES = ImageSpec(1, 16, 16, tuple("0123456789"))
PAIR = RowSpec((Column("a"), Column("b")), ("0", "1"))
TEXT = TextSpec(("good", "bad", "film"), 5, ("negative", "positive"))
SPECS = {
    "perceptron_and": PAIR,
    "mlp_xor": PAIR,
    "lstm_sentiment": TEXT,
    "cnn_fashion16": PICTURES,
    "dnn_income": RowSpec(tuple(Column(str(index)) for index in range(14)), ("<=50K", ">50K")),
}


def built(name):
    return models.build(engine.open_recipe(name), SPECS[name])


# What they are.


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("perceptron_and", [("Linear", (1,), 3)]),
        ("mlp_xor", [("Linear", (4,), 12), ("Linear", (1,), 5)]),
        ("lstm_sentiment", [("Embedding", (5, 8), 5 * 8), ("LSTM", (5, 4), 224), ("Linear", (1,), 5)]),
        (
            "cnn_fashion16",
            [
                ("Conv2d", (6, 12, 12), 156),
                ("Conv2d", (16, 2, 2), 2416),
                ("Linear", (120,), 2040),
                ("Linear", (84,), 10_164),
                ("Linear", (10,), 850),
            ],
        ),
        ("dnn_income", [("Linear", (128,), 1920), ("Linear", (64,), 8256), ("Linear", (2,), 130)]),
    ],
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_every_layer_with_weights_makes_the_size_and_has_the_count_that_the_notes_give(name, table, device):
    layers = shapes.trace(lambda: built(name), device)
    assert [(row.kind, row.output, row.parameters) for row in layers if row.parameters] == table
    assert {row.network for row in layers} == {"classifier"}
    assert sum(row.parameters for row in layers) == sum(weight.numel() for weight in built(name).parameters())


def test_the_totals_are_those_of_the_notes():
    counts = {name: sum(weight.numel() for weight in built(name).parameters()) for name in SPECS}
    del counts["lstm_sentiment"]  # its words count
    assert counts == {"perceptron_and": 3, "mlp_xor": 17, "cnn_fashion16": 15_626, "dnn_income": 10_306}


@pytest.mark.parametrize("name", SPECS)
def test_answers_are_probabilities_of_every_class_and_the_loss_is_their_log(name):
    model = built(name)
    batch = model.blank(3)
    labels = torch.tensor([0, 1, 1])
    answers = model.answer(batch[0])
    assert answers.shape == (3, len(SPECS[name].classes))
    torch.testing.assert_close(answers.sum(1), torch.ones(3))
    (turn,) = model.play(type(batch)(batch[0], labels))
    torch.testing.assert_close(turn.losses["cross_entropy"], -answers.gather(1, labels[:, None]).log().mean())
    assert float(turn.scores["accuracy"]) == pytest.approx(float((answers.argmax(1) == labels).float().mean()))


def test_activations_stand_between_linear_layers_and_not_behind_the_last():
    kinds = [
        type(layer).__name__ for layer in Dense(PAIR, hidden=[3, 2], activation="relu", output="softmax").classifier
    ]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_a_convolutional_classifier_ends_its_features_before_their_activation():
    network = ConvolutionalClassifier(3, [(4, 3, 1, 1)], [torch.nn.AdaptiveMaxPool2d(2)], 4, [7, 5], 2, slope=0.2)
    images = torch.randn(3, 3, 9, 6)
    features = network.features(images).detach()
    assert features.shape == (3, 5)
    assert float(features.min()) < 0 < float(features.max())
    leaky = torch.where(features > 0, features, 0.2 * features)
    torch.testing.assert_close(network(images), network.head[1](leaky))


# Sentences.


def test_what_stands_behind_a_sentence_changes_neither_its_answer_nor_a_gradient():
    torch.manual_seed(0)
    model = LSTM(TEXT)
    short, alone = torch.tensor([[2, 4, 3]]), model.answer(torch.tensor([[2, 4, 3]]))
    long = torch.tensor([[2, 4, 3, 0, 0, 0, 0]])
    assert torch.equal(model.answer(long), alone)
    beside = model.answer(torch.tensor([[2, 4, 3, 0, 0], [3, 3, 2, 4, 1]]))
    torch.testing.assert_close(beside[:1], alone)

    def gradients(words):
        (turn,) = model.play(TableBatch(words, torch.tensor([1])))
        return torch.autograd.grad(turn.losses["cross_entropy"], list(model.parameters()))

    for one, other in zip(gradients(short), gradients(long), strict=True):
        torch.testing.assert_close(one, other)


def test_the_order_of_words_and_the_last_one_matter():
    torch.manual_seed(0)
    model = LSTM(TEXT)
    answers = model.answer(torch.tensor([[2, 4, 3], [3, 4, 2], [2, 4, 0]]))[:, 1]
    assert len({round(value, 6) for value in answers.tolist()}) == 3


def test_a_sentence_without_words_has_an_answer():
    assert bool(LSTM(TEXT).answer(torch.zeros(1, 5, dtype=torch.int64)).isfinite().all())


# One step by hand.


def test_a_perceptrons_step_is_the_error_times_the_input():
    """The gradient of binary cross-entropy behind a sigmoid is (p - y) x; a step of SGD goes against it."""
    model = Dense(PAIR, output="sigmoid")
    (layer,) = model.classifier
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -1.0]]))
        layer.bias.fill_(0.25)
    inputs, labels = torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([0, 1])
    trainer = Trainer(model, Train(epochs=1, optimizer=Optimizer(name="sgd", lr=0.1)), CPU)
    told = trainer.step(TableBatch(inputs, labels))

    shares = [1 / (1 + math.exp(-z)) for z in (0.5 + 0.25, 1.0 - 3.0 + 0.25)]
    assert float(told["classifier/cross_entropy"]) == pytest.approx(
        -(math.log(1 - shares[0]) + math.log(shares[1])) / 2, rel=1e-6
    )
    errors = [shares[0] - 0, shares[1] - 1]
    gradient = [(errors[0] * 1 + errors[1] * 2) / 2, errors[1] * 3 / 2]
    assert layer.weight[0].detach().tolist() == pytest.approx(
        [0.5 - 0.1 * gradient[0], -1.0 - 0.1 * gradient[1]], rel=1e-6
    )
    assert float(layer.bias.detach()) == pytest.approx(0.25 - 0.1 * (errors[0] + errors[1]) / 2, rel=1e-6)
    assert float(told["scores/accuracy"]) == 0


# That they learn.


def learned(name, seed, epochs, tmp_path):
    """Train a table's recipe, and give the share of right answers about what it never saw, or about all."""
    recipe = engine.open_recipe(name, {"train.seed": seed})
    table = tables.load(recipe.data.source, tmp_path, recipe.data.held_out)
    inputs, labels = torch.from_numpy(table.inputs), torch.from_numpy(table.labels)
    with devices.rng_scope(CPU, devices.rng_states(CPU, seed)):
        model = models.build(recipe, table.spec)
    assert isinstance(model, Classifier)
    trainer = Trainer(model, recipe.train, CPU)
    order, train = torch.Generator().manual_seed(seed), torch.from_numpy(table.train)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=order)].split(recipe.train.batch_size):
            trainer.step(TableBatch(inputs[rows], labels[rows]))
    asked = torch.from_numpy(table.held_out if len(table.held_out) else table.train)
    with torch.no_grad():
        return float((model.answer(inputs[asked]).argmax(1) == labels[asked]).float().mean())


@pytest.mark.parametrize(
    ("name", "epochs", "seeds"), [("perceptron_and", 400, 3), ("mlp_xor", 600, 3), ("lstm_sentiment", 100, 3)]
)
def test_a_table_is_learned_whole_from_several_seeds(name, epochs, seeds, tmp_path):
    assert epochs <= engine.open_recipe(name).train.epochs
    assert [learned(name, seed, epochs, tmp_path) for seed in range(seeds)] == [1.0] * seeds


def test_one_layer_does_not_learn_xor():
    inputs, labels = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1, 1, 0])
    model = Dense(PAIR, output="sigmoid")
    trainer = Trainer(model, Train(epochs=1, optimizer=Optimizer(name="sgd", lr=0.5)), CPU)
    for _ in range(300):
        told = trainer.step(TableBatch(inputs, labels))
    assert float(told["classifier/cross_entropy"]) == pytest.approx(math.log(2), abs=0.01)
    assert float((model.answer(inputs).argmax(1) == labels).float().mean()) < 1


def test_images_are_learned():
    torch.manual_seed(0)
    labels = torch.arange(10).repeat(4)
    images = torch.randn(10, 1, 16, 16)[labels] * 0.3
    trainer = Trainer(CNN(PICTURES), Train(epochs=1, optimizer=Optimizer(lr=3e-3, betas=(0.9, 0.999))), CPU)
    for _ in range(60):
        told = trainer.step(Labeled(images, labels))
    assert float(told["scores/accuracy"]) == 1


# What they refuse.


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Dense(TEXT, output="softmax"),
            "data.source: dense learns from rows of a table, but these data are sen",
        ),
        (
            lambda: Dense(PICTURES, output="softmax"),
            "data.source: dense learns from rows of a table, but .* are images",
        ),
        (
            lambda: LSTM(PAIR),
            "data.source: lstm learns from sentences, but these data are rows of a table; use another",
        ),
        (lambda: CNN(TEXT), "data.source: cnn learns from images, but these data are sentences; use another source"),
        (
            lambda: Dense(RowSpec((Column("a"),), ("x", "y", "z")), output="sigmoid"),
            "model.output: sigmoid tells two classes apart, but the data have 3; use softmax",
        ),
        (
            lambda: CNN(ImageSpec(1, 16, 12, ("a", "b"))),
            "data.size: of 12 pixels, 4 reach model.convolutions.1, which with its pool leaves none; use larger",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused_by_what_to_change(make, sentence):
    with pytest.raises(RecipeError, match=f"^{sentence}"):
        make()


def test_the_smallest_images_that_fit_do():
    assert CNN(ImageSpec(3, 16, 17, ("a", "b"))).answer(torch.zeros(2, 3, 16, 17)).shape == (2, 2)
