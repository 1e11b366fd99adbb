"""The one place that makes text: an answer as a stream, or many in a batch, with counts and times of each.

It takes token ids and gives text; what a conversation looks like to a model is decided by who calls it. Work that
mlx-lm does well (the steps, speculative decoding, batching) is mlx-lm's.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator, generate_step, generation_stream, speculative_generate_step

from mlxops.errors import BadRequest
from mlxops.models.adapter_slot import AdapterSlot
from mlxops.models.prompt_cache import PromptCache, can_be_batched
from mlxops.models.sampling import (
    KeyedSampler,
    LogitsProcessor,
    Sampling,
    after,
    clock,
    make_processors,
    make_sampler,
)
from mlxops.models.text_stream import TextStream
from mlxops.system import gpu

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FinishReason = Literal["stop", "length", "cancelled"]

_PREFILL_STEP = 512  # tokens of a prompt between two looks at whether to stop
_GREEDY = Sampling()


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that is ready to make text: `stop_tokens` end its answers, `slot` takes an adapter.

    `embedding_rows` is how many token ids it has an embedding for, None where that is not known.

    With a `draft` model of the same tokenizer that one proposes `draft_tokens` tokens at a time, and the model checks
    them together: the same tokens, sooner.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    stop_tokens: frozenset[int]
    slot: AdapterSlot
    context_length: int | None = None
    embedding_rows: int | None = None
    draft: nn.Module | None = None
    draft_tokens: int = 3

    def new_cache(self) -> PromptCache:
        """An empty prompt cache for the model with the adapter that it has now."""
        return PromptCache(self.model, self.draft, owner=self.slot.owner)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said, why it stopped and what that took. Without the token that ended it.

    Of `prompt_tokens`, `cached_tokens` were not computed; of `tokens`, the draft model made `drafted_tokens`. Seconds
    count from the start, in a batch from the batch's start; `token_seconds` has those of each token.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    token_seconds: tuple[float, ...] = ()

    @property
    def computed_tokens(self) -> int:
        """The tokens of the prompt that were computed."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def tokens_per_second(self) -> float | None:
        """The speed after the first token; None where there was no second one."""
        took = self.seconds - self.first_token_seconds
        return (len(self.tokens) - 1) / took if len(self.tokens) > 1 and took > 0 else None


@dataclass(kw_only=True)
class Stream:
    """One answer as it is made: iterate over its pieces of text, once; then `answer` has all of it.

    Leaving the loop early, or `should_stop`, ends the answer as cancelled; the cache stays right in every case. `watch`
    is shown each token, the one that ends the answer too, with the log-probabilities of all, shape (vocabulary,).
    """

    loaded: LoadedModel
    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling = _GREEDY
    row: int = 0
    cache: PromptCache | None = None
    processors: Sequence[LogitsProcessor] = ()
    should_stop: Callable[[], bool] = lambda: False
    watch: Callable[[int, mx.array], None] = lambda token, logprobs: None
    _answer: Answer | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        _check_prompt(self.loaded, self.prompt)

    @property
    def answer(self) -> Answer:
        """The whole answer, once the iteration has ended."""
        if self._answer is None:
            raise RuntimeError("the stream has not ended")
        return self._answer

    def __iter__(self) -> Iterator[str]:
        loaded, start = self.loaded, time.perf_counter()
        cache = self.cache if self.cache is not None else loaded.new_cache()
        if cache.owner != loaded.slot.owner:
            cache.clear()
            cache.owner = loaded.slot.owner
        cached = cache.take(self.prompt)
        text, made, drafted, first = TextStream(loaded.tokenizer), [], 0, 0.0
        times: list[float] = []
        pieces: list[str] = []
        finish_reason: FinishReason = "cancelled"
        try:
            with _steps(self, cache) as steps:
                for token, is_drafted in steps:
                    first = first or time.perf_counter() - start
                    if token in loaded.stop_tokens:
                        finish_reason = "stop"
                        break
                    made.append(token)
                    times.append(time.perf_counter() - start)
                    drafted += is_drafted
                    if piece := text.add(token):
                        pieces.append(piece)
                        yield piece
                    if len(made) == self.max_tokens:
                        finish_reason = "length"
                        break
                    if self.should_stop():
                        break
            if piece := text.finish():
                pieces.append(piece)
                yield piece
        finally:
            self._answer = Answer(
                text="".join(pieces),
                tokens=tuple(made),
                finish_reason=finish_reason,
                prompt_tokens=len(self.prompt),
                cached_tokens=cached,
                drafted_tokens=drafted,
                first_token_seconds=first,
                seconds=time.perf_counter() - start,
                token_seconds=tuple(times),
            )


def generate(loaded: LoadedModel, prompt: Sequence[int], *, max_tokens: int, **options: Any) -> Answer:
    """One whole answer; the options are those of a `Stream`."""
    stream = Stream(loaded=loaded, prompt=prompt, max_tokens=max_tokens, **options)
    for _ in stream:
        pass
    return stream.answer


def read_ahead(loaded: LoadedModel, tokens: Sequence[int]) -> PromptCache:
    """A cache with these tokens read, for prompts that begin with them."""
    cache = loaded.new_cache()
    if tokens:
        _prefill(Stream(loaded=loaded, prompt=[*tokens, tokens[-1]], max_tokens=1), cache)
    return cache


def generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    cache: PromptCache | None = None,
    sampling: Sampling = _GREEDY,
    batch_size: int = 32,
    processors: Callable[[int], Sequence[LogitsProcessor]] = lambda row: (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """The answers to many prompts, `batch_size` rows at a time, in their order.

    Row `n` gets the tokens that it would get alone with `row=n`, as far as a matrix product gives a row the same bits
    in a batch. `progress` is told the tokens made and the most there can be. `cache` holds what all prompts begin with,
    which is not computed again; it stays as it is.
    """
    for prompt in prompts:
        _check_prompt(loaded, prompt)
    if cache is None and not can_be_batched(loaded.model):
        return _one_by_one(loaded, prompts, max_tokens, sampling, processors, progress)
    start = time.perf_counter()
    rows = [_Row(text=TextStream(loaded.tokenizer)) for _ in prompts]
    # Rows of like length go together, the longest first: less padding, and no long one left over at the end.
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    batches = BatchGenerator(
        loaded.model,
        stop_tokens=[[token] for token in sorted(loaded.stop_tokens)],
        completion_batch_size=batch_size,
        prefill_batch_size=min(8, batch_size),
    )
    try:
        read = len(cache.tokens) if cache else 0
        ids = batches.insert(
            [list(prompts[row][read:]) for row in order],
            [max_tokens] * len(order),
            caches=[copy.deepcopy(cache.model_entries) for _ in order] if cache else None,
            all_tokens=[list(prompts[row][:read]) for row in order],
            samplers=[make_sampler(sampling, row) for row in order],
            logits_processors=[[*make_processors(sampling), *processors(row)] for row in order],
        )
        row_of = dict(zip(ids, order, strict=True))
        while responses := batches.next_generated():
            for response in responses:
                row = rows[row_of[response.uid]]
                row.add(response.token, response.finish_reason, time.perf_counter() - start)
            if progress is not None:
                made = sum(max_tokens if row.finish_reason else len(row.tokens) for row in rows)
                progress(made, max_tokens * len(rows))
    finally:
        batches.close()
    return [row.answer(len(prompt)) for row, prompt in zip(rows, prompts, strict=True)]


def _check_prompt(loaded: LoadedModel, prompt: Sequence[int]) -> None:
    if not prompt:
        raise BadRequest("the prompt is empty", hint="give the model at least one token to continue from")
    largest = max(prompt)
    # MLX does not check an index: beyond the embedding it reads memory that belongs to something else
    if loaded.embedding_rows is not None and largest >= loaded.embedding_rows:
        raise BadRequest(
            f"the prompt has the token {loaded.tokenizer.convert_ids_to_tokens(largest)!r} with the id {largest:,}, "
            f"and the model's embedding has {loaded.embedding_rows:,} rows",
            hint="the tokenizer is not the model's own: get the model again",
        )


@dataclass(kw_only=True)
class _Row:
    """One row of a batch on its way."""

    text: TextStream
    pieces: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    first: float = 0.0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)

    def add(self, token: int, finish_reason: FinishReason | None, seconds: float) -> None:
        self.first, self.seconds = self.first or seconds, seconds
        self.finish_reason = finish_reason
        if finish_reason != "stop":
            self.tokens.append(token)
            self.times.append(seconds)
            self.pieces.append(self.text.add(token))
        if finish_reason is not None:
            self.pieces.append(self.text.finish())

    def answer(self, prompt_tokens: int) -> Answer:
        return Answer(
            text="".join(self.pieces),
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason or "cancelled",
            prompt_tokens=prompt_tokens,
            first_token_seconds=self.first,
            seconds=self.seconds,
            token_seconds=tuple(self.times),
        )


def _one_by_one(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: Sampling,
    processors: Callable[[int], Sequence[LogitsProcessor]],
    progress: Callable[[int, int], None] | None,
) -> list[Answer]:
    answers = []
    for row, prompt in enumerate(prompts):
        answers.append(
            generate(loaded, prompt, max_tokens=max_tokens, sampling=sampling, row=row, processors=processors(row))
        )
        if progress is not None:
            progress(max_tokens * len(answers), max_tokens * len(prompts))
    return answers


@contextmanager
def _steps(stream: Stream, cache: PromptCache) -> Iterator[Iterator[tuple[int, bool]]]:
    """The tokens of an answer, each with whether the draft model made it; none where the prompt was stopped.

    At the end the cache says what it holds; where anything but leaving the loop ended it, it is empty.
    """
    seen: list[int] = []
    is_orderly = False
    try:
        if not _prefill(stream, cache):
            is_orderly = True
            yield iter(())
            return
        with gpu.wired(generation_stream):
            steps = _mlx_lm_steps(stream, cache)
            try:
                yield _noted(steps, seen, stream.watch)
                is_orderly = True
            except GeneratorExit:
                is_orderly = True
                raise
            finally:
                steps.close()
                cache.settle([*stream.prompt, *seen])
    finally:
        if not is_orderly:
            cache.clear()


def _noted(
    steps: Iterator[tuple[Any, ...]], seen: list[int], watch: Callable[[int, mx.array], None]
) -> Iterator[tuple[int, bool]]:
    for token, logprobs, *is_drafted in steps:
        seen.append(token)
        watch(token, logprobs)
        yield token, any(is_drafted)


def _mlx_lm_steps(stream: Stream, cache: PromptCache) -> Generator[tuple[Any, ...], None, None]:
    loaded, prompt = stream.loaded, stream.prompt
    sampler = make_sampler(stream.sampling, stream.row)
    processors = [*make_processors(stream.sampling), *stream.processors]
    if loaded.draft is not None and isinstance(sampler, KeyedSampler):
        processors.append(clock(sampler, len(prompt)))
    # what is in the cache already is not shown to processors by mlx-lm
    options = {
        "max_tokens": stream.max_tokens,
        "sampler": sampler,
        "logits_processors": [after(prompt[:-1], processor) for processor in processors],
        "prompt_cache": cache.entries,
    }
    last = mx.array(list(prompt[-1:]), mx.uint32)
    if loaded.draft is None:
        return generate_step(last, loaded.model, **options)
    return speculative_generate_step(last, loaded.model, loaded.draft, num_draft_tokens=loaded.draft_tokens, **options)


def _prefill(stream: Stream, cache: PromptCache) -> bool:
    """Have the models read the prompt up to its last token; False where that was stopped. The cache says how far."""
    loaded, prompt = stream.loaded, stream.prompt
    with mx.stream(generation_stream):
        while (left := len(prompt) - 1 - len(cache.tokens)) > 0:
            if stream.should_stop():
                return False
            tokens = list(prompt[len(cache.tokens) : len(cache.tokens) + min(left, _PREFILL_STEP)])
            for model, entries in ((loaded.model, cache.model_entries), (loaded.draft, cache.draft_entries)):
                if model is not None:
                    model(mx.array(tokens)[None], cache=entries)
            mx.eval([entry.state for entry in cache.entries])
            cache.tokens += tokens
            mx.clear_cache()
    return not stream.should_stop()
