"""How long `inv models` takes with 500 models, beside bare `inv`: `python benchmarks/models.py [MODELS] [FOLDER]`.

The models are copies of a tiny one, or hard links to the files of a model's folder, which has a tokenizer of its size.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlxops.models.tiny import make_tiny

REPEATS = 5


def main(count: int, folder: Path | None) -> None:
    """Print the medians, the first list apart, which has nothing remembered."""
    with tempfile.TemporaryDirectory() as place:
        project = Path(place)
        (project / "tasks.py").write_text("from mlxops.tasks import namespace\n", encoding="utf-8")
        first = make_tiny(project / "model") if folder is None else folder
        for number in range(count):
            shutil.copytree(first, project / "models" / f"m-{number:03}", copy_function=os.link)
        bare = statistics.median(seconds(project) for _ in range(REPEATS))
        once = seconds(project, "models")
        again = statistics.median(seconds(project, "models") for _ in range(REPEATS))
    print(f"bare inv {bare:.3f} s; inv models with {count} models: {once:.3f} s at first, {again:.3f} s afterwards")
    print(f"{once / bare:.1f} and {again / bare:.1f} times bare inv")


def seconds(project: Path, *words: str) -> float:
    """How long a command takes."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=project,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
