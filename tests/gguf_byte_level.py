"""Metadata of GGUF files with a byte-level tokenizer."""

from __future__ import annotations

import functools
import json
from typing import Any

from gguf_vocabularies import CORPUS

WHOLE_WORDS = ["ĠFrance", "ĠRome", "202", "nice", "!!!"]


@functools.cache
def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level BPE of texts that nobody cut, so that every cut that a rule makes shows in the ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, *(" ".join(text.split()[::-1]) for text in CORPUS)] * 2, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = {**model["vocab"]}
    tokens |= {word: len(tokens) + place for place, word in enumerate(w for w in WHOLE_WORDS if w not in tokens)}
    return tokens, [tuple(pair) for pair in model["merges"]]


def byte_level_metadata(pre: str, **more: Any) -> dict[str, Any]:
    """The vocabulary as llama.cpp's converter writes it, with a special token at the end."""
    tokens, merges = vocabulary()
    ordered = [*sorted(tokens, key=tokens.__getitem__), "<|endoftext|>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": ordered,
        "tokenizer.ggml.token_type": [1] * len(tokens) + [3],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": len(tokens),
        "tokenizer.ggml.eos_token_id": len(tokens),
        "tokenizer.ggml.add_bos_token": False,
        **more,
    }
