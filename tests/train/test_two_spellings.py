"""A run's name and folder are one in every spelling: to macOS `Run` and `run`, and two spellings of é, are one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlxops import layout, registry
from mlxops.errors import NotFound, Refused

NFC, NFD = "caf\u00e9", "cafe\u0301"
SPELLINGS = [("run", "Run"), ("RUN", "run"), (NFC, NFD), (NFD, NFC), ("Straße", "STRASSE"), (NFC, "CAFE\u0301")]
COMMAND = "lora --model tiny --num-layers 2 --iters 2"


@pytest.fixture
def project(tiny_model: Path) -> Path:
    root = Path.cwd()
    shutil.copytree(tiny_model, root / "models" / "tiny")
    (root / "data").mkdir()
    rows = [json.dumps({"prompt": f"question {number}", "completion": f"answer {number}"}) for number in range(8)]
    (root / "data" / "train.jsonl").write_text("\n".join(rows))
    return root


def add_run(project: Path, name: str, folder: str | None = None) -> dict[str, Any]:
    """A run of other settings, with a row and a folder that says whose it is."""
    run: dict[str, Any] = {
        **{"name": name, "fingerprint": "f", "model": "models/tiny", "model_identity": "m"},
        **{"data": "data", "data_identity": "d", "config": {"fine_tune_type": "lora", "deciding": {"seed": 7}}},
    }
    path = folder or f"adapters/{name}"
    with registry.open_registry(project / "runs.db") as db:
        registry.create_run(db, kind="lora", target_iterations=4, adapter_path=path, **run)
    (project / path).mkdir(parents=True)
    (project / path / layout.SETTINGS).write_text(json.dumps({"mlxops": {**run, "target": 4}}))
    return run


def there_is(project: Path) -> list[str]:
    return sorted(str(path.relative_to(project)) for path in (project / "adapters").rglob("*"))


@pytest.fixture
def one_folder_in_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stat` answers as on a disk that ignores case and normalization: for any spelling, that of the entry there is."""
    real = os.stat

    def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        try:
            return real(path, *arguments, **options)
        except FileNotFoundError:
            where = Path(os.fspath(path))
            names = [each.name for each in where.parent.iterdir()] if where.parent.is_dir() else []
            found = layout.known_spelling(where.name, names)
            return real(where.with_name(found), *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--new", "--preview"])
@pytest.mark.parametrize(("there", "asked"), SPELLINGS)
def test_a_run_under_another_spelling_of_its_name_is_that_run(project, mlxops, there, asked, options):
    add_run(project, there)
    before = there_is(project)

    code, out, err = mlxops(f"{COMMAND} --name {asked} {options}")

    assert code == 3
    assert f"the run {there!r}" in out + err
    assert there_is(project) == before


def test_a_folder_under_another_spelling_is_that_folder(project, mlxops, one_folder_in_every_case):
    add_run(project, "heron", "adapters/Place")
    before = there_is(project)

    code, _, err = mlxops(f"{COMMAND} --adapter-path adapters/place")

    assert code == 3
    assert "the run 'heron' in 'adapters/Place' has other settings" in err
    assert there_is(project) == before


def test_a_folder_without_a_row_is_taken_once_under_two_spellings(project, mlxops, one_folder_in_every_case):
    add_run(project, "heron", "adapters/Place")
    (project / "runs.db").unlink()

    code, _, err = mlxops(f"{COMMAND} --adapter-path adapters/place")

    with registry.open_registry(project / "runs.db") as db:
        assert [(run["name"], run["adapter_path"]) for run in registry.candidate_runs(db)] == [
            ("heron", "adapters/Place")
        ]
    assert code == 3
    assert "the run 'heron' in 'adapters/Place' has other settings" in err


@pytest.mark.parametrize("options", ["", "--new"])
def test_a_new_run_never_starts_in_a_folder_that_names_another(project, mlxops, options):
    add_run(project, "heron")
    shutil.copytree(project / "adapters" / "heron", project / "adapters" / "copy")
    before = there_is(project)

    code, _, err = mlxops(f"{COMMAND} --name copy {options}")

    assert code == 3
    assert "'adapters/copy' holds the run 'heron'" in err
    assert "hint: `--adapter-path adapters/copy`" in err
    assert there_is(project) == before


@pytest.mark.slow
def test_a_finished_run_is_finished_under_another_spelling_too(project, mlxops):
    first = mlxops(f"{COMMAND} --name {NFC}")
    again = mlxops(f"{COMMAND} --name {NFD.upper()}")
    further = mlxops(f"{COMMAND.replace('--iters 2', '--iters 3')} --name {NFD}")

    with registry.open_registry(project / "runs.db") as db:
        runs = [(run["name"], run["iteration"]) for run in registry.candidate_runs(db)]
    assert (first[0], again[0], further[0]) == (0, 0, 0)
    assert "already at iteration 2" in again[1] + again[2]
    assert runs == [(NFC, 3)]


# the registry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "asked"), SPELLINGS)
def test_the_registry_has_one_run_of_a_name_in_any_spelling(project, there, asked):
    run = add_run(project, there)

    with registry.open_registry(project / "runs.db") as db:
        assert registry.find_run(db, asked)["name"] == there
        assert not registry.is_free(db, asked)
        with pytest.raises(Refused, match="there is a run"):
            registry.create_run(db, kind="lora", target_iterations=4, adapter_path=None, **{**run, "name": asked})


def test_runs_of_one_name_from_before_are_each_found_by_their_own_spelling(project):
    add_run(project, "run")
    add_run(project, "heron")
    with registry.open_registry(project / "runs.db") as db:
        db.connection.execute("UPDATE runs SET name = 'RUN' WHERE name = 'heron'")

        assert [registry.find_run(db, name)["name"] for name in ("run", "RUN", "Run")] == ["run", "RUN", "RUN"]
        with pytest.raises(NotFound):
            registry.find_run(db, "runs")


def test_a_name_that_is_made_avoids_folders_of_any_spelling(project):
    with registry.open_registry(project / "runs.db") as db:
        first = registry.new_name(db, "models/tiny", 3)
        second = registry.new_name(db, "models/tiny", 3, avoid={first.upper()})

    assert second != first
