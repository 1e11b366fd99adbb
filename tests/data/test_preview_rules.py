"""The preview names the rule by which each trained part was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended
from tokenizers_for_tests import CHATML, PLAIN, THINKING, THINKING_MARKED

Typed = Callable[..., Ended]
STOP = "ends with the first token at which generation stops (rule 2)"
ADDED = "ends with a token that is added, because the template writes none (rule 3)"
PROMPT = "starts where the generation prompt ends (rule 1)"
PARTED = "starts where renderings with other words part (rule 1)"
HEADER = "starts behind the template's own role header (rule 4)"
REWRITTEN = "starts where the generation prompt ends, which writes the turns before differently (rule 5)"
SEVERAL = "the conversation becomes 2 rows: earlier turns are written differently once later ones follow (rule 5)"
MARKED = "starts and ends at the template's generation marks (rule 8)"
OWN = "ends with the template's own token, at which generation does not stop (rule 2)"
NOTHING = "ends with its words: no token ends it (rule 3)"
APART = "prompt and answer are tokenized apart, because a token would join them (rule 7)"

OPENED = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>' }}{% endif")
AFTER_USERS = CHATML.replace("if add_generation_prompt", "if add_generation_prompt and messages[-1].role == 'user'")
OTHER_END = CHATML.replace("'<|im_end|>' + '\n'", "'<|im_start|>' + '\n'")
NO_END = "{% for message in messages %}{{ message['role'] + ':' + message['content'] }}{% endfor %}"
ON_LAST = (
    "{% for message in messages %}{{ message['role'] + (' now' if loop.last else '') + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)


def rules(mlxops: Typed, template: str, *words: str, roles: str = "ua" * 3) -> list[list[str]]:
    """The rules of each row that a conversation becomes, without the number of the turn."""
    Path("model/chat_template.jinja").write_text(template)
    names = {"u": "user", "a": "assistant"}
    turns = [{"role": names[role], "content": text} for role, text in zip(roles, words, strict=False)]
    Path("rows.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    code, out, err = mlxops("data.preview rows.jsonl --model model --row 1 --json")
    assert code == 0, err
    return [row["rules"] for row in json.loads(out)["rows"]]


@pytest.fixture
def model(tiny_model: Path) -> None:
    Path("model").mkdir()
    for file in tiny_model.iterdir():
        Path("model", file.name).symlink_to(file)
    Path("model/chat_template.jinja").unlink()


def test_the_rule_of_every_start_and_end_is_named(mlxops: Typed, model: None) -> None:
    two = ("A question", "An answer", "And more?", "More words")

    found = {
        "words follow the prompt": rules(mlxops, CHATML, *two),
        "the prompt opens a thought": rules(mlxops, OPENED, "Ask", "Words"),
        "a prompt without a header": rules(mlxops, AFTER_USERS, "Ask", "Words", "More", roles="uaa"),
        "thoughts in the last turn": rules(mlxops, THINKING, *two),
        "the turn before is written otherwise": rules(mlxops, ON_LAST, "Ask", "Words"),
        "marks": rules(mlxops, THINKING_MARKED, "Ask", "Words"),
        "a token over the border": rules(mlxops, PLAIN, "Ask", "the words"),
        "another token ends turns": rules(mlxops, OTHER_END, "Ask", "Words"),
        "nothing ends turns": rules(mlxops, NO_END, *two),
    }

    assert found == {
        "words follow the prompt": [[f"turn 2 {PROMPT}, and {STOP}", f"turn 4 {PROMPT}, and {STOP}"]],
        "the prompt opens a thought": [[f"turn 2 {PARTED}, and {STOP}"]],
        "a prompt without a header": [[f"turn 2 {PROMPT}, and {STOP}", f"turn 3 {HEADER}, and {STOP}"]],
        "thoughts in the last turn": [[f"turn {turn} {PROMPT}, and {STOP}", SEVERAL] for turn in (2, 4)],
        "the turn before is written otherwise": [[f"turn 2 {REWRITTEN}, and {STOP}"]],
        "marks": [[f"turn 2 {MARKED}, and {STOP}"]],
        "a token over the border": [[f"turn 2 {PROMPT}, and {ADDED}", APART]],
        "another token ends turns": [[f"turn 2 {PROMPT}, and {OWN}"]],
        "nothing ends turns": [[f"turn 2 {PROMPT}, and {NOTHING}", f"turn 4 {PROMPT}, and {ADDED}"]],
    }


def test_without_masking_the_preview_says_that_all_is_trained(mlxops: Typed, model: None) -> None:
    Path("model/chat_template.jinja").write_text(CHATML)
    Path("rows.jsonl").write_text('{"prompt": "Ask", "completion": "Words"}\n{"text": "Words"}\n')

    code, out, _ = mlxops("data.preview rows.jsonl --model model --no-mask-prompt --json")

    shown = {row["origin"]: row["rules"] for row in json.loads(out)["rows"]}
    assert code == 0
    assert shown == {
        "rows.jsonl:1": ["the whole conversation is trained (--no-mask-prompt)"],
        "rows.jsonl:2": ["the whole text is trained"],
    }
