"""Tiny vocabularies as GGUF metadata, made by the programs that define them, and texts that try every rule."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import regex
import sentencepiece

CORPUS = [
    "The capital of France is Paris, and the capital of Italy is Rome; I'll say it's nice, don't you think?",
    "In 2024 we paid 1234.50 for 17 books, 3 pens and 255 sheets: 42% more than in 1999.",
    "def f(x):\n    return x ** 2  # a comment\n\n\nfor i in range(10):\n\tprint(f(i))\n",
    "naïve café, déjà vu, Ångström, Straße; “quoted” – and more… don't, we've, THEY'LL, CamelCase HTTPServer",
    "Москва — столица России, а Киев — столица Украины. 東京は日本の首都です。 한국의 수도는 서울입니다.",
    "北京是中国的首都，有两千多万人。中国人 国中 人中国 مرحبا بالعالم नमस्ते दुनिया",
    "<div><b>bold</b> and <i>italic</i></div>   three spaces,     five;  two. aaaa aaaaaaa abab ababab ----- ======",
    "https://example.com/a/b?c=1&d=2 user@example.com 🙂 😀 👍🏽 🇫🇷 ½ ² ③ ΑΒΓ αβγ",
]

_LETTERS = "abcABC éÉßñАбв東京国中人한국ابन 0123456789 ½²٣ '\"’.,;:!?-–—…/\\()[]{}<>|_=+*&^%$#@~` \n\r\t\u00a0\u3000▁"
_ANYWHERE = ((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F))
_ANYWHERE += ((0x300, 0x36F), (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3))
_ANYWHERE += ((0x1F300, 0x1F64F), (0x1D400, 0x1D7FF))


def texts(number: int, *, seed: int = 0, words: tuple[str, ...] = ()) -> list[str]:
    """Texts of parts of the corpus, runs of one sign, random letters of many scripts, and the given words."""
    source = random.Random(seed)
    corpus = " ".join(CORPUS)

    def part() -> str:
        kind = source.randrange(6 if words else 5)
        if kind == 0:
            start = source.randrange(len(corpus))
            return corpus[start : start + source.randrange(1, 60)]
        if kind == 1:
            return source.choice(" \n\ta-=.0▁中a") * source.choice((1, 2, 3, 4, 5, 7, 16, 33))
        if kind == 2:
            return "".join(source.choice(_LETTERS) for _ in range(source.randrange(1, 12)))
        if kind == 3:
            return "".join(chr(source.randint(*source.choice(_ANYWHERE))) for _ in range(source.randrange(1, 8)))
        if kind == 4:
            return source.choice(("ab", "ba", "aab", "'S", "'ll", " I'm", "\r\n", "12", " 3")) * source.randrange(1, 6)
        return source.choice(words)

    made = ["".join(part() for _ in range(source.randrange(1, 6))) for _ in range(number - 12)]
    whole = ["", " ", "  ", "\n", "\n\n", "a", " a", "a ", "▁", "aaaa " * 1000, corpus, corpus.upper()]
    return whole + made


def cut(expression: regex.Pattern[str], text: str) -> list[str]:
    """What the expression finds, and what is between."""
    ends = sorted({0, len(text), *(end for match in expression.finditer(text) for end in match.span())})
    return [text[start:end] for start, end in pairwise(ends)]


def as_letters(text: str) -> str:
    """A text's bytes as GPT-2 writes them: printable ones as they are, the others with letters from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return "".join(chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in text.encode())


def merged(word: Iterable[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """A word's tokens: of all neighbours the pair that was learned first becomes one, the leftmost first."""
    parts = list(word)
    while known := [(ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ranks]:
        _, place = min(known)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def train_sentencepiece(**options: Any) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece BPE of the corpus; a text is normalized by nothing but the rules for spaces."""
    written = io.BytesIO()
    defaults: dict[str, Any] = {
        "vocab_size": 700,
        "character_coverage": 0.98,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "max_sentencepiece_length": 12,
        "hard_vocab_limit": False,
        "num_threads": 1,
        "minloglevel": 2,
    }
    lines = [line for text in CORPUS for line in text.splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, model_type="bpe", **{**defaults, **options}
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def sentencepiece_metadata(model: sentencepiece.SentencePieceProcessor, **more: Any) -> dict[str, Any]:
    """A SentencePiece model as llama.cpp's converter writes it."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model.serialized_model_proto())
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [piece.piece for piece in proto.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in proto.pieces],
        "tokenizer.ggml.token_type": [int(piece.type) for piece in proto.pieces],
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
        "tokenizer.ggml.remove_extra_whitespaces": proto.normalizer_spec.remove_extra_whitespaces,
        **more,
    }
