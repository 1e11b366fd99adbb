"""Each check of `doctor` on facts as they are on Macs, in containers and on machines that are short of something."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import mac
import pytest
from commands import run_python

from mlxops.projects import accelerator, diagnosis, examination, packages
from mlxops.projects.accelerator import Accelerator
from mlxops.projects.diagnosis import Finding
from mlxops.projects.facts import (
    ComputeFacts,
    EnvironmentFacts,
    HubFacts,
    MachineFacts,
    PathFacts,
    PermissionFacts,
    PlaceFacts,
    SystemFacts,
)
from mlxops.projects.interpreter import Interpreter
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

GB = 10**9
LINUX = Interpreter(
    path="/p/.venv/bin/python", version=(3, 13), implementation="CPython", bits=64, system="linux", machine="x86_64",
    glibc=(2, 36),
)  # fmt: skip
MAC = replace(LINUX, system="darwin", machine="arm64", macos=(15, 1), glibc=None)
INTEL = replace(MAC, machine="x86_64")

CPU = {"mlx": "0.32.4", "mlx-cpu": "0.32.4", "mlxops": "0.2.0"}
WHOLE = EnvironmentFacts(folder=".venv", is_own=True, python="3.13.1", versions=CPU, backends=("cpu",))
METAL = replace(WHOLE, versions={"mlx": "0.32.4", "mlx-metal": "0.32.4"}, backends=("metal",))
CUDA = replace(WHOLE, versions={"mlx": "0.32.4", "mlx-cuda-13": "0.32.4"}, backends=("cuda13",))
H100 = Accelerator(kind="nvidia", name="H100", driver="580.1")
COMPUTES = ComputeFacts(device="cpu", blas="openblas", flops=1.5e11)
MACHINE = MachineFacts(
    on_macos=False, memory=32 * GB, memory_free=20 * GB, disks={"the project": 100 * GB}, compiler="/usr/bin/g++"
)
A_MAC = replace(MACHINE, on_macos=True, compiler="/usr/bin/clang++")
PATH = PathFacts(
    folders=("/home/me/.local/bin", "/usr/bin"),
    found={"mlx-toolkit": (("/home/me/.local/bin/mlx-toolkit", True),), "inv": ()},
    own_folder="/home/me/.mlx-toolkit/bin",
    home_folder="/home/me/.local/bin",
    home_programs=("mlx-toolkit",),
    shell="zsh",
)


def row(found: Finding, level: str, *said: str) -> tuple[Finding, str, tuple[str, ...]]:
    """A finding, how bad it should be, and what should be said in it or in its cure."""
    return found, level, said


TABLE = [
    row(diagnosis.check_system(SystemFacts(python=LINUX)), "ok", "CPython 3.13, Linux on x86_64"),
    row(diagnosis.check_system(SystemFacts(python=MAC, has_apple_silicon=True)), "ok", "macOS 15.1 on arm64"),
    row(
        diagnosis.check_system(SystemFacts(python=INTEL, has_apple_silicon=True, is_translated=True)),
        "broken",
        "runs under Rosetta",
        "brew install python@3.13",
    ),
    row(diagnosis.check_system(SystemFacts(python=INTEL)), "broken", "Intel Mac", "Apple silicon, or on Linux"),
    row(diagnosis.check_system(SystemFacts(python=replace(MAC, macos=(13, 6)))), "broken", "needs macOS 14", "13.6"),
    row(diagnosis.check_system(SystemFacts(python=replace(LINUX, glibc=None))), "broken", "musl", "Debian"),
    row(diagnosis.check_system(SystemFacts(python=replace(LINUX, glibc=(2, 31)))), "broken", "glibc 2.35"),
    row(diagnosis.check_system(SystemFacts(python=replace(LINUX, machine="riscv64"))), "broken", "riscv64"),
    row(diagnosis.check_system(SystemFacts(python=replace(LINUX, version=(3, 10)))), "broken", "is Python 3.10"),
    row(diagnosis.check_system(SystemFacts(python=replace(LINUX, lacks=("venv",)))), "broken", "python3.13-venv"),
    row(diagnosis.check_path(PATH), "ok", "/home/me/.local/bin/mlx-toolkit"),
    row(
        diagnosis.check_path(replace(PATH, folders=("/usr/bin",), found={})),
        "warning",
        "/home/me/.local/bin is not in PATH, and mlx-toolkit is there",
        'add to ~/.zshrc: export PATH="/home/me/.local/bin:$PATH"',
    ),
    row(
        diagnosis.check_path(replace(PATH, found={"mlx-toolkit": (("/opt/mlx-toolkit", False), ("/b/inv", True))})),
        "warning",
        "/opt/mlx-toolkit is found first and is another program",
        "type -a mlx-toolkit",
    ),
    row(
        diagnosis.check_system(
            SystemFacts(python=replace(INTEL, is_universal=True, is_translated=True), is_translated=True)
        ),
        "broken",
        "has code for Apple silicon",
        "arch -arm64",
    ),
    row(
        diagnosis.check_path(replace(PATH, found={}, home_programs=(), shell="fish")),
        "warning",
        "neither",
        "fish_add_path /home/me/.mlx-toolkit/bin",
    ),
    row(diagnosis.check_environment(WHOLE), "ok", ".venv, Python 3.13.1, mlxops 0.2.0, mlx 0.32.4"),
    row(diagnosis.check_environment(replace(WHOLE, python=None)), "broken", "does not run", "inv install-deps"),
    row(diagnosis.check_environment(replace(WHOLE, python=None, is_dangling=True)), "broken", "a link to nowhere"),
    row(diagnosis.check_environment(replace(WHOLE, python="3.9.2")), "broken", "Python is 3.9.2", "--python"),
    row(diagnosis.check_environment(replace(WHOLE, state="filling")), "broken", "was cut off", "completes it"),
    row(diagnosis.check_environment(replace(WHOLE, is_damaged=True)), "broken", "missing or cut off"),
    row(diagnosis.check_environment(replace(WHOLE, hidden=("_mlxops.pth",))), "broken", "macOS hides _mlxops.pth"),
    row(
        diagnosis.check_environment(replace(WHOLE, conflicts=("a 1 requires b, which is not installed.", "c"))),
        "broken",
        "requires b",
        "and 1 more",
    ),
    row(diagnosis.check_environment(replace(WHOLE, made_in="/elsewhere/.venv")), "warning", "made in /elsewhere"),
    row(diagnosis.check_environment(replace(WHOLE, differences=("mlx is 1, not 2",))), "warning", "mlx is 1, not 2"),
    row(diagnosis.check_backends(WHOLE), "ok", "cpu"),
    row(
        diagnosis.check_backends(replace(WHOLE, backends=("cuda13", "cpu"))),
        "broken",
        "for cuda13 and for cpu",
        "--backend cuda13",
    ),
    row(diagnosis.check_gpu((), WHOLE), "ok", "none"),
    row(diagnosis.check_gpu(accelerator.of_apple("Apple M3", "8", "0"), METAL), "ok", "Apple M3"),
    row(diagnosis.check_gpu((H100,), CUDA), "ok", "H100"),
    row(diagnosis.check_gpu((), CUDA), "broken", "no NVIDIA GPU", "--backend cpu"),
    row(diagnosis.check_gpu((replace(H100, driver="570.86"),), CUDA), "broken", "driver 580, and this is 570.86"),
    row(diagnosis.check_gpu((replace(H100, driver=None),), CUDA), "ok", "H100"),
    row(diagnosis.check_gpu((H100,), WHOLE), "warning", "on the processor, beside H100", "--backend cuda13"),
    row(diagnosis.check_mlx(COMPUTES, WHOLE), "ok", "computes on cpu"),
    row(diagnosis.check_mlx(ComputeFacts(error="no"), replace(WHOLE, versions={})), "broken", "not installed"),
    row(
        diagnosis.check_mlx(ComputeFacts(error="no"), replace(WHOLE, versions={}, is_own=False)),
        "warning",
        "inv install-deps",
    ),
    row(diagnosis.check_mlx(ComputeFacts(error="MLX dies of SIGILL"), WHOLE), "broken", "SIGILL"),
    row(diagnosis.check_mlx(replace(COMPUTES, is_right=False), WHOLE), "broken", "wrong result", "MLXOPS_BLAS=off"),
    row(diagnosis.check_blas(COMPUTES, WHOLE), "ok", "openblas, 150 GFLOP/s"),
    row(
        diagnosis.check_blas(ComputeFacts(device="cpu", blas="reference", blas_note="x", flops=3.8e9), WHOLE),
        "warning",
        "reference, 3.8 GFLOP/s in float32, 20 to 70 times slower than OpenBLAS: x",
        "scipy-openblas32",
    ),
    row(
        diagnosis.check_blas(ComputeFacts(blas="reference", blas_note="switched off by MLXOPS_BLAS"), WHOLE),
        "warning",
        "unset MLXOPS_BLAS",
    ),
    row(diagnosis.check_blas(ComputeFacts(device="cpu", blas="unknown", flops=9e10), WHOLE), "ok", "unknown"),
    row(diagnosis.check_blas(ComputeFacts(device="gpu", blas="accelerate", flops=4e12), METAL), "ok", "accelerate"),
    row(diagnosis.check_blas(ComputeFacts(error="no"), WHOLE), "ok", "not asked"),
    row(diagnosis.check_compiler(MACHINE, WHOLE), "ok", "/usr/bin/g++"),
    row(diagnosis.check_compiler(replace(MACHINE, compiler=None), WHOLE), "warning", "no g++", "apt install g++"),
    row(diagnosis.check_compiler(replace(A_MAC, compiler=None), METAL), "ok", "none is needed"),
    row(
        diagnosis.check_compiler(replace(A_MAC, has_developer_tools=False), METAL), "warning", "xcode-select --install"
    ),
    row(diagnosis.check_memory(MACHINE), "ok", "20.0 GB free of 32.0 GB"),
    row(diagnosis.check_memory(replace(MACHINE, memory_free=GB // 2)), "warning", "only 500.0 MB free"),
    row(diagnosis.check_memory(replace(MACHINE, memory_limit=2 * GB)), "warning", "2.0 GB are for this container"),
    row(diagnosis.check_memory(replace(A_MAC, wired_limit=24 * GB)), "ok", "the GPU may keep 24.0 GB"),
    row(
        diagnosis.check_memory(replace(A_MAC, wired_limit=31 * GB)),
        "warning",
        "macOS may freeze",
        "sudo sysctl iogpu.wired_limit_mb=22888",
    ),
    row(diagnosis.check_swap(MACHINE), "ok", "none"),
    row(diagnosis.check_swap(replace(MACHINE, swap=8 * GB, swap_used=GB)), "ok", "1.0 GB in use"),
    row(diagnosis.check_swap(replace(MACHINE, swapped_per_second=5e7)), "warning", "50.0 MB per second"),
    row(diagnosis.check_swap(replace(MACHINE, swap=40 * GB, swap_used=20 * GB)), "warning", "more than half"),
    row(diagnosis.check_swap(replace(A_MAC, pressure=2)), "warning", "memory is short", "--grad-checkpoint"),
    row(diagnosis.check_disk(MACHINE), "ok", "100.0 GB free"),
    row(diagnosis.check_disk(replace(MACHINE, disks={"the project": GB, "the cache": 9 * GB})), "warning", "project"),
    row(diagnosis.check_disk(replace(MACHINE, disks={"the project": 9 * GB, "the cache": 10**7})), "broken", "cache"),
    row(diagnosis.check_place(PlaceFacts(folder="/p", file_system="ext4")), "ok", "ext4"),
    row(diagnosis.check_place(PlaceFacts(folder="/p", file_system="nfs4", is_remote=True)), "warning", "nfs4", "_DB="),
    row(diagnosis.check_place(PlaceFacts(folder="/p", synced_by="iCloud")), "warning", "iCloud syncs /p", "move"),
    row(diagnosis.check_permissions(PermissionFacts()), "ok"),
    row(diagnosis.check_permissions(PermissionFacts(needed=("/p/runs.db", "/p"))), "broken", "/p/runs.db", "1 more"),
    row(diagnosis.check_permissions(PermissionFacts(cache="/c")), "warning", "/c", "MLXOPS_CACHE"),
    row(diagnosis.check_hub(HubFacts(endpoint="https://hub")), "ok", "https://hub answers"),
    row(diagnosis.check_hub(HubFacts(endpoint="https://hub", is_offline=True)), "ok", "HF_HUB_OFFLINE"),
    row(
        diagnosis.check_hub(HubFacts(endpoint="https://hub", problem="cannot be reached: refused")),
        "warning",
        "https://hub cannot be reached",
        "HF_ENDPOINT",
    ),
]


def test_a_check_judges_facts_and_says_what_helps() -> None:
    wrong = [
        (found, level, said)
        for found, level, said in TABLE
        if found.level != level or not all(each in f"{found.said} {found.cure}" for each in said)
    ]

    assert wrong == []
    assert [found for found, *_ in TABLE if (found.level != "ok") and not found.cure and "riscv" not in found.said] == [
        # a newer system is the only cure, and the sentence names it
        each
        for each, *_ in TABLE
        if "needs macOS 14" in each.said
    ]


# gathering -----------------------------------------------------------------------------------------------------------


def test_the_programs_that_a_shell_finds_are_told_from_those_of_others(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("older", "ours", "home/.local/bin")]
    texts = ["#!/bin/bash\n# MLX Toolkit\n", "#!/usr/bin/python\nfrom mlxops.__main__ import main\n", "import mlxops\n"]
    for folder, text in zip(folders, texts, strict=True):
        folder.mkdir(parents=True)
        (folder / "mlx-toolkit").write_text(text)
        (folder / "mlx-toolkit").chmod(0o755)
    (folders[0] / "inv").write_text("from invoke.main import program\n")
    (folders[0] / "inv").chmod(0o644)

    found = examination.path_facts(
        {"PATH": f"{folders[0]}:{folders[1]}/:", "HOME": str(tmp_path / "home"), "SHELL": "/bin/fish"}
    )

    assert found.found == {
        "mlx-toolkit": ((f"{folders[0]}/mlx-toolkit", False), (f"{folders[1]}/mlx-toolkit", True)),
        "inv": (),
    }
    assert (found.home_programs, found.shell, found.folders[1]) == (("mlx-toolkit",), "fish", str(folders[1]))
    assert diagnosis.check_path(found).said == f"{folders[2]} is not in PATH, and mlx-toolkit is there"


@pytest.mark.slow
def test_an_environment_is_compared_with_its_lock_and_its_own_files(tmp_path: Path) -> None:
    code, _, err = run_python("-m", "venv", "--without-pip", str(tmp_path / ".venv"))
    assert code == 0, err
    (site,) = (tmp_path / ".venv").glob("lib/python*/site-packages")
    (site / "mlx-1.dist-info").mkdir()
    (site / "mlx-1.dist-info" / "METADATA").write_text("Name: mlx\nVersion: 1\n")
    (site / "mlx-1.dist-info" / "RECORD").write_text("mlx-1.dist-info/METADATA,sha256=x,21\nmlx-1.dist-info/RECORD,,\n")
    (tmp_path / "requirements.lock").write_text("# mlxops==1\nmlx==2\nnumpy==2.0\n")

    def facts() -> EnvironmentFacts:
        return examination.environment_facts(tmp_path, packages.installed(tmp_path, None))

    as_it_is = facts()
    (site / "mlx-1.dist-info" / "METADATA").write_text("Name: mlx\nVersion: 1\n\ncut")
    damaged = facts()
    (tmp_path / ".venv" / "bin" / "python").unlink()
    without_python = facts()

    assert (as_it_is.is_own, as_it_is.is_damaged, as_it_is.versions) == (True, False, {"mlx": "1"})
    assert as_it_is.differences == ("mlx is 1, not 2", "numpy 2.0 is missing")
    assert (damaged.is_damaged, damaged.python is not None, without_python.python) == (True, True, None)


def test_a_link_to_nowhere_is_no_environment(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(tmp_path / "gone")

    assert examination.environment_facts(tmp_path, packages.installed(tmp_path, None)).is_dangling


@pytest.mark.slow
def test_mlx_is_tried_in_a_process_of_its_own(tmp_path: Path) -> None:
    import sys

    python = Path(sys.executable)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nkill -ILL $$\n")
    broken.chmod(0o755)

    works = examination.compute_facts(python, tmp_path, None, "off", has_mlx=True)
    dies = examination.compute_facts(broken, tmp_path, None, None, has_mlx=True)
    absent = examination.compute_facts(tmp_path / "nowhere", tmp_path, None, None, has_mlx=True)

    assert (works.error, works.is_right, works.device) == (None, True, "cpu")
    assert (works.blas, works.blas_note, (works.flops or 0) > 1e8) == ("reference", "switched off by MLXOPS_BLAS", True)
    assert (dies.error, absent.error) == (
        "MLX dies of SIGILL",
        f"{tmp_path / 'nowhere'} does not start: No such file or directory",
    )


def test_a_hub_is_asked_and_gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    silent = socket.create_server(("127.0.0.1", 0))  # takes the connection and says nothing
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setattr(examination, "_HUB_PATIENCE", 0.2)
    slow = examination.hub_facts({"HF_ENDPOINT": endpoint})
    silent.close()
    refused = examination.hub_facts({"HF_ENDPOINT": endpoint + "/"})
    nonsense = examination.hub_facts({"HF_ENDPOINT": "no address"})

    assert slow.problem == "cannot be reached: timed out"
    assert (refused.endpoint, refused.problem) == (endpoint, "cannot be reached: Connection refused")
    assert nonsense.problem is not None
    assert examination.hub_facts({"HF_HUB_OFFLINE": "1"}).is_offline


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "runs.db").touch()
    refused = {tmp_path / "models", tmp_path}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in refused)

    found = examination.permission_facts(Invocation(project=Project.at(tmp_path)), tmp_path / "cache" / "deep")

    assert found.needed == (str(tmp_path), str(tmp_path / "models"))
    assert found.cache == str(tmp_path / "cache" / "deep")


def test_a_folder_that_others_copy_is_known_by_its_place(tmp_path: Path) -> None:
    def by(folder: str) -> str | None:
        return examination.synced_by(tmp_path / folder, tmp_path)

    before = by("Documents/haiku")
    (tmp_path / "Library/Mobile Documents/com~apple~CloudDocs/Documents").mkdir(parents=True)

    assert before is None
    assert (by("Documents/haiku"), by("Desktop/haiku"), by("Library/Mobile Documents/x")) == ("iCloud", None, "iCloud")
    assert (by("Library/CloudStorage/OneDrive-Work/x"), by("Dropbox/x"), by("x")) == ("OneDrive", "Dropbox", None)
    assert not examination.place_facts(tmp_path / "not yet" / "there", tmp_path).is_remote


def test_an_environment_under_another_spelling_of_its_folder_has_not_moved(tmp_path: Path) -> None:
    one, other = tmp_path / "Clone", tmp_path / "clone"
    (one / ".venv").mkdir(parents=True)
    (one / ".venv" / "pyvenv.cfg").write_text("version = 3.13.1\n")
    stamp = {"form": 1, "state": "made", "is_ours": True, "minor": "", "platform": "", "project": str(other)}
    (one / ".venv" / ".mlxops.json").write_text(json.dumps({**stamp, "folder": str(other / ".venv")}))

    def made_in() -> str | None:
        return examination.environment_facts(one, packages.installed(one, None)).made_in

    before = made_in()
    with mac.one_folder(one, other):
        assert (before, made_in()) == (str(other / ".venv"), None)
