"""What the tests stand on: commands that are forked begin alike, and a test that hangs does not hang the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import ROOT, run_python

STARTING = """
import os
import forked_server
forked_server.give_commands({**os.environ, "WHOSE": "the session"})
os.environ |= {"WHOSE": "the first test", "MLXOPS_DB": "of the first test"}
process = forked_server.forks().Process(target=os.system, args=('echo "$WHOSE, $MLXOPS_DB"',))
process.start()
process.join()
print(os.environ["WHOSE"])
"""
HANGING = "import threading\ndef test_hangs(): threading.Event().wait()\ndef test_passes(): pass\n"


@pytest.mark.slow
def test_what_commands_are_forked_from_has_nothing_of_the_test_that_starts_it() -> None:
    assert run_python("-c", STARTING) == (0, "the session, \nthe first test\n", "")


@pytest.mark.slow
def test_a_test_that_hangs_is_ended_with_its_stack_and_the_others_go_on(tmp_path: Path) -> None:
    file = tmp_path / "test_two.py"
    file.write_text(HANGING)

    code, out, err = run_python(
        *("-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"),
        *("--numprocesses", "1", "-o", "faulthandler_timeout=0.5", str(file)),
    )

    assert code == 1
    assert "1 failed, 1 passed" in out
    assert "in test_hangs" in err
