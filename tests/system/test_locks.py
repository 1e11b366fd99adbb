"""A file system without locks ends a training with a sentence, and keeps nothing else from being done."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import mac
import pytest
import training_runs
from commands import Ended

from mlxops import files
from mlxops.errors import Failed
from mlxops.jobs.train.seats import Seats
from mlxops.projects import environment
from mlxops.registry import same_file
from mlxops.system import locks
from mlxops.training import lock


@pytest.fixture(params=["ENOTSUP", "ENOLCK", "ENOSYS"])
def without_locks(request: pytest.FixtureRequest, a_mac: mac.Mac) -> mac.Mac:
    a_mac.say("locks", request.param)
    return a_mac


def test_a_run_is_not_begun_where_nobody_can_hold_it(without_locks: mac.Mac, tmp_path: Path) -> None:
    holding = lock.hold(tmp_path / lock.NAME, {}, what="the run", wait=True)

    with pytest.raises(Failed, match="is on a file system without locks") as failed, holding:
        pass

    assert failed.value.hint == "train in a folder on a disk of this machine"
    assert not lock.is_held(tmp_path / lock.NAME)


def test_what_only_asks_or_watches_works(without_locks: mac.Mac, tmp_path: Path) -> None:
    one, other = Seats(tmp_path / "seats"), Seats(tmp_path / "seats")
    one.take()
    other.take()

    with same_file.changing_over(tmp_path), files.scratch_folder(tmp_path, ".making.") as folder:
        assert folder.is_dir()
    with files.locked(tmp_path) as held, files.locked(tmp_path, without_locks=True) as ours:
        assert (held, ours) == (False, True)
    assert (one.count(), other.count()) == (1, 1)
    one.leave()
    other.leave()


def test_an_installation_says_so_and_works(without_locks: mac.Mac, tmp_path: Path) -> None:
    said: list[str] = []

    with (tmp_path / "lock").open("w") as file:
        assert not environment.take(file.fileno(), said.append)

    assert "files cannot be locked here" in said[0]


def test_another_failure_is_no_missing_lock(a_mac: mac.Mac, tmp_path: Path) -> None:
    a_mac.say("locks", "EIO")

    with (tmp_path / "lock").open("w") as file, pytest.raises(OSError, match="Input/output error") as failed:
        locks.take(file.fileno())

    assert not isinstance(failed.value, locks.CannotLock)


@pytest.mark.slow
def test_lora_names_the_file_system(
    a_mac: mac.Mac, tmp_path: Path, tiny_model: Path, mlxops: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(training_runs.make_project(tmp_path / "project", tiny_model))
    a_mac.say("locks", "ENOTSUP")

    code, _, err = mlxops(shlex.join(["lora", "--model", "tiny", "--iters", "1"]))

    assert (code, "without locks" in err, "bug" in err) == (1, True, False)
