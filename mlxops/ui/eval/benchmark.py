"""The figures of a benchmark: a table for each shape of a request, or all of them as data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.text import Text

from mlxops import words
from mlxops.ui.run.results import shape_in_words
from mlxops.ui.terminal import tables

if TYPE_CHECKING:
    from mlxops.jobs.eval.benchmark import Changed, Result
    from mlxops.registry import BenchmarkSummaryView

Format = Literal["table", "csv", "json", "md", "sql"]

_FIGURES = {
    "prompt_tokens_per_second": "prompt tokens/s",
    "generation_tokens_per_second": "made tokens/s",
    "time_to_first_token": "first token",
    "token_latency": "next token",
    "seconds": "all of it",
    "peak_memory": "peak memory",
    "active_memory": "memory after",
}
_IS_SPEED = ("prompt_tokens_per_second", "generation_tokens_per_second")
_IS_MEMORY = ("peak_memory", "active_memory")
_SHAPE = itemgetter("context_tokens", "prompt_tokens", "generated_tokens", "batch_size")
_NOTED_DRIFT = 0.1  # of the mean, from the first trial to the last


def draw(result: Result, console: Console, format: Format) -> None:
    """All figures, as a person reads them or as data: rows of the view `benchmark_summary`."""
    if format == "table":
        _tables(result, console)
    elif format == "sql":
        console.file.write(_sql(result.figures))
    elif format == "json":
        tables.json_out(to_json(result), console)
    else:
        columns = list(result.figures[0]) if result.figures else []
        tables.table(columns, [list(row.values()) for row in result.figures], console, format)


def to_json(result: Result) -> dict[str, object]:
    """The result as `--json` writes it."""
    return {
        "id": result.id,
        "model": result.model,
        "adapter": result.adapter,
        "host": result.host,
        "device": result.device,
        "versions": result.versions,
        "load_seconds": result.load_seconds,
        "iterations": result.iterations,
        "trials": result.trials,
        "is_interrupted": result.is_interrupted,
        "figures": list(result.figures),
        "before": result.before["id"] if result.before else None,
        "before_project": str(result.before_project) if result.before_project else None,
        "changes": [
            {
                "context_tokens": each.shape.context_tokens,
                "prompt_tokens": each.shape.prompt_tokens,
                "generated_tokens": each.shape.generated_tokens,
                "batch_size": each.shape.batch_size,
                "metric": each.metric,
                "share": each.change.share,
                "probability": each.change.probability,
                "is_significant": each.change.is_significant,
            }
            for each in result.changes
        ],
    }


def _tables(result: Result, console: Console) -> None:
    model = words.visible(result.model) + (f" with {words.visible(result.adapter)}" if result.adapter else "")
    console.print(tables.heading(model), soft_wrap=True)
    about = f"{words.visible(result.device)}, MLX {result.versions.get('mlx', words.NOTHING)}"
    console.print(Text(f"{about}; loaded in {words.duration(result.load_seconds)}"), soft_wrap=True)
    by_shape = [(shape, list(rows)) for shape, rows in groupby(result.figures, key=_SHAPE)]
    for shape, rows in by_shape:
        console.print()
        console.print(tables.heading(shape_in_words(*shape)), soft_wrap=True)
        found = {row["metric"]: row for row in rows}
        lines = [_line(metric, found[metric]) for metric in _FIGURES if metric in found]
        tables.print_table(("figure", "mean", "± deviation", "p50", "p90", "p99"), lines, console)
        _drift(found, console)
    console.print()
    planned = result.iterations * max(len(by_shape), 1)
    done = words.plural(result.trials, "trial")
    is_short = result.is_interrupted
    console.print(Text(f"interrupted after {done} of {words.count(planned)}" if is_short else done), soft_wrap=True)
    if result.before is not None:
        _changes(result, console)
    line = f'recorded as benchmark {result.id}; `inv sql "select * from benchmark_summary"` shows all'
    console.print(Text(line), soft_wrap=True)


def _line(metric: str, row: BenchmarkSummaryView) -> tuple[str, ...]:
    values = (row["mean"], row["standard_deviation"], row["median"], row["percentile_90"], row["percentile_99"])
    return (_FIGURES[metric], *(_figure(metric, value) for value in values))


def _figure(metric: str, value: float | None) -> str:
    if value is None:
        return words.NOTHING
    if metric in _IS_MEMORY:
        return words.size(value)
    if metric in _IS_SPEED:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value * 1e3:,.1f} ms" if value < 1 else f"{value:,.2f} s"


def _drift(found: dict[str, BenchmarkSummaryView], console: Console) -> None:
    for metric in _IS_SPEED:
        drift = found[metric]["drift"] if metric in found else None
        if drift is not None and abs(drift) >= _NOTED_DRIFT:
            way = "more" if drift > 0 else "less"
            line = f"{_FIGURES[metric]}: {words.share(abs(drift))} {way} in the last trials than in the first"
            console.print(Text(line), soft_wrap=True)


def _changes(result: Result, console: Console) -> None:
    assert result.before is not None
    where = f" of {words.visible(str(result.before_project))}" if result.before_project else ""
    when = f"benchmark {result.before['id']}{where} ({result.before['created_at'][:10]})"
    real = [each for each in result.changes if each.change.is_significant]
    if not real:
        console.print(Text(f"no change since {when} that chance does not explain"), soft_wrap=True)
    for each in real:
        console.print(Text(f"{_changed(each)} than in {when}"), soft_wrap=True)


def _changed(each: Changed) -> str:
    shape = f"{words.count(each.shape.prompt_tokens)} + {words.count(each.shape.generated_tokens)}"
    way = "more" if each.change.share > 0 else "less"
    return f"{_FIGURES[each.metric]} ({shape}): {words.share(abs(each.change.share))} {way}"


def _sql(rows: Sequence[BenchmarkSummaryView]) -> str:
    """Statements that make a table `benchmark` and put the rows into it: one file can have those of many machines."""
    if not rows:
        return ""
    names = ", ".join(rows[0])
    statements = [f"CREATE TABLE IF NOT EXISTS benchmark ({names});"]
    for row in rows:
        statements.append(f"INSERT INTO benchmark ({names}) VALUES ({', '.join(map(_quoted, row.values()))});")
    return "\n".join(statements) + "\n"


def _quoted(value: object) -> str:
    """A value as SQL writes it."""
    if value is None:
        return "NULL"
    return repr(value) if isinstance(value, (int, float)) else "'" + str(value).replace("'", "''") + "'"
