"""A server of a project in a thread of its own, and what is sent to it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import own_cache

from mlxops.jobs.eval import serve as job
from mlxops.jobs.eval.serve import ServePlan, Serving
from mlxops.projects import project
from mlxops.projects.invocation import Invocation
from mlxops.serving.server import Served

if TYPE_CHECKING:
    from openai import OpenAI

Ask = Callable[..., Any]

PATH = "/v1/chat/completions"


class Listener:
    """What the server told."""

    def __init__(self) -> None:
        self.all: list[Served] = []
        self.bugs: list[BaseException] = []

    def served(self, served: Served) -> None:
        self.all.append(served)

    def failed(self, error: BaseException) -> None:
        self.bugs.append(error)


@contextmanager
def running(plan: ServePlan, listener: Listener) -> Iterator[Serving]:
    """A server in a thread of its own."""
    ready: queue.SimpleQueue[Serving] = queue.SimpleQueue()

    def work() -> None:
        with job.serve(plan, listener) as found:
            ready.put(found)
            found.answer()

    thread = threading.Thread(target=work, name="model")
    thread.start()
    serving = ready.get(timeout=120)
    try:
        yield serving
    finally:
        serving.stop()
        thread.join()


def invocation_of(root: Path) -> Invocation:
    """A command in that project, with a cache beside it."""
    return Invocation(project=project.find(root), cache=own_cache(root.with_name("cache")))


def connected(serving: Serving) -> OpenAI:
    """The client, whose import takes a second that no other test needs."""
    from openai import OpenAI

    return OpenAI(base_url=serving.url, api_key="none", max_retries=0, timeout=60)


def chat(**fields: Any) -> dict[str, Any]:
    """What a chat request with one message sends."""
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], **fields}
