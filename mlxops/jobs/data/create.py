"""Files to start from: rows of a format, and a page that explains them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mlxops import files, resources, words
from mlxops.config import CreateDataConfig
from mlxops.data import samples
from mlxops.errors import BadRequest, Failed
from mlxops.options import given
from mlxops.projects.invocation import Invocation


@dataclass(frozen=True, kw_only=True)
class CreatePlan:
    """The files to write, by name, and which of them hold something else now; `typed` is the folder as it is typed."""

    folder: Path
    typed: str
    format: str
    rows: Mapping[str, int]
    texts: Mapping[str, str]
    replaced: tuple[str, ...]
    is_done: bool


@dataclass(frozen=True, kw_only=True)
class CreatedData:
    """The files that were made, with their numbers of rows; `was_there` where they were as they are now."""

    folder: str
    format: str
    rows: Mapping[str, int]
    replaced: Sequence[str]
    was_there: bool


def plan(invocation: Invocation, config: CreateDataConfig) -> CreatePlan:
    """What to write, before anything is. Raises `BadRequest` where the folder cannot be one."""
    project = invocation.project
    is_typed = "output" in given(config)
    folder = (project.cwd if is_typed else project.root) / files.expanded(config.output)
    if file := next((each for each in (folder, *folder.parents) if each.is_file()), None):
        raise BadRequest(f"{project.relative(file)!r} is a file, not a folder", hint="name another `--output`")
    rows = samples.rows(config.format, config.samples, config.seed)
    tenth = max(1, config.samples // 10)
    parts = {
        "train.jsonl": rows[: -2 * tenth],
        "valid.jsonl": rows[-2 * tenth : -tenth],
        "test.jsonl": rows[-tenth:],
    }
    typed = config.output if is_typed else project.relative(folder)
    texts = {
        **{name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part) for name, part in parts.items()},
        "README.md": _readme(config, typed, {name: len(part) for name, part in parts.items()}),
    }
    there = {name: _content(folder / name) for name in texts}
    return CreatePlan(
        folder=folder,
        typed=typed,
        format=config.format,
        rows={name: len(part) for name, part in parts.items()},
        texts=texts,
        replaced=tuple(name for name, text in there.items() if text not in (None, texts[name].encode())),
        is_done=all(there[name] == text.encode() for name, text in texts.items()),
    )


def question(plan: CreatePlan) -> str | None:
    """What to ask before files are replaced; None where none are."""
    if not plan.replaced:
        return None
    return f"replace {words.listed(plan.replaced, 4)} in {plan.typed!r}?"


def create(plan: CreatePlan) -> CreatedData:
    """Write the files, each whole or not at all. Raises `Failed` where that cannot be done."""
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        for name, text in plan.texts.items():
            if not plan.is_done:
                files.write_text(plan.folder / name, text)
    except OSError as error:
        raise Failed(
            f"{plan.typed!r} cannot be written: {error.strerror or error}", hint="name another `--output`"
        ) from error
    return CreatedData(
        folder=plan.typed, format=plan.format, rows=plan.rows, replaced=plan.replaced, was_there=plan.is_done
    )


def _readme(config: CreateDataConfig, typed: str, rows: Mapping[str, int]) -> str:
    template = resources.folder("templates") / "data" / "starter" / "README.md"
    return Template(template.read_text(encoding="utf-8")).substitute(
        format=config.format,
        samples=config.samples,
        seed=config.seed,
        folder=shlex.quote(typed),
        **{name.removesuffix(".jsonl"): f"{count:,}" for name, count in rows.items()},
    )


def _content(file: Path) -> bytes | None:
    """What a file holds, None where there is none; an empty text where it cannot be read, which differs from all."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return b""
