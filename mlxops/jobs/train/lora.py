"""What was asked for under mlx-lm's and other programs' names, as the settings that training has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlxops.config import LoraConfig
from mlxops.config.mlx_lm_options import WITHOUT_EFFECT, cache_limit
from mlxops.errors import BadRequest
from mlxops.jobs.train import branch
from mlxops.options import changed
from mlxops.projects.project import Project


@dataclass(frozen=True, kw_only=True)
class Translated:
    """The settings of the training, and what a person should know of how they came about."""

    config: LoraConfig
    notes: tuple[str, ...]


def settings_of(project: Project, config: LoraConfig) -> Translated:
    """The settings that are meant: translated, and for a branch those of the run that it leaves where it gives none."""
    translated = translate(config)
    return replace(translated, config=branch.inherit(project, translated.config))


def translate(config: LoraConfig) -> Translated:
    """The settings with what other names stand for, and a note for each option that has no effect here.

    Raises `BadRequest` for a size that is none, and for two weight decays.
    """
    notes = [
        f"--{name.replace('_', '-')} is ignored: {instead}"
        for name, instead in WITHOUT_EFFECT.items()
        if getattr(config, name) not in (None, False)
    ]
    values: dict[str, Any] = {}
    if config.weight_decay is not None:
        values |= {"weight_decay": None, "optimizer_config": _with_decay(config, config.weight_decay)}
    if config.clear_cache_threshold is not None:
        limit = cache_limit(config.clear_cache_threshold, "--clear-cache-threshold")
        values["clear_cache_threshold"] = None
        if limit is not None and config.cache_limit is None:
            notes.append(f"--clear-cache-threshold is taken as `--cache-limit {limit:.3g}`, in GiB")
            values["cache_limit"] = limit
    return Translated(config=changed(config, **values) if values else config, notes=tuple(notes))


def _with_decay(config: LoraConfig, decay: float) -> dict[str, Any]:
    own = config.optimizer_config.get(config.optimizer) or {}
    if isinstance(own, dict) and own.get("weight_decay", decay) != decay:
        raise BadRequest(
            f"--weight-decay is {decay:g}, and optimizer_config says {own['weight_decay']!r} for {config.optimizer}",
            hint="give one of the two",
        )
    return {**config.optimizer_config, config.optimizer: {**own, "weight_decay": decay}}
