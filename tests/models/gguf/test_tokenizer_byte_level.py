"""Byte-level tokenizers out of GGUF files give the ids of the models' own classes, and of llama.cpp's expressions."""

from __future__ import annotations

import functools
import inspect
import unicodedata

import pytest
import regex
from gguf_byte_level import byte_level_metadata, vocabulary
from gguf_vocabularies import as_letters, cut, merged, texts

from mlxops.errors import BadRequest
from mlxops.models.gguf.pretokenizers import RULES
from mlxops.models.gguf.tokenizer import rebuild

# src/llama-vocab.cpp: without (?i:…), which its engine does not know. Where it had to give up capitals of other
# scripts, the expression is the one that it quotes from tokenizer.json.
ENDINGS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
LLAMA3 = rf"(?:{ENDINGS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
LLAMA3 += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{M}\p{N}]+")
SEED = QWEN2.replace(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}\r\n]+")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = (
    TEKKEN.replace(r"\p{M}]+|[^\r", rf"\p{{M}}]+(?:{ENDINGS})?|[^\r", 1)
    .replace(r"\p{M}]*|\p{N}", rf"\p{{M}}]*(?:{ENDINGS})?|\p{{N}}", 1)
    .replace(r"|\p{N}|", r"|\p{N}{1,3}|", 1)
)
DIGITS = [r"\p{N}", GPT2]
# Its letters, as they look; those that composing letters would turn into others are numbers.
DEEPSEEK_LETTERS = (
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ"
    r"\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗ"
    r"Ａ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
ASIAN = "[一-龥ࠀ-一가-퟿]+"

# By name: the expressions, one after the other; whether it composes letters; whether whole words go before merges.
EXPECTED: dict[str, tuple[list[str], bool, bool]] = {
    "command-r": (DIGITS, True, False),
    "dbrx": ([LLAMA3], False, False),
    "deepseek-coder": ([r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN, r"\p{N}"], False, False),
    "deepseek-llm": (
        [r"[\r\n]", DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", ASIAN, r"\p{N}"],
        False,
        False,
    ),
    "deepseek-r1-qwen": ([QWEN2], True, False),
    "default": ([r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], False, False),
    "falcon3": ([LLAMA3], False, True),
    "gpt-2": ([GPT2], False, False),
    "gpt-4o": ([GPT4O], False, False),
    "llama-bpe": ([LLAMA3], False, True),
    "llama-v3": ([LLAMA3], False, True),
    "llama3": ([LLAMA3], False, True),
    "midm-2.0": ([LLAMA3], False, True),
    "minerva-7b": (DIGITS, False, False),
    "minicpm5": ([r"\p{N}{1,3}", LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")], False, True),
    "mpt": ([GPT2], True, False),
    "olmo": ([GPT2], True, False),
    "phi-2": ([GPT2], False, False),
    "qwen2": ([QWEN2], True, False),
    "qwen35": ([QWEN35], True, False),
    "refact": (DIGITS, False, False),
    "seed-coder": ([SEED], False, False),
    "smaug-bpe": ([LLAMA3], False, False),
    "smollm": (DIGITS, False, False),
    "stablelm2": ([QWEN2], True, False),
    "starcoder": (DIGITS, False, False),
    "tekken": ([TEKKEN], False, True),
}

# Tokens that no merges lead to, so that a tokenizer that takes whole words first shows it.
# The models' own classes, which state their rules in code. Vocabulary and merges go in.
OWN_CLASSES = {
    "command-r": "CohereTokenizer",
    "gpt-2": "GPT2Tokenizer",
    "olmo": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen35": "Qwen3_5Tokenizer",
}


def expected_ids(text: str, pre: str) -> list[int]:
    """The ids by llama.cpp's expressions and the rule of byte-level BPE."""
    expressions, composes, whole_words = EXPECTED[pre]
    return _ids(text, tuple(expressions), composes, whole_words)


@functools.cache
def _ids(text: str, expressions: tuple[str, ...], composes: bool, whole_words: bool) -> list[int]:
    pieces = [unicodedata.normalize("NFC", text) if composes else text]
    for expression in expressions:
        pieces = [part for piece in pieces for part in cut(_compiled(expression), piece)]
    return [number for piece in pieces for number in _word_ids(piece, whole_words)]


@functools.cache
def _compiled(expression: str) -> regex.Pattern[str]:
    return regex.compile(expression, regex.V1)


@functools.cache
def _ranks() -> dict[tuple[str, ...], int]:
    return {pair: rank for rank, pair in enumerate(vocabulary()[1])}


@functools.cache
def _word_ids(piece: str, whole_words: bool) -> list[int]:
    tokens, word = vocabulary()[0], as_letters(piece)
    if whole_words and word in tokens:
        return [tokens[word]]
    return [tokens[token] for token in merged(list(word), _ranks())]


def test_every_rule_of_the_table_is_tried_here() -> None:
    assert RULES.keys() == EXPECTED.keys()


@pytest.mark.slow
@pytest.mark.parametrize("pre", sorted(EXPECTED))
def test_the_ids_are_those_of_the_rule(pre: str) -> None:
    tokenizer = rebuild(byte_level_metadata(pre)).tokenizer
    tried = texts(300)

    assert [(text, tokenizer.encode(text).ids) for text in tried] == [(text, expected_ids(text, pre)) for text in tried]


@pytest.mark.parametrize("pre", sorted(OWN_CLASSES))
def test_the_ids_are_those_of_the_models_own_class(pre: str) -> None:
    import transformers

    tokens, merges = vocabulary()
    own = getattr(transformers, OWN_CLASSES[pre])(vocab=dict(tokens), merges=merges)
    tokenizer = rebuild(byte_level_metadata(pre)).tokenizer
    tried = texts(1_000, seed=1)

    ids = [(text, own.encode(text, add_special_tokens=False)) for text in tried]

    assert [(text, tokenizer.encode(text).ids) for text in tried] == ids


def test_the_expression_of_llama3_is_the_one_its_converter_states() -> None:
    from transformers.convert_slow_tokenizer import TikTokenConverter

    stated = inspect.signature(TikTokenConverter).parameters["pattern"].default

    assert list(RULES["llama-bpe"].cuts) == [stated]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "tekken"])
def test_decoding_gives_the_text_again(pre: str) -> None:
    tokenizer = rebuild(byte_level_metadata(pre)).tokenizer
    form = (lambda text: unicodedata.normalize("NFC", text)) if RULES[pre].nfc else str
    tried = texts(500, seed=3)

    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in tried] == [form(text) for text in tried]


@pytest.mark.parametrize(("pre", "begins"), [("llama-bpe", True), ("tekken", True), ("qwen2", False), ("gpt-2", False)])
def test_a_file_that_does_not_say_whether_texts_begin_with_a_token_gets_the_default_of_its_rule(
    pre: str, begins: bool
) -> None:
    metadata = byte_level_metadata(pre)
    del metadata["tokenizer.ggml.add_bos_token"]

    ids = rebuild(metadata).tokenizer.encode("a").ids

    assert (ids[0] == metadata["tokenizer.ggml.bos_token_id"]) is begins


@pytest.mark.parametrize("pre", ["kimi-k2", "", None, "QWEN2"])
def test_a_rule_that_is_not_known_is_refused_by_name(pre: str | None) -> None:
    with pytest.raises(BadRequest, match=f"the pre-tokenizer {pre!r}"):
        rebuild(byte_level_metadata("gpt-2") | {"tokenizer.ggml.pre": pre})


@pytest.mark.parametrize("merge", ["a", "a b c", "Q ѫ", "zq qz"])
def test_a_merge_that_makes_no_token_is_named(merge: str) -> None:
    metadata = byte_level_metadata("gpt-2")
    metadata["tokenizer.ggml.merges"].append(merge)

    with pytest.raises(BadRequest, match=f"the merge {merge!r}"):
        rebuild(metadata)
