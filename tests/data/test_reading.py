"""Files and folders become records, and all that is wrong with them is said at once."""

import json
import os
from pathlib import Path

import pytest

from mlxops.data import read
from mlxops.data.formats import parse
from mlxops.data.splitting import divide
from mlxops.errors import BadRequest, InvalidData, NotFound


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
    assert splits.notes == ("no validation file, and too few different rows to keep any back: no validation",)


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


# ------------------------------------------------------------------ what cannot be used


def test_the_problems_of_all_files_are_collected_with_file_and_line(tmp_path):
    train = write(tmp_path / "data" / "train.jsonl", row(1))
    with train.open("a") as stream:
        stream.write('{"text": "a"\n\n{"text": "a"} trailing\n[1]\n"a"\n' + "[" * 100_000 + "\n")
    write(tmp_path / "data" / "valid.jsonl", {"messages": []})

    assert problems(tmp_path / "data", tmp_path) == (
        "data/train.jsonl:2: broken JSON: Expecting ',' delimiter (column 13)",
        "data/train.jsonl:4: broken JSON: Extra data (column 15)",
        "data/train.jsonl:5: not an object but a list",
        "data/train.jsonl:6: not an object but a text",
        "data/train.jsonl:7: broken JSON: nested too deeply",
        "data/valid.jsonl:1: messages is empty",
    )


def test_the_error_counts_the_problems_and_shows_the_formats(tmp_path):
    file = write(tmp_path / "a.jsonl", {"a": 1}, row(1), {"b": 1})

    with pytest.raises(InvalidData, match=r"^a\.jsonl cannot be used: 2 problems$") as caught:
        read(file, root=tmp_path)
    assert '"messages"' in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_wide_encodings_are_refused_by_name(tmp_path, encoding):
    file = write(tmp_path / "a b.jsonl", row(1), row(2), encoding=encoding)

    with pytest.raises(InvalidData) as caught:
        read(file, root=tmp_path)
    assert caught.value.problems[0].startswith(f"a b.jsonl:1: the file is {encoding[:6].upper()}")
    assert "-t UTF-8 'a b.jsonl' >" in caught.value.hint


def test_latin_1_is_refused_with_the_line_and_a_command(tmp_path):
    file = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": "é"}, encoding="latin-1")

    with pytest.raises(InvalidData) as caught:
        read(file, root=tmp_path)
    assert caught.value.problems == (
        "a.jsonl:2: not UTF-8 (byte 0xE9 at position 11); Latin-1 or Windows-1252, perhaps",
    )
    assert caught.value.hint.startswith("iconv -f WINDOWS-1252 -t UTF-8 a.jsonl")


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "\\ud83d\\ude00"}\n{"text": "\\uD83D"}\n')

    assert problems(file, tmp_path) == ("a.jsonl:2: broken text: half of a surrogate pair",)


@pytest.mark.parametrize("text", ['[{"text": "a"}]\n', '[\n  {"text": "a"}\n]\n', '{\n  "text": "a"\n}\n'])
def test_a_single_json_value_is_told_from_lines_of_json(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)

    assert problems(tmp_path / "a.jsonl", tmp_path) == ("a.jsonl:1: the file is one JSON value, not one object a line",)


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet", "a.txt", "a"])
def test_other_formats_are_to_be_written_as_jsonl(tmp_path, name):
    write(tmp_path / name, row(1))

    with pytest.raises(InvalidData, match="is not JSONL") as caught:
        read(tmp_path / name, root=tmp_path)
    assert "write it as JSONL" in caught.value.hint


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, text):
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")

    with pytest.raises(InvalidData, match=r"^train\.jsonl has no rows$"):
        read(tmp_path, root=tmp_path)


def test_missing_data_is_told_with_what_there_is(tmp_path):
    write(tmp_path / "rows" / "training.jsonl", row(1))

    with pytest.raises(NotFound, match=r"^no data at data$") as caught:
        read(tmp_path / "data", root=tmp_path)
    assert caught.value.hint == "there is rows/training.jsonl"


def test_a_folder_without_training_rows_is_told_with_what_there_is(tmp_path):
    write(tmp_path / "data" / "train.csv", row(1))

    with pytest.raises(NotFound, match=r"^no train\.jsonl in data$") as caught:
        read(tmp_path / "data", root=tmp_path)
    assert caught.value.hint.startswith("there is data/train.csv; write it as JSONL")


@pytest.mark.parametrize("hidden", [".mlxops/crash-1.txt", ".mlxops/rows.jsonl", ".notes.txt", "data/.rows.jsonl"])
def test_hidden_files_and_folders_are_not_proposed(tmp_path, hidden):
    write(tmp_path / hidden, row(1))

    with pytest.raises(NotFound) as caught:
        read(tmp_path / "missing", root=tmp_path)
    assert caught.value.hint == "--data takes a JSONL file, or a folder with train.jsonl"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(tmp_path):
    file = write(tmp_path / "a.jsonl", row(1))
    file.chmod(0)

    with pytest.raises(BadRequest, match=r"^cannot read a\.jsonl: Permission denied$"):
        read(file, root=tmp_path)
