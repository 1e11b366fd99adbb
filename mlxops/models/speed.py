"""How fast a model reads and writes: requests of given shapes, timed token by token.

A request is what chat and query make, but that no token ends it. Loading is not part of it, and neither is the reading
of the context that stands before the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlxops.errors import BadRequest

if TYPE_CHECKING:
    from mlxops.models.generation import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How many tokens of a prompt are read in each row, after how many of a context, and how many are made."""

    prompt_tokens: int
    generated_tokens: int
    context_tokens: int = 0
    batch_size: int = 1

    @property
    def length(self) -> int:
        """The tokens of a row at its end."""
        return self.context_tokens + self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What one request of a shape took, in seconds from its start, and in bytes.

    The first token is there when every row has one. `token_latencies` are the seconds between one token of a row and
    the next, of all rows together in the order of time.
    """

    shape: Shape
    first_token_seconds: float
    seconds: float
    tokens_after_first: int
    token_latencies: tuple[float, ...]
    peak_memory: int
    active_memory: int

    @property
    def prompt_tokens_per_second(self) -> float:
        """Tokens of the prompts over the time to the first token, as llama-bench and mlx-lm count."""
        return self.shape.batch_size * self.shape.prompt_tokens / self.first_token_seconds

    @property
    def generation_tokens_per_second(self) -> float | None:
        """Tokens of all rows after the first over the time after it; None where there is none."""
        took = self.seconds - self.first_token_seconds
        return self.tokens_after_first / took if self.tokens_after_first and took > 0 else None


def check(loaded: LoadedModel, shapes: Sequence[Shape]) -> None:
    """Raise `BadRequest` for a shape that is longer than the model's context, or a batch that it cannot make."""
    from mlxops.models.prompt_cache import can_be_batched

    longest = max(shapes, key=lambda shape: shape.length)
    if loaded.context_length is not None and longest.length > loaded.context_length:
        raise BadRequest(
            f"{longest.length:,} tokens of context, prompt and answer are more than the {loaded.context_length:,} "
            "that the model takes",
            hint="smaller numbers for --context, --prompt-tokens or --generation-tokens fit",
        )
    if any(shape.batch_size > 1 for shape in shapes):
        if loaded.draft is not None:
            raise BadRequest("--draft-model makes one answer at a time", hint="leave out `--batch-size`")
        if not can_be_batched(loaded.model):
            raise BadRequest("this model's state cannot be batched", hint="leave out `--batch-size`")


def time_request(loaded: LoadedModel, shape: Shape, prompt: Sequence[int] | None = None) -> Timed:
    """Make one request of a shape: of these tokens, or of any; the same ones every time."""
    import mlx.core as mx

    from mlxops.models.generation import generate, generate_batch, read_ahead

    endless = replace(loaded, stop_tokens=frozenset())
    some = _any_tokens(loaded)
    context = [next(some) for _ in range(shape.context_tokens)]
    rows = [[*context, *(prompt or [next(some) for _ in range(shape.prompt_tokens)])] for _ in range(shape.batch_size)]
    cache = read_ahead(endless, context)
    mx.synchronize()
    mx.clear_cache()
    mx.reset_peak_memory()
    if shape.batch_size == 1:
        answers = [generate(endless, rows[0], max_tokens=shape.generated_tokens, cache=cache)]
    else:
        answers = generate_batch(
            endless,
            rows,
            max_tokens=shape.generated_tokens,
            batch_size=shape.batch_size,
            cache=cache if context else None,
        )
    first = max(answer.token_seconds[0] for answer in answers)
    times = [time for answer in answers for time in answer.token_seconds]
    gaps = [
        (after, after - before)
        for answer in answers
        for before, after in zip(answer.token_seconds, answer.token_seconds[1:], strict=False)
    ]
    return Timed(
        shape=shape,
        first_token_seconds=first,
        seconds=max(times),
        tokens_after_first=sum(time > first for time in times),
        token_latencies=tuple(gap for _, gap in sorted(gaps)),
        peak_memory=mx.get_peak_memory(),
        active_memory=mx.get_active_memory(),
    )


def _any_tokens(loaded: LoadedModel) -> Iterator[int]:
    size = loaded.embedding_rows or len(loaded.tokenizer)
    drawn = random.Random(0)
    while True:
        yield drawn.randrange(size)
