"""A smaller model for trainings: what is tested here depends on how it is trained and not on how large it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_folders import Shared
from tiny_models import made_smaller


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """A llama of two layers."""
    return made_smaller(shared)
