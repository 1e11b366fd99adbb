"""Write docs/sql.md: every saved query with its answer, every view and table, on the small registry of the tests.

python docs/sql.py [--check] [--page FILE]
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import known_registry  # noqa: E402

from mlxops import registry  # noqa: E402
from mlxops.registry import Registry, SavedQuery  # noqa: E402
from mlxops.resources import folder  # noqa: E402
from mlxops.ui.run import sql  # noqa: E402
from mlxops.ui.terminal import console  # noqa: E402

WIDTH = 150
GIVEN = {"one": "heron", "other": "otter", "loss": "1.9"}
"""What the examples give to parameters without a default."""

TOLD = {"attempts": {"run": "heron"}, "troubles": {"limit": "2"}, "by_setting": {"setting": "lora_rank"}}
"""What some examples give besides."""

HEAD = """# Asking the registry

<!-- written by docs/sql.py: change that, or db/, and not this page -->

Everything mlxops knows of your runs is in `runs.db`, and SQL asks it:

    inv sql "select name, best_validation_loss from run_summary order by 2"
| command | what it does |
|---|---|
| `inv sql @best_runs` | a saved query |
| `inv sql @attempts --param run=heron` | with a parameter; latest is the newest run |
| `inv sql .queries` | the saved queries there are |
| `inv sql .schema` | tables, views and their columns |

`mlx-toolkit sql` takes `--query NAME`, `--list` and `--schema` for the last four as well.

In a terminal the answer is a table, cut to what fits, of at most 1,000 rows. In a pipe it is CSV. `--format` chooses:
`table`, `csv`, `json`, `jsonl` or `md`. Numbers of all formats but the table have all their digits.

A parameter is `:name` in the text and `--param name=value` on the command line. A value that is written as a number is
one; quote nothing.

Asking cannot change anything: the database is opened for reading, SQLite is asked to refuse all but reading, and no
other database and no extension can be loaded. A query is given up after 30 s (`--timeout`) and ends at once with
Ctrl-C, whatever it is doing; it may take 512 MiB of memory, a value 16 MiB, an answer 256 MiB. `inv run.export` writes
all points. The exit code is 1 for a query that was given up, 2 for one that is wrong, 3 for one that would write.

Any other program that reads SQLite can ask the same: `sqlite3 runs.db`, Datasette, pandas. Saved queries are the files
of [db/queries](../db/queries); in the `sqlite3` program a parameter that is not set takes its default.

The examples are of a small registry made for this page: six runs, of which `heron` was killed and resumed, `otter` had
a warm-up, `wren` diverged, `swift` branched off `heron`, `crane` died, and `kestrel` is `heron` again with a newer MLX.
"""


def main() -> int:
    """Write the page, or say whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where the page is not current")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "sql.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "runs.db"
        known_registry.make(path)
        text = page(path)
    if not options.check:
        options.page.write_text(text, encoding="utf-8")
    elif not options.page.is_file() or options.page.read_text(encoding="utf-8") != text:
        print(f"{options.page.name} is not current: python docs/sql.py writes it again")
        return 1
    return 0


def page(path: Path) -> str:
    """The whole page."""
    parts = [HEAD, "## Saved queries\n", *contents()]
    parts += [part for saved in registry.saved_queries() for part in query(path, saved)]
    with registry.open_read_only(path) as db:
        entries = registry.schema(path)
        parts += [
            "## Views\n",
            "Documented and stable: a column is never renamed or dropped without a major version.\n",
        ]
        parts += [part for entry in entries if entry["kind"] == "view" for part in view(path, entry["name"])]
        parts += ["## Tables\n", "What the views are made of. [db/README.md](../db/README.md) has the promises.\n"]
        parts += [part for entry in entries if entry["kind"] == "table" for part in table(db, entry["name"])]
    return "\n".join(parts)


def contents() -> Iterator[str]:
    """The list of the saved queries."""
    lines = [f"| [@{each.name}](#{each.name}) | {each.question} |" for each in registry.saved_queries()]
    yield "\n".join(["| query | question |", "|---|---|", *lines, ""])


def query(path: Path, saved: SavedQuery) -> Iterator[str]:
    """A saved query: its question, how it is asked, what it answers."""
    given = {name: text for name, text in GIVEN.items() if name in saved.parameters} | TOLD.get(saved.name, {})
    words = ["inv sql", f"@{saved.name}", *(f"--param {name}={text}" for name, text in given.items())]
    yield f"### {saved.name}\n"
    yield f"{saved.question}\n"
    if notes := " ".join(notes_of(saved)):
        yield f"{notes}\n"
    if saved.parameters:
        yield "\n".join([*(f"- `{name}`: {saved.meanings[name]}" for name in saved.parameters), ""])
    # as numbers, where they are some: that is how the command line takes them
    values = {name: float(text) if text.replace(".", "").isdigit() else text for name, text in given.items()}
    found = registry.query(path, saved.sql, dict.fromkeys(saved.parameters) | values)
    yield f"```console\n$ {' '.join(words)}\n{shown(found.columns, found.rows)}```\n"


def notes_of(saved: SavedQuery) -> Iterator[str]:
    """What the head of a saved query says besides its question and its parameters."""
    for line in saved.sql.splitlines()[1:]:
        if not line.startswith("-- "):
            return
        if not line.startswith("-- :"):
            yield line.removeprefix("-- ")


def view(path: Path, name: str) -> Iterator[str]:
    """A view as db/README.md describes it, and its first row."""
    readme = (folder("db") / "README.md").read_text(encoding="utf-8")
    described = readme.partition(f"### {name}\n")[2].partition("\n#")[0].strip()
    found = registry.query(path, f'SELECT * FROM "{name}" LIMIT 1')
    yield f"### {name}\n"
    yield f"{described}\n"
    yield f'```console\n$ inv sql "select * from {name} limit 1"\n{shown(found.columns, found.rows)}```\n'


def table(db: Registry, name: str) -> Iterator[str]:
    """A table with its columns."""
    refers = {row["from"]: f"{row['table']}.{row['to']}" for row in db.rows(f"PRAGMA foreign_key_list({name})")}
    yield f"### {name}\n"
    yield "| column | type | |\n|---|---|---|"
    for row in db.rows(f"PRAGMA table_info({name})"):
        notes = ["key"] if row["pk"] else []
        notes += [f"refers to {refers[row['name']]}"] if row["name"] in refers else []
        notes += ["may be NULL"] if not row["notnull"] and not row["pk"] else []
        yield f"| `{row['name']}` | {row['type']} | {', '.join(notes)} |"
    yield ""


def shown(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """An answer as a terminal shows it."""
    drawn = io.StringIO()
    sql.answer(columns, rows, console.make(file=drawn, width=WIDTH), console.make(file=drawn), format="table")
    return "".join(f"{line.rstrip()}\n" for line in drawn.getvalue().splitlines())


if __name__ == "__main__":
    sys.exit(main())
