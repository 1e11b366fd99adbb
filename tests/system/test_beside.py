"""On a disk formatted as exFAT, and on shares, macOS puts a file `._NAME` beside each; nothing here minds them."""

from __future__ import annotations

import ast
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from commands import ROOT, copy_writable

from mlxops import registry
from mlxops.adapters import adapter_config, foreign
from mlxops.errors import BadRequest
from mlxops.jobs.model import record
from mlxops.models import card, saving, weight_headers
from mlxops.models.folders import check_model
from mlxops.models.identity import DECIDING, model_identity
from mlxops.projects import templates
from mlxops.resources import folder as shipped

_BESIDE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


def put_beside(folder: Path) -> Path:
    """Have a file of macOS beside each file of a folder and of those below."""
    for file in [each for each in folder.rglob("*") if each.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(_BESIDE)
    return folder


def facts_of(model: Path, cache: Path) -> list[object]:
    """What is read of a model's folder."""
    check_model(model)
    return [
        model_identity(model, cache),
        record.hashes_of(model),
        [each.name for each in saving._found(model, DECIDING)],
        card.read_base(model, name="tiny", hub_id=None).licence_files,
        [each.name for each in weight_headers.weight_files(model)],
    ]


def test_a_model_is_the_same_with_them(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    (model / "LICENSE").write_text("MIT")
    before = facts_of(model, tmp_path / "cache.json")

    assert facts_of(put_beside(model), tmp_path / "cache.json") == before


def test_a_folder_without_weights_says_what_else_it_has(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")

    with pytest.raises(BadRequest) as alone:
        weight_headers.read_headers(tmp_path)
    with pytest.raises(BadRequest) as beside:
        weight_headers.read_headers(put_beside(tmp_path))

    assert "only pytorch_model.bin" in str(alone.value)
    assert str(beside.value) == str(alone.value)


def test_a_registry_is_made_by_texts_that_have_them(tmp_path: Path) -> None:
    sql = copy_writable(shipped("db"), tmp_path / "db")

    registry.open_registry(tmp_path / "runs.db", sql=put_beside(sql)).close()

    assert registry.health(tmp_path / "runs.db").is_current


def test_folders_of_adapters_and_templates_do_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "free").mkdir()
    (tmp_path / "free" / "._0000008_adapters.safetensors").write_bytes(_BESIDE)
    copy_writable(shipped("templates"), tmp_path / "templates")
    put_beside(tmp_path / "templates")
    monkeypatch.setattr(templates.resources, "folder", lambda name: tmp_path / name)
    templates.write_project(tmp_path / "project", "advanced", defaultdict(str))
    templates.write_recipes(tmp_path / "project")
    for data in (tmp_path / "templates" / "data").iterdir():
        templates.write_data(tmp_path / "project" / "data", data.name)

    assert adapter_config.occupied_by(tmp_path / "free") is None
    assert foreign._originals(tmp_path / "free") == {}
    assert [each.name for each in (tmp_path / "project").rglob("._*")] == []


def test_a_pattern_that_begins_with_a_star_is_asked_for_in_one_place() -> None:
    """`*` takes in what begins with a dot; whoever means every file, or those of our own making, is named here."""
    found = {
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "mlxops").rglob("*.py"))
        if "glob(" in (text := file.read_text("utf-8"))
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("glob", "rglob")
        if isinstance(call.args[0], ast.Constant) and str(call.args[0].value).startswith("*")
    }

    assert found == {
        *("mlxops/jobs/model/record.py", "mlxops/jobs/model/remove.py"),  # bytes on disk
        *("mlxops/jobs/train/hidden_states.py", "mlxops/jobs/project/update.py"),  # the same; the newest time
        *("mlxops/models/model_files.py", "mlxops/models/downloading.py"),  # all that is there is synced or removed
        *("mlxops/models/sample.py", "mlxops/projects/prefix.py"),  # wheels that were made or fetched here
        *("mlxops/jobs/project/init.py", "mlxops/projects/accelerator.py"),  # what was written; the driver's folder
    }
