"""The check finds what spoils a training, each at its line, and invents nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Ended
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mlxops import data
from mlxops.config import CheckDataConfig, LoraConfig
from mlxops.data import samples
from mlxops.errors import MlxopsError
from mlxops.jobs.data import check as job
from mlxops.jobs.train.prepare import prepare
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

Typed = Callable[..., Ended]


def turns(*roles_and_words: str) -> dict[str, Any]:
    pairs = zip(roles_and_words[::2], roles_and_words[1::2], strict=True)
    return {"messages": [{"role": role, "content": words} for role, words in pairs]}


LONG = "The quick brown fox jumps over the lazy dog and runs through the green field until the evening comes "
# What stands in place of a good line, and the kind under which it has to be found.
FAULTS: list[tuple[Any, str]] = [
    ("{", "unusable rows"),
    ('{"prompt": "a", "completion": "b"', "unusable rows"),
    ("[1, 2]", "unusable rows"),
    ("null", "unusable rows"),
    ("not JSON", "unusable rows"),
    (b'{"text": "caf\xe9"}', "unusable rows"),
    ('{"text": "\\ud83d"}', "unusable rows"),
    ({"question": "a", "answer": "b"}, "unusable rows"),
    ({"prompt": "a"}, "unusable rows"),
    ({"prompt": "a", "completion": ""}, "unusable rows"),
    ({"prompt": "a", "completion": None}, "unusable rows"),
    ({"instruction": "a", "response": "   "}, "unusable rows"),
    ({"text": ""}, "unusable rows"),
    ({"text": 5}, "unusable rows"),
    ({"messages": []}, "unusable rows"),
    ({"messages": "a"}, "unusable rows"),
    (turns("user", "a"), "unusable rows"),
    (turns("user", "a", "robot", "b"), "unusable rows"),
    (turns("user", "a", "assistant", ""), "unusable rows"),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "unusable rows"),
    (turns("user", "one", "user", "two", "assistant", "three"), "order of roles"),
    (turns("assistant", "I speak first", "user", "yes", "assistant", "so"), "order of roles"),
    (turns("user", "hello", "assistant", "well", "user", "and then?"), "order of roles"),
    (turns("user", "hey", "system", "be brief", "assistant", "ok"), "order of roles"),
    ({"prompt": "  ", "completion": "an answer to nothing"}, "empty fields"),
    ({"prompt": "bell", "completion": "ding \x07"}, "control characters"),
    ({"prompt": "lost", "completion": "caf\ufffd"}, "damaged text"),
    ({"prompt": "key?", "completion": "ghp_" + "a1" * 20}, "secrets"),
    ({"prompt": "mail?", "completion": "write to someone@example.org"}, "e-mail addresses"),
    ('{"prompt": "a1", "prompt": "a2", "completion": "b"}', "keys twice"),
    ({"prompt": LONG, "completion": LONG + "once"}, ""),
    ({"prompt": LONG, "completion": LONG + "twice"}, "near duplicates"),
    ({"prompt": "What is long?", "completion": "word " * 800}, "rows over the limit"),
]


def as_line(row: Any) -> bytes:
    text = row if isinstance(row, str | bytes) else json.dumps(row, ensure_ascii=False)
    return (text.encode() if isinstance(text, str) else text) + b"\n"


@pytest.fixture
def model(tiny_model: Path) -> str:
    Path("models").mkdir()
    Path("models/tiny").symlink_to(tiny_model)
    return "tiny"


@pytest.mark.slow
def test_every_planted_fault_is_found_at_its_line_and_none_is_invented(mlxops: Typed, model: str) -> None:
    lines = [as_line(row) for row in samples.rows("instruction", 1000, seed=3)]
    planted = {20 + 29 * place: fault for place, fault in enumerate(FAULTS)}
    for number, (row, _) in planted.items():
        lines[number - 1] = as_line(row)
    lines[990] = lines[4]
    Path("rows.jsonl").write_bytes(b"".join(lines))

    code, out, _ = mlxops("data.check rows.jsonl --model tiny --json --max-seq-length 700")

    found = {(finding["origin"], finding["kind"]) for finding in json.loads(out)["findings"]}
    asked = {(f"rows.jsonl:{number}", kind) for number, (_, kind) in planted.items() if kind}
    assert found == asked | {("rows.jsonl:991", "exact duplicates")}
    assert (code, len(asked)) == (2, 32)


def test_what_create_writes_is_clean_under_strict(mlxops: Typed, model: str) -> None:
    for name in ("instruction", "text", "chat", "both"):
        mlxops(f"create-training-data --format {name} --samples 100 --output {name}")

    ended = [mlxops(f"data.check {name} --model tiny --strict") for name in ("instruction", "text", "chat", "both")]

    assert [code for code, _, _ in ended] == [0] * 4


def test_the_exit_code_tells_warnings_from_errors(mlxops: Typed) -> None:
    Path("warned.jsonl").write_bytes(as_line(FAULTS[24][0]) + as_line({"text": "good"}))
    Path("wrong.jsonl").write_bytes(as_line({"text": "good"}) + b"{\n")

    codes = [
        mlxops(f"data.check {typed}")[0]
        for typed in ("warned.jsonl", "warned.jsonl --strict", "wrong.jsonl", "nowhere")
    ]

    assert codes == [0, 1, 2, 2]


def test_the_repaired_copy_has_the_other_rows_byte_for_byte(mlxops: Typed) -> None:
    good = [
        as_line(row) for row in ({"text": "a\u2028b\n\tc 👩‍🚀"}, {"prompt": "قل", "completion": "def f():\n  pass"})
    ]
    Path("data").mkdir()
    Path("data/train.jsonl").write_bytes(good[0] + b"{\n\n" + good[1] + good[0])
    Path("data/valid.jsonl").write_bytes(good[1] + as_line({"text": "held out"}))

    code, out, _ = mlxops("data.check data --fix repaired --json")
    again = mlxops("data.check repaired --strict")
    taken = mlxops("data.check data --fix repaired")

    assert code == 2
    assert json.loads(out)["removed"] == {"unusable rows": 1, "exact duplicates": 1, "the same row in two files": 1}
    assert Path("repaired/train.jsonl").read_bytes() == b"".join(good)
    assert Path("repaired/valid.jsonl").read_bytes() == as_line({"text": "held out"})
    assert (again[0], taken[0]) == (0, 3)


def test_of_an_array_that_is_cut_off_the_rows_before_are_kept(mlxops: Typed) -> None:
    Path("rows.json").write_text('[{"text": "one"},\n {"text":\n "two"},\n {"text": "thr')

    code, _, err = mlxops("data.check rows.json --fix rows.jsonl")

    assert (code, err) == (2, "")
    assert [json.loads(line)["text"] for line in Path("rows.jsonl").read_text().splitlines()] == ["one", "two"]


def test_secrets_are_never_printed_whole(mlxops: Typed) -> None:
    secret = "hf_" + "Ab1" * 12
    Path("rows.jsonl").write_bytes(as_line({"prompt": secret, "completion": f"{secret} someone.else@example.org"}))

    shown = "".join(mlxops("data.check rows.jsonl")[1:]) + mlxops("data.check rows.jsonl --json")[1]

    assert "a Hugging Face token, perhaps (hf_…, 39 characters)" in shown
    assert secret not in shown
    assert "someone.else" not in shown


def test_a_training_says_in_one_line_that_its_data_has_warnings(mlxops: Typed, model: str) -> None:
    Path("rows.jsonl").write_bytes(b"".join(as_line(row) for row, kind in FAULTS[20:26] if kind))

    code, out, _ = mlxops("lora --model tiny --data rows.jsonl --num-layers 2 --preview --json")

    notes = [note for note in json.loads(out)["notes"] if "data.check" in note]
    assert code == 0
    assert len(notes) == 1
    assert notes[0].startswith("6 warnings in the data, first rows.jsonl:")


WORDS = some.text(max_size=20)
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | WORDS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
TURNS = some.fixed_dictionaries(
    {"role": some.sampled_from(["system", "user", "assistant", "tool", "x"]), "content": WORDS | VALUES}
)
ROWS = some.one_of(
    VALUES,
    some.fixed_dictionaries({"text": WORDS | VALUES}),
    some.fixed_dictionaries({"prompt": WORDS, "completion": WORDS | VALUES}),
    some.fixed_dictionaries({"messages": some.lists(TURNS, max_size=4)}),
    some.fixed_dictionaries({"messages": some.lists(TURNS, max_size=2), "tools": VALUES}),
)
LINES = some.one_of(some.binary(max_size=30), ROWS.map(lambda row: json.dumps(row).encode()))


@pytest.mark.slow
@settings(max_examples=120, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(lines=some.lists(LINES, min_size=1, max_size=4))
def test_no_bytes_are_a_traceback_and_what_is_clean_is_trained(model_folder: Path, lines: list[bytes]) -> None:
    file = Path("rows.jsonl")
    file.write_bytes(b"\n".join(lines))
    project = Project.at(Path.cwd())
    invocation = Invocation(
        project=project, registry_is_given=False, blas=None, cache=None, command="", background=None
    )
    config = CheckDataConfig(path="rows.jsonl", model=str(model_folder))
    try:
        checked = job.check(invocation, config, lambda *_: None)
    except MlxopsError:
        return
    if checked.exit_code == 0:
        records = data.read(file).train
        prepared = prepare(project, LoraConfig(model=str(model_folder), data="rows.jsonl"), lambda *_: None)
        assert len(records) > 0
        assert checked.warnings or all(row.trained > 0 for row in prepared.train.rows)


@pytest.fixture(scope="module")
def model_folder(tiny_model: Path) -> Path:
    return tiny_model
