"""A file without rows is named for what it is, and the command in its hint makes rows of it."""

import bz2
import io
import json
import lzma
import re
import shutil
import sqlite3
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxops.data import read
from mlxops.errors import InvalidData

ROWS = [{"prompt": f"question {number}, é", "completion": f'answer\n"{number}"'} for number in range(30)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, JSONL)
    return made.getvalue()


def tarred() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        about = tarfile.TarInfo("train.jsonl")
        about.size = len(JSONL)
        archive.addfile(about, io.BytesIO(JSONL))
    return made.getvalue()


def pointer(host: str) -> bytes:
    return f"version https://{host}/spec/v1\noid sha256:{7:064d}\nsize 4660123\n".encode()


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def problem_and_hint(file: Path) -> tuple[str, str]:
    with pytest.raises(InvalidData) as caught:
        read(file, root=file.parent)
    (problem,) = caught.value.problems
    return problem.removeprefix(f"{file.name}: "), caught.value.hint or ""


def commands(hint: str) -> list[str]:
    return re.findall("`([^`]+)`", hint)


POINTER = "the file is a Git LFS pointer, not the data (the file itself has 4,660,123 bytes)"
FOREIGN: list[tuple[bytes | Callable[[], bytes], str, str]] = [
    (bz2.compress(JSONL), "the file is compressed with bzip2", "bunzip2 -c"),
    (lzma.compress(JSONL), "the file is compressed with xz", "xz -dc"),
    (lzma.compress(JSONL, lzma.FORMAT_ALONE), "the file is compressed with LZMA", "xz -dc"),
    (b"\x28\xb5\x2f\xfd\x24\x0c", "the file is compressed with zstd", "zstd -dc"),
    (b"\x04\x22\x4d\x18\x64\x40", "the file is compressed with lz4", "lz4 -dc"),
    (b"\x1f\x9d\x90", "the file is compressed with compress", "gzip -dc"),
    (zipped("train.jsonl"), "the file is a zip archive", "unzip"),
    (zipped("xl/workbook.xml"), "the file is an Excel file", "CSV"),
    (zipped("word/document.xml"), "the file is a Word file", "plain text"),
    (zipped("archive/data.pkl"), "the file is a model's weights (PyTorch), not data", "--model"),
    (b"PK\x03\x04cut off", "the file is a zip archive", "unzip"),
    (b"7z\xbc\xaf\x27\x1c\0\4", "the file is a 7z archive", "7z x"),
    (b"Rar!\x1a\x07\x01\0", "the file is a RAR archive", "unrar x"),
    (tarred, "the file is a tar archive", "tar -xf"),
    (b"PAR1\x15\x04\x15", "the file is a Parquet file", "pyarrow.parquet"),
    (b"ARROW1\0\0\xff\xff\xff\xff", "the file is an Arrow file", "open_file"),
    (b"\xff\xff\xff\xff\x10\0\0\0", "the file is an Arrow stream", "open_stream"),
    (b"SQLite format 3\0\x10\0", "the file is a SQLite database", "sqlite3"),
    (pointer("git-lfs.github.com"), POINTER, "lfs pull"),
    (pointer("hawser.github.com"), POINTER, "lfs pull"),
    (b"version https://git-lfs.github.com/spec/v1\n", "the file is a Git LFS pointer, not the data", "lfs pull"),
    (b"/annex/objects/SHA256E-s42--ab.jsonl\n", "the file is a git-annex pointer, not the data", "annex get"),
    (b"\xef\xbb\xbf\n<!DOCTYPE html>", "the file is a web page (HTML), saved in place of the file", "/resolve/"),
    (b"<?xml version='1.0'?><rows/>", "the file is XML", "JSONL"),
    (b"%PDF-1.7\n%\xe2\xe3", "the file is a PDF document", "pdftotext"),
    (b"{\\rtf1\\ansi", "the file is a rich text document (RTF)", "plain text"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "the file is an old Word or Excel file", "CSV"),
    (safetensors, "the file is a model's weights (safetensors), not data", "--model"),
    (b"GGUF\3\0\0\0", "the file is a model's weights (GGUF), not data", "--model"),
    (b"\x80\x04\x95\x10\0", "the file is a Python pickle", "file "),
    (b"\x93NUMPY\1\0", "the file is a NumPy array", "file "),
    (b"\x89HDF\r\n\x1a\n", "the file is an HDF5 file", "file "),
    (b"Obj\x01\x04", "the file is an Avro file", "file "),
    (b"bplist00\xd1", "the file is a property list of macOS", "file "),
    (b"\0\5\x16\7\0\2", "the file is an AppleDouble file that macOS made beside another", "file "),
    (bytes(5000), "the file is nothing but zero bytes", "again"),
    (b"\x7fELF\2\1\1\0\0", "the file is binary, not text", "file "),
    (b"prompt,completion\na,b\n", "the file is a table (CSV), not JSON", "csv.DictReader"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "problem", "hint"), FOREIGN, ids=[problem for _, problem, _ in FOREIGN])
def test_a_file_without_rows_is_named_whatever_its_suffix(tmp_path, content, problem, hint):
    file = tmp_path / "train.jsonl"
    file.write_bytes(content() if callable(content) else content)

    found = problem_and_hint(file)

    assert found[0] == problem
    assert hint in found[1]
    assert "iconv" not in found[1]


@pytest.mark.parametrize(
    ("program", "pack", "name"),
    [
        ("bunzip2", bz2.compress, "train.jsonl.bz2"),
        ("bunzip2", bz2.compress, "train.jsonl"),
        ("xz", lzma.compress, "my rows.jsonl.xz"),
        ("xz", lzma.compress, "train.json"),
    ],
)
def test_the_command_for_a_compressed_file_leaves_rows(tmp_path, program, pack, name):
    if shutil.which(program) is None:
        pytest.fail(f"{program} is part of every system that this runs on")
    (tmp_path / name).write_bytes(pack(JSONL))

    _, hint = problem_and_hint(tmp_path / name)
    subprocess.run(commands(hint)[0], shell=True, check=True, cwd=tmp_path)

    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    assert next(tmp_path.glob("*.jsonl")).read_bytes() == JSONL


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_the_command_for_a_table_leaves_rows(tmp_path, name):
    lines = ["\ufeffprompt;completion", *(f'"what; is {number}?";"it is\nö{number}"' for number in range(30))]
    (tmp_path / name).write_text("\r\n".join(lines), encoding="utf-8", newline="")

    _, hint = problem_and_hint(tmp_path / name)
    subprocess.run(commands(hint)[0], shell=True, check=True, cwd=tmp_path)

    splits = read(tmp_path / "train.jsonl")
    said = {message["content"] for record in splits.train + splits.valid for message in record.messages}
    assert said == {text for number in range(30) for text in (f"what; is {number}?", f"it is\nö{number}")}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be", "windows-1252"])
def test_the_command_for_another_encoding_leaves_rows(tmp_path, encoding):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "train.jsonl").write_bytes(text.encode(encoding))

    with pytest.raises(InvalidData) as caught:
        read(tmp_path / "train.jsonl", root=tmp_path)
    subprocess.run(commands(caught.value.hint)[0], shell=True, check=True, cwd=tmp_path)

    assert read(tmp_path / "train.jsonl").train[0].messages[0]["content"] == "question 0, é"


def test_a_database_is_shown_with_the_commands_of_its_own_program(tmp_path):
    db = sqlite3.connect(tmp_path / "rows.db")
    db.execute("create table pairs (prompt, completion)")
    db.commit()
    db.close()

    _, hint = problem_and_hint(tmp_path / "rows.db")

    assert commands(hint) == [
        "sqlite3 rows.db .tables",
        "sqlite3 -json rows.db 'select * from TABLE' > rows.json",
    ]


def test_what_looks_like_a_signature_further_in_is_text(tmp_path):
    rows = [
        {"text": words} for words in ("%PDF-1.7", "PAR1 and GGUF", "<html>", "version https://git-lfs.github.com/spec/")
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    splits = read(tmp_path / "a.jsonl")

    assert {record.text for record in splits.train + splits.valid} == {row["text"] for row in rows}


def test_one_zero_byte_is_a_problem_of_its_line_and_not_of_the_file(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\0"}\n')

    assert (
        problem_and_hint(tmp_path / "a.jsonl")[0] == "a.jsonl:2: broken JSON: Invalid control character at (column 11)"
    )
