"""`models`: what is on this machine and on the hub in one list, and what fits."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hub import Fault, Hub

from mlxops.jobs.model import needs


def listed(mlxops: Any, options: str = "") -> list[dict[str, Any]]:
    """The list as JSON."""
    code, out, err = mlxops(f"models --json {options}")
    assert code == 0, err
    return list(json.loads(out))


def names(mlxops: Any, options: str = "") -> list[tuple[str, str]]:
    """Name and place of each model in the list."""
    return [(each["name"], each["where"]) for each in listed(mlxops, options)]


@pytest.fixture
def models(tiny_model: Path, tiny_quantized_model: Path) -> Path:
    """models/ with a model, a packed one, and one that is damaged."""
    folder = Path("models")
    shutil.copytree(tiny_model, folder / "tiny")
    shutil.copytree(tiny_quantized_model, folder / "small")
    shutil.copytree(tiny_model, folder / "broken")
    with (folder / "broken" / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    return folder


def test_models_here_are_listed_with_what_they_are_and_whether_they_fit(models: Path, mlxops: Any) -> None:
    found = {each["name"]: each for each in listed(mlxops)}

    assert list(found) == ["broken", "small", "tiny"]
    assert found["tiny"]["fit"] == "trains"
    assert found["tiny"]["training"] > found["tiny"]["loading"] > found["tiny"]["bytes"] * 0.9
    assert (found["small"]["quantization"], found["small"]["parameters"]) == ("4 bits", found["tiny"]["parameters"])
    assert (found["broken"]["fit"], "model.safetensors" in found["broken"]["problem"]) == (None, True)
    code, out, _ = mlxops("models --filter downloaded")
    assert (code, "trains" in out, "broken: " in out) == (0, True, True), out


def test_the_list_has_the_figures_of_each_kind_of_model_that_model_info_has(
    models: Path, tiny_experts: Path, mlxops: Any
) -> None:
    weights = mx.load(str(models / "tiny" / "model.safetensors"))
    shutil.copytree(tiny_experts, models / "experts")
    config = json.loads((shutil.copytree(models / "small", models / "mixed") / "config.json").read_text())
    config["quantization"]["model.layers.0.mlp.down_proj"] = {"group_size": 64, "bits": 6}
    (models / "mixed" / "config.json").write_text(json.dumps(config))
    for name, changed in (("half", {"dtype": mx.bfloat16}), ("layers", {"layers": 1}), ("shards", {"shards": 2})):
        folder = shutil.copytree(models / "tiny", models / name)
        (folder / "model.safetensors").unlink()
        kept = {
            key: each.astype(changed.get("dtype", each.dtype))
            for key, each in weights.items()
            if int((re.findall(r"layers\.(\d)", key) or "0")[0]) < changed.get("layers", 4)
        }
        count = changed.get("shards", 1)
        for number in range(count):
            shard = dict(list(kept.items())[number::count])
            mx.save_safetensors(str(folder / f"model-{number + 1:05}-of-{count:05}.safetensors"), shard)

    found = {each["name"]: each for each in listed(mlxops) if each["problem"] is None}
    told = {name: json.loads(mlxops(f"model.info {name} --json")[1]) for name in found}
    held = sum(each.size for each in weights.values())

    figures = ("type", "layers", "parameters", "bytes", "loading", "training")
    assert sorted(found) == ["experts", "half", "layers", "mixed", "shards", "small", "tiny"]
    assert {name: [each[key] for key in figures] for name, each in found.items()} == {
        name: [each[key] for key in figures] for name, each in told.items()
    }
    assert {found[name]["parameters"] for name in ("tiny", "half", "shards", "small")} == {held}
    assert found["mixed"]["quantization"] == told["mixed"]["numbers"] == "4 to 6 bits"
    assert (found["half"]["dtype"], found["tiny"]["dtype"]) == ("bfloat16", "float32")
    assert found["half"]["loading"] == found["tiny"]["loading"]  # a processor computes in float32


def test_what_is_remembered_of_a_model_is_looked_at_again_when_a_file_changes(models: Path, mlxops: Any) -> None:
    first = listed(mlxops)
    is_remembered = Path(".mlxops/model_list.json").is_file()
    again = listed(mlxops)
    (models / "tiny" / "config.json").write_text("{}")
    changed = listed(mlxops)
    Path(".mlxops/model_list.json").write_text('{"x": [1, {}]}')

    assert is_remembered
    assert again == first
    assert "names no model_type" in changed[2]["problem"]
    assert listed(mlxops) == changed


def test_a_list_looks_at_the_ends_of_a_vocabulary_and_verifying_reads_all_of_it(models: Path, mlxops: Any) -> None:
    whole = (models / "tiny" / "tokenizer.json").read_text()
    (models / "small" / "tokenizer.json").write_text(whole[:-9])
    (models / "tiny" / "tokenizer.json").write_text(whole.replace(":", " ", 1))

    found = {each["name"]: each["problem"] for each in listed(mlxops)}
    code, out, _ = mlxops("model.verify tiny")

    assert "small/tokenizer.json holds no whole JSON object" in found["small"]
    assert found["tiny"] is None
    assert (code, "tokenizer.json:2: not JSON" in out) == (1, True), out


def test_little_memory_shows_in_what_fits(models: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = next(each for each in listed(mlxops) if each["name"] == "tiny")
    rooms = [tiny["training"], tiny["training"] - 1, tiny["loading"] - 1]

    found = []
    for room in rooms:
        monkeypatch.setattr(needs, "room", lambda room=room: room)
        found.append(next(each["fit"] for each in listed(mlxops, "--search tiny --filter downloaded")))

    assert found == ["trains", "loads", "too large"]


def test_models_of_the_hubs_cache_are_listed(tiny_model: Path, mlxops: Any) -> None:
    cache = Path(os.environ["HF_HOME"]) / "hub" / "models--me--cached"
    shutil.copytree(tiny_model, cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    (cache.with_name("models--me--half") / "snapshots" / "abc").mkdir(parents=True)

    assert names(mlxops) == [("me/cached", "cache")]
    assert list(Path.cwd().iterdir()) == []  # no project, so nothing is remembered in it


def test_models_of_other_projects_are_listed_with_where_they_are(
    tiny_model: Path, tmp_path: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path.cwd()
    for name in ("other", "gone"):
        project = tmp_path / name
        shutil.copytree(tiny_model, project / "models" / f"of-{name}")
        (project / "tasks.py").write_text("")
        monkeypatch.chdir(project)
        listed(mlxops)
    shutil.rmtree(tmp_path / "gone")
    monkeypatch.chdir(here)
    shutil.copytree(tiny_model, "models/tiny")

    found = [(each["name"], each["where"], each["project"], each["fit"]) for each in listed(mlxops)]
    code, out, err = mlxops("models")

    assert found == [("tiny", "models", None, "trains"), ("of-other", "project", str(tmp_path / "other"), "trains")]
    assert (code, "of-other" in out, f"other is the project {tmp_path / 'other'}" in err) == (0, True, True), out + err
    assert len(list((Path(os.environ["MLXOPS_CACHE"]) / "projects").iterdir())) == 2


def test_the_hub_is_searched_over_its_pages_and_what_is_here_stands_first(
    there: Hub, models: Path, tiny_model: Path, tiny_quantized_model: Path, mlxops: Any
) -> None:
    for number in range(5):
        there.add(f"mlx-community/tiny-{number}-4bit", tiny_quantized_model, downloads=number)
    there.add("someone/Tiny", tiny_model, tags=["safetensors"], downloads=99)
    there.add("someone/tiny-other", tiny_model, tags=["safetensors"], downloads=50)
    there.add("someone/another", tiny_model, downloads=1)

    found = listed(mlxops, "--search tiny --sort downloads")

    assert [each["name"] for each in found] == [
        "tiny",
        "someone/tiny-other",
        *(f"mlx-community/tiny-{number}-4bit" for number in (4, 3, 2, 1, 0)),
    ]
    packed, whole = found[2], found[1]
    assert (whole["format"], packed["format"], packed["quantization"]) == ("safetensors", "mlx", "4 bits")
    assert packed["downloads"] == 4
    assert whole["parameters"] == packed["parameters"] == found[0]["parameters"]
    assert (whole["fit"], whole["updated"]) == ("loads", "2026-01-02T03:04:05.000Z")
    assert any("cursor" not in path for _, path, _ in there.requests)
    assert len([path for _, path, _ in there.requests if path == "/api/models"]) > 2
    assert [place for _, place in names(mlxops, "--search tiny --filter available")] == ["hub"] * 6
    assert len(names(mlxops, "--search tiny --limit 2")) == 2


def test_a_model_that_was_downloaded_is_not_offered_again_and_others_of_its_name_are(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    for number, owner in enumerate(("one", "other", "third")):
        there.add(f"{owner}/tiny", tiny_model, downloads=9 - number)
    assert mlxops("download-model one/tiny --name mine")[0] == 0
    assert mlxops("download-model other/tiny")[0] == 0

    found = names(mlxops, "--search tiny --filter available --limit 1")
    both = names(mlxops, "--search one/tiny")

    assert found == [("third/tiny", "hub")]
    assert both == [("mine", "models")]


def test_without_a_network_the_last_list_shows_and_that_is_said(
    there: Hub, models: Path, tiny_model: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    there.add("someone/tiny-other", tiny_model, downloads=50)
    first = mlxops("models --search tiny")
    asked = len(there.requests)
    kept = mlxops("models --search tiny")
    file = Path(os.environ["MLXOPS_CACHE"]) / "hub_models.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({key: {**each, "at": each["at"] - 7200} for key, each in known.items()}))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    old = mlxops("models --search tiny")
    none = mlxops("models --search broken")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    there.faults["search"] = [Fault(status=429, headers={"Retry-After": "5"})] * 9
    busy = mlxops("models --search broken")

    assert "someone/tiny-other" in first[1]
    assert (len(there.requests) > asked, re.search(r"the hub's list is .* old", kept[2]) is not None) == (True, True), (
        kept[2]
    )
    assert ("someone/tiny-other" in old[1], "HF_HUB_OFFLINE is set" in old[2], "2 h 00 m old" in old[2]) == (
        True,
        True,
        True,
    ), old[2]
    assert ("broken" in none[1], "only what is on this machine" in none[2]) == (True, True), none
    assert "too many requests" in busy[2]
