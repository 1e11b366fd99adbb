"""A model from the hub into a folder: only the files MLX needs, each resumed where it broke off, each with its hash.

A download fills a folder of its own, `.downloads/models--USER--NAME/NAME` beside the place that the model is to have.
What a killed process left there is used by the next one: a whole file by its hash, the beginning of a file by the hash
in its name, so that nothing of another revision is ever mixed in.
"""

from __future__ import annotations

import hashlib
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from io import BufferedWriter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlxops import files, words
from mlxops.errors import BadRequest, Busy, Failed
from mlxops.models import hub
from mlxops.models.hub import RemoteFile, Repository
from mlxops.models.identity import DECIDING
from mlxops.models.weight_files import disk_errors
from mlxops.models.weight_headers import INDEX

if TYPE_CHECKING:
    from typing_extensions import Buffer

Progress = Callable[[int, int], None]

_ALSO = ("generation_config.json", INDEX, "README.md", "LICENSE*", "NOTICE*", "USE_POLICY*")
_WEIGHTS = "model*.safetensors"
_OTHER_FILES = 64 << 20  # bytes that the file system needs for itself
_PIECE = 1 << 20
_RECEIVED = 1 << 16  # bytes handed over at once
_PARTIAL = ".partial"


def needed(repository: Repository) -> list[RemoteFile]:
    """The files that MLX needs, the small ones first; no code, which nothing here would run.

    Raises `BadRequest` where the repository holds no language model that can be read, or two names that a Mac takes for
    one.
    """
    found = [each for each in repository.files if _is_needed(each.name)]
    names = {each.name for each in found}
    _check_kind(repository, names)
    spellings: dict[str, str] = {}
    for name in sorted(names):
        other = spellings.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise BadRequest(
                f"{repository.id!r} has files that a Mac takes for one: {other!r} and {name!r}",
                hint="take another model, or another `--revision`",
            )
    return sorted(found, key=lambda each: (fnmatchcase(each.name, _WEIGHTS), each.name != "config.json", each.name))


def _is_needed(name: str) -> bool:
    """Whether a name is one of those that a model's folder has: nothing above, outside or deeper ever matches."""
    patterns = [each for each in (*DECIDING, *_ALSO) if each != "*.py"]
    return name.isprintable() and any(
        fnmatchcase(name, each) and name.count("/") == each.count("/") and "\\" not in name for each in patterns
    )


def _check_kind(repository: Repository, names: set[str]) -> None:
    everything = [each.name for each in repository.files]
    has_weights = any(fnmatchcase(name, _WEIGHTS) for name in names)
    if any(name.endswith(".gguf") for name in everything) and not has_weights:
        raise BadRequest(
            f"{repository.id!r} holds GGUF files, not a model folder",
            hint=f"`hf download {repository.id} FILE.gguf --local-dir .` fetches one, `inv model.import` takes it",
        )
    if "config.json" not in names:
        what = f" (the hub calls it {repository.pipeline})" if repository.pipeline else ""
        raise BadRequest(
            f"{repository.id!r} is no language model{what}: it has no config.json",
            hint="`inv models --search TEXT` finds models",
        )
    if not has_weights:
        pickled = [name for name in everything if PurePosixPath(name).suffix in (".bin", ".pt", ".pth", ".ckpt")]
        having = f", only {words.listed(pickled, 2)}" if pickled else ""
        hint = "pickled weights can run code and are never read: look for the model as safetensors"
        raise BadRequest(
            f"{repository.id!r} has no weights as model*.safetensors{having}",
            hint=hint if pickled else "`inv models --search TEXT` finds models",
        )


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A folder that a download fills, under the name of its repository."""

    folder: Path

    def remove(self) -> None:
        """Remove it with the folders around it that are empty then."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def beginning(self, file: RemoteFile) -> Path:
        """Where the beginning of a file waits for the rest."""
        return self.folder.parent / f"{file.key}{_PARTIAL}"


@contextmanager
def staged(target: Path, repository_id: str) -> Iterator[Staged]:
    """The folder to fill for a model that is to stand at `target`, held by this process alone.

    Raises `Busy` where another process downloads the same model to the same place.
    """
    around = target.parent / ".downloads"
    name = repository_id.replace("/", "--")
    folder = around / f"models--{name}" / repository_id.rpartition("/")[2]
    with disk_errors():
        folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder.parent, without_locks=True) as is_ours:
        if not is_ours:
            raise Busy(
                f"another process downloads {repository_id!r} to {str(target.parent)!r}",
                hint="wait for it, or stop it and give the command again: it resumes",
            )
        try:
            yield Staged(folder=folder)
        finally:
            if not any(each.is_file() for each in folder.parent.rglob("*")):
                shutil.rmtree(folder.parent, ignore_errors=True)
            with suppress(OSError):  # other downloads wait there
                around.rmdir()


def check_room(target: Path, wanted: list[RemoteFile], staging: Staged, *, copies: int) -> None:
    """Raise `Failed` if the disk has no room for what is still to come; `copies` more are made of it."""
    there = sum(_size(staging.folder / each.name) or _size(staging.beginning(each)) for each in wanted)
    total = sum(each.bytes for each in wanted)
    wants = total - there + copies * total + _OTHER_FILES
    free = shutil.disk_usage(staging.folder).free
    if wants > free:
        raise Failed(
            f"the download needs {words.size(wants)} of disk, and {str(target.parent)!r} has {words.size(free)} free",
            hint="make room, or `--output` takes another disk",
        )


def fetch(
    repository: Repository,
    wanted: list[RemoteFile],
    staging: Staged,
    *,
    checked: Callable[[Path], None],
    progress: Progress,
) -> dict[str, str]:
    """Fill the folder with these files and nothing else, and return the SHA-256 of each.

    `checked` is called once the small files are there, and raises what is wrong with the model before its weights come.
    `progress` is told bytes. Raises `Failed` where a file is not what the hub says it is, or nothing more comes.
    """
    _remove_others(staging, wanted)
    total, done, hashes, is_checked = sum(each.bytes for each in wanted), 0, {}, False
    for each in wanted:
        if fnmatchcase(each.name, _WEIGHTS) and not is_checked:
            checked(staging.folder)
            is_checked = True
        hashes[each.name] = _fetch_file(repository, each, staging, partial(_add, progress, done, total))
        done += each.bytes
        progress(done, total)
    return hashes


def _add(progress: Progress, before: int, total: int, count: int) -> None:
    progress(before + count, total)


def problem(path: Path, file: RemoteFile) -> tuple[str | None, str]:
    """What keeps a file on disk from being the one on the hub, None where nothing does; and its SHA-256."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            sha256.update(piece)
            if file.sha256 is None:
                blob.update(piece)
    if path.stat().st_size != file.bytes:
        return f"has {path.stat().st_size:,} bytes where the hub's has {file.bytes:,}", sha256.hexdigest()
    if file.sha256 is not None:
        return (None if sha256.hexdigest() == file.sha256 else "has another SHA-256 than the hub's"), sha256.hexdigest()
    wrong = file.blob_id is not None and blob.hexdigest() != file.blob_id
    return ("has another hash than the hub's" if wrong else None), sha256.hexdigest()


def differences(folder: Path, wanted: list[RemoteFile]) -> tuple[list[str], Mapping[str, str]]:
    """In what a folder differs from the hub's files, and the SHA-256 of those that are there."""
    found, hashes = [], {}
    for each in wanted:
        if not (folder / each.name).is_file():
            found.append(f"{each.name} is missing")
            continue
        wrong, hashes[each.name] = problem(folder / each.name, each)
        if wrong:
            found.append(f"{each.name} {wrong}")
    return found, hashes


def _fetch_file(repository: Repository, file: RemoteFile, staging: Staged, progress: Callable[[int], None]) -> str:
    place = staging.folder / file.name
    wrong = ""
    with disk_errors():
        place.parent.mkdir(exist_ok=True)
        if place.is_file():
            found, sha256 = problem(place, file)
            if found is None:
                return sha256
            place.unlink()
    for _ in range(2):  # what was resumed may have begun with other bytes: once more from the first
        beginning = staging.beginning(file)
        _receive(repository, file, beginning, progress)
        found, sha256 = problem(beginning, file)
        if found is None:
            with disk_errors():
                files.sync(beginning)
                beginning.replace(place)
            return sha256
        beginning.unlink()
        wrong = found
    raise Failed(
        f"{file.name} of {repository.id!r} {wrong}, twice",
        hint="something on the way changes it (a proxy?); nothing of it was kept",
    )


def _receive(repository: Repository, file: RemoteFile, place: Path, progress: Callable[[int], None]) -> None:
    """Append to a file what it still lacks, over as many connections as it takes while each brings something."""
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is, at run time alone
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # the client drops what it has of a piece when the connection breaks, and its usual piece is 10 MB
    constants.DOWNLOAD_CHUNK_SIZE = _RECEIVED
    if _size(place) > file.bytes:
        place.unlink()
    address = hf_hub_url(repository.id, file.name, revision=repository.commit, endpoint=HfApi().endpoint)

    def receive() -> None:
        with _Counted(place, progress) as stream:
            start = stream.tell()
            progress(start)
            http_get(
                address,
                stream,
                resume_size=start,
                headers=dict(build_hf_headers()),
                expected_size=file.bytes,
                displayed_filename=file.name,
            )

    with hub.errors(repository.id):
        place.touch()
        hub.again(receive)


class _Counted(BufferedWriter):
    """A file to append to that tells how long it is."""

    def __init__(self, path: Path, told: Callable[[int], None]) -> None:
        super().__init__(path.open("r+b", buffering=0), _PIECE)
        self.seek(0, 2)
        self._told = told

    def write(self, content: Buffer, /) -> int:
        """Write, and tell."""
        written = super().write(content)
        self._told(self.tell())
        return written


def _remove_others(staging: Staged, wanted: list[RemoteFile]) -> None:
    """Remove what an earlier revision or another choice of files left."""
    names = {each.name for each in wanted}
    partials = {staging.beginning(each) for each in wanted}
    for path in list(staging.folder.rglob("*")):
        if not path.is_dir() and path.relative_to(staging.folder).as_posix() not in names:
            path.unlink()
    for path in staging.folder.parent.glob(f"*{_PARTIAL}"):
        if path not in partials:
            path.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
