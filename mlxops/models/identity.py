"""What a model is, as a hash: two folders with the same identity compute the same bits.

In it are the files that decide the computation: configuration, weights, tokenizer, chat template, own code. Not in it:
`generation_config.json`, which only steers generation, the weights' index, which mlx-lm does not read, and texts.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxops.errors import NotFound
from mlxops.files import matching

DECIDING = (
    "config.json",
    "hf_quant_config.json",
    "model*.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.tiktoken",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "*.py",
)

_CHUNK = 1 << 22

# A file can change twice within one tick of the file system's clock; one this young is not remembered.
_SETTLED_SECONDS = 2.0


def model_identity(folder: Path, cache_file: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """The SHA-256 over names and SHA-256 of the files that decide what a model computes.

    `cache_file` remembers hashes by path, size, time and inode; losing or damaging it costs time only. `progress` is
    told the bytes read and the bytes to read, of files whose hash is not known.
    """
    files = matching(folder, *DECIDING)
    if not files:
        raise NotFound(f"no model in {str(folder)!r}", hint="name the folder that holds config.json")
    stamps = {file: _stamp(file) for file in files}
    cache = _read_cache(cache_file)
    hashes = {file: known for file in files if (known := _known_hash(cache, file, stamps[file]))}
    unknown = [file for file in files if file not in hashes]
    total = sum(stamps[file]["size"] for file in unknown)
    done = 0
    for file in unknown:
        digest = hashlib.sha256()
        for chunk in _chunks(file):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        hashes[file] = digest.hexdigest()
    if unknown:
        _remember(cache_file, {file: {**stamps[file], "sha256": hashes[file]} for file in unknown})
    lines = [f"{file.relative_to(folder).as_posix()}\0{hashes[file]}\n" for file in files]
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def _stamp(file: Path) -> dict[str, int]:
    status = file.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def _known_hash(cache: dict[str, Any], file: Path, stamp: dict[str, int]) -> str | None:
    entry = cache.get(str(file.resolve()))
    if not isinstance(entry, dict) or any(entry.get(name) != value for name, value in stamp.items()):
        return None
    known = entry.get("sha256")
    return known if isinstance(known, str) and len(known) == 64 else None


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _read_cache(cache_file: Path) -> dict[str, Any]:
    try:
        content = json.loads(cache_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(cache_file: Path, entries: dict[Path, dict[str, Any]]) -> None:
    settled = time.time_ns() - int(_SETTLED_SECONDS * 1e9)
    fresh = {str(file.resolve()): entry for file, entry in entries.items() if entry["mtime_ns"] < settled}
    if not fresh:
        return
    # Read again: another process may have added to it meanwhile. What is lost between the two is hashed again.
    content = json.dumps({**_read_cache(cache_file), **fresh}, indent=1)
    unfinished = cache_file.with_name(f".{cache_file.name}.{secrets.token_hex(4)}")
    with suppress(OSError):
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_text(content, encoding="utf-8")
            unfinished.replace(cache_file)
        finally:
            unfinished.unlink(missing_ok=True)
