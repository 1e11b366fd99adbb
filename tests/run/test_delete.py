"""Removing runs: rows and files go together, and nothing that is not the run's goes with them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from known_runs import begin, folder_of, new_run, settings, train

from mlxops import registry, words
from mlxops.config import DeleteConfig
from mlxops.errors import Refused
from mlxops.jobs.run import delete
from mlxops.registry import Registry
from mlxops.training import lock

Typed = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def heron(db: Registry) -> Path:
    """The folder of the run `heron`, which has trained; `otter` stands beside it."""
    run = train(db, "heron", [(10, 3.0), (20, 2.0)], tags=["good"])
    folder = folder_of(db, run)
    folder_of(db, train(db, "otter", [(10, 3.0)]))
    registry.record_evaluation(
        db,
        run_id=run.id,
        iteration=8,
        model="models/tiny",
        adapter_path=run.adapter_path,
        data="data",
        data_sha256="x",
        kind="answers",
        config={},
        answers=[registry.Answer(row=1, prompt="p", expected=None, answer="a")],
    )
    return folder


def names(db: Registry) -> set[str]:
    return {row["name"] for row in registry.list_runs(db)}


def rows_left(db: Registry) -> dict[str, int]:
    """The rows of each table that tells of runs."""
    tables = ("runs", "attempts", "metrics", "series", "checkpoints", "events", "tags", "evaluations", "answers")
    return {name: db.rows(f"SELECT count(*) AS count FROM {name}")[0]["count"] for name in tables}


def test_rows_and_files_go_and_those_of_other_runs_stay(mlxops: Typed, db: Registry, heron: Path) -> None:
    code, out, err = mlxops("run.delete heron --yes")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "removed: heron",
        f"  adapters/heron: 7 files, {words.size(47 + heron_config_size())}",
        "  rows: 1 run, 1 attempt, 8 metrics, 2 checkpoints, 1 evaluation, 1 answer",
    ]
    assert not heron.exists()
    assert Path("adapters/otter").is_dir()
    assert names(db) == {"otter"}
    assert rows_left(db) == {
        "runs": 1,
        "attempts": 1,
        "metrics": 4,
        "series": 4,
        "checkpoints": 2,
        "events": 0,
        "tags": 0,
        "evaluations": 0,
        "answers": 0,
    }


def heron_config_size() -> int:
    # both folders hold the same settings, and the names are of one length
    return Path("adapters/otter/adapter_config.json").stat().st_size


def test_where_nobody_can_be_asked_it_shows_what_would_go_and_does_nothing(
    mlxops: Typed, db: Registry, heron: Path
) -> None:
    code, out, err = mlxops("run.delete heron")

    assert (code, out) == (3, "")
    assert err.splitlines()[0] == "would be deleted: heron"
    assert err.splitlines()[-1] == "hint: add `--yes`"
    assert names(db) == {"heron", "otter"}
    assert len(list(heron.iterdir())) == 7


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "left"), [("y", {"otter"}), ("n", {"heron", "otter"}), ("", {"heron", "otter"})])
def test_on_a_terminal_it_asks(db: Registry, heron: Path, answer: str, left: set[str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mlxops", "run.delete", "heron"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        code = process.wait()
    os.close(ours)

    assert code == 0
    assert names(db) == left


def test_files_can_be_kept(mlxops: Typed, db: Registry, heron: Path) -> None:
    code, out, _ = mlxops("run.delete heron --keep-files --yes")

    assert code == 0
    assert "the folders stay" in out
    assert names(db) == {"otter"}
    assert len(list(heron.iterdir())) == 7


def test_what_is_not_the_runs_by_name_stays_and_its_folder_with_it(mlxops: Typed, db: Registry, heron: Path) -> None:
    outside = Path("precious.safetensors")
    outside.write_text("precious")
    (heron / "notes.txt").write_text("mine")
    (heron / "0000012_adapters.safetensors").symlink_to(outside.absolute())
    (heron / "0000016_state.safetensors").mkdir()

    removed = json.loads(mlxops("run.delete heron --yes --json")[1])

    stays = ["0000012_adapters.safetensors", "0000016_state.safetensors", "notes.txt"]
    assert removed["folders"][0]["others"] == stays
    assert removed["folders_removed"] == []
    assert sorted(path.name for path in heron.iterdir()) == stays
    assert outside.read_text() == "precious"


def test_half_written_and_set_aside_files_of_the_run_go_too_and_its_log(mlxops: Typed, heron: Path) -> None:
    (heron / ".0000012_state.safetensors.partial.safetensors").touch()
    (heron / "0000004_state.safetensors.corrupt").touch()
    (heron / "0000004_state.safetensors.corrupt.2").touch()
    (heron / "train.log").touch()

    assert mlxops("run.delete heron --yes")[0] == 0
    assert not heron.exists()


def test_a_folder_that_is_a_link_is_not_followed(mlxops: Typed, db: Registry, heron: Path) -> None:
    elsewhere = Path("elsewhere")
    heron.rename(elsewhere)
    heron.symlink_to(elsewhere.absolute())

    code, out, _ = mlxops("run.delete heron --yes")

    assert code == 0
    assert "adapters/heron stays: it is a link" in out
    assert len(list(elsewhere.iterdir())) == 7


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ('{"fine_tune_type": "lora"}', "its adapter_config.json is not of this toolkit"),
        (None, "its adapter_config.json says it is of otter"),
    ],
)
def test_a_folder_that_another_made_its_own_stays(
    mlxops: Typed, heron: Path, described: str | None, reason: str
) -> None:
    other = Path("adapters/otter/adapter_config.json").read_text()
    (heron / "adapter_config.json").write_text(described or other)

    out = mlxops("run.delete heron --yes")[1]

    assert f"adapters/heron stays: {reason}" in out
    assert len(list(heron.iterdir())) == 7


def test_a_folder_of_two_runs_stays_until_both_go(mlxops: Typed, db: Registry, heron: Path) -> None:
    new_run(db, "wren", adapter_path="adapters/heron")

    first = mlxops("run.delete heron --yes")[1]
    second = mlxops("run.delete wren --yes")[1]

    assert "adapters/heron stays: it is the folder of wren, too" in first
    assert "adapters/heron stays: its adapter_config.json says it is of heron" in second


def test_a_folder_that_two_runs_know_by_two_names_stays(mlxops: Typed, db: Registry, heron: Path) -> None:
    Path("other").symlink_to("adapters", target_is_directory=True)
    new_run(db, "wren", adapter_path="other/heron")

    assert "adapters/heron stays: it is the folder of wren, too" in mlxops("run.delete heron --yes")[1]
    assert len(list(heron.iterdir())) == 7


def test_a_run_trained_alike_does_not_give_a_claim_to_anothers_folder(mlxops: Typed, db: Registry, heron: Path) -> None:
    settings_file = heron / "adapter_config.json"
    described = json.loads(settings_file.read_text())
    described["mlxops"] |= {"name": "otter", "fingerprint": "heron"}
    settings_file.write_text(json.dumps(described))

    assert "adapters/heron stays: its adapter_config.json says it is of otter" in mlxops("run.delete heron --yes")[1]
    assert len(list(heron.iterdir())) == 7


def test_a_run_whose_folder_is_gone_can_be_removed(mlxops: Typed, db: Registry) -> None:
    train(db, "heron")

    assert "adapters/heron stays: it is not there" in mlxops("run.delete heron --yes")[1]
    assert names(db) == set()


def test_a_run_that_others_branch_from_goes_only_with_them(mlxops: Typed, db: Registry) -> None:
    parent = train(db, "heron")
    child = train(db, "wren", parent_id=parent.id, branch_iteration=10)
    train(db, "ibis", parent_id=child.id, branch_iteration=10)

    refused = mlxops("run.delete heron --yes")
    together = mlxops("run.delete heron,wren,ibis --yes")

    assert refused[0] == 3
    assert refused[2] == (
        "the run 'wren' and 1 more branched from 'heron', which would be gone\n"
        "hint: `mlx-toolkit run.delete heron,wren,ibis` takes them together\n"
    )
    assert together[0] == 0
    assert names(db) == set()


def test_a_run_that_is_worked_on_is_not_removed(mlxops: Typed, db: Registry) -> None:
    begin(db, new_run(db, "heron"))

    code, _, err = mlxops("run.delete heron --yes")

    assert code == 3
    assert err.startswith("the run 'heron' is being worked on at")
    assert names(db) == {"heron"}


def test_a_run_whose_folder_is_locked_is_not_removed(mlxops: Typed, db: Registry, heron: Path) -> None:
    holder = {"pid": 7, "host": "here", "since": "noon"}
    with lock.hold(heron / lock.NAME, holder, what="the run"):
        code, _, err = mlxops("run.delete heron --yes")

    assert code == 3
    assert err.startswith("the run 'heron' is being worked on by process 7 on here since noon")
    assert len(list(heron.iterdir())) == 7


def test_what_changed_since_it_was_shown_is_not_removed(db: Registry, heron: Path) -> None:
    planned = delete.plan(settings(), DeleteConfig(runs=["heron"]))
    (heron / "0000012_state.safetensors").touch()

    with pytest.raises(Refused, match="changed meanwhile"):
        delete.remove(settings(), planned)
    assert names(db) == {"heron", "otter"}
    assert len(list(heron.iterdir())) == 8


def test_latest_points_at_the_newest_run_that_is_left(mlxops: Typed, heron: Path) -> None:
    latest = Path("adapters/latest")
    latest.symlink_to("heron", target_is_directory=True)

    first = mlxops("run.delete heron --yes")[1]
    points_at = str(latest.readlink())
    mlxops("run.delete otter --yes")

    assert first.splitlines()[-1] == "adapters/latest is otter"
    assert points_at == "otter"
    assert not latest.is_symlink()


def test_an_unknown_name_removes_nothing(mlxops: Typed, db: Registry, heron: Path) -> None:
    code, _, err = mlxops("run.delete heron,ottr --yes")

    assert (code, err) == (2, "no run 'ottr'\nhint: did you mean 'otter'?\n")
    assert names(db) == {"heron", "otter"}


def test_a_removal_that_was_interrupted_is_completed_by_the_same_command(
    mlxops: Typed, db: Registry, heron: Path
) -> None:
    # killed after the first files, before the rows
    for name in ("adapter_config.json", "adapters.safetensors", "0000004_state.safetensors"):
        (heron / name).unlink()

    assert mlxops("run.delete heron --yes")[0] == 0
    assert not heron.exists()
    assert names(db) == {"otter"}
