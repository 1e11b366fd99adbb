"""Whether a model, its tokenizer and the rows fit together.

MLX does not check an index: a token id beyond the embedding reads memory that belongs to something else, and the run
ends as if nothing had happened. So the rows are compared with the model before a run exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlxops import files
from mlxops.errors import BadRequest
from mlxops.models.folders import ModelInfo
from mlxops.rows import TokenRow
from mlxops.training.batches import PAD_TO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_rows(rows: Iterable[TokenRow], tokenizer: PreTrainedTokenizerBase, model: ModelInfo, name: str) -> None:
    """Raise `BadRequest` for a row with a token, or a position, that the model has no embedding for."""
    for row in rows:
        largest = int(row.tokens.max())
        if model.embedding_rows is not None and largest >= model.embedding_rows:
            raise _beyond(row, largest, tokenizer, f"the embedding of {name} has {model.embedding_rows:,} rows")
        if model.learned_positions is not None:
            # padding has positions, too
            longest = model.learned_positions // PAD_TO * PAD_TO + 1
            if row.length > longest:
                raise BadRequest(
                    f"{row.origin} has {row.length:,} tokens, and {name} has learned "
                    f"{model.learned_positions:,} positions",
                    hint=f"`--max-seq-length {longest}` cuts longer rows",
                )


def check_scores(rows: Iterable[TokenRow], count: int, name: str) -> None:
    """Raise `BadRequest` for a row with a token that the model gives no score; it gives `count` of them."""
    for row in rows:
        largest = int(row.tokens.max())
        if largest >= count:
            raise _beyond(row, largest, None, f"{name} gives scores to {count:,} tokens")


def notes_on_ends(
    rows: Sequence[TokenRow],
    ends: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    model: ModelInfo,
    *,
    max_seq_length: int,
) -> list[str]:
    """What to know of the tokens that end a turn: in the rows, and for generation, which stops at `ends`."""
    notes = []
    size = model.embedding_rows
    if size is not None and (beyond := [each for each in ends if each >= size]):
        shown = ", ".join(f"{each:,}" for each in beyond)
        notes.append(f"generation never stops at the token id {shown}: the embedding has {size:,} rows")
    others = Counter(
        token
        for row in rows
        for token in ends_of_turns(row, max_seq_length)
        if token not in ends and token in tokenizer.added_tokens_decoder
    )
    for token, count in others.most_common(1):
        turns = "1 turn ends" if count == 1 else f"{count:,} turns end"
        stops = ", ".join(repr(tokenizer.convert_ids_to_tokens(each)) for each in ends) or "no token"
        notes.append(
            f"{turns} with {tokenizer.convert_ids_to_tokens(token)!r}, at which generation does not stop: it stops at "
            f"{stops} (eos_token_id in the model's generation_config.json)"
        )
    return notes


def note_on_own_code(folder: Path) -> list[str]:
    """The code that a trusted model's folder has."""
    names = [file.name for file in files.matching(folder, "*.py")]
    return [f"code of the model's folder may be run (`--trust-remote-code`): {', '.join(names)}"] if names else []


def ends_of_turns(row: TokenRow, max_seq_length: int) -> list[int]:
    """The last token of each span, where the row was not cut in it."""
    is_cut = row.length >= max_seq_length
    return [int(row.tokens[stop - 1]) for _, stop in row.spans if stop and not (is_cut and stop == row.length)]


def _beyond(row: TokenRow, token: int, tokenizer: PreTrainedTokenizerBase | None, why: str) -> BadRequest:
    text = f" {tokenizer.convert_ids_to_tokens(token)!r}" if tokenizer else ""
    return BadRequest(
        f"{row.origin} has the token{text} with the id {token:,}, and {why}",
        hint="the tokenizer is not the model's own, or got tokens that the model lacks: get the model again",
    )
