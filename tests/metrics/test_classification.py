"""How good a classifier is, by hand and against scikit-learn; and the images of its answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from gantool.batches import TableBatch
from gantool.data.loader import Split
from gantool.data.prepare import prepare
from gantool.metrics import classification, drawings
from gantool.metrics.classification import ClassifierEvaluator, LabeledExamples
from gantool.metrics.drawings import answered_images, confusion, decision_map
from gantool.recipe.blocks import Data

from stores import store_of

CLASSES = ("a", "b", "c")


def examples(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return LabeledExamples(torch.randn(count, 4, generator=generator), torch.randint(3, (count,), generator=generator))


def guess(inputs):
    return (2 * inputs[:, :3]).softmax(1)


# What is measured.


def test_metrics_of_four_examples_are_those_by_hand():
    inputs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    held_out = LabeledExamples(inputs, torch.tensor([0, 0, 1, 1]))
    seen = LabeledExamples(inputs[:1], torch.tensor([1]))
    found = ClassifierEvaluator(seen, LabeledExamples(inputs[1:], held_out.labels[1:]), ("no", "yes")).measure(
        lambda shares: shares
    )
    assert found == {
        "error": pytest.approx(1 / 3),
        "accuracy": pytest.approx(2 / 3),
        "balanced_accuracy": pytest.approx((1 + 1 / 2) / 2),
        "cross_entropy": pytest.approx(-(math.log(0.6) + math.log(0.8) + math.log(0.3)) / 3),
        "train_accuracy": 0,
    }


def test_metrics_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    train, held_out = examples(500, 0), examples(2300, 1)  # more than a chunk
    found = ClassifierEvaluator(train, held_out, CLASSES).measure(guess)
    said, right = guess(held_out.inputs), held_out.labels
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(right, said.argmax(1)))
    assert found["error"] == pytest.approx(1 - found["accuracy"])
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(right, said.argmax(1)))
    assert found["cross_entropy"] == pytest.approx(metrics.log_loss(right, said.numpy()), rel=1e-5)
    known = metrics.accuracy_score(train.labels, guess(train.inputs).argmax(1))
    assert found["train_accuracy"] == pytest.approx(known)


def test_a_certain_mistake_has_a_finite_loss_and_a_class_without_examples_does_not_count():
    held_out = LabeledExamples(torch.zeros(2, 1), torch.tensor([0, 0]))
    found = ClassifierEvaluator(held_out, held_out, CLASSES).measure(
        lambda inputs: torch.tensor([[0.0, 1, 0]]).repeat(len(inputs), 1)
    )
    assert found["cross_entropy"] == pytest.approx(-math.log(classification.MIN_PROBABILITY))
    assert found["balanced_accuracy"] == 0


def test_examples_are_classified_in_chunks_and_without_a_graph():
    sizes = []

    def answer(inputs):
        assert not torch.is_grad_enabled()
        sizes.append(len(inputs))
        return guess(inputs)

    ClassifierEvaluator(examples(5, 0), examples(2300, 1), CLASSES).measure(answer)
    assert sizes == [1000, 1000, 300, 5]


def test_the_log_holds_counts_and_shares_and_training_examples_stand_in_for_missing_held_out_ones():
    held_out = LabeledExamples(torch.zeros(4, 2), torch.tensor([0, 1, 1, 1]))
    about = ClassifierEvaluator(examples(5, 0), held_out, CLASSES).about
    assert json.loads(json.dumps(about)) == about
    assert (about["train"], about["held_out"], about["guessing"]) == (5, 4, 0.75)
    assert about["classes"] == {"a": 0.25, "b": 0.75, "c": 0.0}

    train = examples(30, 0)
    found = ClassifierEvaluator(train, examples(0, 1), CLASSES)
    assert found.shown is train
    assert found.about["held_out"] == 0
    assert found.measure(guess)["accuracy"] == found.measure(guess)["train_accuracy"]


def test_of_a_table_the_held_out_rows_are_measured(tmp_path):
    table = prepare(Data(source="sentences"), tmp_path, TableBatch)
    found = ClassifierEvaluator.of(table, Split(table.train, table.held_out))
    assert torch.equal(found.shown.inputs, torch.from_numpy(table.inputs[table.held_out]))
    assert torch.equal(found.train.labels, torch.from_numpy(table.labels[table.train]))
    assert list(found.shown.texts) == [table.texts[row] for row in table.held_out]


def test_images_are_measured_in_a_fixed_random_order(monkeypatch):
    monkeypatch.setattr(classification, "TRAIN", 20)
    store = store_of(np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1), np.repeat(np.arange(3), 20), CLASSES)
    rows = Split(np.arange(0, 60, 2), np.arange(1, 60, 2))
    found, again = ClassifierEvaluator.of(store, rows), ClassifierEvaluator.of(store, rows)
    assert torch.equal(found.shown.inputs, again.shown.inputs)
    assert sorted(found.shown.inputs.flatten().tolist()) == list(range(1, 60, 2))
    assert len(set(found.shown.labels[:12].tolist())) == 3
    assert torch.equal(found.shown.labels, found.shown.inputs.flatten() // 20)
    assert len(found.train.labels) == 20
    seen = []
    found.measure(lambda inputs: seen.append(inputs) or torch.ones(len(inputs), 3) / 3)
    torch.testing.assert_close(seen[0], found.shown.inputs.float() / 127.5 - 1)


# What is drawn.

SQUARE = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def right_of_a_half(inputs):
    second = torch.sigmoid(200 * (inputs[:, 0] - 0.5))
    return torch.stack([1 - second, second], dim=1)


def test_a_map_has_each_classs_colour_where_it_is_answered_and_a_line_between():
    image = decision_map(right_of_a_half, SQUARE, torch.tensor([0, 0, 1, 1]), ("no", "yes"))
    assert (image.size, image.mode) == ((320, 330), "RGB")
    soft = [tuple(round(255 + drawings.SOFT * (one - 255)) for one in colour) for colour in drawings.CLASSES]
    middle = drawings.HEAD + drawings.SIDE // 2
    assert image.getpixel((drawings.EDGE + 40, middle)) == soft[0]
    assert image.getpixel((drawings.EDGE + 240, middle)) == soft[1]
    assert sum(image.getpixel((drawings.EDGE + drawings.SIDE // 2, middle))) < 300
    for right, up, colour in ((70, 70, 0), (70, 210, 0), (210, 70, 1), (210, 210, 1)):  # the four examples
        place = (drawings.EDGE + right, drawings.HEAD + drawings.SIDE - up)
        assert image.getpixel(place) == drawings.CLASSES[colour]


def test_a_map_shows_the_second_number_upwards_over_twice_the_range_of_the_examples():
    planes = []

    def answer(inputs):
        planes.append(inputs)
        return torch.stack([inputs[:, 1] <= 0.5, inputs[:, 1] > 0.5], dim=1).float()

    image = decision_map(answer, SQUARE, torch.tensor([0, 1, 0, 1]), ("no", "yes"))
    assert planes[0].aminmax(dim=0).min.tolist() == pytest.approx([-0.5, -0.5], abs=0.02)
    assert planes[0].aminmax(dim=0).max.tolist() == pytest.approx([1.5, 1.5], abs=0.02)
    top, bottom = (image.getpixel((160, drawings.HEAD + y)) for y in (10, drawings.SIDE - 10))
    assert top[0] > top[2]  # orange
    assert bottom[2] > bottom[0]  # blue


def test_a_map_of_undecided_answers_is_white_and_has_no_line():
    for examples in (SQUARE, SQUARE[:1]):
        labels = torch.zeros(len(examples)).long()
        image = decision_map(lambda inputs: torch.full((len(inputs), 2), 0.5), examples, labels, ("n", "y"))
        assert np.asarray(image)[drawings.HEAD + 130 : drawings.HEAD + 132, 30:150].min() == 255


def test_wrongly_classified_images_have_a_red_border():
    images = -torch.ones(4, 1, 16, 16)
    shares = torch.eye(3)[[0, 1, 2, 0]] * 0.7 + 0.1
    image = np.asarray(answered_images(images, shares, torch.tensor([0, 1, 2, 2]), CLASSES))
    height, width = image.shape[:2]
    corners = [image[8 + dy, 8 + dx].tolist() for dy in (0, height // 2) for dx in (0, width // 2)]
    assert corners[:3] == [[255, 255, 255]] * 3
    assert corners[3] == [round((one + 1) * 127.5) for one in drawings.WRONG]


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 20), (3, 200, 180)])
def test_answered_images_have_one_size_for_any_answers(shape):
    images, labels = torch.zeros(16, *shape), torch.arange(16) % 3
    names = ("a", "b", "a class with quite a long name, as some have")
    generator = torch.Generator().manual_seed(0)
    drawn = [
        answered_images(images, torch.rand(16, 3, generator=generator).softmax(1), labels, names) for _ in range(3)
    ]
    certain = answered_images(images, torch.eye(3)[labels], labels, names)
    assert {(image.size, image.mode) for image in drawn} == {(certain.size, "RGB")}


def test_a_matrix_has_a_row_for_each_class_and_dark_tiles_for_frequent_answers():
    labels, said = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 2, 2, 2, 2])
    image = confusion(labels, said, CLASSES)
    down, across = image.height // 3, image.width // 3

    full, empty = drawings.CLASSES[0], (round((drawings.LIGHT + 1) * 127.5),) * 3
    assert [[image.getpixel((column * across + 8, row * down + 8)) for column in range(3)] for row in range(3)] == [
        [full, empty, empty],
        [empty, empty, full],
        [empty, empty, full],
    ]
    assert confusion(labels[:0], labels[:0], CLASSES).size == image.size
