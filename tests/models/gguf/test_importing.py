"""A GGUF file becomes a model that computes the same, as a computation that shares no code with the importer says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from gguf_reference import Reference, write_tiny_gguf

from mlxops.errors import BadRequest, NotFound, Refused
from mlxops.models.folders import check_model
from mlxops.models.gguf.importing import import_gguf
from mlxops.models.loading import load_model
from mlxops.models.tokenizer import load_tokenizer

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

TEXTS = [
    "The capital of France is Paris.",
    "In 2024, 17 + 25 = 42; x²+½ of 3.14159",
    "  two  spaces\n\n\tand a tab \n",
    "I'll say it's “naïve” – café, 東京, Москва, 🙂!",
    "def f(x):\n    return x**2  # comment",
    "",
]


def largest_difference(folder: Path, ids: list[int], expected: numpy.ndarray) -> float:
    """How far the model's logits are from the expected ones, in float32."""
    import mlx.core as mx

    model, _ = load_model(folder, dtype="float32")
    logits = numpy.array(model(mx.array([ids]))[0])
    return float(numpy.abs(logits - expected).max())


@pytest.mark.parametrize("packing", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1"])
def test_an_unpacked_import_computes_what_the_file_says(tiny_model: Path, tmp_path: Path, packing: str) -> None:
    reference = Reference(write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", packing=packing))
    ids = [1, 85, 91, 300, 7, 42, 42, 199, 2]

    info = import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="float32").info

    assert largest_difference(tmp_path / "imported", ids, reference.logits(ids)) < 1e-5
    assert (info.dtype, info.quantization) == ("float32", None)


@pytest.mark.parametrize(("packing", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8)])
def test_a_packed_import_stays_packed(tiny_model: Path, tmp_path: Path, packing: str, bits: int) -> None:
    reference = Reference(write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", packing=packing))
    ids = [1, 85, 91, 300, 7, 42, 42, 199, 2]

    info = import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="keep").info

    assert largest_difference(tmp_path / "imported", ids, reference.logits(ids)) < 1e-5
    assert info.quantization == {"group_size": 32, "bits": bits}


def test_an_import_of_plain_float32_is_the_model_itself(tiny_model: Path, tmp_path: Path) -> None:
    write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")

    import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="keep")

    from safetensors.numpy import load_file

    imported, original = (load_file(folder / "model.safetensors") for folder in (tmp_path / "imported", tiny_model))
    assert imported.keys() == original.keys()
    assert all(numpy.array_equal(imported[name], original[name]) for name in original)


def test_an_imported_tokenizer_gives_the_ids_of_the_original(tiny_model: Path, tmp_path: Path) -> None:
    write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")
    import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="keep")

    imported, original = load_tokenizer(tmp_path / "imported"), load_tokenizer(tiny_model)

    assert [imported.encode(text) for text in TEXTS] == [original.encode(text) for text in TEXTS]
    assert imported.apply_chat_template(QUESTION, tokenize=False) == original.apply_chat_template(
        QUESTION, tokenize=False
    )


def test_a_model_trained_with_a_first_token_gets_it(tiny_model: Path, tmp_path: Path) -> None:
    write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", changes={"add_bos": True})

    import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="keep")

    tokenizer = load_tokenizer(tmp_path / "imported")
    assert tokenizer.encode("a")[0] == tokenizer.bos_token_id == 1


def test_an_import_into_an_existing_folder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")
    (tmp_path / "mine").mkdir()

    with pytest.raises(Refused, match="there already"):
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "mine", dtype="keep")

    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "packing", "message"),
    [
        ({"general.architecture": "mamba"}, "F32", "architecture 'mamba'"),
        ({"tokenizer.ggml.model": "bert"}, "F32", "kind 'bert'"),
    ],
)
def test_what_cannot_be_imported_is_named_and_leaves_nothing(
    tiny_model: Path, tmp_path: Path, changes: dict[str, str], packing: str, message: str
) -> None:
    write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", packing=packing, changes=changes)

    with pytest.raises(BadRequest, match=message):
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "models" / "imported", dtype="float32")

    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_a_missing_tensor_is_named(tiny_model: Path, tmp_path: Path) -> None:
    write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", left_out="blk.3.ffn_up.weight")

    with pytest.raises(BadRequest, match=r"blk\.3\.ffn_up\.weight is missing"):
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "imported", dtype="keep")


@pytest.mark.parametrize("kept", [3, 20, 5_000, 300_000])
def test_a_file_cut_short_is_refused(tiny_model: Path, tmp_path: Path, kept: int) -> None:
    file = write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes()[:kept])

    with pytest.raises(BadRequest, match=r"damaged|not a GGUF"):
        import_gguf(file, tmp_path / "imported", dtype="keep")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing"):
        import_gguf(tmp_path / "nothing.gguf", tmp_path / "imported", dtype="keep")


def test_progress_counts_all_tensors(tiny_model: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf")

    import_gguf(
        tmp_path / "tiny.gguf", tmp_path / "a b", dtype="float32", progress=lambda *numbers: said.append(numbers)
    )

    assert said == [(number, 38) for number in range(1, 39)]


@pytest.fixture(scope="module")
def reference(smollm2_gguf: Path) -> Reference:
    """The real model, computed without MLX."""
    return Reference(smollm2_gguf)


@pytest.mark.slow
def test_the_real_model_computes_what_its_file_says(smollm2: Path, reference: Reference) -> None:
    ids = load_tokenizer(smollm2).apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)

    expected = reference.logits(ids)

    assert largest_difference(smollm2, ids, expected) < 1e-3
    assert load_tokenizer(smollm2).decode(int(expected[-1].argmax())) == "The"


@pytest.mark.slow
def test_the_real_model_kept_in_4_bits_computes_the_same(
    smollm2_gguf: Path, reference: Reference, tmp_path: Path
) -> None:
    ids = [1, 4093, 198, 504, 3575, 282, 4649, 314]

    info = import_gguf(smollm2_gguf, tmp_path / "packed", dtype="keep").info

    # The norms are rounded to float16, the numbers in 4 bits are the file's own.
    assert largest_difference(tmp_path / "packed", ids, reference.logits(ids)) < 0.05
    assert (info.parameters, info.dtype) == (134_515_008, "float16")
    assert info.quantization == {"group_size": 32, "bits": 4, "model.embed_tokens": {"group_size": 32, "bits": 8}}


@pytest.mark.slow
def test_the_real_tokenizer_gives_the_ids_of_its_file(smollm2: Path, reference: Reference) -> None:
    tokenizer = load_tokenizer(smollm2)

    ids = [tokenizer.encode(text) for text in TEXTS]

    assert ids == [reference.encode(text) for text in TEXTS]
    assert [tokenizer.decode(each) for each in ids] == TEXTS


@pytest.mark.slow
def test_the_real_tokenizer_has_the_published_ids(smollm2: Path) -> None:
    tokenizer = load_tokenizer(smollm2)

    assert tokenizer.apply_chat_template(QUESTION, return_dict=False)[:21] == [
        *(1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511),
        *(308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198),
    ]
    assert len(tokenizer.encode("20249")) == 5
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]


@pytest.mark.slow
def test_transformers_and_mlx_lm_load_the_real_model_without_a_word(
    smollm2: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlx_lm
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(smollm2)
    mlx_lm.load(str(smollm2))

    assert capfd.readouterr() == ("", "")
    assert check_model(smollm2).layers == json.loads((smollm2 / "config.json").read_text())["num_hidden_layers"] == 30
