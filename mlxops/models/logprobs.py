"""The log-probabilities of an answer's tokens, and of those that could have stood in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from mlxops.models.generation import LoadedModel


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A token's text and its log-probability; `others` are the likeliest in its place, the likeliest first."""

    token: str
    logprob: float
    others: Sequence[TokenLogprob] = ()


@dataclass(kw_only=True)
class LogprobWatch:
    """Keeps the log-probabilities of tokens that it is shown, with so many `others` each, until they are taken.

    They are those of the model with its penalties and grammar, before the temperature. The token that ends an answer is
    left out.
    """

    loaded: LoadedModel
    others: int
    _kept: list[TokenLogprob] = field(default_factory=list, init=False)

    def __call__(self, token: int, logprobs: mx.array) -> None:
        if token in self.loaded.stop_tokens:
            return
        likeliest: list[int] = []
        if self.others:
            count = min(self.others, logprobs.size)
            found = mx.argpartition(-logprobs, kth=count - 1)[:count]
            likeliest = np.array(found[mx.argsort(-logprobs[found])]).tolist()
        numbers = np.array(logprobs[mx.array([token, *likeliest])].astype(mx.float32)).tolist()
        others = [
            TokenLogprob(token=self._text(each), logprob=number)
            for each, number in zip(likeliest, numbers[1:], strict=True)
        ]
        self._kept.append(TokenLogprob(token=self._text(token), logprob=numbers[0], others=others))

    def take(self) -> Sequence[TokenLogprob]:
        """Those since the last time."""
        kept, self._kept = self._kept, []
        return kept

    def _text(self, token: int) -> str:
        return str(self.loaded.tokenizer.decode([token], clean_up_tokenization_spaces=False))
