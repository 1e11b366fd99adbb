"""Does a server leak? Rounds of 200 requests to a tiny model, 20 of them broken off in the middle.

    python benchmarks/serving.py [--rounds 4]

Prints for each round the requests per second, the memory of the server's process, and its threads and open files.
The first round warms up; after it memory must stay within 5 %.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlxops.models.tiny import make_tiny

REQUESTS, BROKEN = 200, 20


def ask(port: int, number: int) -> int | None:
    """The status of one request; None for one that is broken off after its first bytes."""
    is_broken = number % (REQUESTS // BROKEN) == 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    messages = [{"role": "user", "content": f"What is {number % 7}?"}]
    body: dict[str, Any] = {"model": "tiny", "messages": messages, "max_tokens": 400 if is_broken else 4}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({**body, "stream": is_broken}))
        answer = connection.getresponse()
        if is_broken:
            answer.read(40)
            return None
        answer.read()
        return answer.status
    finally:
        connection.close()


def main() -> None:
    """Start a server on a tiny model, ask it, print what it holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        make_tiny(Path(folder) / "models" / "tiny")
        command = [sys.executable, "-m", "mlxops", "eval.serve", "tiny", "--port", "0", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as server:
            try:
                assert server.stdout is not None
                port = json.loads(server.stdout.readline())["port"]
                measure(port, psutil.Process(server.pid), rounds)
            finally:
                server.terminate()


def measure(port: int, process: psutil.Process, rounds: int) -> None:
    """Ask round after round, and print a line for each."""
    first = 0
    for number in range(rounds):
        started = time.perf_counter()
        with ThreadPoolExecutor(4) as clients:
            statuses = [status for status in clients.map(lambda each: ask(port, each), range(REQUESTS)) if status]
        seconds = time.perf_counter() - started
        assert statuses == [200] * (REQUESTS - BROKEN), statuses
        held = process.memory_info().rss
        first = first or held
        print(
            f"round {number + 1}: {REQUESTS / seconds:5.1f} requests/s, {held / 1e6:.1f} MB ({held / first - 1:+.1%}), "
            f"{process.num_threads()} threads, {process.num_fds()} open files",
            flush=True,
        )


if __name__ == "__main__":
    main()
