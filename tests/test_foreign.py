"""Whatever code of other people raises becomes one error of ours, with words."""

from __future__ import annotations

import itertools
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlxops.errors import BadRequest, Failed, NotFound
from mlxops.foreign import foreign_code, time_limit


class Panic(BaseException):
    """As the Rust libraries raise it: no `Exception`."""


def run(raised: BaseException, printed: str = "") -> None:
    """Code of other people that prints and raises."""
    with foreign_code(lambda words, _: BadRequest(words)):
        print(printed)
        raise raised


@pytest.mark.parametrize(
    ("raised", "printed", "words"),
    [
        (ValueError("two\n  lines"), "", "two lines"),
        (KeyError("rope"), "", "KeyError: 'rope'"),
        (Panic("called on None"), "", "called on None"),
        (RecursionError(), "", "RecursionError"),
        (SystemExit(1), "first\nTo run it install it\n", "To run it install it"),
        (SystemExit("no such thing"), "chatter", "no such thing"),
        (SystemExit(1), "", "SystemExit"),
        (ValueError("word " * 1000), "", f"{('word ' * 1000)[:300]} …"),
    ],
)
def test_whatever_it_raises_becomes_a_sentence(raised: BaseException, printed: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run(raised, printed)

    assert caught.value.message == words
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), GeneratorExit(), NotFound("no run 'a'")])
def test_ctrl_c_and_our_own_errors_pass(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught:
        run(raised)

    assert caught.value is raised


@pytest.mark.parametrize("raised", [MemoryError(), RuntimeError("[malloc] Unable to allocate 9 bytes.")])
def test_too_little_memory_is_no_wrong_request(raised: BaseException) -> None:
    with pytest.raises(Failed, match="not enough memory") as caught:
        run(raised)

    assert caught.value.exit_code == 1


def test_code_that_computes_for_too_long_is_stopped() -> None:
    with pytest.raises(BadRequest, match="no end"), time_limit(0.05, BadRequest("no end")):
        all(True for _ in itertools.count())

    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL


def test_outside_the_main_thread_there_is_no_limit() -> None:
    def work() -> bool:
        with time_limit(0.0, BadRequest("no end")):
            return True

    with ThreadPoolExecutor() as threads:
        assert threads.submit(work).result()


def test_what_it_prints_does_not_mix_with_our_results(capsys: pytest.CaptureFixture[str]) -> None:
    with foreign_code(lambda words, _: BadRequest(words)):
        print("chatter")
        sys.stdout.write("more")

    assert capsys.readouterr() == ("", "chatter\nmore")
