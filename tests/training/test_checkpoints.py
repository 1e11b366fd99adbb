"""A checkpoint is whole or absent, is verified before it is used, and holds all that is needed to continue."""

import resource
import shutil
import signal
import tracemalloc

import mlx.core as mx
import pytest
import safetensors
from commands import ROOT
from small_trainings import adapter_bytes

from mlxops import files, layout, tensors
from mlxops.errors import Failed
from mlxops.layout import recognise
from mlxops.training import checkpoints
from mlxops.training.checkpoints import Checkpoint, Damaged
from mlxops.training.state import Counters

FIXTURES = ROOT / "tests" / "fixtures"


def write(folder, iteration=3, value=1.0, **changed):
    """A checkpoint of a few numbers."""
    values = {
        "weights": {"b": mx.full((2, 2), value), "a": mx.array([1, 2], mx.uint32)},
        "weights_to_go_on": None,
        "optimizer": {"step": mx.array(7), "v.a": mx.array([0.5], mx.bfloat16)},
        "accumulated": {},
        "counters": Counters(iteration=iteration, train_loss=0.1 + 0.2, trained_tokens=5),
        "random": 2**64 - 1,
        "fingerprint": "f",
        "environment": {"blas": "openblas"},
        "run": {"name": "r é"},
    }
    folder.mkdir(exist_ok=True)
    return checkpoints.write(folder, **{**values, **changed})


def damage(path, place, flip=1):
    content = bytearray(path.read_bytes())
    content[place] ^= flip
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


# what is written ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_reads_back_as_it_was_written(folder):
    saved = write(folder)

    found = checkpoints.read(folder, 3)

    assert found == Checkpoint(
        folder=folder,
        iteration=3,
        counters=Counters(iteration=3, train_loss=0.1 + 0.2, trained_tokens=5),
        train_loss=0.1 + 0.2,
        validation_loss=None,
        fingerprint="f",
        environment={"blas": "openblas"},
        run={"name": "r é"},
        adapter_sha256=saved.adapter_sha256,
        state_sha256=saved.state_sha256,
        bytes=saved.bytes,
    )
    assert saved.bytes == found.adapter_path.stat().st_size + found.state_path.stat().st_size


def test_its_arrays_come_back_with_their_bits_and_types(folder):
    write(folder)

    weights, optimizer, accumulated = checkpoints.load(checkpoints.read(folder, 3))

    assert {name: (str(value.dtype), value.tolist()) for name, value in {**weights, **optimizer}.items()} == {
        "a": ("mlx.core.uint32", [1, 2]),
        "b": ("mlx.core.float32", [[1, 1], [1, 1]]),
        "step": ("mlx.core.int32", 7),
        "v.a": ("mlx.core.bfloat16", [0.5]),
    }
    assert accumulated == {}


def test_weights_to_go_on_with_go_before_those_of_the_adapter(folder):
    write(folder, weights_to_go_on={"b": mx.full((2, 2), 9.0)})

    weights, _, _ = checkpoints.load(checkpoints.read(folder, 3))

    assert weights["b"].tolist() == [[9, 9], [9, 9]]
    assert mx.load(str(folder / "adapters.safetensors"))["b"].tolist() == [[1, 1], [1, 1]]


def test_nothing_but_its_three_files_is_left(folder):
    write(folder)

    assert sorted(path.name for path in folder.iterdir()) == [
        "0000003_adapters.safetensors",
        "0000003_state.safetensors",
        "adapters.safetensors",
    ]


def test_the_offered_weights_are_a_copy_and_no_link(folder):
    write(folder)

    numbered, offered = folder / "0000003_adapters.safetensors", folder / "adapters.safetensors"
    assert offered.read_bytes() == numbered.read_bytes()
    assert not offered.is_symlink()
    assert offered.stat().st_ino != numbered.stat().st_ino


def test_an_older_checkpoint_can_be_offered_instead(folder):
    write(folder, 3, 1.0)
    write(folder, 4, 2.0)

    checkpoints.offer(checkpoints.read(folder, 3))

    assert (folder / "adapters.safetensors").read_bytes() == adapter_bytes(folder, 3)
    assert checkpoints.newest(folder)[0].iteration == 4


def test_iterations_are_numbered_as_mlx_lm_numbers_them():
    assert layout.adapter_name(12) == "0000012_adapters.safetensors"
    assert layout.adapter_name(123_456_789) == "123456789_adapters.safetensors"


def test_loaded_arrays_outlive_the_files_they_came_from(folder):
    write(folder)
    weights, _, _ = checkpoints.load(checkpoints.read(folder, 3))

    write(folder, value=2.0)
    shutil.rmtree(folder)

    assert weights["b"].tolist() == [[1, 1], [1, 1]]


def test_a_checkpoint_of_an_iteration_beyond_seven_digits_is_found(folder):
    write(folder, 12_345_678)
    write(folder, 9_999_999)

    assert checkpoints.iterations(folder) == [12_345_678, 9_999_999]


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_write_that_fails_leaves_what_was_there_and_nothing_half_made(folder):
    write(folder, 3)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))

    try:
        with pytest.raises(Failed, match="the checkpoint of iteration 4 could not be written") as failed:
            write(folder, 4, weights={"b": mx.ones((100, 100))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert failed.value.hint
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# what is read -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0000003_adapters.safetensors", "0000003_state.safetensors"])
def test_a_flipped_bit_in_any_byte_is_found(folder, name):
    write(folder)
    whole = (folder / name).read_bytes()

    believed = []
    for place in range(len(whole)):
        damage(folder / name, place)
        if isinstance(checkpoints.read(folder, 3), Checkpoint):
            believed.append(place)
        (folder / name).write_bytes(whole)

    assert believed == []


@pytest.mark.parametrize("name", ["0000003_adapters.safetensors", "0000003_state.safetensors"])
@pytest.mark.parametrize("kept", [0, 4, 8, 200, -1])
def test_a_truncated_file_is_found(folder, name, kept):
    write(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:kept])

    found = checkpoints.read(folder, 3)

    assert isinstance(found, Damaged)
    assert name in found.reason


def test_bytes_that_were_added_are_found(folder):
    write(folder)
    with (folder / "0000003_state.safetensors").open("ab") as file:
        file.write(b"\0" * 8)

    assert isinstance(checkpoints.read(folder, 3), Damaged)


@pytest.mark.parametrize("part", ["adapters", "state"])
def test_files_swapped_between_iterations_are_found(folder, part):
    write(folder, 3, 1.0)
    write(folder, 4, 2.0)
    first, other = (folder / f"000000{iteration}_{part}.safetensors" for iteration in (3, 4))
    kept = first.read_bytes()
    first.write_bytes(other.read_bytes())
    other.write_bytes(kept)

    assert [type(checkpoints.read(folder, iteration)) for iteration in (3, 4)] == [Damaged, Damaged]


def test_both_files_copied_to_another_iteration_are_found(folder):
    write(folder, 3)
    for part in ("adapters", "state"):
        shutil.copy(folder / f"0000003_{part}.safetensors", folder / f"0000009_{part}.safetensors")

    assert checkpoints.read(folder, 9).reason == "0000009_state.safetensors holds iteration 3"


def test_a_missing_adapter_file_is_named(folder):
    write(folder)
    (folder / "0000003_adapters.safetensors").unlink()

    assert checkpoints.read(folder, 3).reason == "0000003_adapters.safetensors is missing"


def test_a_checkpoint_of_other_settings_is_not_used(folder):
    write(folder)

    assert isinstance(checkpoints.read(folder, 3, fingerprint="f"), Checkpoint)
    assert "other settings" in checkpoints.read(folder, 3, fingerprint="g").reason


def test_a_state_of_another_format_is_named(folder):
    write(folder)
    with safetensors.safe_open(folder / "0000003_state.safetensors", framework="np") as opened:
        metadata = opened.metadata() | {"format": "mlxops-state-9"}
    mx.save_safetensors(str(folder / "0000003_state.safetensors"), {"x": mx.ones(1)}, metadata)

    assert "unknown format 'mlxops-state-9'" in checkpoints.read(folder, 3).reason


def test_the_newest_whole_checkpoint_is_used_and_the_damaged_ones_above_it_are_told(folder):
    for iteration in (3, 4, 5, 6):
        write(folder, iteration)
    damage(folder / "0000003_adapters.safetensors", -1)
    damage(folder / "0000005_adapters.safetensors", -1)
    (folder / "0000006_state.safetensors").write_bytes(b"")

    found, damaged = checkpoints.newest(folder)

    assert found.iteration == 4
    assert [each.iteration for each in damaged] == [6, 5]


def test_an_adapter_without_its_state_is_no_checkpoint(folder):
    write(folder, 3)
    write(folder, 4)
    (folder / "0000004_state.safetensors").unlink()

    assert checkpoints.newest(folder) == (checkpoints.read(folder, 3), [])


def test_a_folder_that_is_not_there_has_no_checkpoint(folder):
    assert checkpoints.newest(folder) == (None, [])


def test_what_keeps_a_checkpoint_from_being_used_is_said(folder):
    written, others = write(folder), write(folder, 4, 2.0)
    hashes = {written.adapter_file: written.adapter_sha256, written.state_file: written.state_sha256}
    older = dict.fromkeys(hashes, others.adapter_sha256)

    assert checkpoints.problem(folder, 3, hashes) is None
    assert checkpoints.problem(folder, 3, older) is None  # the files vouch for each other
    assert checkpoints.problem(folder, 3, {}) is None
    damage(folder / written.adapter_file, -1)
    assert checkpoints.problem(folder, 3, hashes) == checkpoints.read(folder, 3).reason
    (folder / written.state_file).unlink()
    assert checkpoints.problem(folder, 3, hashes) == f"{written.adapter_file} is not what was written (SHA-256)"


def test_the_bytes_of_a_checkpoint_are_told_as_they_are_read(folder):
    written, heard = write(folder), []
    hashes = {written.adapter_file: written.adapter_sha256, written.state_file: written.state_sha256}

    checkpoints.problem(folder, 3, hashes, heard=heard.append)

    assert sum(heard) == written.bytes


def test_a_damaged_checkpoint_is_set_aside_under_another_name(folder):
    write(folder, 3)
    write(folder, 4)

    names = checkpoints.set_aside(folder, 4)

    assert sorted(names) == ["0000004_adapters.safetensors", "0000004_state.safetensors"]
    assert (folder / "0000004_state.safetensors.corrupt").exists()
    assert checkpoints.iterations(folder) == [3]


def test_a_second_damaged_checkpoint_of_one_iteration_leaves_the_first(folder):
    for content in (b"first", b"second", b"third"):
        write(folder, 4)
        (folder / "0000004_state.safetensors").write_bytes(content)
        checkpoints.set_aside(folder, 4)

    there = {path.name: path.read_bytes() for path in folder.glob("*_state.*")}
    assert there == {
        "0000004_state.safetensors.corrupt": b"first",
        "0000004_state.safetensors.corrupt.2": b"second",
        "0000004_state.safetensors.corrupt.3": b"third",
    }
    assert {recognise(name)[0] for name in there} == {"set aside"}


def test_sweeping_removes_what_a_kill_left_and_nothing_else(folder):
    write(folder)
    kept = sorted(folder.iterdir())
    for name in ("0000004_adapters.safetensors", "0000004_state.safetensors", "adapters.safetensors"):
        (folder / f".{name}.partial.safetensors").write_bytes(b"half")

    checkpoints.sweep(folder)

    assert sorted(folder.iterdir()) == kept


def test_a_state_that_was_written_before_states_were_sealed_is_read(folder):
    shutil.copytree(FIXTURES / "state-1", folder)

    found = checkpoints.read(folder, 3)

    assert found.counters == Counters(iteration=3, train_loss=0.1 + 0.2, trained_tokens=5, closed_at=3)
    assert found.has_closing
    assert found.adapter_sha256 == files.sha256(found.adapter_path)
    assert found.state_sha256 == files.sha256(found.state_path)
    weights, optimizer, accumulated = checkpoints.load(found)
    assert weights["b"].tolist() == [[9, 9], [9, 9]]
    assert (optimizer["step"].item(), accumulated["b"].tolist()) == (7, [[1, 1], [1, 1]])


@pytest.mark.slow
def test_a_flipped_bit_in_a_state_that_is_not_sealed_is_found(folder):
    shutil.copytree(FIXTURES / "state-1", folder)
    whole = (folder / "0000003_state.safetensors").read_bytes()

    believed = []
    for place in range(len(whole)):
        damage(folder / "0000003_state.safetensors", place)
        if isinstance(checkpoints.read(folder, 3), Checkpoint):
            believed.append(place)
        (folder / "0000003_state.safetensors").write_bytes(whole)

    assert believed == []


def test_verifying_a_checkpoint_takes_little_memory_whatever_its_size(folder):
    there, closed = {"a": mx.zeros((4 << 20,))}, {"a": mx.ones((4 << 20,))}
    write(folder, weights=closed, weights_to_go_on=there, optimizer={"v.a": closed["a"]})
    tensors.write(folder / "0000003_adapters.safetensors", there, {})  # so that it is compared with the state's own

    tracemalloc.start()
    found = checkpoints.read(folder, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(found, Checkpoint)
    assert peak < 8 << 20  # of the 48 MiB that were read
