"""Answers that are JSON and valid by a schema: only tokens that can still lead there are allowed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from mlxops.errors import BadRequest
from mlxops.models.generation import LoadedModel
from mlxops.models.loading import try_out

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from mlxops.models.sampling import LogitsProcessor

# Between two values a model may write blanks without end.
_OPTIONS: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class JsonGrammar:
    """A JSON schema, compiled for the tokens of one model.

    `tokens` are those of another grammar of the same model; making them takes as long as an answer. Raises `BadRequest`
    for what is no schema or one that cannot be held, and where the package for it is missing.
    """

    def __init__(self, loaded: LoadedModel, schema: Any, *, name: str, tokens: LLTokenizer | None = None) -> None:
        try:
            from llguidance import LLMatcher
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise BadRequest(
                "a schema needs the package llguidance", hint="`pip install 'mlxops[structured]'` brings it"
            ) from error
        self._scores = try_out(loaded.model, name)
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
            self.tokens = tokens or from_tokenizer(
                loaded.tokenizer, n_vocab=self._scores, eos_token=sorted(loaded.stop_tokens) or None
            )
            problem = LLMatcher.validate_grammar(grammar, self.tokens)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise BadRequest(f"the schema cannot be held: {problem.strip().splitlines()[0]}")
        self._matcher = LLMatcher(self.tokens, grammar)

    def processor(self, prompt_tokens: int) -> LogitsProcessor:
        """A logits processor for one answer behind a prompt of so many tokens; it may be asked about guesses, too."""
        matcher = self._matcher.deep_copy()
        consumed: list[int] = []

        def allow(tokens: mx.array, logits: mx.array) -> mx.array:
            made = np.array(tokens[prompt_tokens:]).tolist()
            same = next((n for n, (one, other) in enumerate(zip(consumed, made, strict=False)) if one != other), None)
            kept = min(len(consumed), len(made)) if same is None else same
            if kept < len(consumed):
                matcher.rollback(len(consumed) - kept)
                del consumed[kept:]
            for token in made[kept:]:
                if matcher.is_stopped() or not matcher.consume_token(token):
                    break
                consumed.append(token)
            bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            allowed = np.unpackbits(bits, bitorder="little")[: logits.shape[-1]].astype(bool)
            return mx.where(mx.array(allowed)[None], logits, -mx.inf)

        return allow
