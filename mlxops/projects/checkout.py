"""The clone that mlxops is used from: what is new upstream, and forward to it where nothing can be lost."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mlxops.errors import Failed, Refused
from mlxops.projects import machine

_CHANGELOG = "CHANGELOG.md"
_SHOWN = 3  # changed files that are named


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A clone and the branch upstream that it follows. `branch` is None where a commit is checked out, not a branch.

    `changed` are tracked files that differ from the commit; `ahead` and `behind` count the commits that only the clone
    has, and only upstream has. The changelogs are empty where there is none.
    """

    folder: str
    branch: str | None
    upstream: str | None
    commit: str
    upstream_commit: str | None = None
    ahead: int = 0
    behind: int = 0
    changed: tuple[str, ...] = ()
    changelog: str = ""
    upstream_changelog: str = ""


def obstacle(found: Checkout) -> Refused | None:
    """Why the clone cannot go forward without losing something, None where it can or need not."""
    folder = shlex.quote(found.folder)
    if found.branch is None:
        return Refused(
            f"{found.folder!r} has a commit checked out, and no branch that could go forward",
            hint=f"`git -C {folder} switch main`, then update again",
        )
    if found.upstream is None:
        return Refused(
            f"the branch {found.branch!r} of {found.folder!r} follows none upstream",
            hint=f"`git -C {folder} branch --set-upstream-to=origin/{found.branch}`",
        )
    if found.behind == 0:
        return None
    if found.ahead:
        return Refused(
            f"{found.folder!r} and {found.upstream} have diverged: {found.ahead} of its commits are not there",
            hint=f"`git -C {folder} rebase {found.upstream}` puts them on top; nothing was changed",
        )
    if found.changed:
        more = f" and {len(found.changed) - _SHOWN} more" if len(found.changed) > _SHOWN else ""
        return Refused(
            f"{found.folder!r} has changes that are in no commit: {', '.join(found.changed[:_SHOWN])}{more}",
            hint=f"commit them, or `git -C {folder} stash` puts them aside; nothing was changed",
        )
    return None


def look(folder: Path) -> Checkout:
    """What a clone is at and what was last fetched; raises `Failed` where the folder is no clone."""
    top = _try(folder, "rev-parse", "--show-toplevel")
    if top is None or not os.path.samefile(top, folder):  # noqa: PTH121
        raise Failed(
            f"{str(folder)!r} is no git clone, so nothing can be fetched into it",
            hint="clone the repository, and `./install.sh` there",
        )
    upstream = _try(folder, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    status = run(folder, "status", "--porcelain", "--untracked-files=no").splitlines()
    found = Checkout(
        folder=str(folder),
        branch=_try(folder, "symbolic-ref", "--quiet", "--short", "HEAD"),
        upstream=upstream,
        commit=run(folder, "rev-parse", "HEAD").strip(),
        changed=tuple(line[3:] for line in status),
        changelog=_try(folder, "show", f"HEAD:{_CHANGELOG}") or "",
    )
    if upstream is None:
        return found
    ahead, behind = run(folder, "rev-list", "--left-right", "--count", "HEAD...@{upstream}").split()
    return Checkout(
        **{
            **vars(found),
            "upstream_commit": run(folder, "rev-parse", "@{upstream}").strip(),
            "ahead": int(ahead),
            "behind": int(behind),
            "upstream_changelog": _try(folder, "show", f"@{{upstream}}:{_CHANGELOG}") or "",
        }
    )


def fetch(folder: Path) -> None:
    """Fetch what is upstream; nothing in the clone's files changes. Raises `Failed` where it cannot be reached."""
    branch = _try(folder, "symbolic-ref", "--quiet", "--short", "HEAD")
    remote = branch and _try(folder, "config", "--get", f"branch.{branch}.remote")
    if remote:
        run(folder, "fetch", "--quiet", remote)


def go_forward(found: Checkout) -> None:
    """Check out the commit upstream that was looked at.

    Raises `Refused` for an `obstacle`, and `Failed` where git refuses; then nothing has changed.
    """
    if reason := obstacle(found):
        raise reason
    if found.upstream_commit is not None:
        run(Path(found.folder), "merge", "--ff-only", "--quiet", found.upstream_commit)


def run(folder: Path, *arguments: str) -> str:
    """What git says; raises `Failed` with its last words. It asks nobody for a password."""
    program = machine.git()
    if program is None:
        raise Failed("there is no git here", hint="xcode-select --install on a Mac, else sudo apt install git")
    # what a hook of another repository set would lead to that one
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    done = subprocess.run(
        [program, "-C", str(folder), *arguments],
        env={**environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode == 0:
        return done.stdout
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    telling = [line for line in said if line.startswith(("fatal:", "error:"))] or said or ["no reason given"]
    hint = "nothing was changed; `git fetch` in the clone shows all that git says" if arguments[0] == "fetch" else None
    raise Failed(f"git {arguments[0]}: {telling[0].partition(': ')[2] or telling[0]}", hint=hint)


def _try(folder: Path, *arguments: str) -> str | None:
    try:
        return run(folder, *arguments).strip() or None
    except Failed:
        if machine.git() is None:
            raise
        return None
