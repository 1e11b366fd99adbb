"""An adapter to put into a model: its file and shape, the run and the model that it comes from. No MLX here.

It reads what is there to be used, ours or of mlx-lm; `foreign.py` reads what another program left for a training to
resume from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlxops import files, layout
from mlxops.adapters import folders
from mlxops.adapters.foreign import refuse_peft, shape_of
from mlxops.errors import BadRequest, NotFound

_HINT = "--adapter-path takes a folder of a run or of mlx_lm.lora, or one of its files"
_DEFAULT_SCALE = 20.0  # mlx-lm's


@dataclass(frozen=True, kw_only=True)
class LoadableAdapter:
    """An adapter and what its folder says of it. `keys` None means all layers that can be adapted.

    `run` is the run of ours that made it and `model_identity` what that run recorded; both are None for an adapter of
    another program. `iteration` is in the file's name, else None.
    """

    file: Path
    sha256: str
    fine_tune_type: Literal["lora", "dora", "full"]
    num_layers: int
    rank: int
    scale: float
    keys: tuple[str, ...] | None
    model: str | None
    model_identity: str | None
    run: str | None
    iteration: int | None

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        at = "" if self.iteration is None else f", iteration {self.iteration:,}"
        return f"the adapter of run {self.run!r}{at}" if self.run else f"the adapter {str(self.file.parent)!r}{at}"


def model_of(path: Path) -> str | None:
    """The model that an adapter's folder names, as it stands there."""
    model = _settings(_folder(path)).get("model")
    return model if isinstance(model, str) else None


def read(path: Path, *, layers: int, iteration: int | None = None) -> LoadableAdapter:
    """Read the adapter that a folder offers, one of its checkpoints, or one file, for a model of so many layers.

    Raises `NotFound` where there is none, and `BadRequest` for one that cannot be made sense of.
    """
    folder = _folder(path)
    name = layout.OFFERED if iteration is None else layout.adapter_name(iteration)
    file = folder / name if path.is_dir() else path
    settings = _settings(folder)
    if not file.is_file():
        refuse_peft(folder)
        what = "adapter" if iteration is None else f"checkpoint of iteration {iteration:,}"
        raise NotFound(f"there is no {what} in {str(folder)!r}", hint=_HINT)
    header = folders.read_header(file)
    if header.problem:
        raise BadRequest(f"{str(file)!r} {header.problem}", hint="another checkpoint of the run may be whole")
    arrays = {name: shape for name, (_, shape) in header.tensors.items()}
    try:
        shape, _ = shape_of(settings, arrays, file.name, layers)
    except BadRequest as error:
        raise BadRequest(f"{str(folder)!r}: {error.message}", hint=_HINT) from error
    run = settings.get("mlxops")
    run = run if isinstance(run, Mapping) else {}
    return LoadableAdapter(
        file=file,
        sha256=files.sha256(file),
        fine_tune_type=shape["fine_tune_type"],
        num_layers=shape["num_layers"],
        rank=shape.get("lora_rank", 0),
        scale=shape.get("lora_scale", _DEFAULT_SCALE),
        keys=tuple(shape.get("lora_keys") or ()) or None,
        model=_text(settings.get("model")),
        model_identity=_text(run.get("model_identity")),
        run=_text(run.get("name")),
        iteration=layout.recognise(file.name)[2],
    )


def _folder(path: Path) -> Path:
    if not path.exists():
        raise NotFound(f"there is no adapter {str(path)!r}", hint=_HINT)
    return path if path.is_dir() else path.parent


def _settings(folder: Path) -> dict[str, Any]:
    """What `adapter_config.json` says; nothing where there is none."""
    file = folder / layout.SETTINGS
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadRequest(f"{str(file)!r} cannot be read: {error}", hint=_HINT) from error
    if not isinstance(settings, dict):
        raise BadRequest(f"{str(file)!r} is no table of settings", hint=_HINT)
    return settings


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
