"""Whether a model that was made says what it was made of says: on real rows, by training's own tokens and masks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import data, files, registry
from mlxops.adapters.adapter_config import DescribedRun
from mlxops.errors import BadRequest
from mlxops.jobs.eval import samples
from mlxops.jobs.train import fit
from mlxops.models.folders import ModelInfo
from mlxops.models.tokenizer import eos_ids, load_tokenizer, template_arguments
from mlxops.projects.project import Project

if TYPE_CHECKING:
    import mlx.nn

    from mlxops.evaluation.parity import RowParity

Progress = Callable[[str, int, int], None]

KIND = "fuse"
_USUAL_LENGTH = 2048


@dataclass(frozen=True, kw_only=True)
class ParityRows:
    """The rows to compare two models on, where they stand, and how they became tokens."""

    tokenized: data.Tokenized
    records: tuple[data.Record, ...]
    file: Path
    config: registry.JsonObject
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a model is from what it was made of, over so many trained tokens.

    `changed` is the share of tokens whose most likely token is another one, None where a score is not finite. Before
    there is the perplexity; after, besides it, `changed_tokens`, `kl_divergence` (nats per token), and
    `logit_difference`, the largest.
    """

    rows: int
    tokens: int
    changed: float | None
    scores_before: tuple[registry.Score, ...]
    scores_after: tuple[registry.Score, ...]
    seconds: float


def read_rows(
    project: Project,
    *,
    trained: DescribedRun | None,
    path: str | None,
    count: int,
    folder: Path,
    info: ModelInfo,
    trust_remote_code: bool,
    progress: Progress,
) -> ParityRows:
    """The run's own validation rows, or those of a file or folder that a person names; `count` of them at most.

    Where a run has no validation rows they are training rows, and a note says so. Raises `BadRequest` where nobody
    says which rows, `NotFound` and `InvalidData` as reading data does.
    """
    settings: Mapping[str, Any] = trained["config"] if trained else {}
    records, file, notes = _records(project, trained, path)
    records = samples.draw(records, count, 0)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    config = {
        "mask_prompt": settings.get("mask_prompt", True),
        "max_seq_length": settings.get("max_seq_length", _USUAL_LENGTH),
        "chat_template_config": dict(settings.get("chat_template_config") or {}),
    }
    tokenized = data.tokenize(
        records,
        tokenizer,
        max_seq_length=config["max_seq_length"],
        mask_prompt=config["mask_prompt"],
        use="validation",
        stops=eos_ids(folder, tokenizer),
        template_arguments={**template_arguments(tokenizer), **config["chat_template_config"]},
        progress=lambda done, total: progress("tokens", done, total),
    )
    if not tokenized.rows:
        raise BadRequest(
            f"no row of {project.relative(file)} has a trained token to compare on",
            hint="`--data` names other rows; `--no-check` leaves the comparison out",
        )
    fit.check_rows(tokenized.rows, tokenizer, info, folder.name)
    return ParityRows(tokenized=tokenized, records=records, file=file, config=config, notes=tuple(notes))


def _records(
    project: Project, trained: DescribedRun | None, path: str | None
) -> tuple[Sequence[data.Record], Path, list[str]]:
    if path is not None:
        held_out = data.read_held_out(project.resolve(path), root=project.root)
        return held_out.records, held_out.file, []
    if trained is None:
        raise BadRequest(
            "the adapter's folder does not say what it was trained on, so there are no rows to compare on",
            hint="`--data` names a file or folder of rows; `--no-check` leaves the comparison out",
        )
    place = project.from_root(trained["data"])
    splits = data.read(place, root=project.root, needed=("train", "valid"))
    if splits.valid:
        return splits.valid, splits.files[min(1, len(splits.files) - 1)], []
    return splits.train, splits.files[0], ["there are no validation rows: compared on training rows"]


def measure(before: mlx.nn.Module, after: mlx.nn.Module, rows: ParityRows, progress: Progress) -> Parity:
    """Compare two loaded models on the rows."""
    from mlxops.evaluation import measures, parity
    from mlxops.training import batches
    from mlxops.training.improvement import ratio

    start = time.perf_counter()
    total = len(rows.tokenized.rows)
    chosen = batches.fixed_batches(rows.tokenized.rows, batch_size=1, count=-1, seed=0)
    found = parity.compare_rows(chosen, before, after, lambda done: progress("rows compared", done, total))
    first, second = ([measures.score(each, ratio) for each in several] for several in parity.measures(found))
    logits = _largest(found)
    values = {score.metric: score.value for score in second}
    return Parity(
        rows=len(found),
        tokens=sum(row.tokens for row in found),
        # not a number has no most likely token, and MLX names the first
        changed=None if logits is None else values["changed_tokens"],
        scores_before=tuple(_score(each) for each in first),
        scores_after=(*(_score(each) for each in second), registry.Score(metric="logit_difference", value=logits)),
        seconds=time.perf_counter() - start,
    )


def to_check(project: Project, rows: ParityRows, found: Parity) -> registry.JsonObject:
    """A comparison as JSON: all that its evaluation is recorded from."""
    return {
        "data": project.relative(rows.file),
        "data_sha256": files.sha256(rows.file),
        "config": dict(rows.config),
        "rows": found.rows,
        "tokens": found.tokens,
        "seconds": found.seconds,
        "scores": {
            "before": [asdict(score) for score in found.scores_before],
            "after": [asdict(score) for score in found.scores_after],
        },
    }


def figures(check: registry.JsonObject | None) -> registry.JsonObject | None:
    """The figures of a comparison by name, as people and scripts read them; None where there was none."""
    if check is None:
        return None
    before, after = ({each["metric"]: each["value"] for each in check["scores"][side]} for side in ("before", "after"))
    return {
        "data": check["data"],
        "rows": check["rows"],
        "tokens": check["tokens"],
        "changed_tokens": after["changed_tokens"],
        "kl_divergence": after["kl_divergence"],
        "logit_difference": after["logit_difference"],
        "perplexity_before": before["perplexity"],
        "perplexity_after": after["perplexity"],
    }


def _score(score: Any) -> registry.Score:
    return registry.Score(metric=score.metric, value=score.value, standard_error=score.standard_error)


def _largest(rows: Sequence[RowParity]) -> float | None:
    largest = max(row.logits for row in rows)
    return largest if all(math.isfinite(row.logits) for row in rows) else None
