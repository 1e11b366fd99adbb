"""One checkout that `install.sh` has set up, for all tests of that script: setting it up takes seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from installed_checkouts import Checkout, restore
from small_checkouts import UV, write_checkout, write_wheels

from mlxops.projects import environment


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout after its first `./install.sh quickstart`, in a folder with an awkward name."""
    folder = tmp_path_factory.mktemp("install")
    write_wheels(folder / "wheels")
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(environment.own_python())
    (folder / "bin" / "uv").symlink_to(UV)
    checkout = folder / 'it\'s a "clöne" $x [1]'
    write_checkout(checkout)
    (checkout / ".venv").write_text("")
    variables = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "HOME": str(folder / "no home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }
    made = Checkout(checkout, variables)
    code, _, made.said_first = made("quickstart")
    assert code == 0, made.said_first
    shutil.copytree(checkout, folder / "as it was", symlinks=True)
    return made


@pytest.fixture
def install(installed: Checkout) -> Iterator[Checkout]:
    """The installed checkout; whatever a test does to it is undone."""
    yield installed
    restore(installed.folder, installed.folder.parent / "as it was")
