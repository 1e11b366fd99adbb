"""A hub on the loopback address that takes uploads as `huggingface_hub` sends them: repositories, objects, commits.

What it holds are real bytes; an LFS object is taken only if its SHA-256 is the one that it was announced with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"

Answer = tuple[int, Any]


@dataclass
class Hub:
    """The repositories by id with their files, the objects by SHA-256, and how often each kind of request came.

    `faults` are answers that the next requests of a kind get instead: `hub.faults["commit"] = [(500, {})]`.
    """

    endpoint: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    faults: dict[str, list[Answer]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use this hub and nothing else."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN,
            "NO_PROXY": "127.0.0.1",
        }

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """What a request gets, from somebody who is known."""
        kind, work = self._work(method, path.partition("?")[0])
        self.requests.append(kind)
        if self.faults.get(kind):
            return self.faults[kind].pop(0)
        return work(body)

    def _work(self, method: str, path: str) -> tuple[str, Callable[[bytes], Answer]]:
        parts = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            return "whoami", lambda body: (200, {"type": "user", "name": "me", "auth": {"type": "access_token"}})
        if path == "/api/repos/create":
            return "create", self._create
        if path == "/api/validate-yaml":
            return "card", lambda body: (200, {"errors": [], "warnings": []})
        if method == "PUT" and parts[0] == "objects":
            return "object", lambda body: self._take(parts[1], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return "batch", self._batch
        if parts[:2] == ["api", "models"] and len(parts) > 4:
            repository = "/".join(parts[2:4])
            if parts[4] == "preupload":
                return "preupload", self._modes
            if parts[4] == "commit":
                return "commit", lambda body: self._commit(repository, body)
        return f"{method} {path}", lambda body: (404, {"error": "not here"})

    def _create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if repository in self.repositories:
            return 409, {"error": "it is there", "url": f"{self.endpoint}/{repository}"}
        self.repositories[repository] = {}
        if asked.get("visibility") == "private":
            self.private.add(repository)
        return 200, {"url": f"{self.endpoint}/{repository}", "id": repository}

    def _modes(self, body: bytes) -> Answer:
        files = json.loads(body)["files"]
        return 200, {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
        }

    def _batch(self, body: bytes) -> Answer:
        objects = []
        for each in json.loads(body)["objects"]:
            found = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.objects:
                found["actions"] = {"upload": {"href": f"{self.endpoint}/objects/{each['oid']}", "header": {}}}
            objects.append(found)
        return 200, {"transfer": "basic", "objects": objects}

    def _take(self, oid: str, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "another SHA-256"}
        self.objects[oid] = body
        return 200, {}

    def _commit(self, repository: str, body: bytes) -> Answer:
        files: dict[str, bytes] = {}
        for line in body.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {"error": f"no object {value['oid']}"}
                files[value["path"]] = self.objects[value["oid"]]
        self.repositories[repository].update(files)
        oid = hashlib.sha1(body).hexdigest()
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.endpoint}/{repository}/commit/{oid}"}


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    there = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._body()
            is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}" or self.path.startswith("/objects/")
            code, said = there.answer(self.command, self.path, body) if is_known else (401, {"error": "who are you?"})
            sent = json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do_HEAD = handle_any

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
