"""Who may ask a server."""

from __future__ import annotations

import pytest

from mlxops.serving.access import Access, is_loopback
from mlxops.serving.shapes import ApiError

HERE = Access(host="127.0.0.1")
EVERYWHERE = Access(host="0.0.0.0", key="secret")


def refused(access: Access, **headers: str) -> str | None:
    """The code with which a request is refused, None where it is not."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        access.check(given.get)
    except ApiError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("host", "code"),
    [
        *[(host, None) for host in ("127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080")],
        *[(host, "wrong_host") for host in ("rebound.example", "127.0.0.1.example", "localhost@x", "[", "", "0.0.0.0")],
    ],
)
def test_on_the_loopback_address_only_its_names_are_answered(host: str, code: str | None) -> None:
    assert refused(HERE, Host=host) == code


@pytest.mark.parametrize("origin", ["https://example.org", "http://127.0.0.1:8080", "null", ""])
def test_no_web_page_is_answered(origin: str) -> None:
    assert refused(HERE, Host="localhost", Origin=origin) == "wrong_origin"
    assert refused(EVERYWHERE, Host="x", Origin=origin, Authorization="Bearer secret") == "wrong_origin"


def test_a_page_that_sends_no_origin_says_where_it_comes_from() -> None:
    found = [refused(HERE, Host="localhost", Sec_Fetch_Site=each) for each in ("cross-site", "same-site", "none")]

    assert found == ["wrong_origin", "wrong_origin", None]


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", "secret", "Basic secret", "Bearer sécret", "Bearer secret x"]
)
def test_a_wrong_key_is_refused(given: str) -> None:
    assert refused(EVERYWHERE, Host="gpu.example:8080", Authorization=given) == "invalid_api_key"


def test_with_the_key_other_machines_are_answered() -> None:
    assert refused(EVERYWHERE, Host="gpu.example:8080", Authorization="bearer secret") is None


def test_only_this_machine_reaches_a_loopback_address() -> None:
    hosts = ("127.0.0.1", "127.3.2.1", "::1", "localhost", "0.0.0.0", "::", "192.168.0.5", "gpu.example", "")

    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 5
