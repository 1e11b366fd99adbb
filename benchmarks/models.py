"""How long `inv models` takes with 500 models, beside bare `inv`: `python benchmarks/models.py [MODELS] [FOLDER]`.

The models are copies of a tiny one, or hard links to the files of a model's folder, which has a tokenizer of its size.
The first list, which has nothing remembered, is measured twice: with models of one header, as those that were trained
from one base are, and with headers that all differ. A busy machine becomes faster and slower, so that each list is
compared with the bare `inv` just before it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlxops.models.tiny import make_tiny

REPEATS = 7


def main(count: int, folder: Path | None) -> None:
    """Measure and print each case."""
    with tempfile.TemporaryDirectory() as place:
        project = Path(place)
        (project / "tasks.py").write_text("from mlxops.tasks import namespace\n", encoding="utf-8")
        first = make_tiny(project / "model") if folder is None else folder
        for number in range(count):
            shutil.copytree(first, project / "models" / f"m-{number:03}", copy_function=os.link)
        first_list(project)  # not measured: the files come into memory
        print(f"inv models with {count} models, the first time and afterwards:")
        report("one header", project, first_list)
        report("remembered", project, lambda each: seconds(each, "models"))
        for number in range(count):
            differ(project / "models" / f"m-{number:03}" / "model.safetensors", number)
        first_list(project)
        report("headers that differ", project, first_list)


def report(what: str, project: Path, measure: Callable[[Path], float]) -> None:
    """Print the medians of a list's seconds, of bare inv beside it, and of their ratio."""
    pairs = [(seconds(project), measure(project)) for _ in range(REPEATS)]
    bare, listed = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratios = sorted(each / beside for beside, each in pairs)
    print(
        f"{what}: {listed:.3f} s, bare inv {bare:.3f} s: {statistics.median(ratios):.1f} times "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f})",
        flush=True,
    )


def first_list(project: Path) -> float:
    """How long a list takes that has nothing remembered."""
    (project / ".mlxops" / "model_list.json").unlink(missing_ok=True)
    return seconds(project, "models")


def differ(file: Path, number: int) -> None:
    """Write a file of weights of the same arrays, all zero, with a header of its own; zeros take no space on disk."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    header["__metadata__"] = {"number": str(number)}
    end = max(each["data_offsets"][1] for name, each in header.items() if name != "__metadata__")
    text = json.dumps(header).encode()
    file.unlink()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)


def seconds(project: Path, *words: str) -> float:
    """How long a command takes."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=project,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "MLXOPS_CACHE": str(project / "cache")},
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
