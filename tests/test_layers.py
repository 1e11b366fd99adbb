"""The arrows between modules point up the list of DESIGN §2 only."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from commands import ROOT, run_python

PACKAGE = ROOT / "mlxops"
ROWS = [
    {
        "errors",
        "foreign",
        "likeness",
        "lists",
        "hints",
        "resources",
        "system",
        "options",
        "config",
        "events",
        "rows",
        "settings",
        "files",
        "garbage",
        "recipe",
        "tensors",
        "texts",
        "layout",
        "times",
        "words",
    },
    {
        *(
            "registry",
            "projects",
            "models",
            "adapters",
            "data",
            "training",
            "evaluation",
            "analysis",
            "chat",
            "serving",
        ),
        "web",
    },
    {"jobs", "ui"},
    {"tasks"},
    {"__main__"},
]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
HEAVY = ["mlx", "mlx_lm", "transformers", "rich", "numpy", "sqlite_utils", "huggingface_hub", "gguf"]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@dataclass(frozen=True)
class Source:
    """What the tests ask of a module, read once."""

    imports: frozenset[str]
    imports_at_run_time: frozenset[str]
    of_a_system: tuple[str, ...]


@cache
def source(file: Path) -> Source:
    """What a module imports, and what it asks a system for."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [node for each in tree.body if not is_type_checking(each) for node in ast.walk(each)]
    for_types = [node for each in tree.body if is_type_checking(each) for node in ast.walk(each)]
    at_run_time = imports_among(nodes, file)
    return Source(at_run_time | imports_among(for_types, file), at_run_time, system_among([*nodes, *for_types]))


def imports_among(nodes: Iterable[ast.AST], file: Path) -> frozenset[str]:
    """Every module that is imported, also inside functions, by its full name."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def part_of(module: str) -> str | None:
    """The first part of a name inside mlxops, None for what is outside or the package itself."""
    words = module.split(".")
    return words[1] if words[0] == "mlxops" and len(words) > 1 and words[1] in ROW_OF else None


FILES = {
    file: file.relative_to(PACKAGE).with_suffix("").parts[0]
    for file in PACKAGE.rglob("*.py")
    if file != PACKAGE / "__init__.py"
}


@cache
def arrows() -> set[tuple[str, str, str]]:
    """Each import between parts: the file, its part, and the part it imports."""
    return {
        (file.relative_to(ROOT).as_posix(), importer, imported)
        for file, importer in FILES.items()
        for imported in filter(None, map(part_of, source(file).imports))
    }


def test_every_module_stands_in_a_row() -> None:
    assert set(FILES.values()) <= set(ROW_OF)


def test_arrows_point_up_only() -> None:
    assert [arrow for arrow in arrows() if ROW_OF[arrow[1]] < ROW_OF[arrow[2]]] == []


def test_packages_of_row_1_do_not_import_each_other() -> None:
    inside = [arrow for arrow in arrows() if {arrow[1], arrow[2]} <= ROWS[1]]

    assert [arrow for arrow in inside if arrow[1] != arrow[2]] == []


def test_drawings_name_the_types_of_jobs_and_call_none() -> None:
    drawings = [file for file, part in FILES.items() if part == "ui"]

    assert {part_of(name) for file in drawings for name in source(file).imports_at_run_time} & {"jobs"} == set()
    assert {part_of(name) for file in drawings for name in source(file).imports} & {"jobs"} == {"jobs"}


def test_jobs_draw_nothing() -> None:
    assert [arrow for arrow in arrows() if arrow[1:] == ("jobs", "ui")] == []


def test_only_the_registry_opens_sqlite() -> None:
    users = {
        importer
        for file, importer in FILES.items()
        if {name.split(".")[0] for name in source(file).imports} & {"sqlite3", "sqlite_utils"}
    }

    assert users == {"registry"}


def test_only_tasks_and_the_program_know_invoke() -> None:
    users = {
        importer
        for file, importer in FILES.items()
        if any(name.split(".")[0] == "invoke" for name in source(file).imports)
    }

    assert users == {"tasks", "__main__"}


_OF_A_SYSTEM = (
    *("sys.platform", "platform.system", "platform.node", "platform.mac_ver", "platform.release", "os.uname().sysname"),
    *("os.pidfd_open", "signal.pidfd_send_signal", "os.sched_getaffinity", "fcntl.F_FULLFSYNC", "fcntl.flock"),
)
_PLACES = (
    "/proc/",
    "/sys/",
    "/usr/sbin/sysctl",
    "sysctl",
    "caffeinate",
    "/usr/bin/caffeinate",
    "/usr/bin/xcode-select",
)


def system_among(nodes: Sequence[ast.AST]) -> tuple[str, ...]:
    """What is asked of a system that another does not have, and its programs and places by name."""
    last = {each.rpartition(".")[2] for each in _OF_A_SYSTEM}
    asked = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and node.attr in last]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return (
        *(each for each in asked if each in _OF_A_SYSTEM),
        *(each for each in texts if each in _PLACES or each.startswith(("/proc/", "/sys/"))),
    )


def test_one_package_knows_the_operating_system() -> None:
    found = {file.relative_to(PACKAGE).as_posix(): source(file).of_a_system for file in FILES}

    assert {file: found[file] for file in found if found[file] and not file.startswith("system/")} == {}
    assert len({file for file in found if found[file]}) > 3


def test_modules_are_shorter_than_400_lines() -> None:
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}

    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_listing_the_tasks_imports_nothing_heavy() -> None:
    Path("tasks.py").write_text("from mlxops.tasks import namespace\n")
    program = "import sys, invoke.main; invoke.main.program.run(['inv', '--list'], exit=False)"

    code, out, _ = run_python("-c", f"{program}; print('loaded:', *set(sys.modules) & set({HEAVY!r}))")

    assert code == 0
    assert "train.lora" in out
    assert out.splitlines()[-1] == "loaded:"
