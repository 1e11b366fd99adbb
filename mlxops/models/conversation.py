"""A conversation as the token ids that a model goes on from, written by the model's own chat template. No MLX here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlxops.errors import BadRequest
from mlxops.models.tokenizer import template_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]

# What the expressions of a template can raise, beside its own errors.
_RAISED_INSIDE = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError)


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

    Without a chat template it is the words alone, a line each: a base model goes on with them. Raises `BadRequest`
    with the template's own words where it refuses the conversation.
    """
    if not has_template(tokenizer):
        return "\n".join(str(message["content"]) for message in messages)
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            add_generation_prompt=True,
            tokenize=False,
            **{**template_arguments(tokenizer), **(template_config or {})},
        )
    except (jinja2.TemplateError, *_RAISED_INSIDE) as error:
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BadRequest(f"the model's chat template refuses the conversation: {first_line}") from error
    return str(text)


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Message] = (),
    template_config: Mapping[str, Any] | None = None,
) -> list[int]:
    """The token ids of `prompt_text`; what the template writes has its special tokens in it already."""
    text = prompt_text(tokenizer, messages, tools=tools, template_config=template_config)
    return list(tokenizer.encode(text, add_special_tokens=not has_template(tokenizer)))
