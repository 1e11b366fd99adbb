"""Options of the tasks on projects."""

from __future__ import annotations

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings


@settings
class QuickstartConfig:
    """Settings of the first try."""

    dir: str = option("quickstart", "folder of the project that is made, or resumed", path=True)
    iters: int = option(30, "iterations to train for", at_least=1, at_most=HUGE)
    tiny: bool = option(False, "a tiny random model made on the spot: no network, and answers without sense")
    json: bool = option(False, "the result as JSON")
