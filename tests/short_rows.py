"""Rows of templates cut short: the tiny model has a token per letter, and hundreds of them take their time."""

from __future__ import annotations

import json
from pathlib import Path

_LETTERS = 30


def shorten_rows(folder: Path) -> None:
    """Cut all messages in the files of a folder of data."""
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for turn in [turn for row in rows for turn in row["messages"]]:
            turn["content"] = turn["content"][:_LETTERS]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
