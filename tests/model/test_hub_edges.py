"""Downloads where the hub, the network or another process is not as usual, with the real client of the hub."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlx.core as mx
import pytest
from commands import ROOT
from hub import Fault, Hub, hub

from mlxops.config import DownloadConfig
from mlxops.jobs.model import download
from mlxops.projects import entering
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

ID = "mlx-community/tiny"
WEIGHTS = "model.safetensors"


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def fetch(told: Callable[[int, int], object]) -> None:
    """The job of the command, whose progress the test hears."""
    plan = download.plan(Invocation(project=Project.at(Path.cwd())), DownloadConfig(id=ID))
    download.download(plan, lambda _, done, total: told(done, total))


def use(there: Hub, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Have the client ask that address, with new connections."""
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    close_session()


@contextmanager
def proxy(to: Hub) -> Iterator[tuple[str, list[str]]]:
    """A proxy on the loopback address: its own, and the addresses that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            parts = urlsplit(self.path)
            connection = http.client.HTTPConnection(urlsplit(to.endpoint).netloc)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(self.command, path, headers=dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name not in ("Date", "Server", "Content-Length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        do_HEAD = do_GET

        def do_CONNECT(self) -> None:
            asked.append(self.path)
            there = urlsplit(to.endpoint)
            with socket.create_connection((there.hostname, there.port or 443)) as hub_side:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=pass_on, args=(hub_side, self.connection))
                back.start()
                pass_on(self.connection, hub_side)
                back.join()
            self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes from one side until it has sent all or left."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_slow_server_shows_progress_while_it_sends(there: Hub, tiny_model: Path) -> None:
    there.add(ID, tiny_model)
    half, seen = (tiny_model / WEIGHTS).stat().st_size // 2, threading.Event()
    there.faults[WEIGHTS] = [Fault(held=seen, held_at=half)]

    # the server sends the second half only once the first has been told
    fetch(lambda done, total: seen.set() if total > done > half // 2 else None)

    assert len(there.gets(WEIGHTS)) == 1
    assert content(Path("models/tiny")) == content(tiny_model)


@pytest.mark.slow
def test_a_server_that_stops_sending_is_asked_again_for_the_rest(
    there: Hub, tiny_model: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    there.add(ID, tiny_model)
    half, never = (tiny_model / WEIGHTS).stat().st_size // 2, threading.Event()
    there.faults[WEIGHTS] = [Fault(held=never, held_at=half)]
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)

    code, _, err = mlxops(f"download-model {ID}")
    never.set()

    assert code == 0, err
    assert [span is None for span in there.gets(WEIGHTS)] == [True, False]
    assert content(Path("models/tiny")) == content(tiny_model)


def test_a_revision_is_a_branch_a_tag_or_a_commit(there: Hub, tiny_model: Path, mlxops: Any) -> None:
    repository = there.add(ID, tiny_model)
    first = repository.newest
    repository.names = {"v1": first, "next": repository.commit({"README.md": b"# next\n"})}
    repository.commit({"README.md": b"# newest\n"})

    for revision in ("v1", "next", "main", first):
        code, _, err = mlxops(f"download-model {ID} --revision {revision} --name m-{revision[:4]}")
        assert code == 0, err

    folders = [Path("models") / f"m-{name}" / "README.md" for name in ("v1", "next", "main", first[:4])]
    assert [each.read_text() if each.exists() else None for each in folders] == [None, "# next\n", "# newest\n", None]


def test_a_second_download_of_the_same_model_is_refused_and_the_first_completes(
    there: Hub, tiny_model: Path, mlxops: Any
) -> None:
    there.add(ID, tiny_model)
    is_on_its_way, release = threading.Event(), threading.Event()
    there.faults[WEIGHTS] = [Fault(held=release, held_at=1000)]
    first = threading.Thread(target=fetch, args=(lambda done, total: is_on_its_way.set() if done > 500 else None,))
    first.start()
    is_on_its_way.wait()

    code, _, err = mlxops(f"download-model {ID}")
    is_absent = not Path("models/tiny").exists()
    release.set()
    first.join()

    assert (code, f"another process downloads '{ID}'" in err, is_absent) == (3, True, True), err
    assert content(Path("models/tiny")) == content(tiny_model)
    assert mlxops(f"download-model {ID}")[0] == 0


def test_a_gated_model_opens_to_a_token_of_a_member_alone(
    there: Hub, tiny_model: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.add(ID, tiny_model, gated=True, members=("hf_member",))

    ends = []
    for token in (None, "hf_stranger", "hf_member"):
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        ends.append(mlxops(f"download-model {ID}"))

    said = [(code, "is gated" in err, f"https://huggingface.co/{ID}" in err) for code, _, err in ends]
    assert said == [(3, True, True), (3, True, True), (0, False, False)]


@pytest.mark.slow
def test_a_model_whose_tensors_mlx_lm_rearranges_is_converted_with_the_same_numbers(
    there: Hub,
    tiny_model: Path,
    tiny_experts: Path,
    tmp_path: Path,
    mlxops: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = Path(shutil.copytree(tiny_experts, tmp_path / "apart"))
    tensors: dict[str, mx.array] = {}
    for name, array in dict(mx.load(str(theirs / WEIGHTS))).items():
        apart = enumerate(array) if ".switch_mlp." in name else ()
        tensors |= {name.replace(".switch_mlp.", f".experts.{number}."): each for number, each in apart} or {
            name: array
        }
    mx.save_safetensors(str(theirs / WEIGHTS), tensors)
    of_others = ["safetensors", "text-generation"]
    there.add("org/experts", theirs, tags=of_others)
    there.add("org/plain", tiny_model, tags=of_others)

    code, out, err = mlxops("download-model org/experts")
    again = mlxops("download-model org/experts --json")
    plain = mlxops("download-model org/plain")
    whole = mlxops("model.verify --all")
    monkeypatch.setattr(entering, "has_mlx", lambda: False)
    light = mlxops("download-model org/experts --name as-it-is")

    assert (light[0], content(Path("models/as-it-is"))) == (0, content(theirs)), light[2]
    assert (code, "they are converted after the download" in err, plain[0]) == (0, True, 0), err
    assert ("downloaded and converted" in out, "and converted" in plain[1]) == (True, False)
    ours, original = (dict(mx.load(str(folder / WEIGHTS))) for folder in (Path("models/experts"), tiny_experts))
    assert ours.keys() == original.keys()
    assert all(mx.array_equal(ours[name], array) for name, array in original.items())
    assert json.loads(again[1])["was_there"], again[2]
    assert content(Path("models/plain")) == content(tiny_model)
    assert whole[0] == 0, whole[1]


def test_a_proxy_is_used_where_the_environment_names_one(
    there: Hub, tiny_model: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.add(ID, tiny_model)
    monkeypatch.delenv("NO_PROXY")
    with proxy(there) as (address, asked):
        monkeypatch.setenv("HTTP_PROXY", address)
        use(there, monkeypatch, "http://hub.invalid")
        code, _, err = mlxops(f"download-model {ID}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    use(there, monkeypatch, "http://hub.invalid")
    away = mlxops(f"download-model {ID} --name other")

    assert code == 0, err
    assert content(Path("models/tiny")) == content(tiny_model)
    assert {urlsplit(each).netloc for each in asked} == {"hub.invalid"}
    assert (away[0], "cannot be reached" in away[2], "HTTPS_PROXY" in away[2]) == (1, True, True), away[2]


def test_a_certificate_of_ones_own_is_trusted_where_it_is_named_also_behind_a_proxy(
    there: Hub, tiny_model: Path, mlxops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = ROOT / "tests" / "fixtures" / "loopback_certificate.pem"
    with hub(certificate) as by_https:
        by_https.add(ID, tiny_model)
        use(by_https, monkeypatch, by_https.endpoint)
        strange = mlxops(f"download-model {ID}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        use(by_https, monkeypatch, by_https.endpoint)
        code, _, err = mlxops(f"download-model {ID}")
        monkeypatch.delenv("NO_PROXY")
        with proxy(by_https) as (address, asked):
            monkeypatch.setenv("HTTPS_PROXY", address)
            use(by_https, monkeypatch, "https://127.0.0.1:1")
            through = mlxops(f"download-model {ID} --name through")
            use(by_https, monkeypatch, by_https.endpoint)  # closes the connections, so that the proxy can end

    assert (strange[0], "certificate is not trusted" in strange[2], "SSL_CERT_FILE" in strange[2]) == (1, True, True)
    assert (code, through[0]) == (0, 0), err + through[2]
    assert content(Path("models/tiny")) == content(Path("models/through")) == content(tiny_model)
    assert set(asked) == {"127.0.0.1:1"}
