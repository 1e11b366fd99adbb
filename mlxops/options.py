"""What an option is: a field of a frozen dataclass with its type, help, range and class.

The command line, a YAML recipe and the project's `invoke.yaml` all go through the one check here, so a value that is
wrong is refused in the same words wherever it stood. Nothing here knows Invoke.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from mlxops.errors import BadRequest
from mlxops.likeness import choice_meant, nearest
from mlxops.lists import list_of
from mlxops.texts import check_utf8

C = TypeVar("C")

Role = Literal["weights", "keeping", "target", "naming", "command"]
"""The class of a setting of a run.

`weights` decides the weights, `keeping` watches and keeps, `target` is how far to go, `naming` is where the run stands
and what it is called. `command` is what one command was asked to do: it is never stored, compared or repeated.
"""

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_WORDS |= {list: "a list", dict: "a JSON object"}


def option(
    default: Any,
    help: str,
    *,
    role: Role | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    also: Sequence[float] = (),
    unless: Sequence[float] = (),
    aliases: Sequence[str] = (),
    positional: bool = False,
    on_command_line: bool = True,
    instead_of: str | None = None,
    commas: bool = True,
    path: bool = False,
) -> Any:
    """A dataclass field that is an option.

    `also` are values allowed outside the range and `unless` values refused inside it; `instead_of` names the option
    that this one replaces where both have a value; `commas` False keeps a list's items whole; `path` marks a path. A
    positional without a default is required.
    """
    metadata = {
        "help": help,
        "role": role,
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "below": below,
        "also": tuple(also),
        "unless": tuple(unless),
        "aliases": tuple(aliases),
        "positional": positional,
        "on_command_line": on_command_line,
        "instead_of": instead_of,
        "commas": commas,
        "path": path,
    }
    if positional and default is None:
        return field(metadata=metadata)
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(of: type[C]) -> type[C]:
    """Make a class whose fields are options a frozen dataclass that takes them by name.

    Its methods are shared and not written for each class, as `dataclass` would: every command waits for all classes.
    """
    for name, method in _METHODS.items():
        setattr(of, name, method)
    return dataclass(init=False, repr=False, eq=False)(of)


def _init(self: Any, **values: Any) -> None:
    for each in fields(self):
        if each.name in values:
            value = values.pop(each.name)
        elif each.default_factory is not MISSING:
            value = each.default_factory()
        elif each.default is not MISSING:
            value = each.default
        else:
            raise TypeError(f"{type(self).__name__} needs {each.name!r}")
        self.__dict__[each.name] = value
    if values:
        raise TypeError(f"{type(self).__name__} has no {', '.join(map(repr, values))}")


def _repr(self: Any) -> str:
    return f"{type(self).__name__}({', '.join(f'{each.name}={getattr(self, each.name)!r}' for each in fields(self))})"


def _equals(self: Any, other: Any) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    return all(getattr(self, each.name) == getattr(other, each.name) for each in fields(self))


def _is_frozen(self: Any, name: str, *_: Any) -> None:
    raise FrozenInstanceError(f"{name!r} is a setting, and settings do not change")


_METHODS: dict[str, Any] = {"__init__": _init, "__repr__": _repr, "__eq__": _equals, "__hash__": None}
_METHODS |= {"__setattr__": _is_frozen, "__delattr__": _is_frozen}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option, read from a field: what `option()` was told, and what the annotation says."""

    name: str
    kind: Any
    item: Any
    may_be_none: bool
    choices: tuple[str, ...]
    default: Any
    required: bool
    help: str
    role: Role | None
    at_least: float | None
    at_most: float | None
    above: float | None
    below: float | None
    also: tuple[float, ...]
    unless: tuple[float, ...]
    aliases: tuple[str, ...]
    positional: bool
    on_command_line: bool
    instead_of: str | None
    commas: bool
    path: bool

    @property
    def flag(self) -> str:
        """The option as typed: `--batch-size`."""
        return "--" + self.name.replace("_", "-")

    @property
    def takes(self) -> str:
        """What the option takes, in words: `a whole number at least 1`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return self._range_in_words() if self.kind in (int, float) else _WORDS[self.kind]

    @property
    def full_help(self) -> str:
        """The help text with choices and default."""
        parts = [self.help]
        if self.choices:
            parts.append(f"({', '.join(self.choices)})")
        if self.kind is bool:
            if self.default is True:
                parts.append("(default: yes)")
        elif not self.positional and self.default not in (None, "", [], {}):
            default = ", ".join(map(str, self.default)) if isinstance(self.default, list) else self.default
            parts.append(f"(default: {default})")
        return " ".join(parts)

    def parse(self, text: str) -> Any:
        """The value of a text from the command line. Raises `BadRequest` naming the option and what it takes."""
        value: Any = _number(self.kind, text) if self.kind in (int, float) else text
        return self.check(_json(text) if self.kind is dict else value, self.flag)

    def check(self, value: Any, where: str) -> Any:
        """The value in its type, or `BadRequest` that says what `where` takes."""
        if value is None and self.may_be_none:
            return None
        value = self._converted(value, where)
        is_of_kind = type(value) is self.kind
        if is_of_kind and self.kind is list and self.item in (int, float):
            self._check_numbers(value, where)
        if not is_of_kind or (self.kind is list and not all(type(item) is self.item for item in value)):
            raise BadRequest(f"{where} takes {_WORDS[self.kind]}, not {value!r}")
        check_utf8(value, where)
        if self.kind in (list, dict) and not _is_finite(value):
            raise BadRequest(f"{where} takes finite numbers, not {value!r}")
        if self.choices:
            self._check_choice(value, where)
        elif self.kind is str and not value.strip():
            raise BadRequest(f"{where} takes a text, not {value!r}")
        if self.kind in (int, float) and not self._in_range(value):
            raise BadRequest(f"{where} takes {self._range_in_words()}, not {value!r}")
        return value

    def _converted(self, value: Any, where: str) -> Any:
        """The value in the type that is meant, where what was read is only another spelling of it."""
        if self.kind is float and type(value) is int:
            return float(value)
        if self.kind is float and isinstance(value, str):
            return _number(float, value)  # YAML 1.1, as in invoke.yaml, reads 1e-5 as a text
        if self.kind is int and type(value) is float and value.is_integer():
            return int(value)
        if self.kind is list:
            return self._as_list(value, where)
        return value

    def _as_list(self, value: Any, where: str) -> Any:
        if isinstance(value, str):
            value = list_of(value, where) if self.commas else [value]
        if self.item in (int, float) and isinstance(value, (list, tuple)):
            return [_number(self.item, str(item)) if type(item) in (str, int) else item for item in value]
        return list(value) if isinstance(value, tuple) else value

    def _check_numbers(self, values: Sequence[Any], where: str) -> None:
        wrong = [each for each in values if type(each) is not self.item or not self._in_range(each)]
        if wrong or (self.default and not values):
            shown = repr(wrong[0]) if wrong else "nothing"
            raise BadRequest(f"{where} takes a list, each {self._range_in_words()}, not {shown}")

    def _check_choice(self, value: str, where: str) -> None:
        if value in self.choices:
            return
        near = choice_meant(value, self.choices)
        hint = f"did you mean {near!r}?" if near else None
        raise BadRequest(f"{where} takes one of {', '.join(self.choices)}, not {value!r}", hint=hint)

    def _in_range(self, value: float) -> bool:
        if value in self.also:
            return True
        if not math.isfinite(value) or value in self.unless:
            return False
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _range_in_words(self) -> str:
        bounds = [
            f"{word} {bound:,g}" if abs(bound) < 1e6 else f"{word} {bound:,.0f}"
            for word, bound in (
                ("at least", self.at_least),
                ("above", self.above),
                ("at most", self.at_most),
                ("below", self.below),
            )
            if bound is not None
        ]
        words = " ".join([_WORDS[self.item if self.kind is list else self.kind], " and ".join(bounds)]).strip()
        if self.unless:
            words += f" other than {', '.join(f'{value:g}' for value in self.unless)}"
        if self.also:
            words += f", or {', '.join(f'{value:g}' for value in self.also)}"
        return words


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, (list, tuple)) else True


@cache
def options_of(config_class: type) -> tuple[Option, ...]:
    """The options of a dataclass, in the order of its fields."""
    hints = get_type_hints(config_class)
    found = []
    for entry in fields(config_class):
        kind, item, may_be_none, choices = _read_annotation(hints[entry.name])
        default: Any = None
        if callable(entry.default_factory):
            default = entry.default_factory()
        elif isinstance(entry.default, (int, float, str, bool)):
            default = entry.default
        required = entry.default is MISSING and entry.default_factory is MISSING
        found.append(
            Option(
                name=entry.name,
                kind=kind,
                item=item,
                may_be_none=may_be_none,
                choices=choices,
                default=default,
                required=required,
                **entry.metadata,
            )
        )
    return tuple(found)


def _read_annotation(annotation: Any) -> tuple[type, type, bool, tuple[str, ...]]:
    may_be_none = False
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        may_be_none = len(members) < len(get_args(annotation))
        (annotation,) = members
    if get_origin(annotation) is Literal:
        return str, str, may_be_none, get_args(annotation)
    item = get_args(annotation)[0] if get_origin(annotation) is list else str
    return get_origin(annotation) or annotation, item, may_be_none, ()


def resolve(config_class: type[C], layers: Sequence[tuple[str, Mapping[str, Any]]], *, usual: int = 0) -> C:
    """The dataclass from layers of values, each `(where, values)`, the strongest last; `usual` of them not `asked`.

    `where` is put before the option's name in an error: `""` for the command line (the flag is named), else a file.
    Raises `BadRequest` for an unknown name, a wrong type or a value out of range.
    """
    read_from: Any = config_class  # a type is hashable, which mypy doubts of a type variable's
    known: dict[str, Option] = {each.name: each for each in options_of(read_from)}
    values: dict[str, Any] = {}
    for where, layer in layers:
        for name, value in layer.items():
            if name not in known:
                near = nearest(name, known)
                raise BadRequest(
                    f"{where}: {name!r} is no setting here", hint=f"did you mean {near!r}?" if near else None
                )
            each = known[name]
            values[name] = each.check(value, f"{where}: {name}" if where else each.flag)
            other = each.instead_of
            if other and value is not None and layer.get(other) is not None:
                raise BadRequest(f"{each.flag} and {known[other].flag} say the same thing: give one of them")
        for each in known.values():
            if each.instead_of and layer.get(each.instead_of) is not None and each.name not in layer:
                values.pop(each.name, None)
    settled = config_class(**values)
    object.__setattr__(settled, _GIVEN, frozenset(values))  # no field: it is none of the settings
    object.__setattr__(settled, _ASKED, frozenset(name for _, layer in layers[usual:] for name in layer))
    return settled


_GIVEN, _ASKED = "_given", "_asked"


def given(config: Any) -> frozenset[str]:
    """The settings that a person gave in any layer; of a dataclass made by hand, those that are not the default's."""
    found: frozenset[str] | None = getattr(config, _GIVEN, None)
    if found is not None:
        return found
    read_from: Any = type(config)
    return frozenset(each.name for each in options_of(read_from) if getattr(config, each.name) != each.default)


def asked(config: Any) -> frozenset[str]:
    """Those of them that were given for this command, on the command line or in its recipe."""
    return getattr(config, _ASKED, given(config))


def changed(config: Any, **values: Any) -> Any:
    """Settings with other values, which count as given by a person, as those do that were given before."""
    new = replace(config, **values)
    object.__setattr__(new, _GIVEN, given(config) | values.keys())
    object.__setattr__(new, _ASKED, asked(config) | values.keys())
    return new


def _number(kind: Any, text: str) -> Any:
    """The number that a text is, or the text itself.

    >>> _number(int, "1_000"), _number(float, "1e-5"), _number(int, "ten")
    (1000, 1e-05, 'ten')
    """
    try:
        return kind(text.strip().replace("_", ""))
    except ValueError:
        return text


def _json(text: str) -> Any:
    """The JSON that a text is, or the text itself.

    >>> _json('{"enable_thinking": false}'), _json("yes")
    ({'enable_thinking': False}, 'yes')
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
