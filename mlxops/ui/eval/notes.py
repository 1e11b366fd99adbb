"""What a person should know before a model is loaded, on stderr, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console


def teller(console: Console) -> Callable[[str], None]:
    """What draws one note."""
    return lambda note: console.print(Text(note, style="dim"), soft_wrap=True)


def tell(notes: Iterable[str], console: Console) -> None:
    """Draw notes that are known together, each once."""
    for note in dict.fromkeys(notes):
        teller(console)(note)
