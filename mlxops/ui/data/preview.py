"""Rows as they are trained, the trained parts marked by colour and by brackets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mlxops import words
from mlxops.ui.terminal import tables
from mlxops.ui.terminal.console import is_unicode

if TYPE_CHECKING:
    from mlxops.jobs.data.preview import DataPreview, PreviewedRow


def result(preview: DataPreview, console: Console, *, as_json: bool) -> None:
    """Each row: its figures, its text with the trained parts in brackets, and how they were found."""
    if as_json:
        tables.json_out(preview, console)
        return
    opening, closing = ("⟦", "⟧") if is_unicode(console) else ("[[", "]]")
    for row in preview.rows:
        console.print(tables.heading(_title(row)), soft_wrap=True)
        # the end says that these are no words of ours, whose spaces could be broken at
        console.print(_text(row, preview.max_seq_length, opening, closing), soft_wrap=True, end="\n")
        for rule in row.rules:
            console.print(Text(rule, style="dim"), soft_wrap=True)
        console.print()
    console.print(
        f"{opening} {closing} enclose what is trained, with the model {words.visible(preview.model)}", soft_wrap=True
    )
    for note in preview.notes:
        console.print(words.visible(note), soft_wrap=True)


def _title(row: PreviewedRow) -> str:
    part = f", row {row.part} of {row.parts} of the conversation" if row.parts > 1 else ""
    trained = f"{row.trained_tokens:,} of {words.plural(row.kept_tokens, 'token')} trained"
    return f"{words.visible(row.origin)} ({row.use}{part}): {trained}"


def _text(row: PreviewedRow, limit: int, opening: str, closing: str) -> Text:
    text, has_cut = Text(), False
    for piece in row.pieces:
        if piece.is_cut and not has_cut:
            has_cut = True
            lost = words.plural(row.length - row.kept_tokens, "token")
            text.append(f"\n--- cut at {limit:,} tokens (--max-seq-length): {lost} left out ---\n", "bold yellow")
        shown = "\n".join(words.visible(line) for line in piece.text.split("\n"))
        if piece.is_trained and not piece.is_cut:
            text.append(opening, "bold green").append(shown, "green").append(closing, "bold green")
        else:
            text.append(shown, "dim")
    return text
