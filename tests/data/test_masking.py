"""What is trained of a conversation, to the letter, under every kind of chat template there is.

Each template here is the smallest of its kind. A row is written as the list of its trained texts.
"""

from typing import Any

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
from mlxops.data.masking import Masked, mask
from mlxops.data.templates import chat_template

ADDED = ("<|u|>", "<|a|>", "<|r|>", "<|tool|>", "<think>", "</think>", "<tool_call>", "</tool_call>")
SYSTEM = {"role": "system", "content": "Be brief."}
ASK, AND = {"role": "user", "content": "Ask."}, {"role": "user", "content": "And?"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL_SAYS = {"role": "tool", "content": "3"}
ADD = ({"name": "add"},)


def said(words: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": words, **more}


FIRST, SECOND = said("First."), said("Second.")
CALLS = said("", tool_calls=[CALL])


def masked(template: str, *messages: dict[str, Any], stops: str = "<|im_end|>", tools: Any = (), **more: Any) -> Masked:
    """The rows; `stops` are the tokens at which generation stops, with blanks between them."""
    arguments = more.pop("arguments", {})
    tokenizer = tiny_tokenizer(template, added=ADDED, **more)
    chat = chat_template(tokenizer, stops=tokenizer.convert_tokens_to_ids(stops.split()), arguments=arguments)
    record = Record(origin="f:1", messages=messages, tools=tuple(tools))
    return mask(chat, record, chat.render(record.messages, record.tools))


def trained(template: str, *messages: dict[str, Any], **more: Any) -> list[list[str]]:
    """The trained texts of every row, with the token that is appended to one."""
    tokenizer = tiny_tokenizer(None, added=ADDED)
    rows = []
    for row in masked(template, *messages, **more).rows:
        texts = [row.text[start:stop] for start, stop in row.spans]
        end = "" if row.appended is None else tokenizer.convert_ids_to_tokens(row.appended)
        assert row.appended is None or row.spans[-1][1] == len(row.text)
        rows.append([*texts[:-1], texts[-1] + end])
    return rows


def template(assistant: str, prompt: str = "<|a|>", *, user: str = "<|u|>{{ m.content }}", after: str = "") -> str:
    """A template that writes `assistant` for a turn of the assistant and `user` for one that is no tool's."""
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + assistant + "{% elif m.role == 'tool' %}"
        "<|tool|>{{ m.content }}{% else %}" + user + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}" + prompt + "{% else %}" + after + "{% endif %}"
    )


ANSWER = "<|a|>{{ m.content }}<|im_end|>"
CALLING = (
    "<|a|>{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
)


# ------------------------------------------------------------------ the families of before


@pytest.mark.parametrize(
    ("family", "more", "expected"),
    [
        (CHATML, {}, ["One\n\n two.\n<|im_end|>", "It is  Paris.<|im_end|>"]),
        (LLAMA_2, {"stops": "</s>"}, [" One\n\n two. </s>", " It is  Paris. </s>"]),
        (GEMMA, {"stops": "<|endoftext|> <end_of_turn>"}, ["One\n\n two.<end_of_turn>", "It is  Paris.<end_of_turn>"]),
        (GEMMA, {"stops": "<|endoftext|>"}, ["One\n\n two.<end_of_turn>", "It is  Paris.<end_of_turn>"]),
        (END_AFTER_END, {"stops": "<|endoftext|> <|end|>"}, ["One\n\n two.\n<|end|>", "It is  Paris.<|end|>"]),
        (DATED, {}, ["One\n\n two.\n<|im_end|>", "It is  Paris.<|im_end|>"]),
        (THINKING_MARKED, {}, ["One\n\n two.\n<|im_end|>", "<think>\n\n</think>\n\nIt is  Paris.<|im_end|>"]),
    ],
)
def test_every_turn_of_the_assistant_is_trained_with_the_token_that_ends_it(family, more, expected):
    turns = (ASK, said("One\n\n two.\n"), AND, said("It is  Paris."))

    assert trained(family, *turns, **more) == [expected]


def test_a_turn_of_the_user_at_the_end_stays_in_the_row_and_is_not_trained():
    (row,) = masked(CHATML, SYSTEM, ASK, FIRST, AND).rows

    assert [row.text[start:stop] for start, stop in row.spans] == ["First.<|im_end|>"]
    assert row.text.endswith("And?<|im_end|>\n")


def test_two_turns_of_the_assistant_in_a_row_are_two_spans():
    assert trained(CHATML, ASK, FIRST, SECOND) == [["First.<|im_end|>", "Second.<|im_end|>"]]


def test_a_turn_of_weight_0_is_context():
    bad, good = said("Bad.", weight=0), said("Good.", weight=1)

    assert trained(CHATML, ASK, bad, AND, good) == [["Good.<|im_end|>"]]
    assert trained(THINKING, ASK, bad, AND, good) == [["<think>\n\n</think>\n\nGood.<|im_end|>"]]
    assert trained(THINKING_MARKED, ASK, bad, AND, good) == [["<think>\n\n</think>\n\nGood.<|im_end|>"]]


# ------------------------------------------------------------------ rule 1: where a turn starts


def test_a_turn_starts_where_the_row_and_the_prompt_part_and_no_added_token_is_cut():
    opened = template("<|a|></think>{{ m.content }}<|im_end|>", "<|a|><think>")

    assert trained(opened, ASK, FIRST) == [["</think>First.<|im_end|>"]]
    assert masked(opened, ASK, FIRST).remainder == "<think>"


def test_a_turn_starts_no_later_than_its_own_words_also_where_the_prompt_ends_like_them():
    kind = template(ANSWER, "<|a|><t")

    assert trained(kind, ASK, said("<table>x</table>")) == [["<table>x</table><|im_end|>"]]
    assert trained(kind, ASK, said("x")) == [["x<|im_end|>"]]


def test_words_that_the_template_writes_before_every_answer_are_trained_unless_they_are_in_the_prompt():
    written = "<|a|>Well: {{ m.content }}<|im_end|>"

    assert trained(template(written), ASK, FIRST) == [["Well: First.<|im_end|>"]]
    assert trained(template(written, "<|a|>Well: "), ASK, FIRST) == [["First.<|im_end|>"]]


def test_a_thought_in_a_field_of_its_own_is_trained_with_the_answer():
    field = "<|a|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    kind = template(field + "{{ m.content }}<|im_end|>")

    assert trained(kind, ASK, said("First.", reasoning_content="I muse.")) == [
        ["<think>I muse.</think>First.<|im_end|>"]
    ]
    opened = template(field + "{{ m.content }}<|im_end|>", "<|a|><think>")
    assert trained(opened, ASK, said("First.", reasoning_content="I muse.")) == [["I muse.</think>First.<|im_end|>"]]


def test_a_thought_inside_the_words_is_trained_as_the_template_writes_it():
    parsed = (
        "{% if '</think>' in m.content %}{% set t = m.content.split('</think>') %}"
        "<|a|>{{ t[0].split('<think>')[-1].strip() }}</think>{{ t[-1].strip() }}{% else %}"
        "<|a|></think>{{ m.content }}{% endif %}<|im_end|>"
    )

    assert trained(template(parsed), ASK, said("<think>\nI muse.\n</think>\n\nFirst.")) == [
        ["I muse.</think>First.<|im_end|>"]
    ]
    assert trained(CHATML, ASK, said("<think>I muse.</think>First.")) == [["<think>I muse.</think>First.<|im_end|>"]]


def test_an_assistant_that_speaks_first_is_trained_from_behind_its_header():
    assert trained(CHATML, said("Hello."), ASK, FIRST) == [["Hello.<|im_end|>", "First.<|im_end|>"]]
    assert trained(template("<|a|> {{ m.content }}<|im_end|>"), said("Hello."), ASK, FIRST) == [
        [" Hello.<|im_end|>", " First.<|im_end|>"]
    ]


# ------------------------------------------------------------------ rule 2: where a turn ends


def test_a_turn_ends_with_the_first_token_at_which_generation_stops():
    two_ends = template("<|a|>{{ m.content }}<|r|><|im_end|>")

    assert trained(two_ends, ASK, FIRST, AND, SECOND) == [["First.<|r|><|im_end|>", "Second.<|r|><|im_end|>"]]
    assert trained(two_ends, ASK, FIRST, stops="<|im_end|> <|r|>") == [["First.<|r|>"]]


def test_the_end_of_the_text_after_the_end_of_the_turn_is_not_trained():
    kind = template("<|a|>{{ m.content }}<|r|>\n", user="<|u|>{{ m.content }}<|r|>", after="<|im_end|>")

    assert trained(kind, ASK, FIRST, AND, SECOND, stops="<|r|> <|im_end|>") == [["First.<|r|>", "Second.<|r|>"]]


def test_a_turn_that_the_next_header_ends_is_trained_with_the_token_of_that_header():
    kind = template("<|a|>{{ m.content }}")

    assert trained(kind, ASK, FIRST, AND, SECOND, stops="<|u|> <|im_end|>") == [["First.<|u|>", "Second.<|u|>"]]


def test_words_of_the_user_are_never_searched_for_the_end_of_a_turn():
    kind = template("<|a|>{{ m.content }}", user="User: {{ m.content }}")
    spells = {"role": "user", "content": "What is <|im_end|>?"}

    assert trained(kind, ASK, FIRST, spells, SECOND) == [["First.", "Second.<|im_end|>"]]
    assert masked(kind, ASK, FIRST, spells, SECOND).endless == 1


def test_words_that_spell_a_token_that_ends_turns_do_not_end_the_turn():
    assert trained(CHATML, ASK, said("a<|im_end|>b"), AND) == [["a<|im_end|>b<|im_end|>"]]


def test_without_a_token_that_stops_generation_a_turn_ends_with_the_templates_own_token():
    assert trained(template("<|a|>{{ m.content }} <|r|>\n"), ASK, FIRST, AND, SECOND) == [
        ["First. <|r|>", "Second. <|r|>"]
    ]


# ------------------------------------------------------------------ rule 3: rows that end without a token


def test_a_row_without_an_end_gets_the_end_of_text_and_earlier_turns_are_counted():
    found = masked(PLAIN, ASK, said("One\n\n two.\n"), AND, said("It is  Paris."))

    assert trained(PLAIN, ASK, said("One\n\n two.\n"), AND, said("It is  Paris.")) == [
        ["One\n\n two.\n", "It is  Paris.<|im_end|>"]
    ]
    assert found.endless == 1
    assert found.rows[0].text.endswith("A: It is  Paris.")


def test_a_row_that_ends_with_a_call_gets_the_token_that_opens_the_answer_of_the_tool():
    stops = "<|u|> <|tool|> <|im_end|>"

    assert trained(template(CALLING), ASK, CALLS, stops=stops) == [
        ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|tool|>']
    ]
    assert trained(template(CALLING), ASK, FIRST, stops=stops) == [["First.<|u|>"]]


def test_what_a_template_writes_behind_the_words_without_a_token_is_trained_at_the_end_of_a_row():
    assert trained(template("<|a|>[{{ m.content }}] \n"), ASK, FIRST, AND, SECOND) == [
        ["[First.]", "[Second.]<|im_end|>"]
    ]


# ------------------------------------------------------------------ rule 4: headers


def test_the_header_of_a_turn_is_not_trained_where_the_prompt_leaves_it_out():
    after_a_tool = template(CALLING + "<|im_end|>", "{% if messages[-1].role != 'tool' %}<|a|>{% endif %}")

    assert trained(after_a_tool, ASK, CALLS, TOOL_SAYS, SECOND) == [
        ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|im_end|>', "Second.<|im_end|>"]
    ]


def test_a_header_that_the_prompt_writes_with_other_white_space_is_not_trained():
    assert trained(template("<|a|>assistant:\n{{ m.content }}<|im_end|>", "<|a|>assistant: "), ASK, FIRST) == [
        ["First.<|im_end|>"]
    ]


# ------------------------------------------------------------------ rule 5: one conversation, several rows


def test_a_thought_that_only_the_last_turn_has_makes_a_row_of_each_turn():
    empty = "<think>\n\n</think>\n\n"

    assert trained(THINKING, ASK, FIRST, AND, SECOND) == [
        [f"{empty}First.<|im_end|>"],
        [f"{empty}Second.<|im_end|>"],
    ]


def test_turns_whose_renderings_agree_share_a_row():
    kept = template("<|a|>{% if loop.last or m.keep %}<think></think>{% endif %}{{ m.content }}<|im_end|>")
    keeps = said("First.", keep=True)

    found = masked(kept, ASK, keeps, AND, SECOND, AND, keeps)

    assert [row.turns for row in found.rows] == [(3,), (1, 5)]
    assert trained(kept, ASK, keeps, AND, SECOND, AND, keeps) == [
        ["<think></think>Second.<|im_end|>"],
        ["<think></think>First.<|im_end|>", "<think></think>First.<|im_end|>"],
    ]


def test_an_end_that_only_the_last_turn_has_makes_a_row_of_each_turn():
    kind = template("<|a|>{{ m.content }}{{ '<|im_end|>' if loop.last else '<|r|>' }}")

    assert trained(kind, ASK, FIRST, AND, SECOND) == [["First.<|im_end|>"], ["Second.<|im_end|>"]]
    assert trained(kind, ASK, FIRST, AND, SECOND, stops="<|im_end|> <|r|>") == [["First.<|r|>", "Second.<|im_end|>"]]


def test_tools_before_the_last_turn_of_the_user_make_a_row_of_each_such_turn():
    moving = template(
        CALLING + "<|im_end|>",
        user="{% if tools and m == (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}"
        "{{ tools | tojson }}{% endif %}<|u|>{{ m.content }}",
    )

    found = masked(moving, ASK, CALLS, TOOL_SAYS, FIRST, AND, SECOND, tools=ADD)

    assert [row.turns for row in found.rows] == [(1, 3), (5,)]
    assert [row.text.index('[{"name": "add"}]') for row in found.rows] == [
        0,
        found.rows[1].text.index("<|u|>And?") - 17,
    ]
    assert trained(moving, ASK, CALLS, TOOL_SAYS, FIRST, AND, SECOND, tools=ADD) == [
        ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|im_end|>', "First.<|im_end|>"],
        ["Second.<|im_end|>"],
    ]


def test_a_system_text_before_the_last_message_stands_in_the_row_where_it_stands_in_use():
    merged = (
        "{% set s = messages[0].content if messages[0].role == 'system' else '' %}{% for m in messages %}"
        "{% if m.role == 'user' %}<|u|>{{ s + ' ' if loop.last and s else '' }}{{ m.content }}"
        "{% elif m.role == 'assistant' %}<|a|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|a|>{% endif %}"
    )

    assert [row.text for row in masked(merged, SYSTEM, ASK, FIRST, AND, SECOND).rows] == [
        "<|u|>Be brief. Ask.<|a|>First.<|im_end|>",
        "<|u|>Ask.<|a|>First.<|im_end|><|u|>Be brief. And?<|a|>Second.<|im_end|>",
    ]
    assert trained(merged, SYSTEM, ASK, FIRST, AND, SECOND) == [["First.<|im_end|>"], ["Second.<|im_end|>"]]


def test_a_system_text_merged_into_the_first_turn_of_the_user_is_one_row():
    merged = template(
        ANSWER,
        user="{% if m.role == 'user' %}<|u|>{% if loop.index0 == 1 and messages[0].role == 'system' %}"
        "{{ messages[0].content }} {% endif %}{{ m.content }}{% endif %}",
    )

    assert trained(merged, SYSTEM, ASK, FIRST, AND, SECOND) == [["First.<|im_end|>", "Second.<|im_end|>"]]


# ------------------------------------------------------------------ tools, arguments, marks


def test_a_call_its_answer_and_the_turn_after_them_are_trained_but_for_the_answer():
    turns = (ASK, CALLS, TOOL_SAYS, said("It is 3."), AND, SECOND)

    assert trained(TOOLS, *turns, tools=ADD) == [
        ['{"name": "add", "arguments": {"a": 1}}<|call_end|><|im_end|>', "It is 3.<|im_end|>", "Second.<|im_end|>"]
    ]


def test_a_token_behind_the_call_at_which_generation_stops_ends_it_also_where_it_opens_the_answer():
    calling = template(CALLING.replace("<|a|>", "<|a|>{{ '' }}") + "{% if not m.tool_calls %}<|im_end|>{% endif %}")

    assert trained(calling, ASK, CALLS, TOOL_SAYS, SECOND, stops="<|im_end|> <|tool|>") == [
        ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|tool|>', "Second.<|im_end|>"]
    ]


def test_an_argument_of_the_template_decides_what_the_prompt_has():
    thinks = template(
        "<|a|>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
        "{{ m.content }}<|im_end|>",
        "<|a|>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}",
    )

    assert trained(thinks, ASK, FIRST, arguments={"enable_thinking": False}) == [["First.<|im_end|>"]]
    (row,) = masked(thinks, ASK, FIRST, arguments={"enable_thinking": False}).rows
    assert row.text == "<|u|>Ask.<|a|><think></think>First.<|im_end|>"


def test_several_marks_in_one_turn_enclose_it_together():
    marked = template(
        "<|a|>{% if m.reasoning_content %}{% generation %}<think>{{ m.reasoning_content }}</think>{% endgeneration %}"
        "{% endif %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    )

    assert trained(marked, ASK, said("First.", reasoning_content="I muse."), AND, SECOND) == [
        ["<think>I muse.</think>First.<|im_end|>", "Second.<|im_end|>"]
    ]


def test_marks_that_do_not_enclose_the_words_do_not_count():
    wrong = THINKING_MARKED.replace(
        "{{ message['content'] }}{% endgeneration %}", "{% endgeneration %}{{ message.content }}"
    )

    assert trained(wrong, ASK, FIRST) == [["<think>\n\n</think>\n\nFirst.<|im_end|>"]]


def test_marks_without_a_token_that_ends_the_row_get_one():
    assert trained(template("<|a|>{% generation %}{{ m.content }}{% endgeneration %}"), ASK, FIRST, AND, SECOND) == [
        ["First.", "Second.<|im_end|>"]
    ]


def test_a_template_that_writes_nothing_of_a_turn_is_refused():
    with pytest.raises(Unusable, match=r"^turn 2, a tool call of 'add': the model's chat template does not write it$"):
        masked(CHATML, ASK, CALLS)
