"""Models on the hub: what a repository holds, and what the hub's refusals mean in words.

Everything goes through `huggingface_hub`, so that its settings hold: HF_ENDPOINT, HF_TOKEN, proxies, certificates.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mlxops.errors import BadRequest, Failed, MlxopsError, NotFound, Refused
from mlxops.foreign import foreign_code
from mlxops.likeness import nearest

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

T = TypeVar("T")

_ATTEMPTS = 4
_ASKED = 200  # models of an author that a misspelled name is compared with
_SIGN_IN = "`hf auth login` signs in, or set HF_TOKEN; https://huggingface.co/settings/tokens makes tokens"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository: its bytes, and its SHA-256, or for a small one the object name that git gives it."""

    name: str
    bytes: int
    sha256: str | None
    blob_id: str | None

    @property
    def key(self) -> str:
        """What tells this content from any other under the same name."""
        return self.sha256 or self.blob_id or ""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository at one commit: its files, and whether its weights are in MLX's own format."""

    id: str
    commit: str
    files: tuple[RemoteFile, ...]
    is_mlx: bool
    pipeline: str | None


def repository(repository_id: str, revision: str | None = None) -> Repository:
    """What a repository holds at a revision, main unless given.

    Raises `NotFound` with names like it, `Refused` where the hub wants a token, and `Failed` without a network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is, at run time alone

    try:
        validate_repo_id(repository_id)
    except HFValidationError:
        raise BadRequest(
            f"{repository_id!r} is no id of a model on the hub", hint="an id is NAME or USER/NAME"
        ) from None
    api = HfApi()
    with errors(repository_id, revision):
        info = again(lambda: api.model_info(repository_id, revision=revision, files_metadata=True))
    return Repository(
        id=info.id,
        commit=str(info.sha),
        files=tuple(_file(each) for each in info.siblings or ()),
        is_mlx=is_mlx(info),
        pipeline=info.pipeline_tag,
    )


def is_mlx(info: ModelInfo) -> bool:
    """Whether the hub says that a model is in MLX's format."""
    return info.library_name == "mlx" or "mlx" in (info.tags or ())


def _file(sibling: Any) -> RemoteFile:
    lfs = sibling.lfs
    return RemoteFile(
        name=sibling.rfilename,
        bytes=int(sibling.size or 0),
        sha256=lfs.sha256 if lfs else None,
        blob_id=sibling.blob_id,
    )


def again(work: Callable[[], T]) -> T:
    """Do something on the hub, and once more where the hub itself failed (5xx), with longer and longer waits."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(_ATTEMPTS - 1):
        try:
            return work()
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
        time.sleep(2**attempt)
    return work()


@contextmanager
def errors(repository_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the client raises about a repository into an error with words."""
    with foreign_code(lambda said, raised: _error(said, raised, repository_id, revision)):
        yield


def _error(said: str, raised: BaseException, repository_id: str, revision: str | None) -> MlxopsError:
    from huggingface_hub import errors as theirs

    response = getattr(raised, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(raised, theirs.GatedRepoError):
        return Refused(
            f"{repository_id!r} is gated: its owner lets in who has accepted the terms",
            hint=f"accept them on https://huggingface.co/{repository_id}, then {_SIGN_IN}",
        )
    if isinstance(raised, theirs.RepositoryNotFoundError):
        near = _near(repository_id)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"if it is private: {_SIGN_IN}"
        return NotFound(f"the hub has no model {repository_id!r}, or it is private", hint=hint)
    if isinstance(raised, theirs.RevisionNotFoundError):
        return NotFound(
            f"{repository_id!r} has no revision {revision!r}",
            hint="`--revision` takes a branch, a tag or the whole name of a commit; main is the usual one",
        )
    if isinstance(raised, theirs.OfflineModeIsEnabled):
        return Failed("HF_HUB_OFFLINE is set, so the hub is not asked", hint="unset HF_HUB_OFFLINE")
    if isinstance(raised, OSError) and raised.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EROFS,
    ):
        return Failed(f"the model could not be written: {raised.strerror}", hint="make room: the same command resumes")
    return _error_of_status(said, status, response, repository_id)


def _error_of_status(said: str, status: int | None, response: Any, repository_id: str) -> MlxopsError:
    if status == 401:
        return BadRequest("the hub does not accept the token that is here", hint=_SIGN_IN)
    if status == 403:
        return Refused(f"the hub does not let your token read {repository_id!r}", hint=_SIGN_IN)
    if status == 429:
        after = response.headers.get("Retry-After")
        when = f"in {after} seconds" if after else "in a few minutes"
        return Failed("the hub gets too many requests from here", hint=f"give the same command again {when}")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return Failed(
            "the hub's certificate is not trusted here: something on the way, such as a company's proxy, shows its own",
            hint="set SSL_CERT_FILE to the file of your company's certificates (REQUESTS_CA_BUNDLE is not read)",
        )
    if status is not None:
        return Failed(f"the hub answered with {status}: {said}", hint="give the same command again later: it resumes")
    return Failed(
        f"the hub cannot be reached: {said}",
        hint="check the network and HTTPS_PROXY, then give the same command again: it resumes",
    )


def _near(repository_id: str) -> list[str]:
    """Ids of models with a name like this one, its author's first; none where the hub does not say."""
    from huggingface_hub import HfApi

    author, _, name = repository_id.rpartition("/")
    try:
        with foreign_code(lambda said, _: Failed(said)):
            theirs = [each.id for each in HfApi().list_models(author=author, limit=_ASKED)] if author else []
            if near := nearest(repository_id, theirs):
                return [near]
            # the first parts of a name are what people remember
            for text in (name, "-".join(name.split("-")[:2])):
                if found := [each.id for each in HfApi().list_models(search=text, sort="downloads", limit=3)]:
                    return found
    except Failed:
        return []
    return []


@dataclass(frozen=True, kw_only=True)
class RemoteModel:
    """A model in the hub's list. `format` is mlx, safetensors or gguf; `loading` bytes that its weights take alone."""

    name: str
    type: str | None
    parameters: int | None
    bytes: int | None
    quantization: str | None
    format: str
    downloads: int | None
    updated: str | None
    loading: int | None


_BITS_IN_NAME = re.compile(r"(?:^|[-_])(\d)-?bit", re.IGNORECASE)
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2}
_EXPANDED: list[Any] = ["safetensors", "tags", "library_name", "downloads", "lastModified", "config", "pipeline_tag"]


def search(text: str | None, *, by_time: bool, limit: int) -> list[RemoteModel]:
    """Models whose names have this text, those in MLX's format and others, most downloaded or newest first.

    Raises as `repository` does.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    found: dict[str, RemoteModel] = {}
    for tag in ("mlx", None):
        with errors(text or "the list of models"):
            listed = again(
                lambda tag=tag: list(  # type: ignore[misc]
                    api.list_models(
                        search=text,
                        filter=tag,
                        pipeline_tag="text-generation",
                        sort="last_modified" if by_time else "downloads",
                        limit=limit,
                        expand=_EXPANDED,
                    )
                )
            )
        found |= {each.id: _listed(each) for each in listed if each.id not in found}
    if by_time:
        return sorted(found.values(), key=lambda each: each.updated or "", reverse=True)[:limit]
    return sorted(found.values(), key=lambda each: each.downloads or 0, reverse=True)[:limit]


def _listed(info: ModelInfo) -> RemoteModel:
    tags = set(info.tags or ())
    kind = "mlx" if is_mlx(info) else "gguf" if "gguf" in tags else "safetensors"
    config = info.config or {}
    found = config.get("quantization_config") or config.get("quantization")
    said = found if isinstance(found, dict) else {}
    bits = said.get("bits")
    if bits is None and (named := _BITS_IN_NAME.search(info.id)):
        bits = int(named[1])
    counts = dict(info.safetensors.parameters or {}) if info.safetensors else {}
    size = sum(count * _BYTES.get(dtype, 1) for dtype, count in counts.items()) or None
    packed = counts.get("U32", 0)
    unpacked = packed * 32 // bits if bits else packed
    total = sum(counts.values()) - packed + unpacked
    if kind == "mlx" and bits and said.get("mode", "affine") == "affine":
        total -= 2 * unpacked // (said.get("group_size") or 64)  # a scale and a bias per group
    return RemoteModel(
        name=info.id,
        type=config.get("model_type"),
        parameters=total or None,
        bytes=size,
        quantization=f"{bits} bits" if bits is not None else None,
        format=kind,
        downloads=info.downloads,
        updated=info.last_modified.strftime("%Y-%m-%dT%H:%M:%S.000Z") if info.last_modified else None,
        loading=size if kind != "gguf" else None,
    )
