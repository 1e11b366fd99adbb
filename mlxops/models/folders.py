"""Models on disk: finding a folder by what a person typed, and checking that it is a whole model. No MLX here."""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlxops import files
from mlxops.errors import BadRequest, NotFound
from mlxops.likeness import nearest
from mlxops.models.folder_files import check_file, check_object, read_json, readable
from mlxops.models.identity import DECIDING
from mlxops.models.loader_errors import own_code
from mlxops.models.weight_headers import (
    INDEX,
    Tensors,
    count_alike,
    count_layers,
    count_parameters,
    embedding_rows,
    learned_positions,
    main_dtype,
    read_headers,
    weight_files,
)

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")

# The same thing goes by several names over the years.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length")
_VOCABULARY = ("vocab_size", "n_vocab")
_CHECKED = re.compile(
    "|".join(
        fnmatch.translate(each)
        for each in (*DECIDING, "generation_config.json", INDEX)
        if "/" not in each and each != "*.py"
    )
)
_READ = re.compile(r"(config|generation_config|tokenizer|tokenizer_config)\.json|model.*\.safetensors(\.index\.json)?")
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model is, from its files alone. `dtype` is that of most of its unpacked numbers.

    `embedding_rows` is how many token ids it has an embedding for, `learned_positions` how many positions, None where
    positions are computed and so have no end.
    """

    model_type: str
    layers: int
    vocab_size: int | None
    hidden_size: int | None
    quantization: Mapping[str, Any] | None
    parameters: int
    bytes: int
    dtype: str
    chat_template: bool
    embedding_rows: int | None
    learned_positions: int | None
    context_length: int | None

    @property
    def packing(self) -> str | None:
        """How many bits a quantized model has, from the fewest of a matrix to the most; None for all others."""
        if not self.quantization:
            return None
        said, mode = self.quantization, self.quantization.get("mode", "affine")
        tables = [said, *(value for value in said.values() if isinstance(value, Mapping))]
        bits = sorted({each["bits"] for each in tables if isinstance(each.get("bits"), int)})
        several = f"{bits[0]} to {bits[-1]} bits" if len(bits) > 1 else f"{bits[0] if bits else '?'} bits"
        return several + (f" ({mode})" if mode != "affine" else "")

    @property
    def numbers(self) -> str:
        """What the weights are made of, in words."""
        return self.packing or self.dtype


class CheckedModel(NamedTuple):
    """What a model is, and what was read for that: its config.json and the headers of its weights."""

    info: ModelInfo
    config: Mapping[str, Any]
    tensors: Tensors


def list_models(models_folder: Path) -> list[str]:
    """The names of the models in a folder, in order; broken links among them.

    Raises `BadRequest` where the folder may not be read.
    """
    if not models_folder.is_dir():
        return []
    with readable(models_folder):
        names = [folder.name for folder in models_folder.iterdir()]
    return sorted(name for name in names if not name.startswith(".") and _may_be_model(models_folder / name))


def _may_be_model(folder: Path) -> bool:
    """Whether there is a config.json, or nobody can look whether there is one: no right to, or a broken link."""
    try:
        (folder / "config.json").lstat()
    except PermissionError:
        return True
    except OSError:
        return folder.is_symlink() and not folder.exists()
    return True


def find_model(
    text: str | None, *, resolve: Callable[[str], Path], models_folder: Path, hub_cache: Path | None = None
) -> Path:
    """The folder of the model a person means: a path or name that `resolve` finds, else an id in the hub's cache.

    `hub_cache` None is the hub's own folder. Nothing is downloaded: what is not here is `NotFound`.
    """
    there = _names_for_hints(models_folder)
    choice = f"models/ has {', '.join(there)}" if there else "`inv download-model ID` fetches one"
    if text is None:
        raise BadRequest("no model given", hint=f"`--model` takes a folder or a name; {choice}")
    folder = resolve(text)
    with readable(folder):
        _refuse_dangling(folder, models_folder / text)
        if folder.is_dir():
            return folder
        if folder.exists():
            raise BadRequest(f"the model {text!r} is a file, not a folder", hint=_hint_for_file(folder))
    if _HUB_ID.fullmatch(text):
        cached = _in_hub_cache(text, hub_cache)
        if cached is not None:
            return cached
    if "/" in text and _HUB_ID.fullmatch(text):
        choice = f"`inv download-model {text}` fetches it from the hub"
    elif near := nearest(text, there):
        choice = f"did you mean {near!r}? {choice}"
    raise NotFound(f"no model {text!r}", hint=choice)


def _names_for_hints(models_folder: Path) -> list[str]:
    try:
        return list_models(models_folder)
    except BadRequest:
        return []


def _refuse_dangling(*places: Path) -> None:
    for place in places:
        if place.is_symlink() and not place.exists():
            check_file(place)


def _hint_for_file(file: Path) -> str:
    if file.suffix == ".gguf":
        return "`inv model.import` makes a model folder of a GGUF file"
    return "name the folder that holds config.json"


def _in_hub_cache(name: str, hub_cache: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=hub_cache)
    except HFValidationError:  # no id that the hub could have
        return None
    return Path(found).parent if isinstance(found, str) else None


def check_model(folder: Path, *, trust_remote_code: bool = False) -> ModelInfo:
    """What the model in a folder is, having checked that mlx-lm can take it and that its files are whole.

    Reads the small files and the headers of the weights; no code is run. Raises `BadRequest` that says what is wrong
    and where, also for a model that needs code from its folder, unless that is trusted.
    """
    return check_with_headers(folder, trust_remote_code=trust_remote_code).info


def check_with_headers(folder: Path, *, trust_remote_code: bool = False, parses_tokenizer: bool = True) -> CheckedModel:
    """The same with its configuration and the headers, for who would read them again. Raises as `check_model` does.

    The vocabulary is most of what would be read. Unless it is parsed, only its beginning and its end are looked at.
    """
    with readable(folder):
        if not folder.is_dir():
            _refuse_dangling(folder)
            raise NotFound(f"no folder {str(folder)!r}", hint="`inv models` shows those there are")
        _check_files(folder)
        config = _read_config(folder)
        _check_architecture(config, folder, trust_remote_code)
        tensors = read_headers(folder)
        _check_tokenizer(folder, parses=parses_tokenizer)
        size = sum(file.stat().st_size for file in weight_files(folder))
    kinds = count_alike(tensors)
    text_config = {**config, **_table(config, "text_config", folder)}
    quantization = _table(config, "quantization", folder) or _table(config, "quantization_config", folder)
    info = ModelInfo(
        model_type=config["model_type"],
        layers=_count(text_config, _LAYERS, folder) or count_layers(tensors),
        vocab_size=_count(text_config, _VOCABULARY, folder),
        hidden_size=_count(text_config, _HIDDEN, folder),
        quantization=quantization or None,
        parameters=count_parameters(tensors, kinds, quantization),
        bytes=size,
        dtype=main_dtype(kinds),
        chat_template=has_chat_template(folder),
        embedding_rows=embedding_rows(tensors) or _count(text_config, _VOCABULARY, folder),
        learned_positions=learned_positions(tensors),
        context_length=_count(text_config, _CONTEXT, folder),
    )
    return CheckedModel(info, config, tensors)


def check_config(folder: Path) -> None:
    """Raise `BadRequest` where mlx-lm has no such architecture, or needs code from the folder; no weights are read."""
    with readable(folder):
        _check_architecture(_read_config(folder), folder, False)
        _check_tokenizer(folder)


def _check_files(folder: Path) -> None:
    """Refuse what only stands in for one of the files that decide what the model does, broken links among it."""
    with os.scandir(folder) as listed:
        found = sorted(
            each.name
            for each in listed
            # what is a file, and no link to one, is looked at when it is read
            if _CHECKED.match(each.name) and not (_READ.match(each.name) and each.is_file(follow_symlinks=False))
        )
    others = sorted(folder.glob("additional_chat_templates/*.jinja"))  # broken links among them
    for file in [*(folder / name for name in found), *(each for each in others if not files.is_put_by_macos(each))]:
        check_file(file)


def is_of_pictures(folder: Path) -> bool:
    """Whether a model also takes pictures or sound. Raises `BadRequest` for a config that cannot be read."""
    config = read_json(folder / "config.json")
    return any(name in config for name in ("vision_config", "vision_tower", "audio_config"))


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer brings a chat template, in any of the places it may stand."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    file = folder / "tokenizer_config.json"
    return file.is_file() and bool(read_json(file).get("chat_template"))


def _read_config(folder: Path) -> dict[str, Any]:
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        _check_token_ids(config, folder / "config.json")
        if (file := folder / "generation_config.json").is_file():
            _check_token_ids(read_json(file), file)
        if not isinstance(config.get("model_type"), str):
            raise BadRequest(f"{folder / 'config.json'} names no model_type", hint="is this a language model?")
        return config
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("model")
        hint = f"its model is {base!r}" if base else "give the model that it was trained on"
        raise BadRequest(f"{str(folder)!r} holds an adapter, not a model", hint=hint)
    if gguf_files := files.matching(folder, "*.gguf"):
        hint = f"`inv model.import` makes a model folder of {gguf_files[0].name}"
        raise BadRequest(f"{str(folder)!r} has no config.json", hint=hint)
    raise BadRequest(f"{str(folder)!r} has no config.json", hint="name the folder that holds the model's own files")


def _check_token_ids(config: Mapping[str, Any], file: Path) -> None:
    for name in _TOKEN_IDS:
        value = config.get(name)
        ids = value if isinstance(value, list) else [value] if value is not None else []
        if not all(type(each) is int for each in ids):
            raise BadRequest(
                f"{file}: {name} takes token ids, which are whole numbers, not {value!r}",
                hint="write the numbers without quotes",
            )


def _table(config: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise BadRequest(f"{folder / 'config.json'}: {name} is a table, not {value!r}", hint="get the model again")
    return value


def _count(config: Mapping[str, Any], names: tuple[str, ...], folder: Path) -> int | None:
    """The value of the first of these names that has one; a number that is written as a text is refused."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str):
            raise BadRequest(
                f"{folder / 'config.json'}: {name} takes a whole number, not {value!r}",
                hint="write the number without quotes",
            )
    return None


def _check_architecture(config: Mapping[str, Any], folder: Path, trust_remote_code: bool) -> None:
    if own := config.get("model_file"):
        # mlx-lm runs this file in place of an architecture of its own
        if not trust_remote_code:
            raise own_code(folder.name, str(own))
        if not isinstance(own, str) or Path(own).name != own or not (folder / own).is_file():
            raise BadRequest(
                f"{folder / 'config.json'}: model_file is no file of the model's folder: {own!r}",
                hint="get the model again",
            )
        return
    model_type = config["model_type"]
    if model_type in _modules():
        return
    supported = supported_architectures()
    if supported and model_type not in supported:
        near = nearest(model_type, supported)
        hint = f"the nearest that it knows is {near!r}" if near else "pip install -U mlx-lm may bring it"
        raise BadRequest(f"mlx-lm does not support the architecture {model_type!r} of {folder.name!r}", hint=hint)


@functools.cache
def supported_architectures() -> frozenset[str]:
    """The model types that the installed mlx-lm takes, read from its files without importing it; empty without it."""
    package = _package_of_mlx_lm()
    if package is None:
        return frozenset()
    other_names = _constant(package / "utils.py", "MODEL_REMAPPING")
    return _modules() | {name for name, module in other_names.items() if module in _modules()}


@functools.cache
def _modules() -> frozenset[str]:
    """The model types that have a module in mlx-lm, as most have."""
    package = _package_of_mlx_lm()
    found = files.matching(package / "models", "*.py") if package else []
    return frozenset(file.stem for file in found) - {"__init__"}


def _package_of_mlx_lm() -> Path | None:
    specification = importlib.util.find_spec("mlx_lm")
    return Path(specification.origin).parent if specification and specification.origin else None


def _constant(file: Path, name: str) -> dict[str, str]:
    """A literal table that a module assigns, empty if it has none of that name."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in statement.targets
        ):
            return dict(ast.literal_eval(statement.value))
    return {}


def _check_tokenizer(folder: Path, *, parses: bool = True) -> None:
    kinds = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    if not any((folder / name).is_file() for name in kinds) and not files.matching(folder, "*.tiktoken"):
        raise BadRequest(f"{str(folder)!r} has no tokenizer (tokenizer.json)", hint="copy the tokenizer's files there")
    for name, check in (
        ("tokenizer.json", read_json if parses else check_object),
        ("tokenizer_config.json", read_json),
    ):
        if (folder / name).is_file():
            check(folder / name)
