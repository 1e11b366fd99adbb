"""What pip's words mean, and what uv is told of its settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlxops.projects import pip


@pytest.mark.parametrize(
    ("line", "environ", "words"),
    [
        (
            "WARNING: Retrying (…) 'NewConnectionError('<…>: [Errno -2] Name or service not known')'",
            {},
            "is there a network",
        ),
        ("WARNING: Retrying (…) broken by 'ConnectTimeoutError(…)': /simple/", {}, "is there a network"),
        (
            "  … (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]')))",
            {},
            "not trusted",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            {},
            "No space left",
        ),
        (
            "ERROR: No matching distribution found for hatchling",
            {"PIP_NO_INDEX": "1"},
            "PIP_FIND_LINKS, which is not set",
        ),
        ("ERROR: Cannot install a and b", {}, "what is needed: Cannot install a and b"),
        ("", {}, "what is needed: exit code 1"),
    ],
)
def test_what_pip_says_becomes_a_sentence(line: str, environ: dict[str, str], words: str) -> None:
    assert words in pip.explain(pip.Ended(code=1, lines=(line,)), environ).message


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"index-url": "u", "find-links": "a b"}, ["--default-index", "u", "--find-links", "a", "--find-links", "b"]),
        ({"no-index": "1", "constraint": "c.txt"}, ["--constraints", "c.txt", "--no-index"]),
        ({"no-index": "false", "timeout": "3"}, []),
        ({"extra-index-url": "v"}, ["--index", "v", "--index-strategy", "unsafe-best-match"]),
    ],
)
def test_uv_is_told_what_a_person_has_set_for_pip(settings: dict[str, str], options: list[str]) -> None:
    assert pip._for_uv(settings) == options


@pytest.mark.parametrize(
    ("says", "is_used"), [("uv 0.13.9 (abc 2026-11-01)", True), ("uv 0.4.30", False), ("another program", False)]
)
def test_a_uv_that_is_too_old_is_left_alone(
    says: str, is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert pip.uv() == (str(program) if is_used else None)


def test_what_is_set_for_pip_is_read_from_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://there.example/simple\nretries = 9\n[install]\nretries = 4\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")

    found = pip._settings()

    assert (found["index-url"], found["retries"], found["find-links"]) == (
        "https://there.example/simple",
        "4",
        "wheels",
    )
