"""What tasks print when they are done: tables, facts and one run in full. Values in, text on the console out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlxops import words
from mlxops.ui.charts import losses
from mlxops.ui.run import lineage, results
from mlxops.ui.terminal import exact, lines
from mlxops.ui.terminal.console import is_unicode

Row = Mapping[str, Any]
Format = Literal["table", "csv", "json", "jsonl", "md"]

_SPACE = 2  # between two columns
_BY_USE = ("iteration", "best", "updated", "validation", "train", "tokens/s", "left", "time", "attempts", "model")
_NUMBERS = ("iteration", "best", "validation", "train", "tokens/s", "attempts")
_IMPORTED = ", imported"
_NARROWEST = 6  # columns of a table that would have to be narrower become lines of their own


def runs(
    rows: Sequence[Row], console: Console, now: datetime, columns: Sequence[str] = (), *, is_narrowed: bool = False
) -> None:
    """The runs in their order, with as many columns as the terminal has room for, or with the `columns` of these names.

    `is_narrowed` says that not all runs were asked for.
    """
    if not rows:
        nothing = "no runs yet: inv lora --model MODEL --data DATA starts one"
        console.print("no run is like that: inv runs shows all" if is_narrowed else nothing, soft_wrap=True)
        return
    if columns:
        _print_table(columns, [[_summary_value(name, row[name], now) for name in columns] for row in rows], console)
        return
    cells = [_run_cells(row, now) for row in rows]
    widths = {name: max(cell_len(name), *(cell_len(each[name]) for each in cells)) for name in cells[0]}
    shown = _columns_that_fit(widths, console.width)
    room = console.width - sum(widths[name] + _SPACE for name in shown if name != "name")
    widths["name"] = min(widths["name"], max(room, 1))
    table = _table()
    for name in shown:
        _add_column(table, name, widths[name], is_number=name in _NUMBERS)
    for each in cells:
        table.add_row(*(Text(each[name], style=_style_of(name, each[name])) for name in shown))
    console.print(table)


def run(details: Mapping[str, Any], console: Console, now: datetime) -> None:
    """One run in full.

    `details` holds `run` (a row of run_summary), `config` (its settings) and the rows `attempts`, `checkpoints`,
    `curve`, `lineage` (its family), `evaluations`, `answers` and `events` (oldest first); `defaults` marks the settings
    that differ, `command` is the command to repeat it.
    """
    row, attempts = details["run"], list(details.get("attempts") or [])
    console.print(_heading(words.visible(row["name"])))
    _print_pairs(_run_facts(row, now), console)
    family = list(details.get("lineage") or [])
    if len(family) > 1:
        _section("lineage", console)
        console.print(lineage.tree(family, row["name"]))
    _section("settings (* not the default)" if details.get("defaults") else "settings", console)
    _print_pairs(_settings(details.get("config") or {}, details.get("defaults") or {}), console)
    if attempts:
        _section("attempts", console)
        table(
            ("number", "start", "from", "to", "when", "ended", "host"),
            [_attempt(each, now) for each in attempts],
            console,
        )
        _section("environment", console)
        _print_pairs(_flat(attempts[-1].get("environment") or {}), console)
    checkpoints = list(details.get("checkpoints") or [])
    if checkpoints:
        _section(f"checkpoints ({len(checkpoints)})", console)
        names = ("iteration", "size", "train", "validation", "best", "status", "when")
        table(names, [_checkpoint(each, now) for each in checkpoints[-8:]], console)
    _section("loss", console)
    curve = details.get("curve") or []
    console.print(losses.loss_chart(curve, min(console.width, 100), 14, unicode=is_unicode(console)), soft_wrap=True)
    results.results(details.get("evaluations") or [], details.get("answers") or [], console, now)
    events = list(details.get("events") or [])
    if events:
        _section("last events", console)
        console.print(*lines.events(events[-8:], now), sep="\n", soft_wrap=True)
    typed = attempts[-1].get("command") if attempts else None
    for title, command in (("the same again", typed), ("to train it once more", details.get("command"))):
        if command:
            _section(title, console)
            console.print(words.visible(command), soft_wrap=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any] | Row], console: Console, format: Format = "table"
) -> None:
    """Rows as a table that fits the terminal, or exactly as data: floats with all their digits, nothing cut.

    Where the columns do not fit side by side each row becomes lines of its own.
    """
    values = [[row[name] for name in columns] if isinstance(row, Mapping) else list(row) for row in rows]
    if format == "table":
        _print_table(columns, values, console)
    else:
        _write(exact.WRITERS[format](columns, values), console, is_json=format in ("json", "jsonl"))


def facts(title: str, pairs: Sequence[tuple[str, str]], notes: Sequence[str], console: Console) -> None:
    """A title, labels with their values, and sentences below."""
    console.print(_heading(title), soft_wrap=not console.is_terminal)
    label_width = max((cell_len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        # Long values go on below themselves; in a pipe each stays on its line.
        start = Text().append(set_cell_size(label, label_width + _SPACE), "dim")
        room = max(console.width - label_width - _SPACE, 20)
        folded = Text(value).wrap(console, room, overflow="fold") if console.is_terminal else [Text(value)]
        for part in folded or [Text()]:
            console.print(start.append_text(part), soft_wrap=True)
            start = Text(" " * (label_width + _SPACE))
    for note in notes:
        console.print(note, soft_wrap=not console.is_terminal)


def json_out(value: Any, console: Console) -> None:
    """A value as JSON that any reader takes: what is not finite becomes null."""
    _write(exact.json_text(value, indent=2) + "\n", console, is_json=True)


# the list of runs ---------------------------------------------------------------------------------------------------


def _run_cells(row: Row, now: datetime) -> dict[str, str]:
    return {
        "name": words.visible(row["name"]),
        "status": row["status"] + (_IMPORTED if row.get("imported_from") else ""),
        "iteration": f"{words.count(row['iteration'])}/{words.count(row['target_iterations'])}",
        "train": words.number(row["train_loss"]),
        "validation": words.number(row["validation_loss"]),
        "best": words.number(row["best_validation_loss"]),
        "tokens/s": words.count(row["tokens_per_second"]),
        "left": words.duration(row["eta_seconds"]) if row["status"] == "running" else "",
        "time": words.duration(row["seconds"]),
        "attempts": words.count(row["attempts"]),
        "model": words.visible(row["model"]),
        "updated": words.age(row["updated_at"], now),
    }


def _summary_value(column: str, value: Any, now: datetime) -> Any:
    """A value of `run_summary` for a person; numbers stay numbers, which stand to the right."""
    if value is None:
        return words.NOTHING
    if column.endswith("_at"):
        return words.age(value, now)
    return words.duration(value) if column in ("seconds", "eta_seconds") else value


def _columns_that_fit(widths: Mapping[str, int], width: int) -> list[str]:
    """Columns in their order; those of less use go first, and a long name gives way to the first few."""
    chosen = {"name", "status"}
    room = width - min(widths["name"], 24) - _SPACE - widths["status"]
    for name in (
        "iteration",
        "best",
        "updated",
        "validation",
        "train",
        "tokens/s",
        "left",
        "time",
        "attempts",
        "model",
    ):
        if widths[name] + _SPACE > room:
            break
        chosen.add(name)
        room -= widths[name] + _SPACE
    return [name for name in widths if name in chosen]


def _style_of(column: str, text: str) -> str:
    return lines.style_of_status(text.removesuffix(_IMPORTED)) if column == "status" else ""


# one run ------------------------------------------------------------------------------------------------------------


def _run_facts(row: Row, now: datetime) -> list[tuple[str, str]]:
    progress = f"{words.count(row['iteration'])} of {words.count(row['target_iterations'])} iterations"
    best = words.number(row["best_validation_loss"])
    if row.get("best_iteration") is not None:
        best += f" at {words.count(row['best_iteration'])}"
    known = [
        ("status", f"{row['status']}, updated {words.age(row['updated_at'], now)}"),
        ("progress", f"{progress}, {words.percent(row['progress'])}"),
        ("kind", row["kind"]),
        ("model", words.visible(row["model"])),
        ("data", words.visible(row["data"])),
        ("imported from" if row.get("imported_from") else "adapter", words.visible(row["adapter_path"])),
        ("train loss", words.number(row["train_loss"])),
        ("validation loss", f"{words.number(row['validation_loss'])}, best {best}"),
        ("tokens", f"{words.count(row['trained_tokens'])}, {words.count(row['tokens_per_second'])}/s"),
        ("time", words.duration(row["seconds"])),
        ("epoch", words.count(row["epoch"])),
        ("created", words.age(row["created_at"], now)),
    ]
    known += [(name, words.visible(row[name])) for name in ("parent", "tags", "note") if row.get(name)]
    return [*known, ("fingerprint", str(row["fingerprint"])[:16])]


def _settings(config: Row, defaults: Row) -> list[tuple[str, str]]:
    """The settings that say something: not the empty ones, unless that is what was chosen."""

    def is_shown(name: str, value: Any) -> bool:
        if name in defaults and defaults[name] != value:
            return True
        # what is no setting (what decides the weights, what was chosen) is in the registry for those who ask
        return (name in defaults or not defaults) and not (value is None or value is False or value in ([], {}))

    return [
        (name, words.visible(value) + ("*" if name in defaults and defaults[name] != value else ""))
        for name, value in config.items()
        if is_shown(name, value)
    ]


def _attempt(row: Row, now: datetime) -> list[str]:
    ended = row.get("end_reason") or ("at work" if row.get("ended_at") is None else "ended")
    return [
        str(row["number"]),
        row["start_kind"] + (f" ({row['start_note']})" if row.get("start_note") else ""),
        words.count(row["from_iteration"]),
        words.count(row["to_iteration"]),
        words.age(row["started_at"], now),
        ended + (f": {row['error']}" if row.get("error") else ""),
        row.get("host") or words.NOTHING,
    ]


def _checkpoint(row: Row, now: datetime) -> list[str]:
    return [
        words.count(row["iteration"]),
        words.size(row["bytes"]),
        words.number(row["train_loss"]),
        words.number(row["validation_loss"]),
        "yes" if row["is_best"] else "",
        row["status"],
        words.age(row["created_at"], now),
    ]


def _flat(values: Row, before: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{name}.")
        elif value is not None:
            found.append((f"{before}{name}", words.visible(value)))
    return found


def _heading(text: str) -> Text:
    return Text(text, style="bold")


def _section(title: str, console: Console) -> None:
    console.print()
    console.print(_heading(title))


def _print_pairs(pairs: Sequence[tuple[str, str]], console: Console) -> None:
    for line in lines.pairs(pairs, console.width):
        line.no_wrap = False
        line.overflow = "fold"
        console.print(line, soft_wrap=not console.is_terminal)


# tables of any columns ----------------------------------------------------------------------------------------------


def _table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _SPACE - 1, 0, 0), header_style="bold"
    )


def _add_column(table: Table, name: str, width: int, *, is_number: bool) -> None:
    justify: Literal["right", "left"] = "right" if is_number else "left"
    table.add_column(Text(name), justify=justify, no_wrap=True, overflow="ellipsis", width=width)


def _fitted(widths: Sequence[int], room: int) -> list[int]:
    """The widths, the widest of them cut to one limit until all fit: Rich would take from each, short ones too."""
    limit = min(max(widths, default=0), room)
    while limit > 1 and sum(min(width, limit) + _SPACE for width in widths) - _SPACE > room:
        limit -= 1
    return [min(width, limit) for width in widths]


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console) -> None:
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(cell_len(name), *(cell_len(row[index]) for row in cells)) if cells else cell_len(name)
        for index, name in enumerate(columns)
    ]
    if sum(min(width, _NARROWEST) + _SPACE for width in widths) - _SPACE > console.width:
        _print_records(columns, cells, console)
        return
    table = _table()
    for index, width in enumerate(_fitted(widths, console.width)):
        is_number = any(isinstance(row[index], (int, float)) for row in rows)
        _add_column(table, columns[index], width, is_number=is_number)
    for row, values in zip(cells, rows, strict=True):
        table.add_row(
            *(Text(text, style="dim" if value is None else "") for text, value in zip(row, values, strict=True))
        )
    console.print(table)


def _print_records(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    label_width = max(map(cell_len, columns))
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, text in zip(columns, row, strict=True):
            console.print(lines.line(f"{name:>{label_width}}", "dim").append(f"  {text}", "none"))


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else words.visible(value)


def _write(text: str, console: Console, *, is_json: bool) -> None:
    """Past Rich, which would expand tabs and fold lines; escaped where the stream's encoding lacks a character."""
    if is_json and not is_unicode(console):
        text = exact.ascii_json(text)
    encoding = console.encoding
    console.file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    console.file.flush()
