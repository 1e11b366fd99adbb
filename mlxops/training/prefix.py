"""What enters the first trained layer, kept from one pass over the data to the next.

The layers below are a constant function of a batch, and which rows form a batch never changes. A step takes the hidden
state as its input whether it was kept or is computed now by the one function for it, so what is kept changes no bit:
it may be lost, damaged or taken away at any time.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlxops.files import matching
from mlxops.training.forward import Forward

_PARTIAL = ".partial.safetensors"
_BLOCK = 2**20  # bytes


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where hidden states are kept: bytes in memory, and then in files of a folder.

    `identity` names all that a hidden state depends on besides the tokens: model, versions, machine.
    """

    memory: int = 2**28
    disk: int = 0
    folder: Path | None = None
    identity: str = ""


@dataclass
class _Kept:
    """A hidden state that is kept. `array` is None where it is in the file; `uses` are those per iteration."""

    uses: float
    bytes: int
    seconds: float
    array: mx.array | None = None
    file: Path | None = None


class Prefix:
    """The hidden states that enter the first trained layer, by the tokens that they are of."""

    def __init__(self, forward: Forward, room: Room) -> None:
        self._forward, self._room = forward, room
        self._kept: dict[str, _Kept] = {}
        self._rate = 0.0  # seconds that a byte takes to compute
        self.asked = self.found = 0
        self.seconds = self.seconds_saved = 0.0
        if room.folder is not None and room.disk:
            self._take_files(room.folder)

    @property
    def bytes(self) -> int:
        """What is kept, in memory and in files."""
        return sum(each.bytes for each in self._kept.values())

    @property
    def bytes_in_memory(self) -> int:
        """What is kept in memory alone."""
        return sum(each.bytes for each in self._kept.values() if each.file is None)

    def of(self, tokens: np.ndarray, *, uses: float) -> mx.array:
        """The hidden state of tokens of shape (rows, width).

        `uses` is how many times per iteration it will be asked for again, 0 where it will not: it is then not kept.
        """
        self.asked += 1
        key = self._key(tokens)
        kept = self._kept.get(key)
        hidden = None if kept is None else self._read(key, kept)
        if kept is not None and hidden is not None:
            self.found += 1
            self.seconds_saved += kept.seconds or self._rate * kept.bytes
            kept.uses = uses
            if not uses:
                self._drop(key)
            return hidden
        mx.synchronize()  # the update before may still be computed
        started = time.perf_counter()
        # as it comes back from a file: the order of a sum, and so its last bit, follows the layout in memory
        hidden = mx.contiguous(self._forward.hidden(mx.array(tokens)))
        mx.eval(hidden)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self._rate = seconds / hidden.nbytes
        if uses:
            self._keep(key, hidden, uses, seconds)
        return hidden

    def metrics(self) -> dict[str, float]:
        """How many of the batches asked for since the last call were found, what is kept, and the time that it saved.

        `prefix_seconds_saved` is what computing all that was found has taken or would take, in this attempt.
        """
        hits = {"prefix_hits": self.found / self.asked} if self.asked else {}
        self.asked = self.found = 0
        return {**hits, "prefix_bytes": self.bytes, "prefix_seconds_saved": self.seconds_saved}

    def remove(self) -> None:
        """Forget all that is kept, the files too."""
        self._kept.clear()
        if self._room.folder is not None:
            shutil.rmtree(self._room.folder, ignore_errors=True)

    def _key(self, tokens: np.ndarray) -> str:
        named = f"{self._room.identity}/{tokens.shape}/{tokens.dtype}".encode()
        return blake2b(named + np.ascontiguousarray(tokens).tobytes(), digest_size=16).hexdigest()

    def _keep(self, key: str, hidden: mx.array, uses: float, seconds: float) -> None:
        kept = _Kept(uses, hidden.nbytes, seconds)
        if self._make_room(kept, self._room.memory, in_files=False):
            kept.array = hidden
        elif self._room.folder is not None and self._make_room(kept, self._room.disk, in_files=True):
            kept.file = self._write(key, hidden)
        if kept.array is not None or kept.file is not None:
            self._kept[key] = kept

    def _make_room(self, new: _Kept, limit: int, *, in_files: bool) -> bool:
        """Whether there is room for one more, after dropping what is used less often than it."""
        here = {key: each for key, each in self._kept.items() if (each.file is not None) == in_files}
        free = limit - sum(each.bytes for each in here.values())
        out: list[str] = []
        for key in sorted((key for key in here if here[key].uses < new.uses), key=lambda key: here[key].uses):
            if free >= new.bytes:
                break
            out.append(key)
            free += here[key].bytes
        if free < new.bytes:
            return False
        for key in out:
            self._drop(key)
        return True

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key)
        if kept.file is not None:
            _remove(kept.file)

    # ---- files: KEY.CHECKSUM.safetensors ---------------------------------------------------------------------------

    def _take_files(self, folder: Path) -> None:
        """Take what an earlier attempt left, as far as there is room; it is looked at when it is asked for."""
        files = matching(folder, "*.safetensors")
        room = self._room.disk
        for file in files:
            key, _, rest = file.name.partition(".")
            try:
                size = file.stat().st_size
            except OSError:  # another run with these settings has just removed it
                continue
            if file.name.endswith(_PARTIAL) or rest.count(".") != 1 or size > room:
                _remove(file)
                continue
            room -= size
            self._kept[key] = _Kept(uses=0.0, bytes=size, seconds=0.0, file=file)

    def _write(self, key: str, hidden: mx.array) -> Path | None:
        folder = self._room.folder
        assert folder is not None
        partial = folder / f"{key}.{os.getpid()}{_PARTIAL}"  # a run with the same settings may be at work beside
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mx.save_safetensors(str(partial), {"hidden": hidden})
            return partial.rename(folder / f"{key}.{_checksum(partial)}.safetensors")
        except (OSError, RuntimeError):  # a full disk keeps less
            _remove(partial)
            return None

    def _read(self, key: str, kept: _Kept) -> mx.array | None:
        """What is kept; None, and no longer kept, where its file is gone or is not what was written."""
        if kept.file is None:
            return kept.array
        try:
            # the checksum is that of the whole file: what has it is what was written
            if _checksum(kept.file) == kept.file.name.split(".")[1]:
                loaded = mx.load(str(kept.file))
                assert isinstance(loaded, dict)
                hidden: mx.array = loaded["hidden"]
                mx.eval(hidden)
                return hidden
        except (OSError, ValueError, RuntimeError):
            pass
        _remove(kept.file)
        del self._kept[key]
        return None


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _checksum(file: Path) -> str:
    checksum = 0
    # not through a map of the memory, in which a file that gets shorter ends the process
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"
