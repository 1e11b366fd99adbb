"""The server that processes of tests are forked from: what it gives them is the same, whichever test starts it."""

from __future__ import annotations

import os
from multiprocessing import forkserver

import forked_server
import mac
import pytest


def test_what_commands_are_forked_from_has_nothing_of_the_test_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLXOPS_DB", "INVOKE_RUNTIME_CONFIG", "PATH", mac.VARIABLE):
        monkeypatch.setenv(name, "of this test")
    begun: list[dict[str, str]] = []
    monkeypatch.setattr(forkserver, "ensure_running", lambda: begun.append(dict(os.environ)))

    forked_server._server.__wrapped__()

    assert "of this test" not in begun[0].values()
    assert begun[0]["INVOKE_RUNTIME_CONFIG"].endswith("settings.yaml")
    assert os.environ["MLXOPS_DB"] == "of this test"
