"""What is kept of the layers below changes no bit of a training: it may be lost, damaged or of something else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from small_trainings import Heard, adapter_bytes, after_step, model_of, row, rows, settings, train_small

from mlxops.events import Notice, Report
from mlxops.training import batches, forward
from mlxops.training.prefix import Prefix, Room

TWO_LAYERS = settings(num_layers=2, iters=10, steps_per_eval=4, val_batches=2, steps_per_report=5)
VALIDATION = (row(50, 20), row(51, 25), row(52, 12))
STATE = 4 * 64
"""The bytes that a position of the tiny model takes."""


@pytest.fixture(scope="module")
def found(tiny_model: Path) -> forward.Forward:
    """The tiny model with its places."""
    model = model_of(tiny_model, TWO_LAYERS)
    return forward.look(model, tokens(0), at_head=False, at_first_trained=True)


def tokens(number: int, width: int = 8) -> np.ndarray:
    """Tokens of shape (1, width)."""
    return (np.arange(width, dtype=np.int32)[None] * (number + 2) + number) % 381


def in_files(folder: Path, **changed: object) -> Room:
    return replace(Room(memory=0, disk=2**20, folder=folder / "prefix", identity="model and versions"), **changed)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "prefix").glob("*"))


def test_what_is_kept_is_found_again(found: forward.Forward, tmp_path: Path) -> None:
    for room in (Room(), in_files(tmp_path)):
        prefix = Prefix(found, room)

        first, again = (prefix.of(tokens(1), uses=0.1) for _ in range(2))

        assert np.array_equal(np.array(first), np.array(again))
        measured = prefix.metrics()
        assert measured["prefix_hits"] == 0.5
        assert measured["prefix_seconds_saved"] == prefix.seconds > 0
        assert "prefix_hits" not in prefix.metrics()


def test_what_does_not_come_again_is_not_kept_and_what_came_for_the_last_time_goes(
    found: forward.Forward, tmp_path: Path
) -> None:
    for room in (Room(), in_files(tmp_path)):
        prefix = Prefix(found, room)

        prefix.of(tokens(1), uses=0.0)
        assert prefix.bytes == 0

        prefix.of(tokens(1), uses=0.1)
        assert prefix.bytes >= 8 * STATE
        prefix.of(tokens(1), uses=0.0)
        assert prefix.bytes == 0
        assert files(tmp_path) == []


def test_the_least_used_goes_first_and_nothing_goes_for_what_is_used_as_often(found: forward.Forward) -> None:
    prefix = Prefix(found, Room(memory=2 * 8 * STATE))

    def hits(*numbers: int) -> list[bool]:
        answers = []
        for number in numbers:
            before = prefix.found
            prefix.of(tokens(number), uses=uses[number])
            answers.append(prefix.found > before)
        return answers

    uses = {1: 0.1, 2: 0.1, 3: 0.1, 4: 0.5}
    assert hits(1, 2, 3) == [False, False, False]
    assert hits(1, 2, 3) == [True, True, False]
    assert hits(4) == [False]
    assert sorted(hits(1, 2, 4)) == [False, True, True]


def test_the_memory_is_filled_before_the_disk(found: forward.Forward, tmp_path: Path) -> None:
    prefix = Prefix(found, in_files(tmp_path, memory=8 * STATE))

    for number in range(3):
        prefix.of(tokens(number), uses=0.1)

    assert len(files(tmp_path)) == 2
    assert prefix.bytes >= 3 * 8 * STATE


def test_there_is_never_more_on_the_disk_than_was_allowed(found: forward.Forward, tmp_path: Path) -> None:
    room = in_files(tmp_path, disk=5000)
    for _ in range(2):
        prefix = Prefix(found, room)
        for number in range(9):
            prefix.of(tokens(number), uses=0.1)
            assert sum(each.stat().st_size for each in files(tmp_path)) <= 5000

    assert files(tmp_path)


def test_files_are_taken_by_a_later_attempt_with_the_same_bits(found: forward.Forward, tmp_path: Path) -> None:
    first = np.array(Prefix(found, in_files(tmp_path)).of(tokens(1), uses=0.1))
    prefix = Prefix(found, in_files(tmp_path))

    again = np.array(prefix.of(tokens(1), uses=0.1))

    assert np.array_equal(first, again)
    assert prefix.metrics()["prefix_hits"] == 1.0


def test_files_of_another_model_data_or_version_are_not_taken(found: forward.Forward, tmp_path: Path) -> None:
    Prefix(found, in_files(tmp_path)).of(tokens(1), uses=0.1)

    for room, asked in ((in_files(tmp_path, identity="another"), tokens(1)), (in_files(tmp_path), tokens(2))):
        prefix = Prefix(found, room)
        prefix.of(asked, uses=0.1)
        assert prefix.metrics()["prefix_hits"] == 0.0


@pytest.mark.parametrize("damage", ["a bit", "the length of its header", "cut", "empty", "gone", "a folder"])
def test_a_damaged_file_is_computed_again(found: forward.Forward, tmp_path: Path, damage: str) -> None:
    first = np.array(Prefix(found, in_files(tmp_path)).of(tokens(1), uses=0.1))
    prefix = Prefix(found, in_files(tmp_path))
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "a bit":
        content[-5] ^= 1
    elif damage == "the length of its header":
        content[:8] = b"\xff" * 8
    elif damage == "cut":
        del content[-100:]
    elif damage == "empty":
        content.clear()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage != "gone":
        file.write_bytes(content)

    again = np.array(prefix.of(tokens(1), uses=0.1))

    assert np.array_equal(first, again)
    assert prefix.metrics()["prefix_hits"] == 0.0


def test_what_a_kill_left_half_written_is_removed(found: forward.Forward, tmp_path: Path) -> None:
    Prefix(found, in_files(tmp_path)).of(tokens(1), uses=0.1)
    (whole,) = files(tmp_path)
    (whole.parent / "0123.partial.safetensors").write_bytes(whole.read_bytes()[:40])

    Prefix(found, in_files(tmp_path))

    assert files(tmp_path) == [whole]


def test_what_is_no_file_of_ours_stops_nothing(found: forward.Forward, tmp_path: Path) -> None:
    (tmp_path / "prefix" / "a folder.0.safetensors").mkdir(parents=True)
    (tmp_path / "prefix" / "another.safetensors").mkdir()
    (tmp_path / "prefix" / "gone.0.safetensors").symlink_to(tmp_path / "nowhere")
    prefix = Prefix(found, in_files(tmp_path))

    prefix.of(tokens(1), uses=0.1)
    prefix.of(tokens(1), uses=0.1)

    assert prefix.metrics()["prefix_hits"] == 0.5


def test_two_trainings_with_one_folder_spoil_nothing_of_each_other(found: forward.Forward, tmp_path: Path) -> None:
    one, other = Prefix(found, in_files(tmp_path)), Prefix(found, in_files(tmp_path))
    first = [np.array(one.of(tokens(number), uses=0.1)) for number in range(3)]
    for number in range(3):
        other.of(tokens(number), uses=0.1)
    other.remove()

    again = [np.array(one.of(tokens(number), uses=0.1)) for number in range(3)]

    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert len(files(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(found: forward.Forward, tmp_path: Path) -> None:
    (tmp_path / "prefix").write_text("a file")
    prefix = Prefix(found, in_files(tmp_path))

    first, again = (np.array(prefix.of(tokens(1), uses=0.1)) for _ in range(2))

    assert np.array_equal(first, again)
    assert prefix.metrics()["prefix_hits"] == 0.0


ROOMS = {
    "none": lambda folder: Room(memory=0),
    "little": lambda folder: in_files(folder, memory=2000, disk=30_000),
    "files": in_files,
}


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Heard]:
    """A training that keeps all in memory: its folder, and what was heard."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_small(tiny_model, folder, TWO_LAYERS, validation_rows=VALIDATION, room=Room())


@pytest.fixture(scope="module")
def stopped(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same training stopped after seven steps, with what it kept in files; it is copied."""
    folder = tmp_path_factory.mktemp("stopped")
    room = in_files(folder)
    train_small(tiny_model, folder, TWO_LAYERS, validation_rows=VALIDATION, room=room, stop_at=after_step(7))
    return folder


@pytest.mark.slow
def test_a_training_has_the_same_bits_whatever_is_kept(
    tiny_model: Path, tmp_path: Path, whole: tuple[Path, Heard]
) -> None:
    folders, heard = {"memory": whole[0]}, {"memory": whole[1]}
    for name, room in ROOMS.items():
        folder = folders[name] = tmp_path / name
        heard[name] = train_small(tiny_model, folder, TWO_LAYERS, validation_rows=VALIDATION, room=room(folder))

    results = {name: (adapter_bytes(folders[name], 10), each.losses) for name, each in heard.items()}
    assert all(each == results["none"] for each in results.values())
    hits = {name: [report.metrics["prefix_hits"] for report in each.of(Report)] for name, each in heard.items()}
    assert hits["none"] == [0.0, 0.0]
    assert hits["memory"] == hits["files"]
    assert hits["memory"][1] > 0.5
    assert 0 < hits["little"][1] < hits["memory"][1]
    assert len({each.stopped for each in heard.values()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("between", ["warm", "removed", "damaged", "without room"])
def test_a_resumed_training_has_the_same_bits_whatever_became_of_what_was_kept(
    tiny_model: Path, tmp_path: Path, whole: tuple[Path, Heard], stopped: Path, between: str
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "resumed"))
    kept = files(folder)
    assert kept
    for each in kept if between in ("removed", "damaged") else ():
        each.unlink() if between == "removed" else each.write_bytes(each.read_bytes()[:-1] + b"?")
    room = Room(memory=0) if between == "without room" else in_files(folder)
    heard = train_small(tiny_model, folder, TWO_LAYERS, validation_rows=VALIDATION, room=room)

    assert adapter_bytes(folder, 10) == adapter_bytes(whole[0], 10)
    (report,) = heard.of(Report)
    assert (report.metrics["prefix_hits"] > 0.5) == (between == "warm")


@pytest.mark.slow
def test_a_longer_run_has_the_bits_of_one_that_was_that_long_from_the_start(tiny_model: Path, tmp_path: Path) -> None:
    one_epoch = settings(num_layers=2, iters=4)
    for room, folder in ((Room(), tmp_path / "a"), (Room(memory=0), tmp_path / "b")):
        train_small(tiny_model, folder, one_epoch, room=room)
        train_small(tiny_model, folder, TWO_LAYERS, room=room)
    train_small(tiny_model, tmp_path / "straight", TWO_LAYERS)

    assert adapter_bytes(tmp_path / "a", 10) == adapter_bytes(tmp_path / "b", 10)
    assert adapter_bytes(tmp_path / "a", 10) == adapter_bytes(tmp_path / "straight", 10)


def test_the_first_lines_say_what_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    heard = train_small(tiny_model, tmp_path, settings(num_layers=3, iters=6))

    size = sum(rows_ * width for rows_, width in batches.plan(rows(), batch_size=2, seed=0).shapes_of_groups) * STATE
    (notice,) = heard.of(Notice)
    assert notice.message == (
        "the layer below the first trained one is computed once for each batch and kept, about "
        f"{size / 1000:.1f} kB in all (`--prefix-cache`)"
    )


@pytest.mark.parametrize(("room", "said"), [(0, None), (50_000, "for as many batches as 50.0 kB hold, of 94.2 kB")])
def test_the_first_lines_say_how_much_there_is_room_for(
    tiny_model: Path, tmp_path: Path, room: int, said: str | None
) -> None:
    heard = train_small(tiny_model, tmp_path, settings(num_layers=3, iters=6), room=Room(memory=room))

    before = "the layer below the first trained one is computed once "
    assert [each.message for each in heard.of(Notice)] == ([f"{before}{said} (`--prefix-cache`)"] if said else [])


def test_a_training_of_one_epoch_says_nothing_of_it(tiny_model: Path, tmp_path: Path) -> None:
    heard = train_small(tiny_model, tmp_path, settings(num_layers=3, iters=5))

    assert heard.of(Notice) == []


def test_the_next_use_of_a_batch_is_its_place_in_the_next_epoch() -> None:
    plan = batches.plan(rows(), batch_size=2, seed=3)

    for iteration in range(1, 2 * len(plan) + 1):
        epoch, group = plan.position(iteration)
        assert plan.position(plan.next_use(iteration)) == (epoch + 1, group)


def test_a_hidden_state_is_computed_as_in_evaluation_and_leaves_the_model_training(found: forward.Forward) -> None:
    found.model.train()
    found.hidden(mx.array(tokens(1)))

    assert found.model.training
