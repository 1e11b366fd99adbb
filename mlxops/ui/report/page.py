"""A report as one HTML page that needs nothing else: no script, no network, no file beside it.

What the page says is put together here and in `report_comparison.py`; `templates/report` says how it looks. Every value
goes in as text, and the template engine escapes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from rich.console import Console
from rich.text import Text

from mlxops import __version__, words
from mlxops.resources import folder
from mlxops.ui.charts import figures
from mlxops.ui.charts import svg as report_svg
from mlxops.ui.report import comparison
from mlxops.ui.report import phrases as sentences
from mlxops.ui.run.results import measured, shape_in_words

if TYPE_CHECKING:
    from mlxops.jobs.run.comparison import Comparison
    from mlxops.jobs.run.report import ReportedRun, WrittenFile
    from mlxops.jobs.run.show import RunDetails
    from mlxops.registry import (
        AttemptRow,
        BenchmarkSummaryView,
        CheckpointRow,
        ComparedScore,
        EventView,
        FamilyMember,
        GivenAnswer,
        GivenVerdict,
        JsonObject,
        NamedSeries,
        Range,
        ScoredEvaluation,
    )

Pairs = list[tuple[str, str]]


class Table(TypedDict):
    """A table for the template: the columns, which of them hold numbers, the rows, and whether it stands open."""

    columns: Sequence[str]
    rows: list[Sequence[str]]
    numbers: set[int]
    is_open: bool


class Relative(TypedDict):
    """A run of the family for the template, and how deep it stands."""

    depth: int
    name: str
    is_it: bool
    facts: str


_OPEN = 12  # rows up to which a table stands open
_SMALL = (
    # title, unit, the curves by name with their label
    ("learning rate", "", (("learning_rate", ""),)),
    ("gradient norm", "", (("gradient_norm", ""),)),
    ("speed", "tokens per second", (("tokens_per_second", ""),)),
    ("memory", "bytes", (("peak_memory", "peak"), ("active_memory", "active"))),
)


def draw(
    run: ReportedRun | None, comparisons: Mapping[str, Comparison] | None, now: datetime, *, png: bool
) -> dict[str, bytes]:
    """The report on one run, or on several by each axis: the page as `html` and, where wanted, the picture as `png`.

    Raises `BadRequest` where matplotlib is missing.
    """
    figures.require()
    drawn = {"html": _page(run, comparisons, now).encode()}
    if png:
        drawn["png"] = figures.png(run, comparisons["iterations"] if comparisons else None)
    return drawn


def written(files: Iterable[WrittenFile], console: Console) -> None:
    """One line a file with its size."""
    for each in files:
        console.print(Text(f"{words.visible(each.file)}: {words.size(each.bytes)}"), soft_wrap=True)


def _page(run: ReportedRun | None, comparisons: Mapping[str, Comparison] | None, now: datetime) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder("templates") / "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if comparisons is not None:
        content = comparison.content(comparisons)
    else:
        assert run is not None
        content = _content(run)
    shared = {
        "light": report_svg.LIGHT,
        "dark": report_svg.DARK,
        "version": __version__,
        "now": f"{now:%Y-%m-%d %H:%M} UTC",
    }
    kind = "comparison" if comparisons is not None else "run"
    return environment.get_template(f"{kind}.html").render(**shared, **content)


def _content(found: ReportedRun) -> JsonObject:
    """What the page of one run says, part by part; an empty part is left out."""
    details = found.details
    row, attempts = details.run, details.attempts
    differing, others = _settings(found)
    alt = sentences.chart_of_losses(details)
    return {
        "title": words.visible(row["name"]),
        "status": row["status"] + (", imported" if row["imported_from"] else ""),
        "sentence": sentences.how_it_went(details),
        "note": sentences.lines(row["note"]) if row["note"] else "",
        "tags": words.visible(row["tags"]) if row["tags"] else "",
        "figures": _figures(details),
        "loss": [
            (kind, figures.loss(found, f"loss-{kind}", size, alt))
            for kind, size in (("wide", figures.WIDE), ("narrow", figures.NARROW))
            if figures.has_losses(found)
        ],
        "caption": sentences.caption(found, is_smoothed=figures.is_smoothed(found)),
        "small": list(_small(found.curves, found.series)),
        "facts": _facts(found),
        "lineage": _lineage(details.lineage, row["name"]),
        "differing": differing,
        "others": others,
        "attempts": table(
            ("attempt", "start", "from", "to", "began", "ended", "why", "host"), map(_attempt, attempts), (0, 2, 3)
        ),
        "checkpoints": table(
            ("iteration", "size", "train loss", "validation loss", "", "status", "written"),
            map(_checkpoint, details.checkpoints),
            (0, 1, 2, 3),
        ),
        "evaluations": table(
            ("when", "what", "data", "iteration", "rows", "score", "value", "base model"),
            _scores(details.evaluations),
            (3, 4, 6, 7),
        ),
        "answers": [
            [(label, sentences.lines(text)) for label, text in _answer(each) if text is not None]
            for each in details.answers
        ],
        "verdicts": table(
            ("when", "iteration", "verdict", "asked", "answered", "note"), map(_verdict, details.verdicts), (1,)
        ),
        "benchmarks": table(
            ("when", "request", "figure", "trials", "mean ± deviation", "lowest", "highest"),
            map(_speed, details.benchmarks),
            (3, 4, 5, 6),
        ),
        "events": table(
            ("when", "iteration", "", "what"), map(_event, details.events), (1,)
        ),
        "environment": flat(attempts[-1]["environment"] if attempts else {}),
        "typed": sentences.lines(attempts[-1]["command"]) if attempts and attempts[-1]["command"] else "",
        "command": sentences.lines(details.command) if details.command else "",
    }  # fmt: skip


def _answer(row: GivenAnswer) -> Sequence[tuple[str, str | None]]:
    return (
        ("asked", row["prompt"]),
        ("expected", row["expected"]),
        ("base model", row["base_answer"]),
        ("answered", row["answer"]),
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> Table:
    """A table for the template: which columns hold numbers, and whether it is short enough to stand open."""
    found = list(rows)
    return {"columns": columns, "rows": found, "numbers": set(numbers), "is_open": len(found) <= _OPEN}


def flat(values: JsonObject, before: str = "") -> Pairs:
    """Names with dots and the values that they hold, all as text."""
    found: Pairs = []
    for name, value in values.items():
        label = f"{before}{words.visible(name)}"
        if isinstance(value, Mapping):
            found += flat(value, f"{label}.")
        elif value is not None:
            is_size = name.endswith("memory") and isinstance(value, int)
            found.append((label, words.size(value) if is_size else setting(value)))
    return found


def setting(value: Any) -> str:
    """A setting as it stands in a recipe."""
    if value is None:
        return words.NOTHING
    if isinstance(value, str):
        return words.visible(value) or '""'
    return words.visible(json.dumps(value, ensure_ascii=False, default=str))


def _figures(details: RunDetails) -> Pairs:
    """The few numbers that are looked for first."""
    row = details.run
    errors = {each["iteration"]: each["closing_standard_error"] for each in details.checkpoints}
    known_errors = ((point["iteration"], point["validation_standard_error"]) for point in details.curve)
    errors |= {iteration: error for iteration, error in known_errors if error is not None}
    error = errors.get(row["best_iteration"]) if row["best_iteration"] is not None else None
    best = measured(row["best_validation_loss"], error)
    known = [
        ("best validation loss", best if row["best_iteration"] is not None else words.NOTHING),
        ("last train loss", words.number(row["train_loss"])),
        ("iterations", sentences.progress(row)),
        ("trained tokens", words.count(row["trained_tokens"])),
        ("time at work", words.duration(row["seconds"])),
        ("tokens per second, last", words.count(row["tokens_per_second"])),
    ]
    return [(label, value) for label, value in known if value != words.NOTHING]


def _small(curves: Mapping[str, Sequence[Range]], series: Mapping[str, NamedSeries]) -> Iterable[tuple[str, str]]:
    """The small charts that there is something for, each with its title."""
    for title, unit, members in _SMALL:
        known = [(name, label) for name, label in members if any(row["finite"] for row in curves[name])]
        if not known:
            continue
        scale = 1.0
        if unit == "bytes":
            highest = max(row["high"] or 0.0 for name, _ in known for row in curves[name] if row["finite"])
            unit, scale = ("GB", 1e-9) if highest >= 1e9 else ("MB", 1e-6)
        first = known[0][0]
        alt = sentences.chart_of_metric(title.capitalize(), first, series[first])
        drawn = [(label, curves[name]) for name, label in known]
        svg = figures.small(drawn, title.replace(" ", "-"), alt, scale=scale)
        yield f"{title}, {unit}" if unit else title, svg


def _facts(found: ReportedRun) -> Pairs:
    row = found.details.run
    is_own = row["imported_from"] is None  # of another tool's only names are known, which stand here already
    known: Sequence[tuple[str, Any]] = (
        ("model", row["model"]),
        ("identity of the model", found.model_identity if is_own else None),
        ("data", row["data"]),
        ("identity of the data", found.data_identity if is_own else None),
        ("kind", row["kind"]),
        ("fingerprint", row["fingerprint"] if is_own else None),
        ("adapter", row["adapter_path"] if is_own else None),
        ("created", sentences.when(row["created_at"])),
        ("last change", sentences.when(row["updated_at"])),
        ("epoch", words.count(row["epoch"]) if row["epoch"] else None),
        ("attempts", words.count(row["attempts"])),
        ("whole checkpoints", words.count(row["checkpoints"])),
        ("branched from", row["parent"]),
        ("imported from", row["imported_from"]),
    )
    return [(label, words.visible(value)) for label, value in known if value not in (None, "")]


def _settings(found: ReportedRun) -> tuple[Table, Pairs]:
    """The settings that differ from the defaults beside these, and all others; what one command did is none."""
    defaults = found.details.defaults
    config = {name: value for name, value in found.details.config.items() if name not in found.no_settings}
    differing = {name: value for name, value in config.items() if name in defaults and defaults[name] != value}
    rows = [(words.visible(name), setting(value), setting(defaults[name])) for name, value in differing.items()]
    others = {name: value for name, value in config.items() if name not in differing}
    if isinstance(others.get("deciding"), Mapping):
        # what the weights depend on is said once
        others["deciding"] = {name: each for name, each in others["deciding"].items() if config.get(name) != each}
    return table(("setting", "value", "default"), rows), flat(others)


def _lineage(rows: Sequence[FamilyMember], name: str) -> list[Relative]:
    """The family, parents before children, each with how deep it stands; nothing for a run without one."""
    if len(rows) < 2:
        return []
    children: dict[str | None, list[FamilyMember]] = {}
    known = {row["run"] for row in rows}
    for row in rows:
        children.setdefault(row["parent"] if row["parent"] in known else None, []).append(row)
    found: list[Relative] = []
    waiting = [(row, 0) for row in reversed(children.get(None, []))]
    while waiting:
        row, depth = waiting.pop()
        found.append(
            {"depth": depth, "name": words.visible(row["run"]), "is_it": row["run"] == name, "facts": _kin(row)}
        )
        waiting += [(child, depth + 1) for child in reversed(children.get(row["run"], []))]
    return found


def _kin(row: FamilyMember) -> str:
    facts = [f"from iteration {words.count(row['branch_iteration'])}"] if row["parent"] is not None else []
    facts.append(f"{row['status']} at {words.progress(row['iteration'], row['target_iterations'], ' of ')}")
    if row["best_validation_loss"] is not None:
        facts.append(f"best {words.number(row['best_validation_loss'])} at {words.count(row['best_iteration'])}")
    return ", ".join(facts)


def _attempt(row: AttemptRow) -> list[str]:
    reason = row["end_reason"] or ("at work" if row["ended_at"] is None else "ended")
    return [
        str(row["number"]),
        words.visible(row["start_kind"] + (f" ({row['start_note']})" if row["start_note"] else "")),
        words.count(row["from_iteration"]),
        words.count(row["to_iteration"]),
        sentences.when(row["started_at"]),
        sentences.when(row["ended_at"]),
        words.visible(reason + (f": {row['error']}" if row["error"] else "")),
        words.visible(row["host"]),
    ]


def _checkpoint(row: CheckpointRow) -> list[str]:
    return [
        words.count(row["iteration"]),
        words.size(row["bytes"]),
        words.number(row["train_loss"]),
        words.number(row["validation_loss"]),
        "best" if row["is_best"] else "",
        row["status"],
        sentences.when(row["created_at"]),
    ]


_NO_SCORE: ComparedScore = {"metric": "", "value": None, "standard_error": None, "base_value": None}


def _scores(evaluations: Iterable[ScoredEvaluation]) -> Iterable[list[str]]:
    for each in evaluations:
        about = [
            sentences.when(each["created_at"]),
            words.visible(each["kind"]),
            words.visible(each["data"]),
            words.count(each["iteration"]),
            words.count(each["rows"]),
        ]
        for score in each["scores"] or [_NO_SCORE]:
            value = measured(score["value"], score["standard_error"])
            yield [*about, words.visible(score["metric"]), value, words.number(score["base_value"])]


def _verdict(row: GivenVerdict) -> list[str]:
    said = [sentences.lines(text) for text in (row["prompt"], row["answer"], row["note"] or "")]
    return [sentences.when(row["created_at"]), words.count(row["iteration"]), row["verdict"], *said]


def _speed(row: BenchmarkSummaryView) -> list[str]:
    shape = (row["context_tokens"], row["prompt_tokens"], row["generated_tokens"], row["batch_size"])
    return [
        sentences.when(row["created_at"]),
        shape_in_words(*shape),
        "tokens/s read" if row["metric"] == "prompt_tokens_per_second" else "tokens/s made",
        words.count(row["trials"]),
        measured(row["mean"], row["standard_deviation"]),
        words.number(row["lowest"]),
        words.number(row["highest"]),
    ]


def _event(row: EventView) -> list[str]:
    level = "" if row["level"] == "info" else row["level"]
    return [sentences.when(row["time"]), words.count(row["iteration"]), level, sentences.lines(row["message"])]
