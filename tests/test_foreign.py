"""Whatever code of other people raises becomes one error of ours, with words."""

from __future__ import annotations

import sys

import pytest

from mlxops.errors import BadRequest, Failed, NotFound
from mlxops.foreign import foreign_code


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


def test_what_it_prints_does_not_mix_with_our_results(capsys: pytest.CaptureFixture[str]) -> None:
    with foreign_code(lambda words, _: BadRequest(words)):
        print("chatter")
        sys.stdout.write("more")

    assert capsys.readouterr() == ("", "chatter\nmore")
