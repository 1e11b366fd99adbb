"""`clean` shows what only costs room and removes exactly that; what was trained, downloaded or written stays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from known_runs import folder_of, settings, train

from mlxops import files, registry
from mlxops.training import lock

Typed = Callable[[str], tuple[int, str, str]]
FINGERPRINT = "f" * 64


def write(path: str | Path, size: int) -> Path:
    """A file of so many bytes."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    return file


@pytest.fixture
def clutter(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Something of each kind, beside a run's files, a model, data and a person's own."""
    monkeypatch.setenv("MLXOPS_CACHE", str(Path("cache").absolute()))
    monkeypatch.setenv("HF_HOME", str(Path("hf").absolute()))
    with registry.open_registry(settings().project.registry_path) as db:
        folder_of(db, train(db, "heron", [(10, 3.0)], fingerprint=FINGERPRINT))
    write("models/tiny/model.safetensors", 7)
    write("adapters/heron/adapters.safetensors.before", 7)
    write(".mlxops/model_hashes.json", 7)
    write(".mlxops/backups/runs-schema-1.db", 7)
    write("crash-mine.txt", 7)
    return {
        "prefix": write(f".mlxops/prefix/{FINGERPRINT[:16]}/0.npy", 100).parent,
        "set-aside": write("adapters/heron/0000004_adapters.safetensors.corrupt", 200),
        "half-written": write("adapters/heron/.0000008_state.safetensors.partial", 300),
        "temporary": write("models/.other.0123abcd/model.safetensors", 400).parent,
        "crashes": write(".mlxops/crash-20261122T120000Z.txt", 500),
        "downloads": write("models/.downloads/models--a--b/b/model.safetensors.partial", 600).parent.parent.parent,
        "compiled": write("cache/kernels/k.so", 700).parent,
        "lists": write("cache/hub_models.json", 800),
        "samples": write("cache/samples/a.gguf", 900).parent,
        "hub": write("hf/hub/models--a--b/blobs/x", 1000).parent.parent,
    }


def there(root: Path = Path()) -> set[str]:
    return {each.as_posix() for each in root.rglob("*") if each.is_file() and "runs.db" not in each.name}


def test_each_kind_is_shown_with_its_size_and_nothing_goes_without_being_asked_for(
    clutter: dict[str, Path], mlxops: Typed
) -> None:
    before = there()

    code, out, err = mlxops("clean --json")
    plain = mlxops("clean")

    found = {each["kind"]: each for each in json.loads(out)}
    assert (code, found.keys()) == (0, clutter.keys()), err
    assert [each["bytes"] for each in json.loads(out)] == list(range(1000, 0, -100))
    assert {kind: each["paths"] for kind, each in found.items()} == {
        kind: [str(path.absolute())] for kind, path in clutter.items()
    }
    assert {kind for kind, each in found.items() if not each["is_usual"]} == {"samples", "hub"}
    assert (plain[0], "`--yes` removes it" in plain[2], "hub,samples stay unless named" in plain[1]) == (0, True, True)
    assert max(map(len, plain[1].splitlines())) <= 80
    assert there() == before


def test_what_is_usual_goes_and_all_else_stays(clutter: dict[str, Path], mlxops: Typed) -> None:
    before = there()
    going = {kind: path for kind, path in clutter.items() if kind not in ("samples", "hub")}

    code, out, err = mlxops("clean --yes")

    assert (code, out.splitlines()[-1].endswith(": 3.6 kB")) == (0, True), out + err
    assert not any(path.exists() for path in going.values())
    gone = before - there()
    assert all(any(Path(each).is_relative_to(path) for path in going.values()) for each in gone)
    assert len(gone) == len(going)
    assert mlxops("clean --what crashes") == (0, "nothing takes room that can go\n", "")


def test_only_what_is_named_goes(clutter: dict[str, Path], mlxops: Typed) -> None:
    code, out, _ = mlxops("clean --what hub,crashes --yes --json")

    assert (code, json.loads(out)["bytes"]) == (0, 1500)
    assert [kind for kind, path in clutter.items() if not path.exists()] == ["crashes", "hub"]
    assert mlxops("clean --what crash")[2].endswith("hint: did you mean 'crashes'?\n")


def test_what_a_process_holds_stays(clutter: dict[str, Path], mlxops: Typed) -> None:
    holder = {"pid": os.getpid(), "host": "h", "since": "s"}
    with (
        lock.hold(Path("adapters/heron") / lock.NAME, holder, what="it"),
        files.locked(clutter["temporary"]) as is_locked,
    ):
        code, _, err = mlxops("clean --yes")

    assert (code, is_locked) == (0, True), err
    left = [kind for kind, path in clutter.items() if path.exists()]
    assert left == ["prefix", "set-aside", "half-written", "temporary", "samples", "hub"]


def test_links_are_removed_and_not_followed(clutter: dict[str, Path], mlxops: Typed) -> None:
    kept = write("elsewhere/mine.txt", 5)
    Path(".mlxops/prefix/link").symlink_to(kept.parent.absolute())

    assert mlxops("clean --what prefix --yes")[0] == 0

    assert kept.exists()
    assert not Path(".mlxops/prefix/link").is_symlink()
