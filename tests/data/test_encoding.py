"""Where tokens stand in a text is the same, asked of the tokenizer place by place and looked up in its whole list."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers_for_tests import SENTENCES, tiny_tokenizer

from mlxops.data.encoding import Places

PIECES = (
    "Paris",
    " ",
    "\n",
    "the",
    "é",
    "日本",
    "👩‍🚀",
    "  ",
    "<|im_end|>",
    "<|im_start|>",
    "\r\n",
    "ﬁ",
    "e\u0301",
    "a" * 30,
)


def with_metaspace() -> Tokenizer:
    """Words begin with a mark of their own, unknown characters are bytes, and some characters are rewritten."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    return tokenizer


@pytest.mark.parametrize("kind", ["bytes", "trimmed bytes", "metaspace"])
def test_every_place_of_a_text_has_the_tokens_of_the_whole_list(kind: str) -> None:
    chance = random.Random(4)
    tokenizer = with_metaspace()
    if kind != "metaspace":
        tokenizer = tiny_tokenizer(trims_offsets=kind.startswith("trimmed"))._tokenizer

    for _ in range(60):
        text = "".join(chance.choices(PIECES, k=chance.randrange(12)))
        encoding = tokenizer.encode(text, add_special_tokens=False)
        asked, listed = Places(encoding), Places(None, encoding.offsets)
        starts, stops = [start for start, _ in encoding.offsets], [stop for _, stop in encoding.offsets]
        every = range(len(text) + 1)

        assert [asked.ending_after(place) for place in every] == [bisect_right(stops, place) for place in every]
        assert [asked.starting_from(place) for place in every] == [bisect_left(starts, place) for place in every]
        assert [asked.of(token) for token in range(asked.count)] == encoding.offsets
        assert [listed.of(token) for token in range(listed.count)] == encoding.offsets
