"""Where the hub's client keeps models on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def hub_cache() -> Path:
    """The folder, which may not be there; found as the client finds it, without importing it."""
    home = os.environ.get("HF_HOME") or os.path.join(  # noqa: PTH118 - as the client has it
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
