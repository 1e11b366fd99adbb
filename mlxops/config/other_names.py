"""What other programs call our options: the names that people bring, and what each is here.

Data alone: whoever meets an unknown name looks here first, and only then for a name with like letters. A name that is
an option of the task itself never gets here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OtherName:
    """An option here, with its value where the other name stands for one, and what else a person should know.

    `sentence` is the whole hint where the option is not what was meant, only near it.
    """

    option: str
    value: str | None = None
    note: str | None = None
    sentence: str | None = None

    @property
    def hint(self) -> str:
        """The hint for someone who typed the other name."""
        if self.sentence:
            return self.sentence
        typed = self.option if self.value is None else f"{self.option} {self.value}"
        return f"`{typed}` is the option for that" + (f": {self.note}" if self.note else "")


_ALPHA = OtherName(
    "--lora-scale", note="scale = alpha / rank, so alpha 16 with rank 8 is `--lora-scale 2` (and not the alpha itself)"
)
_RESUME = OtherName(
    "--new",
    sentence="leave it out: the same command resumes where a run was interrupted, `inv train.resume RUN` with the "
    "settings that it stored; `--new` starts another run",
)
_FOLDER = OtherName("--adapter-path", note="it is the run's folder; `--name` names a run in adapters/")
_WARMUP = OtherName("--warmup", note="it counts iterations, not optimizer updates")

OTHER_NAMES: Mapping[str, OtherName] = {
    **dict.fromkeys(("lr", "learning-rate-max", "peak-lr", "max-lr"), OtherName("--learning-rate")),
    **dict.fromkeys(("lr-scheduler", "lr-scheduler-type", "scheduler"), OtherName("--lr-schedule")),
    **dict.fromkeys(("optim", "opt"), OtherName("--optimizer")),
    **dict.fromkeys(("wd", "adam-weight-decay", "decay"), OtherName("--weight-decay")),
    **dict.fromkeys(("cache-limit-gb", "clear-cache"), OtherName("--cache-limit", note="in GiB")),
    **dict.fromkeys(("warmup-steps", "num-warmup-steps", "warmup-iters", "lr-warmup-steps"), _WARMUP),
    **dict.fromkeys(("rank", "r", "lora-r", "lora-dim"), OtherName("--lora-rank")),
    **dict.fromkeys(("alpha", "lora-alpha"), _ALPHA),
    **dict.fromkeys(("scale",), OtherName("--lora-scale")),
    **dict.fromkeys(("dropout",), OtherName("--lora-dropout")),
    **dict.fromkeys(("target-modules", "lora-target-modules", "lora-target", "keys"), OtherName("--lora-keys")),
    **dict.fromkeys(("lora-layers", "layers", "num-lora-layers"), OtherName("--num-layers")),
    **dict.fromkeys(("use-dora", "dora"), OtherName("--fine-tune-type", "dora")),
    **dict.fromkeys(("full", "full-finetune", "train-type", "finetuning-type"), OtherName("--fine-tune-type", "full")),
    **dict.fromkeys(
        ("max-steps", "steps", "num-steps", "num-iters", "iterations", "max-iters", "num-iterations", "total-steps"),
        OtherName("--iters"),
    ),
    **dict.fromkeys(("num-train-epochs", "num-epochs", "n-epochs", "epoch", "max-epochs"), OtherName("--epochs")),
    **dict.fromkeys(
        ("gradient-accumulation-steps", "gradient-accumulation", "accumulation-steps", "grad-accum", "grad-acc-steps"),
        OtherName("--grad-accumulation-steps"),
    ),
    **dict.fromkeys(
        ("per-device-train-batch-size", "train-batch-size", "micro-batch-size", "per-device-batch-size", "bs"),
        OtherName("--batch-size"),
    ),
    **dict.fromkeys(
        ("max-length", "max-len", "max-seq-len", "seq-len", "seq-length", "cutoff-len", "block-size", "context-length"),
        OtherName("--max-seq-length"),
    ),
    **dict.fromkeys(
        ("gradient-checkpointing", "grad-ckpt", "use-gradient-checkpointing"), OtherName("--grad-checkpoint")
    ),
    **dict.fromkeys(("clip", "clip-grad", "clip-grad-norm", "gradient-clipping"), OtherName("--max-grad-norm")),
    **dict.fromkeys(("eval-steps", "eval-every", "eval-interval", "eval-iters"), OtherName("--steps-per-eval")),
    **dict.fromkeys(("eval-batches", "validation-batches"), OtherName("--val-batches")),
    **dict.fromkeys(("save-steps", "save-interval", "checkpoint-every", "steps-per-save"), OtherName("--save-every")),
    **dict.fromkeys(("save-total-limit", "max-checkpoints", "keep-checkpoints"), OtherName("--keep-last")),
    **dict.fromkeys(("logging-steps", "log-steps", "log-every", "log-interval"), OtherName("--steps-per-report")),
    **dict.fromkeys(("patience", "early-stopping-patience"), OtherName("--early-stopping")),
    **dict.fromkeys(("output-dir", "out-dir", "save-dir", "save-path", "out", "adapter-file"), _FOLDER),
    **dict.fromkeys(("run-name", "experiment-name", "exp-name"), OtherName("--name")),
    **dict.fromkeys(("model-name-or-path", "model-name", "base-model", "model-path", "hf-path"), OtherName("--model")),
    **dict.fromkeys(
        ("dataset", "dataset-name", "dataset-path", "data-path", "data-dir", "train-file", "train-data"),
        OtherName("--data"),
    ),
    **dict.fromkeys(("train-on-inputs", "train-on-input", "train-on-prompt"), OtherName("--no-mask-prompt")),
    **dict.fromkeys(("train-on-responses-only", "completion-only-loss"), OtherName("--mask-prompt")),
    **dict.fromkeys(("bf16",), OtherName("--dtype", "bfloat16")),
    **dict.fromkeys(("fp16",), OtherName("--dtype", "float16")),
    **dict.fromkeys(("fp32",), OtherName("--dtype", "float32")),
    **dict.fromkeys(("resume", "resume-from-checkpoint", "continue", "resume-from"), _RESUME),
    **dict.fromkeys(("overwrite", "overwrite-output-dir", "force", "restart"), OtherName("--new")),
    **dict.fromkeys(("dry-run", "dryrun", "dry", "what-if"), OtherName("--preview")),
    **dict.fromkeys(("background", "daemon"), OtherName("--detach")),
}


def meant(typed: str, flags: Iterable[str]) -> str | None:
    """The hint for an option that a task does not have, by a table of other programs' names; None where it has none.

    `flags` are the task's own, as they are typed. Underscores are dashes: `--learning_rate`.
    """
    own = set(flags)
    name = _plain(typed)
    if f"--{name}" in own:
        return f"did you mean `--{name}`?"
    other = OTHER_NAMES.get(name)
    return other.hint if other and other.option in own else None


def option_for(typed: str) -> str | None:
    """The option here that another program's name stands for, None for a name of no program that is known."""
    other = OTHER_NAMES.get(_plain(typed))
    return other.option if other else None


def is_known(typed: str) -> bool:
    """Whether this is another program's name for something."""
    return _plain(typed) in OTHER_NAMES


def _plain(typed: str) -> str:
    return typed.partition("=")[0].lstrip("-").replace("_", "-").lower()
