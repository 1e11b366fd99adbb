"""Models that answer, loaded once a session, and the prompts they are asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm import utils

from mlxops.models.conversation import prompt_tokens
from mlxops.models.generation import LoadedModel
from mlxops.models.loading import load_for_generation
from mlxops.models.tiny import make_tiny

WORDS = ["What is the capital of France?", "Hi", "Explain in other words what this means for the other side.", "1 2"]


@pytest.fixture(scope="session")
def loaded(tiny_model: Path) -> LoadedModel:
    """The tiny model, which hardly ever ends an answer by itself."""
    return load_for_generation(tiny_model)


@pytest.fixture(scope="session")
def prompts(loaded: LoadedModel) -> list[list[int]]:
    """Conversations of different lengths."""
    return [prompt_tokens(loaded.tokenizer, [{"role": "user", "content": words}]) for words in WORDS]


@pytest.fixture(scope="session")
def drafted(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The same model with a smaller one that guesses, mostly wrong."""
    draft = make_tiny(tmp_path_factory.mktemp("models") / "draft", layers=2, seed=0)
    return replace(loaded, draft=utils.load_model(draft)[0])


@pytest.fixture(scope="session")
def recurrent(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny model that keeps a state which cannot be taken back."""
    folder = tmp_path_factory.mktemp("models") / "recurrent"
    shutil.copytree(tiny_model, folder)
    config = {
        "model_type": "mamba",
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 8,
        "num_hidden_layers": 2,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    model_class, arguments = utils._get_classes(config)
    mx.random.seed(1)
    model = model_class(arguments.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return load_for_generation(folder)
