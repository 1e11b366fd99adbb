"""A model's tokenizer without MLX: the same ids as mlx-lm's, in a third of the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops.models.folder_files import read_json
from mlxops.models.loader_errors import loader_errors
from mlxops.models.transformers_models import import_models
from mlxops.texts import check_utf8

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# As in mlx_lm.tokenizer_utils: a model with one of these pairs is told to think.
_THINKING = (
    ("<think>", "</think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|channel>", "<channel|>"),
)


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder; nothing is fetched. Raises `BadRequest` if its files are no tokenizer.

    Code in the folder is run only where it is trusted, and nobody is asked.
    """
    check_utf8(str(folder), "the path of the model")
    what = f"the tokenizer in {str(folder)!r} cannot be loaded"
    with loader_errors(what, name=folder.name), _quiet_transformers():
        from transformers import AutoTokenizer

        # None would have transformers ask on stdin
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=trust_remote_code
        )
    # Rows longer than the model's context are cut by ours; without this transformers prints a warning for the first.
    tokenizer.model_max_length = 1 << 40
    return tokenizer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    import_models()
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def template_arguments(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What mlx-lm hands to the chat template besides the messages: whether the model thinks."""
    thinks = any(_has(tokenizer, start) and _has(tokenizer, end) for start, end in _THINKING)
    return {"enable_thinking": thinks}


def _has(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    # the whole vocabulary as a dict takes 40 ms of each turn of a chat
    number = tokenizer.convert_tokens_to_ids(token)
    return number is not None and tokenizer.convert_ids_to_tokens(number) == token


def eos_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All ids that end the model's turn, in order: the generation config's, else the config's, else the tokenizer's."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file() and (said := read_json(folder / name).get("eos_token_id")) not in (None, []):
            return tuple(sorted({said} if isinstance(said, int) else set(said)))
    return () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
