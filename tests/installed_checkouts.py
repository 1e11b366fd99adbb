"""A small checkout in which `install.sh` is run, and what makes it again what it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from commands import start_in_a_group


class Checkout:
    """A small checkout, and `install.sh` in it."""

    said_first = ""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.python = folder / ".venv" / "bin" / "python"
        self.stamp = folder / ".venv" / ".mlxops.json"
        self.environment = variables

    def start(self, words: str, **more: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own, as a terminal does."""
        command = [self.folder / "install.sh", *words.split()]
        return start_in_a_group(command, folder=self.folder, environment={**self.environment, **more})

    def __call__(self, words: str, **more: str) -> tuple[int, str, str]:
        started = self.start(words, **more)
        out, err = started.communicate()
        return started.returncode, out, err

    def hold(self) -> None:
        """Have the next build wait in the middle."""
        os.mkfifo(self.folder / "started")
        os.mkfifo(self.folder / "go")

    def wait_until_held(self) -> int:
        """Wait for that build; the process group that pip is in."""
        group = int((self.folder / "started").read_text())
        (self.folder / "started").unlink()
        return group

    def let_go(self) -> None:
        (self.folder / "go").write_text("")


def told(out: str) -> dict[str, Any]:
    """What the program says of how it was started."""
    return dict(json.loads(out))


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and the time it was last written; for a folder both are 0."""
    found = {str(each.relative_to(folder)): each for each in folder.rglob("*")}
    return {
        name: (0, 0) if each.is_dir() and not each.is_symlink() else (each.lstat().st_size, each.lstat().st_mtime_ns)
        for name, each in found.items()
    }


def restore(folder: Path, original: Path) -> None:
    """Make a folder again what the original is, touching only what differs."""
    there, wanted = everything(folder), everything(original)
    for name in sorted(there, reverse=True):
        if there[name] != wanted.get(name):
            (folder / name).rmdir() if there[name] == (0, 0) else (folder / name).unlink()
    for name in sorted(wanted):
        if there.get(name) != wanted[name]:
            if wanted[name] == (0, 0):
                (folder / name).mkdir()
            else:
                shutil.copy2(original / name, folder / name, follow_symlinks=False)
