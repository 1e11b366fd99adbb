"""Text out of tokens, piece by piece: no half character is ever shown, and a broken one holds nothing up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"

# A character has at most four bytes, and a token at least one: this is a broken one and a whole one after it.
_LONGEST_WAIT = 8


class TextStream:
    """The text of tokens that come one by one.

    The pieces together are what the tokenizer makes of all tokens, wherever these are valid UTF-8. A token that ends
    inside a character waits for the rest of it; bytes that never become one come out as U+FFFD after eight tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        # What came out last is decoded again with what follows: a tokenizer may write a word otherwise at the start.
        self._context = 0
        self._shown = 0

    def add(self, token: int) -> str:
        """The text that this token completes, often none."""
        self._tokens.append(token)
        waiting = len(self._tokens) - self._shown
        return self._next(is_last=waiting >= _LONGEST_WAIT)

    def finish(self) -> str:
        """What is still waiting, complete or not."""
        return self._next(is_last=True) if self._shown < len(self._tokens) else ""

    def _next(self, *, is_last: bool) -> str:
        before = self._decode(self._tokens[self._context : self._shown])
        text = self._decode(self._tokens[self._context :])
        if text.endswith(_UNFINISHED) and not is_last:
            return ""
        # a tokenizer of bytes gives a run of them up as a whole, also those that were right
        is_same = text.startswith(before)
        piece = text[len(before) :] if is_same else self._decode(self._tokens[self._shown :])
        self._context, self._shown = self._shown, len(self._tokens)
        return piece

    def _decode(self, tokens: list[int]) -> str:
        if not tokens:
            return ""
        text = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)
