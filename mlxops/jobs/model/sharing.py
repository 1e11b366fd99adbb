"""Sharing a model that was made: its folder onto the hub, without what only this toolkit needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mlxops.config import ConvertConfig, FuseConfig
from mlxops.errors import BadRequest
from mlxops.jobs.model.convert import ConvertResult
from mlxops.jobs.model.fuse import FuseResult
from mlxops.models import uploading
from mlxops.models.provenance import ConvertedModel, FusedModel
from mlxops.projects.invocation import Invocation

R = TypeVar("R", ConvertResult, FuseResult)

_OURS = (FusedModel.FILE, ConvertedModel.FILE)  # with places on this machine in them


def check(config: ConvertConfig | FuseConfig) -> None:
    """Ask the hub before the work whether somebody is known to upload. Raises as `uploading.check` does."""
    if config.upload is not None:
        uploading.check(config.upload)
    elif config.private:
        raise BadRequest("--private is about what is uploaded, and nothing is", hint="`--upload REPO` uploads")


def upload(
    invocation: Invocation,
    config: ConvertConfig | FuseConfig,
    result: R,
    say: Callable[[str], None],
    *,
    shows_bars: bool,
) -> R:
    """Upload a model where that was asked for, and return its result with the address. Raises as `uploading` does."""
    if config.upload is None:
        return result
    say(f"uploading {result.path} to {config.upload}")
    address = uploading.upload(
        Path(invocation.project.from_root(result.path)),
        config.upload,
        private=config.private,
        leave_out=_OURS,
        message=f"Upload {Path(result.path).name}",
        shows_bars=shows_bars,
    )
    return replace(result, uploaded=address)
