"""What a file is by its first bytes, where it is not rows in JSON, and the command that makes rows of it.

Looked at before any encoding is guessed: compressed and binary files also have zero bytes where UTF-16 has them.
"""

from __future__ import annotations

import codecs
import re
import shlex
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEAD = 1024  # bytes enough for every signature below
GZIP = b"\x1f\x8b"

_SPACE = b" \t\r\n"
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# What a JSON text may begin with, in the wide encodings without a mark.
_WIDE = (
    ("UTF-32LE", re.compile(rb"""[\[{\s]\0\0\0""")),
    ("UTF-32BE", re.compile(rb"""\0\0\0[\[{\s]""")),
    ("UTF-16LE", re.compile(rb"""[\[{\s]\0[^\0]""")),
    ("UTF-16BE", re.compile(rb"""\0[\[{\s]\0""")),
)
_COLUMNS = {"prompt", "completion", "instruction", "input", "output", "response", "context", "text", "messages"}
_PYTHON = {
    "parquet": "import json, sys, pyarrow.parquet as p; "
    "[print(json.dumps(row)) for row in p.read_table(sys.argv[1]).to_pylist()]",
    "arrow": "import json, sys, pyarrow as a; "
    "[print(json.dumps(row)) for row in a.ipc.open_file(sys.argv[1]).read_all().to_pylist()]",
    "arrow stream": "import json, sys, pyarrow as a; "
    "[print(json.dumps(row)) for row in a.ipc.open_stream(sys.argv[1]).read_all().to_pylist()]",
    "csv": "import csv, json, sys; csv.field_size_limit(sys.maxsize); "
    '[print(json.dumps(row)) for row in csv.DictReader(open(sys.argv[1], encoding="utf-8-sig", newline=""), '
    "delimiter=sys.argv[2])]",
}


@dataclass(frozen=True, kw_only=True)
class FileType:
    """What a file is, in words (`a Parquet file`), and the hint that helps."""

    name: str
    hint: str


Hint = Callable[[str], str]


def foreign(head: bytes, file: Path, shown: str) -> FileType | None:
    """What a file is that has no rows in UTF-8 JSON, by its first `HEAD` bytes; None where it may have them.

    `shown` is its path as people are told it. Whoever can read gzip looks for that first.
    """
    for offset, magic, name, hint in _MAGIC:
        if head.startswith(magic, offset):
            return FileType(name=name, hint=hint(shown))
    if head.startswith(b"PK\x03\x04"):
        return _zipped(file, shown)
    return _pointer(head, shown) or _page(head, shown) or _other_encoding(head, shown) or _numbers(head, shown)


def table(head: bytes, shown: str) -> FileType | None:
    """A table of text (CSV), by its suffix or by column names that rows have; None where it is no such table."""
    line = next(iter(head.removeprefix(codecs.BOM_UTF8).splitlines()), b"").decode("utf-8", "replace")
    if line.lstrip().startswith(("{", "[")):
        return None
    suffix = Path(shown).suffix.lower()
    delimiter = max(",;\t", key=line.count)
    columns = {column.strip().strip('"').lower() for column in line.split(delimiter)}
    if suffix not in (".csv", ".tsv") and not (len(columns) > 1 and columns & _COLUMNS):
        return None
    return FileType(name="a table (CSV), not JSON", hint=_converted("csv", ".csv", shown, "python3", delimiter))


def conversion(encoding: str, shown: str) -> str:
    """The hint that writes a text file of another encoding in UTF-8."""
    source, target, before = _named(shown, f".{encoding.lower()}")
    return f"`{before}iconv -f {encoding} -t UTF-8 {source} > {target}`"


def unpack(shown: str) -> str:
    """The hint for gzip whose name says that it is plain text: `.gz` is read as it is."""
    return f"`mv {shlex.quote(shown)} {shlex.quote(f'{shown}.gz')}`: a file called .gz is read as it is"


def gunzip(shown: str) -> str:
    """The hint that unpacks a file in which gzip holds no rows."""
    target = shown[: -len(".gz")] if shown.lower().endswith(".gz") else f"{shown}.unpacked"
    return f"`gzip -dc {shlex.quote(shown)} > {shlex.quote(target)}` unpacks it; then look at that file"


def _named(shown: str, suffix: str, made: str = ".jsonl") -> tuple[str, str, str]:
    """A shell's words for a file and for the file to make of it, and what renames it where both are the same."""
    path = Path(shown)
    stem = path
    while stem.suffix.lower() in _SUFFIXES:
        stem = stem.with_suffix("")
    target = str(stem) + made
    if target != shown:
        return shlex.quote(shown), shlex.quote(target), ""
    renamed = shlex.quote(shown + suffix)
    return renamed, shlex.quote(target), f"mv {shlex.quote(shown)} {renamed} && "


def _converted(kind: str, suffix: str, shown: str, python: str, *arguments: str) -> str:
    source, target, before = _named(shown, suffix)
    words = "".join(f" {shlex.quote(argument)}" for argument in arguments)
    return f"`{before}{python} -c {shlex.quote(_PYTHON[kind])} {source}{words} > {target}`"


def _python() -> str:
    """A shell's word for the Python in use, which takes packages: the system's own often does not."""
    python, here = Path(sys.executable), Path.cwd()
    return shlex.quote(str(python.relative_to(here) if python.is_relative_to(here) else python))


def _arrow(kind: str, suffix: str) -> Hint:
    return lambda shown: f"`{_python()} -m pip install pyarrow`, then {_converted(kind, suffix, shown, _python())}"


def _unpacked(program: str, suffix: str) -> Hint:
    def hint(shown: str) -> str:
        source, target, before = _named(shown, suffix)
        return f"`{before}{program} {source} > {target}`"

    return hint


def _archive(command: str) -> Hint:
    return lambda shown: f"`{command} {shlex.quote(shown)}` unpacks it; then name the file with the rows"


def _database(shown: str) -> str:
    source, target, before = _named(shown, ".db", ".json")
    tables = f"`sqlite3 {shlex.quote(shown)} .tables` lists its tables"
    return f"{tables}; `{before}sqlite3 -json {source} 'select * from TABLE' > {target}` writes one as rows"


def _weights(shown: str) -> str:
    return "--data takes the rows to train on; a model's folder is named with --model"


def _text_first(command: str) -> Hint:
    return lambda shown: f"{command}; then write rows of it: one JSON object per line"


def _document(shown: str) -> str:
    return _text_first(f"`pdftotext {shlex.quote(shown)}` takes the text out")(shown)


def _look(shown: str) -> str:
    return f"`file {shlex.quote(shown)}` says what it is; rows are JSONL: one JSON object per line"


_MAGIC: tuple[tuple[int, bytes, str, Hint], ...] = (
    (0, GZIP, "compressed with gzip", gunzip),
    (0, b"BZh", "compressed with bzip2", _unpacked("bunzip2 -c", ".bz2")),
    (0, b"\xfd7zXZ\0", "compressed with xz", _unpacked("xz -dc", ".xz")),
    (0, b"]\0\0", "compressed with LZMA", _unpacked("xz -dc", ".lzma")),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _unpacked("zstd -dc", ".zst")),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", _unpacked("lz4 -dc", ".lz4")),
    (0, b"\x1f\x9d", "compressed with compress", _unpacked("gzip -dc", ".Z")),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _archive("7z x")),
    (0, b"Rar!\x1a\x07", "a RAR archive", _archive("unrar x")),
    (257, b"ustar", "a tar archive", _archive("tar -xf")),
    (0, b"PAR1", "a Parquet file", _arrow("parquet", ".parquet")),
    (0, b"ARROW1\0\0", "an Arrow file", _arrow("arrow", ".arrow")),
    (0, b"\xff\xff\xff\xff", "an Arrow stream", _arrow("arrow stream", ".arrow")),
    (0, b"FEA1", "an old Feather file", _look),
    (0, b"ORC", "an ORC file", _look),
    (0, b"Obj\x01", "an Avro file", _look),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _look),
    (0, b"\x93NUMPY", "a NumPy array", _look),
    (0, b"SQLite format 3\0", "a SQLite database", _database),
    (0, b"GGUF", "a model's weights (GGUF), not data", _weights),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Word or Excel file", _text_first("save it as text or CSV")),
    (0, b"%PDF-", "a PDF document", _document),
    (0, b"{\\rtf", "a rich text document (RTF)", _text_first("save it as plain text")),
    (0, b"bplist00", "a property list of macOS", _look),
    (0, b"\0\5\x16\7", "an AppleDouble file that macOS made beside another", _look),
)  # fmt: skip
_SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".gz",
    ".bz2",
    ".xz",
    ".lzma",
    ".zst",
    ".zstd",
    ".lz4",
    ".z",
    ".parquet",
    ".arrow",
    ".feather",
    ".csv",
    ".tsv",
    ".db",
    ".sqlite",
    ".sqlite3",
)


def _zipped(file: Path, shown: str) -> FileType:
    """A zip archive, or a document that is one inside."""
    try:
        with zipfile.ZipFile(file) as archive:
            inside = set(archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        inside = set()
    if "xl/workbook.xml" in inside:
        return FileType(name="an Excel file", hint=_text_first("save it as CSV")(shown))
    if "word/document.xml" in inside:
        return FileType(
            name="a Word file", hint="save it as plain text; then write rows of it: one JSON object per line"
        )
    if any(name.endswith("/data.pkl") for name in inside):
        return FileType(name="a model's weights (PyTorch), not data", hint=_weights(shown))
    return FileType(name="a zip archive", hint=_archive("unzip")(shown))


def _pointer(head: bytes, shown: str) -> FileType | None:
    """A text of a few lines that stands for a file that is kept elsewhere."""
    folder = shlex.quote(str(Path(shown).parent))
    if re.match(rb"version https://(git-lfs|hawser)\.github\.com/spec/", head):
        size = re.search(rb"^size (\d+)\s*$", head, re.MULTILINE)
        whole = f" (the file itself has {int(size[1]):,} bytes)" if size and len(size[1]) < 19 else ""
        hint = f"`git lfs install && git -C {folder} lfs pull` downloads the file itself"
        return FileType(name=f"a Git LFS pointer, not the data{whole}", hint=hint)
    if re.match(rb"(\.\./)*(/annex/objects/|\.git/annex/objects/)", head):
        hint = f"`git -C {folder} annex get {shlex.quote(Path(shown).name)}` downloads the file itself"
        return FileType(name="a git-annex pointer, not the data", hint=hint)
    return None


def _page(head: bytes, shown: str) -> FileType | None:
    begins = head.removeprefix(codecs.BOM_UTF8).lstrip(_SPACE)[:32].lower()
    if begins.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        hint = "download the file itself: on the hub its address has /resolve/ where the page's has /blob/"
        return FileType(name="a web page (HTML), saved in place of the file", hint=hint)
    if begins.startswith(b"<?xml"):
        return FileType(name="XML", hint="a row is one JSON object per line: write it as JSONL")
    return None


def _other_encoding(head: bytes, shown: str) -> FileType | None:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return FileType(name=f"{encoding}, not UTF-8", hint=conversion(encoding, shown))
    for encoding, begins in _WIDE:
        if begins.match(head):
            return FileType(name=f"{encoding}, not UTF-8", hint=conversion(encoding, shown))
    return None


def _numbers(head: bytes, shown: str) -> FileType | None:
    """Binary files without a signature of their own."""
    if re.match(rb"[\s\S]{4}\0{4}\{\s*\"", head):  # eight bytes of length, then a JSON header
        return FileType(name="a model's weights (safetensors), not data", hint=_weights(shown))
    if re.match(rb"\x80[\2-\5][\x28\x5d\x63\x7d\x95]", head):
        return FileType(name="a Python pickle", hint=_look(shown))
    if head and not head.strip(b"\0"):
        return FileType(name="nothing but zero bytes", hint="it was not written to the end: copy or download it again")
    if b"\0" in head and not head.lstrip(_SPACE).startswith((b"{", b"[")):
        return FileType(name="binary, not text", hint=_look(shown))
    return None
