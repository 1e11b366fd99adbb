"""`model.convert` as a person types it: the numbers are mlx-lm's, the folder is whole, and nothing else is touched."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm import convert as of_mlx_lm

from mlxops.models.tiny import make_tiny

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def project(tiny_model: Path) -> Path:
    """The current folder as a project with models/tiny."""
    shutil.copytree(tiny_model, "models/tiny")
    return Path.cwd()


def converted(mlxops: Typed, words: str) -> dict[str, Any]:
    code, out, err = mlxops(f"model.convert {words} --json")
    assert code == 0, err
    return dict(json.loads(out))


def weights(folder: str) -> dict[str, mx.array]:
    return dict(mx.load(f"{folder}/model.safetensors"))


ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "4 bits": ("--quantize 4", "tiny-4bit", {"quantize": True, "q_bits": 4}),
    "6 bits in groups of 32": (
        "--q-bits 6 --q-group-size 32",
        "tiny-6bit",
        {"quantize": True, "q_bits": 6, "q_group_size": 32},
    ),
    "mxfp4": ("--q-mode mxfp4", "tiny-mxfp4", {"quantize": True, "q_mode": "mxfp4"}),
    "a mixed recipe": (
        "--quant-predicate mixed_3_6",
        "tiny-mixed-3-6",
        {"quantize": True, "quant_predicate": "mixed_3_6", "q_group_size": 64},
    ),
    "half precision": ("--dtype bfloat16", "tiny-bfloat16", {"dtype": "bfloat16"}),
    "as it is": ("", "tiny-mlx", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", ASKED)
def test_a_converted_model_is_bit_for_bit_that_of_mlx_lm(asked: str, mlxops: Typed) -> None:
    words, name, arguments = ASKED[asked]
    with redirect_stdout(io.StringIO()):
        of_mlx_lm("models/tiny", "theirs", **arguments)

    said = converted(mlxops, f"tiny {words}")

    ours, theirs = weights(said["path"]), weights("theirs")
    config, their_config = (json.loads(Path(f, "config.json").read_text()) for f in (said["path"], "theirs"))
    assert (said["path"], said["model"]) == (f"models/{name}", name)
    assert ours.keys() == theirs.keys()
    assert [
        key for key in ours if not mx.array_equal(ours[key], theirs[key]) or ours[key].dtype != theirs[key].dtype
    ] == []
    assert config.get("quantization") == their_config.get("quantization")
    assert mlxops(f"query {name} -p hello --max-tokens 2")[0] == 0


def test_unpacking_gives_the_numbers_that_were_packed(mlxops: Typed) -> None:
    make_tiny(Path("models/packed"), quantized=True)
    packed = weights("models/packed")
    wanted = mx.dequantize(
        *(packed[f"model.embed_tokens.{part}"] for part in ("weight", "scales", "biases")), group_size=32, bits=4
    )

    said = converted(mlxops, "packed --dequantize --dtype float16")

    assert (said["numbers_before"], said["numbers_after"]) == ("4 bits", "float16")
    assert mx.array_equal(weights(said["path"])["model.embed_tokens.weight"], wanted.astype(mx.float16))
    assert "quantization" not in json.loads(Path(said["path"], "config.json").read_text())


def test_the_same_command_again_changes_nothing_and_another_one_asks(mlxops: Typed) -> None:
    first = converted(mlxops, "tiny --quantize 4 --name small")
    before = {file: file.stat().st_mtime_ns for file in Path("models/small").iterdir()}

    again = converted(mlxops, "tiny --q-bits 4 --name small")
    after = {file: file.stat().st_mtime_ns for file in Path("models/small").iterdir()}
    code, _, err = mlxops("model.convert tiny --quantize 8 --name small")
    replaced = converted(mlxops, "tiny --quantize 8 --name small --yes")

    assert (first["was_there"], again["was_there"], after == before) == (False, True, True)
    assert (code, "replace models/small, converted from models/tiny? no terminal to confirm on" in err) == (3, True), (
        err
    )
    assert (replaced["was_there"], replaced["numbers_after"]) == (False, "8 bits")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("nothing", 2, "no model 'nothing'"),
        ("tiny --quantize 4 --q-bits 8", 2, "say the same thing"),
        ("tiny --quantize 4 --dequantize", 2, "exclude each other"),
        ("tiny --dequantize", 2, "'tiny' is not quantized"),
        ("tiny --q-bits 7", 2, "--q-bits"),
        ("tiny --q-group-size 48", 2, "--q-group-size takes 16, 32, 64, 128"),
        ("tiny --quant-predicate mixed_3_6 --q-bits 4", 2, "chooses the bits itself"),
        ("tiny --q-mode mxfp4 --q-bits 6", 2, "cannot be quantized"),
        ("packed --quantize 8", 2, "is quantized already (4 bits)"),
        ("tiny --name ../x", 2, "cannot be the name of a model"),
        ("tiny --output packed.txt", 3, "is there already"),
        ("tiny --quantize 4 --name tiny --yes", 3, "is there already"),
    ],
)
def test_what_cannot_be_converted_is_said_and_leaves_nothing(words: str, code: int, said: str, mlxops: Typed) -> None:
    make_tiny(Path("models/packed"), quantized=True)
    Path("packed.txt").write_text("mine")

    ended, _, err = mlxops(f"model.convert {words}")

    assert (ended, said in err) == (code, True), err
    assert sorted(path.name for path in Path("models").iterdir()) == ["packed", "tiny"]
    assert Path("packed.txt").read_text() == "mine"


def test_a_model_of_the_hubs_cache_is_named_by_its_id(mlxops: Typed) -> None:
    snapshot = Path("cache/models--me--tiny/snapshots/0123abc")
    snapshot.mkdir(parents=True)
    blobs = shutil.copytree("models/tiny", "cache/models--me--tiny/blobs")
    for file in Path(blobs).iterdir():
        (snapshot / file.name).symlink_to(file.absolute())
    (snapshot / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n")

    said = converted(mlxops, f"{snapshot} --quantize 8")

    card = Path(said["path"], "README.md").read_text()
    assert said["path"] == "models/tiny-8bit"
    assert "base_model: me/tiny\n" in card
    assert "That of the base model: mine." in card
    assert [file for file in Path(said["path"]).iterdir() if file.is_symlink()] == []


def test_a_disk_without_room_is_said_before_anything_is_written(mlxops: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    used = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used._replace(free=1000))

    code, _, err = mlxops("model.convert tiny --quantize 4")

    assert (code, "of disk, and" in err, "1.0 kB free" in err) == (1, True, True)
    assert sorted(path.name for path in Path("models").iterdir()) == ["tiny"]


def test_code_in_a_models_folder_is_not_run(mlxops: Typed) -> None:
    config = Path("models/tiny/config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_file": "own.py"}))
    Path("models/tiny/own.py").write_text("open('ran', 'w')")

    code, _, err = mlxops("model.convert tiny --quantize 4")

    assert (code, "needs its own code" in err, Path("ran").exists()) == (2, True, False)
