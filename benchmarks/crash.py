"""Kills training 100 times with SIGKILL and compares what comes out with runs that nobody touched.

    python benchmarks/crash.py [--kills 100] [--seed 0] [--model FOLDER]

A training is killed at a random instant and started again by the same command, until it is finished. Every other kill
falls inside the checkpoint writer, at one of its instants; the rest anywhere between the first step and the end.
The clock's cases save by it as well, which the uninterrupted run does not. Those with files keep the hidden states that
enter the first trained layer in files, of which some are removed or damaged between two attempts.
Then the adapters' bytes and all metrics that are no wall-clock figures have to be those of the uninterrupted run, and
every start has to have resumed from the newest whole checkpoint. Ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import training_runs
from training_runs import Command

from mlxops.models.tiny import make_tiny

SAVE_EVERY = 4
INSTANTS = 29
"""The instants of writing one checkpoint at which it can be killed."""

# The target is off every grid: the report's, the validation's, the checkpoints' and that of the accumulation.
COMMON = [
    *("--iters", "14", "--save-every", str(SAVE_EVERY), "--steps-per-report", "3", "--steps-per-eval", "5"),
    *("--val-batches", "2", "--batch-size", "2", "--num-layers", "2"),
]
FEATURES = {
    "dropout": ["--lora-dropout", "0.1"],
    "accumulation": ["--grad-accumulation-steps", "3"],
    "checkpointing": ["--grad-checkpoint"],
    "cosine": ["--lr-schedule", "cosine_decay", "--warmup", "3"],
    "clock": ["--save-minutes", "0.0001"],
    "split": ["--data", "talks"],
    "files": ["--memory-limit", "0.0001"],
}
"""`files` leaves no memory for hidden states, which are then written to files."""
ON_THE_WAY = {"clock", "files"}
"""Features of which the uninterrupted run has none."""
THINKING = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.last %}A thought. {% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""A chat template that writes a thought in the last turn alone, so that every conversation of `talks` is two rows."""
OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor")


@dataclass(frozen=True)
class Case:
    """One way to train."""

    optimizer: str
    features: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """What is typed for it."""
        return ["--optimizer", self.optimizer, *(word for name in self.features for word in FEATURES[name])]

    def typed(self, common: Sequence[str]) -> list[str]:
        """What is typed for it after what is common to all; split conversations take the model that splits them."""
        words = [*common, *self.options]
        if "split" in self.features:
            words[words.index("--model") + 1] = "thinks"
        return words

    @property
    def by_the_clock(self) -> bool:
        """Whether checkpoints are saved that the uninterrupted run, which is without a clock, does not have."""
        return "clock" in self.features

    @property
    def name(self) -> str:
        """Its name in the table and of its runs."""
        return "-".join([self.optimizer, *self.features])


@dataclass
class Count:
    """What was seen of one case; `overtrained` holds the iterations beyond the target by run, and how many may be."""

    kills: int = 0
    in_writer: int = 0
    runs: int = 0
    exact: int = 0
    overtrained: list[tuple[int, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def extra(self) -> int:
        """The iterations trained more than once."""
        return sum(extra for extra, _ in self.overtrained)

    @property
    def allowed(self) -> int:
        """The iterations that these kills may cost."""
        return sum(allowed for _, allowed in self.overtrained)

    @property
    def is_good(self) -> bool:
        """Whether all that is promised held."""
        within = all(extra <= allowed for extra, allowed in self.overtrained)
        return self.runs > 0 and self.exact == self.runs and within and not self.faults


def cases() -> list[Case]:
    """Every optimizer with every feature, in two runs whose features go together differently for each."""
    names = list(FEATURES)
    found = []
    for number, optimizer in enumerate(OPTIMIZERS):
        turned = names[number % len(names) :] + names[: number % len(names)]
        found += [Case(optimizer, tuple(turned[:3])), Case(optimizer, tuple(turned[3:] + turned[:1]))]
    return found


def add_split_conversations(project: Path, model: Path) -> None:
    """Add `talks`, conversations of two turns, to a project, and `thinks`, a model whose template splits them."""
    (project / "thinks").mkdir()
    for file in model.iterdir():
        if file.name != "chat_template.jinja":
            (project / "thinks" / file.name).symlink_to(file.resolve())
    (project / "thinks" / "chat_template.jinja").write_text(THINKING, encoding="utf-8")
    (project / "talks").mkdir()
    for file in (project / "data").iterdir():
        talks = [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({"messages": [*one, *other]}) for one, other in pairwise(talks)]
        (project / "talks" / file.name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def check(project: Path, case: Case, kills: int, chance: random.Random, options: Sequence[str]) -> Count:
    """Kill runs of a case so many times in all, and compare each with the uninterrupted one."""
    by_itself = replace(case, features=tuple(name for name in case.features if name not in ON_THE_WAY))
    straight = [*by_itself.typed(options), "--name"]
    options = [*case.typed(options), "--name"]
    whole = f"{case.name}-whole"
    begun = time.perf_counter()
    command = Command(project, [*straight, whole])
    command.wait_for_training()
    training = time.perf_counter()
    ended = command.wait()
    seconds = time.perf_counter() - training
    if ended.code:
        raise SystemExit(f"the uninterrupted run failed after {training - begun:.1f} s:\n{ended.said}")
    expected = training_runs.result(project, whole)

    count = Count()
    while count.kills < kills:
        name = f"{case.name}-{count.runs}"
        before, killed = training_runs.steps_trained(project), count.kills
        starts = list(killing(project, [*options, name], name, seconds, kills, chance, count))
        went_on = [attempt["from_iteration"] for attempt in training_runs.attempts(project, name)]
        # one that was killed after its last checkpoint has nothing left to train
        if went_on != [start for start in starts if start < expected["run"]["iteration"]]:
            count.faults.append(f"{name} resumed from {went_on}, the newest checkpoints were at {starts}")
        count.runs += 1
        got = training_runs.result(project, name)
        wanted = {row["iteration"] for row in expected["checkpoints"]}
        others = [row for row in got["checkpoints"] if row["iteration"] not in wanted]
        got["checkpoints"] = [row for row in got["checkpoints"] if row["iteration"] in wanted]
        if bool(others) != case.by_the_clock:
            count.faults.append(f"{name} has {len(others)} checkpoints beside those of the uninterrupted run")
        count.exact += got == expected
        count.faults += [f"{name} differs in {part}" for part in expected if got[part] != expected[part]]
        extra = training_runs.steps_trained(project) - before - expected["run"]["iteration"]
        count.overtrained.append((extra, (count.kills - killed) * SAVE_EVERY))
    return count


def killing(
    project: Path, options: Sequence[str], name: str, seconds: float, kills: int, chance: random.Random, count: Count
) -> Iterator[int]:
    """Start a run again and again, killing it while there are kills left, until it is finished.

    Gives for each start where it has to continue: the newest checkpoint on disk before it.
    """
    while True:
        newest = training_runs.newest_checkpoint(project, name)
        spoil(project, chance)
        in_writer = count.kills < kills and count.kills % 2 == 0
        first = partial(training_runs.die_in_the_writer, chance.randint(1, 2 * INSTANTS)) if in_writer else None
        command = Command(project, options, first)
        command.wait_for_training()
        if count.kills < kills and not in_writer:
            time.sleep(chance.uniform(0, seconds))
            command.kill()
        ended = command.wait()
        yield newest
        if ended.code == 0:
            return
        if ended.code != -9:
            count.faults.append(f"{name} ended with {ended.code}: {ended.said}")
            return
        count.kills += 1
        count.in_writer += in_writer or any((project / "adapters" / name).glob(".*.partial*"))


def spoil(project: Path, chance: random.Random) -> None:
    """Remove some of the files with hidden states, and change a byte of others."""
    for file in sorted((project / ".mlxops" / "prefix").glob("*/*")):
        what = chance.randrange(4)
        if what == 0:
            file.unlink()
        elif what == 1:
            content = bytearray(file.read_bytes())
            content[chance.randrange(len(content))] ^= 255
            file.write_bytes(content)


def show(name: str, count: Count) -> None:
    """One line of the table."""
    print(
        f"{name:44} {count.kills:5} {count.in_writer:9} {count.runs:4} {count.exact:5} "
        f"{count.extra:6} of {count.allowed:4} {'' if count.is_good else 'FAILED'}",
        flush=True,
    )


def main() -> int:
    """Kill, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the instants")
    parser.add_argument("--model", type=Path, help="train this model instead of a tiny one")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    print(f"{'':44} kills in writer runs exact trained twice")
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or make_tiny(Path(folder) / "tiny")
        project = training_runs.make_project(Path(folder) / "project")
        add_split_conversations(project, model)
        options = ["--model", str(model.resolve()), *COMMON, "--learning-rate", "1e-4" if arguments.model else "3e-3"]
        every = cases()
        for number, case in enumerate(every):
            kills = arguments.kills // len(every) + (number < arguments.kills % len(every))
            if kills:
                counts.append(check(project, case, kills, chance, options))
                show(case.name, counts[-1])
    total = Count(
        kills=sum(each.kills for each in counts),
        in_writer=sum(each.in_writer for each in counts),
        runs=sum(each.runs for each in counts),
        exact=sum(each.exact for each in counts),
        overtrained=[pair for each in counts for pair in each.overtrained],
        faults=[fault for each in counts for fault in each.faults],
    )
    show("all", total)
    print(*total.faults, sep="\n", end="\n" if total.faults else "")
    return int(not total.is_good)


if __name__ == "__main__":
    sys.exit(main())
