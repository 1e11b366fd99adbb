"""A model, its tokenizer and the rows are checked against each other before a run exists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended

Typed = Callable[..., Ended]
ROW = {"messages": [{"role": "user", "content": "Ask."}, {"role": "assistant", "content": "Answer."}]}


@pytest.fixture
def project(tiny_model: Path) -> Path:
    """A project in the current folder with a model of its own and twelve rows."""
    shutil.copytree(tiny_model, "model")
    Path("data").mkdir()
    rows = [{"messages": [*ROW["messages"][:1], {"role": "assistant", "content": f"Answer {n}."}]} for n in range(12)]
    Path("data/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path.cwd()


def edit(name: str, change: Callable[[dict], object]) -> None:
    file = Path("model") / name
    values = json.loads(file.read_text()) if file.exists() else {}
    change(values)
    file.write_text(json.dumps(values))


def test_a_token_beyond_the_embedding_is_refused_before_there_is_a_run(mlxops: Typed, project: Path) -> None:
    size = json.loads(Path("model/config.json").read_text())["vocab_size"]
    token = {"content": "<|beyond|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    edit("tokenizer.json", lambda j: j["added_tokens"].append({"id": size, "special": True, **token}))
    with Path("data/train.jsonl").open("a") as file:
        file.write(json.dumps({"text": "one <|beyond|> two"}) + "\n")

    code, _, err = mlxops("lora --model model --num-layers 2 --iters 2 --name run")

    assert code == 2
    assert f"has the token '<|beyond|>' with the id {size:,}, and the embedding of model has {size:,} rows" in err
    assert not Path("runs.db").exists()
    assert not Path("adapters").exists()


def test_a_preview_refuses_it_too(mlxops: Typed, project: Path) -> None:
    edit("config.json", lambda j: j.update(vocab_size=8))

    assert mlxops("lora --model model --num-layers 2 --iters 2 --preview")[0] == 2


def test_an_end_of_turn_at_which_generation_does_not_stop_is_a_note(mlxops: Typed, project: Path) -> None:
    edit("generation_config.json", lambda j: j.update(eos_token_id=[0]))

    code, out, err = mlxops("lora --model model --num-layers 2 --iters 2 --preview")

    assert code == 0, err
    assert "at which generation does not stop" in " ".join((out + err).split())


def test_trusting_the_code_of_a_model_is_recorded(mlxops: Typed, project: Path) -> None:
    Path("model/own.py").write_text("raise SystemExit('not asked for by any configuration')\n")

    code, _, err = mlxops("lora --model model --num-layers 2 --iters 1 --name run --val-batches 0 --trust-remote-code")

    assert code == 0, err
    assert "code of the model's folder may be run (`--trust-remote-code`): own.py" in err
    (row,) = json.loads(mlxops("sql 'select config from runs' --json")[1])
    assert json.loads(row["config"])["trust_remote_code"] is True
