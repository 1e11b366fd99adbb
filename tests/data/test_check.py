"""The check finds what spoils a training, each at its line, and invents nothing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Ended

from mlxops.data import samples

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
    ({"prompt": "word " * 800, "completion": "Short."}, "nothing to train"),
    (turns("user", "one", "assistant", "two", "tool", "three", "assistant", "four"), "rows the chat template refuses"),
    (turns("developer", "be brief", "user", "one", "assistant", "two"), "rows the chat template refuses"),
    (turns("user", "one", "assistant", "to be continued"), "ends of turns"),
]
# Refuses tools, drops developers, and ends some turns with a token at which generation does not stop.
PARTICULAR = (
    "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{% if message.role != 'developer' %}{{ '<|im_start|>' + message.role + '\n' + message.content }}"
    "{{ '<|im_start|>' if 'continued' in message.content else '<|im_end|>' }}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


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
    for file in Path("models/tiny").iterdir():
        Path("particular").mkdir(exist_ok=True)
        Path("particular", file.name).symlink_to(file.resolve())
    Path("particular/chat_template.jinja").unlink()
    Path("particular/chat_template.jinja").write_text(PARTICULAR)
    rows = [as_line(row) for row in samples.rows("instruction", 1040, seed=3)]
    lines, valid, test = rows[:1000], rows[1000:1020], rows[1020:]
    planted = {20 + 25 * place: fault for place, fault in enumerate(FAULTS)}
    for number, (row, _) in planted.items():
        lines[number - 1] = as_line(row)
    lines[990] = lines[4]
    valid[6], test[11] = lines[7], lines[8]
    Path("data").mkdir()
    for name, part in (("train", lines), ("valid", valid), ("test", test)):
        Path(f"data/{name}.jsonl").write_bytes(b"".join(part))

    code, out, _ = mlxops("data.check data --model particular --json --max-seq-length 700")

    findings = json.loads(out)["findings"]
    asked = {(f"data/train.jsonl:{number}", kind) for number, (_, kind) in planted.items() if kind}
    assert {(finding["origin"], finding["kind"]) for finding in findings} == asked | {
        ("data/train.jsonl:991", "exact duplicates"),
        ("data/valid.jsonl:7", "the same row in two files"),
        ("data/test.jsonl:12", "the same row in two files"),
    }
    assert len(findings) == len(asked) + 3 == 39
    assert code == 2
    (cut,) = [finding["message"] for finding in findings if finding["kind"] == "rows over the limit"]
    assert cut.endswith("would be cut: an answer is cut off")


def test_a_file_of_text_and_conversations_is_noted_and_is_no_warning(mlxops: Typed) -> None:
    Path("rows.jsonl").write_bytes(as_line({"text": "a"}) + as_line({"prompt": "b", "completion": "c"}))

    code, out, _ = mlxops("data.check rows.jsonl --strict --json")

    assert (code, json.loads(out)["notes"]) == (0, ["rows.jsonl mixes formats: 1 row of text, 1 conversation"])


@pytest.mark.slow
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


def test_of_a_gzip_file_that_is_cut_off_the_rows_before_are_kept(mlxops: Typed) -> None:
    rows = [as_line({"text": f"row {number}: {number * 7919 % 1000}"}) for number in range(20_000)]
    Path("rows.jsonl.gz").write_bytes(gzip.compress(b"".join(rows))[:-20_000])

    code, out, err = mlxops("data.check rows.jsonl.gz --fix rows.jsonl --json")

    kept = Path("rows.jsonl").read_bytes()
    assert (code, err) == (2, "")
    assert kept == b"".join(rows[: json.loads(out)["rows"]["rows.jsonl.gz"]])
    assert kept.count(b"\n") > 1000


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
