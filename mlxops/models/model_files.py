"""Writing a model's folder: the files that mlx-lm and transformers read, and the folder as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import files
from mlxops.errors import Failed, Refused
from mlxops.models.weight_files import disk_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ANOTHER = "`--output` takes another folder; `inv model.remove` removes a model"


@contextmanager
def new_folder(target: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and vanishes when it does not.

    All files are on disk before the folder gets its name; what a killed process left of the same goes first. Raises
    `Refused` if `target` is there already, unless it is to be replaced, and `Failed` where no folder can be made or the
    disk is full.
    """
    if not replaces:
        refuse_existing(target)
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            filling = stack.enter_context(files.scratch_folder(target.parent, f".{target.name}."))
        except OSError as error:
            reason = "it is a file, or a link that leads nowhere" if error.errno == errno.EEXIST else error.strerror
            raise Failed(
                f"no folder can be made in {str(target.parent)!r}: {reason}", hint="choose another place"
            ) from error
        stack.enter_context(disk_errors())
        yield filling
        # safetensors makes its files private; a model is as readable as the folder it is in.
        mode = filling.stat().st_mode & 0o666
        for path in filling.rglob("*"):
            if not path.is_dir():
                with suppress(PermissionError):  # a file system without permissions (FAT) has the same for all
                    path.chmod(mode)
            files.sync(path)
        files.sync(filling)
        if replaces and os.path.lexists(target):
            # one name cannot be exchanged for another everywhere: for a moment there is none, and never half of one
            aside = stack.enter_context(files.scratch_folder(target.parent, f".{target.name}."))
            target.rename(aside / target.name)
        _rename(filling, target)
        files.sync(target.parent)


def place(folder: Path, target: Path) -> None:
    """Give a folder that is filled its name, with all of it on disk before. Raises as `new_folder` does."""
    with disk_errors():
        for path in folder.rglob("*"):
            files.sync(path)
        files.sync(folder)
        _rename(folder, target)
        files.sync(target.parent)


def _rename(filling: Path, target: Path) -> None:
    refuse_existing(target)  # else an empty folder would be replaced
    try:
        filling.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            refuse_existing(target)
        raise


def refuse_existing(target: Path) -> None:
    """Raise `Refused` if there is something of this name, even a link that leads nowhere."""
    if os.path.lexists(target):
        raise Refused(f"{str(target)!r} is there already", hint=_ANOTHER)


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
    # Not with its save(), whose error about a full disk has no class of its own.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
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
