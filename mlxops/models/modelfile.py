"""A `Modelfile`, with which Ollama imports a model's folder: its prompt template in Go's language, and where it stops.

A chat template is a program and Ollama's another one, so it is said only where it can be checked: what it writes for
several conversations is what the model's own template writes, character by character.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops.errors import MlxopsError
from mlxops.models.conversation import has_template, prompt_text
from mlxops.models.folder_files import read_json
from mlxops.models.tokenizer import eos_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SETTINGS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}
_SYSTEM, _USER, _ASSISTANT, _MORE = "Zsystemz", "Zuserz", "Zassistantz", "Zmorez"
_NOT_SAID = ("{{", "}}", '"""')

Message = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class TurnTemplate:
    """A prompt as text around what each role says; `default_system` is what the template says where nobody does."""

    before_system: str
    after_system: str
    before_user: str
    after_user: str
    after_assistant: str
    default_system: str | None

    def write(self, messages: Sequence[Message]) -> str:
        """The text of a conversation that ends with the user, as Ollama writes it by `to_go`."""
        if self.default_system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default_system}, *messages]
        around = {
            "system": (self.before_system, self.after_system),
            "user": (self.before_user, self.after_user),
            "assistant": ("", self.after_assistant),
        }
        return "".join(around[each["role"]][0] + each["content"] + around[each["role"]][1] for each in messages)

    def to_go(self) -> str:
        """The same as a template of Go's, over Ollama's list of messages."""
        content = "{{ .Content }}"
        return (
            '{{ range .Messages }}{{ if eq .Role "system" }}'
            f"{self.before_system}{content}{self.after_system}"
            '{{ else if eq .Role "user" }}'
            f"{self.before_user}{content}{self.after_user}"
            '{{ else if eq .Role "assistant" }}'
            f"{content}{self.after_assistant}"
            "{{ end }}{{ end }}"
        )


def modelfile(
    folder: Path, tokenizer: PreTrainedTokenizerBase, template_config: Mapping[str, Any] | None = None
) -> str:
    """The text of the `Modelfile` that stands in a model's folder.

    `template_config` is what the chat template was told in training.
    """
    lines = ["# `ollama create NAME` in this folder imports the model.", "FROM ."]
    template = turn_template(tokenizer, template_config or {})
    if template is None:
        lines += [
            "# No TEMPLATE: the model's chat template is no text around what each role says, so this language",
            "# cannot be shown to write the same. Ollama asks the model with what it takes for its template.",
        ]
    else:
        lines.append(f'TEMPLATE """{template.to_go()}"""')
        if template.default_system is not None:
            lines.append(f'SYSTEM """{template.default_system}"""')
    for token in eos_ids(folder, tokenizer):
        text = tokenizer.convert_ids_to_tokens(token)
        if isinstance(text, str) and '"' not in text:
            lines.append(f'PARAMETER stop "{text}"')
    file = folder / "generation_config.json"
    said = read_json(file) if file.is_file() else {}
    lines += [f"PARAMETER {ours} {said[theirs]}" for theirs, ours in _SETTINGS.items() if _is_number(said.get(theirs))]
    return "\n".join(lines) + "\n"


def turn_template(tokenizer: PreTrainedTokenizerBase, template_config: Mapping[str, Any]) -> TurnTemplate | None:
    """The chat template as text around what each role says; None where it is not shown to be that."""
    if not has_template(tokenizer):
        return None
    probes = [
        [_said("user", _USER)],
        [_said("system", _SYSTEM), _said("user", _USER)],
        [_said("user", _USER), _said("assistant", _ASSISTANT), _said("user", _MORE)],
        [_said("system", "Be\n brief."), _said("user", "1 < 2?"), _said("assistant", "Yes,\nit is."), *_TWO_TURNS],
    ]
    whole = [_said("system", _SYSTEM), _said("user", _USER), _said("assistant", _ASSISTANT), _said("user", _MORE)]
    try:
        alone, *others = (prompt_text(tokenizer, each, template_config=template_config) for each in probes)
        found = _apart(prompt_text(tokenizer, whole, template_config=template_config), alone, _marks(tokenizer))
    except MlxopsError:  # the template refuses one of them, as some do a system's message
        return None
    begin = _own_begin(tokenizer)
    written = [each.removeprefix(begin) for each in (alone, *others)]
    if found is None or any(mark in text for text in _texts(found) for mark in _NOT_SAID):
        return None
    return found if [found.write(each) for each in probes] == written else None


_TWO_TURNS = (
    {"role": "user", "content": "And 3 > 2?"},
    {"role": "assistant", "content": "Too."},
    {"role": "user", "content": "Why?"},
)


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


@dataclass(frozen=True)
class _Marks:
    """The token that the tokenizer puts in front of all by itself, as text, and the added tokens."""

    begin: str
    added: tuple[str, ...]


def _marks(tokenizer: PreTrainedTokenizerBase) -> _Marks:
    return _Marks(_own_begin(tokenizer), tuple(map(str, tokenizer.added_tokens_decoder.values())))


def _own_begin(tokenizer: PreTrainedTokenizerBase) -> str:
    ids = tokenizer.encode("a", add_special_tokens=True)
    is_added = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if is_added else ""


def _apart(whole: str, alone: str, marks: _Marks) -> TurnTemplate | None:
    parts = []
    rest = whole.removeprefix(marks.begin)
    for word in (_SYSTEM, _USER, _ASSISTANT, _MORE):
        before, found, rest = rest.partition(word)
        if not found:
            return None
        parts.append(before)
    before_system, to_user, to_answer, to_next = parts
    first = alone.removeprefix(marks.begin).partition(_USER)[0]
    shared = _common_end(to_user, to_next)
    default = None
    if shared.endswith(first):
        shared = first
    else:
        # the template speaks for a system that says nothing: where its words end, the user's turn begins
        head = next((token for token in marks.added if before_system.startswith(token)), "")
        shared = shared[max(shared.rfind(head), 0) :] if head else shared
        inner = first.removeprefix(before_system)
        if inner == first or not inner.endswith(to_user):
            return None
        default = inner.removesuffix(to_user)
    return TurnTemplate(
        before_system=before_system,
        after_system=to_user.removesuffix(shared),
        before_user=shared,
        after_user=to_answer,
        after_assistant=to_next.removesuffix(shared),
        default_system=default,
    )


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length :]


def _texts(template: TurnTemplate) -> list[str]:
    return [str(value) for value in vars(template).values() if value is not None]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
