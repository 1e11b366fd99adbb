"""What chat and query have in common: settings of sampling, the prompt that fits, and an answer as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlxops.chat.events import Answered, Piece
from mlxops.chat.thoughts import ThoughtSplitter, Words
from mlxops.errors import BadRequest

if TYPE_CHECKING:
    import mlx.core as mx

    from mlxops.models.conversation import Message
    from mlxops.models.generation import LoadedModel
    from mlxops.models.prompt_cache import PromptCache
    from mlxops.models.sampling import LogitsProcessor, Sampling


class SamplingOptions(Protocol):
    """The options that decide how tokens are chosen."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def min_p(self) -> float: ...
    @property
    def repetition_penalty(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model resumes from: the text, its tokens, and how many tokens of an answer fit behind it."""

    text: str
    tokens: Sequence[int]
    room: int


def sampling_of(options: SamplingOptions) -> Sampling:
    """The options as the generation takes them."""
    from mlxops.models.sampling import Sampling

    return Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )


def prompt_of(
    loaded: LoadedModel,
    messages: Sequence[Message],
    max_tokens: int,
    template_config: Mapping[str, Any],
    *,
    tools: Sequence[Message] = (),
) -> Prompt:
    """The prompt of a conversation; `template_config` is what the chat template is told.

    Raises `BadRequest` where the template refuses it; its room may be none.
    """
    from mlxops.models.conversation import encode, prompt_text

    text = prompt_text(loaded.tokenizer, messages, tools=tools, template_config=template_config)
    return prompt_with(loaded, text, encode(loaded.tokenizer, text), max_tokens)


def prompt_with(loaded: LoadedModel, text: str, tokens: Sequence[int], max_tokens: int) -> Prompt:
    """The prompt of a text and its tokens, with the room behind it."""
    context = loaded.context_length
    return Prompt(text=text, tokens=tokens, room=max_tokens if context is None else context - len(tokens))


def check_room(loaded: LoadedModel, prompt: Prompt) -> None:
    """Raise `BadRequest` for a prompt that leaves no room for an answer."""
    if prompt.room < 1:
        raise BadRequest(
            f"the message takes {len(prompt.tokens):,} tokens with all that belongs to it, and the context of "
            f"the model has {loaded.context_length:,}",
            hint="shorten it",
        )


def speak(
    loaded: LoadedModel,
    prompt: Prompt,
    *,
    question: str,
    max_tokens: int,
    sampling: Sampling,
    row: int = 0,
    cache: PromptCache | None = None,
    processors: Sequence[LogitsProcessor] = (),
    should_stop: Callable[[], bool] = lambda: False,
    watch: Callable[[int, mx.array], None] = lambda token, logprobs: None,
    adapter: str | None = None,
    may_think: bool = True,
) -> Iterator[Piece | Answered]:
    """One answer, piece by piece, thoughts told apart if there may be any; the last event is the whole of it."""
    from mlxops.models.generation import Stream

    stream = Stream(
        loaded=loaded,
        prompt=prompt.tokens,
        max_tokens=min(max_tokens, prompt.room),
        sampling=sampling,
        row=row,
        cache=cache,
        processors=processors,
        should_stop=should_stop,
        watch=watch,
    )
    splitter = ThoughtSplitter(prompt.text) if may_think else Words()
    said: dict[bool, list[str]] = {True: [], False: []}
    for text in stream:
        for part in splitter.feed(text):
            said[part.is_thought].append(part.text)
            yield Piece(text=part.text, is_thought=part.is_thought)
    for part in splitter.finish():
        said[part.is_thought].append(part.text)
        yield Piece(text=part.text, is_thought=part.is_thought)
    answer = stream.answer
    yield Answered(
        prompt=question,
        answer="".join(said[False]).strip(),
        thought="".join(said[True]).strip(),
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        generated_tokens=len(answer.tokens),
        first_token_seconds=answer.first_token_seconds,
        seconds=answer.seconds,
        tokens_per_second=answer.tokens_per_second,
        adapter=adapter,
    )
