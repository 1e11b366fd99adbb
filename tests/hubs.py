"""A hub on the loopback address, one for the session, which each test finds empty."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hub import Hub, hub


@pytest.fixture(scope="session")
def _hub() -> Iterator[Hub]:
    with hub() as there:
        yield there


@pytest.fixture
def there(_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that the client in this process talks to, without repositories; the client's pauses take no time."""
    from huggingface_hub import close_session, constants

    _hub.clear()
    for name, value in _hub.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", _hub.endpoint)
    template = _hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    close_session()
    yield _hub
    close_session()
