"""What the file system of a folder does: it is tried, in files that are gone afterwards, and judged."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mlxops.projects.diagnosis import Finding, Level, check_place
from mlxops.projects.facts import PlaceFacts
from mlxops.system import disk, locks

_NAME = unicodedata.normalize("NFC", "Métro")


@dataclass(frozen=True, kw_only=True)
class FileSystemFacts:
    """What a file system does. `problem` is why a file cannot be written, synced and renamed, None where it can be.

    `is_full_sync` says that syncing reaches more than the drive's own cache, `has_locks` that of two who lock a file
    one has it, `has_links` that there are symbolic links; two spellings of a name are one file where it ignores what
    they differ in.
    """

    problem: str | None = None
    is_full_sync: bool = True
    has_locks: bool = True
    has_links: bool = True
    ignores_case: bool = False
    ignores_normalization: bool = False


def probe(folder: Path) -> FileSystemFacts:
    """Try it out in a folder, which exists and holds nothing of the names that are tried."""
    file = folder / _NAME
    try:
        beside = folder / "beside"
        beside.write_bytes(b"tried" * 1000)
        disk.sync(beside)
        is_full_sync = disk.syncs_fully(beside)
        beside.replace(file)
        disk.sync(folder)
    except OSError as error:
        return FileSystemFacts(problem=error.strerror or str(error))
    try:
        return FileSystemFacts(
            is_full_sync=is_full_sync,
            has_locks=_has_locks(file),
            has_links=_has_links(folder / "link"),
            ignores_case=(folder / _NAME.swapcase()).exists(),
            ignores_normalization=(folder / unicodedata.normalize("NFD", _NAME)).exists(),
        )
    finally:
        file.unlink()


def _has_locks(file: Path) -> bool:
    one, other = os.open(file, os.O_RDWR), os.open(file, os.O_RDWR)
    try:
        return locks.take(one) and not locks.take(other)
    except locks.CannotLock:
        return False
    finally:
        os.close(one)
        os.close(other)


def _has_links(link: Path) -> bool:
    try:
        link.symlink_to(_NAME)
    except OSError:
        return False
    link.unlink()
    return True


def judge(found: FileSystemFacts, place: PlaceFacts) -> Finding:
    """Whether a project can be in that folder; what syncs it to other machines counts, too."""
    kind = place.file_system or "a disk of this machine"
    moved = "move the project to a disk that is formatted as APFS, ext4 or the like"
    if found.problem is not None:
        return _finding("broken", f"{kind}: a file cannot be written, synced and renamed: {found.problem}", moved)
    if (around := check_place(place)).level != "ok":
        return _finding(around.level, around.said, around.cure)
    if not found.has_locks:
        said = f"{kind} has no locks: no training starts there, as two of one run could damage each other's files"
        return _finding("broken", said, moved)
    if not found.has_links:
        return _finding("warning", f"{kind} has no symbolic links: `adapters/latest` cannot be there", moved)
    if not found.is_full_sync:
        said = f"{kind} cannot sync past the drive's own cache: a power cut can cost checkpoints written just before"
        return _finding("warning", said, moved)
    ignored = [name for name, is_so in _ignored(found) if is_so]
    names = f"ignores {' and '.join(ignored)} in names" if ignored else "tells all spellings of a name apart"
    return _finding("ok", f"{kind}: syncs, locks, has links, {names}")


def _ignored(found: FileSystemFacts) -> list[tuple[str, bool]]:
    return [("case", found.ignores_case), ("Unicode normalization", found.ignores_normalization)]


def _finding(level: Level, said: str, cure: str | None = None) -> Finding:
    return Finding(check="folder", level=level, said=said, cure=cure)
