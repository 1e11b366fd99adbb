"""No bytes are a traceback, in the check, the preview or the reader, and what the check calls clean is trained."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from tokenizers_for_tests import LLAMA_2, THINKING

from mlxops import data
from mlxops.config import CheckDataConfig, LoraConfig, PreviewDataConfig
from mlxops.errors import MlxopsError
from mlxops.jobs.data import check, preview
from mlxops.jobs.data.check import CheckedData
from mlxops.jobs.train.prepare import prepare
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.ui.data import check as drawn_check
from mlxops.ui.data import preview as drawn_preview
from mlxops.ui.terminal import console

PIECES = some.sampled_from(
    [
        "<|im_end|>",
        "<|im_start|>user\n",
        "</think>",
        "<think>",
        "\u2028",
        "\x00",
        "\ud83d",
        "👩‍🚀",
        "قل",
        "\r\n",
        " ",
        "a@b.org",
    ]
)
WORDS = some.one_of(some.text(max_size=20), some.lists(PIECES | some.text(max_size=5), max_size=4).map("".join))
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | WORDS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
CALLS = some.lists(
    some.fixed_dictionaries({"function": some.fixed_dictionaries({"name": WORDS, "arguments": WORDS | VALUES})}),
    max_size=2,
)
ROLES = some.sampled_from(["system", "user", "assistant", "tool", "developer", "x"])
TURNS = some.one_of(
    some.fixed_dictionaries({"role": ROLES, "content": WORDS}),
    some.fixed_dictionaries(
        {"role": ROLES, "content": WORDS | VALUES}, optional={"weight": VALUES, "tool_calls": CALLS}
    ),
)
TALK = some.lists(some.tuples(WORDS, WORDS), min_size=1, max_size=2).map(
    lambda pairs: [
        {"role": role, "content": words}
        for pair in pairs
        for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
)
SHAREGPT = some.lists(
    some.fixed_dictionaries({"from": some.sampled_from(["human", "gpt", "x"]), "value": WORDS | VALUES}), max_size=3
)
ROWS = some.one_of(
    VALUES,
    some.fixed_dictionaries({"text": WORDS | VALUES}),
    some.fixed_dictionaries({"prompt": WORDS, "completion": WORDS}),
    some.fixed_dictionaries({"instruction": WORDS, "input": VALUES, "output": WORDS | VALUES}),
    some.fixed_dictionaries({"messages": TALK}),
    some.fixed_dictionaries({"messages": some.lists(TURNS, max_size=4)}, optional={"tools": VALUES, "system": VALUES}),
    some.fixed_dictionaries({"conversations": SHAREGPT}),
)
LINES = some.one_of(some.binary(max_size=30), ROWS.map(lambda row: json.dumps(row).encode()))
FILES = some.one_of(
    some.lists(LINES, max_size=4).map(b"\n".join),
    some.lists(LINES, max_size=4).map(b"\r\n".join).map(gzip.compress),
    some.lists(ROWS, max_size=3).map(lambda rows: json.dumps(rows, indent=1).encode()),
    some.binary(max_size=200),
)


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model of each kind: plain, with roles that must take turns, with thoughts in the last turn only."""
    found = [tiny_model]
    for template in (LLAMA_2, THINKING):
        folder = tmp_path_factory.mktemp("models") / "model"
        folder.mkdir()
        for file in tiny_model.iterdir():
            (folder / file.name).symlink_to(file)
        (folder / "chat_template.jinja").unlink()
        (folder / "chat_template.jinja").write_text(template)
        found.append(folder)
    return found


def shown(draw: Any, result: Any) -> None:
    """Draw it as a person and as a program gets it."""
    for as_json in (False, True):
        draw(result, console.make(file=io.StringIO(), width=80), as_json=as_json)


def checked(invocation: Invocation, model: Path) -> CheckedData | None:
    try:
        result = check.check(invocation, CheckDataConfig(path="rows.jsonl", model=str(model)), lambda *_: None)
        check.check(invocation, CheckDataConfig(path="rows.jsonl"), lambda *_: None)
    except MlxopsError:
        return None
    shown(drawn_check.result, result)
    return result


def previewed(invocation: Invocation, model: Path) -> None:
    try:
        result = preview.preview(invocation, PreviewDataConfig(path="rows.jsonl", model=str(model)), lambda *_: None)
    except MlxopsError:
        return
    shown(drawn_preview.result, result)


@pytest.mark.slow
@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(content=FILES, model=some.integers(0, 2))
@example(content=b'{"text": "a"}', model=0)
@example(content=b'[{"text": "<|im_end|>"}, {"prompt": "", "completion": "kept back"}]', model=0)
@example(content=b'{"prompt": "a", "completion": "b"}\n{"text": "\\u2028"}', model=1)
def test_no_bytes_are_a_traceback_and_what_is_clean_is_trained(models: list[Path], content: bytes, model: int) -> None:
    Path("rows.jsonl").write_bytes(content)
    project = Project.at(Path.cwd())
    invocation = Invocation(project=project, command="")

    found = checked(invocation, models[model])
    previewed(invocation, models[model])
    try:
        prepared = prepare(project, LoraConfig(model=str(models[model]), data="rows.jsonl"), lambda *_: None)
    except MlxopsError:
        assert found is None or found.exit_code == 2, "what the check does not call an error is refused"
        return

    assert found is not None
    assert found.exit_code == 0, "what the check calls an error is trained"
    assert len(data.read(Path("rows.jsonl")).train) > 0
    if not found.counts.get("nothing to train"):
        assert all(row.trained > 0 for row in prepared.train.rows)
        assert not prepared.train.left_out
