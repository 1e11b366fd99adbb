"""The results of a test: scores with their errors, the base beside them, and the rows that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mlxops import words
from mlxops.ui.charts import plot
from mlxops.ui.terminal import tables
from mlxops.ui.terminal.console import is_unicode

if TYPE_CHECKING:
    from mlxops.evaluation.comparison import Compared
    from mlxops.evaluation.measures import Better, MeasuredScore
    from mlxops.evaluation.perplexity import RowLoss
    from mlxops.jobs.eval.compare import Entry
    from mlxops.jobs.eval.results import TestResults

_DETAILS = ("perplexity_all", "loss", "longest_repeat")  # left out where many checkpoints stand side by side
_SHOWN = 3  # rows that changed most, in each direction


def results(results: TestResults, console: Console) -> None:
    """The scores as a table, then the rows with the highest perplexity, then where the results are."""
    tuned, base = results.tuned, results.base
    model = words.visible(results.model) + (f" with {words.visible(tuned.adapter)}" if tuned.adapter else "")
    rows = "1 row" if results.rows == 1 else f"{words.count(results.rows)} rows"
    console.print(tables.heading(f"{model}, {rows} of {words.visible(results.data)}"), soft_wrap=True)
    console.print()
    if base is None:
        tables.print_table(("metric", "score", "± error"), [_alone(score) for score in tuned.scores], console)
    else:
        before = {score.metric: score for score in base.scores}
        compared = {each.metric: each for each in results.compared}
        header = ("metric", "base", "tuned", "difference", "95 % interval", "better/worse/=")
        lines = [_beside(before.get(score.metric), score, compared.get(score.metric)) for score in tuned.scores]
        tables.print_table(header, lines, console)
    _unsure(results.compared, console)
    for each in results.compared:
        _moved(each, console)
    if tuned.worst:
        _worst(tuned.worst, console)
    if tuned.evaluation_id is not None:
        console.print()
        line = f'recorded as evaluation {tuned.evaluation_id}; `inv sql "select * from evaluation_summary"` shows all'
        console.print(Text(line), soft_wrap=True)


def comparison(entries: Sequence[Entry], console: Console) -> None:
    """The scores of every model side by side, then how each differs from the first, and how sure that is."""
    first = entries[0]
    rows = words.plural(first.results.rows, "row")
    console.print(tables.heading(f"{rows} of {words.visible(first.results.data)}"), soft_wrap=True)
    console.print()
    found = [{score.metric: score for score in entry.results.tuned.scores} for entry in entries]
    metrics = list(dict.fromkeys(metric for scores in found for metric in scores))
    lines = [
        (metric, *(words.number(scores[metric].value) if metric in scores else words.NOTHING for scores in found))
        for metric in metrics
    ]
    tables.print_table(("metric", *(words.visible(entry.name) for entry in entries)), lines, console)
    for entry in entries[1:]:
        console.print()
        title = f"{words.visible(entry.name)} against {words.visible(first.name)}"
        console.print(tables.heading(title), soft_wrap=True)
        header = ("metric", "difference", "95 % interval", "better/worse/=")
        better = {score.metric: score.better for score in entry.results.tuned.scores}
        differences = [
            (
                each.metric,
                _signed(words.number(each.difference)),
                _interval(each),
                f"{len(each.improved)}/{len(each.worsened)}/{len(each.same)}" if better.get(each.metric) else "",
            )
            for each in entry.compared
        ]
        tables.print_table(header, differences, console)
        _unsure(entry.compared, console)
        for each in entry.compared:
            _moved(each, console)
    ids = words.listed([str(entry.results.tuned.evaluation_id) for entry in entries], len(entries))
    console.print()
    line = f'recorded as evaluations {ids}; `inv sql "select * from evaluation_summary"` shows all'
    console.print(Text(line), soft_wrap=True)


def checkpoints(measured: Sequence[TestResults], console: Console) -> None:
    """A line for each checkpoint, the best of each score marked, and the curve of the first score."""
    last = measured[-1]
    title = f"{words.visible(last.model)}, {words.plural(len(measured), 'checkpoint')} on {words.visible(last.data)}"
    console.print(tables.heading(title), soft_wrap=True)
    console.print()
    better = {score.metric: score.better for score in last.tuned.scores}
    shown = [metric for metric, direction in better.items() if direction and metric not in _DETAILS]
    found = [{score.metric: score for score in each.tuned.scores} for each in measured]
    best = {metric: _best([scores[metric].value for scores in found], better[metric]) for metric in shown}
    lines = [
        (words.count(each.iteration), *(_marked(scores[metric].value, best[metric]) for metric in shown))
        for each, scores in zip(measured, found, strict=True)
    ]
    if last.base is not None:
        base = {score.metric: score.value for score in last.base.scores}
        lines.insert(0, ("base", *(words.number(base.get(metric)) for metric in shown)))
    tables.print_table(("iteration", *shown), lines, console)
    _curve(
        shown[0],
        [(each.iteration or 0, scores[shown[0]].value) for each, scores in zip(measured, found, strict=True)],
        console,
    )
    console.print()
    console.print(Text("* is the best of its column; `--json` has all scores"), soft_wrap=True)
    if last.tuned.answers:
        console.print(Text("`inv sql @row_history --param row=1` shows what became of a row's answer"), soft_wrap=True)


def _best(values: Sequence[float | None], better: Better | None) -> float | None:
    known = {value for value in values if value is not None}
    return None if len(known) < 2 else max(known) if better == "higher" else min(known)


def _marked(value: float | None, best: float | None) -> str:
    return words.number(value) + (" *" if value is not None and value == best else "  ")


def _curve(metric: str, points: Sequence[tuple[int, float | None]], console: Console) -> None:
    """The score over the iterations; nothing where there is no curve to see."""
    known = [(float(iteration), plot.drawable(value)) for iteration, value in points if value is not None]
    if len(known) < 2:
        return
    layers = [plot.Layer(points=known, style="cyan"), plot.Layer(points=known, style="bold yellow", mark="o")]
    drawn = plot.draw(layers, min(console.width, 100), 10, unicode=is_unicode(console), whole=True)
    console.print()
    console.print(Text(f"{metric} by iteration"), soft_wrap=True)
    for line in drawn:
        console.print(line, soft_wrap=True)


def _alone(score: MeasuredScore) -> tuple[str, str, str]:
    return score.metric, words.number(score.value), words.number(score.standard_error)


def _beside(base: MeasuredScore | None, tuned: MeasuredScore, compared: Compared | None) -> tuple[str, ...]:
    values = (tuned.metric, words.number(base.value if base else None), words.number(tuned.value))
    if compared is None:  # a figure of all rows together
        return *values, words.NOTHING, words.NOTHING, ""
    counts = f"{len(compared.improved)}/{len(compared.worsened)}/{len(compared.same)}"
    return (
        *values,
        _signed(words.number(compared.difference)),
        _interval(compared),
        counts if tuned.better else "",
    )


def _interval(compared: Compared) -> str:
    if compared.low is None or compared.high is None:
        return words.NOTHING
    return f"{_signed(words.short(compared.low))} to {_signed(words.short(compared.high))}"


def _unsure(compared: Sequence[Compared], console: Console) -> None:
    """The metrics whose difference chance may explain."""
    names = [each.metric for each in compared if each.difference and not each.sure]
    if names:
        console.print(Text(f"chance may explain the difference in {', '.join(names)}"), soft_wrap=True)


def _moved(compared: Compared, console: Console) -> None:
    """The rows that one metric moved most; nothing where none moved."""
    for name, rows in (("better", compared.improved), ("worse", compared.worsened)):
        if rows and compared.metric in ("perplexity", "chrf"):
            line = f"{name} in {compared.metric}: {words.listed([*map(words.visible, rows)], _SHOWN)}"
            console.print(Text(line), soft_wrap=True)


def _worst(rows: Sequence[RowLoss], console: Console) -> None:
    console.print()
    console.print(tables.heading("rows with the highest perplexity"))
    lines = [(words.visible(row.origin), words.number(row.perplexity), words.count(row.tokens)) for row in rows]
    tables.print_table(("row", "perplexity", "tokens"), lines, console)


def _signed(text: str) -> str:
    return f"+{text}" if text[0].isdigit() and text.strip("0.") else text
