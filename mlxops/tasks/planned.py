"""Tasks that are planned and not there yet: what does their work meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

PLANNED: Mapping[str, str] = {
    "data.split": "`inv lora` splits a single file by a rule, and `inv data.check FILE` shows the sides",
    "data.convert": "`inv data.check FILE` says what a file is and the command that makes JSONL of it",
    "data.from-chat": "`/save FILE` in `inv chat` writes the conversation, and `inv sql @verdicts` has what was judged",
    "model.export-adapter": "`inv model.fuse RUN` makes a model of a run, which every program reads",
    "model.import-adapter": "`inv lora --adopt FOLDER` continues an adapter of mlx_lm.lora, `inv run.import` lists it",
}
