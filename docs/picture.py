"""Draw docs/quickstart.svg, the picture of the README, from a real run: `python docs/picture.py`.

It runs `quickstart` in a folder of its own, or takes one that is finished (`--dir`), and draws what the program shows
on a terminal: what changed, and the monitor's frame of the run.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH, HEIGHT = 96, 27
PICTURE = Path(__file__).parent / "quickstart.svg"
FONTS = "ui-monospace, Menlo, 'DejaVu Sans Mono', Consolas, monospace"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="a finished quickstart; a new one is made unless given")
    finished = parser.parse_args().dir
    with tempfile.TemporaryDirectory() as temporary:
        folder = (finished or Path(temporary) / "quickstart").resolve()
        shown = on_terminal("quickstart", "--dir", str(folder), cwd=folder.parent)
        frame = on_terminal("monitor", "--once", cwd=folder)
    PICTURE.write_text(svg(["$ inv quickstart", *what_changed(shown), "", "$ inv monitor", *frame]), encoding="utf-8")
    print(f"{PICTURE} is drawn")


def on_terminal(*arguments: str, cwd: Path) -> list[str]:
    """The lines that the program writes to a terminal of its own on stdout, with their colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    command = [str(Path(sys.executable).parent / "mlx-toolkit"), *arguments]
    running = subprocess.Popen(command, cwd=cwd, stdout=theirs, env={**os.environ, "TERM": "xterm-256color"})
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the terminal's other end is closed
            part = b""
        if not part:
            break
        said += part
    os.close(ours)
    if running.wait() != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {running.returncode}")
    return said.decode().replace("\r\n", "\n").rstrip().split("\n")


def what_changed(lines: list[str]) -> list[str]:
    """Without the commands to resume, which name folders of this machine."""
    end = next(number for number, line in enumerate(lines) if "The prompts are" in line)
    return lines[: end - 1]


def svg(lines: list[str]) -> str:
    """The lines as a terminal window, in the reader's own font."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        text = Text.from_ansi(line)
        if line.startswith("$ "):
            text.stylize("bold green")
        console.print(text, no_wrap=True, crop=True)
    drawn = console.export_svg(title="mlxops", theme=MONOKAI)
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return re.sub(r"font-family: Fira Code, monospace", f"font-family: {FONTS}", drawn)


if __name__ == "__main__":
    main()
