"""Which Python will do, and what helps where one will not."""

from __future__ import annotations

import platform
import sysconfig
from dataclasses import replace

import mac
import pytest

from mlxops.errors import Failed
from mlxops.projects import interpreter

LINUX = interpreter.Interpreter(
    path="/usr/bin/python3",
    version=(3, 11),
    implementation="CPython",
    bits=64,
    system="linux",
    machine="x86_64",
    glibc=(2, 36),
)
MAC = replace(LINUX, system="darwin", machine="arm64", macos=(14, 5), glibc=None)


def test_the_python_of_this_test_will_do() -> None:
    assert interpreter.misfit(interpreter.this()) is None


@pytest.mark.parametrize(
    ("made_for", "translated", "is_started_wrongly"),
    [("universal2", "1", True), ("universal2", "0", False), ("x86_64", "1", False)],
)
def test_a_python_sees_that_rosetta_runs_it_though_it_need_not(
    made_for: str, translated: str, is_started_wrongly: bool, a_mac: mac.Mac, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_mac.answer("sysctl.proc_translated", translated)
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "x86_64")
        patch.setattr(sysconfig, "get_platform", lambda: f"macosx-11.0-{made_for}")
        python = interpreter.this()

    assert python.is_started_wrongly is is_started_wrongly


@pytest.mark.parametrize("python", [LINUX, replace(LINUX, machine="aarch64", glibc=(2, 35)), MAC])
def test_a_python_on_linux_or_apple_silicon_will_do(python: interpreter.Interpreter) -> None:
    assert interpreter.misfit(python) is None


@pytest.mark.parametrize(
    ("python", "words", "help"),
    [
        (replace(LINUX, lacks=("ensurepip",)), "cannot make virtual environments", "apt install python3.11-venv"),
        (replace(LINUX, lacks=("sqlite3",)), "built without sqlite3", "dnf install python3"),
        (replace(MAC, lacks=("ssl",)), "lacks ssl", "brew install"),
        (replace(LINUX, implementation="PyPy"), "is PyPy", ""),
        (replace(LINUX, bits=32), "32-bit", ""),
        (replace(LINUX, machine="riscv64"), "Linux on riscv64", ""),
        (replace(LINUX, glibc=None), "musl", "Debian"),
        (replace(LINUX, glibc=(2, 31)), "needs glibc 2.35, and this Linux has 2.31", "Ubuntu 22.04"),
        (replace(MAC, machine="x86_64"), "Apple silicon", "brew install"),
        (replace(MAC, machine="x86_64", is_universal=True), "Apple silicon", "brew install"),
        (replace(MAC, machine="x86_64", is_universal=True, is_translated=True), "would do, but Rosetta", "arch -arm64"),
        (replace(MAC, macos=(13, 6)), "needs macOS 14, and this is 13.6", ""),
        (replace(LINUX, system="win32"), "on macOS and on Linux", "WSL"),
    ],
)
def test_what_will_not_do_is_named_with_what_helps(python: interpreter.Interpreter, words: str, help: str) -> None:
    misfit = interpreter.misfit(python)

    assert isinstance(misfit, Failed)
    assert words in misfit.message
    assert help in (misfit.hint or "")
