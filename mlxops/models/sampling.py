"""Choosing the next token: mlx-lm's filters and penalties, and draws that depend on seed, row and position alone.

A row gets the same tokens alone and in a batch, with a draft model and without one, as far as the logits are the same:
no draw depends on what was drawn before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, greedy_sampler, make_logits_processors

Sampler = Callable[[mx.array], mx.array]
"""From log-probabilities of shape (rows, vocabulary) to one token for each row."""

LogitsProcessor = Callable[[mx.array, mx.array], mx.array]
"""From all tokens so far and logits of shape (1, vocabulary) to other logits of that shape."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy; top_p 1, top_k 0, min_p 0 and a penalty of 1 change nothing."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_context: int = 20
    seed: int = 0


class KeyedSampler:
    """Draws the tokens of one row, each with a key made of seed, row and position.

    `position` is that of the next token in the answer; it counts on by itself, and can be set.
    """

    def __init__(self, sampling: Sampling, row: int) -> None:
        self.position = 0
        self._sampling = sampling
        self._row = row

    def __call__(self, logprobs: mx.array) -> mx.array:
        sampling = self._sampling
        if 0 < sampling.top_p < 1:
            logprobs = apply_top_p(logprobs, sampling.top_p)
        if sampling.min_p > 0:
            logprobs = apply_min_p(logprobs, sampling.min_p)
        if 0 < sampling.top_k < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, sampling.top_k)
        key = mx.random.key(_number(sampling.seed, self._row, self.position))
        self.position += 1
        return mx.random.categorical(logprobs * (1 / sampling.temperature), key=key)


def make_sampler(sampling: Sampling, row: int) -> Sampler:
    """The sampler of one row; all rows share one where it is greedy, so that a batch is sampled in one call."""
    return KeyedSampler(sampling, row) if sampling.temperature > 0 else greedy_sampler


def make_processors(sampling: Sampling) -> list[LogitsProcessor]:
    """mlx-lm's processors for these settings."""
    if sampling.repetition_penalty == 1:
        return []
    processors: list[LogitsProcessor] = make_logits_processors(
        repetition_penalty=sampling.repetition_penalty, repetition_context_size=sampling.repetition_context
    )
    return processors


def after(prefix: Sequence[int], processor: LogitsProcessor) -> LogitsProcessor:
    """The processor for an answer whose first tokens mlx-lm does not see, as they are in a prompt cache."""
    seen = mx.array(list(prefix), mx.uint32)

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        return processor(mx.concatenate([seen, tokens.astype(mx.uint32)]), logits)

    return process


def clock(sampler: KeyedSampler, prompt_tokens: int) -> LogitsProcessor:
    """A processor that sets the sampler's position: with a draft model the calls do not come in order."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        sampler.position = tokens.size - prompt_tokens
        return logits

    return process


def _number(*parts: int) -> int:
    """One number of 64 bits out of several; the same on every machine and in every process."""
    digest = hashlib.blake2b(" ".join(map(str, parts)).encode("ascii"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
