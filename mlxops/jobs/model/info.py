"""What a model is: architecture, numbers, tokenizer and template, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import registry
from mlxops.config import InfoConfig
from mlxops.errors import MlxopsError
from mlxops.jobs.model import needs
from mlxops.jobs.model.record import recorded
from mlxops.models import conversation, folders, memory
from mlxops.models.folder_files import read_json
from mlxops.models.tokenizer import eos_ids, load_tokenizer
from mlxops.projects.invocation import Invocation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER = "It is four."
_MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": _ANSWER}]


@dataclass(frozen=True, kw_only=True)
class TemplateInfo:
    """A conversation as the chat template writes it, what ends a turn in it, and where generation stops.

    `agrees` is whether generation stops at the token that ends a turn; None where there is no such token.
    """

    conversation: str | None
    end_of_turn: str | None
    stops: tuple[str, ...]
    agrees: bool | None


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """All that `model.info` tells of a model. Memory is in bytes, for so many rows of so many tokens."""

    name: str
    path: str
    type: str
    parameters: int
    layers: int
    hidden_size: int | None
    context_length: int | None
    vocabulary: int | None
    numbers: str
    bytes: int
    source: str | None
    revision: str | None
    verified_at: str | None
    tokenizer: str
    template: TemplateInfo
    rows: int
    width: int
    loading: int
    training: int
    free: int
    notes: tuple[str, ...]

    def to_json(self) -> registry.JsonObject:
        """All of it as values that JSON has."""
        return asdict(self)


def info(invocation: Invocation, config: InfoConfig) -> ModelFacts:
    """What a model is, read from its files; no weights are loaded and no code is run.

    Raises `NotFound` and `BadRequest` as finding and checking a model do.
    """
    project = invocation.project
    folder = folders.find_model(config.model, resolve=project.resolve, models_folder=project.models_folder)
    found = folders.check_model(folder)
    row = recorded(project).get(project.relative(folder))
    tokenizer = load_tokenizer(folder)
    needed = needs.of_shape(memory.shape_of(folder), found.dtype, rows=config.batch_size, width=config.max_seq_length)
    template = _template(folder, tokenizer)
    return ModelFacts(
        name=folder.name,
        path=project.relative(folder),
        type=found.model_type,
        parameters=found.parameters,
        layers=found.layers,
        hidden_size=found.hidden_size,
        context_length=found.context_length,
        vocabulary=found.embedding_rows,
        numbers=found.numbers,
        bytes=found.bytes,
        source=row["source"] if row else None,
        revision=row["revision"] if row else None,
        verified_at=row["verified_at"] if row else None,
        tokenizer=f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens",
        template=template,
        rows=config.batch_size,
        width=config.max_seq_length,
        loading=needed.loading,
        training=needed.training,
        free=needs.room(),
        notes=tuple(_notes(folder, template)),
    )


def _template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> TemplateInfo:
    ends = eos_ids(folder, tokenizer)
    stops = tuple(str(tokenizer.convert_ids_to_tokens(each)) for each in ends)
    if not conversation.has_template(tokenizer):
        return TemplateInfo(conversation=None, end_of_turn=None, stops=stops, agrees=None)
    text = conversation.render(tokenizer, _MESSAGES)
    behind = text.rpartition(_ANSWER)[2] if _ANSWER in text else ""
    ids = tokenizer.encode(behind, add_special_tokens=False)
    added = [each for each in ids if each in tokenizer.added_tokens_decoder]
    end = added[0] if added else None
    return TemplateInfo(
        conversation=text,
        end_of_turn=None if end is None else str(tokenizer.convert_ids_to_tokens(end)),
        stops=stops,
        agrees=None if end is None else end in ends,
    )


def _notes(folder: Path, template: TemplateInfo) -> list[str]:
    notes = []
    if folders.is_of_pictures(folder):
        notes.append("this model also takes pictures or sound: here its language part is trained, asked and fused")
    said = {name: _eos(folder / name) for name in ("generation_config.json", "config.json")}
    given = {name: ids for name, ids in said.items() if ids}
    if len({tuple(ids) for ids in given.values()}) > 1:
        both = "; ".join(f"{name}: {', '.join(map(str, ids))}" for name, ids in given.items())
        notes.append(f"eos_token_id differs ({both}): generation_config.json decides")
    if template.agrees is False:
        notes.append(
            f"a turn ends with {template.end_of_turn!r}, at which generation does not stop: add it to eos_token_id in "
            "generation_config.json"
        )
    if template.conversation is None:
        notes.append("there is no chat template: rows of text train it, and `chat` gives it plain text")
    return notes


def _eos(file: Path) -> list[int]:
    try:
        content: Mapping[str, Any] = read_json(file) if file.is_file() else {}
    except MlxopsError:
        return []
    value = content.get("eos_token_id")
    return sorted(value) if isinstance(value, list) else [] if value is None else [value]
