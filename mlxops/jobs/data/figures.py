"""The tokens of data, by role and by length, and how long an epoch of them takes here."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from mlxops import data, registry
from mlxops.projects.project import Project
from mlxops.rows import TokenRow
from mlxops.training.batches import PAD_TO

TEMPLATE = "template"
"""The role of the tokens that the chat template writes around the words."""

ROLES = ("system", "developer", "user", "assistant", "tool", "text", TEMPLATE)


@dataclass(frozen=True, kw_only=True)
class TokenFigures:
    """The training rows in tokens, and one epoch of them; lengths of rows are counted by their upper bounds.

    `by_role` is empty where the tokenizer does not tell where its tokens stand.
    """

    rows: int
    total_tokens: int
    trained_tokens: int
    by_role: Mapping[str, int]
    longest: int
    lengths: Mapping[int, int]
    batches_per_epoch: int
    padding_share: float
    tokens_per_second: float | None
    seconds_per_epoch: float | None


@dataclass
class TokenCounts:
    """The tokens of the training rows so far: 4 bytes per row. `lengths` are of those that are trained."""

    lengths: array[int] = field(default_factory=lambda: array("I"))
    by_role: Counter[str] = field(default_factory=Counter)
    trained: int = 0
    rows: int = 0
    cut: int = 0

    def add(self, row: TokenRow, words: data.WordTokens | None, limit: int) -> None:
        """Count a row as it is trained: the tokens within the limit, and nothing where none of them is trained."""
        self.rows += 1
        self.cut += row.length > limit
        if not (trained := trained_within(row, limit)):
            return
        kept = min(row.length, limit)
        self.lengths.append(kept)
        self.trained += trained
        if words is None:
            return
        others = kept
        for role, start, stop in words:
            if (count := min(stop, kept) - start) > 0:
                self.by_role[role] += count
                others -= count
        self.by_role[TEMPLATE] += others


def trained_within(row: TokenRow, limit: int) -> int:
    """How many of a row's tokens within the limit are trained."""
    return sum(max(min(stop, limit) - max(start, 1), 0) for start, stop in row.spans)


def figures(counts: TokenCounts, batch_size: int, tokens_per_second: float | None) -> TokenFigures:
    """The figures of all rows that were counted."""
    lengths = sorted(counts.lengths)
    positions = 0
    for start in range(0, len(lengths), batch_size):
        batch = lengths[start : start + batch_size]
        positions += len(batch) * (1 + PAD_TO * -(-(batch[-1] - 1) // PAD_TO))
    histogram: Counter[int] = Counter()
    for length in lengths:
        histogram[1 << max(length - 1, 1).bit_length()] += 1
    return TokenFigures(
        rows=len(lengths),
        total_tokens=sum(lengths),
        trained_tokens=counts.trained,
        by_role={role: counts.by_role[role] for role in ROLES if counts.by_role[role]},
        longest=lengths[-1] if lengths else 0,
        lengths=dict(sorted(histogram.items())),
        batches_per_epoch=-(-len(lengths) // batch_size),
        padding_share=1 - sum(lengths) / positions if positions else 0.0,
        tokens_per_second=tokens_per_second,
        seconds_per_epoch=counts.trained / tokens_per_second if tokens_per_second else None,
    )


def tokens_per_second(project: Project, model: Path) -> float | None:
    """How fast this machine trained this model in runs of the project: their median; None where there are none.

    Raises what the registry raises where it cannot be read.
    """
    if not project.registry_path.is_file():
        return None
    with registry.open_read_only(project.registry_path) as db:
        speeds = registry.speeds_here(db, model=project.relative(model))
    return median(speeds) if speeds else None
