"""The recurrent network: the end of a sentence, and the order of its words."""

from __future__ import annotations

import pytest
import torch
from gantool.batches import Column, RowSpec, TableBatch, TextSpec
from gantool.errors import RecipeError
from gantool.models.lstm import LSTM

TEXT = TextSpec(("good", "bad", "film"), 5, ("negative", "positive"))


def test_padding_after_a_sentence_changes_neither_its_answer_nor_a_gradient():
    torch.manual_seed(0)
    model = LSTM(TEXT)
    short, long = torch.tensor([[2, 4, 3]]), torch.tensor([[2, 4, 3, 0, 0, 0, 0]])
    alone = model.answer(short)
    assert torch.equal(model.answer(long), alone)
    beside = model.answer(torch.tensor([[2, 4, 3, 0, 0], [3, 3, 2, 4, 1]]))
    torch.testing.assert_close(beside[:1], alone)

    def gradients(words):
        (turn,) = model.play(TableBatch(words, torch.tensor([1])))
        return torch.autograd.grad(turn.losses["cross_entropy"], list(model.parameters()))

    for one, other in zip(gradients(short), gradients(long), strict=True):
        torch.testing.assert_close(one, other)


def test_the_order_of_words_and_the_last_one_matter_and_a_sentence_may_be_empty():
    torch.manual_seed(0)
    answers = LSTM(TEXT).answer(torch.tensor([[2, 4, 3], [3, 4, 2], [2, 4, 0], [0, 0, 0]]))[:, 1]
    assert len({round(value, 6) for value in answers.tolist()}) == 4


def test_data_that_are_no_sentences_are_refused():
    with pytest.raises(RecipeError, match=r"^data.source: lstm learns from sentences, but these data are rows of a"):
        LSTM(RowSpec((Column("a"),), ("x", "y")))
