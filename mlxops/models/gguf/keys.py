"""The settings of an architecture in a GGUF file's metadata, asked for one by one.

What was asked for is remembered, so that a setting that nothing here knows is refused: it would change what the model
computes, and nobody would notice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from mlxops import words
from mlxops.errors import BadRequest


class Keys:
    """The metadata below one architecture's name."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata = metadata
        self._prefix = f"{architecture}."
        self._asked: set[str] = set()

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number above 0, or the default."""
        value = self._value(key, default)
        if type(value) is not int or not 0 < value < 1 << 31:
            self._wrong(key, "no whole number above 0")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above 0, or the default; the shortest decimal that is the file's float32: 1e-05."""
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            self._wrong(key, "no number above 0")
        return _short(value)

    def text(self, key: str, default: str) -> str:
        """A text, or the default."""
        value = self._value(key, default)
        if not isinstance(value, str):
            self._wrong(key, "no text")
        return value

    def optional(self, key: str) -> Any:
        """The value as it is, None where there is none."""
        return self._value(key, None)

    def expect(self, key: str, *values: Any) -> None:
        """Refuse the file if the setting is there and none of the values that mlx-lm's model has."""
        there = self._value(key, None)
        if there is not None and not any(_same(there, value) for value in values):
            only = " or ".join(str(value) for value in values)
            raise refusal(f"{self._prefix}{key} is {_shown(there)}, and only {only or 'none'} is the same in mlx-lm")

    def ignore(self, *keys: str) -> None:
        """Settings that change nothing of what is computed."""
        self._asked.update(keys)

    def refuse_others(self) -> None:
        """Refuse the file if it has settings that were not asked for."""
        there = {key.removeprefix(self._prefix) for key in self._metadata if key.startswith(self._prefix)}
        if others := sorted(there - self._asked):
            named = words.listed([f"{self._prefix}{key}" for key in others], 3)
            raise refusal(
                f"its setting {named} is not known" if len(others) == 1 else f"its settings {named} are not known"
            )

    def _value(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        value = self._metadata.get(self._prefix + key, default)
        # A list has a value for each layer, which all may be the same.
        return value[0] if isinstance(value, list) and value and all(each == value[0] for each in value) else value

    def _wrong(self, key: str, reason: str) -> NoReturn:
        there = self._metadata.get(self._prefix + key)
        said = "is not there" if there is None else f"is {reason}: {_shown(there)}"
        raise refusal(f"{self._prefix}{key} {said}")


def refusal(reason: str) -> BadRequest:
    """The error for a file that would compute something else here, or cannot be read."""
    return BadRequest(
        f"this GGUF file cannot be imported: {reason}",
        hint="`inv download-model ID` gets the model itself from the hub",
    )


def _same(there: Any, value: Any) -> bool:
    if isinstance(value, float) and type(there) in (int, float):
        return math.isclose(there, value, rel_tol=1e-4)
    return type(there) is type(value) and bool(there == value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _short(value: float) -> float:
    """The shortest decimal that is this float32, where Python would say 9.999999747378752e-06."""
    import numpy

    return float(str(numpy.float32(value)))
