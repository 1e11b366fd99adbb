"""Time and memory of data.check beside a plain loop: `python benchmarks/data_check.py MODEL [ROWS] [ROUNDS]`.

The plain loop reads the same file with `json.loads` per line, renders each row by the tokenizer's chat template, and
calls the tokenizer once per row. It checks nothing. `data.check` runs all its checks with the model, with and without
the search for like rows. A round runs the three one after another, each in a process of its own, and its start is part
of the time; the memory is the largest resident set of that process. What is told is the median of the rounds, and of
the ratios within a round, since a machine with other work is not equally fast in all of them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from mlxops.data import samples

WAYS = {
    "plain": "plain loop: json.loads, chat template, one tokenizer call per row; no checks",
    "near": "data.check, every check",
    "without": "data.check without the search for like rows",
}


def write(file: Path, rows: int) -> None:
    """A file of chat rows of about 1 kB each."""
    with file.open("w", encoding="utf-8") as stream:
        turns = [row["messages"] for row in samples.rows("chat", rows, seed=0)]
        for place, messages in enumerate(turns):
            row = list(messages)
            following = place
            while len(json.dumps(row, ensure_ascii=False)) < 900:
                following = (following + 7) % len(turns)
                row += [turn for turn in turns[following] if turn["role"] != "system"]
            stream.write(json.dumps({"messages": row}, ensure_ascii=False) + "\n")


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
    if len(sys.argv) > 2 and sys.argv[2] == "write":
        write(Path(sys.argv[3]), int(sys.argv[4]))
        return
    if len(sys.argv) > 2 and sys.argv[2] in WAYS:
        what, file = sys.argv[2], Path(sys.argv[3])
        start = time.perf_counter()
        plain(file, model) if what == "plain" else check(file, model, near=what == "near")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = time.process_time()
        print(json.dumps({"seconds": time.perf_counter() - start, "cpu": used, "peak_kb": peak}))
        return
    rows, rounds = (int(sys.argv[place]) if len(sys.argv) > place else usual for place, usual in ((2, 100_000), (3, 3)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        # in a process of its own too: what starts others hands its memory down to them as theirs
        subprocess.run([sys.executable, __file__, str(model), "write", str(file), str(rows)], check=True)
        print(f"{rows:,} rows, {file.stat().st_size / 1e6:.1f} MB, tokenizer of {model.name}, {rounds} rounds")
        _compare(model, file, rounds)


def _compare(model: Path, file: Path, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {what: [] for what in WAYS}
    for _ in range(rounds):
        for what, of_way in found.items():
            command = [sys.executable, __file__, str(model), what, str(file)]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            of_way.append(json.loads(ended.stdout))
        print("  ".join(f"{what} {of_way[-1]['seconds']:.1f} s" for what, of_way in found.items()), flush=True)
    for what, name in WAYS.items():
        times = [each["seconds"] for each in found[what]]
        ratio = median(base["seconds"] / one for base, one in zip(found["plain"], times, strict=True))
        cpu, peak = median(each["cpu"] for each in found[what]), median(each["peak_kb"] for each in found[what])
        print(f"{median(times):7.1f} s  {ratio:5.2f} x  {cpu:6.1f} s of CPU  {peak / 1000:5.0f} MB  {name}")


if __name__ == "__main__":
    main()
