"""An adapter that another program trained: which file, of which iteration, and which LoRA shape it has. No MLX here.

Files that a run of ours writes over are kept beside as `NAME.before`, and where such a one stands it is the original:
what is found out here is the same however often the taking over was cut short.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops import files, layout
from mlxops.adapters import folders
from mlxops.config import LoraConfig, older_names
from mlxops.errors import BadRequest, NotFound
from mlxops.layout import BEFORE, OFFERED, adapter_name
from mlxops.options import options_of

_IN_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")
_CHOSEN_FIRST = (OFFERED, "adapters.npz")
_FITTING = ("lora", "dora", "full")

_NOT_THERE = "`--adopt` takes a folder of mlx_lm.lora or one of its files; a run that has begun resumes without it"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter of another program. `shape` has names and values of settings; `notes` say what a person should know.

    `file` is where its bytes are, `name` what that file is called without `.before`; `model` is the model it was
    trained on, as its own settings have it.
    """

    folder: Path
    file: Path
    name: str
    sha256: str
    iteration: int
    shape: Mapping[str, Any]
    model: str | None
    notes: tuple[str, ...]


def read(path: Path, *, layers: int) -> Adapter:
    """Read the adapter of a folder, or the one in this file of a folder, for a model of so many layers.

    Raises `NotFound` where there is none, and `BadRequest` for one that cannot be made sense of.
    """
    folder = path if path.is_dir() else path.parent
    names = _originals(folder)
    refuse_peft(folder)
    name = _choose(folder, names) if path.is_dir() else path.name
    if name not in names:
        raise NotFound(f"there is no adapter {str(path)!r}", hint=_NOT_THERE)
    settings = _settings(names)
    try:
        iteration, why = _iteration(name, names, settings)
        sha256 = files.sha256(names[name])
    except OSError as error:
        reason = f"{str(error.filename)!r} cannot be read: {error.strerror}"
        raise BadRequest(reason, hint="it has to be readable for this user") from error
    header = folders.read_header(names[name])
    if header.problem:
        raise BadRequest(f"{str(names[name])!r} {header.problem}", hint="another file of the folder may be whole")
    arrays = {each: shape for each, (_, shape) in header.tensors.items()}
    shape, notes = shape_of(settings, arrays, name, layers)
    model = settings.get("model")
    return Adapter(
        folder=folder,
        file=names[name],
        name=name,
        sha256=sha256,
        iteration=iteration,
        shape=shape,
        model=model if isinstance(model, str) else None,
        notes=(f"{name} is taken for iteration {iteration:,}: {why}", *notes),
    )


def keep_originals(folder: Path, iteration: int) -> list[str]:
    """Keep what a run that begins at `iteration` would write over, as `NAME.before`; returns the names.

    May be cut short anywhere and done again.
    """
    kept = []
    for name, path in _originals(folder).items():
        before = path.with_name(name + BEFORE)
        kind, _, number = layout.recognise(name)
        if path.name != name:
            continue  # it is kept already
        if kind == "weights" and number is not None and number >= iteration and name == adapter_name(number):
            path.rename(before)
        elif name in (OFFERED, layout.SETTINGS):
            _keep_beside(path, before)
        else:
            continue
        kept.append(name)
    files.sync(folder)
    return kept


def _keep_beside(path: Path, before: Path) -> None:
    """Give a file a second name; who replaces it by renaming leaves that one as it is."""
    try:
        before.hardlink_to(path)
    except OSError:  # a file system without links
        partial = path.with_name(f".{before.name}.partial")
        shutil.copyfile(path, partial)
        files.sync(partial)
        partial.replace(before)


def _originals(folder: Path) -> dict[str, Path]:
    """The files of a folder by their original names."""
    try:
        there = {path.name: path for path in folder.iterdir() if path.is_file() and not files.is_put_by_macos(path)}
    except OSError as error:
        raise NotFound(
            f"the folder {str(folder)!r} cannot be read: {error.strerror}",
            hint="`--adopt` takes a folder of mlx_lm.lora, or one of its files",
        ) from error
    found = {name: path for name, path in there.items() if not name.endswith(BEFORE)}
    return found | {name.removesuffix(BEFORE): path for name, path in there.items() if name.endswith(BEFORE)}


def _choose(folder: Path, names: Mapping[str, Path]) -> str:
    for name in _CHOSEN_FIRST:
        if name in names:
            return name
    numbered = _numbered(names)
    if not numbered:
        raise NotFound(
            f"there is no adapter in {str(folder)!r}",
            hint="`--adopt` takes a folder of mlx_lm.lora, or one of its files",
        )
    return max(numbered, key=lambda name: numbered[name])


def _numbered(names: Mapping[str, Path]) -> dict[str, int]:
    recognised = {name: layout.recognise(name) for name in names}
    return {name: number for name, (kind, _, number) in recognised.items() if kind == "weights" and number is not None}


def _settings(names: Mapping[str, Path]) -> dict[str, Any]:
    """What `adapter_config.json` says; nothing where there is none."""
    path = names.get(layout.SETTINGS)
    if path is None:
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequest(
            f"{str(path)!r} cannot be read: {error}", hint="without that file, the arrays are asked"
        ) from error
    if not isinstance(settings, dict):
        raise BadRequest(f"{str(path)!r} is no table of settings", hint="without that file, the arrays are asked")
    return settings


def _iteration(name: str, names: Mapping[str, Path], settings: Mapping[str, Any]) -> tuple[int, str]:
    """The iteration of a file of weights, and what speaks for it."""
    numbered = _numbered(names)
    if name in numbered:
        return numbered[name], "its name says so"
    if name in _CHOSEN_FIRST:
        same = [each for each in numbered if _equal(names[each], names[name])]
        if same:
            newest = max(same, key=lambda each: numbered[each])
            return numbered[newest], f"it equals {newest}"
        target = settings.get("iters")
        if isinstance(target, int) and target > 0:
            return target, "it equals no numbered file, so it is the last of the iterations in adapter_config.json"
        if numbered:
            newest = max(numbered, key=lambda each: numbered[each])
            return numbered[newest], f"nothing tells how far it was trained, and {newest} came before it"
    return 0, "nothing tells how far it was trained"


def _equal(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and files.sha256(one) == files.sha256(other)


def refuse_peft(folder: Path) -> None:
    """Raise `BadRequest` for a folder that PEFT made."""
    if folders.is_of_peft(folder):
        raise BadRequest(
            f"{str(folder)!r} holds an adapter of PEFT, whose tensors mlx-lm does not read",
            hint="take an adapter that mlx_lm.lora or this toolkit trained; or merge it into its model with PEFT's "
            "`merge_and_unload`, and train from that model",
        )


# the shape ----------------------------------------------------------------------------------------------------------


def shape_of(
    settings: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], name: str, layers: int
) -> tuple[dict[str, Any], list[str]]:
    """The settings of an adapter's shape, and what a person should know: from its settings, else from its arrays.

    Raises `BadRequest` where the two contradict each other, or where nothing tells.
    """
    kind = older_names.kind_of(settings) or _kind_of(arrays)
    if kind not in _FITTING:
        raise BadRequest(
            f"adapter_config.json has the fine_tune_type {kind!r}", hint=f"known are {', '.join(_FITTING)}"
        )
    notes = []
    if not settings:
        notes.append(f"there is no adapter_config.json: the shape is read from the arrays of {name}")
    count = older_names.layers_of(settings)
    if not isinstance(count, int):
        count = _layers_of(arrays, name, layers)
    shape: dict[str, Any] = {"fine_tune_type": kind, "num_layers": min(count, layers)}
    if kind == "full":
        return shape, notes
    said = settings.get("lora_parameters")
    said = said if isinstance(said, Mapping) else {}
    rank = _rank_of(arrays, name)
    if said.get("rank", rank) != rank:
        raise BadRequest(
            f"adapter_config.json says rank {said['rank']}, and the arrays of {name} have rank {rank}",
            hint="the folder may hold files of two trainings: `--adopt` takes one file too",
        )
    shape["lora_rank"] = rank
    scale, alpha = (
        _checked("lora_scale", said[each]) if each in said else None for each in ("scale", older_names.ALPHA)
    )
    if (factor := older_names.scale_of(scale, alpha, rank)) is not None:
        shape["lora_scale"] = factor
    else:
        notes.append("no file says the scale of the adapter: --lora-scale is taken")
    if "dropout" in said:
        shape["lora_dropout"] = said["dropout"]
    shape["lora_keys"] = said.get("keys") or ([] if settings else sorted(_keys_of(arrays)))
    return {each: _checked(each, value) for each, value in shape.items()}, notes


def _checked(name: str, value: Any) -> Any:
    """A value of the settings in the type and range that it has as an option."""
    option = next(each for each in options_of(LoraConfig) if each.name == name)
    try:
        return option.check(value, f"adapter_config.json: {name}")
    except BadRequest as error:
        raise BadRequest(error.message, hint=error.hint or "without that file, the arrays are asked") from None


def _kind_of(arrays: Mapping[str, tuple[int, ...]]) -> str:
    last = {name.rpartition(".")[2] for name in arrays}
    return ("dora" if "m" in last else "lora") if "lora_a" in last else "full"


def _rank_of(arrays: Mapping[str, tuple[int, ...]], name: str) -> int:
    # those of experts have one more dimension, and their rank in the middle
    ranks = {shape[1] for each, shape in arrays.items() if each.endswith(".lora_a") and len(shape) > 1}
    if len(ranks) != 1:
        found = f"arrays of the ranks {', '.join(map(str, sorted(ranks)))}" if ranks else "no LoRA array"
        raise BadRequest(f"{name} holds {found}", hint="`--adopt` takes what mlx_lm.lora writes")
    return ranks.pop()


def _layers_of(arrays: Mapping[str, tuple[int, ...]], name: str, layers: int) -> int:
    """How many of the last layers have arrays."""
    blocks = {int(match[1]) for match in map(_IN_BLOCK.search, arrays) if match}
    first = min(blocks, default=layers)
    if not blocks or blocks != set(range(first, layers)):
        found = ", ".join(map(str, sorted(blocks))) or "none"
        raise BadRequest(
            f"{name} holds arrays of the layers {found}, which are not the last of the model's {layers}",
            hint="`--model` names the model that it was trained on",
        )
    return layers - first


def _keys_of(arrays: Mapping[str, tuple[int, ...]]) -> set[str]:
    matches = ((name, _IN_BLOCK.search(name)) for name in arrays if name.endswith(".lora_a"))
    return {(match[2] if match else name).removesuffix(".lora_a") for name, match in matches}
