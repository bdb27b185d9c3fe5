"""A recurrent network that finds the class of a sentence. Hochreiter and Schmidhuber 1997."""

from __future__ import annotations

from torch import Tensor, nn

from gantool.batches import Spec, TableBatch, TextSpec
from gantool.models.base import Classifier
from gantool.models.blocks import expect
from gantool.recipe.schema import Count


class LSTM(Classifier):
    """Reads a sentence word by word; the state after the last word decides the answer.

    Args:
        embedding_dim: numbers that stand for a word.
        hidden: numbers in the state.
    """

    consumes = TableBatch

    def __init__(self, data: Spec, *, embedding_dim: Count = 8, hidden: Count = 4) -> None:
        super().__init__(data)
        words, classes = expect(data, TextSpec, "lstm").words, len(data.classes)
        self.classifier = _Reader(len(words) + 2, embedding_dim, hidden, 1 if classes == 2 else classes)


class _Reader(nn.Module):
    """Numbers of words [N, L], int64, 0 after the end of a sentence, to logits [N, classes]."""

    def __init__(self, words: int, embedding_dim: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding_dim, padding_idx=0)
        self.lstm = nn.LSTM(embedding_dim, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(words))  # [N, L, hidden], after each word
        # States after the last word are not used. Packing the sentences would save them, but a GPU would wait
        # for their lengths.
        last = (words != 0).sum(1).sub(1).clamp_min(0)
        after_it = last[:, None, None].expand(-1, 1, states.shape[2])
        return self.head(states.gather(1, after_it).squeeze(1))
