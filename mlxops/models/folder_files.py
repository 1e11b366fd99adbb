"""Reading the files of a model's folder: what stands in for a file, or cannot be read, is named for what it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mlxops.errors import BadRequest

AGAIN = "get the model again; a download may have broken off"

_HEAD = 64
_POINTERS = (
    (re.compile(rb"version https://(git-lfs|hawser)\.github\.com/spec/"), "a Git LFS pointer", "git lfs pull"),
    (re.compile(rb"/annex/objects/"), "a git-annex pointer", "git annex get ."),
)
_PAGE = re.compile(rb"\s*<(!doctype html|html|head)", re.IGNORECASE)
_PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an error of the system about a model's file or folder into a `BadRequest` that names it."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        reason = error.strerror or str(error)
        raise BadRequest(
            f"{os.fspath(place)} cannot be read: {reason}", hint="`ls -ld` shows to whom it belongs and who may read it"
        ) from error


def check_file(file: Path) -> None:
    """Raise `BadRequest` for what has a file's name but not its content.

    That is a link that leads nowhere, a pointer of Git LFS or git-annex, a web page, a folder, or a file that may not
    be read.
    """
    with opened(file):
        pass


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """A file of a model's folder, open at its beginning. Raises as `check_file` does."""
    with readable(file):
        try:
            mode = file.stat().st_mode
        except OSError:
            if not file.is_symlink() or file.exists():
                raise
            raise BadRequest(
                f"{file} is a link that leads nowhere ({file.readlink()})",
                hint="get the model again: the file that it leads to was removed, or never downloaded",
            ) from None
        if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
            raise BadRequest(f"{file} is not a file", hint="get the model again")
        with file.open("rb") as stream:
            _check_head(file, stream.read(_HEAD))
            stream.seek(0)
            yield stream


def _check_head(file: Path, head: bytes) -> None:
    """Refuse what stands in for a file, by its first bytes."""
    for pattern, what, command in _POINTERS:
        if pattern.match(head):
            folder = shlex.quote(str(file.parent))
            download = command.replace("git ", f"git -C {folder} ", 1)
            raise BadRequest(
                f"{file} is {what}, not the file itself", hint=f"`{download}` downloads it; or get the model again"
            )
    if _PAGE.match(head):
        raise BadRequest(
            f"{file} is a web page, saved in place of the file",
            hint="on the hub a file's address has /resolve/ where its page's has /blob/",
        )


def is_pickle(file: Path) -> bool:
    """Whether a file begins as the weights that PyTorch pickles do."""
    with readable(file), file.open("rb") as stream:
        return _PICKLE.match(stream.read(_HEAD)) is not None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file with an object in it, or `BadRequest` with the line."""
    with opened(file) as stream:
        text = stream.read()
    try:
        content = json.loads(text.decode())
    except json.JSONDecodeError as error:
        raise BadRequest(f"{file}:{error.lineno}: not JSON: {error.msg}", hint=AGAIN) from None
    except UnicodeDecodeError:
        raise BadRequest(f"{file} is not UTF-8 text", hint="get the model again") from None
    except (RecursionError, ValueError) as error:  # nested too deep, or a number of too many digits
        raise BadRequest(f"{file} cannot be read as JSON: {error}", hint="get the model again") from None
    if not isinstance(content, dict):
        raise BadRequest(f"{file} holds no JSON object", hint="get the model again")
    return content


def check_object(file: Path) -> None:
    """Raise `BadRequest` where a JSON file, however large, does not begin and end as an object does."""
    with opened(file) as stream:
        head = stream.read(_HEAD)
        stream.seek(-min(_HEAD, stream.seek(0, os.SEEK_END)), os.SEEK_END)
        tail = stream.read()
    if not head.lstrip().startswith(b"{") or not tail.rstrip().endswith(b"}"):
        raise BadRequest(f"{file} holds no whole JSON object", hint=AGAIN)
