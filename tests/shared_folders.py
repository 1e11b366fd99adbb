"""Folders that are made once a session, whichever process needs them first, for all processes of the session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from made_once import make_once

Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Shared:
    """`shared("name", make)`: the folder of that name, which `make(folder)` filled once for all processes.

    The folder is new and empty when `make` is called. Nobody changes it afterwards: a test that would copies it.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if hasattr(request.config, "workerinput") else base) / "shared"
    root.mkdir(exist_ok=True)

    return partial(make_once, root)
