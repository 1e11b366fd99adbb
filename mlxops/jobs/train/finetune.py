"""A fine-tuning by epochs as the training that it is: options under the names and in the units that training has."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields

from mlxops.config import FinetuneConfig, LoraConfig
from mlxops.jobs.commands import path_of
from mlxops.options import given
from mlxops.projects.project import Project
from mlxops.registry import RunSummaryView

_OF_ADAPTERS = ("lora_rank", "lora_scale", "lora_alpha", "lora_dropout")


@dataclass(frozen=True, kw_only=True)
class Translated:
    """The settings of the training, and what a person should know of how they came about."""

    config: LoraConfig
    notes: tuple[str, ...]


def translate(config: FinetuneConfig) -> Translated:
    """The training that a fine-tuning by epochs is.

    mlx-lm multiplies the adapter's output by its scale as it is, PEFT by alpha / rank. Warm-up counts iterations here.
    """
    notes, scale = [], config.lora_scale
    if config.full and (told := [name for name in _OF_ADAPTERS if name in given(config)]):
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in told)
        notes.append(
            f"--full trains the weights themselves, so {flags} {'has' if len(told) == 1 else 'have'} no effect"
        )
    elif config.lora_alpha is not None:
        scale = config.lora_alpha / config.lora_rank
        notes.append(
            f"--lora-alpha {config.lora_alpha:g} with rank {config.lora_rank} is a scale of {scale:g} "
            f"(alpha / rank): `--lora-scale {scale:g}` of `lora`"
        )
    warmup = config.warmup_steps * config.grad_accumulation_steps
    if warmup != config.warmup_steps:
        notes.append(f"--warmup-steps {config.warmup_steps} are {warmup} iterations: `--warmup {warmup}` of `lora`")
    here = {each.name for each in fields(FinetuneConfig)} & {each.name for each in fields(LoraConfig)}
    shared = {name: getattr(config, name) for name in here}
    if config.full and config.num_layers is None:
        shared["num_layers"] = -1
    return Translated(
        config=LoraConfig(
            **shared
            | {
                "fine_tune_type": "full" if config.full else "lora",
                "lora_scale": scale,
                "warmup": warmup,
                "steps_per_eval": config.eval_every,
                "adapter_path": config.output,
            }
        ),
        notes=tuple(notes),
    )


def fuse_command(project: Project, run: RunSummaryView) -> str:
    """What makes one model of a run's model and adapter, as it can be typed from the current folder."""
    model, adapter = (path_of(project, project.from_root(path)) for path in (run["model"], run["adapter_path"]))
    words = ["--model", model, "--adapter-path", adapter, "--save-path", f"{adapter}-fused"]
    return shlex.join(["mlx_lm.fuse", *words])
