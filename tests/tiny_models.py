"""Tiny real models, each made once a session; a test that changes a model's folder copies it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxops.models.tiny import make_tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama in fp32."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_quantized_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tiny llama in 4 bits."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny-4bit", quantized=True)
