"""A conversation as the token ids that a model resumes from, written by the model's own chat template. No MLX here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlxops.errors import BadRequest
from mlxops.foreign import foreign_code, time_limit
from mlxops.models.tokenizer import template_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]

_MOST_SECONDS = 20.0  # a conversation takes a template some microseconds


def has_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer can write conversations."""
    return bool(tokenizer.chat_template)


def prompt_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Message] = (),
    template_config: Mapping[str, Any] | None = None,
) -> str:
    """The text of a conversation up to where the assistant begins to speak.

    Without a chat template it is the words alone, a line each: a base model resumes them. Raises `BadRequest`
    with the template's own words where it refuses the conversation.
    """
    if not has_template(tokenizer):
        return "\n".join(str(message["content"]) for message in messages)
    with foreign_code(_refusal), time_limit(_MOST_SECONDS, _refusal(f"it computed for {_MOST_SECONDS:g} seconds")):
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            add_generation_prompt=True,
            tokenize=False,
            **{**template_arguments(tokenizer), **(template_config or {})},
        )
    return str(text)


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text of a whole conversation, as the chat template writes it. Raises as `prompt_text` does."""
    with foreign_code(_refusal), time_limit(_MOST_SECONDS, _refusal(f"it computed for {_MOST_SECONDS:g} seconds")):
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, **template_arguments(tokenizer)
            )
        )


def _refusal(words: str, _: BaseException | None = None) -> BadRequest:
    return BadRequest(f"the model's chat template refuses the conversation: {words}")


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of `prompt_text`; what a template writes has its special tokens in it already."""
    return list(tokenizer.encode(text, add_special_tokens=not has_template(tokenizer)))


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Message] = (),
    template_config: Mapping[str, Any] | None = None,
) -> list[int]:
    """The token ids of a conversation, as `prompt_text` writes it."""
    return encode(tokenizer, prompt_text(tokenizer, messages, tools=tools, template_config=template_config))
