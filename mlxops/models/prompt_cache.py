"""What a model keeps of the tokens it has read: with it, the next turn of a conversation computes only new ones.

A cache belongs to one model with one adapter: under another one its content is wrong, and nothing would show it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import (
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    load_prompt_cache,
    make_prompt_cache,
    save_prompt_cache,
)
from mlx_lm.utils import common_prefix_len

from mlxops import files
from mlxops.errors import BadRequest

_PLAIN = (KVCache, QuantizedKVCache)


class PromptCache:
    """The tokens that a model has read, and a draft model beside it, with all that follows from them.

    `owner` names the model and the adapter that filled it. Whoever runs the model appends to `tokens` what it has read.
    """

    def __init__(self, model: nn.Module, draft: nn.Module | None = None, *, owner: str = "") -> None:
        self.owner = owner
        self.tokens: list[int] = []
        self._models = [model] if draft is None else [model, draft]
        self._entries: list[list[Any]] = []
        self.clear()

    @property
    def entries(self) -> list[Any]:
        """What mlx-lm takes as a prompt cache: the model's entries, then the draft model's."""
        return [entry for entries in self._entries for entry in entries]

    @property
    def model_entries(self) -> list[Any]:
        """The model's entries."""
        return self._entries[0]

    @property
    def draft_entries(self) -> list[Any]:
        """The draft model's entries, none without one."""
        return self._entries[1] if len(self._entries) > 1 else []

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        return sum(entry.nbytes for entry in self.entries)

    def clear(self) -> None:
        """Forget everything."""
        self.tokens = []
        self._entries = [make_prompt_cache(each) for each in self._models]

    def take(self, prompt: Sequence[int]) -> int:
        """Keep what the prompt and the cache have in common, forget the rest, and return how many tokens were kept.

        At least the last token of the prompt is left to compute. Where the model's state cannot be taken back (a
        recurrent one, a full window) everything is forgotten.
        """
        prompt = list(prompt)
        kept = min(common_prefix_len(self.tokens, prompt), len(prompt) - 1)
        self.trim(kept)
        return len(self.tokens)

    def trim(self, length: int) -> None:
        """Forget all beyond the first `length` tokens, or everything where the model's state cannot be taken back."""
        surplus = len(self.tokens) - length
        if surplus <= 0:
            return
        if not all(_can_trim(entry) for entry in self.entries):
            self.clear()
            return
        for entry in self.entries:
            entry.trim(surplus)
        del self.tokens[length:]

    def settle(self, tokens: Sequence[int]) -> None:
        """Note that the models have read these tokens; with a draft model, as far as both have read them."""
        self.tokens = list(tokens)
        if not self.draft_entries:
            return
        shortest = min(_length(entries) for entries in self._entries)
        for entries in self._entries:
            surplus = _length(entries) - shortest
            for entry in entries:
                entry.trim(surplus)
        del self.tokens[shortest:]

    def save(self, path: Path) -> None:
        """Write it to a `.safetensors` file, whole or not at all."""
        metadata = {"owner": self.owner, "tokens": json.dumps(self.tokens), "models": str(len(self._models))}
        with files.whole(path) as beside:
            named = beside.with_name(f"{beside.name}.safetensors")  # mlx appends that to any other name
            try:
                save_prompt_cache(str(named), self.entries, metadata)
                named.replace(beside)
            finally:
                named.unlink(missing_ok=True)

    def load(self, path: Path) -> None:
        """Take what `save` wrote. Raises `BadRequest` for a cache of another model or adapter, and a damaged one."""
        hint = "leave it out: the conversation is then computed again"
        try:
            entries, metadata = load_prompt_cache(str(path), return_metadata=True)
            tokens, owner = [int(token) for token in json.loads(metadata["tokens"])], metadata["owner"]
            mx.eval([entry.state for entry in entries])  # MLX reads lazily, and the file may be replaced
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise BadRequest(f"{str(path)!r} is no prompt cache: {_first_line(error)}", hint=hint) from error
        if owner != self.owner or metadata["models"] != str(len(self._models)):
            raise BadRequest(f"the prompt cache {str(path)!r} belongs to another model or adapter", hint=hint)
        middle = len(self._entries[0])
        self.tokens = tokens
        self._entries = [entries[:middle], entries[middle:]] if len(self._models) > 1 else [entries]


def can_be_rewound(model: nn.Module) -> bool:
    """Whether any token can be taken back at any time, which speculative decoding needs."""
    entries = make_prompt_cache(model)
    return len(entries) == len(model.layers) and all(type(entry) in _PLAIN for entry in entries)


def can_be_batched(model: nn.Module) -> bool:
    """Whether rows of different length can be in one cache."""
    return all(_can_merge(entry) for entry in make_prompt_cache(model))


def _length(entries: Sequence[Any]) -> int:
    """How many tokens entries hold that can be rewound."""
    return int(entries[0].offset)


def _can_trim(entry: Any) -> bool:
    # what such a cache drops in front is not there when its end is taken back
    return bool(entry.is_trimmable()) and not (isinstance(entry, ChunkedKVCache) and entry.start_position > 0)


def _can_merge(entry: Any) -> bool:
    parts = getattr(entry, "caches", None)
    return all(_can_merge(part) for part in parts) if parts else hasattr(entry, "merge")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
