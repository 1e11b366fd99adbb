"""Options of `finetune`: a training by epochs, under the names of the older toolkit."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings


@settings
class FinetuneConfig:
    """Settings of a fine-tuning by epochs; each is one of `LoraConfig`, or becomes one."""

    EXAMPLES: ClassVar = (
        "finetune --model SmolLM2-135M-Instruct --data data --epochs 3",
        "finetune --model SmolLM2-135M-Instruct --data data --lora-rank 16 --lora-alpha 32 --output models/mine",
    )
    GROUPS: ClassVar = {
        "model": "model and data",
        "full": "what is trained",
        "learning_rate": "optimizer and batches",
        "eval_every": "watching and saving",
        "name": "starting and resuming",
        "output": "output",
    }

    # model and data
    model: str | None = option(None, "model folder, its name in models/, or hub id", role="keeping", path=True)
    data: str = option(
        "data", "JSONL file, or folder with train.jsonl, valid.jsonl, test.jsonl", role="keeping", path=True
    )
    epochs: int = option(3, "epochs to train (passes over the data)", role="target", at_least=1, at_most=1_000_000)
    mask_prompt: bool = option(True, "train only on the assistant's words", role="weights")
    max_seq_length: int = option(
        2048, "tokens per row; longer rows are cut", role="weights", at_least=2, at_most=16_777_216
    )

    # what is trained
    full: bool = option(False, "train the weights of the layers themselves, and no adapter", role="weights")
    num_layers: int | None = option(
        None,
        "layers trained, from the last; -1 for all (16, or all there are; with --full all)",
        role="weights",
        at_least=-1,
        unless=[0],
    )
    lora_rank: int = option(8, "rank of the adapter", role="weights", at_least=1, at_most=65_536)
    lora_scale: float = option(20.0, "factor on the adapter's output", role="weights", above=0, at_most=1e6)
    lora_alpha: float | None = option(
        None, "the factor times the rank, as PEFT has it", role="weights", above=0, at_most=1e9, instead_of="lora_scale"
    )
    lora_dropout: float = option(0.0, "dropout before the adapter", role="weights", at_least=0, below=1)

    # optimizer and batches
    learning_rate: float = option(
        1e-5, "learning rate (its peak, under a schedule)", role="weights", above=0, at_most=1e6
    )
    optimizer: Literal["adam", "adamw", "muon", "sgd", "adafactor"] = option("adam", "optimizer", role="weights")
    warmup_steps: int = option(0, "optimizer updates of linear warm-up", role="weights", at_least=0, at_most=HUGE)
    batch_size: int = option(4, "rows per batch", role="weights", at_least=1, at_most=65_536)
    grad_accumulation_steps: int = option(
        1, "iterations per optimizer update", role="weights", at_least=1, at_most=65_536
    )
    seed: int = option(0, "seed of everything random", role="weights", at_least=0, at_most=2**63 - 1)

    # watching and saving
    eval_every: int = option(200, "iterations between validations", role="keeping", at_least=1, at_most=HUGE)
    save_every: int = option(100, "iterations between checkpoints", role="keeping", at_least=1, at_most=HUGE)
    early_stopping: int | None = option(
        None, "stop after this many validations without improvement", role="keeping", at_least=1, at_most=HUGE
    )
    samples: int = option(
        2,
        "prompts that the model answers before and after, once it is trained; 0 for none",
        role="command",
        at_least=0,
        at_most=1000,
    )

    # starting and resuming
    name: str | None = option(None, "name of the run", role="naming")
    new: bool = option(
        False, "start a new run, also where one with these settings exists", role="command", aliases=["no-resume"]
    )
    detach: bool = option(False, "train in the background, with a log in the run's folder", role="command")
    preview: bool = option(False, "show what would happen, and start nothing", role="command")

    # output
    output: str | None = option(
        None,
        "fuse what was trained into a model, in this folder; the run stays in adapters/",
        role="command",
        path=True,
    )
    de_quantize: bool = option(
        False, "unpack a quantized model when it is fused", role="command", aliases=["dequantize"]
    )
    yes: bool = option(False, "replace the fused model of another run in that folder", role="command")
    note: str | None = option(None, "a note kept with the run", role="naming")
    tag: list[str] = option([], "tags of the run; repeat or separate by commas", role="naming")
    json: bool = option(False, "the result, or the preview, as JSON", role="command")
