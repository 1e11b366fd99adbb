"""A model in memory as a folder: its weights and configuration as mlx-lm writes them, the rest as its source has it.

The tokenizer's files are copied byte by byte: transformers would write others, and text would become other tokens.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import files, words
from mlxops.errors import Failed
from mlxops.foreign import foreign_code
from mlxops.models.identity import DECIDING
from mlxops.models.model_files import write_json

if TYPE_CHECKING:
    import mlx.nn

_WRITTEN_ANEW = ("config.json", "model*.safetensors", "hf_quant_config.json")
_ALSO = ("generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*")
_OTHER_FILES = 64 << 20  # tokenizer and texts, and what the file system needs for itself


def save(
    folder: Path, model: mlx.nn.Module, config: Mapping[str, Any], *, source: Path, progress: Callable[[int, int], None]
) -> None:
    """Write a model into a folder that is there; the weights of `model` are gone afterwards.

    `source` is the folder that it was loaded from; `progress` is told the tensors computed and their number. Raises
    `Failed` where the disk is full.
    """
    with foreign_code(_not_written):
        from mlx_lm.utils import save_config

        # mlx-lm's save() does the same: models with a vision tower need this part to be loaded again
        keeps_vision = "vision_tower" in getattr(model, "model", {})
        _save_weights(folder, model, progress)
        save_config(dict(config), folder / "config.json", keep_vision_config=keeps_vision)
    copy_texts(source, folder)


def _save_weights(folder: Path, model: mlx.nn.Module, progress: Callable[[int, int], None]) -> None:
    """As mlx-lm's save_model() writes them, with the tensors of a file computed one after the other."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.utils import get_total_parameters, make_shards

    arrays = dict(tree_flatten(model.parameters()))
    sizes = {
        "total_size": sum(array.nbytes for array in arrays.values()),
        "total_parameters": get_total_parameters(model),
    }
    where: dict[str, str] = {}
    shards = make_shards(arrays)
    count, total, done = len(shards), len(arrays), 0
    # what has been written is needed no more: nothing but its file may hold it
    arrays.clear()
    model.update(tree_map(lambda _: mx.array([]), model.parameters()))
    for number in range(1, count + 1):
        name = "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        shard = shards.pop(0)
        for array in shard.values():
            mx.eval(array)
            done += 1
            progress(done, total)
        mx.save_safetensors(str(folder / name), shard, metadata={"format": "mlx"})
        where |= dict.fromkeys(shard, name)
    write_json(folder / "model.safetensors.index.json", {"metadata": sizes, "weight_map": dict(sorted(where.items()))})


def copy_texts(source: Path, folder: Path) -> None:
    """Copy the tokenizer, the settings of generation, own code and licences of a model's folder into another one."""
    for file in _found(source, (*DECIDING, *_ALSO)):
        if not any(file.match(pattern) for pattern in _WRITTEN_ANEW):
            copy = folder / file.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)


def check_room(folder: Path, model: mlx.nn.Module) -> None:
    """Raise `Failed` if the disk that a folder is on, or will be, has no room for a model; nothing is computed."""
    from mlx.utils import tree_flatten

    there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    needed = sum(array.nbytes for _, array in tree_flatten(model.parameters())) + _OTHER_FILES
    free = shutil.disk_usage(there).free
    if needed > free:
        raise Failed(
            f"the model needs {words.size(needed)} of disk, and {str(there)!r} has {words.size(free)} free",
            hint="make room, or `--output` takes another disk",
        )


def _found(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return files.matching(folder, *patterns)


def _not_written(said: str, _: BaseException) -> Exception:
    return Failed(f"the model could not be written: {said}", hint="is the disk full, or ulimit -f set?")
