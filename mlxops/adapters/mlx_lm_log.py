"""What `mlx_lm.lora` printed, line by line: today's table, and the `Iter N:` lines of the versions before.

A log is no format: colours, progress bars that a carriage return draws over, other programs' lines and broken UTF-8
stand in it. What is no line of mlx-lm's is passed over. What it all amounts to is put together elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOKED_FOR = "`Iter 10: Train loss 2.345, …` or the table `iter  train_loss  tok/s  tokens`"
"""The lines a log is known by, for a person."""

_CHUNK = 1 << 20
_LONGEST = 1 << 14  # bytes of a line of mlx-lm's at the very most; what is longer is another's
_READ = 1 << 10  # letters of a line that are looked at, colours not among them
_GIGABYTE = 1_000_000_000
MOST = 10**12
"""The largest iteration, or other count, that is believed."""
_MOST_MEMORY = 10**9  # gigabytes
_MOST_RATE = 1e9

_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d*)?(?:[eE][-+]?\d+)?|[nN]a[nN]|[iI]nf)"
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_BREAKS = re.compile(rb"[\r\n]+")

# yesterday's lines; a logger may have put a time before them
_ITER = re.compile(r"(?:^|[\s\]|])Iter:? (\d+): (.+)")
_FIELD = re.compile(
    r"(Train loss|Val loss|Val took|Learning Rate|It/sec|Tokens/sec|Trained Tokens|Peak mem)"
    rf" ({_NUMBER})(?=,|s\b|\s|$)"
)
_SAVED = re.compile(r"Saved adapter weights to ")
_STARTS = re.compile(r"Starting training\.*, iters: (\d+)")
_ENDS = re.compile(r"Saved final (?:adapter )?weights to ")
_LOADED = re.compile(r"Loading (?:fine-tuned weights|pretrained adapters) from (.+)")

# today's table; the arrow may be lost to another encoding
_ROW = re.compile(rf"\s*(\d+)\s{{2,}}({_NUMBER}) [^\d\s]{{1,4}}\s+({_NUMBER})\s+({_NUMBER})k\s*")
_VALIDATION = re.compile(rf"\s*(\d+)\s+val\s+({_NUMBER})\s+({_NUMBER})s\s*")
_SAVE = re.compile(r"\s*save\s+(\d+)_adapters\.safetensors\s*")
_HEADING = re.compile(r"\s*iter\s+train_loss\s+tok/s\s+tokens\s*")
_BAR = re.compile(r"\s*train\s[^%]*\d%\D*(\d[\d,]*)/(\d[\d,]*)\s*")
_PANEL = re.compile(r"[│|]\s+(model|type|dataset|optimizer|batch \S+ iters|max seq)\s{2,}(\S.*)[│|]")

_METRICS = {
    "Train loss": "train_loss",
    "Val loss": "validation_loss",
    "Learning Rate": "learning_rate",
    "It/sec": "iterations_per_second",
    "Tokens/sec": "tokens_per_second",
    "Trained Tokens": "trained_tokens",
    "Peak mem": "peak_memory",
}
_COMPLETE = re.compile(rb"(?:GB|\ds|\dk|\.safetensors|\.npz)\.?\s*$")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A report or a validation: its metrics by the registry's names and units, the seconds it says it took."""

    iteration: int
    metrics: dict[str, float]
    seconds: float | None = None

    @property
    def is_validation(self) -> bool:
        """Whether it is a validation and no report of training."""
        return "validation_loss" in self.metrics


@dataclass(frozen=True, kw_only=True)
class Begins:
    """A training is about to begin: its target, and the settings that are said here, by the names of `LoraConfig`."""

    target: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Iterations are done for certain; `target` where it is said, `is_end` after the last weights are written."""

    iteration: int | None = None
    target: int | None = None
    is_end: bool = False


Said = Point | Begins | Reached


def read(path: Path, progress: Callable[[int], None] = lambda done: None) -> Iterator[tuple[str, Said]]:
    """Every line of mlx-lm's in a file, as it stands there without colours, and what it says.

    Reads on in pieces, however large the file; `progress` hears the bytes read so far. A last line that has no end yet
    counts only where nothing can be missing from it.
    """
    for line in _lines(path, progress):
        text = plain(line.decode("utf-8", "replace"))[:_READ]
        said = parse(text)
        if said is not None:
            yield text.strip(), said


def head(path: Path, count: int) -> list[str]:
    """The first lines of a file that are not empty, for a person to see."""
    found: list[str] = []
    with path.open("rb") as file:
        for line in _BREAKS.split(file.read(_LONGEST)):
            text = plain(line.decode("utf-8", "replace")).strip()
            if text and len(found) < count:
                found.append("".join(each if each.isprintable() else "?" for each in text[:120]))
    return found


def plain(text: str) -> str:
    """Text without what only a terminal obeys.

    >>> plain("\\x1b[2K  \\x1b[1;32msave\\x1b[0m")
    '  save'
    """
    return _ANSI.sub("", text) if "\x1b" in text else text


def parse(text: str) -> Said | None:
    """What one line says, None for a line of something else.

    >>> parse("Iter 1: Val loss 2.681, Val took 24.8s")
    Point(iteration=1, metrics={'validation_loss': 2.681}, seconds=24.8)
    """
    if found := _ITER.search(text):
        return _iter_line(_count(found[1]), found[2])
    if found := _VALIDATION.fullmatch(text):
        return _point(_count(found[1]), {"validation_loss": _number(found[2])}, _number(found[3]))
    if found := _ROW.fullmatch(text):
        iteration, loss, rate, tokens = found.groups()
        values = {"train_loss": loss, "tokens_per_second": rate}
        metrics = {name: _number(value) for name, value in values.items()}
        return _point(_count(iteration), {**metrics, "trained_tokens": _number(tokens) * 1000}, None)
    if found := _SAVE.fullmatch(text):
        return _reached(found[1])
    if found := _BAR.fullmatch(text):
        return _reached(*found.groups())
    if found := _PANEL.fullmatch(text.strip()):
        return _panel(found[1], found[2].rstrip())
    return _rare(text)


def _rare(text: str) -> Said | None:
    if "Loading pretrained model" in text or _HEADING.fullmatch(text):
        return Begins()
    if found := _STARTS.search(text):
        return Begins(target=_count(found[1]))
    if found := _LOADED.search(text):
        return Begins(adapter=found[1].strip())
    return Reached(is_end=True) if _ENDS.search(text) else None


def _iter_line(iteration: int | None, rest: str) -> Said | None:
    if _SAVED.match(rest):
        return None if iteration is None else Reached(iteration=iteration)
    said = {name: _number(value) for name, value in _FIELD.findall(rest)}
    metrics = {_METRICS[name]: value for name, value in said.items() if name in _METRICS}
    if "train_loss" not in metrics and "validation_loss" not in metrics:
        return None
    if "peak_memory" in metrics:
        metrics["peak_memory"] = _bytes(metrics["peak_memory"])
    return _point(iteration, metrics, said.get("Val took"))


def _point(iteration: int | None, metrics: dict[str, float], seconds: float | None) -> Point | None:
    """A point of what can be believed, None where the iteration cannot."""
    if iteration is None:
        return None
    tokens = metrics.pop("trained_tokens", None)
    kept = {
        name: value for name, value in metrics.items() if not name.endswith("_per_second") or 0 < value < _MOST_RATE
    }
    if tokens is not None and 0 <= tokens <= MOST * 1000:
        kept["trained_tokens"] = round(tokens)
    is_time = seconds is not None and 0 < seconds < _MOST_RATE
    return Point(iteration=iteration, metrics=kept, seconds=seconds if is_time else None)


def _reached(iteration: str, target: str | None = None) -> Reached | None:
    done, wanted = _count(iteration), None if target is None else _count(target)
    return None if done is None or (target is not None and wanted is None) else Reached(iteration=done, target=wanted)


def _bytes(gigabytes: float) -> float:
    return round(gigabytes * _GIGABYTE) if 0 <= gigabytes <= _MOST_MEMORY else math.nan


def _panel(label: str, value: str) -> Begins | None:
    """A line of the box in which a training says its settings."""
    parts = re.split(r"\s+\W\s+", value)
    settings: dict[str, Any] = {}
    target = None
    if label in ("model", "dataset"):
        settings["data" if label == "dataset" else "model"] = value
    elif label == "optimizer":
        settings["optimizer"] = parts[0]
        if found := re.search(rf"lr ({_NUMBER})(?!\S)", value):
            settings["learning_rate"] = _number(found[1])
    elif label == "max seq":
        settings["max_seq_length"] = _count(value)
    elif label == "type":
        settings["fine_tune_type"] = parts[0]
        for name, pattern in (("num_layers", r"(-?\d+) layers"), ("lora_rank", r"rank (\d+)")):
            if found := re.search(pattern, value):
                settings[name] = -1 if found[1] == "-1" else _count(found[1])
    elif len(parts) == 2:
        settings["batch_size"], target = map(_count, parts)
    known = {name: each for name, each in settings.items() if each is not None}
    return Begins(target=target, settings=known) if known or target is not None else None


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _count(text: str) -> int | None:
    """A whole number, None for what is none or past belief."""
    digits = text.replace(",", "")
    return int(digits) if digits.isdecimal() and len(digits) <= _READ and int(digits) <= MOST else None


def _lines(path: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    """The lines of a file, in whichever way they end, without those that are far too long."""
    rest, done = b"", 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            *whole, rest = _BREAKS.split(rest + chunk)
            yield from (line for line in whole if line and len(line) <= _LONGEST)
            rest = rest[: _LONGEST + 1]
            done += len(chunk)
            progress(done)
    if _COMPLETE.search(rest) and len(rest) <= _LONGEST:
        yield rest
