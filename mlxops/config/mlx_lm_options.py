"""Options of mlx_lm.lora that have no effect here, or become another one, on the command line and in a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlxops.errors import BadRequest

WITHOUT_EFFECT: Mapping[str, str] = {
    "test": "`inv test --run latest` measures a run on test.jsonl",
    "test_batches": "`inv test --run latest --num-samples N` measures a run on rows of test.jsonl",
    "report_to": "every run is in the registry, and `inv monitor` shows it",
    "project_name": "`--name`, `--note` and `--tag` say what a run is",
}
"""Each with what to use instead."""

_GIB = 2**30


def cache_limit(size: object, where: str) -> float | None:
    """The GiB that a `clear_cache_threshold` is, None for 0, which is none. Raises `BadRequest` for what is no size.

    >>> cache_limit("2GB", "it"), cache_limit(2**30, "it"), cache_limit(0, "it")
    (1.862645149230957, 1.0, None)
    """
    found = re.fullmatch(r"(\d+\.?\d*)\s*([MG]B?)?", str(size if size is not None else 0).strip(), re.IGNORECASE)
    if found is None or isinstance(size, bool):
        raise BadRequest(f"{where} takes a size such as 2GB, not {size!r}")
    bytes_ = float(found[1]) * {"": 1, "M": 10**6, "G": 10**9}[(found[2] or "")[:1].upper()]
    return bytes_ / _GIB or None
