"""Who may ask: the names that this server answers to, pages of other origins, and the key."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlxops.serving.shapes import ApiError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask a server that listens on `host`; without a `key` every program of this machine."""

    host: str
    key: str | None = None

    def check(self, header: Callable[[str], str | None]) -> None:
        """Raise `ApiError` for a request from a web page, by another host name, or without the key.

        A page that has the name of its own server point to this machine sends that name as the host.
        """
        if not self._is_ours(header("Host")):
            raise ApiError(403, "this server does not answer to that host name", code="wrong_host")
        if header("Origin") is not None or header("Sec-Fetch-Site") not in (None, "none", "same-origin"):
            raise ApiError(403, "web pages may not use this server", code="wrong_origin")
        if self.key is None:
            return
        scheme, _, given = (header("Authorization") or "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.key.encode("utf-8", "replace"))
        if scheme.lower() != "bearer" or not is_right:
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")

    def _is_ours(self, host: str | None) -> bool:
        if host is None:
            return False
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if name is None:
            return False
        # on all addresses of a machine its names are not known; there the key protects
        return name in (*_LOOPBACK, self.host.lower()) or (self.key is not None and not is_loopback(self.host))
