import ast
import re
from pathlib import Path

from mlxops import hints
from mlxops.tasks import namespace, spelling
from mlxops.tasks.planned import OTHER_NAMES


def test_a_line_breaks_at_words_and_a_command_in_it_stays_whole():
    said = "hint: another name starts a new run, `inv lora --name other` does, and (`inv runs`) lists them"

    assert hints.folded(said, 40).split("\n") == [
        "hint: another name starts a new run,",
        "`inv lora --name other` does, and",
        "(`inv runs`) lists them",
    ]


def test_what_fits_and_commands_on_lines_of_their_own_stay_as_they_are():
    said = "no run\n  inv lora --model models/a-model --data data --iters 1000 --learning-rate 1e-4\nx" + "y" * 90

    assert hints.folded(said, 40) == said


def test_a_number_stays_with_its_unit():
    assert hints.folded("the page is 84.5 kB, 12 % more", 15).split("\n") == ["the page is", "84.5 kB, 12 %", "more"]


def test_a_line_that_is_indented_goes_on_below_itself():
    assert hints.folded("  one two three", 9) == "  one two\n  three"


def test_a_backtick_alone_is_a_letter():
    assert hints.folded("it's ` here and there", 12) == "it's ` here\nand there"


def test_wide_letters_take_two_columns() -> None:
    assert hints.folded("no run 京都の夏 here", 12).split("\n") == ["no run", "京都の夏", "here"]


def texts_of(file):
    """Every text of a module that is no docstring, with `…` for what is filled in."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    pieces = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
    pieces |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            yield node.value


def flags_of(task):
    found = {*spelling.flags_of(namespace[task], task), "--help"}
    return found | {f"--no-{option.name.replace('_', '-')}" for option in namespace[task].options if option.default}


def unknown_in(command):
    """The task or the options of a command that are not there, None where all are."""
    program, *words = command.replace("(", "").split()
    if program not in ("inv", "mlx-toolkit"):
        others = ("git", "hf", "./install.sh", "wsl", "pip", "uv", "…", "python")
        taken, words = EVERY_FLAG, [program, *words] if program not in others else []
    elif not words or words[0].startswith(("-", "…", "TASK", "T")):
        return None
    elif words[0] not in namespace.task_names:
        return words[0]
    else:
        taken = flags_of(words[0])
    options = [word.partition("=")[0].rstrip(",.") for word in words if word.startswith("--") and "…" not in word]
    return next((option for option in options if option not in taken), None)


EVERY_FLAG = {flag for task in namespace.task_names for flag in flags_of(task)}
OF_OTHERS = {"--add-to-path", "--dry", "--learning_rate"}
"""Options of the installer and of Invoke, and one as a person mistypes it."""


def test_every_command_that_is_named_has_its_task_and_its_options():
    package = Path(hints.__file__).parent
    commands = {
        (file.relative_to(package).as_posix(), command)
        for file in package.rglob("*.py")
        for text in texts_of(file)
        for command in re.findall(r"`([^`]+)`", text)
    }
    unknown = {(file, command, unknown_in(command)) for file, command in commands}

    commands |= {("tasks/planned.py", f"inv {task}") for task in OTHER_NAMES.values()}

    assert len(commands) > 300
    assert {each for each in unknown if each[2] not in {None, *OF_OTHERS}} == set()
