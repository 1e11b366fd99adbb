"""`download-model`, with the real client of the hub against a server on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hub import Fault, Hub

ID = "mlx-community/tiny"


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def row() -> dict[str, Any]:
    """The one row of `models`."""
    with closing(sqlite3.connect("runs.db")) as db, db:
        db.row_factory = sqlite3.Row
        (found,) = db.execute("SELECT * FROM models").fetchall()
    return dict(found)


def left() -> list[str]:
    """What stands in models/."""
    return sorted(path.name for path in Path("models").iterdir()) if Path("models").is_dir() else []


def test_a_model_is_there_whole_and_recorded_with_revision_and_hashes(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    repository = there.add(ID, tiny_model)
    repository.commit({"pytorch_model.bin": b"pickle", "modeling.py": b"1/0", "README.md": b"# tiny\n"})

    code, out, err = mlxops(f"download-model {ID} --json")

    assert code == 0, err
    assert left() == ["tiny"]
    expected = {**content(tiny_model), "README.md": b"# tiny\n"}
    assert content(Path("models/tiny")) == expected
    said = json.loads(out)
    assert (said["path"], said["source"], said["revision"], said["was_there"]) == (
        "models/tiny",
        ID,
        repository.newest,
        False,
    )
    found = row()
    assert (found["path"], found["source"], found["revision"]) == ("models/tiny", ID, repository.newest)
    assert json.loads(found["sha256"]) == {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}
    assert found["bytes"] == sum(map(len, expected.values()))
    assert "code of the repository is left out, because nothing here runs it: modeling.py" in err
    assert there.gets("pytorch_model.bin") == there.gets("modeling.py") == []


def test_the_same_command_again_fetches_nothing_and_a_changed_model_is_refused(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    repository = there.add(ID, tiny_model)
    assert mlxops(f"download-model {ID}")[0] == 0
    asked = len(there.gets("model.safetensors"))

    again = mlxops(f"download-model {ID}")
    Path("runs.db").unlink()
    recognised = mlxops(f"download-model {ID}")
    repository.commit({"config.json": json.dumps({**json.loads((tiny_model / "config.json").read_text())}).encode()})
    changed = mlxops(f"download-model {ID}")

    assert (again[0], "there already, as the hub has it" in again[1]) == (0, True)
    assert recognised[0] == 0
    assert row()["source"] == ID
    assert len(there.gets("model.safetensors")) == asked
    assert (changed[0], "differs from" in changed[2], "config.json has" in changed[2]) == (3, True, True), changed[2]


def test_a_connection_cut_anywhere_is_resumed_from_there(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    there.add(ID, tiny_model)
    size = (tiny_model / "model.safetensors").stat().st_size
    places = [number * size // 20 for number in range(20)]
    there.faults["model.safetensors"] = [Fault(cut_at=place) for place in places]

    code, _, err = mlxops(f"download-model {ID}")

    assert code == 0, err
    assert content(Path("models/tiny")) == content(tiny_model)
    spans = there.gets("model.safetensors")
    # what is kept are whole pieces of 64 KiB
    assert spans == [None, *(f"bytes={kept}-" if (kept := place >> 16 << 16) else None for place in places)]


def test_a_download_that_gives_up_leaves_no_model_and_the_next_command_resumes_it(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    there.add(ID, tiny_model)
    there.faults["model.safetensors"] = [Fault(cut_at=140_000) for _ in range(6)]

    broken = mlxops(f"download-model {ID}")
    between = left()
    again = mlxops(f"download-model {ID}")

    assert (broken[0], "the hub cannot be reached" in broken[2], "it resumes" in broken[2]) == (1, True, True), broken
    assert between == [".downloads"]
    assert again[0] == 0, again[2]
    assert there.gets("model.safetensors")[-1] == "bytes=131072-"
    assert len(there.gets("config.json")) == 1
    assert content(Path("models/tiny")) == content(tiny_model)
    assert left() == ["tiny"]


def test_a_revision_that_changes_in_the_middle_is_never_mixed(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    repository = there.add(ID, tiny_model)
    weights = (tiny_model / "model.safetensors").read_bytes()
    other = weights[:-8] + bytes(8)
    there.faults["model.safetensors"] = [Fault(cut_at=140_000) for _ in range(6)]
    assert mlxops(f"download-model {ID}")[0] == 1
    repository.commit({"model.safetensors": other})

    code, _, err = mlxops(f"download-model {ID}")

    assert code == 0, err
    assert there.gets("model.safetensors")[-1] is None
    assert Path("models/tiny/model.safetensors").read_bytes() == other
    assert row()["revision"] == repository.newest


def test_a_wrong_hash_is_refused_and_wrong_beginnings_are_fetched_again(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    there.add(ID, tiny_model)
    weights = (tiny_model / "model.safetensors").read_bytes()
    wrong = bytes(len(weights))
    there.faults["model.safetensors"] = [Fault(content=wrong), Fault(content=wrong)]
    there.faults["config.json"] = [Fault(content=(tiny_model / "config.json").read_bytes().replace(b"4", b"5"))]

    refused = mlxops(f"download-model {ID}")
    between = left()
    there.faults["model.safetensors"] = [Fault(content=wrong, cut_at=140_000)]
    again = mlxops(f"download-model {ID}")

    assert (refused[0], "has another SHA-256 than the hub's, twice" in refused[2]) == (1, True), refused[2]
    assert between == [".downloads"]
    assert again[0] == 0, again[2]
    assert content(Path("models/tiny")) == content(tiny_model)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Fault(status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}), 2, "token"),
        (Fault(status=403), 3, "does not let your token read"),
        (Fault(status=429, headers={"Retry-After": "77"}), 1, "again in 77 seconds"),
        (Fault(status=400), 1, "answered with 400"),
    ],
)
def test_a_refusal_of_the_hub_says_what_helps(
    there: Hub, tiny_model: Path, mlxops: Any, fault: Fault, code: int, words: str
) -> None:
    there.add(ID, tiny_model)
    there.faults["info"] = [fault] * 9

    ended = mlxops(f"download-model {ID}")

    assert (ended[0], words in ended[2], left()) == (code, True, []), ended[2]


def test_what_is_missing_gated_or_failing_for_a_while_is_told_apart(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    there.add(ID, tiny_model, downloads=7)
    there.add("meta/gated", tiny_model, gated=True)

    missing = mlxops("download-model mlx-community/tiny-model-9b")
    nobody = mlxops("download-model someone/else")
    revision = mlxops(f"download-model {ID} --revision v9")
    gated = mlxops("download-model meta/gated")
    invalid = mlxops("download-model a/b/c")
    there.faults["info"] = there.faults["config.json"] = [Fault(status=500), Fault(status=503)]
    failing = mlxops(f"download-model {ID}")

    assert (missing[0], "the hub has no model" in missing[2]) == (2, True), missing[2]
    assert (nobody[0], "hf auth login" in nobody[2]) == (2, True), nobody[2]
    assert (revision[0], "has no revision 'v9'" in revision[2]) == (2, True), revision[2]
    assert (gated[0], "is gated" in gated[2], "accept them on" in gated[2]) == (3, True, True), gated[2]
    assert (invalid[0], "is no id of a model" in invalid[2]) == (2, True), invalid[2]
    assert failing[0] == 0, failing[2]


def test_a_name_like_an_existing_one_is_suggested(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    there.add("mlx-community/tiny-llama-4bit", tiny_model)

    misspelled = mlxops("download-model mlx-community/tny-lama-4bit")
    elsewhere = mlxops("download-model someone/tiny-llama-8bit")

    assert "did you mean 'mlx-community/tiny-llama-4bit'?" in misspelled[2]
    assert "did you mean 'mlx-community/tiny-llama-4bit'?" in elsewhere[2]


def test_what_is_no_language_model_is_refused_before_its_weights_come(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    cases = {
        "a/unsupported": {"config.json": json.dumps({**config, "model_type": "whisperer"}).encode()},
        "a/code": {"config.json": json.dumps({**config, "model_file": "mine.py"}).encode(), "mine.py": b"1/0"},
    }
    for name, changes in cases.items():
        there.add(name, tiny_model).commit(changes)
    for name, files in {
        "a/gguf": {"model.gguf": b"GGUF"},
        "a/pickled": {"config.json": b"{}", "pytorch_model.bin": b"x"},
        "a/pictures": {"model_index.json": b"{}", "unet/model.safetensors": b"x"},
    }.items():
        there.add(name, Path("none")).commit(files)

    ended = {name: mlxops(f"download-model {name}") for name in [*cases, "a/gguf", "a/pickled", "a/pictures"]}

    assert {name: code for name, (code, _, _) in ended.items()} == dict.fromkeys(ended, 2)
    words = {
        "a/unsupported": "does not support the architecture 'whisperer' of 'unsupported'",
        "a/code": "the model 'code' needs its own code 'mine.py', which is not run",
        "a/gguf": "holds GGUF files",
        "a/pickled": "has no weights as model*.safetensors, only pytorch_model.bin",
        "a/pictures": "is no language model",
    }
    assert [name for name, text in words.items() if text not in ended[name][2]] == []
    assert there.gets("model.safetensors") == []


def test_names_from_the_hub_never_leave_the_models_folder(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    outside = dict.fromkeys(("../config.json", "/tmp/vocab.json", "a/../../merges.txt", "..\\LICENSE"), b"{}")
    there.add(ID, tiny_model).commit(outside)
    there.add("me/twice", tiny_model).commit({"LICENSE.txt": b"1", "LICENSE.TXT": b"2"})

    code, _, err = mlxops(f"download-model {ID}")
    twice = mlxops("download-model me/twice")
    names = [mlxops(f"download-model {ID} --name '{name}'")[0] for name in ("../x", "/x", "a/b", ".x", "")]

    assert code == 0, err
    assert content(Path("models/tiny")).keys() == content(tiny_model).keys()
    assert (twice[0], "that a Mac takes for one" in twice[2]) == (2, True), twice[2]
    assert names == [2] * 5
    assert left() == ["tiny"]


@pytest.mark.slow
def test_a_model_is_quantized_on_the_way_and_only_the_result_stays(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    there.add("me/Tiny", tiny_model, tags=["safetensors", "text-generation"])

    code, out, err = mlxops("download-model me/Tiny --quantize 4 --json")
    again = mlxops("download-model me/Tiny --quantize 4 --json")
    other = mlxops("download-model me/Tiny --quantize 8 --name Tiny-4bit")

    assert code == 0, err
    assert "it is converted to 4 bits after the download" in err
    sizes = dict(line.split(": ", 1) for line in err.splitlines() if line.startswith(("download", "model", "tensors")))
    assert {name for name, size in sizes.items() if size.endswith(" kB")} == {"download", "model files"}
    assert sizes["tensors written"].isdecimal()
    assert (json.loads(out)["quantization"], json.loads(out)["path"]) == ("4 bits", "models/Tiny-4bit")
    assert left() == ["Tiny-4bit"]
    assert row()["revision"] == there.repositories["me/Tiny"].newest
    assert (again[0], json.loads(again[1])["was_there"]) == (0, True)
    assert (other[0], "is there already" in other[2]) == (3, True), other[2]
    assert "me/Tiny" in Path("models/Tiny-4bit/README.md").read_text()


def test_no_room_and_no_hub_are_said_before_anything_is_fetched(
    there: Hub, tiny_model: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    there.add(ID, tiny_model)
    usage = shutil.disk_usage(".")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        full = mlxops(f"download-model {ID}")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    nowhere = mlxops(f"download-model {ID}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = mlxops(f"download-model {ID}")

    assert (full[0], "of disk, and" in full[2]) == (1, True), full[2]
    assert (nowhere[0], "the hub cannot be reached" in nowhere[2]) == (1, True), nowhere[2]
    assert (offline[0], "HF_HUB_OFFLINE is set" in offline[2]) == (1, True), offline[2]
    assert there.gets("config.json") == []


class Keyboard:
    """Standard input at which a person types these lines."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)

    def isatty(self) -> bool:
        """It is a terminal."""
        return True

    def readline(self) -> str:
        """The next line."""
        return self.lines.pop(0)


@pytest.mark.slow
def test_lora_offers_the_download_of_a_model_that_is_not_here(
    there: Hub, tiny_model: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.add(ID, tiny_model)
    Path("data").mkdir()
    rows = "".join(json.dumps({"prompt": f"{number}?", "completion": f"{number}."}) + "\n" for number in range(8))
    for name in ("train", "valid"):
        Path(f"data/{name}.jsonl").write_text(rows)

    unasked = mlxops(f"lora --model {ID} --iters 2 --preview")
    is_absent = not Path("models").exists()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", Keyboard("n\n"))
    refused = mlxops(f"lora --model {ID} --iters 2 --preview")
    monkeypatch.setattr("sys.stdin", Keyboard("y\n"))
    accepted = mlxops(f"lora --model {ID} --iters 2 --preview")
    monkeypatch.setattr("sys.stdin", Keyboard())
    again = mlxops(f"lora --model {ID} --iters 2 --preview")

    assert (unasked[0], f" download-model {ID}`" in unasked[2], is_absent) == (2, True, True), unasked[2]
    assert (refused[0], "download it to models/tiny?" in refused[2]) == (2, True), refused[2]
    assert accepted[0] == 0, accepted[2]
    assert again[0] == 0, again[2]
    assert left() == ["tiny"]
