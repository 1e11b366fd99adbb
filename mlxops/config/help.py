"""Options of the help page."""

from __future__ import annotations

from mlxops.options import option, settings


@settings
class HelpConfig:
    """Settings of the page of help."""

    task: str = option("", "name of the task to explain", positional=True)
