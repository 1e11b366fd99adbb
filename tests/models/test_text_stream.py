"""Text out of tokens, piece by piece, with characters that are split over tokens and bytes that are none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers_for_tests import tiny_tokenizer

from mlxops.models.text_stream import TextStream
from mlxops.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDS = "Grüße, 日本語 and 👩‍👩‍👧 with é, then  two blanks\n\n\tand ﷽ — done 🏳️‍🌈"


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerBase:
    """A tokenizer that writes most characters beyond ASCII as several tokens."""
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def byte_fallback() -> PreTrainedTokenizerBase:
    """A tokenizer in SentencePiece's way: words begin with ▁, and what it does not know are tokens of one byte each."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "▁end", "a", "b"]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def pieces_of(tokenizer: Any, tokens: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.add(token) for token in tokens), stream.finish()]


def byte_tokens(tokenizer: Any, content: bytes) -> list[int]:
    """The tokens of bytes, one each, that need not be text."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [tokenizer.convert_tokens_to_ids(bytes_to_unicode()[byte]) for byte in content]


@pytest.mark.parametrize("words", [WORDS, " starts with a blank", "ends with one ", "a�b", ""])
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_the_pieces_together_are_the_text(request: pytest.FixtureRequest, kind: str, words: str) -> None:
    tokenizer = request.getfixturevalue(kind)
    tokens = tokenizer.encode(words, add_special_tokens=False)

    pieces = pieces_of(tokenizer, tokens)

    assert "".join(pieces) == tokenizer.decode(tokens) == words


def test_no_piece_ends_inside_a_character(byte_level: Any) -> None:
    tokens = byte_tokens(byte_level, "a👩é".encode())

    assert pieces_of(byte_level, tokens) == ["a", "", "", "", "👩", "", "é", ""]


def test_broken_bytes_in_the_middle_hold_nothing_up(byte_level: Any) -> None:
    tokens = byte_tokens(byte_level, b"ab\xf0\x9fcd\xffe")

    assert pieces_of(byte_level, tokens) == ["a", "b", "", "", "�c", "d", "", "�e", ""]


def test_bytes_that_never_end_in_a_character_come_out_after_eight(byte_level: Any) -> None:
    tokens = byte_tokens(byte_level, b"\xff" * 20)

    pieces = pieces_of(byte_level, tokens)

    assert [number for number, piece in enumerate(pieces) if piece] == [7, 15, 20]
    assert "".join(pieces) == "�" * 20


def test_a_character_after_a_broken_one_is_whole(byte_level: Any) -> None:
    tokens = byte_tokens(byte_level, b"\xf0\x9f" + "👩".encode())

    assert "".join(pieces_of(byte_level, tokens)) == "�👩"


def test_what_waits_at_the_end_comes_out(byte_level: Any) -> None:
    assert pieces_of(byte_level, byte_tokens(byte_level, b"a\xf0\x9f")) == ["a", "", "", "�"]


def test_a_broken_byte_does_not_take_the_character_before_it(byte_fallback: Any) -> None:
    tokens = [1 + byte for byte in "é".encode() + b"\xff"] + byte_fallback.encode("a", add_special_tokens=False)[1:]

    assert "".join(pieces_of(byte_fallback, tokens)) == "é�a"


def test_added_tokens_are_text_too(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokens = tokenizer.encode("<|im_start|>user\nHi", add_special_tokens=False)

    assert "".join(pieces_of(tokenizer, tokens)) == "<|im_start|>user\nHi"
