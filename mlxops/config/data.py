"""Options of the tasks on training data."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlxops.config.bounds import HUGE
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


@settings
class PreviewDataConfig:
    """Settings of looking at rows as they are trained."""

    EXAMPLES: ClassVar = (
        "data.preview data --model SmolLM2-135M-Instruct",
        "data.preview data --model SmolLM2-135M-Instruct --row data/valid.jsonl:3",
    )

    path: str = option("data", "file of rows, or folder with train.jsonl", positional=True, path=True)
    model: str | None = option(None, "model folder, its name in models/, or hub id", path=True)
    row: str | None = option(None, "row to show: a line of the training file, or FILE:LINE; the first 3 unless given")
    max_seq_length: int = option(2048, "longest row in tokens; more is cut", at_least=2, at_most=HUGE)
    mask_prompt: bool = option(True, "train the assistant's turns alone, not the prompts")
    chat_template_config: dict = option({}, "what the chat template is told, as JSON")
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")
    json: bool = option(False, "as JSON, with the ids of the tokens")


@settings
class CheckDataConfig:
    """Settings of checking data before a training."""

    EXAMPLES: ClassVar = (
        "data.check data --model SmolLM2-135M-Instruct",
        "data.check rows.jsonl --strict --fix repaired.jsonl",
    )

    path: str = option("data", "file of rows, or folder with train.jsonl", positional=True, path=True)
    model: str | None = option(None, "model whose tokens and chat template are checked too", path=True)
    max_seq_length: int = option(2048, "longest row in tokens; more is cut", at_least=2, at_most=HUGE)
    batch_size: int = option(4, "rows per batch, for the share of padding", at_least=1, at_most=HUGE)
    near: bool = option(True, "look for rows that are nearly alike")
    strict: bool = option(False, "end with 1 where there are warnings")
    fix: str | None = option(None, "write a repaired copy here: a file, or a folder for a folder", path=True)
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")
    json: bool = option(False, "as JSON")
