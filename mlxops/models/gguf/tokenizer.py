"""The tokenizer in a GGUF file's metadata, rebuilt as one of the `tokenizers` package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxops.errors import BadRequest
from mlxops.models.gguf import pretokenizers, sentencepiece
from mlxops.models.gguf.vocabulary import (
    CONTROL,
    HINT,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    read_flag,
    read_list,
    read_vocabulary,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What llama.cpp takes for a SentencePiece file that does not name them.
_SENTENCEPIECE_ROLES = {"unk": 0, "bos": 1, "eos": 2}

# Phi-3 drops the spaces and line breaks after its special tokens, these aside. No key says so; llama.cpp does it, too.
_PHI3_PLAIN = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True, kw_only=True)
class RebuiltTokenizer:
    """The tokenizer, its special tokens by role (`eos_token`), their ids by role (`eos_token_id`), and the template.

    The id of `eos_token` is a list where other tokens end a turn as well.
    """

    tokenizer: Tokenizer
    special_tokens: Mapping[str, str]
    ids: Mapping[str, int | list[int]]
    chat_template: str | None


def rebuild(metadata: Mapping[str, Any]) -> RebuiltTokenizer:
    """The tokenizer that a GGUF file's metadata describes.

    Raises `BadRequest` naming the kind or the rule that is not known, or what is missing or contradicts itself.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        vocabulary = read_vocabulary(metadata, {})
        rule = _rule(metadata)
        tokenizer, add_bos = _byte_level(vocabulary, rule, metadata), rule.add_bos
    elif kind == "llama":
        vocabulary = read_vocabulary(metadata, _SENTENCEPIECE_ROLES)
        tokenizer, add_bos = _sentencepiece(vocabulary, metadata), True
    else:
        raise BadRequest(f"GGUF files with a tokenizer of the kind {kind!r} cannot be imported yet", hint=HINT)
    strips = kind == "llama" and metadata.get("general.architecture") == "phi3"
    _add_whole_tokens(tokenizer, vocabulary, in_normalized=kind == "llama", strips=strips)
    first = vocabulary.roles.get("bos") if read_flag(metadata, "add_bos_token", add_bos) else None
    last = vocabulary.roles.get("eos") if read_flag(metadata, "add_eos_token", False) else None
    _add_ends(tokenizer, vocabulary.tokens, first, last)
    ids: dict[str, int | list[int]] = {f"{role}_token_id": number for role, number in vocabulary.roles.items()}
    if len(vocabulary.ends) > 1:
        ids["eos_token_id"] = list(vocabulary.ends)
    return RebuiltTokenizer(
        tokenizer=tokenizer,
        special_tokens={f"{role}_token": vocabulary.tokens[number] for role, number in vocabulary.roles.items()},
        ids=ids,
        chat_template=_chat_template(metadata),
    )


def _rule(metadata: Mapping[str, Any]) -> pretokenizers.Rule:
    pre = metadata.get("tokenizer.ggml.pre")
    rule = pretokenizers.RULES.get(pre) if isinstance(pre, str) else None
    if rule is None:
        raise BadRequest(f"GGUF files with the pre-tokenizer {pre!r} cannot be imported yet", hint=HINT)
    if metadata.get("general.architecture") == "qwen2" and rule != pretokenizers.RULES["qwen2"]:
        # Whatever tokenizer.json says, transformers cuts the texts of such models by Qwen2Tokenizer's own rule.
        raise BadRequest(
            f"GGUF files of the architecture 'qwen2' with the pre-tokenizer {pre!r} cannot be imported yet", hint=HINT
        )
    return rule


def _byte_level(vocabulary: Vocabulary, rule: pretokenizers.Rule, metadata: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    merges = []
    for merge in read_list(metadata, "merges", str):
        pair = tuple(merge.split(" "))
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.numbers.keys():
            raise BadRequest(f"the GGUF file has the merge {merge!r}, which is not one of its tokens", hint=HINT)
        merges.append(pair)
    model = models.BPE(vocab=dict(vocabulary.numbers), merges=merges, ignore_merges=rule.whole_words)
    tokenizer = Tokenizer(model)
    if rule.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pretokenizers.pre_tokenizer(rule)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Tokenizer:
    if metadata.get("general.architecture") == "qwen2":
        # As above: transformers would take it for a byte-level one.
        raise BadRequest(
            "GGUF files of the architecture 'qwen2' with a SentencePiece tokenizer cannot be imported yet", hint=HINT
        )
    if metadata.get("tokenizer.ggml.precompiled_charsmap"):
        raise BadRequest(
            "GGUF files with a SentencePiece tokenizer that rewrites letters (precompiled_charsmap) cannot be "
            "imported yet",
            hint=HINT,
        )
    return sentencepiece.build(
        vocabulary,
        read_list(metadata, "scores", float, length=len(vocabulary.tokens)),
        add_space_prefix=read_flag(metadata, "add_space_prefix", True),
        remove_extra_spaces=read_flag(metadata, "remove_extra_whitespaces", False),
    )


def _add_whole_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary, *, in_normalized: bool, strips: bool) -> None:
    """Have the tokens that stand for themselves found in every text, the special ones before all else.

    User-defined ones are found in the normalized text where `in_normalized` says so, as SentencePiece does: a run of
    spaces is one of them under whichever sign.
    """
    from tokenizers import AddedToken

    whole = []
    for token, type_ in zip(vocabulary.tokens, vocabulary.types, strict=True):
        if type_ in (CONTROL, UNKNOWN, USER_DEFINED):
            special = type_ != USER_DEFINED
            strips_this = strips and token not in _PHI3_PLAIN
            whole.append(
                AddedToken(token, special=special, normalized=in_normalized and not special, rstrip=strips_this)
            )
    tokenizer.add_tokens(whole)


def _add_ends(tokenizer: Tokenizer, tokens: Sequence[str], first: int | None, last: int | None) -> None:
    """Have every text begin or end with a special token, where the model was trained so."""
    if first is None and last is None:
        return
    from tokenizers import processors

    ends = {tokens[number]: number for number in (first, last) if number is not None}
    before, after = ([] if number is None else [tokens[number]] for number in (first, last))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], special_tokens=list(ends.items())
    )


def _chat_template(metadata: Mapping[str, Any]) -> str | None:
    """The model's template; those for single purposes stand under names of their own."""
    template = metadata.get("tokenizer.chat_template", metadata.get("tokenizer.chat_template.default"))
    if template is not None and not isinstance(template, str):
        raise BadRequest(f"'tokenizer.chat_template' of the GGUF file is {template!r}, not a text", hint=HINT)
    return template or None
