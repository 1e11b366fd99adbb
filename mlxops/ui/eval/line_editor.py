"""The line a person types in a chat: editing, history, completion, and messages of several lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mlxops.chat.commands import is_complete

Completions = Callable[[str], Iterable[tuple[str, str]]]
"""For the text before the cursor, words that may stand in place of its last one, each with what it is."""


class LineEditor:
    """Messages from a terminal. Enter sends, Alt-Enter or a backslash at the end begins another line."""

    def __init__(self, history: Path | None, completions: Completions) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory

        self._session: Any = PromptSession(
            history=InMemoryHistory() if history is None else FileHistory(str(history)),
            completer=_completer(completions),
            complete_while_typing=True,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation="  ",
            reserve_space_for_menu=4,
        )

    def messages(self, prefill: Callable[[], str]) -> Iterator[str]:
        """What is typed, until Ctrl-D; `prefill` is what the next line begins with. Ctrl-C empties the line."""
        while True:
            try:
                text = self._session.prompt("> ", default=prefill())
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text.strip():
                yield text


def _completer(completions: Completions) -> Any:
    from prompt_toolkit.completion import Completer, Completion

    class _Words(Completer):
        def get_completions(self, document: Any, complete_event: Any) -> Iterator[Any]:
            before = document.text_before_cursor
            last = before.rpartition(" ")[2]
            for word, what in completions(before):
                if word.startswith(last):
                    yield Completion(word, start_position=-len(last), display_meta=what)

    return _Words()


def _keys() -> Any:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
        elif is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @keys.add("escape", "enter")
    def _another_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys
