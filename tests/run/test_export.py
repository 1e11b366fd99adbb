"""Exports: every format comes back as the same values, files are whole or absent, many points take little memory."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from empty_registry import open_empty
from known_runs import begin, new_run, report, settings, train
from ready_programs import run_forked
from shared_folders import Shared

from mlxops import registry
from mlxops.registry import Registry

Typed = Callable[[str], tuple[int, str, str]]
AWKWARD = [(1, 0.1 + 0.2), (2, math.nan), (3, 1e-310), (4, math.pi), (5, 1.7976931348623157e308)]
COLUMNS = ["run", "name", "iteration", "value", "elapsed_seconds"]

needs_arro3 = pytest.mark.skipif(find_spec("arro3") is None, reason="the extra parquet is not installed")


@pytest.fixture
def db() -> Iterator[Registry]:
    with open_empty(settings().project.registry_path) as opened:
        train(opened, "heron", AWKWARD, note='a, "b"\nc', tags=["x", "ü"])
        train(opened, "otter", [(10, 2.0)], [(10, 2.1, 0.1)])
        yield opened


def points(db: Registry, *runs: str) -> list[tuple[Any, ...]]:
    rows = db.rows("SELECT * FROM metric ORDER BY (SELECT id FROM runs WHERE runs.name = run), name, iteration")
    return [tuple(row.values()) for row in rows if not runs or row["run"] in runs]


def read_csv(data: bytes) -> list[tuple[Any, ...]]:
    names, *rows = csv.reader(io.StringIO(data.decode()))
    assert names == COLUMNS
    return [
        (run, name, int(at), float(value) if value else None, float(seconds)) for run, name, at, value, seconds in rows
    ]


def read_json(data: bytes) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in json.loads(data)]


def read_jsonl(data: bytes) -> list[tuple[Any, ...]]:
    return [tuple(json.loads(line).values()) for line in data.splitlines()]


def read_parquet(data: bytes) -> list[tuple[Any, ...]]:
    from arro3.io import read_parquet

    table = read_parquet(io.BytesIO(data)).read_all()
    columns = [[value.as_py() for value in table[name]] for name in table.column_names]
    return list(zip(*columns, strict=True))


FORMATS = [
    pytest.param("csv", read_csv, id="csv"),
    pytest.param("json", read_json, id="json"),
    pytest.param("jsonl", read_jsonl, id="jsonl"),
    pytest.param("parquet", read_parquet, id="parquet", marks=needs_arro3),
]
Read = Callable[[bytes], list[tuple[Any, ...]]]


@pytest.mark.parametrize(("form", "read"), FORMATS)
def test_points_come_back_to_the_last_bit_and_what_was_not_finite_as_nothing(
    mlxops: Typed, db: Registry, form: str, read: Read
) -> None:
    code, out, err = mlxops(f"run.export --output 'all points.{form}'")

    back = read(Path(f"all points.{form}").read_bytes())
    assert (code, err) == (0, "")
    assert f"all points.{form}: {len(back)} rows" in out
    assert back == points(db)
    assert [row[3] for row in back if row[:2] == ("heron", "train_loss")] == [
        *(0.1 + 0.2, None, 1e-310, math.pi, 1.7976931348623157e308)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "read"), FORMATS)
def test_an_export_goes_into_a_pipe(db: Registry, form: str, read: Read) -> None:
    command = [sys.executable, "-m", "mlxops", "run.export", "--run", "otter", "--format", form]
    ended = subprocess.run(command, capture_output=True, check=True)

    assert read(ended.stdout) == points(db, "otter")


def test_runs_are_exported_as_run_summary_has_them(mlxops: Typed, db: Registry) -> None:
    out = mlxops("run.export --what runs --run otter,heron --format json")[1]

    assert json.loads(out) == registry.list_runs(db, order="id")


def test_every_column_of_run_summary_has_a_type(db: Registry) -> None:
    exported = registry.read_runs(db, [1])

    assert [name for name, _ in exported.columns] == registry.summary_columns(db)
    assert {kind for _, kind in exported.columns} == {"INTEGER", "REAL", "TEXT"}


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", pytest.param("parquet", marks=needs_arro3)])
def test_every_table_is_a_file_of_its_own(mlxops: Typed, db: Registry, form: str) -> None:
    written = json.loads(mlxops(f"run.export --what all --format {form} --output dump --json")[1])

    tables = {row["name"]: row["rows"] for row in counted(db)}
    assert {each["table"]: each["rows"] for each in written} == tables
    assert {path.name for path in Path("dump").iterdir()} == {f"{name}.{form}" for name in tables}


def counted(db: Registry) -> list[dict[str, Any]]:
    names = [
        row["name"]
        for row in db.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    ]
    return [{"name": name, "rows": db.rows(f"SELECT count(*) AS n FROM {name}")[0]["n"]} for name in names]


def test_the_whole_registry_is_one_json_object_in_a_pipe(mlxops: Typed, db: Registry) -> None:
    whole = json.loads(mlxops("run.export --what all --format json")[1])
    lines = [json.loads(line) for line in mlxops("run.export --what all --format jsonl")[1].splitlines()]

    assert whole["runs"] == db.rows("SELECT * FROM runs")
    assert whole["metrics"] == db.rows("SELECT * FROM metrics")
    assert [line["run_id"] for line in lines if line["table"] == "tags"] == [1, 1]


def test_every_table_of_one_run_has_what_tells_of_it_and_no_more(mlxops: Typed, db: Registry) -> None:
    shared = {"model": "m", "adapter_path": None, "data": "d", "data_sha256": "x", "kind": "k", "config": {}}
    answer = registry.Answer(row=1, prompt="p", expected=None, answer="a")
    base = registry.record_evaluation(db, run_id=None, **shared)
    own = registry.record_evaluation(db, run_id=1, base_evaluation_id=base, answers=[answer], **shared)
    registry.record_evaluation(db, run_id=2, answers=[answer], **shared)

    whole = json.loads(mlxops("run.export --what all --format json --run heron")[1])

    assert [row["name"] for row in whole["runs"]] == ["heron"]
    assert {row["run_id"] for row in whole["metrics"]} == {row["run_id"] for row in whole["attempts"]} == {1}
    assert [row["id"] for row in whole["evaluations"]] == [base, own]
    assert [row["evaluation_id"] for row in whole["answers"]] == [own]
    assert len(whole["metric_names"]) > 10


@pytest.mark.slow
def test_a_table_longer_than_a_piece_is_read_whole_and_in_order(db: Registry) -> None:
    run = new_run(db, "wren")
    with db.transaction() as connection:
        events = [(run.id, f"event {number}") for number in range(25_000)]
        connection.executemany("INSERT INTO events (run_id, kind, message) VALUES (?, 'note', ?)", events)
    (table,) = [each for each in registry.read_tables(db, [run.id]) if each.name == "events"]

    pieces = list(table.pieces)

    messages = [row[-2] for piece in pieces for row in piece]
    assert [len(piece) for piece in pieces] == [10_000, 10_000, 5_000]
    assert messages == [f"event {number}" for number in range(25_000)]


def test_an_infinity_in_a_table_becomes_nothing(mlxops: Typed, db: Registry) -> None:
    evaluation = registry.record_evaluation(
        db, run_id=1, model="m", adapter_path=None, data="d", data_sha256="x", kind="k", config={}
    )
    with db.transaction() as connection:
        connection.execute("INSERT INTO scores VALUES (?, 'perplexity', 9e999, NULL)", (evaluation,))

    assert json.loads(mlxops("run.export --what all --format json")[1])["scores"][0]["value"] is None


def test_nothing_is_written_over(mlxops: Typed, db: Registry) -> None:
    Path("points.csv").write_text("mine")
    Path("dump").mkdir()
    (Path("dump") / "file").touch()

    codes = [mlxops(f"run.export {options}")[0] for options in ("--output points.csv", "--what all --output dump")]

    assert codes == [3, 3]
    assert Path("points.csv").read_text() == "mine"
    assert [path.name for path in Path("dump").iterdir()] == ["file"]


@pytest.mark.slow
def test_a_disk_that_takes_no_more_leaves_nothing_half_written(db: Registry) -> None:
    new = new_run(db, "wren")
    report(db, new, begin(db, new), [(step, 1.0) for step in range(1, 500)])
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        "sys.argv = ['mlx-toolkit', 'run.export', *sys.argv[1:]]; "
        "from mlxops.__main__ import main; main()"
    )
    for options in (["--output", "points.csv"], ["--what", "all", "--output", "dump"]):
        code, _, err = run_forked("-c", program, *options)

        assert code == 1
        assert "cannot be written: File too large" in err
    assert {path.name for path in Path().iterdir()} <= {"runs.db", "runs.db-wal", "runs.db-shm", ".mlxops"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--what all", "every table as csv needs a folder"),
        ("--json", "--json says what was written to --output"),
        ("--run herom", "no run 'herom'"),
        ("--format xml", "--format takes one of csv, json, jsonl, parquet, not 'xml'"),
    ],
)
def test_an_export_that_cannot_be_is_refused_in_a_sentence(
    mlxops: Typed, db: Registry, options: str, said: str
) -> None:
    code, out, err = mlxops(f"run.export {options}")

    assert (code, out) == (2, "")
    assert err.startswith(said)


def test_parquet_without_its_library_names_what_to_install(
    mlxops: Typed, db: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "arro3.io", None)

    code, _, err = mlxops("run.export --output points.parquet")

    assert code == 2
    assert "pip install 'mlxops[parquet]'" in err
    assert not Path("points.parquet").exists()


@pytest.mark.slow
def test_whoever_reads_may_leave_early(db: Registry) -> None:
    run = new_run(db, "wren")
    add_points(db, run.id, 50_000)
    command = f"{shlex.quote(sys.executable)} -m mlxops run.export --run wren | head -2"
    ended = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == ",".join(COLUMNS)


def add_points(db: Registry, run_id: int, count: int) -> None:
    with db.transaction() as connection:
        connection.execute(
            """
            INSERT INTO metrics
            WITH RECURSIVE step (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM step WHERE number < :count)
            SELECT :run, 1, number, 1.0 / number, number FROM step
            """,
            {"run": run_id, "count": count},
        )
        connection.execute(
            "INSERT INTO series VALUES (:run, 1, :count, 0, 1, :count, 0, 0, 0, 1, 1, 1)",
            {"run": run_id, "count": count},
        )


@pytest.fixture
def few_and_many(shared: Shared) -> None:
    """A registry with a run of a few points and one of many."""

    def make(folder: Path) -> None:
        with registry.open_registry(folder / "runs.db") as db:
            train(db, "heron", AWKWARD)
            add_points(db, new_run(db, "few").id, 4_000)
            add_points(db, new_run(db, "many").id, 400_000)

    shutil.copy(shared("few-and-many", make) / "runs.db", settings().project.registry_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "json", pytest.param("parquet", marks=needs_arro3)])
@pytest.mark.usefixtures("few_and_many")
def test_many_points_take_little_more_memory_than_a_few(form: str) -> None:
    peaks = {run: peak_memory("run.export", "--run", run, "--output", f"{run}.{form}") for run in ("few", "many")}

    assert Path(f"many.{form}").stat().st_size > 10 * Path(f"few.{form}").stat().st_size
    # Parquet keeps the row group it is at; the points alone as Python objects would take over 80 MB
    assert peaks["many"] - peaks["few"] < 48 * 2**20


def peak_memory(*arguments: str) -> int:
    """The most memory that a command took, in bytes."""
    program = (
        "import resource, sys; sys.argv = ['mlx-toolkit', *sys.argv[1:]]\n"
        "from mlxops.__main__ import main\n"
        "try:\n    main()\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return int(ended.stderr.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def test_a_folder_that_is_a_file_is_a_sentence(mlxops: Typed, db: Registry) -> None:
    Path("points").write_text("mine")

    code, _, err = mlxops("run.export --output points/all.csv")

    assert (code, "cannot be written: " in err) == (1, True), err
    assert Path("points").read_text() == "mine"


def test_pipes_and_devices_take_the_rows_and_stay_what_they_are(mlxops: Typed, db: Registry) -> None:
    os.mkfifo("pipe.csv")
    with subprocess.Popen(["cat", "pipe.csv"], stdout=subprocess.PIPE, text=True) as reader:
        code, _, err = mlxops("run.export --what runs --output pipe.csv")
        read = reader.communicate()[0]

    assert (code, err) == (0, "")
    assert "heron" in read
    assert Path("pipe.csv").is_fifo()
    assert mlxops("run.export --output /dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()


def test_a_link_to_nothing_is_not_written_over(mlxops: Typed, db: Registry) -> None:
    Path("points.csv").symlink_to("elsewhere.csv")

    assert mlxops("run.export --output points.csv")[0] == 3
    assert Path("points.csv").is_symlink()
    assert not Path("elsewhere.csv").exists()


def test_what_is_there_is_replaced_where_that_is_meant(mlxops: Typed, db: Registry) -> None:
    Path("runs.csv").write_text("old")
    Path("all").mkdir()
    (Path("all") / "runs.csv").write_text("old")
    (Path("all") / "mine.txt").write_text("mine")

    codes = [mlxops(f"run.export --what {words} --yes")[0] for words in ("runs --output runs.csv", "all --output all")]

    assert codes == [0, 0]
    assert "heron" in Path("runs.csv").read_text()
    assert "heron" in Path("all/runs.csv").read_text()
    assert Path("all/mine.txt").read_text() == "mine"
