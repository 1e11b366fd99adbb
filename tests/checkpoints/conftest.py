"""The smaller model of the tests of trainings: what is listed and kept does not depend on how large it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_folders import Shared
from tiny_models import made_smaller


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """A llama of two layers."""
    return made_smaller(shared)
