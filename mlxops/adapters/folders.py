"""What is in an adapter folder, whoever made it: files told by their names, headers read, numbers looked at.

Reads alone and needs no MLX. What cannot be read comes back as a sentence, never as an exception: a folder may be
damaged, another person's, or vanish while it is looked at. What it all means is the business of `findings.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import tensors
from mlxops.layout import SETTINGS, Kind, recognise

if TYPE_CHECKING:
    import numpy


UNREADABLE = "may not be read by this user"
"""The problem of a file or folder that is there and closed to this user."""

_NOT_LOOKED_INTO = frozenset({"node_modules", "site-packages", "__pycache__", "venv", "env"})


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file as its name and its entry in the folder tell. `modified` is seconds since 1970."""

    name: str
    kind: Kind
    recognised: str
    iteration: int | None = None
    bytes: int = 0
    modified: float = 0.0
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The files of a folder, sorted by name; `problem` where it could not be listed."""

    folder: Path
    files: tuple[Found, ...] = ()
    problem: str | None = None

    def of(self, *kinds: Kind) -> tuple[Found, ...]:
        """The files of some kinds."""
        return tuple(each for each in self.files if each.kind in kinds)

    @property
    def is_adapter_folder(self) -> bool:
        """Whether any file here is one of training."""
        return any(each.kind in ("weights", "state", "offered", "settings") for each in self.files)

    def named(self, name: str) -> Found | None:
        """The file of that name."""
        return next((each for each in self.files if each.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file of arrays says of itself: (dtype, shape) by name, and its metadata; `problem` where it is broken."""

    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


def look(folder: Path) -> Contents:
    """List a folder by names, sizes and times. A file that vanishes meanwhile is not there."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if (each := _found(entry)) is not None:
                    found.append(each)
    except OSError as error:
        return Contents(folder=folder, problem=_words(error))
    return Contents(folder=folder, files=tuple(sorted(found, key=lambda each: each.name)))


def _found(entry: os.DirEntry[str]) -> Found | None:
    kind, words, iteration = recognise(entry.name)
    try:
        if entry.is_dir():
            return None
        facts = entry.stat()
    except FileNotFoundError as error:
        if not entry.is_symlink():
            return None
        return Found(name=entry.name, kind=kind, recognised=words, iteration=iteration, problem=_words(error, "link"))
    except OSError as error:
        return Found(name=entry.name, kind=kind, recognised=words, iteration=iteration, problem=_words(error))
    return Found(
        name=entry.name,
        kind=kind,
        recognised=words,
        iteration=iteration,
        bytes=facts.st_size,
        modified=facts.st_mtime,
        problem=None if facts.st_size else "is empty",
    )


def discover(root: Path) -> Iterator[Contents]:
    """Every adapter folder at or below a folder, and every folder that cannot be listed.

    Links are not followed: what they lead to is found where it is, or is outside. Hidden folders and environments of
    Python are passed over.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        below: list[Path] = []
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith(".") and entry.name not in _NOT_LOOKED_INTO:
                            below.append(Path(entry.path))
                    elif recognise(entry.name)[0] != "other" and (each := _found(entry)) is not None:
                        found.append(each)
        except OSError as error:
            yield Contents(folder=folder, problem=_words(error))
            continue
        contents = Contents(folder=folder, files=tuple(sorted(found, key=lambda each: each.name)))
        if contents.is_adapter_folder:
            yield contents
        waiting += sorted(below, reverse=True)


def read_header(path: Path) -> Header:
    """The header of a safetensors or npz file. Its bytes are counted against what the header promises, not read."""
    return _npz_header(path) if path.suffix == ".npz" else _safetensors_header(path)


def _safetensors_header(path: Path) -> Header:
    import safetensors

    try:
        # safe_open says of a file that may not be read that it is not there
        with path.open("rb"), safetensors.safe_open(path, framework="np") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # it is no mapping
            shapes = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
            return Header(tensors=shapes, metadata=opened.metadata() or {})
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        return Header(problem=_words(error))


def _npz_header(path: Path) -> Header:
    import zipfile

    try:
        return Header(tensors={name: (str(array.dtype), tuple(array.shape)) for name, array in _npz_arrays(path)})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        return Header(problem=_words(error))


def _npz_arrays(path: Path) -> Iterator[tuple[str, numpy.ndarray]]:
    import numpy

    # NumPy leaves a file open that it opened itself and could not read
    with path.open("rb") as file, numpy.load(file, allow_pickle=False) as opened:
        for name in opened.files:
            yield name, opened[name]


def not_finite(path: Path) -> tuple[str, ...] | str:
    """The names of the arrays that hold a NaN or an infinity, or why the file cannot be read through."""
    import zipfile

    import numpy

    try:
        if path.suffix == ".npz":
            return tuple(name for name, array in _npz_arrays(path) if not numpy.isfinite(array).all())
        return tuple(
            name
            for name, tensor in tensors.read_header(path).tensors.items()
            if any(
                _has_not_finite(tensor.dtype, numpy.frombuffer(piece, numpy.uint8))
                for piece in tensors.read_bytes(path, tensor)
            )
        )
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        return _words(error)


_EXPONENTS = {"F16": ("uint16", 0x7C00), "BF16": ("uint16", 0x7F80), "F32": ("uint32", 0x7F800000)}


def _has_not_finite(dtype: str, data: numpy.ndarray) -> bool:
    """Whether an array holds a number whose exponent is all ones; NumPy has no bfloat16 to ask."""
    if dtype == "F64":
        return _exponent_is_full(data, "uint64", 0x7FF0000000000000)
    if dtype not in _EXPONENTS:
        return False
    return _exponent_is_full(data, *_EXPONENTS[dtype])


def _exponent_is_full(data: numpy.ndarray, bits: str, mask: int) -> bool:
    whole = data.view(bits)
    return bool(((whole & whole.dtype.type(mask)) == mask).any())


def read_settings(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """What `adapter_config.json` says, or why it says nothing; (None, None) where there is none."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, RecursionError) as error:
        return None, _words(error)
    if not isinstance(settings, dict):
        return None, "is no table of settings"
    return settings, None


def is_of_peft(folder: Path) -> bool:
    """Whether PEFT made what is in a folder, as unsloth, axolotl and transformers do: mlx-lm reads none of it."""
    settings, _ = read_settings(folder)
    return "peft_type" in (settings or {}) or any(
        (folder / f"adapter_model{suffix}").exists() for suffix in (".safetensors", ".bin")
    )


def _words(error: Exception, what: str = "") -> str:
    """A failure to read, in words that follow the name of what was to be read."""
    if isinstance(error, FileNotFoundError):
        return "is a link to nothing" if what == "link" else "is gone"
    if isinstance(error, PermissionError):
        return UNREADABLE
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {next(iter(str(error).splitlines()), type(error).__name__)}"
