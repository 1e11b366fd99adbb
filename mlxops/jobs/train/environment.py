"""What exactness depends on: chosen at a run's first attempt, and set again at every other."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from mlxops import system
from mlxops.config import LoraConfig
from mlxops.jobs.train.claim import Claim
from mlxops.jobs.train.prepare import Prepared
from mlxops.projects import blas, kernels, machine
from mlxops.registry import JsonObject
from mlxops.system import host
from mlxops.training import ways


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What exactness depends on, and how it was chosen.

    `exact` is compared on resume and stands in every checkpoint; `automatic` was chosen at the run's first attempt
    and is asked for again at every other.
    """

    exact: JsonObject
    automatic: JsonObject
    device: str
    notes: tuple[str, ...]


def set_up(prepared: Prepared, claim: Claim, *, cache: Path | None, blas_setting: str | None) -> Environment:
    """Load the BLAS as this run's first attempt had it, then MLX."""
    wanted = claim.config.get("automatic", {})
    chosen = ways.choose(wanted)
    loaded = blas.load(
        threads=wanted.get("blas_threads"), core_type=wanted.get("core_type"), cache=cache, setting=blas_setting
    )
    device = machine.device()
    versions = machine.versions()
    exact = {
        **{name: versions.get(name) for name in ("mlx", "mlx-lm", "mlxops")},
        "device": f"{device['kind']}: {device['name']}",
        "machine": platform.machine(),
        "blas": loaded.name,
        "blas_version": loaded.version,
        "blas_threads": loaded.threads,
        "core_type": loaded.core_type,
        "kernels": "fused" if kernels.are_compiled() or not system.ON_LINUX else "one by one",
        **of_the_system(device["kind"], device["architecture"]),
        **ways.versions(chosen),
    }
    automatic = {
        "blas_threads": loaded.threads,
        "core_type": loaded.core_type,
        "dtype": dtype_of(prepared.config, device["kind"]),
    }
    automatic |= {**wanted, **chosen}  # a way that no longer exists cannot be had
    notes = (loaded.note,) if loaded.note else ()
    return Environment(exact=exact, automatic=automatic, device=device["kind"], notes=notes)


def of_the_system(device: str, architecture: str | None) -> dict[str, str | None]:
    """What else computing on a GPU depends on, and on a Mac the processor, too: a Linux has all of it in its wheels."""
    found = {"macos_build": host.build()} if system.ON_MACOS else {}
    if device == "gpu":
        found |= {"wheel": machine.wheel(), "architecture": architecture}
    return found


def dtype_of(config: LoraConfig, device: str) -> str | None:
    """The type in which a new run loads the model, None for the model's own."""
    asked = config.dtype
    if asked != "auto":
        return asked
    # MLX's own loops for half precision are many times slower on a CPU than the BLAS is in float32
    return "float32" if device == "cpu" else None


def start_kind_of(claim: Claim, environment: Environment) -> tuple[str, str | None]:
    """How an attempt starts, as `attempts.start_kind` names it, and why a resume is not exact."""
    if claim.start is None:
        origin = claim.prepared.origin
        return (origin.kind, origin.note) if origin else ("fresh", None)
    before, now = ways.of_checkpoint(claim.start.environment), environment.exact
    # what an earlier version did not record is not known to have changed
    changed = [f"{name}: {before[name]} → {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    return ("inexact", "; ".join(changed)) if changed else ("exact", None)
