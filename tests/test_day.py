"""A day of typing with slips: the command that each hint names is typed next, and works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

Typed = Callable[[str], tuple[int, str, str]]

# what is typed, the exit code, and what a person types next: what the hint has in backticks or quotes, in its place
DAY = [
    ("data.chek data", 2, "{} data"),
    ("data.check data --modle tiny", 2, "data.check data {} tiny"),
    ("model.info tinny", 2, "model.info {}"),
    ("lora --model tinny --iters 8 --preview", 2, "lora --model {} --iters 8 --preview"),
    ("lora --model tiny --lr 1e-3 --preview", 2, "lora --model tiny {} 1e-3 --preview"),
    ("lora --model tiny --optimizer adamm --preview", 2, "lora --model tiny --optimizer {} --preview"),
    ("lora --model tiny --name tuned --seed 4", 3, "{} --preview"),
    ("train.resume tuned --lr 1e-3", 2, "{} --iters 12 --preview"),
    ("lora --model tiny --from tuned:best --iters 12 --preview", 2, "lora {} --from tuned:best --iters 12 --preview"),
    ("runs --statsu completed", 2, "runs {} completed"),
    ("runs --status complete", 2, "runs --status {}"),
    ("runs --tag none", 0, "{}"),
    ("run.show tunde", 2, "run.show {}"),
    ("run.show xyzzy", 2, "{}"),
    ("run.show --jsn", 2, "run.show tuned {}"),
    ("run.note tuned --txt hello", 2, "run.note tuned {} hello"),
    ("run.tag", 2, "{}"),
    ("run.export --run tuned --output points.csv", 3, "run.export --run tuned --output points.csv {}"),
    ("run.delete tuned", 3, None),
    ("checkpoints --run tuend", 2, "checkpoints --run {}"),
    ("monitor --ones", 2, "monitor {}"),
    ("monitor tuned --once", 2, "{} --once"),
    ("checkpoints tuned", 2, "{}"),
    ("sql @bes_runs", 2, "sql @{}"),
    ("sql 'select nme from run_summary'", 2, "sql 'select {} from run_summary'"),
    ("sql .nothing", 2, "{}"),
    ("model.import sampel", 2, None),
    ("query tiny --promt hi", 2, "query tiny {} hi --max-tokens 1"),
    ("resume tuned", 2, "{} tuned --preview"),
    ("clean --what kernels", 2, "{}"),
    ("help lroa", 2, "help {}"),
    ("statsu", 2, "{}"),
    ("history", 2, "{}"),
    ("data tuned", 2, "{}"),
    ("runs --status done", 2, "runs --status {}"),
    ("runs --sort created", 2, "runs --sort {}"),
    ("run.show tuned other", 2, None),
    ("run.tag tuned --ad fast", 2, "run.tag tuned {} fast"),
    ("run.report tuned --output page.txt", 2, "run.report tuned {}"),
    ("run.report tuned --output report.html", 3, "run.report tuned --output report.html {}"),
    ("run.compare tuned", 2, None),
    ("model.info tiny --jsn", 2, "model.info tiny {}"),
    ("models --filter local", 2, "models --filter {}"),
    ("init there --template adv", 2, "init there --template {}"),
    ("checkpoints --run tuned --use bset", 2, "{}"),
    ("checkpoints --use tuned", 2, "{}"),
    ("data.preview data", 2, "data.preview data {} tiny"),
    ("lora --model tiny --alpha 16 --preview", 2, "lora --model tiny {} 2 --preview"),
    ("lora --model tiny --use-dora --preview", 2, "lora --model tiny {} --preview"),
    ("test --run tuned --metrics perplxity", 2, "test --run tuned {} --num-samples 1 --max-tokens 1"),
    ("benchmark tiny --format csv --json", 2, None),
    ("sql 'delete from runs'", 3, None),
    ("sql 'select * form runs'", 2, "{}"),
]


@pytest.mark.slow
def test_every_hint_of_a_day_names_what_works(mlxops: Typed, tuned_project: Path) -> None:
    Path("points.csv").touch()
    wrong = {}
    for typed, wanted, then in DAY:
        code, out, err = mlxops(typed)
        named = re.findall(r"`([^`]+)`|'([^']+)'", (err or out).rpartition("hint: ")[2])
        if code != wanted or not named:
            wrong[typed] = (code, out + err)
        elif then is not None:
            word = next(each for each in named[0] if each).replace("mlx-toolkit ", "")
            following = then.format(word).replace("…", "1e-3").replace("RUN", "tuned")
            ended, out, err = mlxops(following)
            if ended != 0:
                wrong[following] = (ended, out + err)

    assert wrong == {}
