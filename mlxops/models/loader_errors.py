"""The one way to the loaders of mlx-lm and transformers: whatever they raise becomes a sentence and a hint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlxops.errors import BadRequest
from mlxops.foreign import foreign_code


@contextmanager
def loader_errors(what: str, *, name: str) -> Iterator[None]:
    """Raise `BadRequest` for all that a loader raises inside the block.

    `what` says what did not work and with which model; `name` is the model's, for the refusal of its own code.
    """
    with foreign_code(_refusal(what, name)):
        yield


def own_code(name: str, what: str) -> BadRequest:
    """The refusal of a model that needs code from its own folder; `what` is the file or class."""
    return BadRequest(
        f"the model {name!r} needs its own code {what!r}, which is not run",
        hint="read that code first; `--trust-remote-code` runs it",
    )


def _refusal(what: str, name: str) -> Callable[[str, BaseException], Exception]:
    def refusal(words: str, raised: BaseException) -> Exception:
        # transformers has no class for it, and names its own argument
        if isinstance(raised, ValueError) and "trust_remote_code" in str(raised):
            return own_code(name, "auto_map")
        return BadRequest(f"{what}: {words}", hint=_hint(raised))

    return refusal


def _hint(raised: BaseException) -> str:
    if isinstance(raised, (ImportError, SystemExit)):
        return "install the package that it asks for beside mlx-lm, or take a model of another architecture"
    return (
        "its files do not fit together, or the installed mlx-lm is too old for them: get the model again, "
        "or try `pip install -U mlx-lm`"
    )
