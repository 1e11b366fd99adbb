"""A row of which the chat template leaves words out is refused; a thought that it leaves out is counted."""

from typing import Any

import pytest
from tokenizers_for_tests import CHATML, THINKING, TOOLS, tiny_tokenizer

from mlxops.data import Record, tokenize
from mlxops.errors import InvalidData

ASK, AND = {"role": "user", "content": "Ask."}, {"role": "user", "content": "And?"}
SYSTEM = {"role": "system", "content": "Be brief."}
SILENT = "{% for message in messages if message.role != 'system' %}" + CHATML.partition("%}")[2]


def said(words: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": words, **more}


def notes(template: str, *messages: dict[str, Any], tools: Any = (), mask_prompt: bool = True) -> tuple[str, ...]:
    record = Record(origin="f:5", messages=messages, tools=tuple(tools))
    return tokenize([record], tiny_tokenizer(template), max_seq_length=10_000, mask_prompt=mask_prompt).notes


def problem(template: str, *messages: dict[str, Any], **more: Any) -> str:
    with pytest.raises(InvalidData) as caught:
        notes(template, *messages, **more)
    return caught.value.problems[0]


@pytest.mark.parametrize("mask_prompt", [True, False])
def test_a_message_that_the_template_drops_costs_the_row(mask_prompt):
    said_of_it = problem(SILENT, SYSTEM, ASK, said("First."), mask_prompt=mask_prompt)

    assert said_of_it == "f:5: the model's chat template drops turn 1, of the role 'system'"


def test_a_message_that_is_dropped_once_others_follow_costs_the_row():
    last_alone = "{% for m in messages[-2:] %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"

    assert "drops turn 1, of the role 'user'" in problem(last_alone, ASK, said("First."), AND, said("Second."))


def test_a_call_that_the_template_drops_costs_the_row():
    call = {"function": {"name": "add", "arguments": {}}}

    assert problem(CHATML, ASK, said("I call.", tool_calls=[call])) == (
        "f:5: turn 2: the model's chat template does not write the tool call 'add'"
    )


def test_a_message_that_is_written_in_another_form_is_not_dropped():
    as_json = CHATML.replace(
        "message['content']", "(message['content'] | tojson if message.role == 'tool' else message.content)"
    )
    tool = {"role": "tool", "content": '{"a": "b"}'}

    assert notes(as_json, ASK, said("I call."), tool, said("Done.")) == ()


def test_thoughts_that_the_template_drops_are_counted():
    in_content = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")

    assert notes(CHATML, ASK, said("First.", reasoning_content="I muse.")) == (
        "the chat template drops the thoughts of 1 turn",
    )
    assert notes(in_content, ASK, said("<think>I muse.</think>First."), AND, said("<think>So.</think>Second.")) == (
        "the chat template drops the thoughts of 2 turns",
    )
    assert notes(CHATML, ASK, said("<think>I muse.</think>First.")) == ()


def test_thoughts_that_are_only_dropped_from_context_are_not_counted():
    last = "message['content'] if loop.last else message['content'].split('</think>')[-1]"

    told = notes(
        CHATML.replace("message['content']", f"({last})"),
        ASK,
        said("<think>I muse.</think>First."),
        AND,
        said("Second."),
    )

    assert not any("thoughts" in note for note in told)


def test_tools_that_the_template_leaves_out_are_mentioned():
    tools = ({"name": "add"},)

    assert notes(CHATML, ASK, said("First."), tools=tools) == (
        "the chat template leaves the tools out, in 1 row, first in f:5",
    )
    assert notes(TOOLS, ASK, said("First."), tools=tools) == ()


def test_conversations_that_become_several_rows_are_counted_with_their_tokens():
    (note,) = notes(THINKING, ASK, said("First."), AND, said("Second."))

    assert note.startswith(
        "1 of 1 conversations became 2 rows, because the chat template writes earlier turns differently once later "
        "ones follow: "
    )
    after, before = (int(part.split()[0]) for part in note.rpartition(": ")[2].split(" instead of "))
    assert before < after < 2 * before
