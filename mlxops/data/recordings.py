"""What a chat template writes for plain conversations, put together without running the template each time.

A template is run on texts that note what it does with them: where it writes them, what it makes of them (`strip`), and
what it asks of them (does one contain `</think>`?). For another conversation of the same roles that gives the same
answers the template does the same, so its text is put together from the notes.

What cannot be noted (a content that is sorted, or written as JSON) leaves the rendering to the template. A recording
counts once it gave, letter by letter, what the template itself wrote for two conversations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from operator import eq, ne
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import jinja2

Contents = Sequence[str]
Write = Callable[[Contents], str]
Question = tuple[Write, Callable[[str], object], object]
Shape = Hashable
Variables = Callable[[Sequence[Any]], Mapping[str, Any]]
Message = Mapping[str, Any]

_PLAIN = {"role", "content", "weight"}
_OF_ONE_SHAPE = 8  # recordings that differ in the answers of their texts
_MOST = 2000
_ATTEMPTS = 3
_PROOFS = 2
_LOST = "\ufdd0"  # no character: stands where a text was written into another that is not noted, and never matches


class _CannotBeNotedError(BaseException):
    """The template does with a text what has no note. Nothing in the engine handles it."""


class Recordings:
    """The recordings of one template; none where the template is of a kind that cannot be recorded."""

    def __init__(self, template: jinja2.Template | None) -> None:
        self._template = template
        self._known: dict[Shape, list[_Recording]] = {}
        self._failed: Counter[Shape] = Counter()
        self._count = 0

    def shape(self, messages: Sequence[Message], is_prompt: bool) -> Shape:
        """What recordings are found by; None for conversations that have more than roles and contents."""
        if self._template is None or not messages:
            return None
        shape = (is_prompt, *[(message["role"], *message) for message in messages])
        if shape not in self._known and not all(message.keys() <= _PLAIN for message in messages):
            return None
        return shape

    def text(self, shape: Shape, messages: Sequence[Message]) -> str | None:
        """What the template writes, None where no recording tells."""
        known = self._known.get(shape)
        if known is None:
            return None
        contents = [message["content"] for message in messages]
        for recording in known:
            if recording.proofs >= _PROOFS and (text := recording.text(contents)) is not None:
                return text
        return None

    def learn(self, shape: Shape, messages: Sequence[Message], text: str, variables: Variables) -> None:
        """Compare what is known of a shape with the text that the template wrote, and record what is not known.

        `variables` makes what the template is given of texts in place of the contents.
        """
        contents = [message["content"] for message in messages]
        known = self._known.setdefault(shape, [])
        for recording in known:
            if (found := recording.text(contents)) is not None:
                recording.proofs += 1
                if found != text:
                    self._template = None
                return
        if len(known) >= _OF_ONE_SHAPE or self._failed[shape] >= _ATTEMPTS or self._count >= _MOST:
            return
        made = _record(self._template, contents, variables)
        if made is None or made.text(contents) != text:
            self._failed[shape] += 1
            return
        made.proofs = 1
        known.append(made)
        self._count += 1


@dataclass
class _Recording:
    """The parts of a text, and the questions that decide whether it has these parts.

    In place of a part that is a content stands its place; `made` parts come from contents some other way.
    """

    parts: list[str]
    contents: list[tuple[int, int]]
    made: list[tuple[int, Write]]
    questions: list[Question]
    proofs: int = 0
    ends_in_text: bool = False

    def add(self, piece: str | Write, content: int | None) -> None:
        """Add a piece of the text; `content` is the place of the content that it is."""
        if isinstance(piece, str) and self.ends_in_text:
            self.parts[-1] += piece
            return
        self.ends_in_text = isinstance(piece, str)
        if content is not None:
            self.contents.append((len(self.parts), content))
        elif not isinstance(piece, str):
            self.made.append((len(self.parts), piece))
        self.parts.append(piece if isinstance(piece, str) else _LOST)

    def text(self, contents: Contents) -> str | None:
        """The text for other contents, None where one of them gives another answer."""
        for write, question, answer in self.questions:
            if question(write(contents)) != answer:
                return None
        parts = self.parts.copy()
        for place, content in self.contents:
            parts[place] = contents[content]
        for place, write in self.made:
            parts[place] = write(contents)
        return "".join(parts)


@lru_cache(maxsize=8)
def noting(compiled: jinja2.Template, source: str) -> jinja2.Template:
    """A template that notes what it does with contents; `compiled` is made of the same source."""
    environment: Any = compiled.environment.overlay(finalize=_finalized)
    environment.concat = _joined
    # an overlay shares these with the original
    environment.filters = {name: _of_noted(each, _FILTERS.get(name)) for name, each in environment.filters.items()}
    environment.tests = {name: _of_noted(each, _TESTS.get(name)) for name, each in environment.tests.items()}
    template: jinja2.Template = environment.from_string(source)
    return template


def _record(template: jinja2.Template | None, contents: Contents, variables: Variables) -> _Recording | None:
    recording = _Recording([], [], [], [])
    noted = [_Noted(text, [_of(place)], recording.questions) for place, text in enumerate(contents)]
    places = {text.pieces[0]: place for place, text in enumerate(noted)}
    try:
        for part in template.generate(**variables(noted)) if template else ():
            for piece in _pieces(part):
                recording.add(piece, places.get(piece))
    except (_CannotBeNotedError, Exception):  # the template itself said before what is wrong with a row
        return None
    return recording


def _of(place: int) -> Write:
    return lambda contents: contents[place]


class _Written(str):
    """What is written in place of a text; only where it comes out as it went in is it found again."""

    noted: _Noted

    def __str__(self) -> str:
        return self


class _Noted:
    """A text, the pieces that it is put together from, and where is noted what is asked of it."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str, pieces: list[str | Write], questions: list[Question]) -> None:
        self.text, self.pieces, self.questions = text, pieces, questions

    def _write(self) -> Write:
        """How the text comes from the contents."""
        pieces = self.pieces
        if len(pieces) == 1 and not isinstance(only := pieces[0], str):
            return only
        return lambda contents: "".join([piece if isinstance(piece, str) else piece(contents) for piece in pieces])

    def _made(self, method: Callable[..., str], *given: object) -> _Noted:
        write = self._write()
        _check_plain(given)
        return _Noted(method(self.text, *given), [lambda contents: method(write(contents), *given)], self.questions)

    def _asked(self, question: Callable[..., object], *given: object) -> Any:
        _check_plain(given)
        answer = question(self.text, *given)
        self.questions.append((self._write(), lambda text: question(text, *given), answer))
        return answer

    def strip(self, *characters: object) -> _Noted:
        return self._made(str.strip, *characters)

    def lstrip(self, *characters: object) -> _Noted:
        return self._made(str.lstrip, *characters)

    def rstrip(self, *characters: object) -> _Noted:
        return self._made(str.rstrip, *characters)

    def replace(self, *words: object) -> _Noted:
        return self._made(str.replace, *words)

    def split(self, *by: object) -> list[_Noted]:
        count = self._asked(lambda text, *by: len(text.split(*by)), *by)
        return [self._made(lambda text, *by, place=place: text.split(*by)[place], *by) for place in range(count)]

    def startswith(self, *words: object) -> bool:
        return bool(self._asked(str.startswith, *words))

    def endswith(self, *words: object) -> bool:
        return bool(self._asked(str.endswith, *words))

    def __contains__(self, words: object) -> bool:
        return bool(self._asked(str.__contains__, words))

    def __eq__(self, other: object) -> bool:
        return bool(self._asked(eq, other))

    def __ne__(self, other: object) -> bool:
        return bool(self._asked(ne, other))

    def __bool__(self) -> bool:
        return bool(self._asked(bool))

    def __add__(self, other: object) -> _Noted:
        return _Noted(self.text + _text(other), [*self.pieces, *_pieces(other)], self.questions)

    def __radd__(self, other: object) -> _Noted:
        return _Noted(_text(other) + self.text, [*_pieces(other), *self.pieces], self.questions)

    def __getitem__(self, place: object) -> _Noted:
        if not isinstance(place, slice):  # whether a text is long enough decides what else the template writes
            raise _CannotBeNotedError
        return self._made(lambda text: text[place])

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise _CannotBeNotedError

    __str__ = __repr__ = __format__ = __len__ = __iter__ = __mod__ = __mul__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _CannotBeNotedError


def _is_noted(value: object) -> bool:
    return isinstance(value, _Noted)


def _finalized(value: object) -> object:
    """What the engine writes in place of a value."""
    if not isinstance(value, _Noted):
        return value
    written = _Written(_LOST)
    written.noted = value
    return written


def _joined(parts: Iterable[object]) -> object:
    """What a macro or a block of the template wrote, as one text."""
    written = list(parts)
    noted = [part.noted if isinstance(part, _Written) else part for part in written]
    questions = next((part.questions for part in noted if isinstance(part, _Noted)), None)
    if questions is None:
        return "".join(map(str, written))
    return _Noted("".join(map(_text, written)), [piece for part in written for piece in _pieces(part)], questions)


def _text(part: object) -> str:
    """The text of a part of what the template writes."""
    noted = part.noted if isinstance(part, _Written) else part
    if isinstance(noted, str | _Noted):
        return noted.text if isinstance(noted, _Noted) else noted
    raise _CannotBeNotedError


def _pieces(part: object) -> list[str | Write]:
    """The pieces that a part is put together from."""
    noted = part.noted if isinstance(part, _Written) else part
    if isinstance(noted, str | _Noted):
        return noted.pieces if isinstance(noted, _Noted) else [noted]
    raise _CannotBeNotedError


def _check_plain(given: Iterable[object]) -> None:
    if not all(each is None or isinstance(each, str | tuple | int) for each in given):
        raise _CannotBeNotedError


def _of_noted(function: Callable[..., Any], instead: Callable[..., Any] | None) -> Callable[..., Any]:
    """A filter or test of the engine that does with noted texts what is known of it, and nothing else."""

    @wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        if any(map(_is_noted, (*given, *named.values()))):
            if instead is None:
                raise _CannotBeNotedError
            return instead(*given, **named)
        return function(*given, **named)

    return called


def _default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    if not _is_noted(value):
        raise _CannotBeNotedError
    return other if boolean and not value else value


_FILTERS: Mapping[str, Callable[..., Any]] = {
    "trim": lambda value, chars=None: value.strip(chars),
    "replace": lambda _, value, *words: value.replace(*words),
    "default": _default,
    "d": _default,
}
_TESTS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("string", "defined", "iterable", "sequence"), lambda _: True),
    **dict.fromkeys(("mapping", "number", "none", "undefined", "boolean", "integer", "float"), lambda _: False),
}
