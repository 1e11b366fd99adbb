"""A model's answers to prompts, by greedy decoding: the same model gives the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mlx.nn
    from mlx_lm.tokenizer_utils import TokenizerWrapper

Conversation = Sequence[Mapping[str, Any]]


def answers(
    model: mlx.nn.Module,
    tokenizer: TokenizerWrapper,
    conversations: Sequence[Conversation],
    *,
    max_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """What the model says next in each conversation, at most `max_tokens` tokens of it.

    `progress` is told the tokens made and the most there can be.
    """
    from mlx_lm import stream_generate

    said = []
    for number, conversation in enumerate(conversations):
        prompt = tokenizer.apply_chat_template(list(conversation), add_generation_prompt=True)
        text = ""
        for made, response in enumerate(stream_generate(model, tokenizer, prompt, max_tokens=max_tokens), start=1):
            text += response.text
            if progress is not None:
                progress(number * max_tokens + made, len(conversations) * max_tokens)
        said.append(text)
    return said
