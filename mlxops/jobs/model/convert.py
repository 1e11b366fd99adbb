"""Making a model folder of another one with other numbers: quantized, unpacked, or of another type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from mlxops import registry
from mlxops.config import ConvertConfig
from mlxops.errors import BadRequest
from mlxops.jobs.model import models
from mlxops.jobs.model.card import hub_id
from mlxops.jobs.model.record import record_made
from mlxops.models import card, model_files, provenance
from mlxops.models.folders import ModelInfo, check_model, find_model
from mlxops.models.identity import model_identity
from mlxops.models.provenance import ConvertedModel
from mlxops.options import given
from mlxops.projects import blas, machine
from mlxops.projects.invocation import Invocation

Progress = Callable[[str, int, int], None]

_GROUP_SIZES = (16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class ConvertPlan:
    """A conversion that is checked: the model, what becomes of it and where; `there` is a converted model there."""

    invocation: Invocation
    config: ConvertConfig
    source: Path
    info: ModelInfo
    target: Path
    work: ConvertedModel
    there: ConvertedModel | None

    @property
    def is_done(self) -> bool:
        """Whether what is asked for stands there already."""
        return self.there is not None and self.there.is_same_work(self.work)

    @property
    def quantizes(self) -> bool:
        """Whether the new model is quantized by this."""
        return _quantizes(self.config)


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """A converted model in its folder, what `--model` takes for it, and its numbers and bytes before and after."""

    path: str
    typed: str
    source: str
    was_there: bool
    numbers_before: str
    numbers_after: str
    bytes_before: int
    bytes_after: int
    bits_per_weight: float
    uploaded: str | None = None

    def to_json(self) -> registry.JsonObject:
        """All of it as values that JSON has."""
        return {("model" if name == "typed" else name): value for name, value in asdict(self).items()}


def plan(invocation: Invocation, config: ConvertConfig, progress: Progress) -> ConvertPlan:
    """Check all that can be checked before the model is loaded.

    Raises `BadRequest` for what does not go together or fits no such model, `NotFound` where there is none, `Refused`
    for a place where something else stands.
    """
    project = invocation.project
    _check(config)
    source = find_model(config.source, resolve=project.resolve, models_folder=project.models_folder)
    info = check_model(source, trust_remote_code=config.trust_remote_code)
    _check_source(config, info, source)
    target = models.target(project, config.name, config.output, f"{_name_of(source)}-{_suffix(config)}")
    there = provenance.read(target, ConvertedModel)
    if there is None:
        model_files.refuse_existing(target)
    identity = model_identity(
        source,
        project.root / ".mlxops" / "model_hashes.json",
        lambda done, total: progress("model files", done, total),
    )
    wanted = ("quantize", "q_bits", "q_group_size", "q_mode", "quant_predicate", "dequantize", "dtype")
    return ConvertPlan(
        invocation=invocation,
        config=config,
        source=source,
        info=info,
        target=target,
        work=ConvertedModel(
            source=project.relative(source),
            source_identity=identity,
            settings={name: getattr(config, name) for name in wanted} | {"quantize": None, "q_bits": _bits(config)},
        ),
        there=there,
    )


def question(plan: ConvertPlan) -> str | None:
    """What to ask before the converted model that stands there is replaced; None where nothing is replaced."""
    if plan.there is None or plan.is_done:
        return None
    return f"replace {plan.invocation.project.relative(plan.target)}, converted from {plan.there.source}?"


def convert(plan: ConvertPlan, progress: Progress) -> ConvertResult:
    """Convert and record; the folder is there whole or not at all, and what is done already is not done again.

    Raises as `make` does.
    """
    result = make(plan, progress)
    record_made(
        plan.invocation.project,
        plan.target,
        source=f"converted from {result.source}",
        revision=plan.work.key,
        quantization=check_model(plan.target, trust_remote_code=plan.config.trust_remote_code).packing,
        progress=progress,
    )
    return result


def make(plan: ConvertPlan, progress: Progress) -> ConvertResult:
    """Convert without recording it.

    Raises `BadRequest` for what mlx-lm cannot do with the model, and `Failed` for a disk that is full.
    """
    if not plan.is_done:
        cache = plan.invocation.cache or machine.user_cache()
        blas.load(threads=None, core_type=None, cache=cache, setting=plan.invocation.blas)
        with model_files.new_folder(plan.target, replaces=plan.there is not None) as filling:
            _write(plan, filling, progress)
            check_model(filling, trust_remote_code=plan.config.trust_remote_code)
            (filling / "README.md").write_text(_card(plan, filling), encoding="utf-8")
            provenance.write(filling, plan.work)
    project = plan.invocation.project
    info = check_model(plan.target, trust_remote_code=plan.config.trust_remote_code)
    return ConvertResult(
        path=project.relative(plan.target),
        typed=models.as_typed(project, plan.target),
        source=plan.work.source,
        was_there=plan.is_done,
        numbers_before=plan.info.numbers,
        numbers_after=info.numbers,
        bytes_before=plan.info.bytes,
        bytes_after=info.bytes,
        bits_per_weight=8 * info.bytes / info.parameters,
    )


def _write(plan: ConvertPlan, folder: Path, progress: Progress) -> None:
    from mlxops.models import fusing, saving
    from mlxops.models.loading import load_model

    config = plan.config
    model, settings = load_model(plan.source, lazy=True, trust_remote_code=config.trust_remote_code)
    if config.dequantize:
        # scales of another type would unpack to other numbers
        settings = fusing.unpack(model, settings)
    fusing.cast(model, config.dtype or (None if config.dequantize else fusing.type_of(settings)))
    if config.dtype is not None:
        settings = {**settings, "torch_dtype": config.dtype}
        settings.pop("dtype", None)
    if plan.quantizes:
        settings = fusing.pack(
            model,
            settings,
            bits=_bits(config),
            group_size=config.q_group_size,
            mode=config.q_mode,
            recipe=config.quant_predicate,
        )
    saving.check_room(folder, model)
    saving.save(folder, model, settings, source=plan.source, progress=partial(progress, "tensors written"))


def _card(plan: ConvertPlan, folder: Path) -> str:
    info = check_model(folder, trust_remote_code=plan.config.trust_remote_code)
    base = card.read_base(plan.source, name=_name_of(plan.source), hub_id=hub_id(plan.invocation.project, plan.source))
    return card.converted(plan.target.name, base, f"{plan.info.numbers} before, {info.numbers} in this model")


def _quantizes(config: ConvertConfig) -> bool:
    asked = (config.quantize, config.q_bits, config.q_group_size, config.quant_predicate)
    return any(each is not None for each in asked) or config.q_mode != "affine"


def _bits(config: ConvertConfig) -> int | None:
    return config.q_bits if config.quantize is None else int(config.quantize)


def _check(config: ConvertConfig) -> None:
    if config.quantize is not None and config.q_bits is not None and int(config.quantize) != config.q_bits:
        raise BadRequest("--quantize and --q-bits say the same thing", hint="give one of them")
    if _quantizes(config) and config.dequantize:
        raise BadRequest("--dequantize and quantizing exclude each other", hint="convert twice, with two names")
    if config.q_group_size is not None and config.q_group_size not in _GROUP_SIZES:
        sizes = ", ".join(map(str, _GROUP_SIZES))
        raise BadRequest(f"--q-group-size takes {sizes}, not {config.q_group_size}", hint="64 is usual")
    if config.quant_predicate is not None and (config.q_mode != "affine" or "q_bits" in given(config)):
        raise BadRequest(
            "--quant-predicate chooses the bits itself, in the mode affine", hint="leave out `--q-bits` and `--q-mode`"
        )
    if config.quant_predicate is not None and config.quantize is not None:
        raise BadRequest("--quant-predicate chooses the bits itself", hint="leave out `--quantize`")


def _check_source(config: ConvertConfig, info: ModelInfo, source: Path) -> None:
    if _quantizes(config) and info.quantization:
        raise BadRequest(
            f"{source.name!r} is quantized already ({info.numbers}), and quantizing again would lose more",
            hint="take the model that it was made of; or unpack it first (`--dequantize`)",
        )
    if config.dequantize and not info.quantization:
        raise BadRequest(f"{source.name!r} is not quantized", hint="leave out `--dequantize`")


def _suffix(config: ConvertConfig) -> str:
    """What a new model is called after the old one's name."""
    if config.quant_predicate is not None:
        return config.quant_predicate.replace("_", "-")
    if _quantizes(config):
        return f"{_bits(config) or 4}bit" if config.q_mode == "affine" else config.q_mode
    if config.dtype is not None:
        return config.dtype
    return "unpacked" if config.dequantize else "mlx"


def _name_of(folder: Path) -> str:
    """A model's name; of one in the hub's cache, where the folder is a revision, the last part of its id."""
    for parent in folder.parents:
        if parent.name.startswith("models--"):
            return parent.name.rpartition("--")[2]
    return folder.name
