"""A chat template writes a conversation the same way every day, with its arguments, or says why it cannot."""

import pytest
from tokenizers_for_tests import CHATML, DATED, END_AFTER_END, GEMMA, LLAMA_2, PLAIN, TOOLS, tiny_tokenizer

from mlxops.data.formats import Unusable
from mlxops.data.templates import chat_template, with_text_arguments
from mlxops.errors import BadRequest

USER = {"role": "user", "content": "What is it?"}
SYSTEM = {"role": "system", "content": "Be brief."}
YES = {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    ("template", "turns", "words"),
    [
        (LLAMA_2, (USER, USER, YES), "refuses it: Conversation roles must alternate user/assistant"),
        (GEMMA, (SYSTEM, USER, YES), "refuses it: System role not supported"),
        ("{{ messages[0].content + tools }}", (USER, YES), "cannot write it: can only concatenate str"),
        ("{% for n in range(10 ** 9) %}{% endfor %}", (USER, YES), "cannot write it: Range too big"),
        ("{{ messages[0].content.nothing.more }}", (USER, YES), "refuses it: .* has no attribute 'nothing'"),
        ("{{ 1 // 0 }}", (USER, YES), "cannot write it: integer division or modulo by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", (USER, YES), "cannot write it: maximum recursion depth"),
    ],
)
def test_a_template_that_refuses_a_row_is_quoted(template, turns, words):
    with pytest.raises(Unusable, match=words):
        chat_template(tiny_tokenizer(template)).render(turns, ())


def test_a_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(BadRequest, match="has no chat template, and the data has conversations"):
        chat_template(tiny_tokenizer(None))


def test_a_broken_chat_template_is_refused_once():
    with pytest.raises(BadRequest, match="the chat template of the model is broken"):
        chat_template(tiny_tokenizer("{% for message in %}"))


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    ],
)
def test_a_template_that_does_not_end_is_refused_once(template, monkeypatch):
    monkeypatch.setattr("mlxops.data.templates._MOST_SECONDS", 0.2)

    with pytest.raises(BadRequest, match=r"the chat template of the model does not end: it computed for 0\.2 seconds"):
        chat_template(tiny_tokenizer(template))


def test_a_template_that_writes_the_date_writes_the_same_day_always():
    chat = chat_template(tiny_tokenizer("\n" + DATED))

    assert chat.render((USER,), ()).startswith("\n<|im_start|>system\nToday is 26 July 2024.<|im_end|>")


def test_arguments_go_to_the_template_and_none_of_the_rows_own_can_be_among_them():
    tokenizer = tiny_tokenizer("{{ enable_thinking }}{{ messages[0].content }}")

    assert chat_template(tokenizer, arguments={"enable_thinking": False}).render((USER,), ()) == "FalseWhat is it?"
    with pytest.raises(BadRequest, match="--chat-template-config cannot set 'tools'"):
        chat_template(tokenizer, arguments={"tools": []})


def test_a_weight_is_not_for_the_template():
    chat = chat_template(tiny_tokenizer("{{ messages | tojson }}"))

    assert chat.render(({**YES, "weight": 0},), ()) == '[{"role": "assistant", "content": "Yes."}]'


def test_contents_are_lists_of_parts_where_the_template_wants_them():
    parts = "{% for m in messages %}{% for part in m.content %}{{ part.text }};{% endfor %}{% endfor %}"

    assert chat_template(tiny_tokenizer(parts)).render((USER, YES), ()) == "What is it?;Yes.;"


@pytest.mark.parametrize(
    ("template", "header", "end"),
    [
        (CHATML, "<|im_start|>assistant\n", "<|im_end|>"),
        (GEMMA, "<start_of_turn>model\n", "<end_of_turn>"),
        (END_AFTER_END, "<|assistant|>\n", "<|end|>"),
        (LLAMA_2, "", "</s>"),
        (PLAIN, "", None),
    ],
)
def test_the_header_of_a_turn_and_the_token_that_ends_it_are_those_of_a_plain_answer(template, header, end):
    tokenizer = tiny_tokenizer(template)
    chat = chat_template(tokenizer)

    assert (chat.header, chat.end) == (header, None if end is None else tokenizer.convert_tokens_to_ids(end))


def test_added_tokens_are_found_in_a_text_the_longest_first_and_none_is_cut():
    chat = chat_template(tiny_tokenizer(CHATML, added=("<think>", "<think>x")))

    assert [(token.start, token.stop) for token in chat.tokens("a<think>x<think><|im_end|>")] == [
        (1, 9),
        (9, 16),
        (16, 26),
    ]
    assert [chat.whole_tokens("a<think>b", place) for place in (0, 1, 2, 7, 8, 9)] == [0, 1, 1, 1, 8, 9]


def test_the_arguments_of_calls_become_text():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": "é"}}}
    (turn,) = with_text_arguments(({**YES, "tool_calls": [call]},))

    assert turn["tool_calls"] == [{"type": "function", "function": {"name": "add", "arguments": '{"a": "é"}'}}]
    assert '"arguments": "{' in chat_template(tiny_tokenizer(TOOLS)).render((USER, turn), ())
