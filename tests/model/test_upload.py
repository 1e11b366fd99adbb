"""`--upload`, with the real client of the hub against a server on this machine: what arrives, and what goes wrong."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Ended
from hub import Fault, Hub, hub
from hub_uploads import TOKEN

pytestmark = pytest.mark.slow

Typed = Callable[..., Ended]


@pytest.fixture
def there(tuned_project: Path) -> Iterator[Hub]:
    """A hub without repositories; the current folder is the tuned project."""
    with hub() as found:
        yield found


@pytest.fixture
def typed(there: Hub, programs: Path) -> Typed:
    """Gives a command in a process of its own, because the client reads its settings once."""

    def give(command: str, **environment: str) -> Ended:
        given = {**os.environ, "HF_TOKEN": TOKEN, **there.environment, **environment}
        words = [programs / "mlx-toolkit", *shlex.split(command)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False, env=given, stdin=subprocess.DEVNULL)
        return ended.returncode, ended.stdout, ended.stderr

    return give


def test_all_of_a_model_arrives_and_nothing_of_this_machine(there: Hub, typed: Typed, tuned_project: Path) -> None:
    code, out, err = typed("model.fuse tuned --upload mine --json")
    assert code == 0, err

    folder = tuned_project / "models" / "tuned-fused"
    wanted = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "fused.json"}
    assert json.loads(out)["uploaded"] == f"{there.endpoint}/me/mine"
    assert {name: each.files for name, each in there.repositories.items()} == {"me/mine": wanted}
    assert not there.repositories["me/mine"].private
    assert err.splitlines()[-1] == "uploading models/tuned-fused to mine"
    assert [name for name, content in wanted.items() if str(tuned_project).encode() in content] == []


def test_the_same_command_again_sends_no_weights_and_completes_what_broke_off(there: Hub, typed: Typed) -> None:
    command = "model.convert tiny --quantize 4 --upload me/small --private"
    there.faults["commit"] = [Fault(status=400)]

    broken, again, once_more = (typed(command) for _ in range(3))

    assert (broken[0], "the hub answered with 400" in broken[2]) == (1, True), broken[2]
    assert (again[0], once_more[0]) == (0, 0), again[2]
    assert "converted already" in again[1]
    assert [method for method, _, _ in there.requests].count("PUT") == 1
    assert {"model.safetensors", "README.md", "tokenizer.json"} <= there.repositories["me/small"].files.keys()
    assert "converted.json" not in there.repositories["me/small"].files
    assert there.repositories["me/small"].private


def test_who_may_not_upload_is_told_before_the_work_or_after_it_with_the_model_in_place(
    there: Hub, typed: Typed
) -> None:
    unknown = typed("model.fuse tuned --upload mine", HF_TOKEN="hf_wrong")
    there.faults["whoami"] = [Fault(status=429)]
    busy = typed("model.fuse tuned --upload mine")
    wrong = typed("model.fuse tuned --upload a/b/c")
    is_untouched = not Path("models/tuned-fused").exists()
    there.faults["create"] = [Fault(status=403)]
    forbidden = typed("model.fuse tuned --upload theirs/model")

    assert (unknown[0], "the hub does not know who you are" in unknown[2], "hf auth login" in unknown[2]) == (
        2,
        True,
        True,
    )
    assert (busy[0], "the hub is asked too often" in busy[2]) == (1, True), busy[2]
    assert (wrong[0], "is no id of a repository" in wrong[2]) == (2, True)
    assert is_untouched
    assert (forbidden[0], "does not let your token write to 'theirs/model'" in forbidden[2]) == (3, True), forbidden[2]
    assert Path("models/tuned-fused/config.json").is_file()


def test_without_a_hub_the_reason_is_said(there: Hub, typed: Typed) -> None:
    offline = typed("model.fuse tuned --upload mine", HF_HUB_OFFLINE="1")
    nowhere = typed("model.fuse tuned --upload mine", HF_ENDPOINT="http://127.0.0.1:9")
    alone = typed("model.fuse tuned --private")

    assert (offline[0], "HF_HUB_OFFLINE is set" in offline[2]) == (1, True), offline[2]
    assert (nowhere[0], "the hub cannot be reached" in nowhere[2]) == (1, True), nowhere[2]
    assert (alone[0], "--upload REPO" in alone[2]) == (2, True)
