"""A Modelfile says a chat template only where Ollama's language writes the same, character by character."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlxops.models.conversation import prompt_text
from mlxops.models.modelfile import modelfile, turn_template
from mlxops.models.tokenizer import load_tokenizer

GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start>{{ m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}<start>model\n"
)
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NUMBERED = "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Hello?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?\nYou?"}],
    [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ],
]


def tokenizer_with(source: Path, folder: Path, template: str | None) -> Any:
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return load_tokenizer(folder)


def as_ollama_writes(text: str, messages: list[dict[str, str]]) -> str:
    """What Ollama makes of the file for a conversation: the three branches of the template, and SYSTEM."""
    (template,) = re.findall(r'TEMPLATE """(.*?)"""', text, re.DOTALL)
    system = re.findall(r'SYSTEM """(.*?)"""', text, re.DOTALL)
    parts = re.split(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}', template.removeprefix("{{ range .Messages }}"))
    branches = dict(zip(parts[1::2], parts[2::2], strict=True))
    branches = {role: branch.removesuffix("{{ end }}{{ end }}") for role, branch in branches.items()}
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system[0]}, *messages]
    return "".join(branches[each["role"]].replace("{{ .Content }}", each["content"]) for each in messages)


@pytest.mark.parametrize("template", ["the tiny model's own", PLAIN])
@pytest.mark.parametrize("chat", CHATS)
def test_a_template_of_turns_is_said_as_it_is(
    tiny_model: Path, tmp_path: Path, template: str, chat: list[dict[str, str]]
) -> None:
    own = (tiny_model / "chat_template.jinja").read_text()
    tokenizer = tokenizer_with(tiny_model, tmp_path / "m", PLAIN if template == PLAIN else own)

    text = modelfile(tmp_path / "m", tokenizer)

    assert as_ollama_writes(text, chat) == prompt_text(tokenizer, chat)
    assert ("SYSTEM" in text) == (template != PLAIN)


@pytest.mark.parametrize("template", [GEMMA, NUMBERED, PLAIN.replace("<|im_end|>", "{{ '{{' }}"), None])
def test_any_other_template_is_not_said(tiny_model: Path, tmp_path: Path, template: str | None) -> None:
    tokenizer = tokenizer_with(tiny_model, tmp_path / "m", template)

    text = modelfile(tmp_path / "m", tokenizer)

    assert turn_template(tokenizer, {}) is None
    assert "# No TEMPLATE" in text
    assert [line for line in text.splitlines() if line.startswith(("TEMPLATE", "SYSTEM"))] == []


def test_it_stops_where_the_model_stops_and_samples_as_it_says(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(tiny_model, tmp_path / "m", PLAIN)
    settings = {"eos_token_id": [0, 2], "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1, "do_sample": True}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(settings))

    lines = modelfile(tmp_path / "m", tokenizer).splitlines()

    assert "FROM ." in lines
    assert [line for line in lines if line.startswith("PARAMETER")] == [
        'PARAMETER stop "<|endoftext|>"',
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0.6",
        "PARAMETER top_k 20",
        "PARAMETER repeat_penalty 1.1",
    ]
