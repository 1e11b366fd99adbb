"""What the thread with the model makes of a request, by a model that says what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxops.jobs.eval.answering import Answerer
from mlxops.models.conversation import encode
from mlxops.models.generation import LoadedModel
from mlxops.models.loading import load_for_generation
from mlxops.serving.requests import Defaults, read
from mlxops.serving.shapes import ApiError, Delta, Finished, Started, ToolCall
from mlxops.serving.tickets import Tickets

DEFAULTS = Defaults(max_tokens=200, temperature=0, top_p=1, top_k=0, min_p=0, repetition_penalty=1)
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


class Scripted(nn.Module):
    """Says the same tokens whatever it is asked; a prompt has more than one token, and an answer comes one by one."""

    def __init__(self, tokens: Sequence[int], vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.vocabulary, self.said = list(tokens), vocabulary, 0

    def make_cache(self) -> list[Any]:
        return []

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        if tokens.shape[1] > 1:
            self.said = 0
            return mx.zeros((1, tokens.shape[1], self.vocabulary))
        token = self.tokens[min(self.said, len(self.tokens) - 1)]
        self.said += 1
        return 100.0 * (mx.arange(self.vocabulary) == token)[None, None]


class Models:
    """One model under one name."""

    base = "scripted"

    def find(self, name: str | None) -> tuple[str, None]:
        return name or self.base, None


class Broken(Models):
    """Something that is raised while a request is answered."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def find(self, name: str | None) -> tuple[str, None]:
        raise self._error


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    found = load_for_generation(tiny_model)
    found.tokenizer.chat_template += "{# <tool_call> tool_call.name #}"
    return found


def answers(loaded: LoadedModel, says: str, *, models: Any = None, **fields: Any) -> tuple[list[Any], list[str]]:
    """What a request for a chat is answered by a model that says this, and the bugs that were met."""
    tokens = [*encode(loaded.tokenizer, says), min(loaded.stop_tokens)]
    scripted = replace(loaded, model=Scripted(tokens, loaded.embedding_rows or 0))
    bugs: list[str] = []
    tickets = Tickets(1)
    worker = threading.Thread(
        target=Answerer(scripted, models or Models(), caches=1).run,
        args=(tickets, lambda error: bugs.append(str(error))),
    )
    worker.start()
    try:
        body = {"messages": [{"role": "user", "content": "What is 1 + 1?"}], **fields}
        return list(_events(tickets.add(read(json.dumps(body).encode(), "chat", DEFAULTS)))), bugs
    finally:
        tickets.close()
        worker.join()


def _events(ticket: Any) -> Iterator[Any]:
    while (event := ticket.get(60)) is not None:
        yield event
        if isinstance(event, (Finished, ApiError)):
            return


def text_of(events: Sequence[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def calls_of(events: Sequence[Any]) -> list[ToolCall]:
    return [call for event in events if isinstance(event, Delta) for call in event.calls]


def test_a_call_of_a_tool_is_a_call_and_the_words_before_it_are_words(loaded: LoadedModel) -> None:
    events, _ = answers(loaded, f"Let me see. {CALL}", tools=TOOLS)

    (call,) = calls_of(events)
    assert events[0] == Started(model="scripted")
    assert text_of(events) == "Let me see. "
    assert (call.name, call.arguments) == ("add", '{"a": 1}')
    assert events[-1].reason == "tool_calls"


def test_without_tools_what_looks_like_a_call_is_text(loaded: LoadedModel) -> None:
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        events, _ = answers(loaded, CALL, **fields)

        assert (text_of(events), events[-1].reason) == (CALL, "stop")


def test_a_call_that_max_tokens_cut_is_text(loaded: LoadedModel) -> None:
    events, _ = answers(loaded, CALL, tools=TOOLS, max_tokens=12)

    assert CALL.startswith(text_of(events))
    assert (calls_of(events), events[-1].reason, events[-1].tokens) == ([], "length", 12)


def test_thoughts_are_told_apart(loaded: LoadedModel) -> None:
    events, _ = answers(loaded, "<think>hm, <b>two</think>\nIt is 2.", stop=["<b>", "!"])

    assert "".join(event.thought for event in events if isinstance(event, Delta)) == "hm, <b>two"
    assert text_of(events) == "It is 2."


def test_a_stop_counts_the_tokens_that_were_made_for_it(loaded: LoadedModel) -> None:
    events, _ = answers(loaded, "one, two, three", stop=", ")

    assert (text_of(events), events[-1].reason) == ("one", "stop")
    assert 0 < events[-1].tokens <= len(encode(loaded.tokenizer, "one, two"))


def test_the_template_is_told_what_a_request_says(loaded: LoadedModel) -> None:
    template = loaded.tokenizer.chat_template
    loaded.tokenizer.chat_template = "{{ raise_exception('told ' ~ mood) }}"
    try:
        (error,), _ = answers(loaded, "never said", chat_template_kwargs={"mood": "calm"})
    finally:
        loaded.tokenizer.chat_template = template

    assert (error.status, error.message) == (400, "the model's chat template refuses the conversation: told calm")


def test_a_gpu_without_memory_costs_one_answer_and_is_no_bug(loaded: LoadedModel) -> None:
    broken = Broken(RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory (8)."))

    (event,), bugs = answers(loaded, "never said", models=broken)

    assert (event.status, event.code, bugs) == (503, "unavailable", [])
    assert event.message.startswith("there is not enough memory: [METAL]")


def test_a_bug_costs_one_answer_and_is_kept(loaded: LoadedModel) -> None:
    (event,), bugs = answers(loaded, "never said", models=Broken(ZeroDivisionError("a bug")))

    assert (event.status, event.code) == (500, "internal_error")
    assert bugs == ["a bug"]
