"""Words that are no tasks: those planned, with what does their work meanwhile, and those of other programs."""

from __future__ import annotations

from collections.abc import Mapping

PLANNED: Mapping[str, str] = {
    "data.split": "`inv lora` splits a single file by a rule, and `inv data.check FILE` shows the sides",
    "data.convert": "`inv data.check FILE` says what a file is and the command that makes JSONL of it",
    "data.from-chat": "`/save FILE` in `inv chat` writes the conversation, and `inv sql @verdicts` has what was judged",
    "model.export-adapter": "`inv model.fuse RUN` makes a model of a run, which every program reads",
    "model.import-adapter": "`inv lora --adopt FOLDER` continues an adapter of mlx_lm.lora, `inv run.import` lists it",
}

OTHER_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("ls", "history", "jobs"), "runs"),
    **dict.fromkeys(("log", "logs", "watch", "tail", "top"), "monitor"),
    **dict.fromkeys(("generate", "predict", "infer", "ask", "complete"), "query"),
    **dict.fromkeys(("evaluate", "score"), "test"),
    **dict.fromkeys(("pull", "get"), "download-model"),
    **dict.fromkeys(("merge",), "model.fuse"),
    **dict.fromkeys(("quantize", "quantise"), "model.convert"),
    **dict.fromkeys(("rm", "del"), "run.delete"),
    **dict.fromkeys(("mv",), "run.rename"),
    **dict.fromkeys(("diff",), "run.compare"),
    **dict.fromkeys(("ps", "info"), "status"),
    **dict.fromkeys(("kill", "cancel", "pause"), "train.stop"),
    **dict.fromkeys(("fit", "sft", "continue"), "lora"),
    **dict.fromkeys(("validate", "check"), "data.check"),
    **dict.fromkeys(("upgrade",), "update"),
    **dict.fromkeys(("version",), "--version"),
}
"""What other programs call our tasks, where no task of ours has letters like it."""
