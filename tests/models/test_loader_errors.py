"""What the loaders of mlx-lm and transformers raise is a sentence; code in a model's folder is not run."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlxops.errors import BadRequest
from mlxops.models.folders import check_model, find_model
from mlxops.models.loading import load_for_generation, load_model, try_out
from mlxops.models.tokenizer import load_tokenizer

OWN_TOKENIZER = """
open({ran!r}, "w").close()
from transformers import PreTrainedTokenizerFast
class OwnTokenizer(PreTrainedTokenizerFast): pass
"""
OWN_MODEL = """
open({ran!r}, "w").close()
from mlx_lm.models.llama import Model, ModelArgs
"""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model to change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A file that is there once code of the model's folder has run."""
    return tmp_path / "code-was-run"


def change(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **changes}))


def own_tokenizer(model: Path, ran: Path) -> None:
    """Give a model a tokenizer that is code in its folder."""
    change(
        model / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]},
    )
    (model / "tokenization_own.py").write_text(OWN_TOKENIZER.format(ran=str(ran)))


def own_model(model: Path, ran: Path) -> None:
    """Give a model an architecture that is code in its folder."""
    change(model / "config.json", model_file="own.py", model_type="own")
    (model / "own.py").write_text(OWN_MODEL.format(ran=str(ran)))


# what loaders raise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "olmo"}, "cannot load 'tiny' (architecture 'olmo'): To run olmo install ai2-olmo"),
        ({"hidden_size": 128}, "architecture 'llama'): Expected shape (384, 128)"),
        ({"rope_scaling": "linear"}, "architecture 'llama')"),
        ({"num_attention_heads": "4"}, "architecture 'llama')"),
        ({"num_attention_heads": None}, "architecture 'llama')"),
        ({"quantization": {"bits": 4}}, "architecture 'llama'): KeyError: 'group_size'"),
        ({"rope_theta": [1]}, "the model 'tiny' cannot compute: rope()"),
        ({"quantization_config": {"quant_method": "modelopt", "bits": 3}}, "KeyError: 'quant_algo'"),
    ],
)
def test_what_mlx_lm_raises_is_a_sentence_with_the_models_name(model: Path, changes: Any, words: str) -> None:
    change(model / "config.json", **changes)

    with pytest.raises(BadRequest) as caught:
        try_out(load_model(model, lazy=True)[0], "tiny")

    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("changes", [{"rms_norm_eps": "1e-5"}, {"rope_theta": "10000.0"}])
def test_a_number_written_as_a_text_is_found_before_anything_is_computed(model: Path, changes: Any) -> None:
    change(model / "config.json", **changes)

    with pytest.raises(BadRequest, match="'tiny'"):
        try_out(load_model(model, lazy=True)[0], "tiny")


@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "vocab_size"])
def test_a_count_written_as_a_text_is_said_with_its_name(model: Path, name: str) -> None:
    change(model / "config.json", **{name: "4"})

    with pytest.raises(BadRequest, match=rf"config\.json: {name} takes a whole number, not '4'"):
        check_model(model)


@pytest.mark.parametrize("value", ["2", ["2"], {"id": 2}, True, 2.5])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_an_end_token_that_is_no_id_is_said_with_its_file(model: Path, file: str, value: Any) -> None:
    change(model / file, eos_token_id=value)

    with pytest.raises(BadRequest, match=rf"{file}: eos_token_id takes token ids"):
        check_model(model)


@pytest.mark.parametrize("name", ["text_config", "quantization", "quantization_config"])
def test_a_text_in_place_of_a_table_is_said(model: Path, name: str) -> None:
    change(model / "config.json", **{name: "int4"})

    with pytest.raises(BadRequest, match=rf"config\.json: {name} is a table, not 'int4'"):
        check_model(model)


def test_a_group_size_written_as_a_text_takes_no_memory(model: Path) -> None:
    change(model / "config.json", quantization={"bits": 4, "group_size": "64"})

    assert check_model(model).parameters > 0


@pytest.mark.parametrize("text", ['{"eos_token_id": ', "[]", "\0"])
def test_a_broken_generation_config_is_said(model: Path, text: str) -> None:
    (model / "generation_config.json").write_text(text)

    with pytest.raises(BadRequest, match=r"generation_config\.json"):
        check_model(model)


def test_a_configuration_that_transformers_refuses_is_a_sentence(model: Path) -> None:
    change(model / "config.json", model_type="mamba2", time_step_limit=[0.01, 10])

    with pytest.raises(BadRequest, match=r"the tokenizer in .*tiny.* cannot be loaded: .*time_step_limit") as caught:
        load_tokenizer(model)

    assert caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"added_tokens_decoder": {"abc": {"content": "x"}}},
        {"added_tokens_decoder": [1]},
        {"eos_token": 5},
        {"auto_map": 3},
        {"tokenizer_class": ["LlamaTokenizer"]},
        {"model_max_length": "many", "extra_special_tokens": 7},
    ],
)
def test_a_tokenizer_config_with_wrong_types_never_ends_in_a_traceback(model: Path, changes: Any) -> None:
    change(model / "tokenizer_config.json", **changes)

    with contextlib.suppress(BadRequest):
        load_tokenizer(model)


@pytest.mark.parametrize("typed", ["a--b/c", "x..y", "a/b.git", "." * 97])
def test_a_name_that_the_hub_forbids_is_a_wrong_request(tmp_path: Path, typed: str) -> None:
    with pytest.raises(BadRequest, match="no model"):
        find_model(
            typed, resolve=lambda text: tmp_path / "no" / text, models_folder=tmp_path, hub_cache=tmp_path / "hub"
        )


# code in a model's folder ---------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A stdin on which somebody would agree to everything."""
    answers = io.StringIO("y\n" * 20)
    monkeypatch.setattr(sys, "stdin", answers)
    return answers


@pytest.mark.parametrize("load", [load_tokenizer, load_for_generation])
def test_a_tokenizer_that_is_code_is_neither_run_nor_offered_to_be_run(
    model: Path, ran: Path, nobody_is_asked: io.StringIO, load: Callable[[Path], Any]
) -> None:
    own_tokenizer(model, ran)

    with contextlib.suppress(BadRequest):
        load(model)

    assert not ran.exists()
    assert nobody_is_asked.tell() == 0


def test_a_tokenizer_that_only_its_own_code_can_load_is_refused(
    model: Path, ran: Path, nobody_is_asked: io.StringIO
) -> None:
    own_tokenizer(model, ran)
    change(model / "config.json", model_type="unheard_of")

    with pytest.raises(BadRequest, match="the model 'tiny' needs its own code") as caught:
        load_tokenizer(model)

    assert "`--trust-remote-code` runs it" in (caught.value.hint or "")
    assert (ran.exists(), nobody_is_asked.tell()) == (False, 0)


def test_an_architecture_that_is_code_is_refused(model: Path, ran: Path) -> None:
    own_model(model, ran)

    with pytest.raises(BadRequest, match=r"the model 'tiny' needs its own code 'own\.py', which is not run"):
        load_model(model)

    assert not ran.exists()


def test_code_for_transformers_beside_an_architecture_of_mlx_lm_is_not_run(
    model: Path, ran: Path, nobody_is_asked: io.StringIO
) -> None:
    change(
        model / "config.json",
        auto_map={"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.Own"},
    )
    code = f"open({str(ran)!r}, 'w').close()\n"
    for name in ("configuration_own", "modeling_own", "tokenization_llama", "llama", "mlx", "transformers", "json"):
        (model / f"{name}.py").write_text(code)

    load_model(model, lazy=True)
    load_tokenizer(model)

    assert (ran.exists(), nobody_is_asked.tell()) == (False, 0)


def test_trusted_code_is_run(model: Path, ran: Path) -> None:
    own_model(model, ran)

    loaded, _ = load_model(model, lazy=True, trust_remote_code=True)

    assert ran.exists()
    assert try_out(loaded, "tiny") == 384


def test_a_trusted_tokenizer_is_run(model: Path, ran: Path) -> None:
    own_tokenizer(model, ran)

    tokenizer = load_tokenizer(model, trust_remote_code=True)

    assert ran.exists()
    assert type(tokenizer).__name__ == "OwnTokenizer"


@pytest.mark.parametrize("name", ["../own.py", "/tmp/own.py", "sub/own.py", "missing.py", 7])
def test_trust_reaches_no_file_outside_the_models_folder(model: Path, ran: Path, name: Any) -> None:
    own_model(model, ran)
    (model.parent / "own.py").write_text((model / "own.py").read_text())
    change(model / "config.json", model_file=name)

    with pytest.raises(BadRequest, match="model_file is no file of the model's folder"):
        load_model(model, trust_remote_code=True)

    assert not ran.exists()


def test_what_trusted_code_raises_is_a_sentence(model: Path) -> None:
    change(model / "config.json", model_file="own.py")
    (model / "own.py").write_text("import sys\nprint('a licence is needed')\nsys.exit(3)\n")

    with pytest.raises(BadRequest, match=r"'tiny'.*: a licence is needed"):
        load_model(model, trust_remote_code=True)
