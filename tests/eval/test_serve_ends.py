"""How a server in a process of its own ends by a signal, and what it tells those who wait."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_projects import chat

pytestmark = pytest.mark.slow


@pytest.fixture
def other(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server in a process of its own, in the same project: `process, first_line = other("tuned --port 0 --json")`."""
    started: list[subprocess.Popen[str]] = []

    def start(options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "mlxops", "eval.serve", *options.split()]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_sigterm_tells_who_waits_and_ends_it_with_143(other: Any) -> None:
    process, first_line = other("tuned:4 --host 0.0.0.0 --port 0 --api-key secret --json")
    facts = json.loads(first_line)
    path, key = f"http://127.0.0.1:{facts['port']}/v1", {"Authorization": "Bearer secret"}
    body = chat(max_tokens=1500, stream=True, logit_bias={"100": 100})  # one token again and again
    with httpx.Client(timeout=60, verify=False, trust_env=False) as http:
        without = http.get(f"{path}/models")
        with http.stream("POST", f"{path}/chat/completions", json={**body, "model": None}, headers=key) as answer:
            lines = answer.iter_lines()
            first = json.loads(next(lines).removeprefix("data: "))
            process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]

    _, err = process.communicate()
    assert (process.returncode, err.splitlines()[-1]) == (143, "stopped; 0 requests answered")
    assert (without.status_code, without.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (facts["model"], facts["needs_key"], first["model"]) == ("tuned:4", True, "tuned:4")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stopping"


@pytest.fixture
def scaled(root: Path) -> str:
    """The name of a model whose positions are scaled, as those of Llama 3.2: some are begun when it is made.

    MLX computes nothing in one thread that was begun in another.
    """
    folder = shutil.copytree(root / "models" / "tiny", root / "models" / "scaled")
    config = json.loads((folder / "config.json").read_text())
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config["rope_scaling"] = {**scaling, "original_max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    return folder.name


def test_ctrl_c_ends_it_with_130_and_every_request_was_told(other: Any, scaled: str) -> None:
    process, first_line = other(f"{scaled} --port 0")
    url = first_line.removeprefix("serving scaled at ").rstrip()
    with httpx.Client(timeout=60, verify=False, trust_env=False) as http:
        answer = http.post(f"{url}/chat/completions", json=chat(max_tokens=2, model=scaled))
    process.send_signal(signal.SIGINT)

    _, err = process.communicate()
    lines = err.splitlines()
    assert (process.returncode, answer.status_code) == (130, 200)
    assert lines[:2] == ["models: scaled", "Ctrl-C ends it"]
    assert lines[2].startswith("200 /v1/chat/completions, scaled, ")
    assert lines[3:] == ["stopped; 1 request answered"]
