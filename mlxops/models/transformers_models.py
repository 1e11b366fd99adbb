"""The import of `transformers.models`, which reads 3,000 files once and not twice: 0.3 seconds of each start."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def import_models() -> None:
    """Import `transformers` and `transformers.models`, quietly.

    Each of both reads which names the files of all models have. `transformers` keeps what it read, in which the modules
    begin with `models.`; for `transformers.models` that is left out.
    """
    if "transformers.models" in sys.modules:
        return
    # It would say that PyTorch is missing.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    folder = Path(str(import_module("transformers").__file__)).parent / "models"
    import_utils: Any = import_module("transformers.utils.import_utils")
    read = getattr(import_utils, "define_import_structure", None)
    if read is None:  # another version reads them in another way
        import_module("transformers.models")
        return

    def read_once(path: str, prefix: str | None = None) -> dict[frozenset[str], dict[str, set[str]]]:
        if Path(path) != folder / "__init__.py":
            structure: dict[frozenset[str], dict[str, set[str]]] = read(path, prefix)
            return structure
        return {
            needs: {module[len("models.") :]: names for module, names in modules.items() if module[:7] == "models."}
            for needs, modules in read(folder, prefix="models").items()
        }

    import_utils.define_import_structure = read_once
    try:
        import_module("transformers.models")
    finally:
        import_utils.define_import_structure = read
