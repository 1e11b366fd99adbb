"""What the card of a fused model says: gathered from the run, its registry and the comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import files, registry, words
from mlxops.jobs.model import parity
from mlxops.models import card, provenance
from mlxops.models.provenance import ConvertedModel, FusedModel
from mlxops.projects.project import Project

if TYPE_CHECKING:
    from mlxops.jobs.model.fuse_plan import FusePlan

_KINDS = {"lora": "LoRA", "dora": "DoRA", "full": "weights trained themselves"}
_SETTINGS = {
    "learning_rate": "learning rate",
    "optimizer": "optimizer",
    "batch_size": "rows per batch",
    "grad_accumulation_steps": "iterations per optimizer update",
    "max_seq_length": "tokens per row at most",
    "mask_prompt": "only the assistant's words trained",
    "seed": "seed",
}


def write(plan: FusePlan, made: FusedModel, *, has_modelfile: bool) -> str:
    """The card of a plan's model as text."""
    assert plan.chosen.adapter is not None
    adapter = plan.chosen.adapter.adapter
    trained = plan.trained
    config: Mapping[str, Any] = trained["config"] if trained else {}
    project = plan.invocation.project
    summary = None
    if plan.run_id is not None:
        with registry.open_read_only(project.registry_path) as db:
            summary = registry.summary_of(db, plan.run_id)
    base = card.read_base(plan.chosen.folder, name=plan.chosen.folder.name, hub_id=hub_id(project, plan.chosen.folder))
    return card.text(
        card.Card(
            name=plan.target.name,
            base=base,
            kind=_KINDS[adapter.fine_tune_type],
            how=_how(plan, made),
            settings=_settings(plan, made, config),
            data=_data(trained["data"], summary) if trained else [],
            results=_results(summary) if summary else [],
            check=_check(made),
            has_modelfile=has_modelfile,
        )
    )


def hub_id(project: Project, folder: Path) -> str | None:
    """The id on the hub of what a model was made of, as far as it is known here.

    Downloads are in the registry, the hub's own cache tells by its folders, and a converted model by its source.
    """
    if project.registry_path.is_file():
        with registry.open_read_only(project.registry_path) as db:
            row = registry.recorded_models(db).get(project.relative(folder))
        # what was made here has a sentence there
        if row is not None and row["source"] and " " not in row["source"]:
            return row["source"]
    for parent in folder.parents:
        kind, _, rest = parent.name.partition("--")
        if kind == "models" and rest:
            return rest.replace("--", "/", 1)
    made = provenance.read(folder, ConvertedModel)
    source = project.from_root(made.source) if made else folder
    return hub_id(project, source) if source.is_dir() and not files.is_same(source, folder) else None


def _how(plan: FusePlan, made: FusedModel) -> str:
    bits = (plan.info.quantization or {}).get("bits")
    if made.quantize is not None:
        return f"fused into one model and quantized to {made.quantize} bits"
    if bits is None:
        return "fused into one model"
    if made.de_quantize:
        return f"fused into one model; the base model had {bits} bits and was unpacked"
    return f"fused into one model of {bits} bits, as the base model is"


def _settings(plan: FusePlan, made: FusedModel, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    assert plan.chosen.adapter is not None
    adapter = plan.chosen.adapter.adapter
    layers = plan.info.layers if adapter.num_layers < 0 else adapter.num_layers
    found = [("layers trained", f"the last {layers} of {plan.info.layers}")]
    if made.iteration is not None:
        found.append(("iterations", words.count(made.iteration)))
    if adapter.fine_tune_type != "full":
        found += [("rank", str(adapter.rank)), ("scale", f"{adapter.scale:g}")]
    said = {name: value for name, value in config.items() if name in _SETTINGS and value is not None}
    if told := plan.chosen.adapter.template_config:
        found.append(("told to the chat template", json.dumps(dict(told), ensure_ascii=False)))
    return found + [(label, _word(said[name])) for name, label in _SETTINGS.items() if name in said]


def _data(place: str, summary: registry.RunSummaryView | None) -> list[str]:
    trained = f"; {words.count(summary['trained_tokens'])} tokens were trained" if summary else ""
    return [f"`{Path(place).name}`, which is not part of this model{trained}."]


def _results(summary: registry.RunSummaryView) -> list[tuple[str, str]]:
    pairs = [
        ("training loss, last", summary["train_loss"]),
        ("validation loss, last", summary["validation_loss"]),
        ("validation loss, best", summary["best_validation_loss"]),
    ]
    return [(label, words.number(value)) for label, value in pairs if value is not None]


def _check(made: FusedModel) -> list[tuple[str, str]]:
    found = parity.figures(made.check)
    if found is None:
        return []
    return [
        ("compared on", f"{words.plural(found['tokens'], 'token')} of {words.plural(found['rows'], 'row')}"),
        ("tokens whose most likely token is another", words.share(found["changed_tokens"])),
        ("KL divergence, nats per token", words.short(found["kl_divergence"])),
        ("perplexity of base model and adapter", words.number(found["perplexity_before"])),
        ("perplexity of this model", words.number(found["perplexity_after"])),
    ]


def _word(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
