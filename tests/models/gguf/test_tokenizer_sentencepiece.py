"""SentencePiece tokenizers out of GGUF files cut and join every text as the `sentencepiece` package does."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from gguf_vocabularies import sentencepiece_metadata, texts, train_sentencepiece
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer

from mlxops.errors import BadRequest
from mlxops.models.gguf.sentencepiece import merges
from mlxops.models.gguf.tokenizer import rebuild
from mlxops.models.gguf.vocabulary import read_vocabulary

TAGS = ["<b>", "</b>", "<div>", "\n", "\n\n"]
RUNS = ["▁▁", "▁▁▁", "▁▁▁▁▁", "ab", "bc▁a"]
ACROSS_WORDS = {"split_by_whitespace": False, "split_by_unicode_script": False, "split_by_number": False}

KINDS: dict[str, dict[str, Any]] = {
    "as llama has it": {},
    "pieces across words": {**ACROSS_WORDS, "vocab_size": 1500},
    "no byte fallback": {"byte_fallback": False},
    "no space before": {"add_dummy_prefix": False},
    "as gemma has it": {"add_dummy_prefix": False, "split_digits": True, "user_defined_symbols": [*TAGS, *RUNS]},
    "tokens of its own": {"user_defined_symbols": TAGS, "split_digits": True},
    "runs of its own": {"user_defined_symbols": [*TAGS, *RUNS], "allow_whitespace_only_pieces": True},
    "extra spaces removed": {"remove_extra_whitespaces": True},
    "extra spaces removed, none before": {"remove_extra_whitespaces": True, "add_dummy_prefix": False},
}


@functools.cache
def trained(kind: str) -> SentencePieceProcessor:
    return train_sentencepiece(**KINDS[kind])


def changed(kind: str, change: Callable[[ModelProto], None]) -> SentencePieceProcessor:
    """A trained model with other pieces or scores."""
    proto = ModelProto.FromString(trained(kind).serialized_model_proto())
    change(proto)
    return SentencePieceProcessor(model_proto=proto.SerializeToString())


def made_by_hand(*pieces: tuple[str, float] | tuple[str, float, int]) -> SentencePieceProcessor:
    """A model of these pieces, scores and types, without byte fallback and without a space before."""

    def replace(proto: ModelProto) -> None:
        del proto.pieces[3:]
        for piece, score, *type_ in pieces:
            proto.pieces.add(piece=piece, score=score, type=type_[0] if type_ else 1)
        proto.normalizer_spec.add_dummy_prefix = False
        proto.trainer_spec.byte_fallback = False

    return changed("no byte fallback", replace)


def assert_same_ids(model: SentencePieceProcessor, tokenizer: Tokenizer, tried: list[str]) -> None:
    assert [(text, tokenizer.encode(text).ids) for text in tried] == [(text, model.encode(text)) for text in tried]


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_gets_the_ids_that_sentencepiece_gives(kind: str) -> None:
    model, whole = trained(kind), KINDS[kind].get("user_defined_symbols", [])
    tokenizer = rebuild(sentencepiece_metadata(model)).tokenizer
    # The one difference, stated below: a text that is a user-defined token and nothing else.
    alone = [] if kind == "as gemma has it" else whole
    tried = [text for text in texts(1_500, words=tuple(whole)) if text.replace(" ", "▁") not in alone]

    assert_same_ids(model, tokenizer, tried)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_become_the_text_that_sentencepiece_gives(kind: str) -> None:
    model = trained(kind)
    tokenizer = rebuild(sentencepiece_metadata(model)).tokenizer
    ids = [model.encode(text) for text in texts(1_000, seed=2)]
    # SentencePiece has a sign of its own for unknown letters, and with `remove_extra_whitespaces` it removes all spaces
    # at the start, of which there are several only where a text began with its sign for them.
    known = [each for each in ids if model.unk_id() not in each and model.id_to_piece(each[:1]) != ["▁"]]

    assert [tokenizer.decode(each, skip_special_tokens=False) for each in known] == [model.decode(e) for e in known]
    assert len(known) > 100


@pytest.mark.parametrize("seed", range(4))
def test_pieces_in_any_order_of_scores_are_joined_in_that_order(seed: int) -> None:
    def shuffle(proto: ModelProto) -> None:
        pieces = [piece for piece in proto.pieces if piece.type == 1 and len(piece.piece) > 1]
        scores = [piece.score for piece in pieces]
        random.Random(seed).shuffle(scores)
        for piece, score in zip(pieces, scores, strict=True):
            piece.score = score

    model = changed("pieces across words", shuffle)

    assert_same_ids(model, rebuild(sentencepiece_metadata(model)).tokenizer, texts(500, seed=seed))


@pytest.mark.parametrize("seed", range(2))
def test_pieces_that_cannot_be_reached_any_more_stay_unreached(seed: int) -> None:
    def thin_out(proto: ModelProto) -> None:
        source = random.Random(seed)
        kept = [each for each in proto.pieces if each.type != 1 or len(each.piece) == 1 or source.random() < 0.6]
        del proto.pieces[:]
        proto.pieces.extend(kept)

    model = changed("pieces across words", thin_out)

    assert_same_ids(model, rebuild(sentencepiece_metadata(model)).tokenizer, texts(500, seed=seed))


def test_of_two_tokens_with_one_score_the_left_one_is_made() -> None:
    model = made_by_hand(("a", -9), ("b", -9), ("c", -9), ("d", -9), ("bc", -1), ("ab", -1), ("cd", -1), ("bb", -1))
    source = random.Random(0)
    tried = ["".join(source.choice("abcd") for _ in range(source.randrange(1, 12))) for _ in range(2_000)]

    assert_same_ids(model, rebuild(sentencepiece_metadata(model)).tokenizer, tried)


@pytest.mark.parametrize("seed", range(20))
def test_runs_of_one_letter_that_share_a_score_grow_from_the_left(seed: int) -> None:
    source = random.Random(seed)
    runs = [("▁" * length, -1e9) for length in sorted(source.sample(range(2, 17), 9))]
    letters = [(letter, -1e9) for letter in "▁xy"]
    words = ["▁x", "▁▁x", "▁▁▁x", "x▁", "x▁▁", "y▁▁▁", "▁x▁", "▁▁x▁▁", "xy", "y▁x"]
    model = made_by_hand(*runs, *letters, *((word, -rank) for rank, word in enumerate(source.sample(words, 6))))
    tried = ["".join(source.choice(("x", "y", " " * source.randrange(40))) for _ in range(8)) for _ in range(500)]

    assert_same_ids(model, rebuild(sentencepiece_metadata(model)).tokenizer, tried)


@pytest.mark.parametrize("seed", range(12))
def test_tokens_that_can_be_made_in_several_ways_come_out_the_same(seed: int) -> None:
    source = random.Random(seed)
    every = ["".join(letters) for length in range(2, 7) for letters in itertools.product("ab", repeat=length)]
    pieces = source.sample(every[:12], 6) + source.sample(every[12:], 14)
    source.shuffle(pieces)
    model = made_by_hand(("a", -99), ("b", -99), *((piece, -rank) for rank, piece in enumerate(pieces)))
    tried = ["".join(source.choice("aab") for _ in range(source.randrange(1, 24))) for _ in range(1_000)]

    assert_same_ids(model, rebuild(sentencepiece_metadata(model)).tokenizer, tried)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([("a", -9), ("b", -9), ("ab", 0), ("ba", 0)], "made first, as '(ab|ba)' and '(ab|ba)'"),
        ([("a", -9), ("b", -9), ("ab", 0), ("abb", 0)], "made first, as 'ab' and 'abb'"),
        ([("a", -9), ("b", -9), ("ab", 0, 5)], "unused token that others make, as 'ab'"),
        ([("a", -9), ("ab", 0)], "'ab' holds 'b'"),
    ],
)
def test_what_a_list_of_merges_cannot_say_is_refused_by_name(pieces: list[Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        rebuild(sentencepiece_metadata(made_by_hand(*pieces)))


def test_a_text_that_is_one_token_of_the_users_has_no_space_before_it() -> None:
    model = trained("tokens of its own")
    tokenizer = rebuild(sentencepiece_metadata(model)).tokenizer

    assert tokenizer.encode("<b>").ids == [model.piece_to_id("<b>")] == model.encode("<b>")[1:]


def test_runs_of_spaces_are_found_under_the_sign_that_llama_cpp_writes_them_with() -> None:
    model = trained("as gemma has it")
    metadata = sentencepiece_metadata(model)
    types = metadata["tokenizer.ggml.token_type"]
    metadata["tokenizer.ggml.tokens"] = [
        token.replace("▁", " ") if type_ == 4 else token
        for token, type_ in zip(metadata["tokenizer.ggml.tokens"], types, strict=True)
    ]

    assert_same_ids(model, rebuild(metadata).tokenizer, texts(500, words=("  ", "   ")))


def test_padding_tokens_without_use_change_nothing() -> None:
    model = trained("as llama has it")
    metadata = sentencepiece_metadata(model)
    metadata["tokenizer.ggml.tokens"] += ["[PAD700]", "[PAD701]"]
    metadata["tokenizer.ggml.token_type"] += [5, 5]
    metadata["tokenizer.ggml.scores"] += [-1000.0, -1000.0]

    tokenizer = rebuild(metadata).tokenizer

    assert tokenizer.token_to_id("[PAD701]") == len(metadata["tokenizer.ggml.tokens"]) - 1
    assert_same_ids(model, tokenizer, texts(200, words=("[PAD701]",)))


def test_letters_that_the_model_rewrites_are_refused() -> None:
    proto = ModelProto.FromString(train_sentencepiece(normalization_rule_name="nmt_nfkc").serialized_model_proto())
    table = list(proto.normalizer_spec.precompiled_charsmap)
    metadata = sentencepiece_metadata(trained("as llama has it"))

    with pytest.raises(BadRequest, match="precompiled_charsmap"):
        rebuild({**metadata, "tokenizer.ggml.precompiled_charsmap": table})


def test_a_space_goes_before_the_text_after_a_special_token_and_not_after_one_of_the_users() -> None:
    model = trained("tokens of its own")
    tokenizer = rebuild(sentencepiece_metadata(model)).tokenizer

    assert tokenizer.encode("</s>Paris").tokens[1:] == model.encode("Paris", out_type=str)
    assert "▁" not in "".join(tokenizer.encode("a<b>Paris").tokens[2:])


def test_what_is_made_of_special_byte_and_user_defined_tokens_is_no_merge() -> None:
    metadata = sentencepiece_metadata(trained("as gemma has it"))
    pairs = merges(read_vocabulary(metadata, {}), metadata["tokenizer.ggml.scores"])
    types = dict(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True))

    assert {types[token] for pair in pairs for token in (*pair, "".join(pair))} == {1}
