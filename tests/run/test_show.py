import csv
import io
import json
import math
from datetime import UTC, datetime

import pytest
from rich.console import Console
from summary_rows import run_row, untouched_run_row

from mlxops.jobs.run.show import RunDetails
from mlxops.ui.run import listing, show
from mlxops.ui.terminal import console as consoles
from mlxops.ui.terminal import tables

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
COLUMNS = ("name", "loss", "note")


def printed(draw, *arguments, width=80, **options):
    console = consoles.make(file=io.StringIO(), width=width)
    draw(*arguments, console, **options)
    return console.file.getvalue()


def test_no_runs_is_a_sentence_that_says_what_to_type():
    assert printed(listing.runs, [], now=NOW) == "no runs yet: `inv lora --model MODEL --data DATA` starts one\n"


def test_one_run_is_a_table_at_eighty_columns():
    assert [line.rstrip() for line in printed(listing.runs, [run_row(name="quiet-heron")], now=NOW).splitlines()] == [
        "id  name         status   iteration  train  validation   best  updated",
        "─" * 76,
        " 1  quiet-heron  running  400/1,000  1.790       1.890  1.850  3 seconds ago",
    ]


def test_runs_stand_in_the_order_they_come_in():
    rows = [run_row(id=1, name="older"), run_row(id=2, name="newer", created_at="2026-11-22T11:30:00.000Z")]
    drawn = printed(listing.runs, rows, now=NOW)
    assert drawn.index("older") < drawn.index("newer")


@pytest.mark.parametrize("width", [24, 40, 80, 120, 200])
def test_the_list_of_runs_fits_the_terminal(width):
    rows = [run_row(id=index, name=f"run-{index}-{'x' * 60}", status="interrupted") for index in range(50)]
    lines = printed(listing.runs, rows, now=NOW, width=width).splitlines()
    assert len(lines) == 52
    assert max(map(len, lines)) <= width


def test_a_run_that_has_not_trained_yet_can_be_listed_and_shown():
    assert "0/1,000" in printed(listing.runs, [untouched_run_row()], now=NOW)
    assert "no losses yet" in printed(show.run, RunDetails(run=untouched_run_row()), now=NOW)


def test_a_run_is_shown_with_all_that_is_known_of_it():
    attempt = {
        "number": 1,
        "start_kind": "exact",
        "start_note": None,
        "from_iteration": 300,
        "to_iteration": None,
        "started_at": "2026-11-22T11:58:00.000Z",
        "ended_at": None,
        "end_reason": None,
        "error": None,
        "host": "heron",
        "environment": {"mlx": "0.32.4", "blas": {"threads": 2}, "memory": 25_276_510_208, "is_metal": False},
        "command": "inv lora --model 'my model' --iters 1000",
    }
    checkpoint = {
        "iteration": 300,
        "bytes": 12_300_000,
        "train_loss": 2.0,
        "validation_loss": 2.1,
        "is_best": 1,
        "status": "whole",
        "created_at": "2026-11-22T11:59:00.000Z",
    }
    event = {
        "time": "2026-11-22T11:59:00.000Z",
        "level": "warning",
        "kind": "skipped",
        "message": "update skipped",
        "iteration": 310,
    }
    details = RunDetails(
        run=run_row(note="first try"),
        config={"lora_rank": 16, "seed": 0, "warmup_init": None},
        defaults={"lora_rank": 8, "seed": 0, "warmup_init": None},
        attempts=[attempt],
        checkpoints=[checkpoint],
        curve=[{"iteration": 10, "train_loss": 2.0, "validation_loss": None}],
        events=[event],
    )
    drawn = printed(show.run, details, now=NOW)
    for part in (
        "running, updated 3 seconds ago",
        "lora_rank 16*",
        "seed 0\n",
        "first try",
        "2 minutes ago",
        "blas.threads 2",
        "memory 25.3 GB",
        "is_metal no",
        "12.3 MB",
        "⠤⠤ train",
        "1 minute ago  310  warning: update skipped",
        "the same again\ninv lora --model 'my model' --iters 1000\n",
    ):
        assert part in drawn


def test_a_table_shows_null_and_right_aligns_numbers():
    assert printed(tables.table, COLUMNS, [("a", 1.5, None), ("b", 12.25, "")]).splitlines() == [
        "name   loss  note",
        "─────────────────",
        "a       1.5  NULL",
        "b     12.25      ",
    ]


def test_a_table_without_rows_keeps_its_head():
    assert printed(tables.table, COLUMNS, []).splitlines()[0] == "name  loss  note"


def test_a_long_text_is_cut_and_its_neighbours_are_not():
    lines = printed(tables.table, COLUMNS, [("a", 1.5, "x" * 500), ("b" * 70, 2.5, "y")], width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert " 1.5  xxxx" in lines[2]
    assert lines[2].endswith("…")


def test_more_columns_than_fit_become_lines_of_their_own():
    columns = [f"column{index}" for index in range(30)]
    drawn = printed(tables.table, columns, [range(30), range(30)])
    assert drawn.splitlines()[:2] == [" column0  0", " column1  1"]
    assert len(drawn.splitlines()) == 61


def test_a_text_cannot_command_the_terminal():
    assert "\x1b" not in printed(tables.table, COLUMNS, [("\x1b[2Jgone", 1.0, "a\nb")])


@pytest.mark.parametrize("format", ["csv", "json", "jsonl"])
def test_data_keeps_all_digits_and_all_text(format):
    long = "tab\there, 'quotes\", " + "x" * 500 + "\nsecond line"
    text = printed(tables.table, COLUMNS, [("a", 0.1 + 0.2, long)], format=format)
    if format == "csv":
        (row,) = csv.DictReader(io.StringIO(text, newline=""))
    else:
        row = json.loads(text)[0] if format == "json" else json.loads(text)
    assert (float(row["loss"]), row["note"]) == (0.30000000000000004, long)


def test_markdown_escapes_what_would_end_a_cell():
    assert printed(tables.table, COLUMNS, [("a|b", 0.1, None)], format="md") == (
        "| name | loss | note |\n| --- | --- | --- |\n| a\\|b | 0.1 | NULL |\n"
    )


def test_two_columns_of_one_name_are_both_kept():
    assert json.loads(printed(tables.table, ("id", "id"), [(1, 2)], format="jsonl")) == {"id": 1, "id_2": 2}


def test_no_rows_are_an_empty_list():
    assert printed(tables.table, COLUMNS, [], format="json") == "[]\n"


def test_json_out_writes_null_for_what_is_not_finite():
    assert json.loads(printed(tables.json_out, {"loss": math.nan, "name": "ü"})) == {"loss": None, "name": "ü"}


def test_json_on_an_ascii_stream_loses_no_letter():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    tables.json_out({"name": "grün…"}, consoles.make(file=stream))
    assert json.loads(stream.buffer.getvalue()) == {"name": "grün…"}


def test_facts_line_up_and_notes_follow():
    assert printed(tables.facts, "new run", [("model", "m"), ("tokens an epoch", "1,234")], ["start it: inv lora"]) == (
        "new run\nmodel            m\ntokens an epoch  1,234\nstart it: inv lora\n"
    )


def test_facts_without_facts_are_a_title():
    assert printed(tables.facts, "nothing to do", [], []) == "nothing to do\n"


def test_a_long_fact_goes_on_below_itself_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=30, no_color=True, color_system=None)
    tables.facts("run", [("data", "word " * 8)], [], console)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "run",
        "data  word word word word word",
        "      word word word",
    ]
