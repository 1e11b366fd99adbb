"""Model, tokenizer and rows are compared before a run exists: MLX reads beyond an array without an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Ended

from mlxops.errors import BadRequest
from mlxops.jobs.train import fit
from mlxops.models.folders import ModelInfo, check_model
from mlxops.models.tokenizer import load_tokenizer
from mlxops.rows import TokenRow

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
Typed = Callable[..., Ended]


def row(*tokens: int, spans: tuple[tuple[int, int], ...] | None = None) -> TokenRow:
    """A row of these tokens, trained from the second on unless spans are given."""
    return TokenRow(tokens=np.array(tokens, np.int32), spans=spans or ((1, len(tokens)),), origin="train.jsonl:3")


@pytest.fixture
def info(tiny_model: Path) -> ModelInfo:
    """What the tiny model is: an embedding of 384 rows."""
    return check_model(tiny_model)


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    """The tiny model's tokenizer, whose end token is 2."""
    return load_tokenizer(tiny_model)


@pytest.fixture
def project(tiny_model: Path) -> Path:
    """The current folder with a model and data in it."""
    shutil.copytree(tiny_model, "models/tiny")
    Path("data").mkdir()
    words = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]}
    rows = [{**words, "messages": [{"role": "user", "content": f"{n}?"}, words["messages"][1]]} for n in range(12)]
    Path("data/train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return Path.cwd()


def change(file: str, **changes: Any) -> None:
    """Set keys of a JSON file of the model."""
    path = Path("models/tiny", file)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def add_token(text: str) -> None:
    """Give the tokenizer a token more than the embedding has rows, and have the template end turns with it."""
    vocabulary = json.loads(Path("models/tiny/tokenizer.json").read_text())
    vocabulary["added_tokens"].append({"id": 384, "content": text, **FLAGS})
    change("tokenizer.json", **vocabulary)
    change("tokenizer_config.json", eos_token=text)
    template = Path("models/tiny/chat_template.jinja")
    template.write_text(template.read_text().replace("<|im_end|>", text))


def rows_in(registry: Path) -> int:
    """The runs in a registry, which need not be there."""
    import sqlite3

    if not registry.exists():
        return 0
    connection = sqlite3.connect(registry)
    (count,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    connection.close()
    return int(count)


# rows and the model ---------------------------------------------------------------------------------------------------


def test_the_last_row_of_the_embedding_can_be_used(info: ModelInfo, tokenizer: Any) -> None:
    fit.check_rows([row(1, 383)], tokenizer, info, "tiny")
    fit.check_scores([row(1, 383)], 384, "tiny")


@pytest.mark.parametrize("token", [384, 100_000])
def test_a_token_beyond_the_embedding_is_refused_with_its_row(info: ModelInfo, tokenizer: Any, token: int) -> None:
    with pytest.raises(BadRequest, match=rf"train\.jsonl:3 .* id {token:,}, and the embedding of tiny has 384 rows"):
        fit.check_rows([row(1, 2), row(1, token, 2)], tokenizer, info, "tiny")


def test_a_token_without_a_score_is_refused_with_its_row() -> None:
    with pytest.raises(BadRequest, match=r"train\.jsonl:3 .* id 383, and tiny gives scores to 383 tokens"):
        fit.check_scores([row(1, 383)], 383, "tiny")


def test_a_row_longer_than_the_learned_positions_is_refused(info: ModelInfo, tokenizer: Any) -> None:
    limited = replace(info, learned_positions=40)
    fit.check_rows([row(*[5] * 33)], tokenizer, limited, "tiny")

    with pytest.raises(BadRequest, match="34 tokens, and tiny has learned 40 positions") as refused:
        fit.check_rows([row(*[5] * 34)], tokenizer, limited, "tiny")

    assert refused.value.hint == "`--max-seq-length 33` cuts longer rows"


# ends of turns --------------------------------------------------------------------------------------------------------


def notes(
    info: ModelInfo, tokenizer: Any, *rows: TokenRow, ends: tuple[int, ...] = (2,), limit: int = 100
) -> list[str]:
    """The notes on the ends of these rows."""
    return fit.notes_on_ends(rows, ends, tokenizer, info, max_seq_length=limit)


def test_turns_that_end_where_generation_stops_need_no_note(info: ModelInfo, tokenizer: Any) -> None:
    assert notes(info, tokenizer, row(1, 7, 8, 2), row(1, 7, 2, 9, 9, 2, spans=((1, 3), (4, 6)))) == []


def test_an_end_of_turn_at_which_generation_does_not_stop_is_told(info: ModelInfo, tokenizer: Any) -> None:
    told = notes(info, tokenizer, row(5, 7, 8, 1), row(5, 7, 1, 9, 9, 2, spans=((1, 3), (4, 6))))

    assert told == [
        "2 turns end with '<|im_start|>', at which generation does not stop: it stops at '<|im_end|>' "
        "(eos_token_id in the model's generation_config.json)"
    ]


def test_a_row_that_was_cut_has_no_end(info: ModelInfo, tokenizer: Any) -> None:
    assert notes(info, tokenizer, row(5, 7, 8, 1), limit=4) == []


def test_an_end_token_beyond_the_embedding_is_told(info: ModelInfo, tokenizer: Any) -> None:
    assert notes(info, tokenizer, row(1, 7, 2), ends=(2, 4000)) == [
        "generation never stops at the token id 4,000: the embedding has 384 rows"
    ]


# the command ----------------------------------------------------------------------------------------------------------


def _token_beyond() -> str:
    add_token("<|endofturn|>")
    return "'<|endofturn|>' with the id 384, and the embedding of tiny has 384 rows"


def _exits() -> str:
    change("config.json", model_type="olmo")
    return "mlx-lm cannot load 'tiny' (architecture 'olmo'): To run olmo install ai2-olmo"


def _refused_by_transformers() -> str:
    change("config.json", model_type="mamba2", time_step_limit=[0.01, 10])
    return "time_step_limit"


def _other_shapes() -> str:
    change("config.json", hidden_size=128)
    return "mlx-lm cannot load 'tiny'"


def _number_as_a_text() -> str:
    change("config.json", rms_norm_eps="1e-5")
    return "rms_norm_eps"


def _own_code() -> str:
    change("config.json", model_file="own.py")
    return "the model 'tiny' needs its own code 'own.py', which is not run"


def _dangling() -> str:
    Path("models/tiny/model.safetensors").unlink()
    Path("models/tiny/model.safetensors").symlink_to("../../blobs/gone")
    return "model.safetensors is a link that leads nowhere"


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [_token_beyond, _exits, _refused_by_transformers, _other_shapes, _number_as_a_text, _own_code, _dangling],
)
@pytest.mark.parametrize("flag", ["", "--preview"])
def test_a_model_that_cannot_train_is_refused_before_a_row_or_folder_exists(
    project: Path, mlxops: Typed, damage: Callable[[], str], flag: str
) -> None:
    words = damage()

    code, out, err = mlxops(f"lora --model tiny --num-layers 2 --iters 2 --name a {flag}")

    assert (code, out) == (2, "")
    assert words in err
    assert "\nhint: " in err
    assert (rows_in(project / "runs.db"), (project / "adapters").exists()) == (0, False)


@pytest.mark.parametrize("damage", [_own_code, _dangling])
def test_the_list_of_models_names_the_problem(project: Path, mlxops: Typed, damage: Callable[[], str]) -> None:
    words = damage()

    code, out, _ = mlxops("models --json")

    (model,) = json.loads(out)
    assert (code, model["name"], words in model["problem"]) == (0, "tiny", True)


def test_a_token_that_no_row_uses_does_not_matter(project: Path, mlxops: Typed) -> None:
    vocabulary = json.loads(Path("models/tiny/tokenizer.json").read_text())
    vocabulary["added_tokens"].append({"id": 384, "content": "<|unused|>", **FLAGS})
    change("tokenizer.json", **vocabulary)

    code, _, err = mlxops("lora --model tiny --num-layers 2 --iters 2 --preview")

    assert code == 0, err


@pytest.mark.slow
def test_an_end_of_turn_that_is_no_end_for_generation_is_told_before_the_run(project: Path, mlxops: Typed) -> None:
    Path("models/tiny/generation_config.json").write_text('{"eos_token_id": [0]}')

    code, out, err = mlxops("lora --model tiny --num-layers 2 --iters 2 --preview")

    assert code == 0, err
    assert "at which generation does not stop" in " ".join((out + err).split())


def test_a_question_with_a_token_beyond_the_embedding_is_refused(project: Path, mlxops: Typed) -> None:
    words = _token_beyond()

    code, out, err = mlxops("query --model tiny -p Hello")

    assert (code, out) == (2, "")
    assert words.replace("of tiny ", "").replace("the embedding", "the model's embedding") in err


@pytest.mark.parametrize("command", ["lora --model", "query -p Hello --model"])
def test_a_model_with_a_name_that_no_file_can_have_is_a_wrong_request(
    project: Path, mlxops: Typed, command: str
) -> None:
    code, _, err = mlxops(f"{command} {'long' * 100}")

    assert code == 2
    assert "File name too long" in err


@pytest.mark.slow
def test_learned_positions_limit_the_rows(project: Path, mlxops: Typed) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.gpt2 import Model, ModelArgs

    config = {
        "model_type": "gpt2", "n_ctx": 64, "n_positions": 64, "n_embd": 32, "n_head": 2, "n_layer": 2,
        "layer_norm_epsilon": 1e-5, "vocab_size": 384,
    }  # fmt: skip
    Path("models/tiny/config.json").write_text(json.dumps(config))
    weights = dict(tree_flatten(Model(ModelArgs.from_dict(config)).parameters()))
    mx.save_safetensors("models/tiny/model.safetensors", weights, metadata={"format": "mlx"})
    with Path("data/train.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "many " * 80, "completion": "words"}) + "\n")

    code, _, err = mlxops("lora --model tiny --num-layers 2 --iters 2 --preview")
    again, _, said = mlxops("lora --model tiny --num-layers 2 --iters 2 --preview --max-seq-length 65")

    assert code == 2
    assert "tiny has learned 64 positions\nhint: `--max-seq-length 65` cuts longer rows" in err
    assert again == 0, said


@pytest.mark.slow
def test_trusted_code_is_recorded_and_needed_to_resume_the_run_and_to_ask_it(project: Path, mlxops: Typed) -> None:
    change("config.json", model_file="own.py", model_type="own")
    Path("models/tiny/own.py").write_text("from mlx_lm.models.llama import Model, ModelArgs\n")
    command = "lora --model tiny --num-layers 2 --name a"

    code, _, err = mlxops(f"{command} --iters 2 --trust-remote-code")
    untrusted, _, refusal = mlxops(f"{command} --iters 4")
    again, _, said = mlxops(f"{command} --iters 4 --trust-remote-code")
    _, stored, _ = mlxops(
        """sql "select config ->> 'trust_remote_code' as trusted, iteration from runs" --format json"""
    )

    assert code == 0, err
    assert "code of the model's folder may be run (`--trust-remote-code`): own.py" in err
    assert (untrusted, "`--trust-remote-code` runs it" in refusal) == (2, True)
    assert again == 0, said
    assert json.loads(stored) == [{"trusted": 1, "iteration": 4}]
    question = "query --run a -p Hello --max-tokens 2"
    assert [mlxops(f"{question} {flag}")[0] for flag in ("", "--trust-remote-code")] == [2, 0]
