"""The vocabulary in a GGUF file's metadata: its tokens, their types and roles, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlxops.errors import BadRequest

# The types of tokens, as llama.cpp numbers them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

HINT = "`inv download-model ID` gets the model itself from the hub"

_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_ENDS = ("eot", "eom")

# What models call the end of a turn. Files often have no key for it, so llama.cpp finds it by these texts, too.
_END_TEXTS = frozenset(
    {
        *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>", "<|end|>", "</s>", "<eos>"),
        *("<end_of_turn>", "<end_of_utterance>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<｜end▁of▁sentence｜>"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens and their types by id, the ids by token, the ids by role (`eos`), and all that end a turn."""

    tokens: Sequence[str]
    types: Sequence[int]
    numbers: Mapping[str, int]
    roles: Mapping[str, int]
    ends: Sequence[int]

    def of_type(self, *types: int) -> list[str]:
        """The tokens of these types, in the order of their ids."""
        return [token for token, type_ in zip(self.tokens, self.types, strict=True) if type_ in types]


def read_vocabulary(metadata: Mapping[str, Any], default_roles: Mapping[str, int]) -> Vocabulary:
    """The vocabulary of a GGUF file; `default_roles` hold where the file says nothing and the token is a special one.

    Raises `BadRequest` for a list that is missing or of another length, a token that is there twice, and an id that
    is no token's.
    """
    tokens = read_list(metadata, "tokens", str)
    types = read_list(metadata, "token_type", int, length=len(tokens))
    # As llama.cpp names them: two tokens without a text would be the same one.
    tokens = [token or f"[EMPTY_{number}]" for number, token in enumerate(tokens)]
    numbers = {token: number for number, token in enumerate(tokens)}
    if len(numbers) < len(tokens):
        twice = next(token for number, token in enumerate(tokens) if numbers[token] != number)
        raise BadRequest(f"the GGUF file has the token {twice!r} twice", hint=HINT)
    roles = {role: number for role, name in _ROLES.items() if (number := _read_id(metadata, name, tokens)) is not None}
    for role, number in default_roles.items():
        if role not in roles and number < len(tokens) and types[number] in (CONTROL, UNKNOWN):
            roles[role] = number
    ends = {number for name in _ENDS if (number := _read_id(metadata, name, tokens)) is not None}
    ends |= {number for text in _END_TEXTS if (number := numbers.get(text)) is not None and types[number] == CONTROL}
    if ends and "eos" not in roles:
        roles["eos"] = min(ends)
    first = [roles["eos"]] if "eos" in roles else []
    return Vocabulary(
        tokens=tokens,
        types=types,
        numbers=numbers,
        roles=roles,
        ends=[*first, *sorted(ends - set(first))],
    )


def read_list(metadata: Mapping[str, Any], name: str, kind: type, *, length: int | None = None) -> list[Any]:
    """The list `tokenizer.ggml.NAME`, all of one kind, and as long as that of the tokens where `length` says so."""
    key = f"tokenizer.ggml.{name}"
    values = metadata.get(key)
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise BadRequest(f"the GGUF file has no list {key!r}", hint=HINT)
    kinds = (int, float) if kind is float else kind
    wrong = next((value for value in values if not isinstance(value, kinds)), None)
    if wrong is not None:
        raise BadRequest(f"the list {key!r} of the GGUF file holds {wrong!r}", hint=HINT)
    if length is not None and len(values) != length:
        raise BadRequest(
            f"the list {key!r} of the GGUF file has {len(values):,} entries for {length:,} tokens", hint=HINT
        )
    return list(values)


def read_flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """The truth value `tokenizer.ggml.NAME`."""
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{key!r} of the GGUF file is {value!r}, neither true nor false", hint=HINT)
    return value


def _read_id(metadata: Mapping[str, Any], name: str, tokens: Sequence[str]) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    number = metadata.get(key)
    if number is None:
        return None
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        raise BadRequest(f"{key!r} of the GGUF file is {number!r}, and it has {len(tokens):,} tokens", hint=HINT)
    return number
