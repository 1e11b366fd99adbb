"""`doctor` looks at everything and writes nothing; `--fix` does the safe cures, and says so."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import mac
import pytest
from commands import ROOT, copy_writable
from damage import flip
from registry_rows import age_heartbeats, die, new_attempt, new_run

from mlxops import registry
from mlxops.jobs.project import doctor
from mlxops.jobs.project.doctor import CheckpointFacts, Diagnosis
from mlxops.projects import diagnosis, examination, packages
from mlxops.projects.diagnosis import Finding
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import RegistryHealth
from mlxops.ui.project import doctor as drawing
from mlxops.ui.terminal import console as consoles


@pytest.fixture
def project(tuned_project: Path) -> Path:
    """The trained project, whose `adapters/latest` was copied as a folder."""
    shutil.rmtree(tuned_project / "adapters" / "latest")
    return tuned_project


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody follows."""


def older_schema(path: Path, folder: Path) -> None:
    """A registry of the version before this one."""
    copy_writable(ROOT / "db", folder)
    sorted((folder / "migrations").iterdir())[-1].unlink()
    for view in ("verdict.sql",):
        (folder / "views" / view).unlink()
    registry.open_registry(path, sql=folder).close()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file() and not each.name.endswith(("-shm", "-wal"))
    }


def die_at_work(path: Path) -> None:
    """A run whose process is gone."""
    with registry.open_registry(path) as db:
        die(db, new_attempt(db, new_run(db, "otter").id))


# the whole of it -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_broken_is_told_and_nothing_written_and_fix_does_what_is_safe(mlxops, project: Path) -> None:
    flip("0000008_adapters.safetensors", project / "adapters" / "tuned")
    die_at_work(project / "runs.db")
    before = contents(project)

    code, out, err = mlxops("doctor")
    unchanged = contents(project) == before
    fixed_code, fixed_out, fixed_err = mlxops("doctor --fix --json")

    assert (code, unchanged) == (1, True)
    assert "broken   checkpoints  tuned iteration 8: 0000008_adapters.safetensors is not what was written" in out
    assert "warning  runs         otter: recorded as running, but the process is dead" in out
    assert err == "1 check of 17 failed: checkpoints\nhint: `mlx-toolkit doctor --fix` does the safe cures\n"
    fixed = json.loads(fixed_out)
    found = {each["check"]: each for each in fixed["findings"]}
    assert (fixed_code, fixed_err) == (0, "")
    assert fixed["done"] == [
        "runs whose process is dead were recorded as interrupted",
        "1 checkpoint recorded as damaged; their files stay",
    ]
    assert [name for name, each in found.items() if each["level"] == "broken"] == []
    assert found["mlx"]["said"] == "computes on cpu"
    assert found["checkpoints"]["said"] == (
        "2 checkpoints, all read through; 1 recorded as damaged, which no resume takes"
    )
    assert found["registry"]["said"].startswith("whole, schema ")
    assert found["hub"]["said"] == "not asked: HF_HUB_OFFLINE is set"
    with registry.open_read_only(project / "runs.db") as db:
        assert registry.find_run(db, "otter")["status"] == "interrupted"


# the registry and the checkpoints ------------------------------------------------------------------------------------


def test_an_older_schema_is_migrated_by_fix_alone_after_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    older_schema(path, tmp_path / "older")
    invocation = Invocation(project=Project.at(tmp_path))
    before = path.read_bytes()

    health = registry.health(path)
    facts = doctor.checkpoint_facts(invocation, health, silent)
    finding = doctor.check_registry(health)
    unchanged = path.read_bytes() == before
    said = doctor._CURES[finding.fix or ""](invocation, silent)

    assert (finding.level, finding.fix, unchanged) == ("warning", doctor.MIGRATE, True)
    assert facts.error == "not looked at: the registry must be in order first"
    assert said.startswith("the registry was migrated")
    assert registry.health(path).is_current
    assert len(list((tmp_path / ".mlxops" / "backups").iterdir())) == 1


def test_files_that_macos_hides_are_told_and_shown_again_by_fix(a_mac: mac.Mac, tmp_path: Path) -> None:
    site = tmp_path / ".venv" / "lib" / "python3.13" / "site-packages"
    site.mkdir(parents=True)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("version = 3.13.1\n")
    (site / "_mlxops.pth").touch()
    a_mac.hide(site / "_mlxops.pth")

    def finding() -> Finding:
        found = examination.environment_facts(tmp_path, packages.installed(tmp_path, None))
        return diagnosis.check_environment(replace(found, python="3.13.1"))

    before = finding()
    done = doctor._CURES[before.fix or ""](Invocation(project=Project.at(tmp_path)), silent)

    assert (before.fix, "macOS hides _mlxops.pth" in before.said) == (doctor.SHOW, True)
    assert done == "1 hidden file of the environment shown again"
    assert "hides" not in finding().said


def test_runs_that_died_and_runs_that_are_silent_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    die_at_work(path)
    with registry.open_registry(path) as db:
        new_attempt(db, new_run(db, "heron").id)
        at_work = registry.health(path)
        age_heartbeats(db, 90)
        later = registry.health(path)

    assert (at_work.dead, at_work.silent) == (("otter",), ())
    assert (later.dead, later.silent) == (("otter",), ("heron",))
    assert doctor.check_runs(later).fix == doctor.CLOSE
    assert "heron: no sign of life" in doctor.check_runs(RegistryHealth(path="", is_there=True, silent=("heron",))).said


def test_a_cure_that_cannot_be_done_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    die_at_work(path)
    monkeypatch.setattr(doctor, "_PATIENCE", 0.0)
    invocation = Invocation(project=Project.at(tmp_path))
    found = Diagnosis(
        findings=(Finding(check="python", level="ok", said=""), *doctor._of_the_project(invocation, silent))
    )
    with registry.open_registry(path) as db, db.transaction():
        tried = doctor.cure(invocation, found, silent)

    assert tried.done == ("runs whose process is dead could not be recorded: another process writes to the registry",)
    assert [each.check for each in tried.findings] == ["python", "registry", "runs", "checkpoints"]
    assert doctor.cure(invocation, found, silent).findings[2].said == "none is lost"


def test_a_damaged_registry_a_newer_one_and_another_programs_are_broken(tmp_path: Path) -> None:
    damaged, newer, other = tmp_path / "damaged.db", tmp_path / "newer.db", tmp_path / "other.db"
    with registry.open_registry(damaged) as db:
        for number in range(60):
            new_run(db, f"run-{number}", config={"text": "x" * 500})
    content = bytearray(damaged.read_bytes())
    page = content.index(b"x" * 400) // 4096 * 4096
    content[page : page + 100] = b"\x0d" + b"\xff" * 99
    damaged.write_bytes(content)
    with registry.open_registry(newer) as db:
        db.connection.execute("PRAGMA user_version=999")
    other.write_bytes(b"something else" * 100)

    findings = [doctor.check_registry(registry.health(path)) for path in (damaged, newer, other)]

    assert [each.level for each in findings] == ["broken"] * 3
    assert all(each.cure for each in findings)
    assert [
        "damaged" in findings[0].said,
        "newer mlxops" in findings[1].said,
        "not a registry" in findings[2].said,
    ] == [True] * 3
    assert doctor.check_registry(registry.health(tmp_path / "none.db")).level == "ok"


@pytest.mark.slow
def test_checkpoints_are_read_through_as_far_as_the_budget_goes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invocation = Invocation(project=Project.at(project))
    health = registry.health(project / "runs.db")
    folder = project / "adapters" / "tuned"
    bytes_of_one = sum(each.stat().st_size for each in folder.glob("0000008_*"))

    monkeypatch.setattr(doctor, "_BUDGET", bytes_of_one)
    half = doctor.checkpoint_facts(invocation, health, silent)
    (folder / "0000004_adapters.safetensors").unlink()
    missing = doctor.checkpoint_facts(invocation, health, silent)
    (project / "foreign").mkdir()
    (project / "foreign" / "adapter_config.json").write_text('{"fine_tune_type": "lora"}')
    (project / "foreign" / "0000100_adapters.safetensors").write_bytes(b"cut")
    foreign = doctor.checkpoint_facts(invocation, health, silent)

    assert (half.checkpoints, half.read, half.damaged) == (2, 1, ())
    assert [said.partition(":")[0] for said in missing.damaged] == ["tuned iteration 4"]
    assert doctor.check_checkpoints(missing).fix == doctor.RECORD
    assert any(said.startswith("foreign") for said in foreign.foreign)
    assert doctor.check_checkpoints(CheckpointFacts(checkpoints=1, foreign=("x",))).level == "warning"


# the drawing ---------------------------------------------------------------------------------------------------------


def test_each_finding_is_a_line_and_what_helps_stands_below() -> None:
    found = Diagnosis(
        findings=(
            Finding(check="python", level="ok", said="CPython 3.13", cure="not shown"),
            Finding(check="swap", level="warning", said="the machine is swapping", cure="close programs"),
            Finding(check="registry", level="broken", said="it is damaged", cure="recover it", fix="x"),
        ),
        done=("one thing",),
    )
    screen = consoles.make(file=io.StringIO(), width=80)

    drawing.findings(found, screen)

    assert screen.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "fixed    one thing",
        "",
        "ok       python       CPython 3.13",
        "warning  swap         the machine is swapping",
        "                      hint: close programs",
        "broken   registry     it is damaged",
        "                      hint: recover it",
        "",
        "3 checks: 1 broken, 1 warning",
    ]
