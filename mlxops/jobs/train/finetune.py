"""A fine-tuning by epochs as the training that it is: options under the names and in the units that training has."""

from __future__ import annotations

from dataclasses import fields

from mlxops.config import FinetuneConfig, FuseConfig, LoraConfig
from mlxops.jobs.model import models
from mlxops.jobs.train.lora import Translated
from mlxops.models import model_files, provenance
from mlxops.models.provenance import FusedModel
from mlxops.options import given
from mlxops.projects.project import Project
from mlxops.registry import RunSummaryView

_OF_ADAPTERS = ("lora_rank", "lora_scale", "lora_alpha", "lora_dropout")


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
            }
        ),
        notes=tuple(notes),
    )


def check_output(project: Project, config: FinetuneConfig) -> None:
    """Raise `Refused` before the training where something else stands in the place of the fused model."""
    if config.output is None:
        return
    folder = models.target(project, None, config.output, "")
    if provenance.read(folder, FusedModel) is None:
        model_files.refuse_existing(folder)


def fusing(config: FinetuneConfig, run: RunSummaryView) -> FuseConfig | None:
    """How the run is fused, None where that is not asked for."""
    if config.output is None:
        return None
    return FuseConfig(source=run["name"], output=config.output, de_quantize=config.de_quantize, yes=config.yes)
