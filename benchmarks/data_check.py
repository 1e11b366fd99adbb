"""Time of data.check beside a plain loop: `python benchmarks/data_check.py MODEL [ROWS]`.

The plain loop reads the same file with `json.loads` per line, renders each row by the tokenizer's chat template, and
calls the tokenizer once per row. It checks nothing. `data.check` runs all its checks with the model, with and without
the search for like rows. Each runs in a process of its own, and its start is part of the time; the memory is the
largest resident set of that process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlxops.data import samples


def write(file: Path, rows: int) -> None:
    """A file of chat rows of about 1 kB each, all different."""
    with file.open("w", encoding="utf-8") as stream:
        for row in samples.rows("chat", rows, seed=0):
            text = json.dumps(row, ensure_ascii=False)
            stream.write(text + "\n")


def plain(file: Path, model: Path) -> None:
    """The plain loop."""
    from mlxops.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model)
    with file.open(encoding="utf-8", newline="\n") as stream:
        for line in stream:
            text = tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False)
            tokenizer(text, add_special_tokens=False)


def check(file: Path, model: Path, *, near: bool) -> None:
    """The check."""
    from mlxops.config import CheckDataConfig
    from mlxops.jobs.data import check as job
    from mlxops.projects.invocation import Invocation
    from mlxops.projects.project import Project

    invocation = Invocation(
        project=Project.at(file.parent), registry_is_given=False, blas=None, cache=None, command="", background=None
    )
    job.check(invocation, CheckDataConfig(path=str(file), model=str(model), near=near), lambda *_: None)


def main() -> None:
    """Measure each in a process of its own, or be one of them."""
    model = Path(sys.argv[1]).resolve()
    if len(sys.argv) == 4:
        what, file = sys.argv[2], Path(sys.argv[3])
        start = time.perf_counter()
        plain(file, model) if what == "plain" else check(file, model, near=what == "near")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": time.perf_counter() - start, "peak_kb": peak}))
        return
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write(file, rows)
        print(f"{rows:,} rows, {file.stat().st_size / 1e6:.1f} MB, tokenizer of {model.name}")
        for what, name in (
            ("plain", "plain loop: json.loads, chat template, one tokenizer call per row; no checks"),
            ("near", "data.check, every check"),
            ("without", "data.check without the search for like rows"),
        ):
            ended = subprocess.run(
                [sys.executable, __file__, str(model), what, str(file)], capture_output=True, text=True, check=True
            )
            found = json.loads(ended.stdout)
            print(f"{found['seconds']:7.1f} s  {found['peak_kb'] / 1000:6.0f} MB  {name}", flush=True)


if __name__ == "__main__":
    main()
