"""Models on disk: finding a folder by what a person typed, and checking that it is a whole model. No MLX here."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops.errors import BadRequest, NotFound
from mlxops.options import nearest

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_LAYER_IN_NAME = re.compile(r"\.(?:layers|blocks|h)\.(\d+)\.")

# The same thing goes by several names over the years.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length")
_VOCABULARY = ("vocab_size", "n_vocab")

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model is, from its files alone. `dtype` is that of most of its unpacked numbers."""

    model_type: str
    layers: int
    vocab_size: int | None
    hidden_size: int | None
    quantization: Mapping[str, Any] | None
    parameters: int
    bytes: int
    dtype: str
    chat_template: bool
    context_length: int | None = None


def list_models(models_folder: Path) -> list[str]:
    """The names of the models in a folder, in order."""
    if not models_folder.is_dir():
        return []
    return sorted(
        folder.name
        for folder in models_folder.iterdir()
        if not folder.name.startswith(".") and (folder / "config.json").is_file()
    )


def find_model(
    text: str | None, *, resolve: Callable[[str], Path], models_folder: Path, hub_cache: Path | None = None
) -> Path:
    """The folder of the model a person means: a path or name that `resolve` finds, else an id in the hub's cache.

    `hub_cache` None is the hub's own folder. Nothing is downloaded: what is not here is `NotFound`.
    """
    there = list_models(models_folder)
    choice = f"models/ has {', '.join(there)}" if there else "hf download ID --local-dir models/NAME fetches one"
    if text is None:
        raise BadRequest("no model given", hint=f"--model takes a folder or a name; {choice}")
    folder = resolve(text)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise BadRequest(f"the model {text!r} is a file, not a folder", hint=_hint_for_file(folder))
    if _HUB_ID.fullmatch(text):
        cached = _in_hub_cache(text, hub_cache)
        if cached is not None:
            return cached
    if "/" in text and _HUB_ID.fullmatch(text):
        choice = f"hf download {text} --local-dir models/{text.rpartition('/')[2]} fetches it from the hub"
    elif near := nearest(text, there):
        choice = f"did you mean {near!r}? {choice}"
    raise NotFound(f"no model {text!r}", hint=choice)


def _hint_for_file(file: Path) -> str:
    if file.suffix == ".gguf":
        return "inv model.import makes a model folder of a GGUF file"
    return "name the folder that holds config.json"


def _in_hub_cache(name: str, hub_cache: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", cache_dir=hub_cache)
    return Path(found).parent if isinstance(found, str) else None


def check_model(folder: Path) -> ModelInfo:
    """What the model in a folder is, having checked that mlx-lm can take it and that its files are whole.

    Reads the small files and the headers of the weights. Raises `BadRequest` that says what is wrong and where.
    """
    config = _read_config(folder)
    _check_architecture(config, folder)
    tensors = _read_headers(folder)
    _check_tokenizer(folder)
    text_config = {**config, **(config.get("text_config") or {})}
    quantization = config.get("quantization") or config.get("quantization_config")
    return ModelInfo(
        model_type=config["model_type"],
        layers=_first(text_config, _LAYERS) or _count_layers(tensors),
        vocab_size=_first(text_config, _VOCABULARY),
        hidden_size=_first(text_config, _HIDDEN),
        quantization=quantization,
        parameters=_count_parameters(tensors, quantization or {}),
        bytes=sum(file.stat().st_size for file in weight_files(folder)),
        dtype=_main_dtype(tensors),
        chat_template=has_chat_template(folder),
        context_length=_first(text_config, _CONTEXT),
    )


def weight_files(folder: Path) -> list[Path]:
    """The weight files that mlx-lm loads."""
    return sorted(folder.glob("model*.safetensors"))


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer brings a chat template, in any of the places it may stand."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    file = folder / "tokenizer_config.json"
    return file.is_file() and bool(read_json(file).get("chat_template"))


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file with an object in it, or `BadRequest` with the line."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"{file}:{error.lineno}: not JSON: {error.msg}", hint="get the model again; a download may have broken off"
        ) from None
    except UnicodeDecodeError:
        raise BadRequest(f"{file} is not UTF-8 text", hint="get the model again") from None
    if not isinstance(content, dict):
        raise BadRequest(f"{file} holds no JSON object", hint="get the model again")
    return content


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise NotFound(f"no folder {str(folder)!r}", hint="inv models shows those there are")
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        if not isinstance(config.get("model_type"), str):
            raise BadRequest(f"{folder / 'config.json'} names no model_type", hint="is this a language model?")
        return config
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("model")
        hint = f"its model is {base!r}" if base else "give the model that it was trained on"
        raise BadRequest(f"{str(folder)!r} holds an adapter, not a model", hint=hint)
    if gguf_files := sorted(folder.glob("*.gguf")):
        hint = f"inv model.import makes a model folder of {gguf_files[0].name}"
        raise BadRequest(f"{str(folder)!r} has no config.json", hint=hint)
    raise BadRequest(f"{str(folder)!r} has no config.json", hint="name the folder that holds the model's own files")


def _check_architecture(config: Mapping[str, Any], folder: Path) -> None:
    if config.get("model_file"):
        raise BadRequest(
            f"the model {folder.name!r} needs its own code {config['model_file']!r}, which is not run here",
            hint="use a model of an architecture that mlx-lm knows",
        )
    supported = supported_architectures()
    model_type = config["model_type"]
    if supported and model_type not in supported:
        near = nearest(model_type, supported)
        hint = f"the nearest that it knows is {near!r}" if near else "pip install -U mlx-lm may bring it"
        raise BadRequest(f"mlx-lm does not support the architecture {model_type!r} of {folder.name!r}", hint=hint)


@functools.cache
def supported_architectures() -> frozenset[str]:
    """The model types that the installed mlx-lm takes, read from its files without importing it; empty without it."""
    specification = importlib.util.find_spec("mlx_lm")
    if specification is None or specification.origin is None:
        return frozenset()
    package = Path(specification.origin).parent
    modules = {file.stem for file in (package / "models").glob("*.py")} - {"__init__"}
    other_names = _constant(package / "utils.py", "MODEL_REMAPPING")
    return frozenset(modules | {name for name, module in other_names.items() if module in modules})


def _constant(file: Path, name: str) -> dict[str, str]:
    """A literal table that a module assigns, empty if it has none of that name."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in statement.targets
        ):
            return dict(ast.literal_eval(statement.value))
    return {}


def _read_headers(folder: Path) -> dict[str, dict[str, Any]]:
    """Each tensor's dtype and shape, from all weight files, each of which is as long as it says."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(read_json(index).get("weight_map", {}).values())
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing:
            raise BadRequest(
                f"{str(folder)!r} lacks {len(missing)} of {len(named)} weight files: {', '.join(missing)}",
                hint="get the model again; a download may have broken off",
            )
    files = weight_files(folder)
    if not files:
        others = sorted(file.name for pattern in ("*.safetensors", "*.bin", "*.gguf") for file in folder.glob(pattern))
        having = f", only {', '.join(others)}" if others else ""
        raise BadRequest(
            f"{str(folder)!r} has no weights (model*.safetensors){having}",
            hint="inv model.import makes them of a GGUF file; mlx_lm.convert of others"
            if others
            else "get the model again",
        )
    tensors: dict[str, dict[str, Any]] = {}
    for file in files:
        tensors.update(_read_header(file))
    return tensors


def _read_header(file: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file: eight bytes of length, then JSON, then the tensors."""
    size = file.stat().st_size
    damaged = BadRequest(f"{file} is damaged", hint="get the model again; a download may have broken off")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise damaged
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise damaged from None
    if size != 8 + length + end:
        raise BadRequest(
            f"{file} has {size:,} bytes where its header says {8 + length + end:,}",
            hint="get the model again; a download may have broken off",
        )
    return dict(header)


def _check_tokenizer(folder: Path) -> None:
    kinds = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    if not any((folder / name).is_file() for name in kinds) and not any(folder.glob("*.tiktoken")):
        raise BadRequest(f"{str(folder)!r} has no tokenizer (tokenizer.json)", hint="copy the tokenizer's files there")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_json(folder / name)


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _count_layers(tensors: Mapping[str, Any]) -> int:
    found = [int(match[1]) for name in tensors if (match := _LAYER_IN_NAME.search(name))]
    return max(found, default=-1) + 1


def _count_parameters(tensors: Mapping[str, dict[str, Any]], quantization: Mapping[str, Any]) -> int:
    """The numbers the model computes with: of a packed matrix its unpacked ones, without scales and biases."""
    count = 0
    for name, tensor in tensors.items():
        stem = name.rpartition(".")[0]
        if f"{stem}.scales" in tensors:
            own = quantization.get(stem)
            group = (own if isinstance(own, dict) else quantization).get("group_size", 64)
            count += math.prod(tensor["shape"]) * group if name.endswith(".scales") else 0
            count += math.prod(tensor["shape"]) if name.endswith(".bias") else 0
        else:
            count += math.prod(tensor["shape"])
    return count


def _main_dtype(tensors: Mapping[str, dict[str, Any]]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor["dtype"] in _FLOATS:
            sizes[_FLOATS[tensor["dtype"]]] += math.prod(tensor["shape"])
    return sizes.most_common(1)[0][0] if sizes else "unknown"
