"""What cannot be read as rows is refused with its place, its reason and what helps."""

import json
import os
from pathlib import Path

import pytest

from mlxops.data import read
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
    assert caught.value.problems[0].startswith(f"a b.jsonl: the file is {encoding[:6].upper()}")
    assert "-t UTF-8 'a b.jsonl." in caught.value.hint


def test_latin_1_is_refused_with_the_line_and_a_command(tmp_path):
    file = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": "é"}, encoding="latin-1")

    with pytest.raises(InvalidData) as caught:
        read(file, root=tmp_path)
    assert caught.value.problems == (
        "a.jsonl:2: not UTF-8 (byte 0xE9 at position 11); Latin-1 or Windows-1252, perhaps",
    )
    assert "iconv -f WINDOWS-1252 -t UTF-8 a.jsonl.windows-1252 > a.jsonl`" in caught.value.hint


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "\\ud83d\\ude00"}\n{"text": "\\uD83D"}\n')

    assert problems(file, tmp_path) == ("a.jsonl:2: broken text: half of a surrogate pair",)


@pytest.mark.parametrize("text", ['{\n  "text": "a"\n}\n', '\n{ \n"data": [\n{"text": "a"}]}'])
def test_an_object_over_several_lines_is_told_from_lines_of_json(tmp_path, text):
    (tmp_path / "a.json").write_text(text)

    assert problems(tmp_path / "a.json", tmp_path) == (
        "a.json: the file is one JSON object over several lines, not one per line",
    )


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.txt", "a"])
def test_what_is_in_a_file_counts_and_not_its_suffix(tmp_path, name):
    write(tmp_path / name, row(1))

    assert [record.origin for record in read(tmp_path / name, root=tmp_path).train] == [f"{name}:1"]


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, text):
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")

    with pytest.raises(InvalidData, match=r"^train\.jsonl has no rows$"):
        read(tmp_path, root=tmp_path)


def test_files_that_are_not_needed_are_told_and_stop_nothing(tmp_path):
    for name in ("train", "valid"):
        write(tmp_path / f"{name}.jsonl", row(len(name)))
    write(tmp_path / "test.jsonl", {"messages": []}, row(1), {"a": 1})

    splits = read(tmp_path, root=tmp_path, needed=("train", "valid"))

    assert splits.notes[0] == (
        "test.jsonl has 2 problems, first test.jsonl:1: messages is empty; its rows are not needed here"
    )
    with pytest.raises(InvalidData):
        read(tmp_path, root=tmp_path)


def test_a_validation_file_that_is_not_needed_still_decides_that_no_training_rows_are_kept_back(tmp_path):
    write(tmp_path / "train.jsonl", *map(row, range(40)))
    (tmp_path / "valid.jsonl").write_text("{broken\n")

    assert len(read(tmp_path, root=tmp_path, needed=("train",)).train) == 40


def test_a_link_to_a_file_that_is_gone_is_told_with_where_it_leads(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone" / "b.jsonl")

    with pytest.raises(NotFound, match=r"^a\.jsonl is a link to '.*gone/b\.jsonl', which is not there$"):
        read(tmp_path / "a.jsonl", root=tmp_path)


def test_missing_data_is_told_with_what_there_is(tmp_path):
    write(tmp_path / "rows" / "training.jsonl", row(1))

    with pytest.raises(NotFound, match=r"^no data at data$") as caught:
        read(tmp_path / "data", root=tmp_path)
    assert caught.value.hint == "there is rows/training.jsonl"


def test_a_folder_without_training_rows_is_told_with_what_there_is(tmp_path):
    write(tmp_path / "data" / "train.csv", row(1))

    with pytest.raises(NotFound, match=r"^no train\.jsonl in data$") as caught:
        read(tmp_path / "data", root=tmp_path)
    assert caught.value.hint == "there is data/train.csv; write it as JSONL: one JSON object per line"


def test_a_table_in_a_folder_without_training_rows_is_told_with_its_command(tmp_path):
    (tmp_path / "train.csv").write_text("prompt,completion\na,b\n")

    with pytest.raises(NotFound, match=r"^no train\.jsonl in ") as caught:
        read(tmp_path, root=tmp_path)
    assert caught.value.hint.startswith("there is train.csv; `python3 -c ")


@pytest.mark.parametrize("hidden", [".mlxops/crash-1.txt", ".mlxops/rows.jsonl", ".notes.txt", "data/.rows.jsonl"])
def test_hidden_files_and_folders_are_not_proposed(tmp_path, hidden):
    write(tmp_path / hidden, row(1))

    with pytest.raises(NotFound) as caught:
        read(tmp_path / "missing", root=tmp_path)
    assert caught.value.hint == "name a JSONL file, or a folder with train.jsonl"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(tmp_path):
    file = write(tmp_path / "a.jsonl", row(1))
    file.chmod(0)

    with pytest.raises(BadRequest, match=r"^cannot read a\.jsonl: Permission denied$"):
        read(file, root=tmp_path)
