import doctest
import math
from datetime import UTC, datetime

import pytest

from mlxops import words
from mlxops.ui.terminal import exact

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("module", [words, exact])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (math.inf, "-"),
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.7, "1 m 00 s"),
        (3600, "1 h 00 m"),
        (90_000, "1 d 01 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (None, "-"),
        ("2026-11-22T12:00:00.000Z", "just now"),
        ("2026-11-22T12:00:09.000Z", "just now"),
        ("2026-11-22T11:59:59.000Z", "1 second ago"),
        ("2026-11-22T11:58:00.000Z", "2 minutes ago"),
        ("2026-11-22T09:00:00.000Z", "3 hours ago"),
        ("2026-11-02T12:00:00.000Z", "20 days ago"),
    ],
)
def test_an_age_is_told_from_the_moment_given(time, text):
    assert words.age(time, NOW) == text


@pytest.mark.parametrize("write", [words.count, words.number, words.short])
def test_what_is_not_finite_says_so_and_nothing_is_a_dash(write):
    assert (write(math.nan), write(math.inf), write(None)) == ("not finite", "not finite", "-")


def test_not_quite_all_is_not_a_hundred_percent():
    assert [words.percent(share) for share in (None, 0.0, 0.29, 0.999, 1.0)] == ["-", "0 %", "29 %", "99 %", "100 %"]


def test_a_metric_is_written_in_its_unit():
    written = [words.metric(name, 3_200_000_000.0) for name in ("peak_memory", "trained_tokens", "unheard_of")]
    assert written == ["3.2 GB", "3,200,000,000", "3.2e+09"]


def test_control_characters_in_a_text_cannot_reach_the_terminal():
    assert words.visible("a\x1b[31mb\tc\n") == "a\\x1b[31mb\\tc\\n"


def test_letters_of_any_script_stay_as_they_are():
    assert words.visible("Grüße 你好") == "Grüße 你好"
