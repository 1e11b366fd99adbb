"""A project that is served, its server and a client: a server is made for each file that needs one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served_projects import Listener, invocation_of, running

from mlxops.config import ServeConfig
from mlxops.jobs.eval import serve as job
from mlxops.jobs.eval.serve import Serving


@pytest.fixture(scope="module")
def root(_tuned_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the run `tuned`, which the server and `query` both work in."""
    folder: Path = tmp_path_factory.mktemp("serving") / "project"
    return Path(shutil.copytree(_tuned_project, folder))


@pytest.fixture(scope="module")
def serving(root: Path) -> Iterator[Serving]:
    """A server for the tiny model, shared by the tests of a file."""
    listener = Listener()
    plan = job.plan(invocation_of(root), ServeConfig(model="tiny", port=0, queue=8, max_tokens=6))
    with running(plan, listener) as found:
        yield found
    assert listener.bugs == []


@pytest.fixture(scope="module")
def http(serving: Serving) -> Iterator[httpx.Client]:
    """Requests as any program makes them."""
    with httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", timeout=60, verify=False, trust_env=False) as found:
        yield found
