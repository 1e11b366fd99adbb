"""Code of other people: one place that turns whatever it raises into an error of ours.

The loaders of mlx-lm and transformers, the modules of model architectures, the Rust of tokenizers and a model's chat
template raise what they like, classes of their own and `SystemExit` included. No list of classes is ever complete.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from mlxops.errors import Failed, MlxopsError
from mlxops.system import gpu

_LONGEST = 300  # some libraries list everything they know


@contextmanager
def foreign_code(error_for: Callable[[str, BaseException], Exception]) -> Iterator[None]:
    """Run code of other people: what it raises becomes what `error_for(words, raised)` returns.

    Ctrl-C and our own errors pass; too little memory is `Failed`. What the code prints goes to stderr, because stdout
    is for results, and serves as the words of an error that has none.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    except (KeyboardInterrupt, GeneratorExit, MlxopsError):
        raise
    except BaseException as raised:
        if gpu.trouble(raised) == "memory":
            raise Failed(
                f"{gpu.SENTENCES['memory']}: {in_words(raised)}",
                hint="close other programs, or take a smaller or quantized model",
            ) from raised
        raise error_for(in_words(raised, printed.getvalue()), raised) from raised
    sys.stderr.write(printed.getvalue())


@contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Raise `error` in the block once it has computed for so long; what waits, or another process, counts nothing.

    It acts on Python code, a chat template among it, and in the main thread, where alone Python handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def in_words(raised: BaseException, printed: str = "") -> str:
    """What an exception says, in one line; where it says nothing, the last line that was printed, else its class."""
    has_words = not isinstance(raised, SystemExit) or isinstance(raised.code, str)
    words = " ".join(str(raised).split()) if has_words else ""
    if not words:
        words = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
    name = type(raised).__name__
    if not words:
        return name
    if len(words) > _LONGEST:
        words = f"{words[:_LONGEST]} …"
    # such as KeyError, whose words are only the key
    return words if " " in words else f"{name}: {words}"
