"""What a server says: where it is, and a line for each request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mlxops import words

if TYPE_CHECKING:
    from mlxops.jobs.eval.serve import Serving
    from mlxops.serving.server import Served

_NAMED = 4  # models of the first line; the rest is counted


def ready(serving: Serving, out: Console, screen: Console, *, as_json: bool) -> None:
    """Say where the server is and what it answers for."""
    if as_json:
        out.file.write(json.dumps(serving.to_json(), ensure_ascii=False) + "\n")
        out.file.flush()
        return
    key = ", with the API key" if serving.needs_key else ""
    out.print(Text(f"serving {serving.model} at {serving.url}{key}"), soft_wrap=True)
    screen.print(Text(f"models: {words.listed(list(serving.models), _NAMED)}"), soft_wrap=True)
    screen.print(Text("Ctrl-C ends it"), soft_wrap=True)


class Log:
    """A line on a console for each request, from any thread."""

    def __init__(self, console: Console, keep_bug: Callable[[BaseException], str]) -> None:
        self._console = console
        self._keep_bug = keep_bug
        self._lock = threading.Lock()

    def served(self, served: Served) -> None:
        """A request was answered, or its client left."""
        with self._lock:
            self._console.print(Text(line(served)), soft_wrap=True)

    def failed(self, error: BaseException) -> None:
        """Something happened that nobody foresaw."""
        with self._lock:
            self._console.print(Text(self._keep_bug(error)), soft_wrap=True)


def line(served: Served) -> str:
    """A request in one line: status, path, model, tokens, seconds, how it ended."""
    parts = [f"{served.status} {_printable(served.path)}"]
    if served.model is not None:
        parts += [served.model, f"{served.prompt_tokens:,} + {served.tokens:,} tokens"]
    return ", ".join([*parts, f"{served.seconds:.2f} s", _printable(served.reason)])


def _printable(text: str) -> str:
    # a client writes what it likes, and a terminal obeys control codes
    return "".join(each if each.isprintable() else "?" for each in text[:200])
