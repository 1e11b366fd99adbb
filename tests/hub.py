"""A hub on the loopback address that serves models as `huggingface_hub` asks for them, and takes uploads.

What it holds are real bytes. Large files have a SHA-256 (LFS), small ones the object name that git gives them. Faults
are put in front of the answers: `hub.faults["config.json"] = [Fault(status=500)]`.
"""

from __future__ import annotations

import hashlib
import json
import math
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import hub_uploads

_PAGE = 3


@dataclass
class Fault:
    """What happens once instead of an answer: a status with headers, or a file's bytes cut off, changed or held.

    `held` is waited for before an answer, or after so many bytes of a file (`held_at`).
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    content: bytes | None = None
    held: threading.Event | None = None
    held_at: int | None = None


@dataclass
class Repository:
    """A repository: its files at each commit, the newest commit last, and what the hub says about it.

    `names` are branches and tags with the commits that they are at; `members` the tokens that a gated one is open to.
    """

    commits: dict[str, dict[str, bytes]]
    names: dict[str, str] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    tags: list[str] = field(default_factory=lambda: ["mlx", "safetensors", "text-generation"])
    downloads: int = 0
    gated: bool = False
    private: bool = False

    @property
    def newest(self) -> str:
        """The commit that main is at."""
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """What main holds."""
        return self.commits[self.newest] if self.commits else {}

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit with these files changed; its name."""
        content = {**self.files, **files}
        name = hashlib.sha1(repr(sorted((key, blob_id(value)) for key, value in content.items())).encode()).hexdigest()
        self.commits[name] = content
        return name


@dataclass
class Hub:
    """The repositories by id, the objects by SHA-256, and the requests that came.

    `faults` come before the answer for a file of that name, for `info` or `search`, or for a kind of request of an
    upload.
    """

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use this hub and nothing else."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def clear(self) -> None:
        """Forget repositories, requests and faults."""
        self.repositories.clear()
        self.objects.clear()
        self.requests.clear()
        self.faults.clear()

    def add(self, repository: str, folder: Path, **about: Any) -> Repository:
        """Hold a model's folder as a repository."""
        files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        made = self.repositories[repository] = Repository(commits={}, **about)
        made.commit(files)
        return made

    def make(self, repository: str, *, private: bool) -> Repository:
        """Hold an empty repository."""
        made = self.repositories[repository] = Repository(commits={}, private=private)
        return made

    def gets(self, name: str) -> list[str | None]:
        """The Range of each request for a file of this name."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(f"/{name}")]


def blob_id(content: bytes) -> str:
    """The object name that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(name: str) -> bool:
    """Whether a file is kept by its SHA-256."""
    return name.endswith(".safetensors")


def etag(name: str, content: bytes) -> str:
    """What the hub knows a file by."""
    return hashlib.sha256(content).hexdigest() if is_large(name) else blob_id(content)


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": etag(name, content), "size": len(content), "pointerSize": 130}} if is_large(name) else {}
    return {"rfilename": name, "size": len(content), "blobId": blob_id(content), **lfs}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms until the client confirms its head
    hub: Hub

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if found := hub_uploads.work(self.hub, self.command, path, self._body()):
            return self._upload(*found)
        if path == "/api/models":
            return self._search(parse_qs(asked.query))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            revision = parts[5] if parts[4:5] == ["revision"] else None
            return self._info("/".join(parts[2:4]), revision)
        if parts[2:3] == ["resolve"]:
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._send(404, {"error": "not here"}, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_POST = do_PUT = do_GET

    def _upload(self, kind: str, work: Callable[[], tuple[int, Any]]) -> None:
        is_known = self.headers.get("Authorization") == f"Bearer {hub_uploads.TOKEN}"
        if not is_known and kind != "object":
            return self._send(401, {"error": "who are you?"})
        return None if self._fault(kind).status is not None else self._send(*work())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _fault(self, kind: str) -> Fault:
        waiting = self.hub.faults.get(kind)
        fault = waiting.pop(0) if waiting else Fault()
        if fault.held is not None and fault.held_at is None:
            fault.held.wait()
        if fault.status is not None:
            self._send(fault.status, {"error": "a fault"}, fault.headers)
        return fault

    def _search(self, query: dict[str, list[str]]) -> None:
        if self._fault("search").status is not None:
            return
        text, wanted = query.get("search", [""])[0].lower(), set(query.get("filter", []))
        author = "".join(f"{each}/" for each in query.get("author", []))
        found = [
            (name, each)
            for name, each in self.hub.repositories.items()
            if text in name.lower() and wanted <= set(each.tags) and name.startswith(author)
        ]
        found.sort(key=lambda pair: -pair[1].downloads)
        start = int(query.get("cursor", ["0"])[0])
        page = found[start : start + min(_PAGE, int(query.get("limit", ["100"])[0]))]
        headers = {}
        if start + len(page) < len(found):
            others = urlencode({**query, "cursor": [start + len(page)]}, doseq=True)
            headers["Link"] = f'<{self.hub.endpoint}/api/models?{others}>; rel="next"'
        self._send(200, [self._about(name, each, each.newest, files=False) for name, each in page], headers)

    def _about(self, name: str, repository: Repository, commit: str, *, files: bool) -> dict[str, Any]:
        content = repository.commits[commit]
        said = {
            "id": name,
            "sha": commit,
            "tags": repository.tags,
            "pipeline_tag": "text-generation",
            "downloads": repository.downloads,
            "lastModified": "2026-01-02T03:04:05.000Z",
            "siblings": [_sibling(key, value) if files else {"rfilename": key} for key, value in content.items()],
        }
        if weights := content.get("model.safetensors"):
            count: Counter[str] = Counter()
            for each in json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")]).values():
                if each and "shape" in each:  # MLX writes null for no metadata
                    count[each["dtype"]] += math.prod(each["shape"])
            said["safetensors"] = {"parameters": count, "total": count.total()}
            said["config"] = json.loads(content.get("config.json", b"{}"))
        return said

    def _info(self, name: str, revision: str | None) -> None:
        if self._fault("info").status is not None:
            return None
        repository = self.hub.repositories.get(name)
        if repository is None:
            # as the real one: it does not tell strangers what is not there from what is private
            return self._send(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
        commit = repository.newest if revision in (None, "main") else repository.names.get(str(revision), revision)
        if commit not in repository.commits:
            return self._send(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        return self._send(200, self._about(name, repository, str(commit), files=True))

    def _file(self, repository_name: str, revision: str, name: str) -> None:
        fault = self._fault(name)
        if fault.status is not None:
            return None
        repository = self.hub.repositories.get(repository_name)
        if repository is None:
            return self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        token = self.headers.get("Authorization")
        if repository.gated and (token or "").removeprefix("Bearer ") not in repository.members:
            message = f"Access to model {repository_name} is restricted."
            status = 401 if token is None else 403
            return self._send(status, {"error": message}, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        commit = repository.newest if revision == "main" else revision
        content = repository.commits[commit].get(name)
        if content is None:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        known = etag(name, content)
        content = content if fault.content is None else fault.content
        span = self.headers.get("Range")
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        part = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if span else {}
        self._begin(206 if span else 200, len(content) - start, {"ETag": f'"{known}"', "X-Repo-Commit": commit, **part})
        if self.command == "HEAD":
            return None
        end = len(content) if fault.cut_at is None else max(start, fault.cut_at)
        if fault.held is not None and fault.held_at is not None:
            self.wfile.write(content[start : fault.held_at])
            self.wfile.flush()
            fault.held.wait()
            start = max(start, fault.held_at)
        with suppress(OSError):  # a client may have gone while it was held
            self.wfile.write(content[start:end])
        if fault.cut_at is not None:
            self.wfile.flush()
            self.close_connection = True
        return None

    def _send(self, status: int, said: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(said).encode()
        self._begin(status, len(body), {**(headers or {}), "Content-Type": "application/json"})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def hub(certificate: Path | None = None) -> Iterator[Hub]:
    """A hub without repositories that answers while the block runs, by HTTPS with a certificate and its key."""
    there = Hub()
    handler = type("Handler", (_Handler,), {"hub": there})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    there.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
