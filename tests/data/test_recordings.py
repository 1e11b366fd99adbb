"""What is put together from recordings is what the template itself writes, for every kind of template."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tokenizers_for_tests import CHATML, DATED, END_AFTER_END, GEMMA, LLAMA_2, PLAIN, THINKING, tiny_tokenizer

from mlxops.data.formats import Unusable
from mlxops.data.recordings import Recordings
from mlxops.data.templates import ChatTemplate, chat_template

# Asks, cuts and replaces, in macros and blocks of its own.
ASKING = (
    "{% macro said(message) %}{{ message.content | replace('é', 'e') }}{% endmacro %}"
    "{% for message in messages %}{% set shown %}{{ said(message) }}{% endset %}"
    "{% if message.content is string and '</think>' in message.content %}"
    "{% set shown = message.content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if message['content'].startswith('x') or not message.content %}{{ '*' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + shown.strip() + message.content[:3] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Each does with a content what a recording cannot tell of another one.
COUNTED = "{% for message in messages %}{{ message.role }} {{ message.content | length }}\n{% endfor %}"
AS_JSON = "{{ messages | tojson }}"
JOINED = "{% for message in messages %}{{ message.role ~ ': ' ~ message.content }}\n{% endfor %}"
FIRST = "{% for message in messages %}{{ message.content[0] or 'nothing' }}\n{% endfor %}"
ALIKE = "{{ 'again ' if messages[0].content == messages[-1].content }}{{ messages[0].content }}"
ESCAPED = "{% autoescape true %}{{ messages[0].content }}{% endautoescape %}"
SORTED = "{% for message in messages | sort(attribute='content') %}{{ message.content }}\n{% endfor %}"
WORDS = ("Paris", " ", "\n", "\t", "é", "x", "👩‍🚀", "</think>", "<think>", "<|im_end|>", "&", "\ufdd0", "")


def conversations(count: int, seed: int = 0) -> Iterator[tuple[dict[str, Any], ...]]:
    chance = random.Random(seed)
    for _ in range(count):
        turns = ["user", "assistant"] * chance.randrange(1, 4)
        roles = ["system"] * chance.randrange(2) + turns[: chance.randrange(1, len(turns) + 1)]
        yield tuple({"role": role, "content": "".join(chance.choices(WORDS, k=chance.randrange(5)))} for role in roles)


def text(template: ChatTemplate, messages: tuple[dict[str, Any], ...], is_prompt: bool) -> str:
    try:
        return template.render(messages, (), is_prompt=is_prompt)
    except Unusable as unusable:
        return f"unusable: {unusable}"


@pytest.mark.parametrize(
    "source",
    [
        *(CHATML, LLAMA_2, GEMMA, THINKING, END_AFTER_END, PLAIN, DATED, ASKING),
        *(COUNTED, AS_JSON, JOINED, FIRST, ALIKE, ESCAPED, SORTED),
    ],
)
def test_every_text_is_what_the_template_writes(source: str) -> None:
    template = chat_template(tiny_tokenizer(source))
    without = replace(template, _recordings=Recordings(None))
    asked = [(messages, is_prompt) for messages in conversations(150) for is_prompt in (False, True)]

    assert [text(template, *each) for each in asked] == [text(without, *each) for each in asked]


@pytest.mark.parametrize(("source", "most"), [(CHATML, 2), (LLAMA_2, 2), (GEMMA, 2), (DATED, 2), (ASKING, 16)])
def test_the_template_runs_a_few_times_for_any_number_of_rows_of_one_shape(
    source: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny_tokenizer(source)
    template = chat_template(tokenizer)
    engine, calls = tokenizer.apply_chat_template, []
    monkeypatch.setattr(
        tokenizer, "apply_chat_template", lambda *given, **named: calls.append(1) or engine(*given, **named)
    )

    for number in range(200):
        words = f"x{number}" if number % 3 else f"</think>\n{number}"
        template.render(({"role": "user", "content": words}, {"role": "assistant", "content": f"{number}"}), ())

    assert 0 < len(calls) <= most


def test_rows_with_more_than_roles_and_contents_are_left_to_the_template() -> None:
    template = chat_template(tiny_tokenizer("{% for message in messages %}{{ message.name or 'nobody' }} {% endfor %}"))

    rows = [({"role": "user", "content": "a", "name": name},) for name in ("Ada", "Bo", "Cy", "Di")]

    assert [template.render(row, ()) for row in rows] == ["Ada ", "Bo ", "Cy ", "Di "]


def test_the_order_of_keys_counts() -> None:
    template = chat_template(tiny_tokenizer("{% for key in messages[0] %}{{ key }} {% endfor %}"))
    one, other = {"role": "user", "content": "a"}, {"content": "b", "role": "user"}

    shown = [template.render((message,), ()) for message in (one, one, one, other, other, other)]

    assert shown == ["role content "] * 3 + ["content role "] * 3


def test_contents_that_go_in_as_parts_are_recorded_too() -> None:
    source = "{% for message in messages %}{% for part in message.content %}{{ part.text }}\n{% endfor %}{% endfor %}"
    template = chat_template(tiny_tokenizer(source))
    assert template.in_parts

    shown = [template.render(({"role": "user", "content": str(number)},), ()) for number in range(5)]

    assert shown == [f"{number}\n" for number in range(5)]
