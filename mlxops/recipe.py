"""Reading a recipe: the YAML of `mlx_lm.lora`, and our own names for the same settings.

mlx-lm nests some settings and counts its schedule in optimizer updates; here all are flat and count iterations. What
changes on the way, or has no meaning here, is said in a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlxops.config import LoraConfig, older_names
from mlxops.config.mlx_lm_options import WITHOUT_EFFECT, cache_limit
from mlxops.config.other_names import OTHER_NAMES
from mlxops.errors import BadRequest, InvalidData, NotFound
from mlxops.likeness import nearest
from mlxops.options import options_of

_OPTIONS = {option.name: option for option in options_of(LoraConfig)}

_WITHOUT_MEANING = {
    **WITHOUT_EFFECT,
    "trust_remote_code": "a file cannot allow that; `--trust-remote-code` on the command line does",
}
_NESTED = {
    "lora_parameters": {
        "rank": "lora_rank",
        "scale": "lora_scale",
        "dropout": "lora_dropout",
        "keys": "lora_keys",
    },
    "lr_schedule": {
        "name": "lr_schedule",
        "warmup": "warmup",
        "warmup_init": "warmup_init",
        "arguments": "lr_schedule_arguments",
    },
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings in a recipe, by the names of `LoraConfig`, and what a person should know about them."""

    values: dict[str, Any]
    notes: tuple[str, ...]


def read(file: Path, *, below: Mapping[str, Any] | None = None, above: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a YAML file.

    `below` and `above` are the weaker and stronger settings: a recipe alone does not say how many iterations make an
    optimizer update. Raises `BadRequest` for one problem and `InvalidData` for several, each with its line.
    """
    reading = _Reading(file.name)
    root = _compose(file)
    if root is not None:
        for key, line, node in reading.pairs(root, "the recipe"):
            reading.take(key.replace("-", "_"), line, node)
    _take_older_names(reading, below or {}, above or {})
    reading.raise_problems()
    _count_iterations(reading, below or {}, above or {})
    return Recipe(values=reading.values, notes=tuple(reading.notes))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as mlx-lm reads it: 1e-5 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _compose(file: Path) -> yaml.Node | None:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFound(f"there is no recipe {str(file)!r}", hint="`--config` takes a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"the recipe {str(file)!r} cannot be read: {error}", hint="it is YAML in UTF-8") from None
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadRequest(f"{file.name}:{line}: not YAML: {error.problem}", hint="one `key: value` a line") from None
    except yaml.YAMLError as error:
        raise BadRequest(f"{file.name}: not YAML: {error}".replace("\n", " "), hint="one `key: value` a line") from None


@dataclass
class _Reading:
    """What was read so far, and every problem met: they are raised together."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    schedule_lines: dict[str, int] = field(default_factory=dict)
    older: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Settings under names of older versions, with their lines: what they say depends on others."""

    def pairs(self, node: yaml.Node, what: str) -> list[tuple[str, int, yaml.Node]]:
        """The keys of a table with their lines and values; a key that stands there twice is a problem."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node.start_mark.line + 1, f"{what} takes a table of settings, not {_value(node)!r}")
            return []
        seen: dict[str, int] = {}
        found = []
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                self.problem(line, f"{key} stands here again after line {seen[key]}")
            else:
                found.append((key, line, value_node))
            seen.setdefault(key, line)
        return found

    def problem(self, line: int, text: str) -> None:
        """Remember what is wrong at a line."""
        self.problems.append(f"{self.name}:{line}: {text}")

    def raise_problems(self) -> None:
        """Raise what was wrong, if anything was."""
        if len(self.problems) == 1:
            raise BadRequest(self.problems[0])
        if self.problems:
            raise InvalidData(f"{self.name} has {len(self.problems)} problems", self.problems)

    def take(self, key: str, line: int, node: yaml.Node) -> None:
        """Take one setting, in mlx-lm's name for it or in ours."""
        value = _value(node)
        if key in _NESTED and not isinstance(value, str):
            self._take_nested(key, node, value)
        elif key in _WITHOUT_MEANING:
            if value not in (None, False):
                self.notes.append(f"{key} is ignored: {_WITHOUT_MEANING[key]}")
        elif key == "clear_cache_threshold":
            self._take_threshold(line, value)
        elif key in (older_names.LAYERS, older_names.DORA):
            if value is not None:
                self.older[key] = line, value
        elif key == "resume_adapter_file":
            if value is not None:
                self._set("adopt", line, value, key)
        elif key not in _OPTIONS:
            known = [*_OPTIONS, *_NESTED, *_WITHOUT_MEANING, "clear_cache_threshold", "resume_adapter_file"]
            self.problem(line, f"{key} is no setting{_meant(key) or _did_you_mean(key, known)}")
        elif key != "config" and value is not None:
            self._set(key, line, value, key)

    def _take_nested(self, key: str, node: yaml.Node, value: Any) -> None:
        if value is None:
            return
        for name, line, inner in self.pairs(node, key):
            inner_value = _value(inner)
            name = name.replace("-", "_")
            if key == "lora_parameters" and name == older_names.ALPHA:
                if inner_value is not None:
                    self.older[name] = line, inner_value
            elif name not in _NESTED[key]:
                self.problem(line, f"{key} has no {name}{_did_you_mean(name, _NESTED[key])}")
            elif inner_value is not None:
                if key == "lr_schedule":
                    self.schedule_lines[name] = line
                self._set(_NESTED[key][name], line, inner_value, f"{key}.{name}")
        if key == "lr_schedule" and self.schedule_lines and "name" not in self.schedule_lines:
            self.problem(node.start_mark.line + 1, "lr_schedule needs a name, e.g. cosine_decay")

    def checked(self, setting: str, line: int, value: Any, where: str) -> Any:
        """A value as that of a setting; None with the problem remembered where it cannot be one."""
        try:
            return _OPTIONS[setting].check(value, where)
        except BadRequest as error:
            self.problem(line, error.message + (f" ({error.hint})" if error.hint else ""))
            return None

    def _set(self, setting: str, line: int, value: Any, where: str) -> None:
        found = self.checked(setting, line, value, where)
        if found is not None:
            self.values[setting] = found

    def _take_threshold(self, line: int, value: Any) -> None:
        try:
            limit = cache_limit(value, "clear_cache_threshold")
        except BadRequest as error:
            self.problem(line, error.message)
            return
        if limit is not None:
            self.notes.append(f"clear_cache_threshold is taken as cache_limit, {limit:.3g} GiB")
            self.values.setdefault("cache_limit", limit)


def _value(node: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError:
        return getattr(node, "value", None)
    finally:
        loader.dispose()


def _meant(key: str) -> str | None:
    """What another program's name is here."""
    other = OTHER_NAMES.get(key.replace("_", "-"))
    if other is None:
        return None
    name = other.option.lstrip("-").replace("-", "_")
    if other.sentence or name not in _OPTIONS:
        return f": {other.hint}"
    here = f"{name}: {other.value}" if other.value else name
    return f": {here} is the one for that" + (f" ({other.note})" if other.note else "")


def _did_you_mean(word: str, known: Any) -> str:
    near = nearest(word, known)
    return f" (did you mean {near}?)" if near else ""


# older names --------------------------------------------------------------------------------------------------------


def _take_older_names(reading: _Reading, below: Mapping[str, Any], above: Mapping[str, Any]) -> None:
    """Turn what older versions of mlx-lm called otherwise into the settings of today, which count where both stand."""
    values, older = reading.values, reading.older
    for name, setting in ((older_names.LAYERS, "num_layers"), (older_names.DORA, "fine_tune_type")):
        if name not in older:
            continue
        line, said = older[name]
        if name == older_names.DORA and not isinstance(said, bool):
            reading.problem(line, f"{name} takes true or false, not {said!r}")
        elif setting in values:
            reading.notes.append(f"{name} is ignored: {setting}, its name of today, says {values[setting]}")
        elif said is not False:
            value = reading.checked(setting, line, "dora" if name == older_names.DORA else said, name)
            if value is not None:
                values[setting] = value
                reading.notes.append(f"{name} is taken as {setting}: {value}")
    if older_names.ALPHA in older:
        _take_alpha(reading, int(_strongest("lora_rank", above, values, below)))


def _take_alpha(reading: _Reading, rank: int) -> None:
    line, said = reading.older[older_names.ALPHA]
    alpha = reading.checked("lora_scale", line, said, "lora_parameters.alpha")
    if alpha is None:
        return
    scale = reading.values.get("lora_scale")
    factor = older_names.scale_of(scale, alpha, rank)
    how = f"alpha {alpha:g} / rank {rank}" if scale is None else f"scale {scale:g} × alpha {alpha:g} / rank {rank}"
    reading.notes.append(
        f"lora_parameters.alpha, of older versions of mlx-lm: lora_scale is {factor:g} ({how}); without alpha, "
        "scale is the factor itself"
    )
    reading.values["lora_scale"] = factor


# the schedule -------------------------------------------------------------------------------------------------------


def _count_iterations(reading: _Reading, below: Mapping[str, Any], above: Mapping[str, Any]) -> None:
    """Turn what mlx-lm's `lr_schedule` says in optimizer updates into iterations."""
    lines, values = reading.schedule_lines, reading.values
    if "arguments" in lines:
        _split_arguments(reading, lines["arguments"])
        reading.raise_problems()
    iterations = int(_strongest("grad_accumulation_steps", above, values, below))
    if not lines or iterations == 1:
        return
    changes = []
    if values.get("warmup") and "warmup" in lines:
        changes.append(f"warmup {values['warmup']} is {values['warmup'] * iterations}")
        values["warmup"] *= iterations
    arguments = values.get("lr_schedule_arguments", [])
    place, convert = _PER_UPDATE.get(values.get("lr_schedule", ""), (len(arguments), _times))
    if "arguments" in lines and place < len(arguments):
        before, arguments[place] = arguments[place], convert(arguments[place], iterations)
        changes.append(f"the schedule's {before:g} is {arguments[place]:g}")
    if changes:
        reading.notes.append(
            f"mlx-lm counts a schedule in optimizer updates, here of {iterations} iterations each: {', '.join(changes)}"
        )


def _strongest(name: str, *layers: Mapping[str, Any]) -> Any:
    """The value of a setting in the first layer that has it, else its default."""
    option = _OPTIONS[name]
    return next((option.check(layer[name], name) for layer in layers if name in layer), option.default)


def _split_arguments(reading: _Reading, line: int) -> None:
    """The first argument of mlx-lm's schedules is the rate they start from: our learning rate."""
    rate, *others = reading.values["lr_schedule_arguments"] or [None]
    reading.values["lr_schedule_arguments"] = others
    try:
        rate = _OPTIONS["learning_rate"].check(rate, "the first of lr_schedule.arguments, the learning rate,")
    except BadRequest as error:
        reading.problem(line, error.message)
        return
    written = reading.values.get("learning_rate", rate)
    if written != rate:
        reading.notes.append(f"learning_rate is {rate:g}, the first of the schedule's arguments, and not {written:g}")
    reading.values["learning_rate"] = rate


def _times(count: float, iterations: int) -> float:
    return count * iterations


def _root(factor: float, iterations: int) -> float:
    return factor ** (1 / iterations)


# Which of a schedule's arguments, the initial rate aside, counts updates or is a factor an update.
_PER_UPDATE = {
    "cosine_decay": (0, _times),
    "linear_schedule": (1, _times),
    "step_decay": (1, _times),
    "exponential_decay": (0, _root),
}
