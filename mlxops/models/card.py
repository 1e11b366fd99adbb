"""The model card of a fused or converted model, `README.md`: what is known of it, and what is not.

Names of files go in and paths do not: a card is read by others than those who may know a person's folders.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops import files

_FENCE = "---"
_OF_LICENCE = ("license", "license_name", "license_link")
_LICENCE_FILES = ("LICENSE*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True, kw_only=True)
class BaseCard:
    """What a base model's folder tells for the card: its licence as the hub's field has it, files of it, a hub id."""

    name: str
    hub_id: str | None
    licence: Mapping[str, str]
    licence_files: tuple[str, ...]
    languages: tuple[str, ...]


def read_base(folder: Path, *, name: str, hub_id: str | None) -> BaseCard:
    """What the base model's own card and files say; nothing is made up where they say nothing."""
    said = _front_matter(folder / "README.md")
    languages = said.get("language")
    if isinstance(languages, str):
        languages = [languages]
    return BaseCard(
        name=name,
        hub_id=hub_id,
        licence={key: str(said[key]) for key in _OF_LICENCE if isinstance(said.get(key), str)},
        licence_files=tuple(file.name for file in files.matching(folder, *_LICENCE_FILES)),
        languages=tuple(each for each in languages or () if isinstance(each, str)),
    )


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that a card says. `settings` and `results` are labels with values as a person reads them."""

    name: str
    base: BaseCard
    kind: str
    how: str
    settings: Sequence[tuple[str, str]]
    data: Sequence[str]
    results: Sequence[tuple[str, str]]
    check: Sequence[tuple[str, str]]
    has_modelfile: bool


def text(card: Card) -> str:
    """The card: metadata as the hub reads it, then the words."""
    base = card.base
    parts = [
        f"# {card.name}",
        f"A fine-tuning of {_named(base)} ({card.kind}), {card.how}.",
        "## Licence",
        _licence(base),
        "## Data",
        "\n".join(card.data) if card.data else "What it was trained on is not recorded.",
        "## Training",
        _table(("setting", "value"), card.settings) if card.settings else "How it was trained is not recorded.",
        "## Results",
        _table(("measure", "value"), card.results) if card.results else "No results of the training are recorded.",
        "### Against base model and adapter",
        _table(("measure", "value"), card.check)
        if card.check
        else "Whether it says the same as base model and adapter was not checked.",
        "Nothing else was measured: neither what it does beyond data like its own, nor whether what it says is right, "
        "fair or safe.",
        "## Use",
        _use(card.name),
    ]
    if card.has_modelfile:
        parts.append("The `Modelfile` is for Ollama: `ollama create NAME` in this folder.")
    return _metadata(base, ["mlx", card.kind.lower()]) + "\n\n".join(parts) + "\n"


def converted(name: str, base: BaseCard, numbers: str) -> str:
    """The card of a model that is another one with other numbers; `numbers` says with which."""
    parts = [
        f"# {name}",
        f"{_named(base)}, converted for MLX: {numbers}. What it says was not compared with the original.",
        "## Licence",
        _licence(base),
        "## Use",
        _use(name),
    ]
    return _metadata(base, ["mlx"]) + "\n\n".join(parts) + "\n"


def _named(base: BaseCard) -> str:
    return f"[{base.hub_id}](https://huggingface.co/{base.hub_id})" if base.hub_id else f"`{base.name}`"


def _use(name: str) -> str:
    return f'```sh\nmlx_lm.generate --model {shlex.quote(name)} --prompt "…"\n```'


def _licence(base: BaseCard) -> str:
    files = ", ".join(f"`{name}`" for name in base.licence_files)
    if base.licence:
        said = base.licence.get("license_name") or base.licence["license"] if "license" in base.licence else "named"
        link = f" ({base.licence['license_link']})" if "license_link" in base.licence else ""
        return f"That of the base model: {said}{link}." + (f" Its text is in {files}." if files else "")
    if files:
        return f"That of the base model: {files}."
    return "That of the base model, which its folder did not name. Find out before you share this model."


def _metadata(base: BaseCard, tags: Sequence[str]) -> str:
    import yaml

    fields: dict[str, Any] = dict(base.licence)
    if base.languages:
        fields["language"] = list(base.languages)
    if base.hub_id:
        fields["base_model"] = base.hub_id
    fields |= {"library_name": "mlx", "pipeline_tag": "text-generation", "tags": list(tags)}
    return f"{_FENCE}\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}{_FENCE}\n\n"


def _table(header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [header, ("---", "---"), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _front_matter(file: Path) -> dict[str, Any]:
    """The metadata of a model card; nothing where there is none that can be read."""
    import yaml

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    if not lines or lines[0].strip() != _FENCE or _FENCE not in (rest := [line.strip() for line in lines[1:]]):
        return {}
    try:
        said = yaml.safe_load("\n".join(lines[1 : 1 + rest.index(_FENCE)]))
    except yaml.YAMLError:
        return {}
    return said if isinstance(said, dict) else {}
