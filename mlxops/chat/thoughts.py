"""Telling a model's thoughts from its words while both come in, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MARKS = (
    ("<think>", "</think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|channel>thought", "<channel|>"),
)
"""What opens and what closes a thought, by the families of models there are."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of an answer, and whether it is thought or said."""

    text: str
    is_thought: bool = False


class ThoughtSplitter:
    """Divides the text of one answer. A mark may come in several pieces; it is in neither part.

    `prompt` is what the model resumes from: where that opens a thought, the answer begins inside it.
    """

    def __init__(self, prompt: str = "") -> None:
        ending = prompt.rstrip()
        opened = next((marks for marks in MARKS if ending.endswith(marks[0])), None)
        self._close = opened[1] if opened else None
        self._waiting = ""
        self._is_fresh = True
        self._has_spoken = False

    def feed(self, text: str) -> Iterator[Part]:
        """The parts that are certain once this text has come."""
        self._waiting += text
        while self._waiting:
            # a thought opens an answer; further on a mark is a word like any other
            if self._close is None and not self._may_open():
                yield from self._part(self._waiting)
                self._waiting = ""
                return
            marks = [self._close] if self._close else [start for start, _ in MARKS]
            place, mark = min(
                ((self._waiting.find(mark), mark) for mark in marks if mark in self._waiting), default=(-1, "")
            )
            if place < 0:
                certain = len(self._waiting) - _begun(self._waiting, marks)
                yield from self._part(self._waiting[:certain])
                self._waiting = self._waiting[certain:]
                return
            yield from self._part(self._waiting[:place])
            self._waiting = self._waiting[place + len(mark) :]
            self._close = None if self._close else dict(MARKS)[mark]
            self._is_fresh = True

    def _may_open(self) -> bool:
        """Whether what waits may be the beginning of a thought: white space, then a mark or a part of one."""
        text = self._waiting.lstrip()
        return not self._has_spoken and any(text.startswith(start) or start.startswith(text) for start, _ in MARKS)

    def finish(self) -> Iterator[Part]:
        """What is left, once the answer has ended."""
        rest, self._waiting = self._waiting, ""
        yield from self._part(rest)

    def _part(self, text: str) -> Iterator[Part]:
        if self._is_fresh:  # the blank lines after a mark belong to it
            text = text.lstrip("\n")
        if text:
            self._is_fresh = False
            self._has_spoken |= self._close is None and bool(text.strip())
            yield Part(text=text, is_thought=self._close is not None)


class Words:
    """The null object of a `ThoughtSplitter`: all is said."""

    def feed(self, text: str) -> Iterator[Part]:
        """The text as it is."""
        yield Part(text=text)

    def finish(self) -> Iterator[Part]:
        """Nothing is held back."""
        yield from ()


def _begun(text: str, marks: list[str]) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    longest = max(map(len, marks)) - 1
    return next(
        (
            length
            for length in range(min(longest, len(text)), 0, -1)
            if any(mark.startswith(text[-length:]) for mark in marks)
        ),
        0,
    )
