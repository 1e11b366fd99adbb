"""A model's tokenizer gives the ids that mlx-lm's gives, without MLX and without a word."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import run_python

from mlxops.errors import BadRequest
from mlxops.models.tiny import make_tiny
from mlxops.models.tokenizer import eos_ids, load_tokenizer, template_arguments

MESSAGES = [
    {"role": "user", "content": "What is 2024 + 17?"},
    {"role": "assistant", "content": "It's “2041” – café, 東京 🙂\n"},
]


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_the_tokenizer_gives_the_ids_of_mlx_lm(tmp_path: Path, model_type: str) -> None:
    from mlx_lm.tokenizer_utils import load

    folder = make_tiny(tmp_path / "tiny", model_type=model_type)
    ours, theirs = load_tokenizer(folder), load(folder)

    text = MESSAGES[1]["content"]
    assert ours.encode(text) == theirs.encode(text)
    assert ours.apply_chat_template(
        MESSAGES, return_dict=False, **template_arguments(ours)
    ) == theirs.apply_chat_template(MESSAGES)
    assert eos_ids(folder, ours) == tuple(sorted(theirs.eos_token_ids)) == (2,)


def test_a_model_that_thinks_is_told_to_as_by_mlx_lm(model: Path) -> None:
    from mlx_lm.tokenizer_utils import load

    vocabulary = json.loads((model / "tokenizer.json").read_text())
    for number, token in enumerate(("<think>", "</think>"), start=384):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        vocabulary["added_tokens"].append({"id": number, "content": token, **flags})
    (model / "tokenizer.json").write_text(json.dumps(vocabulary))
    (model / "chat_template.jinja").write_text("{{ enable_thinking }}{{ messages[0]['content'] }}")
    ours, theirs = load_tokenizer(model), load(model)

    ids = ours.apply_chat_template(MESSAGES, return_dict=False, **template_arguments(ours))

    assert ids == theirs.apply_chat_template(MESSAGES) == ours.encode("TrueWhat is 2024 + 17?")


def test_all_ends_of_a_turn_are_known(model: Path) -> None:
    tokenizer = load_tokenizer(model)

    (model / "generation_config.json").write_text('{"eos_token_id": [0, 5]}')

    assert eos_ids(model, tokenizer) == (0, 5)


def test_files_that_are_no_tokenizer_are_refused(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"model": 3}')

    with pytest.raises(BadRequest, match="cannot be loaded") as caught:
        load_tokenizer(model)

    assert caught.value.hint


@pytest.mark.slow
def test_loading_a_tokenizer_is_quiet_and_needs_no_mlx(tiny_model: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom mlxops.models.tokenizer import load_tokenizer\n"
        f"load_tokenizer(Path({str(tiny_model)!r})).encode('a b ' * 3000)\nprint('mlx' in sys.modules)"
    )

    assert run_python("-W", "error", "-c", program) == (0, "False\n", "")


def test_a_path_with_bytes_that_are_no_utf_8_is_named_before_a_tokenizer_fails_on_it(model: Path) -> None:
    with pytest.raises(BadRequest, match=r"the path of the model has bytes that are no UTF-8: .*caf\\xe9"):
        load_tokenizer(model.rename(model.with_name("caf\udce9")))
