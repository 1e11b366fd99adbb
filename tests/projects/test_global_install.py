"""`./install.sh` in an empty home with a bare PATH, what it makes there, and that it takes away exactly that."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from commands import CACHE, ROOT, start_in_a_group
from known_runs import new_run
from linked_wheels import write_linked_wheels
from shared_folders import Shared
from small_checkouts import UV, shell_or_skip

from mlxops import registry
from mlxops.models.tiny import make_tiny
from mlxops.projects import environment, shells

pytestmark = pytest.mark.slow

_SHIPPED = ("mlxops", "db", "templates", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "install.sh")


class Home:
    """An empty home folder of a person with a bare PATH, and a clone to install from."""

    def __init__(self, folder: Path, clone: Path, wheels: Path, *, has_uv: bool) -> None:
        self.folder, self.clone = folder / "home of a person", clone
        self.folder.mkdir()
        bin = folder / "bin"
        bin.mkdir()
        (bin / "python3").symlink_to(environment.own_python())
        if has_uv:
            (bin / "uv").symlink_to(UV)
        self.environment = {
            "HOME": str(self.folder),
            "PATH": f"{bin}:/usr/bin:/bin",
            "SHELL": "/bin/bash",
            "TERM": "dumb",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "OPENBLAS_NUM_THREADS": "1",
        }

    def start(self, *words: str | Path, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
        return start_in_a_group(words, folder=cwd or self.folder, environment={**self.environment, **more})

    def run(self, *words: str | Path, cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
        started = self.start(*words, cwd=cwd, **more)
        out, err = started.communicate()
        return started.returncode, out, err

    def install(self, *options: str, **more: str) -> tuple[int, str, str]:
        return self.run(self.clone / "install.sh", *options, **more)

    def tops(self) -> set[str]:
        """What is directly in the home folder and in .local, the user cache left out."""
        found = {each.relative_to(self.folder).as_posix() for each in self.folder.glob("*")}
        found |= {each.relative_to(self.folder).as_posix() for each in self.folder.glob(".local/*")}
        return found - {".cache"}


@pytest.fixture(scope="module")
def wheels(shared: Shared) -> Path:
    return shared("linked-wheels", write_linked_wheels)


@pytest.fixture(scope="module")
def links(shared: Shared) -> Path:
    """Wheels that are links, all of them: pip takes four seconds to write and compile the files of the light ones."""
    return shared("links", partial(write_linked_wheels, has_light_whole=False))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone has of this repository, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a clone of mlxops")
    for name in _SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, clone: Path, wheels: Path) -> Home:
    home = Home(tmp_path_factory.mktemp("installed"), clone, wheels, has_uv=True)
    code, _, err = home.install("--add-to-path")
    assert code == 0, err
    return home


def typed(home: Home, command: str, cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
    """What a person types into an interactive bash, which has read its profile."""
    code, out, err = home.run("/bin/bash", "-ic", command, cwd=cwd, **more)
    return code, out, "".join(line for line in err.splitlines(keepends=True) if not line.startswith("bash: "))


def test_it_writes_the_prefix_programs_and_one_line_of_a_profile(installed: Home) -> None:
    assert {".mlx-toolkit", ".local", ".local/bin", ".bashrc"} <= installed.tops()
    assert sorted(each.name for each in (installed.folder / ".local/bin").iterdir()) == [
        "inv",
        "mlx-toolkit",
        "mlx-toolkit-update",
    ]
    assert (installed.folder / ".bashrc").read_text().splitlines() == [
        shells.line("bash", installed.folder / ".mlx-toolkit" / "shell")
    ]
    assert [each.name.split("-")[0] for each in (installed.folder / ".mlx-toolkit/wheels").iterdir()] == ["mlxops"]


def test_the_environment_is_light(installed: Home) -> None:
    packages = installed.folder.glob(".mlx-toolkit/env/lib/python*/site-packages/*.dist-info")
    names = {each.name.split("-")[0] for each in packages}

    assert names >= {"invoke", "mlxops", "rich", "sqlite_utils"}
    assert names & {"mlx", "mlx_lm", "mlx_cpu", "numpy", "transformers", "tokenizers"} == set()


def test_a_second_time_says_that_all_is_there_and_writes_the_line_once(installed: Home) -> None:
    profile = (installed.folder / ".bashrc").read_text()

    code, out, err = installed.install("install", "--add-to-path")

    assert (code, (installed.folder / ".bashrc").read_text()) == (0, profile)
    assert "has the line already" in err
    assert "installing mlxops" not in err
    assert out.startswith("mlx-toolkit ")


def test_a_second_installation_elsewhere_names_the_first(installed: Home) -> None:
    code, _, err = installed.install("--prefix", "elsewhere")

    first = shlex.quote(str(installed.folder / ".mlx-toolkit"))
    assert code == 3
    assert f"belongs to the installation in {first}\nhint: ./install.sh --prefix {first} --uninstall" in err
    assert not (installed.folder / "elsewhere").exists()


def test_from_nothing_to_a_training_with_no_environment_activated_by_hand(installed: Home) -> None:
    # what takes 20 seconds to compile is made once a machine
    cache = installed.folder / ".cache" / "mlxops"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("blas", "kernels"):
        (cache / name).symlink_to(CACHE / name)
    before = installed.tops()

    made = typed(installed, "mlx-toolkit init 'my project' && cd 'my project' && inv install-deps")
    project = installed.folder / "my project"
    make_tiny(project / "models" / "tiny")
    other = installed.folder.parent / "other"
    subprocess.run([UV, "venv", "--quiet", "--python", environment.own_python(), other], check=True)
    training = "lora --model tiny --iters 1 --num-layers 2 --samples 0 --name"
    activate = f". '{other}/bin/activate'"
    by_inv = typed(installed, f"{activate}; inv {training} one", cwd=project / "data")
    by_program = typed(installed, f"{activate}; mlx-toolkit {training} two", cwd=project / "data")

    assert made[0] == 0, made[2]
    assert "state     complete" in made[1]
    assert (by_inv[0], by_program[0]) == (0, 0), by_inv[2] + by_program[2]
    with closing(sqlite3.connect(project / "runs.db")) as db, db:
        assert db.execute("SELECT name, status FROM runs ORDER BY name").fetchall() == [
            ("one", "completed"),
            ("two", "completed"),
        ]
        assert db.execute("SELECT count(*) FROM environments").fetchall() == [(1,)]
    assert "mlx==" in (project / "requirements.lock").read_text()
    assert installed.tops() - before == {"my project"}
    again = typed(installed, "mlx-toolkit install-deps --json", cwd=project)
    assert json.loads(again[1])["was_up_to_date"] is True


def test_an_inv_with_a_bare_tasks_py_enters_the_environment_too(installed: Home, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "entered: $*"\n')
    python.chmod(0o755)
    (tmp_path / ".venv/lib/python3.11/site-packages/mlxops-1.dist-info").mkdir(parents=True)
    make_tiny(tmp_path / "models" / "tiny")

    assert typed(installed, "inv model.info tiny", cwd=tmp_path)[1] == "entered: -P -m invoke model.info tiny\n"
    shutil.rmtree(tmp_path / ".venv")
    code, _, err = typed(installed, "inv model.info tiny", cwd=tmp_path)
    assert code == 1
    assert err.startswith("this needs the package ")
    assert err.endswith("hint: `inv install-deps` makes the project's own environment, which has it\n")


def test_pip_installs_it_too_and_a_killed_run_is_completed_and_removed(
    tmp_path: Path, clone: Path, links: Path
) -> None:
    home = Home(tmp_path, clone, links, has_uv=False)
    mine = tmp_path / "bin" / "inv"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    (home.folder / ".bashrc").write_text("alias ll='ls -l'")
    first = home.start(clone / "install.sh", "--prefix", "the prefix")
    assert first.stderr is not None
    assert any(line.startswith("2/4") for line in first.stderr)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()

    code, out, err = home.install("--prefix", "the prefix", "--add-to-path")

    assert code == 0, err
    assert f"is installed in {home.folder}/the prefix" in out
    assert sorted(each.name for each in (home.folder / ".local/bin").iterdir()) == ["mlx-toolkit", "mlx-toolkit-update"]
    assert typed(home, "mlx-toolkit --version")[1].startswith("mlx-toolkit ")
    (home.folder / "the prefix/env").rename(home.folder / "the prefix/away")
    gone = typed(home, "mlx-toolkit --version")
    (home.folder / "the prefix/away").rename(home.folder / "the prefix/env")
    assert (gone[0], gone[2].splitlines()[1]) == (
        1,
        f"hint: '{clone}/install.sh' --prefix '{home.folder}/the prefix' installs it again",
    )
    (home.folder / ".local/bin/mine").write_text("a program of the person's")
    assert home.install("--uninstall", "--prefix", "the prefix")[0] == 0
    assert home.tops() == {".bashrc", ".local", ".local/bin"}
    assert [each.name for each in (home.folder / ".local/bin").iterdir()] == ["mine"]
    assert (home.folder / ".bashrc").read_text() == "alias ll='ls -l'\n"
    assert "nothing is installed in" in home.install("--uninstall")[2]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--prefx", "x"], 2, "install has no option '--prefx'"),
        (["--prefix"], 2, "--prefix"),
        (["--prefix", "full"], 3, "full holds other things"),
        ([], 3, "mlx-toolkit is there and was not made here"),
        (["--add-to-path", "--prefix", "other"], 2, "SHELL is '/bin/tcsh'"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    tmp_path: Path, clone: Path, wheels: Path, options: list[str], code: int, words: str
) -> None:
    home = Home(tmp_path, clone, wheels, has_uv=True)
    (home.folder / "full").mkdir()
    (home.folder / "full" / "mine").write_text("x")
    (home.folder / ".local/bin").mkdir(parents=True)
    (home.folder / ".local/bin/mlx-toolkit").write_text("the older toolkit")
    before = sorted(home.folder.rglob("*"))

    ended = home.install(*options, SHELL="/bin/tcsh")

    assert (ended[0], ended[1]) == (code, "")
    assert words in ended[2]
    assert "Traceback" not in ended[2]
    assert sorted(home.folder.rglob("*")) == before


def test_a_prefix_that_cannot_be_made_is_a_sentence(tmp_path: Path, clone: Path, wheels: Path) -> None:
    home = Home(tmp_path, clone, wheels, has_uv=True)

    code, _, err = home.install("--prefix", "/dev/null/prefix")

    assert (code, err.splitlines()[-1]) == (1, "/dev/null/prefix cannot be written: Not a directory")
    assert home.tops() == set()


# ----------------------------------------------------------------------------------------------------- completion


def type_keys(home: Home, program: list[str], keys: str, cwd: Path, **more: str) -> str:
    """Type keys into an interactive program on a terminal of its own, until it ends."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(program[0], program, {**home.environment, **more})
    os.write(terminal, keys.encode())
    said = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # of Linux, when the program has ended
            break
        if not piece:
            break
        said += piece
    os.waitpid(child, 0)
    os.close(terminal)
    return said.decode("utf-8", "replace")


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_tab_completes_tasks_options_and_values(installed: Home, name: str, tmp_path: Path) -> None:
    shell = shell_or_skip(name)
    line = shells.line(name, installed.folder / ".mlx-toolkit" / "shell")
    (tmp_path / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    (tmp_path / ".zshrc").write_text(f"{line}\n")
    (tmp_path / "bashrc").write_text(f"{line}\n")
    options = ["--rcfile", str(tmp_path / "bashrc")] if name == "bash" else []
    with registry.open_registry(tmp_path / "runs.db") as db:
        run = new_run(db, "heron")
        registry.change_tags(db, run.id, add=["fast"], remove=[])
        files = {"adapter_file": "a", "state_file": None, "adapter_sha256": "", "state_sha256": None}
        registry.add_checkpoint(db, run.id, None, iteration=40, bytes=1, **files)
    keys = "mlx-toolkit list-t\t--js\t> templates\rinv run.sh\the\t--js\t> shown\r"
    keys += "mlx-toolkit sql @endi\t> endings\rinv runs --status=c\tr\t--js\t> runs\r"
    keys += "inv runs --tag fa\t--js\t> tagged\rinv run.show heron:4\t2> place\rexit\r"

    said = type_keys(installed, [shell, *options, "-i"], keys, tmp_path, ZDOTDIR=str(tmp_path))

    assert (tmp_path / "templates").exists(), said
    assert {each["name"] for each in json.loads((tmp_path / "templates").read_text())} >= {"basic", "advanced"}
    assert "heron" in (tmp_path / "shown").read_text(), said
    assert json.loads((tmp_path / "shown").read_text())["run"]["name"] == "heron"
    assert (tmp_path / "endings").read_text().startswith("end_reason")
    assert [each["name"] for each in json.loads((tmp_path / "runs").read_text())] == ["heron"]
    assert [each["tags"] for each in json.loads((tmp_path / "tagged").read_text())] == ["fast"]
    assert (tmp_path / "place").read_text().startswith("no run 'heron:40'"), said


def test_fish_completes_tasks_options_values_and_files(installed: Home, tmp_path: Path) -> None:
    fish = shell_or_skip("fish")
    script = shells.line("fish", installed.folder / ".mlx-toolkit" / "shell")
    (tmp_path / "a file").write_text("")

    asked = ["mlx-toolkit list-t", "mlx-toolkit lora --grad-c", f"mlx-toolkit lora --model {tmp_path}/a"]
    asked += ["mlx-toolkit sql @endi", "mlx-toolkit lora --optimizer=adaf"]
    answers = [
        installed.run(fish, "-c", f"{script}; complete -C {words!r}")[1].split("\t")[0].strip() for words in asked
    ]

    assert answers[0] == "list-templates"
    assert answers[1] == "--grad-checkpoint"
    assert answers[2].endswith("a file") or answers[2].endswith("a\\ file")
    assert answers[3:] == ["@endings", "--optimizer=adafactor"]


def test_completion_imports_nothing_heavy(installed: Home) -> None:
    python = installed.folder / ".mlx-toolkit/env/bin/python"
    program = (
        "import atexit, sys; sys.argv = ['mlx-toolkit', '--complete', '--', 'mlx-toolkit', 'lora', '--']; "
        "atexit.register(lambda: print(*sys.modules)); from mlxops.__main__ import main; main()"
    )

    code, out, err = installed.run(python, "-P", "-c", program)

    assert code == 0, err
    assert "--batch-size" in out
    assert set(out.splitlines()[-1].split()) & {"rich", "sqlite_utils", "huggingface_hub", "psutil"} == set()
