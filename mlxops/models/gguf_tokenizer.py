"""The tokenizer in a GGUF file's metadata, rebuilt as one of the `tokenizers` package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxops.errors import BadRequest

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

# The types of tokens that stand for themselves wherever they occur in a text.
_CONTROL, _USER_DEFINED = 3, 4

_ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}


@dataclass(frozen=True, kw_only=True)
class RebuiltTokenizer:
    """The tokenizer, its special tokens by role (`eos_token`), their ids by role (`eos_token_id`), and the template."""

    tokenizer: Tokenizer
    special_tokens: Mapping[str, str]
    ids: Mapping[str, int]
    chat_template: str | None


def _digits_then_words() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _words()])


def _words() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


# How a text is cut before the merges, by the name that llama.cpp gave it.
_PRE_TOKENIZERS: Mapping[str, Callable[[], PreTokenizer]] = {
    "smollm": _digits_then_words,
    "gpt-2": _words,
}


def rebuild(metadata: Mapping[str, Any]) -> RebuiltTokenizer:
    """The tokenizer that a GGUF file's metadata describes. Raises `BadRequest` naming the kind that is not known."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise BadRequest(f"GGUF files with a tokenizer of the kind {kind!r} cannot be imported yet", hint=_HINT)
    if not isinstance(pre, str) or pre not in _PRE_TOKENIZERS:
        raise BadRequest(f"GGUF files with the pre-tokenizer {pre!r} cannot be imported yet", hint=_HINT)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    whole = [
        AddedToken(token, special=type_ == _CONTROL, normalized=False)
        for token, type_ in zip(tokens, types, strict=True)
        if type_ in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_tokens(whole)
    ids = {
        f"{role}_token_id": metadata[key]
        for name, role in _ROLES.items()
        if (key := f"tokenizer.ggml.{name}_token_id") in metadata
    }
    special_tokens = {name.removesuffix("_id"): tokens[number] for name, number in ids.items()}
    _add_ends(tokenizer, metadata, special_tokens)
    return RebuiltTokenizer(
        tokenizer=tokenizer,
        special_tokens=special_tokens,
        ids=ids,
        chat_template=metadata.get("tokenizer.chat_template"),
    )


_HINT = "hf download ID --local-dir models/NAME gets the model itself from the hub"


def _add_ends(tokenizer: Tokenizer, metadata: Mapping[str, Any], special_tokens: Mapping[str, str]) -> None:
    """Have every text begin or end with a special token, where the model was trained so."""
    first = special_tokens.get("bos_token") if metadata.get("tokenizer.ggml.add_bos_token") else None
    last = special_tokens.get("eos_token") if metadata.get("tokenizer.ggml.add_eos_token") else None
    if first is None and last is None:
        return
    from tokenizers import processors

    ends = {token: tokenizer.token_to_id(token) for token in (first, last) if token is not None}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[part for part in (first, "$A", last) if part is not None],
        special_tokens=list(ends.items()),
    )
