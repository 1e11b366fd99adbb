"""Options of training and of watching it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings

USUAL_LAYERS = 16
"""The layers that are trained unless another number is given, as in mlx-lm."""


@settings
class LoraConfig:
    """Settings of a fine-tuning run.

    Fields of class `weights` decide the weights bit for bit and make the fingerprint, `keeping` only watches and
    keeps, `target` is how far to go, `naming` is where a run stands and what it is called, `command` is about one
    command alone. Model and data are paths, so `keeping`: what is in them is in the fingerprint.
    """

    EXAMPLES: ClassVar = (
        "lora --model SmolLM2-135M-Instruct --data data --iters 1000",
        "lora --config recipe.yaml --epochs 3 --name careful --preview",
    )
    GROUPS: ClassVar = {
        "model": "model and data",
        "num_layers": "adapter",
        "optimizer": "optimizer",
        "batch_size": "batches",
        "steps_per_report": "watching and saving",
        "name": "starting and resuming",
        "adapter_path": "output",
        "train": "accepted for compatibility with mlx-lm",
    }
    """The title above an option in the help, by the first option of a group."""

    # model and data
    model: str | None = option(None, "model folder, its name in models/, or hub id", role="keeping", path=True)
    data: str = option(
        "data", "JSONL file, or folder with train.jsonl, valid.jsonl, test.jsonl", role="keeping", path=True
    )
    mask_prompt: bool = option(True, "train only on the assistant's words", role="weights")
    max_seq_length: int = option(
        2048, "tokens per row; longer rows are cut", role="weights", at_least=2, at_most=16_777_216
    )
    # What the code decides is in the fingerprint: its files are in the model's identity, its tokens in the data's.
    trust_remote_code: bool = option(
        False, "run code from the model's folder, which can do all that you can", role="keeping"
    )
    chat_template_config: dict[str, Any] = option(
        {}, """what the chat template is told, e.g. '{"enable_thinking": false}'""", role="weights"
    )
    fine_tune_type: Literal["lora", "dora", "full"] = option("lora", "what is trained", role="weights")
    iters: int = option(1000, "iterations to train in total", role="target", at_least=1, at_most=HUGE)
    epochs: int | None = option(
        None,
        "epochs to train (passes over the data), instead of --iters",
        role="target",
        at_least=1,
        at_most=1_000_000,
        instead_of="iters",
    )
    config: str | None = option(None, "YAML recipe with these settings", role="naming")

    # adapter
    num_layers: int | None = option(
        None,
        "layers trained, from the last; -1 for all (16, or all there are, unless given)",
        role="weights",
        at_least=-1,
        unless=[0],
    )
    lora_rank: int = option(8, "rank of the adapter", role="weights", at_least=1, at_most=65_536)
    lora_scale: float = option(20.0, "factor on the adapter's output", role="weights", above=0, at_most=1e6)
    lora_dropout: float = option(0.0, "dropout before the adapter", role="weights", at_least=0, below=1)
    lora_keys: list[str] = option(
        [], "layer names to adapt, e.g. self_attn.q_proj; all linear ones unless given", role="weights"
    )

    # optimizer
    optimizer: Literal["adam", "adamw", "muon", "sgd", "adafactor"] = option("adam", "optimizer", role="weights")
    optimizer_config: dict[str, Any] = option(
        {}, """arguments by optimizer, e.g. '{"adamw": {"betas": [0.9, 0.98]}}'""", role="weights"
    )
    # becomes a part of optimizer_config, which is what is stored
    weight_decay: float | None = option(
        None, "weight decay of the optimizer, e.g. adamw's (0.01)", role="command", at_least=0, at_most=1e6
    )
    learning_rate: float = option(
        1e-5, "learning rate (its peak, under a schedule)", role="weights", above=0, at_most=1e6
    )
    lr_schedule: Literal["constant", "cosine_decay", "linear_schedule", "exponential_decay", "step_decay"] = option(
        "constant", "learning rate schedule after the warm-up", role="weights"
    )
    lr_schedule_arguments: list[float] = option(
        [], "what the schedule takes after its first rate, steps in iterations", role="weights"
    )
    warmup: int = option(0, "iterations of linear warm-up", role="weights", at_least=0, at_most=HUGE)
    warmup_init: float = option(0.0, "learning rate before the warm-up", role="weights", at_least=0, at_most=1e6)
    max_grad_norm: float | None = option(None, "clip the gradient to this norm", role="weights", above=0)

    # batches
    batch_size: int = option(4, "rows per batch", role="weights", at_least=1, at_most=65_536)
    grad_accumulation_steps: int = option(
        1, "iterations per optimizer update", role="weights", at_least=1, at_most=65_536
    )
    grad_checkpoint: bool = option(False, "recompute layers in the backward pass to save memory", role="weights")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = option(
        "auto", "type to compute in; auto is the model's own, and float32 on a CPU", role="weights"
    )
    seed: int = option(0, "seed of everything random", role="weights", at_least=0, at_most=2**63 - 1)

    # watching and saving
    steps_per_report: int = option(10, "iterations between reports", role="keeping", at_least=1, at_most=HUGE)
    steps_per_eval: int = option(200, "iterations between validations", role="keeping", at_least=1, at_most=HUGE)
    val_batches: int = option(
        25, "validation batches; -1 for all, 0 for none", role="keeping", at_least=-1, at_most=HUGE
    )
    save_every: int = option(100, "iterations between checkpoints", role="keeping", at_least=1, at_most=HUGE)
    save_minutes: float | None = option(
        None, "minutes after which a checkpoint is saved, besides --save-every", role="keeping", above=0, at_most=1e6
    )
    keep_last: int | None = option(
        None,
        "checkpoints kept while training, with the best and those that runs branch from; all unless given",
        role="keeping",
        at_least=1,
        at_most=HUGE,
    )
    early_stopping: int | None = option(
        None,
        "stop after this many validations without improvement",
        role="keeping",
        at_least=1,
        at_most=HUGE,
    )
    memory_limit: float | None = option(None, "memory MLX may use, in GiB", role="keeping", above=0, at_most=1e6)
    cache_limit: float | None = option(
        None, "freed memory MLX may keep, in GiB", role="keeping", at_least=0, at_most=1e6
    )
    prefix_cache: float = option(
        8.0,
        "room for what the layers below the first trained one computed, in memory and then on disk, in GiB; 0 for none",
        role="keeping",
        at_least=0,
        at_most=1e6,
    )
    profile: bool = option(
        False, "measure where a step's time goes (`inv run.show`, `inv sql @profile`)", role="command"
    )
    allow_sleep: bool = option(False, "let the machine sleep while it trains (macOS)", role="keeping")
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
    branch: bool = option(
        False, "start a new run from a checkpoint of another, with the settings given", role="command"
    )
    branch_from: str | None = option(
        None,
        "RUN, RUN:ITERATION, RUN:best or RUN:last to branch from; the most similar run unless given",
        role="command",
        aliases=["from"],
    )
    adopt: str | None = option(
        None,
        "adapter folder or file of mlx_lm.lora to continue; its LoRA shape is kept",
        role="command",
        aliases=["resume-adapter-file"],
        path=True,
    )
    verify_resume: int | None = option(
        None,
        "train this many iterations twice, once with an interruption, and compare bit for bit",
        role="command",
        at_least=2,
        at_most=10_000,
    )
    ignore_invoke_yaml: bool = option(
        False, "take no setting of a training from the project's invoke.yaml", role="command"
    )
    detach: bool = option(False, "train in the background, with a log in the run's folder", role="command")
    preview: bool = option(False, "show what would happen, and start nothing", role="command")

    # output
    adapter_path: str | None = option(
        None, "the run's folder (adapters/NAME unless given)", role="naming", aliases=["output"], path=True
    )
    note: str | None = option(None, "a note kept with the run", role="naming")
    tag: list[str] = option([], "tags of the run; repeat or separate by commas", role="naming")
    json: bool = option(False, "the result, or the preview, as JSON", role="command")

    # of mlx_lm.lora
    train: bool = option(False, "accepted for compatibility with mlx-lm; has no effect", role="command")
    test: bool = option(False, "has no effect; `inv test --run RUN` measures a run", role="command")
    test_batches: int | None = option(None, "has no effect, as --test", role="command", at_least=-1, at_most=HUGE)
    clear_cache_threshold: str | None = option(None, "--cache-limit, as a size such as 2GB", role="command")
    report_to: str | None = option(None, "has no effect; every run is in the registry", role="command")
    project_name: str | None = option(None, "has no effect; --name names a run", role="command")


@settings
class ResumeConfig:
    """Settings of the resumption of a run: those of `LoraConfig` that may change, of the run unless given."""

    EXAMPLES: ClassVar = ("train.resume latest", "train.resume careful --iters 2000 --save-every 50")

    run: str = option(None, "the run: its name or a part of it, its number, or latest", positional=True)
    iters: int | None = option(None, "iterations to train in total", at_least=1, at_most=HUGE)
    epochs: int | None = option(
        None, "epochs to train in total, instead of --iters", at_least=1, at_most=1_000_000, instead_of="iters"
    )
    model: str | None = option(None, "where the model is now", path=True)
    data: str | None = option(None, "where the data is now", path=True)
    steps_per_report: int | None = option(None, "iterations between reports", at_least=1, at_most=HUGE)
    steps_per_eval: int | None = option(None, "iterations between validations", at_least=1, at_most=HUGE)
    val_batches: int | None = option(None, "validation batches; -1 for all, 0 for none", at_least=-1, at_most=HUGE)
    save_every: int | None = option(None, "iterations between checkpoints", at_least=1, at_most=HUGE)
    save_minutes: float | None = option(None, "minutes after which a checkpoint is saved", above=0, at_most=1e6)
    keep_last: int | None = option(None, "checkpoints kept while training", at_least=1, at_most=HUGE)
    early_stopping: int | None = option(
        None, "stop after this many validations without improvement", at_least=1, at_most=HUGE
    )
    memory_limit: float | None = option(None, "memory MLX may use, in GiB", above=0, at_most=1e6)
    cache_limit: float | None = option(None, "freed memory MLX may keep, in GiB", at_least=0, at_most=1e6)
    prefix_cache: float | None = option(
        None, "room for what untrained layers computed, in GiB; 0 for none", at_least=0, at_most=1e6
    )
    allow_sleep: bool = option(False, "let the machine sleep while it trains (macOS)")
    trust_remote_code: bool = option(False, "run code from the model's folder; to be given again")
    samples: int | None = option(
        None, "prompts that the model answers before and after; 0 for none", at_least=0, at_most=1000
    )
    detach: bool = option(False, "train in the background, with a log in the run's folder")
    preview: bool = option(False, "show what would happen, and start nothing")
    json: bool = option(False, "the result, or the preview, as JSON")


@settings
class MonitorConfig:
    """Settings of the monitor."""

    run: list[str] = option(
        [], "the run, or several to lay over each other; the one at work, else the newest unless given"
    )
    once: bool = option(False, "print the state once (as happens where the output is no terminal)")
    live: bool = option(False, "keep drawing until q or Ctrl-C (as happens in a terminal)")
    refresh: float = option(1.0, "seconds between looks; busy processors draw less often", at_least=0.1, at_most=3600)
    last: int | None = option(None, "only the last iterations of the curves", at_least=2, at_most=HUGE)
    log_file: str | None = option(None, "a log of mlx_lm.lora to import first", path=True)
    json: bool = option(False, "the state once, as JSON")


@settings
class StopConfig:
    """Settings of stopping a training."""

    run: str = option(None, "the run: its name or a part of it, its number, or latest", positional=True)
    now: bool = option(False, "kill it at once; the same command resumes from its newest checkpoint")
    json: bool = option(False, "as JSON")


def layers_trained(config: LoraConfig, there: int) -> int:
    """How many layers are trained of a model that has `there`; -1 is all of them."""
    return min(USUAL_LAYERS, there) if config.num_layers is None else config.num_layers
