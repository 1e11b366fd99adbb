"""The questions of a test: what a model is asked of the rows, and its answers with their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxops import data
from mlxops.chat.thoughts import ThoughtSplitter
from mlxops.models.conversation import encode, prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mlxops.evaluation.answers import ScoredAnswer
    from mlxops.evaluation.plugins import Plugin
    from mlxops.models.generation import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Question:
    """A conversation up to its last answer, as text and tokens; `asked` is its last message, `expected` the answer."""

    origin: str
    asked: str
    expected: str
    text: str
    tokens: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The questions of rows; the other rows are counted: without a question or an answer in words, or too long."""

    asked: tuple[Question, ...]
    without: int
    too_long: int


def read(
    records: Sequence[data.Record],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template_config: Mapping[str, Any],
    context_length: int | None,
) -> Questions:
    """The questions of records. Raises `BadRequest` where the model's chat template refuses one."""
    asked, without, too_long = [], 0, 0
    for record in records:
        place = last_answer(record)
        if place is None:
            without += 1
            continue
        before = record.messages[:place]
        text = prompt_text(tokenizer, before, tools=record.tools, template_config=template_config)
        tokens = encode(tokenizer, text)
        if context_length is not None and len(tokens) >= context_length:
            too_long += 1
            continue
        asked.append(
            Question(
                origin=record.origin,
                asked=str(before[-1].get("content") or ""),
                expected=record.messages[place]["content"],
                text=text,
                tokens=tokens,
            )
        )
    return Questions(asked=tuple(asked), without=without, too_long=too_long)


def answer(
    loaded: LoadedModel,
    questions: Sequence[Question],
    *,
    max_tokens: int,
    plugins: Sequence[Plugin],
    progress: Callable[[int, int], None],
) -> list[ScoredAnswer]:
    """The model's greedy answers in the order of the questions, without their thoughts, with their scores.

    `progress` is told the tokens made and the most there can be.
    """
    from mlxops.evaluation.answers import GivenAnswer, ScoredAnswer, score
    from mlxops.models.generation import generate_batch

    found = generate_batch(loaded, [each.tokens for each in questions], max_tokens=max_tokens, progress=progress)
    scored = []
    for question, made in zip(questions, found, strict=True):
        given = GivenAnswer(
            origin=question.origin,
            prompt=question.asked,
            expected=question.expected,
            text=without_thoughts(question.text, made.text),
            tokens=len(made.tokens),
            is_stopped=made.finish_reason == "stop",
        )
        of_others = {plugin.name: plugin.score(given) for plugin in plugins}
        scored.append(ScoredAnswer(answer=given, scores={**score(given), **of_others}))
    return scored


def last_answer(record: data.Record) -> int | None:
    """The place of the last answer that is trained, has words, and follows a message; None where there is none."""
    for place in range(len(record.messages) - 1, 0, -1):
        message = record.messages[place]
        if (
            message["role"] == "assistant"
            and message.get("weight", 1) != 0
            and str(message.get("content") or "").strip()
        ):
            return place
    return None


def without_thoughts(prompt: str, text: str) -> str:
    """An answer to a prompt without its thoughts and without white space around it."""
    splitter = ThoughtSplitter(prompt)
    parts = [*splitter.feed(text), *splitter.finish()]
    return "".join(part.text for part in parts if not part.is_thought).strip()
