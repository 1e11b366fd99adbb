"""GGUF on disk: models in several files, damaged ones, and weight files written a part at a time."""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
from gguf_blocks import pack
from gguf_models import full_config, logits_of, random_model, weights_of, write_gguf
from safetensors.numpy import load_file

from mlxops.errors import BadRequest, Failed, MlxopsError, NotFound
from mlxops.models.gguf.file import model_name
from mlxops.models.gguf.importing import import_gguf
from mlxops.models.weight_files import Weight, check_room, open_weights

IDS = [1, 85, 91, 300, 7, 42]


@pytest.fixture
def parts(tiny_model: Path, tmp_path: Path) -> list[Path]:
    """A model in four files."""
    config = full_config("llama")
    write_gguf(tmp_path / "tiny.gguf", config, weights_of(random_model(config)), tiny_model, split_tensors=6)
    return sorted(tmp_path.glob("tiny-*.gguf"))


@pytest.mark.parametrize("number", [0, 2])
def test_any_of_several_files_imports_the_model(number: int, parts: list[Path], tmp_path: Path) -> None:
    import mlx_lm

    import_gguf(parts[number], tmp_path / "imported", dtype="float32")

    said = logits_of(mlx_lm.load(str(tmp_path / "imported"))[0], IDS)
    assert [part.name for part in parts] == [f"tiny-{part:05}-of-00004.gguf" for part in (1, 2, 3, 4)]
    assert numpy.abs(said - logits_of(random_model(full_config("llama")), IDS)).max() < 1e-5


def test_a_missing_part_is_named(parts: list[Path], tmp_path: Path) -> None:
    parts[1].unlink()

    with pytest.raises(NotFound, match=r"of the 4 files of this model tiny-00002-of-00004\.gguf is missing"):
        import_gguf(parts[0], tmp_path / "imported", dtype="float32")


def test_a_part_under_the_name_of_another_is_refused(parts: list[Path], tmp_path: Path) -> None:
    parts[1].write_bytes(parts[2].read_bytes())

    with pytest.raises(BadRequest, match="the file named as part 2 says that it is another"):
        import_gguf(parts[0], tmp_path / "imported", dtype="float32")


def test_a_part_alone_is_no_model(parts: list[Path], tmp_path: Path) -> None:
    parts[0].rename(tmp_path / "alone.gguf")

    with pytest.raises(BadRequest, match=r"'alone\.gguf' is one of 4 files and not named so"):
        import_gguf(tmp_path / "alone.gguf", tmp_path / "imported", dtype="float32")


def test_a_model_of_several_files_has_the_name_without_the_number() -> None:
    names = ["a/Big-Q4-00002-of-00010.gguf", "Big-Q4.gguf", "Big-0002-of-0010.gguf"]

    assert [model_name(Path(name)) for name in names] == ["Big-Q4", "Big-Q4", "Big-0002-of-0010"]


def test_weights_are_spread_over_files_of_the_size_given(tiny_model: Path, tmp_path: Path) -> None:
    import mlx_lm

    config = full_config("qwen3")
    original = random_model(config)
    write_gguf(tmp_path / "tiny.gguf", config, weights_of(original), tiny_model)

    import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="float32", most_bytes=100_000)

    files = sorted((tmp_path / "imported").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "imported" / "model.safetensors.index.json").read_text())
    assert [file.name for file in files] == [f"model-{number:05}-of-00005.safetensors" for number in range(1, 6)]
    assert {name: file.name for file in files for name in load_file(file)} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in weights_of(original).values())
    said = logits_of(mlx_lm.load(str(tmp_path / "imported"))[0], IDS)
    assert numpy.abs(said - logits_of(original, IDS)).max() < 1e-5


def test_rows_can_be_written_in_any_order(tmp_path: Path) -> None:
    numbers = numpy.arange(12, dtype=numpy.float32).reshape(4, 3)
    byte = numpy.array([7, 8, 9], numpy.uint8)
    weights = [Weight(name="byte", dtype="U8", shape=(3,)), Weight(name="wide", dtype="F32", shape=(4, 3))]

    with open_weights(tmp_path, weights) as files:
        files.write("wide", 2, numbers[2:])
        files.write("byte", 0, byte)
        files.write("wide", 0, numbers[:2])

    read = load_file(tmp_path / "model.safetensors")
    assert numpy.array_equal(read["wide"], numbers)
    assert numpy.array_equal(read["byte"], byte)


def test_a_disk_without_room_is_said_with_both_sizes(tmp_path: Path) -> None:
    weights = [Weight(name="large", dtype="F32", shape=(1 << 30, 1 << 20))]

    with pytest.raises(Failed, match=r"needs 4\.5 PB of disk, and .* has [\d.]+ [kMGT]?B free"):
        check_room(tmp_path / "not" / "there" / "yet", weights)


def test_room_is_looked_for_before_anything_is_written(tiny_model: Path, tmp_path: Path) -> None:
    # Numbers of a fifth of a byte in a file with a hole, which become four bytes each.
    file = tmp_path / "holes.gguf"
    write_with_holes(file, tiny_model, between=(1 << 31) - 256)

    with pytest.raises(Failed, match="TB of disk"):
        import_gguf(file, tmp_path / "models" / "imported", dtype="float32")

    assert list(tmp_path.iterdir()) == [file]


def write_with_holes(file: Path, tiny_model: Path, *, between: int) -> None:
    """A llama's file with one small layer, whose three large matrices are holes."""
    config = full_config("qwen2") | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    generator = numpy.random.default_rng(0)
    write_gguf(
        file,
        config,
        weights_of(random_model(config)),
        tiny_model,
        packing=lambda name, tensor: (pack(tensor, "IQ1_S", generator), "IQ1_S") if "ffn" in name else (tensor, "F32"),
    )
    content = bytearray(file.read_bytes())
    reader = gguf.GGUFReader(file)
    grown = 0
    for tensor in reader.tensors:
        place = tensor.field.parts[5]
        set_number(content, offset_in(reader, place), int(place[0]) + grown)
        if "ffn_" not in tensor.name or "norm" in tensor.name:
            continue
        axis = 0 if "down" in tensor.name else 1
        set_number(content, offset_in(reader, tensor.field.parts[3][axis : axis + 1]), between)
        grown += tensor.n_bytes * between // 256 - tensor.n_bytes
    field = reader.fields["qwen2.feed_forward_length"]
    at = offset_in(reader, field.parts[-1])
    content[at : at + 4] = struct.pack("<I", between)
    size = len(content) + grown
    del reader
    file.write_bytes(content)
    with file.open("r+b") as stream:
        stream.truncate(size)


def offset_in(reader: gguf.GGUFReader, part: numpy.ndarray) -> int:
    return part.ctypes.data - reader.data.ctypes.data


def set_number(content: bytearray, at: int, value: int) -> None:
    content[at : at + 8] = struct.pack("<Q", value)


@pytest.fixture(scope="module")
def small_gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small file with every kind of thing in its header."""
    file = tmp_path_factory.mktemp("small") / "small.gguf"
    config = full_config("gemma3") | {"hidden_size": 32, "intermediate_size": 32, "head_dim": 8}
    generator = numpy.random.default_rng(1)
    write_gguf(
        file,
        config,
        weights_of(random_model(config)),
        tiny_model,
        packing=lambda _, tensor: (pack(tensor, "Q8_0", generator), "Q8_0"),
        settings={"attention.sliding_window_pattern": [True, True, False, True, True, False, True]},
    )
    return file.read_bytes()


@pytest.mark.slow
def test_a_file_with_changed_bytes_is_refused_or_imported(small_gguf: bytes, tmp_path: Path) -> None:
    """Every tenth byte or so before the vocabulary and after it, in the tensors' places and in the numbers."""
    generator = numpy.random.default_rng(7)
    ends: Counter[str] = Counter()
    for number, at in enumerate(places_to_spoil(small_gguf)):
        content = bytearray(small_gguf)
        content[at] ^= int(generator.integers(1, 256))
        ends[import_of(bytes(content), tmp_path, number)] += 1

    assert ends.keys() <= {"refused", "imported"}
    assert ends["refused"] > 100
    assert ends["imported"] > 10


def places_to_spoil(content: bytes) -> list[int]:
    vocabulary = content.index(b"tokenizer.ggml.tokens")
    types, ids = content.index(b"tokenizer.ggml.token_type"), content.index(b"tokenizer.ggml.bos_token_id")
    tensors = content.index(b"token_embd.weight")
    last = content.rindex(b"output_norm.weight")
    return [
        *range(0, vocabulary, 7),
        *range(vocabulary, vocabulary + 60, 3),
        *range(types, types + 60, 3),
        *range(ids, ids + 60, 3),
        *range(tensors - 8, tensors + 400, 7),
        *range(last, last + 60, 5),
        *range(last + 100, len(content), len(content) // 25),
    ]


def import_of(content: bytes, tmp_path: Path, number: int) -> str:
    """How the import ends: any error but the project's own is the test's."""
    file, target = tmp_path / f"{number}.gguf", tmp_path / f"{number}"
    file.write_bytes(content)
    said = None
    try:
        import_gguf(file, target, dtype="keep")
    except MlxopsError as error:
        said = error
    assert target.exists() == (said is None)
    assert said is None or ("\n" not in said.message and said.hint and said.exit_code == 2)
    return "refused" if said else "imported"


def test_a_file_cut_anywhere_is_refused(small_gguf: bytes, tmp_path: Path) -> None:
    lengths = [*range(0, 400, 11), *range(400, len(small_gguf) - 128, len(small_gguf) // 60)]

    ends = {import_of(small_gguf[:length], tmp_path, length) for length in lengths}

    assert ends == {"refused"}


def test_a_number_is_read_as_what_it_is(tmp_path: Path) -> None:
    from mlxops.models.gguf.file import read_gguf

    writer = gguf.GGUFWriter(tmp_path / "values.gguf", "llama")
    values: dict[str, Any] = {"u8": 200, "i8": -3, "u16": 60_000, "i16": -3, "i32": -70_000, "u64": 1 << 60, "i64": -9}
    for kind, value in values.items():
        getattr(writer, {"u": "add_uint", "i": "add_int"}[kind[0]] + kind[1:])(kind, value)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", True)
    writer.add_array("texts", ["ä", ""])
    writer.add_array("bools", [True, False])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    wanted = {**values, "f64": 0.1, "bool": True, "texts": ["ä", ""], "bools": [True, False]}
    assert read_gguf(tmp_path / "values.gguf").metadata == {"general.architecture": "llama", **wanted}


@pytest.mark.parametrize(("version", "message"), [(1, "version 1"), (struct.unpack("<I", b"\0\0\0\3")[0], "order")])
def test_another_version_is_named(version: int, message: str, small_gguf: bytes, tmp_path: Path) -> None:
    (tmp_path / "old.gguf").write_bytes(small_gguf[:4] + struct.pack("<I", version) + small_gguf[8:])

    with pytest.raises(BadRequest, match=message):
        import_gguf(tmp_path / "old.gguf", tmp_path / "imported", dtype="keep")
