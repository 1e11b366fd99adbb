"""Texts into tokens, and spans of characters into spans of tokens.

A text is tokenized whole. Only where training would start inside an ordinary token are the parts before and after
tokenized apart, as they are in use: the prompt first, then what the model writes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mlxops.data.masking import MaskedText
from mlxops.data.templates import Spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Places:
    """Where the tokens of a text stand in it.

    A tokenizer is asked for single places, which takes a quarter of the time of all of them; where a place is in no
    token, all are looked through.
    """

    __slots__ = ("_encoding", "_listed", "count")

    def __init__(self, encoding: Any, pairs: Sequence[tuple[int, int]] = ()) -> None:
        self._encoding = encoding
        self._listed = _listed(pairs) if encoding is None else None
        self.count = len(pairs) if encoding is None else len(encoding)

    def ending_after(self, place: int) -> int:
        """The first token that ends after a place; the number of tokens where there is none."""
        token: int | None = None if self._encoding is None else self._encoding.char_to_token(place)
        return bisect_right(self._all()[1], place) if token is None else token

    def starting_from(self, place: int) -> int:
        """The first token that starts at a place or after it; the number of tokens where there is none."""
        token: int | None = None if self._encoding is None else self._encoding.char_to_token(place)
        if token is None:
            return bisect_left(self._all()[0], place)
        while token < self.count and self.of(token)[0] < place:
            token += 1
        while token and self.of(token - 1)[0] >= place:  # tokens of no character
            token -= 1
        return token

    def of(self, token: int) -> tuple[int, int]:
        """From where to where a token stands."""
        if self._encoding is not None and (found := self._encoding.token_to_chars(token)) is not None:
            start, stop = found
            return start, stop
        starts, stops = self._all()
        return starts[token], stops[token]

    def _all(self) -> tuple[Sequence[int], Sequence[int]]:
        if self._listed is None:
            self._listed = _listed(self._encoding.offsets)
        return self._listed


def _listed(pairs: Sequence[tuple[int, int]]) -> tuple[Sequence[int], Sequence[int]]:
    return ([start for start, _ in pairs], [stop for _, stop in pairs])


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a row and its spans in tokens; `is_split` tells that a prompt was tokenized apart.

    `places` tell where the tokens stand in the text, where that was needed and the tokenizer tells it.
    """

    tokens: list[int]
    spans: Spans
    is_split: bool = False
    places: Places | None = None


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """Rows of text: trained whole, with one begin-of-text token where the tokenizer writes one, and an end of text."""
    if not texts:
        return []
    found = []
    for tokens in _tokenized(texts, tokenizer, add_special_tokens=True)["input_ids"]:
        complete = _complete(tokens, tokenizer)
        found.append(Encoded(complete, ((0, len(complete)),)))
    return found


def encode_masked(rows: Sequence[MaskedText], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """Rows of conversations; a row without spans is trained whole."""
    if not rows:
        return []
    # a chat template writes the begin-of-text token itself
    encoded = _tokenized([row.text for row in rows], tokenizer, add_special_tokens=False)
    added = frozenset(tokenizer.added_tokens_decoder)
    found = []
    for place, row in enumerate(rows):
        tokens = encoded["input_ids"][place]
        if not row.turns:
            found.append(Encoded(tokens, ((0, len(tokens)),)))
        elif tokenizer.is_fast:
            found.append(_with_end(row, _by_places(row, tokens, Places(encoded.encodings[place]), tokenizer, added)))
        else:
            found.append(_with_end(row, _by_prefix(row, tokens, tokenizer)))
    return found


def _tokenized(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool) -> Any:
    return tokenizer(
        list(texts),
        add_special_tokens=add_special_tokens,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )


def _complete(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is not None and tokens[:2] == [begin, begin]:  # the text spelled it out, too
        tokens = tokens[1:]
    return tokens if end is None or tokens[-1:] == [end] else [*tokens, end]


def _with_end(row: MaskedText, encoded: Encoded) -> Encoded:
    """The row with the token that ends its last turn, where the template writes none."""
    if row.appended is None:
        return encoded
    *spans, (start, stop) = encoded.spans
    return replace(encoded, tokens=[*encoded.tokens, row.appended], spans=(*spans, (start, stop + 1)))


def _by_places(
    row: MaskedText, tokens: list[int], places: Places, tokenizer: PreTrainedTokenizerBase, added: Collection[int]
) -> Encoded:
    joined = Encoded(tokens, _spans(row.spans, tokens, places, added), places=places)
    cuts = sorted({start for start, _ in row.spans if not _begins_a_token(row.text, start, tokens, places, added)})
    if not cuts:
        return joined
    apart: list[int] = []
    pairs: list[tuple[int, int]] = []
    parts = list(pairwise([0, *cuts, len(row.text)]))
    encoded = _tokenized([row.text[start:stop] for start, stop in parts], tokenizer, add_special_tokens=False)
    for (first, _), ids, encoding in zip(parts, encoded["input_ids"], encoded.encodings, strict=True):
        apart += ids
        pairs += [(first + start, first + stop) for start, stop in encoding.offsets]
    if apart == tokens or decode(apart, tokenizer) != decode(tokens, tokenizer):
        return joined  # the second: a tokenizer that writes a blank before every text
    places = Places(None, pairs)
    return Encoded(apart, _spans(row.spans, apart, places, added), is_split=True, places=places)


def _begins_a_token(text: str, start: int, tokens: list[int], places: Places, added: Collection[int]) -> bool:
    """Whether no ordinary token holds characters on both sides of a place."""
    first = places.ending_after(start)
    if first == len(tokens):
        return True
    if places.of(first)[0] < start:
        return tokens[first] in added
    # some tokenizers leave the blank that a token begins with out of its place
    before = places.of(first - 1)[1] if first else 0
    return before >= start or not text[before:start].isspace()


def tokens_of(span: tuple[int, int], places: Places) -> tuple[int, int]:
    """The tokens that hold the characters of a span."""
    return places.ending_after(span[0]), places.starting_from(span[1])


def _spans(spans: Spans, tokens: list[int], places: Places, added: Collection[int]) -> Spans:
    """Spans of tokens: a token is in a span when it holds any of its characters."""
    found: list[tuple[int, int]] = []
    for span in spans:
        first, after = tokens_of(span, places)
        if first < len(tokens) and places.of(first)[0] < span[0] and tokens[first] in added:
            first += 1  # a token of the tokenizer's own that takes the white space behind it along
        found.append((max(first, found[-1][1] if found else 0), after))
    return tuple(found)


def _by_prefix(row: MaskedText, tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """For a tokenizer without offsets: the tokens of the text up to each border are counted."""
    borders = sorted({0, len(row.text), *(border for span in row.spans for border in span)})
    places = {}
    for border in borders:
        before = tokenizer(row.text[:border], add_special_tokens=False, verbose=False)["input_ids"]
        if tokens[: len(before)] != before:
            break
        places[border] = len(before)
    else:
        return Encoded(tokens, tuple((places[start], places[stop]) for start, stop in row.spans))
    apart: list[int] = []
    for start, stop in pairwise(borders):
        places[start] = len(apart)
        apart += tokenizer(row.text[start:stop], add_special_tokens=False, verbose=False)["input_ids"]
        places[stop] = len(apart)
    return Encoded(apart, tuple((places[start], places[stop]) for start, stop in row.spans), is_split=True)


def decode(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of tokens, nothing left out and nothing tidied."""
    text: str = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
