"""Every row format becomes messages, word for word, and every bad row says what is wrong with it."""

import pytest

from mlxops.data.formats import Unusable, parse

QUESTION, ANSWER = "  What is\n\nit?\t", "It is\n  this.\n"
TURNS = ({"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER})


@pytest.mark.parametrize(
    "row",
    [
        {"messages": list(TURNS)},
        {"messages": list(TURNS), "text": "not this", "tools": None},
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
        {"conversations": list(TURNS)},
        {"prompt": QUESTION, "completion": ANSWER, "id": 7},
        {"instruction": QUESTION, "response": ANSWER},
        {"instruction": QUESTION, "input": "", "output": ANSWER},
        {"instruction": QUESTION, "output": ANSWER},
        {"messages": [{**TURNS[0], "content": [{"type": "text", "text": QUESTION}]}, {**TURNS[1], "name": None}]},
    ],
)
def test_every_chat_format_becomes_the_same_messages_word_for_word(row):
    assert parse(row, "f:1").messages == TURNS


def test_a_text_row_stays_a_text():
    record = parse({"text": " a\r\nb \n"}, "f:1")

    assert (record.text, record.messages, record.origin) == (" a\r\nb \n", (), "f:1")


@pytest.mark.parametrize(("key", "answer"), [("input", "output"), ("context", "response")])
def test_an_input_follows_its_instruction_after_a_blank_line(key, answer):
    record = parse({"instruction": "Add.", key: "1 + 1", answer: "2"}, "f:1")

    assert record.messages[0]["content"] == "Add.\n\n1 + 1"


def test_a_system_text_beside_the_turns_comes_first():
    row = {"system": "Be brief.", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}

    assert [message["role"] for message in parse(row, "f:1").messages] == ["system", "user", "assistant"]
    assert len(parse({**row, "system": ""}, "f:1").messages) == 2


def test_a_tool_call_may_have_no_words_and_its_arguments_become_an_object():
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    row = {
        "messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": None, "tool_calls": [call]}],
        "tools": '[{"name": "add"}]',
    }

    record = parse(row, "f:1")

    assert record.messages[1]["content"] == ""
    assert record.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert record.tools == ({"name": "add"},)


def test_a_turn_keeps_its_weight():
    row = {"messages": [TURNS[0], {**TURNS[1], "weight": 0}, TURNS[0], {**TURNS[1], "weight": 1}]}

    assert [turn.get("weight") for turn in parse(row, "f:1").messages] == [None, 0, None, 1]


def test_rows_of_the_same_content_are_the_same_row_whatever_their_format():
    one = parse({"prompt": "a", "completion": "b"}, "f:1")
    other = parse({"messages": [{"content": "a", "role": "user"}, {"role": "assistant", "content": "b"}]}, "g:9")

    assert one.content == other.content


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (3, "not an object but a number"),
        ([{}], "not an object but a list"),
        ({}, "no known row format; its keys are none"),
        ({"question": "a", "answer": "b"}, "no known row format; its keys are 'question', 'answer'"),
        ({"prompt": "a"}, "no known row format; its keys are 'prompt'"),
        ({"text": ""}, "text is empty"),
        ({"text": " \n"}, "text is empty"),
        ({"text": 5}, "text is not text but a number"),
        ({"prompt": "a", "completion": ""}, "completion is empty"),
        ({"prompt": ["a"], "completion": "b"}, "prompt has a part that is not text"),
        ({"messages": [TURNS[0], {**TURNS[1], "weight": 0}]}, "every turn of the assistant has weight 0"),
        ({"messages": [TURNS[0], {**TURNS[1], "weight": 0.5}]}, "turn 2: weight is 0 or 1, not 0.5"),
        ({"messages": "hello"}, "messages is not a list but a text"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["hello"]}, "turn 1 is not an object but a text"),
        ({"messages": [{"content": "a"}]}, "turn 1 has neither 'role' nor 'from'; its keys are 'content'"),
        ({"messages": [TURNS[0]]}, "no turn of the assistant, so there is no answer"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": " "}]}, "turn 2: the assistant says nothing"),
        ({"messages": [TURNS[0], {"role": "assistant"}]}, "turn 2: content is not text but null"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "turn 1: content has a part that is not"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "turn 1 has the unknown role 'bot' (known: system, dev"),
        ({"messages": [{"role": ["a"], "content": "a"}]}, "turn 1 has the unknown role ['a']"),
        ({"conversations": [{"from": "alien", "value": "a"}]}, "turn 1 has the unknown role 'alien' (known: human"),
        ({"messages": list(TURNS), "tools": {"a": 1}}, "tools is not a list of objects"),
        ({"messages": list(TURNS), "tools": [{"function": "add"}]}, "tools has a function that is not an object"),
        ({"messages": list(TURNS), "tools": "[nope"}, "tools are no JSON"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "turn 1: a tool call has no name"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(row, reason):
    with pytest.raises(Unusable) as caught:
        parse(row, "f:1")

    assert str(caught.value).startswith(reason)
