"""Prompt caches of several conversations with one model, whose adapter may change between them."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_lm.utils import common_prefix_len

from mlxops.models.generation import LoadedModel
from mlxops.models.prompt_cache import PromptCache


class CachePool:
    """The caches of the last `most` conversations. One is lent for each answer, always of the adapter in the model."""

    def __init__(self, loaded: LoadedModel, most: int) -> None:
        self._loaded = loaded
        self._most = most
        self._kept: list[PromptCache] = []

    def lend(self, prompt: Sequence[int]) -> PromptCache:
        """The cache that has most of the prompt; a new one where none has more of it than of something else."""
        owner, prompt = self._loaded.slot.owner, list(prompt)
        best, most = None, 0
        for cache in self._kept:
            common = common_prefix_len(cache.tokens, prompt) if cache.owner == owner else 0
            if common > most and 2 * common > len(cache.tokens):
                best, most = cache, common
        if best is None:
            return self._loaded.new_cache()
        self._kept.remove(best)
        return best

    def give_back(self, cache: PromptCache) -> None:
        """Keep a cache for later; the one that was not used for the longest time is dropped for it."""
        if cache.tokens:
            self._kept.append(cache)
        del self._kept[: max(0, len(self._kept) - self._most)]
