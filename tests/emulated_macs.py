"""A test that asks for `a_mac` runs on an emulated one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import mac
import pytest


@pytest.fixture
def a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mac.Mac]:
    """The emulated Mac that this process and all that it starts are on while the test runs."""
    made = mac.Mac.make(tmp_path / "mac")
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    if "mlx.core" in sys.modules:
        sys.modules["mlx.core"].disable_compile()
    with monkeypatch.context() as patch:
        mac.emulate(made, patch)
        yield made
    mac.forget()
    # loaded before or by the test, under whose environment it compiles nothing
    if "mlx.core" in sys.modules:
        sys.modules["mlx.core"].enable_compile()
