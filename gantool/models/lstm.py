"""A recurrent network that answers to which class a sentence belongs. Hochreiter and Schmidhuber 1997."""

from __future__ import annotations

from torch import Tensor, nn

from gantool.batches import Spec, TableBatch, TextSpec
from gantool.models.base import Classifier
from gantool.models.blocks import expect
from gantool.recipe.schema import Count


class LSTM(Classifier):
    """Reads a sentence word by word, and answers by what it remembers after the last one.

    Args:
        data: the words and classes of the sentences.
        embedding_dim: numbers that stand for a word.
        hidden: numbers that it remembers.

    Raises:
        RecipeError: the data are no sentences.
    """

    consumes = TableBatch

    def __init__(self, data: Spec, *, embedding_dim: Count = 8, hidden: Count = 4) -> None:
        super().__init__(data)
        words, classes = expect(data, TextSpec, "lstm").words, len(data.classes)
        self.classifier = _Reader(len(words) + 2, embedding_dim, hidden, 1 if classes == 2 else classes)


class _Reader(nn.Module):
    """Embeds words, reads them in order, and answers after the last one.

    Args:
        words: how many there are, with 0 for no word and 1 for any other.
        embedding_dim: numbers that stand for a word.
        hidden: numbers that it remembers.
        answers: numbers that it ends in.

    Shape:
        [N, L], int64, 0 where a sentence is over -> [N, answers].
    """

    def __init__(self, words: int, embedding_dim: int, hidden: int, answers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding_dim, padding_idx=0)
        self.lstm = nn.LSTM(embedding_dim, hidden, batch_first=True)
        self.head = nn.Linear(hidden, answers)

    def forward(self, words: Tensor) -> Tensor:
        """Return the answers about a batch of sentences."""
        states, _ = self.lstm(self.embedding(words))  # [N, L, hidden], after each word
        # What is read after the last word comes too late to matter. Packing the sentences would save reading it, but
        # needs their lengths on the CPU, for which a GPU would have to stop and wait.
        last = (words != 0).sum(1).sub(1).clamp_min(0)
        after_it = last[:, None, None].expand(-1, 1, states.shape[2])
        answers: Tensor = self.head(states.gather(1, after_it).squeeze(1))
        return answers
