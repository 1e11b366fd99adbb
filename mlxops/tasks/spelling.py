"""The older toolkit's spellings, rewritten to ours before Invoke parses them: positionals, lists, short flags.

Only `mlx-toolkit` does this. A spelling is one line in a table; a task without one is left as it was typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invoke import Collection

from mlxops.options import Option


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How a task could be typed: `positionals` are options given as bare words, `flags` other names of options.

    `needless` flags ask for what happens anyway, and are left out. `words` are flags that stand for a word, and
    `prefixes` flags whose value is a word with something before it.
    """

    positionals: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    needless: frozenset[str] = frozenset()
    words: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)


_LORA = Spelling(
    positionals=("model", "data"),
    flags={"-m": "--model", "-o": "--output", "-i": "--iters"},
    needless=frozenset({"--resume"}),
)
_CHAT = Spelling(positionals=("model",), flags={"-m": "--model"})
_FINETUNE = Spelling(positionals=("model", "data"), flags={"-m": "--model", "-o": "--output"})
_TEST = Spelling(positionals=("data",), flags={"-m": "--model", "-o": "--output"})
_MONITOR = Spelling(flags={"-l": "--live", "-r": "--refresh"})
# Left as it is, -f is Invoke's own for a settings file, and ends in a traceback.
_MODELS = Spelling(flags={"-s": "--search", "-f": "--filter"})
_DOWNLOAD = Spelling(positionals=("id",), flags={"-o": "--output"})
_SQL = Spelling(
    flags={"-p": "--param", "-f": "--format"},
    words={"--list": ".queries", "--schema": ".schema"},
    prefixes={"--query": "@"},
)
_CREATE_DATA = Spelling(flags={"-f": "--format", "-s": "--samples", "-o": "--output"})
_CHECKPOINTS = Spelling(flags={"-p": "--path"})
_DEBUG_CHECKPOINTS = Spelling(flags={"-p": "--dir", "-i": "--target-iters"})

SPELLINGS: Mapping[str, Spelling] = {
    "lora": _LORA,
    "train.lora": _LORA,
    "finetune": _FINETUNE,
    "train.finetune": _FINETUNE,
    "chat": _CHAT,
    "eval.chat": _CHAT,
    "query": _CHAT,
    "eval.query": _CHAT,
    "test": _TEST,
    "eval.test": _TEST,
    "monitor": _MONITOR,
    "train-monitor": _MONITOR,
    "train.monitor": _MONITOR,
    "status": _MONITOR,
    "project.status": _MONITOR,
    "download-model": _DOWNLOAD,
    "model.download": _DOWNLOAD,
    "models": _MODELS,
    "model.list": _MODELS,
    "create-training-data": _CREATE_DATA,
    "data.create": _CREATE_DATA,
    "sql": _SQL,
    "run.sql": _SQL,
    "checkpoints": _CHECKPOINTS,
    "train.checkpoints": _CHECKPOINTS,
    "debug-checkpoints": _DEBUG_CHECKPOINTS,
    "train.debug-checkpoints": _DEBUG_CHECKPOINTS,
}


def rewrite(argv: Sequence[str], namespace: Collection) -> list[str]:
    """The arguments, without the program's name, in the spelling that Invoke parses.

    A word that is both a path and a task is what the task before it still lacks: `lora models` trains the model
    `models` if such a folder is there, and lists the models else.
    """
    words = list(argv)
    starts = [place for place, word in enumerate(words) if _is_task(word, namespace)]
    if not starts:
        return words
    rewritten, place = words[: starts[0]], starts[0]
    while place < len(words):
        task = namespace[words[place]]
        rewritten.append(words[place])
        spelling = SPELLINGS.get(words[place], Spelling())
        place = _rewrite_task(words, place + 1, task, spelling, namespace, rewritten)
    return rewritten


def _rewrite_task(
    words: Sequence[str], place: int, task: Any, spelling: Spelling, namespace: Collection, rewritten: list[str]
) -> int:
    """Rewrite the arguments of one task; returns the place of the next task's name."""
    flags = _flags(task)
    known = {*flags, *spelling.flags, *spelling.needless, *spelling.words, *spelling.prefixes}
    required = [option for option in getattr(task, "options", ()) if option.positional]
    positionals = list(spelling.positionals)
    repeating: Option | None = None
    while place < len(words):
        word, place = _next_word(words, place, spelling)
        if word.startswith("-") and word != "-":
            flag, equals, value = word.partition("=")
            flag = spelling.flags.get(flag, flag)
            repeating = None
            if flag in spelling.needless:
                continue
            option = flags.get(flag)
            rewritten.append(flag + equals + value)
            if option and option.name in positionals:
                positionals.remove(option.name)
            required = [each for each in required if each is not option]
            has_value = place < len(words) and words[place].partition("=")[0] not in known
            if option and option.kind is not bool and not equals and has_value:
                rewritten.append(words[place])
                place += 1
                repeating = option if option.kind is list else None
        elif required:
            required.pop(0)
            rewritten.append(word)
        elif _is_task(word, namespace) and not (positionals and Path(word).exists()):
            return place - 1
        elif repeating:
            rewritten += [repeating.flag, word]
        elif positionals:
            rewritten += [f"--{positionals.pop(0).replace('_', '-')}", word]
        else:
            rewritten.append(word)
    return place


def _next_word(words: Sequence[str], place: int, spelling: Spelling) -> tuple[str, int]:
    """The word at a place, or the one that a flag stands for; and the place after it."""
    flag, equals, value = words[place].partition("=")
    if words[place] in spelling.words:
        return spelling.words[flag], place + 1
    if flag in spelling.prefixes and equals:
        return spelling.prefixes[flag] + value, place + 1
    if flag in spelling.prefixes and place + 1 < len(words):
        return spelling.prefixes[flag] + words[place + 1], place + 2
    # a text that begins with a comment is no flag, which Invoke would take it for
    is_comment = words[place].startswith("--") and words[place][2:3].isspace()
    return (" " if is_comment else "") + words[place], place + 1


def _flags(task: Any) -> dict[str, Option]:
    found = {}
    for option in getattr(task, "options", ()):
        found[option.flag] = option
        found.update({(f"-{alias}" if len(alias) == 1 else f"--{alias}"): option for alias in option.aliases})
    return found


def flags_of(task: Any, name: str) -> dict[str, Option]:
    """The options of a task by everything that they can be typed as."""
    found = _flags(task)
    others = SPELLINGS.get(name, Spelling()).flags
    return found | {typed: found[flag] for typed, flag in others.items() if flag in found}


def positionals_of(name: str, options: Sequence[Option]) -> list[Option]:
    """The options that the older toolkit took as bare words, in their order."""
    named = {option.name: option for option in options}
    return [named[each] for each in SPELLINGS.get(name, Spelling()).positionals if each in named]


def _is_task(word: str, namespace: Collection) -> bool:
    return not word.startswith("-") and word in namespace.task_names
