"""Writing a model's folder: the files that mlx-lm and transformers read, and the folder as a whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import files
from mlxops.errors import Failed, Refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and vanishes when it does not.

    All files are on disk before the folder gets its name. Raises `Refused` if `target` is there already,
    and `Failed` where no folder can be made.
    """
    refuse_existing(target)
    filling = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        filling.mkdir(parents=True)
    except OSError as error:
        raise Failed(
            f"no folder can be made in {str(target.parent)!r}: {error.strerror}", hint="choose another place"
        ) from error
    try:
        yield filling
        # safetensors makes its files private; a model is as readable as the folder it is in.
        mode = filling.stat().st_mode & 0o666
        for path in filling.iterdir():
            path.chmod(mode)
            files.sync(path)
        files.sync(filling)
        refuse_existing(target)
        filling.rename(target)
        files.sync(target.parent)
    finally:
        shutil.rmtree(filling, ignore_errors=True)


def refuse_existing(target: Path) -> None:
    """Raise `Refused` if there is something of this name, even a link that leads nowhere."""
    if os.path.lexists(target):
        raise Refused(f"{str(target)!r} is there already", hint="choose another name, or remove it first")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as people read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    special_tokens: Mapping[str, str],
    chat_template: str | None,
    context_length: int,
) -> None:
    """Write a tokenizer's files; `special_tokens` goes by role: `bos_token`, `eos_token`, `pad_token`, `unk_token`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    configuration = {
        # This class takes tokenizer.json as it is; a model's own class may put its own pre-tokenizer in its place.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        **special_tokens,
    }
    write_json(folder / "tokenizer_config.json", configuration)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
