"""Files and folders become records, and all that is wrong with them is said at once."""

import gzip
import json
import os
from pathlib import Path

import pytest

from mlxops.data import read
from mlxops.data.formats import parse
from mlxops.data.splitting import divide
from mlxops.errors import InvalidData


def row(number: int) -> dict[str, str]:
    return {"prompt": f"question {number}", "completion": f"answer {number}"}


def write(path: Path, *rows: object, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows).encode(encoding))
    return path


def problems(path: Path, root: Path) -> tuple[str, ...]:
    with pytest.raises(InvalidData) as caught:
        read(path, root=root)
    return caught.value.problems


def test_a_folder_gives_its_three_files(tmp_path):
    for number, name in enumerate(("train", "valid", "test")):
        write(tmp_path / f"{name}.jsonl", row(number))

    splits = read(tmp_path, root=tmp_path)

    origins = [records[0].origin for records in (splits.train, splits.valid, splits.test)]
    assert origins == ["train.jsonl:1", "valid.jsonl:1", "test.jsonl:1"]
    assert [file.name for file in splits.files] == ["train.jsonl", "valid.jsonl", "test.jsonl"]
    assert splits.notes == ()


def test_rows_of_different_formats_may_stand_in_one_file(tmp_path):
    file = write(tmp_path / "a.jsonl", row(1), {"text": "a text"}, {"instruction": "a", "output": "b"})

    splits = read(file)

    assert len(splits.train) + len(splits.valid) == 3


def test_blank_lines_byte_order_marks_and_carriage_returns_are_fine(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n\xef\xbb\xbf{"text": "\xc3\xa9\xe2\x80\xa8"}')

    splits = read(file, root=tmp_path)

    found = {record.origin: record.text for record in splits.train + splits.valid}
    assert found == {"a.jsonl:1": "a", "a.jsonl:4": "é\u2028"}


def test_paths_with_blanks_quotes_and_other_letters_work(tmp_path):
    file = write(tmp_path / "mine 'and' yours" / "überräschung.jsonl", row(1))

    assert read(file, root=tmp_path).train[0].origin == "mine 'and' yours/überräschung.jsonl:1"


# ------------------------------------------------------------------ arrays, gzip, and names


def said(path: Path) -> tuple[set[str], set[str]]:
    splits = read(path)
    return {record.content for record in splits.train}, {record.content for record in splits.valid}


def test_an_array_of_rows_is_read_like_lines_of_rows(tmp_path):
    rows = [{"instruction": f"do\n{number}", "input": "", "output": f"dön {number}"} for number in range(40)]
    lines = write(tmp_path / "lines.jsonl", *rows)
    (tmp_path / "alpaca.json").write_text("\ufeff" + json.dumps(rows, indent=4, ensure_ascii=False), encoding="utf-8")

    assert said(tmp_path / "alpaca.json") == said(lines)
    assert read(tmp_path / "alpaca.json", root=tmp_path).train[0].origin == "alpaca.json row 1"


def test_problems_of_an_array_name_the_row_and_in_broken_json_the_line(tmp_path):
    text = '[\n{"text": "a"},\n{"text": 1},\n{"text":\n "b",,},\n{"text": "c"}\n,\n{"text": "caf\u00e9"}]'
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))

    assert problems(tmp_path / "a.json", tmp_path) == (
        "a.json row 2: text is not text but a number",
        "a.json row 3: broken JSON: Expecting property name enclosed in double quotes (line 5)",
        "a.json row 5: not UTF-8 (byte 0xE9 at position 14); Latin-1 or Windows-1252, perhaps",
    )


def test_an_array_that_is_cut_off_is_told_with_the_row(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": "b')

    assert problems(tmp_path / "a.json", tmp_path) == (
        "a.json row 2: broken JSON: the array has no end: the file is cut off, or a quote is missing",
    )


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.gz", "a.JSONL.GZ", "a", "a.data"])
def test_gzip_is_read_under_every_name_that_does_not_say_plain_text(tmp_path, name):
    plain = write(tmp_path / "plain.jsonl", *map(row, range(40)))
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))

    assert said(tmp_path / name) == said(plain)


def test_gzip_that_is_called_jsonl_is_told_with_the_name_that_is_read(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_bytes(gzip.compress(write(file, *map(row, range(4))).read_bytes()))

    with pytest.raises(InvalidData) as caught:
        read(tmp_path, root=tmp_path)
    file.rename(tmp_path / "train.jsonl.gz")

    assert caught.value.problems == ("train.jsonl: the file is compressed with gzip, and its name does not say so",)
    assert "`mv train.jsonl train.jsonl.gz`" in caught.value.hint
    assert read(tmp_path, root=tmp_path).files == (tmp_path / "train.jsonl.gz",)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-30], lambda packed: packed[:60] + b"\0" * 9 + packed[69:]])
def test_gzip_that_is_damaged_is_told(tmp_path, damage):
    plain = write(tmp_path / "plain.jsonl", *({"text": os.urandom(99).hex()} for _ in range(40)))
    (tmp_path / "a.jsonl.gz").write_bytes(damage(gzip.compress(plain.read_bytes())))

    assert any(
        "the gzip file is damaged or cut off" in problem for problem in problems(tmp_path / "a.jsonl.gz", tmp_path)
    )


@pytest.mark.parametrize(
    ("inside", "what"),
    [
        (gzip.compress(b'{"text": "a"}'), "compressed with gzip"),
        (b"prompt,completion\n", "a table (CSV), not JSON"),
        (b'{\n"text": "a"}', "one JSON object over several lines, not one per line"),
        ("{}".encode("utf-16"), "UTF-16, not UTF-8"),
    ],
    ids=["gzip", "table", "object", "encoding"],
)
def test_gzip_without_rows_inside_is_told(tmp_path, inside, what):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(inside))

    assert problems(tmp_path / "a.jsonl.gz", tmp_path) == (f"a.jsonl.gz: what gzip unpacks is {what}",)


@pytest.mark.parametrize("ending", [".ndjson", ".json", ".jsonl.gz", ".json.gz"])
def test_a_folder_may_hold_its_rows_under_any_name_that_is_read(tmp_path, ending):
    for number, use in enumerate(("train", "valid", "test")):
        content = write(tmp_path / "plain", row(number)).read_bytes()
        (tmp_path / f"{use}{ending}").write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)

    splits = read(tmp_path, root=tmp_path)

    assert [file.name for file in splits.files] == [f"train{ending}", f"valid{ending}", f"test{ending}"]
    assert splits.notes == ()


def test_of_two_files_for_one_use_the_lines_are_read_and_that_is_said(tmp_path):
    for number, name in enumerate(("train.json", "train.jsonl", "valid.jsonl")):
        write(tmp_path / name, row(number))

    splits = read(tmp_path, root=tmp_path)

    assert [file.name for file in splits.files] == ["train.jsonl", "valid.jsonl"]
    assert splits.notes == ("train.json is not read: train.jsonl is",)


# ------------------------------------------------------------------ what is told of rows that are used


def test_duplicate_rows_are_told_with_the_first(tmp_path):
    write(tmp_path / "train.jsonl", row(1), row(2), {"instruction": "question 1", "output": "answer 1"}, row(3), row(2))
    write(tmp_path / "valid.jsonl", row(4), row(4))

    assert read(tmp_path, root=tmp_path).notes == (
        "train.jsonl: 2 rows repeat earlier ones of 5, first train.jsonl:3 (as train.jsonl:1)",
        "valid.jsonl: 1 row repeats an earlier one of 2, first valid.jsonl:2 (as valid.jsonl:1)",
    )


def test_a_key_that_stands_twice_is_told_and_the_last_value_counts(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "prompt": "c", "completion": "d"}\n'
        '{"messages": [{"role": "user", "content": "x", "role": "assistant"}]}\n'
    )
    write(tmp_path / "valid.jsonl", row(1))

    splits = read(tmp_path, root=tmp_path)

    assert splits.train[1].messages[0]["content"] == "c"
    assert splits.notes == (
        "train.jsonl: 2 rows have a key twice, first train.jsonl:2 ('prompt'): the last value counts",
    )


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"instruction": "a", "output": None}, "output is null"),
        ({"prompt": "a", "completion": None}, "completion is null"),
        ({"messages": None}, "messages is null"),
        ({"text": None}, "text is null"),
        ({"prompt": None, "completion": None}, "prompt and completion are null"),
    ],
)
def test_a_null_in_place_of_an_answer_is_named(tmp_path, broken, reason):
    write(tmp_path / "a.jsonl", row(1), broken)

    assert problems(tmp_path / "a.jsonl", tmp_path) == (f"a.jsonl:2: {reason}",)


# ------------------------------------------------------------------ the division of training rows


def test_a_row_is_always_on_the_same_side(tmp_path):
    few = read(write(tmp_path / "few.jsonl", *map(row, range(50))))
    many = read(write(tmp_path / "many.jsonl", *map(row, reversed(range(500)))))

    def said(records):
        return {record.content for record in records}

    assert said(few.valid) == said(many.valid) & (said(few.train) | said(few.valid))
    assert 25 <= len(many.valid) <= 75


def test_another_seed_divides_otherwise(tmp_path):
    file = write(tmp_path / "a.jsonl", *map(row, range(100)))

    assert read(file).valid != read(file, split_seed=1).valid


@pytest.mark.parametrize("seed", [*range(10), 88])  # 88: the rule alone would keep both of two rows back
@pytest.mark.parametrize("count", [2, 3])
def test_no_side_is_empty_where_two_rows_differ(count, seed):
    train, valid = divide([parse(row(number), "f:1") for number in range(count)], seed=seed)

    assert train
    assert valid
    assert len(train) + len(valid) == count


def test_duplicates_stay_on_one_side(tmp_path):
    splits = read(write(tmp_path / "a.jsonl", *[row(number % 20) for number in range(200)]))

    assert not {record.content for record in splits.train} & {record.content for record in splits.valid}
    assert len(splits.train) + len(splits.valid) == 200


@pytest.mark.parametrize("count", [1, 5])
def test_rows_that_are_all_the_same_are_trained_without_validation_and_that_is_said(tmp_path, count):
    splits = read(write(tmp_path / "a.jsonl", *[row(1)] * count))

    assert (len(splits.train), splits.valid) == (count, ())
    assert splits.notes[-1] == "no validation file, and too few different rows to keep any back: no validation"


def test_an_empty_valid_file_counts_as_absent_and_that_is_said(tmp_path):
    write(tmp_path / "train.jsonl", *map(row, range(30)))
    write(tmp_path / "valid.jsonl")

    splits = read(tmp_path, root=tmp_path)

    assert splits.valid
    assert splits.notes[0].startswith(f"valid.jsonl is empty: {len(splits.valid)} of 30 rows kept back")


def test_validation_rows_under_a_name_that_is_not_read_are_mentioned(tmp_path):
    write(tmp_path / "train.jsonl", *map(row, range(40)))
    write(tmp_path / "validation.jsonl", *map(row, range(40, 44)))

    splits = read(tmp_path, root=tmp_path)

    assert splits.notes[0] == "validation.jsonl is not read: call it valid.jsonl"
    assert len(splits.train) + len(splits.valid) == 40


def test_training_rows_that_stand_in_the_validation_file_are_mentioned(tmp_path):
    write(tmp_path / "train.jsonl", row(1), row(2))
    write(tmp_path / "valid.jsonl", row(2), row(3))

    assert read(tmp_path, root=tmp_path).notes == ("1 of 2 rows of valid.jsonl are training rows too",)


def test_reading_changes_nothing_on_disk(tmp_path):
    file = write(tmp_path / "a.jsonl", *map(row, range(30)))
    before = (file.read_bytes(), file.stat().st_mtime_ns)

    read(file)

    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [file]
