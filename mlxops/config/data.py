"""Options of the tasks on training data."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlxops.options import option, settings


@settings
class CreateDataConfig:
    """Settings of the files to start from."""

    EXAMPLES: ClassVar = (
        "create-training-data --format chat --samples 200",
        "create-training-data --format both --output data/started --seed 7",
    )

    format: Literal["instruction", "text", "chat", "both", "preference"] = option(
        "instruction", "row format; both is instruction and text"
    )
    samples: int = option(
        100, "rows in all, of which a tenth each are to validate and to test", at_least=3, at_most=100_000
    )
    output: str = option("data", "folder for train.jsonl, valid.jsonl, test.jsonl and README.md", path=True)
    seed: int = option(0, "the same seed gives the same rows", at_least=0)
    yes: bool = option(False, "replace files that are there without asking")
    json: bool = option(False, "as JSON")
