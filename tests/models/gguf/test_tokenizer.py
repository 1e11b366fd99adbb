"""A GGUF file's special tokens, ends and templates, and what transformers and mlx-lm make of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_byte_level import byte_level_metadata
from gguf_vocabularies import sentencepiece_metadata, texts, train_sentencepiece

from mlxops.errors import BadRequest
from mlxops.models.gguf.tokenizer import rebuild
from mlxops.models.model_files import write_json, write_tokenizer
from mlxops.models.tokenizer import eos_ids, load_tokenizer

MESSAGES = [{"role": "user", "content": "Hello"}]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


def with_tokens(metadata: dict[str, Any], *tokens: tuple[str, int]) -> dict[str, Any]:
    """The metadata with more tokens at the end, each with its type."""
    metadata = {key: list(value) if isinstance(value, list) else value for key, value in metadata.items()}
    metadata["tokenizer.ggml.tokens"] += [token for token, _ in tokens]
    metadata["tokenizer.ggml.token_type"] += [type_ for _, type_ in tokens]
    if "tokenizer.ggml.scores" in metadata:
        metadata["tokenizer.ggml.scores"] += [-1000.0] * len(tokens)
    return metadata


def like_qwen(**more: Any) -> dict[str, Any]:
    tokens = [("<|im_start|>", 3), ("<|im_end|>", 3), ("<tool_call>", 4), ("[PAD9]", 5)]
    metadata = with_tokens(byte_level_metadata("qwen2"), *tokens)
    metadata["tokenizer.ggml.eos_token_id"] = metadata["tokenizer.ggml.tokens"].index("<|im_end|>")
    return metadata | more


def like_llama(**more: Any) -> dict[str, Any]:
    metadata = with_tokens(sentencepiece_metadata(train_sentencepiece()), ("<|im_start|>", 3), ("<|im_end|>", 3))
    return metadata | more


def like_gemma(**more: Any) -> dict[str, Any]:
    own = ["\n", "\n\n", "▁▁", "▁▁▁", "<b>"]
    model = train_sentencepiece(add_dummy_prefix=False, user_defined_symbols=own)
    tokens = [("<start_of_turn>", 3), ("<end_of_turn>", 3), ("<|im_start|>", 3), ("<|im_end|>", 3)]
    return with_tokens(sentencepiece_metadata(model), *tokens) | more


def written(folder: Path, metadata: dict[str, Any], model_type: str = "llama") -> Path:
    """The folder of a model that has nothing but this tokenizer and the part of the configuration it decides."""
    rebuilt = rebuild(metadata)
    folder.mkdir()
    write_json(folder / "config.json", {"model_type": model_type, **rebuilt.ids})
    write_tokenizer(
        folder,
        rebuilt.tokenizer,
        special_tokens=rebuilt.special_tokens,
        chat_template=rebuilt.chat_template,
        context_length=512,
    )
    return folder


@pytest.mark.slow
# transformers has ideas of its own for some of these types.
@pytest.mark.parametrize(
    ("like", "model_type"),
    [
        *((like_qwen, name) for name in ("llama", "qwen2", "qwen3", "phi3")),
        *((like_llama, name) for name in ("llama", "mistral", "phi3")),
        *((like_gemma, name) for name in ("gemma2", "gemma3", "gemma3_text")),
    ],
)
@pytest.mark.parametrize("add_bos", [False, True])
def test_transformers_and_mlx_lm_give_the_ids_of_the_rebuilt_tokenizer(
    like: Any, model_type: str, add_bos: bool, tmp_path: Path
) -> None:
    from mlx_lm.utils import load_tokenizer as load_with_mlx_lm

    metadata = like(**{"tokenizer.ggml.add_bos_token": add_bos})
    folder, rebuilt = written(tmp_path / "model", metadata, model_type), rebuild(metadata).tokenizer
    ours, theirs = load_tokenizer(folder), load_with_mlx_lm(folder)
    tried = [*texts(100), "<|im_start|>user\nHello <b> there<|im_end|>\n", "a  b   c<tool_call>d"]

    expected = [rebuilt.encode(text).ids for text in tried]

    assert [ours.encode(text) for text in tried] == [theirs.encode(text) for text in tried] == expected
    assert ours.tokenize("x<|im_end|>y").count("<|im_end|>") == 1


@pytest.mark.parametrize(
    ("like", "name"),
    [
        (like_qwen, "BPEStreamingDetokenizer"),
        (like_llama, "SPMStreamingDetokenizer"),
        (like_gemma, "SPMStreamingDetokenizer"),
    ],
)
def test_mlx_lm_streams_the_text_that_was_encoded(like: Any, name: str, tmp_path: Path) -> None:
    from mlx_lm.utils import load_tokenizer as load_with_mlx_lm

    tokenizer = load_with_mlx_lm(written(tmp_path / "model", like()))
    detokenizer = tokenizer.detokenizer
    text = "The capital of France: Paris, 東京 🙂\n\n<b>  two  spaces"

    parts = []
    for number in tokenizer.encode(text, add_special_tokens=False):
        detokenizer.add_token(number)
        parts.append(detokenizer.last_segment)
    detokenizer.finalize()

    assert "".join([*parts, detokenizer.last_segment]) == text
    assert (type(detokenizer).__name__, len(parts) > 10) == (name, True)


@pytest.mark.parametrize("like", [like_qwen, like_llama, like_gemma])
def test_a_template_that_begins_with_the_first_token_does_not_get_it_twice(like: Any, tmp_path: Path) -> None:
    from mlx_lm.utils import load_tokenizer as load_with_mlx_lm

    metadata = like(**{"tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": TEMPLATE})
    folder = written(tmp_path / "model", metadata)
    ours, theirs = load_tokenizer(folder), load_with_mlx_lm(folder)

    ids = theirs.apply_chat_template(MESSAGES)

    assert ids == ours.apply_chat_template(MESSAGES, return_dict=False)
    assert ids.count(ours.bos_token_id) == 1 == ours.encode("a").count(ours.bos_token_id)


def test_special_tokens_go_by_role_and_those_of_the_user_are_plain(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path / "model", like_qwen()))
    ids = tokenizer.encode("<tool_call>a<|im_end|>")

    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>a"
    assert len(ids) == 3


def test_all_that_ends_a_turn_ends_generation(tmp_path: Path) -> None:
    from mlx_lm.utils import load

    from mlxops.models.tiny import make_tiny

    metadata = like_gemma()
    tokens = metadata["tokenizer.ggml.tokens"]
    # The first by its key, the third by a key as well, the others by their texts.
    expected = [tokens.index(token) for token in ("</s>", "<end_of_turn>", "<|im_start|>", "<|im_end|>")]
    metadata["tokenizer.ggml.eot_token_id"] = expected[2]
    folder = written(tmp_path / "model", metadata)
    # The weights of any model will do: what ends a turn stands in the configuration beside the tokenizer.
    tiny = make_tiny(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    write_json(folder / "config.json", {**json.loads((tiny / "config.json").read_text()), **rebuild(metadata).ids})

    _, tokenizer = load(str(folder))[:2]

    assert rebuild(metadata).ids["eos_token_id"] == expected
    assert set(eos_ids(folder, load_tokenizer(folder))) == set(expected) == tokenizer.eos_token_ids


def test_one_end_alone_is_a_number() -> None:
    metadata = byte_level_metadata("gpt-2")

    assert rebuild(metadata).ids["eos_token_id"] == metadata["tokenizer.ggml.eos_token_id"]


def test_a_text_that_looks_like_an_end_is_none_unless_it_is_a_special_token() -> None:
    metadata = with_tokens(byte_level_metadata("gpt-2"), ("</s>", 4), ("<|im_end|>", 1))

    assert rebuild(metadata).ids["eos_token_id"] == metadata["tokenizer.ggml.eos_token_id"]


def test_a_file_without_ids_has_the_roles_that_llama_cpp_gives_them() -> None:
    metadata = sentencepiece_metadata(train_sentencepiece())
    for role in ("bos", "eos", "unknown"):
        del metadata[f"tokenizer.ggml.{role}_token_id"]
    del metadata["tokenizer.ggml.add_bos_token"]

    rebuilt = rebuild(metadata)

    assert rebuilt.special_tokens == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    assert rebuilt.tokenizer.encode("a").tokens[0] == "<s>"


def test_a_model_trained_with_a_last_token_gets_it() -> None:
    rebuilt = rebuild(like_llama(**{"tokenizer.ggml.add_eos_token": True}))

    assert rebuilt.tokenizer.encode("a").tokens[-1] == "</s>"


@pytest.mark.parametrize(("architecture", "tokens"), [("phi3", "▁Yes"), ("llama", "▁<0x0A>Yes")])
def test_phi3_drops_the_line_break_after_a_special_token(architecture: str, tokens: str) -> None:
    tokenizer = rebuild(like_llama(**{"general.architecture": architecture})).tokenizer

    assert "".join(tokenizer.encode("<|im_end|>\nYes").tokens[1:]) == tokens


@pytest.mark.parametrize(
    ("keys", "template"),
    [
        ({"tokenizer.chat_template": "a"}, "a"),
        ({"tokenizer.chat_template": "a", "tokenizer.chat_template.tool_use": "b"}, "a"),
        ({"tokenizer.chat_templates": ["default", "rag"], "tokenizer.chat_template.default": "c"}, "c"),
        ({"tokenizer.chat_template.rag": "b"}, None),
        ({"tokenizer.chat_template": ""}, None),
        ({}, None),
    ],
)
def test_the_default_template_is_taken(keys: dict[str, Any], template: str | None) -> None:
    assert rebuild(byte_level_metadata("gpt-2") | keys).chat_template == template


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv", "plamo2", "gemma4", "hybriddna", "none", "", None, 3])
def test_a_kind_that_is_not_known_is_refused_by_name(kind: Any) -> None:
    with pytest.raises(BadRequest, match=f"of the kind {kind!r}"):
        rebuild(byte_level_metadata("gpt-2") | {"tokenizer.ggml.model": kind})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (byte_level_metadata("gpt-2"), "with the pre-tokenizer 'gpt-2'"),
        (like_llama(), "with a SentencePiece tokenizer"),
    ],
)
def test_a_qwen2_model_that_transformers_would_cut_by_another_rule_is_refused(
    metadata: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=f"the architecture 'qwen2' {message}"):
        rebuild({**metadata, "general.architecture": "qwen2"})


@pytest.mark.parametrize("name", ["tokens", "token_type", "scores"])
@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_a_missing_list_is_named(name: str, value: Any) -> None:
    metadata = sentencepiece_metadata(train_sentencepiece()) | {f"tokenizer.ggml.{name}": value}

    with pytest.raises(BadRequest, match=f"no list 'tokenizer.ggml.{name}'"):
        rebuild(metadata)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"merges": None}, "no list 'tokenizer.ggml.merges'"),
        ({"merges": ["a b", 5]}, "'tokenizer.ggml.merges' of the GGUF file holds 5"),
        ({"token_type": [1, 2]}, "'tokenizer.ggml.token_type' of the GGUF file has 2 entries for 1"),
        ({"tokens": ["a", "b", "a"]}, "has 1,.* entries for 3 tokens"),
        ({"tokens": ["a", "b", "a"], "token_type": [1, 1, 1]}, "the token 'a' twice"),
        ({"bos_token_id": 1_000_000}, "'tokenizer.ggml.bos_token_id' of the GGUF file is 1000000"),
        ({"eot_token_id": -1}, "'tokenizer.ggml.eot_token_id' of the GGUF file is -1"),
        ({"padding_token_id": "a"}, "'tokenizer.ggml.padding_token_id' of the GGUF file is 'a'"),
        ({"add_bos_token": 1}, "'tokenizer.ggml.add_bos_token' of the GGUF file is 1"),
    ],
)
def test_what_contradicts_itself_is_named(keys: dict[str, Any], message: str) -> None:
    changes = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}

    with pytest.raises(BadRequest, match=message):
        rebuild(byte_level_metadata("gpt-2") | changes)


def test_a_template_that_is_no_text_is_named() -> None:
    with pytest.raises(BadRequest, match=r"'tokenizer\.chat_template' of the GGUF file is 5"):
        rebuild(byte_level_metadata("gpt-2") | {"tokenizer.chat_template": 5})


def test_byte_tokens_that_are_not_all_there_are_named() -> None:
    metadata = sentencepiece_metadata(train_sentencepiece())
    metadata["tokenizer.ggml.token_type"][metadata["tokenizer.ggml.tokens"].index("<0x41>")] = 1

    with pytest.raises(BadRequest, match="255 of the 256 tokens"):
        rebuild(metadata)
