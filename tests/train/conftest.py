"""A smaller model for trainings: what is tested here depends on how it is trained and not on how large it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_folders import Shared

from mlxops.models.tiny import make_tiny


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """A llama of two layers, which trains in three quarters of the time of the other tests' model."""
    return shared("smaller-model", lambda folder: make_tiny(folder / "tiny", layers=2, hidden=32)) / "tiny"
