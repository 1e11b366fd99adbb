"""The rows of a test: which are drawn, and what a model makes of them by training's own batches and score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from mlxops import data
from mlxops.rows import TokenRow

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from mlxops.evaluation.perplexity import RowLoss
    from mlxops.models.generation import LoadedModel
    from mlxops.training.batches import Batch


def draw(records: Sequence[data.Record], count: int | None, seed: int) -> tuple[data.Record, ...]:
    """So many of the records, chosen by the seed and their place, in their order; all where `count` is None."""
    if count is None or count >= len(records):
        return tuple(records)
    places = sorted(range(len(records)), key=lambda place: blake2b(f"{seed}/test/{place}".encode()).digest())
    return tuple(records[place] for place in sorted(places[:count]))


def losses(
    loaded: LoadedModel,
    rows: Sequence[TokenRow],
    *,
    order: Sequence[str],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> tuple[list[RowLoss], dict[str, int]]:
    """What the model loses on rows, in the order of their origins, and the bytes of each origin's trained words."""
    import numpy as np

    from mlxops.evaluation.perplexity import row_losses
    from mlxops.training import batches, score

    def collate(rows: Sequence[TokenRow]) -> Batch:
        batch = batches.collate(rows)
        mask = batch.arrays["mask"]
        real = np.arange(mask.shape[1]) < np.array([row.length - 1 for row in rows])[:, None]
        return replace(batch, arrays={**batch.arrays, "real": real})

    score_of = score.plain(loaded.model)

    def log_probabilities(batch: Batch) -> np.ndarray:
        arrays = score.arrays_of(batch)
        return np.array(score_of({"tokens": arrays["tokens"], "mask": arrays["real"]}))

    chosen = batches.fixed_batches(rows, batch_size=batch_size, count=-1, seed=0, collate=collate)
    found = row_losses(chosen, log_probabilities, lambda done: progress(done, len(rows)))
    places = {origin: place for place, origin in enumerate(order)}
    byte_counts: dict[str, int] = {}
    for row in rows:
        byte_counts[row.origin] = byte_counts.get(row.origin, 0) + _byte_count(row, loaded.tokenizer)
    return sorted(found, key=lambda row: places[row.origin]), byte_counts


def _byte_count(row: TokenRow, tokenizer: PreTrainedTokenizerBase) -> int:
    """The bytes of a row's trained words in UTF-8, without special tokens."""
    tokens = row.tokens.tolist()
    return sum(
        len(tokenizer.decode(tokens[start:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False).encode())
        for start, stop in row.spans
    )
