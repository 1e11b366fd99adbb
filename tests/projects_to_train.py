"""A small project to train in, and its rows: what tests of good and of bad input both begin with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def question(number: int, words: int = 3) -> dict[str, Any]:
    """A row whose answer has so many words and a number."""
    answer = " ".join(["word"] * words)
    return {
        "messages": [
            {"role": "user", "content": f"What is {number}?"},
            {"role": "assistant", "content": f"{answer} {number}."},
        ]
    }


def long_question(number: int) -> str:
    """A line of 842 tokens, of which the last ones are compared."""
    return json.dumps({"prompt": "long " * 200, "completion": f"short {number}"})


def write_data(path: Path, count: int = 8, words: int = 3) -> Path:
    """A file of so many questions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(question(number, words)) for number in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def fill(root: Path, model: Path) -> Path:
    """Put a copy of the model as `models/tiny` and data into a folder."""
    shutil.copytree(model, root / "models" / "tiny")
    write_data(root / "data" / "train.jsonl")
    write_data(root / "data" / "valid.jsonl", 2)
    return root


def there_is(root: Path) -> list[str]:
    """Everything in a folder but what may be thrown away at any time."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if ".mlxops" not in path.parts)
