"""How long `inv models` takes with 500 models, beside bare `inv`: `python benchmarks/models.py [MODELS] [FOLDER]`.

The models are copies of a tiny one, or hard links to the files of a model's folder, which has a tokenizer of its size.
The first list, which has nothing remembered, is measured twice: with models of one header, as those that were trained
from one base are, and with headers that all differ.
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
from pathlib import Path

from mlxops.models.tiny import make_tiny

REPEATS = 5


def main(count: int, folder: Path | None) -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory() as place:
        project = Path(place)
        (project / "tasks.py").write_text("from mlxops.tasks import namespace\n", encoding="utf-8")
        first = make_tiny(project / "model") if folder is None else folder
        for number in range(count):
            shutil.copytree(first, project / "models" / f"m-{number:03}", copy_function=os.link)
        bare = statistics.median(seconds(project) for _ in range(REPEATS))
        alike = statistics.median(first_list(project) for _ in range(REPEATS))
        again = statistics.median(seconds(project, "models") for _ in range(REPEATS))
        for number in range(count):
            differ(project / "models" / f"m-{number:03}" / "model.safetensors", number)
        different = statistics.median(first_list(project) for _ in range(REPEATS))
    print(f"bare inv {bare:.3f} s; inv models with {count} models, the first time and afterwards:")
    for what, each in (("one header", alike), ("headers that differ", different), ("remembered", again)):
        print(f"{what}: {each:.3f} s, {each / bare:.1f} times bare inv")


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
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
