"""`--chat-template-config`: what the chat template is told belongs to the run, and chat and query tell it too."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended

Typed = Callable[..., Ended]
TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and style %}({{ style }}) {% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TRAIN = "lora --model model --num-layers 2 --iters 2 --val-batches 0"


@pytest.fixture
def project(tiny_model: Path) -> Path:
    """A project in the current folder whose model's template reads `style`."""
    shutil.copytree(tiny_model, "model")
    Path("model/chat_template.jinja").write_text(TEMPLATE)
    Path("data").mkdir()
    rows = [
        {"messages": [{"role": "user", "content": "Ask."}, {"role": "assistant", "content": f"Answer {n}."}]}
        for n in range(6)
    ]
    Path("data/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path.cwd()


def texts(preview: str) -> set[str]:
    return {example["text"] for example in json.loads(preview)["examples"]}


@pytest.mark.slow
def test_the_template_is_told_it_from_the_command_line_and_from_a_recipe(mlxops: Typed, project: Path) -> None:
    Path("recipe.yaml").write_text("chat_template_config: {style: calm}\n")

    typed = mlxops(f"""{TRAIN} --preview --json --chat-template-config '{{"style": "calm"}}'""")
    recipe = mlxops(f"{TRAIN} --preview --json --config recipe.yaml")

    assert (typed[0], recipe[0]) == (0, 0), typed[2] + recipe[2]
    assert texts(typed[1]) == texts(recipe[1])
    assert {"(calm) Answer" in text for text in texts(typed[1])} == {True}, texts(typed[1])


@pytest.mark.slow
def test_a_run_told_otherwise_is_another_run(mlxops: Typed, project: Path) -> None:
    assert mlxops(f"{TRAIN} --name run")[0] == 0

    code, _, err = mlxops(f"""{TRAIN} --name run --chat-template-config '{{"style": "calm"}}'""")

    assert code == 3
    assert "chat_template_config: was {}, now {'style': 'calm'}" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("calm", "--chat-template-config takes a JSON object, not 'calm'"),
        ('{"tools": []}', "--chat-template-config cannot set 'tools'"),
    ],
)
def test_what_it_cannot_be_told_is_refused(mlxops: Typed, project: Path, given: str, said: str) -> None:
    code, _, err = mlxops(f"{TRAIN} --preview --chat-template-config '{given}'")

    assert (code, err.splitlines()[0]) == (2, said)


@pytest.mark.slow
def test_query_tells_the_template_what_the_run_was_trained_with(
    mlxops: Typed, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlxops.models import conversation

    told: list[object] = []
    ours = conversation.prompt_text
    monkeypatch.setattr(
        conversation,
        "prompt_text",
        lambda *given, **options: (told.append(options["template_config"]), ours(*given, **options))[1],
    )
    assert mlxops(f"""{TRAIN} --name run --chat-template-config '{{"style": "calm"}}'""")[0] == 0

    assert mlxops("query --run run -p Hello --max-tokens 2")[0] == 0

    assert told == [{"style": "calm"}]


@pytest.mark.slow
def test_the_command_that_resumes_a_run_names_it_as_json(mlxops: Typed, project: Path) -> None:
    assert mlxops(f"""{TRAIN} --name run --chat-template-config '{{"style": "sehr schön"}}'""")[0] == 0
    (explained,) = json.loads(mlxops("debug-checkpoints adapters/run --target-iters 4 --json")[1])
    command = explained["command"]
    words = shlex.split(command)

    assert json.loads(words[words.index("--chat-template-config") + 1]) == {"style": "sehr schön"}
    assert mlxops(shlex.join([*words[1:], "--preview"]))[0] == 0


@pytest.mark.parametrize("thoughts", [(), ("<think>", "</think>")])
def test_rows_begin_with_the_prompt_that_chat_writes_whether_the_model_thinks_or_not(
    mlxops: Typed, project: Path, thoughts: tuple[str, ...]
) -> None:
    from mlxops.models.conversation import prompt_text
    from mlxops.models.tokenizer import load_tokenizer

    Path("model/chat_template.jinja").write_text(TEMPLATE.replace("{% for", "{{ enable_thinking }}{% for", 1))
    tokenizer = json.loads(Path("model/tokenizer.json").read_text())
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    # they take the places of ordinary tokens, so that the embedding is large enough
    for name, old in zip(thoughts, sorted(vocabulary, key=vocabulary.__getitem__)[-2:], strict=False):
        merges[:] = [each for each in merges if "".join(each) != old]
        vocabulary[name] = vocabulary.pop(old)
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        tokenizer["added_tokens"].append({"id": vocabulary[name], "content": name, **flags})
    Path("model/tokenizer.json").write_text(json.dumps(tokenizer))

    code, out, err = mlxops(f"{TRAIN} --preview --json")

    assert code == 0, err
    prompt = prompt_text(load_tokenizer(Path("model")), [{"role": "user", "content": "Ask."}])
    assert prompt.startswith(str(bool(thoughts)))
    assert all(text.startswith(prompt) for text in texts(out))
