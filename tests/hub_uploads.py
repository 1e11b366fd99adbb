"""What a hub does with uploads as `huggingface_hub` sends them: repositories, objects, commits.

What it holds are real bytes; an LFS object is taken only if its SHA-256 is the one that it was announced with.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub import Hub

TOKEN = "hf_right"

Answer = tuple[int, Any]
Work = Callable[[], Answer]


def work(hub: Hub, method: str, path: str, body: bytes) -> tuple[str, Work] | None:
    """The kind of a request, and what it does, from somebody who is known; None for one that is about no upload."""
    parts = path.strip("/").split("/")
    if path == "/api/whoami-v2":
        return "whoami", lambda: (200, {"type": "user", "name": "me", "auth": {"type": "access_token"}})
    if path == "/api/repos/create":
        return "create", lambda: _create(hub, body)
    if path == "/api/validate-yaml":
        return "card", lambda: (200, {"errors": [], "warnings": []})
    if method == "PUT" and parts[0] == "objects":
        return "object", lambda: _take(hub, parts[1], body)
    if path.endswith(".git/info/lfs/objects/batch"):
        return "batch", lambda: _batch(hub, body)
    if parts[:2] == ["api", "models"] and parts[4:5] == ["preupload"]:
        return "preupload", lambda: _modes(body)
    if parts[:2] == ["api", "models"] and parts[4:5] == ["commit"]:
        return "commit", lambda: _commit(hub, "/".join(parts[2:4]), body)
    return None


def _create(hub: Hub, body: bytes) -> Answer:
    asked = json.loads(body)
    repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
    if repository in hub.repositories:
        return 409, {"error": "it is there", "url": f"{hub.endpoint}/{repository}"}
    hub.make(repository, private=asked.get("visibility") == "private")
    return 200, {"url": f"{hub.endpoint}/{repository}", "id": repository}


def _modes(body: bytes) -> Answer:
    def mode(path: str) -> dict[str, Any]:
        kind = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": kind, "shouldIgnore": False}

    return 200, {"files": [mode(file["path"]) for file in json.loads(body)["files"]]}


def _batch(hub: Hub, body: bytes) -> Answer:
    objects = []
    for each in json.loads(body)["objects"]:
        found = {"oid": each["oid"], "size": each["size"]}
        if each["oid"] not in hub.objects:
            found["actions"] = {"upload": {"href": f"{hub.endpoint}/objects/{each['oid']}", "header": {}}}
        objects.append(found)
    return 200, {"transfer": "basic", "objects": objects}


def _take(hub: Hub, oid: str, body: bytes) -> Answer:
    if hashlib.sha256(body).hexdigest() != oid:
        return 400, {"error": "another SHA-256"}
    hub.objects[oid] = body
    return 200, {}


def _commit(hub: Hub, repository: str, body: bytes) -> Answer:
    files: dict[str, bytes] = {}
    for line in body.splitlines():
        said = json.loads(line)
        value = said["value"]
        if said["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif said["key"] == "lfsFile":
            if value["oid"] not in hub.objects:
                return 400, {"error": f"no object {value['oid']}"}
            files[value["path"]] = hub.objects[value["oid"]]
    oid = hub.repositories[repository].commit(files)
    return 200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.endpoint}/{repository}/commit/{oid}"}
