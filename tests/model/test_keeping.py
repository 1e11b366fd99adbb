"""`model.info`, `model.verify` and `model.remove`: what a model is, whether it is whole, and how it goes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hub import Hub

ID = "mlx-community/tiny"


@pytest.fixture
def model(tiny_model: Path) -> Path:
    """models/tiny, which nothing recorded."""
    return Path(shutil.copytree(tiny_model, Path("models") / "tiny"))


def verified(mlxops: Any, options: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the models as JSON."""
    code, out, err = mlxops(f"model.verify {options} --json")
    assert out, err
    return code, json.loads(out)


def test_a_model_is_described_with_its_template_and_its_memory(model: Path, mlxops: Any) -> None:
    code, out, err = mlxops("model.info tiny --json")
    assert code == 0, err
    small, large = json.loads(out), json.loads(mlxops("model.info tiny --batch-size 8 --json")[1])
    text = mlxops("model.info tiny")

    config = json.loads((model / "config.json").read_text())
    assert (small["type"], small["layers"]) == (config["model_type"], config["num_hidden_layers"])
    assert "It is four." in small["template"]["conversation"]
    assert small["template"]["end_of_turn"] in small["template"]["stops"]
    assert small["template"]["agrees"] is True
    assert large["training"] > small["training"] > small["loading"] > small["bytes"] * 0.9
    assert "What is 2 + 2?" in text[1]
    assert max(map(len, text[1].splitlines())) > 0


def test_a_template_and_a_config_that_disagree_are_named(model: Path, mlxops: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 5}))
    (model / "config.json").write_text(json.dumps({**config, "vision_config": {}}))

    found = json.loads(mlxops("model.info tiny --json")[1])

    assert found["template"]["agrees"] is False
    assert [each.split(" ")[0] for each in found["notes"]] == ["this", "eos_token_id", "a"]


def test_a_download_is_verified_by_its_hashes_and_what_changed_is_named(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    there.add(ID, tiny_model)
    assert mlxops(f"download-model {ID}")[0] == 0
    with closing(sqlite3.connect("runs.db")) as db, db:
        db.execute("UPDATE models SET verified_at = '2026-01-01T00:00:00.000Z'")
    whole = verified(mlxops, "tiny")
    with closing(sqlite3.connect("runs.db")) as db, db:
        ((at,),) = db.execute("SELECT verified_at FROM models").fetchall()
    file = Path("models/tiny/model.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    Path("models/tiny/tokenizer_config.json").unlink()

    code, (changed,) = verified(mlxops, "tiny")

    assert (whole[0], whole[1][0]["problems"], whole[1][0]["compared"]) == (0, [], 5)
    assert at > "2026-01-01T00:00:00.000Z"
    assert code == 1
    assert changed["problems"][:2] == [
        "model.safetensors is not what was recorded (SHA-256)",
        "tokenizer_config.json is gone",
    ]


@pytest.mark.slow
def test_what_was_converted_or_fused_is_recorded_with_what_it_was_made_of(tuned_project: Path, mlxops: Any) -> None:
    for command in ("model.convert tiny --quantize 4", "model.fuse tuned --no-check", "model.fuse tuned --no-check"):
        code, _, err = mlxops(command)
        assert code == 0, err
    with closing(sqlite3.connect("runs.db")) as db, db:
        first = dict(db.execute("SELECT path, revision FROM models").fetchall())
        db.execute("DELETE FROM models WHERE path = 'models/tuned-fused'")  # as if killed before it was recorded
    assert mlxops("model.fuse tuned --no-check")[0] == 0
    code, _, err = mlxops("model.convert tiny --quantize 8 --name tiny-4bit --yes")
    assert code == 0, err

    found = {each["name"]: each for each in json.loads(mlxops("models --json")[1])}
    code, results = verified(mlxops, "--all")
    with closing(sqlite3.connect("runs.db")) as db, db:
        last = dict(db.execute("SELECT path, revision FROM models").fetchall())

    assert {name: each["source"] for name, each in found.items()} == {
        "tiny": None,
        "tiny-4bit": "converted from models/tiny",
        "tuned-fused": "fused from models/tiny + tuned:8",
    }
    assert (code, {each["name"]: each["compared"] > 4 for each in results}) == (
        0,
        {"tiny": False, "tiny-4bit": True, "tuned-fused": True},
    )
    assert first["models/tuned-fused"] == last["models/tuned-fused"]
    assert first["models/tiny-4bit"] != last["models/tiny-4bit"]
    assert "source" in mlxops("model.info tuned-fused")[1]


def test_all_models_are_verified_and_each_damage_is_named(model: Path, mlxops: Any) -> None:
    import mlx.core as mx

    shutil.copytree(model, "models/short")
    with Path("models/short/model.safetensors").open("r+b") as file:
        file.truncate(5000)
    shutil.copytree(model, "models/infinite")
    weights = dict(mx.load("models/infinite/model.safetensors"))
    name = sorted(weights)[0]
    weights[name] = mx.full(weights[name].shape, float("inf"))
    mx.save_safetensors("models/infinite/model.safetensors", weights, metadata={"format": "mlx"})

    code, found = verified(mlxops, "--all")
    text = mlxops("model.verify --all")

    problems = {each["name"]: each["problems"] for each in found}
    assert code == 1
    assert problems["infinite"] == [f"1 tensor with numbers that are not finite: {name}"]
    assert "model.safetensors" in problems["short"][0]
    assert problems["tiny"] == []
    assert "2 models of 3 are not whole: models/infinite, models/short" in text[2]
    assert mlxops("model.verify tiny")[0] == 0
    assert mlxops("model.verify tiny --all")[0] == 2
    assert mlxops("model.verify")[0] == 2


@pytest.mark.slow
def test_a_model_is_removed_after_saying_what_uses_it(tuned_project: Path, mlxops: Any) -> None:
    assert mlxops("model.convert tiny --quantize 4")[0] == 0
    size = sum(file.stat().st_size for file in Path("models/tiny").rglob("*") if file.is_file())
    refused = mlxops("model.remove tiny")
    is_there = Path("models/tiny/config.json").is_file()

    code, out, err = mlxops("model.remove tiny --yes --json")

    assert (refused[0], is_there) == (3, True)
    assert "base of 1 run: tuned; made of it: tiny-4bit)? no terminal to confirm on" in refused[2]
    assert code == 0, err
    assert json.loads(out) == {
        "path": "models/tiny",
        "is_link": False,
        "freed_bytes": size,
        "runs": ["tuned"],
        "made_of_it": ["tiny-4bit"],
    }
    assert sorted(path.name for path in Path("models").iterdir()) == ["tiny-4bit"]


def test_a_removed_download_is_no_longer_recorded(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    there.add(ID, tiny_model)
    assert mlxops(f"download-model {ID}")[0] == 0

    code, out, _ = mlxops("model.remove tiny --yes")

    with closing(sqlite3.connect("runs.db")) as db, db:
        assert db.execute("SELECT count(*) FROM models").fetchall() == [(0,)]
    assert (code, out.startswith("removed models/tiny: ")) == (0, True)
    assert list(Path("models").iterdir()) == []


def test_nothing_outside_models_is_removed_and_of_a_link_the_link_alone(
    model: Path, tiny_model: Path, mlxops: Any
) -> None:
    shutil.copytree(tiny_model, "elsewhere")
    Path("models/linked").symlink_to(Path("elsewhere").absolute())
    Path("models/notes").mkdir()

    codes = {
        text: mlxops(f"model.remove {text} --yes")[0]
        for text in ("elsewhere", "../tiny", "models/../elsewhere", ".", "models", "notes", "tinny", "models/tiny/..")
    }
    linked = mlxops("model.remove linked --yes")

    assert codes == {
        "elsewhere": 3,
        "../tiny": 2,
        "models/../elsewhere": 3,
        ".": 3,
        "models": 3,
        "notes": 3,
        "tinny": 2,
        "models/tiny/..": 3,
    }
    assert (linked[0], "the link alone" in linked[1]) == (0, True), linked
    assert Path("elsewhere/config.json").is_file()
    assert sorted(path.name for path in Path("models").iterdir()) == ["notes", "tiny"]
