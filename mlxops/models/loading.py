"""Loading a model into MLX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlxops import garbage
from mlxops.errors import BadRequest
from mlxops.models.folders import check_model, is_of_pictures
from mlxops.models.loader_errors import loader_errors
from mlxops.models.transformers_models import import_models
from mlxops.models.weight_headers import read_headers

if TYPE_CHECKING:
    import mlx.nn
    from transformers import PreTrainedTokenizerBase

    from mlxops.models.generation import LoadedModel


def load_model(
    folder: Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    lazy: bool = False,
    trust_remote_code: bool = False,
) -> tuple[mlx.nn.Module, dict[str, Any]]:
    """The model of a folder and its configuration, or `BadRequest`. All weights are in memory unless it is `lazy`.

    `dtype` changes all numbers that are not packed, scales included; None leaves them as the files have them. On a
    processor (not a GPU) MLX multiplies packed matrices with scales in float16 some 40 times slower than in float32.
    Code in the folder is run only where it is trusted.
    """
    info = check_model(folder, trust_remote_code=trust_remote_code)
    what = f"mlx-lm cannot load {folder.name!r} (architecture {info.model_type!r})"
    with loader_errors(what, name=folder.name):
        import mlx.core as mx
        from mlx.utils import tree_flatten

        import_models()  # as mlx-lm does, in more time
        from mlx_lm import utils

        garbage.collect_as_usual()
        model, config = utils.load_model(folder, lazy=True, trust_remote_code=trust_remote_code)
        if dtype is not None:
            model.set_dtype(getattr(mx, dtype))
        if not lazy:
            # one after the other, the largest first: two types of all of them would take half as much memory again
            for array in sorted((each for _, each in tree_flatten(model.parameters())), key=lambda each: -each.nbytes):
                mx.eval(array)
    return model, config


def is_rearranged(folder: Path) -> bool:
    """Whether mlx-lm computes with other tensors than the files of a folder hold: of other names, shapes or packing.

    Such files are rearranged each time they are loaded; experts, for one, are put together in memory. A model that
    also takes pictures counts as it is, because mlx-lm would leave that part out. Raises `BadRequest` as `load_model`.
    """
    from mlx.utils import tree_flatten

    if is_of_pictures(folder):
        return False
    held = read_headers(folder)
    model, _ = load_model(folder, lazy=True)
    return any(
        name not in held or held[name].shape != tuple(array.shape) for name, array in tree_flatten(model.parameters())
    )


def try_out(model: mlx.nn.Module, name: str) -> int:
    """Check that a model, lazily loaded as it may be, can compute: the number of token ids that it gives scores for.

    Nothing is computed and no weight is read: MLX checks types and shapes when it plans. Raises `BadRequest` for what
    a configuration makes impossible, such as a number that is written as a text. `name` is the model's.
    """
    import mlx.core as mx

    with loader_errors(f"the model {name!r} cannot compute", name=name):
        return int(model(mx.zeros((1, 2), mx.int32)).shape[-1])


def load_for_generation(
    folder: Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    identify: Callable[[], str] | None = None,
    draft: Path | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """The model of a folder, ready to make text; `identify` tells its identity where an adapter asks for it.

    `draft` is the folder of a smaller model of the same tokenizer. Raises `BadRequest` for a folder that is no model,
    and for a draft model that does not fit. Code in the folder is run only where it is trusted.
    """
    info = check_model(folder, trust_remote_code=trust_remote_code)
    model, _ = load_model(folder, dtype=dtype, trust_remote_code=trust_remote_code)
    from mlxops.models.adapter_slot import AdapterSlot
    from mlxops.models.generation import LoadedModel
    from mlxops.models.tokenizer import eos_ids, load_tokenizer

    model.eval()
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    draft_model = None if draft is None else _load_draft(draft, dtype, model, tokenizer, folder)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        stop_tokens=frozenset(eos_ids(folder, tokenizer)),
        slot=AdapterSlot(model, identify=identify, name=folder.name),
        context_length=info.context_length,
        embedding_rows=info.embedding_rows,
        draft=draft_model,
    )


def _load_draft(
    folder: Path, dtype: Any, model: mlx.nn.Module, tokenizer: PreTrainedTokenizerBase, for_folder: Path
) -> mlx.nn.Module:
    from mlxops.models.prompt_cache import can_be_rewound
    from mlxops.models.tokenizer import load_tokenizer

    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise BadRequest(
            f"the draft model {folder.name!r} has another tokenizer than {for_folder.name!r}",
            hint="take a smaller model of the same family",
        )
    draft, _ = load_model(folder, dtype=dtype)
    for each, name in ((model, for_folder.name), (draft, folder.name)):
        if not can_be_rewound(each):
            raise BadRequest(
                f"{name!r} cannot take tokens back (a recurrent state or a sliding window), as a draft model needs it",
                hint="leave out `--draft-model`",
            )
    draft.eval()
    return draft
