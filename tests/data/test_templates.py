"""The assistant's words are found in what every family of chat templates writes, or the row is refused."""

import pytest
from tokenizers_for_tests import (
    CHATML,
    DATED,
    END_AFTER_END,
    GEMMA,
    LLAMA_2,
    PLAIN,
    THINKING,
    THINKING_MARKED,
    TOOLS,
    tiny_tokenizer,
)

from mlxops.data.formats import Record, Unusable
from mlxops.data.templates import NotStable, chat_template
from mlxops.errors import BadRequest

USER = {"role": "user", "content": "What is it?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def said(words: str) -> dict[str, str]:
    return {"role": "assistant", "content": words}


def trained(template: str, *messages: dict, tools: tuple = (), **specials: str) -> list[str]:
    """The texts of the spans."""
    chat = chat_template(tiny_tokenizer(template, **specials))
    record = Record(origin="f:1", messages=messages, tools=tools)
    whole = chat.whole(record)
    return [whole[start:stop] for start, stop in chat.spans(record, whole)]


@pytest.mark.parametrize(
    ("template", "specials", "expected"),
    [
        (CHATML, {}, ["One\n\n two.\n<|im_end|>", "It is  Paris.<|im_end|>"]),
        (LLAMA_2, {"eos_token": "</s>"}, [" One\n\n two. </s>", " It is  Paris. </s>"]),
        (GEMMA, {"eos_token": "<|endoftext|>"}, ["One\n\n two.<end_of_turn>", "It is  Paris.<end_of_turn>"]),
        (END_AFTER_END, {"eos_token": "<|endoftext|>"}, ["One\n\n two.\n<|end|>", "It is  Paris.<|end|>"]),
        (PLAIN, {}, ["One\n\n two.\n\n", "It is  Paris.\n"]),
        (DATED, {}, ["One\n\n two.\n<|im_end|>", "It is  Paris.<|im_end|>"]),
        (THINKING_MARKED, {}, ["One\n\n two.\n<|im_end|>", "<think>\n\n</think>\n\nIt is  Paris.<|im_end|>"]),
    ],
)
def test_every_turn_of_the_assistant_is_found_with_its_end_of_turn_token(template, specials, expected):
    turns = (USER, said("One\n\n two.\n"), USER, said("It is  Paris."))

    assert trained(template, *turns, **specials) == expected


def test_words_that_spell_an_end_of_turn_token_do_not_end_the_turn():
    assert trained(CHATML, USER, said("a<|im_end|>b"), USER) == ["a<|im_end|>b<|im_end|>"]


def test_a_turn_of_the_user_at_the_end_is_not_trained():
    assert trained(CHATML, SYSTEM, USER, said("Yes."), USER) == ["Yes.<|im_end|>"]


def test_two_turns_of_the_assistant_in_a_row_are_two_spans():
    assert trained(CHATML, USER, said("Yes."), said("No.")) == ["Yes.<|im_end|>", "No.<|im_end|>"]


def test_an_empty_thought_before_the_answer_is_trained_where_the_template_writes_one():
    assert trained(THINKING, USER, said("Yes.")) == ["<think>\n\n</think>\n\nYes.<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_is_refused_without_marks():
    with pytest.raises(NotStable, match=r"^turn 2: the model's chat template writes the turns up to here otherwise"):
        trained(THINKING, USER, said("Yes."), USER, said("No."))


def test_marks_that_do_not_enclose_the_words_are_refused():
    template = THINKING_MARKED.replace("{{ message['content'] }}{% endgeneration %}", "{% endgeneration %}{{ 'x' }}")

    with pytest.raises(NotStable, match="marks do not enclose"):
        trained(template, USER, said("Yes."), USER, said("No."))


def test_an_assistant_that_speaks_first_is_refused():
    with pytest.raises(NotStable, match="the assistant speaks first"):
        trained(CHATML, said("Hello."), USER, said("Yes."))


@pytest.mark.parametrize(
    ("template", "turns", "words"),
    [
        (LLAMA_2, (USER, USER, said("Yes.")), "roles must alternate user/assistant"),
        (GEMMA, (SYSTEM, USER, said("Yes.")), "System role not supported"),
    ],
)
def test_a_template_that_refuses_a_row_is_quoted(template, turns, words):
    with pytest.raises(Unusable, match=words):
        trained(template, *turns)


def test_a_tool_call_is_trained_up_to_the_end_of_its_turn():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = (USER, {**said(""), "tool_calls": [call]}, {"role": "tool", "content": "1"}, said("1."))

    assert trained(TOOLS, *turns, tools=({"name": "add"},)) == [
        '{"name": "add", "arguments": {"a": 1}}<|call_end|><|im_end|>',
        "1.<|im_end|>",
    ]


def test_a_template_that_drops_tool_calls_is_refused():
    with pytest.raises(Unusable, match="does not write tool calls"):
        trained(CHATML, USER, {**said(""), "tool_calls": [{"function": {"name": "add"}}]})


def test_a_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(BadRequest, match="has no chat template, and the data has conversations"):
        chat_template(tiny_tokenizer(None))


def test_a_broken_chat_template_is_refused_once():
    with pytest.raises(BadRequest, match="the chat template of the model is broken"):
        chat_template(tiny_tokenizer("{% for message in %}"))


def test_a_template_that_writes_the_date_writes_the_same_day_always():
    chat = chat_template(tiny_tokenizer("\n" + DATED))

    assert chat.render((USER,), ()).startswith("\n<|im_start|>system\nToday is 26 July 2024.<|im_end|>")
