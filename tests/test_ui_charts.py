import math

import pytest

from mlxops.ui import charts, lines


def rows(*losses, every=10):
    return [
        {"iteration": (index + 1) * every, "train_loss": loss, "validation_loss": None}
        for index, loss in enumerate(losses)
    ]


def validations(*losses, every=20):
    return [
        {"iteration": (index + 1) * every, "train_loss": None, "validation_loss": loss}
        for index, loss in enumerate(losses)
    ]


def test_nothing_is_a_sentence():
    assert charts.loss_chart([], 60, 10).plain == "no losses yet"


def test_one_value_is_a_point():
    assert charts.loss_chart(validations(2.0), 24, 7).plain.split("\n") == [
        "o validation",
        "┌──────────────────┐",
        "│                  │ 2.2",
        "│                 o│ 2.0",
        "│                  │",
        "└──────────────────┘",
        " 0       10",
    ]


def test_the_two_losses_are_told_apart_without_colour():
    drawn = charts.loss_chart(rows(4, 3, 2.5, 2.2) + validations(3.5, 2.6), 40, 8).plain
    assert drawn.split("\n") == [
        "⠤⠤ train   o validation",
        "┌────────────────────────────────────┐",
        "│         ⠓⠢⢄⡀                       │ 4",
        "│            ⠈⠑⠒⠤⣀ o                 │",
        "│                 ⠉⠑⠒⠢⠤⠤⣀⣀⡀         o│ 3",
        "│                         ⠈⠉⠉⠒⠒⠒⠢⠤⠤⠤⢄│",
        "└────────────────────────────────────┘",
        " 0       10       20       30",
    ]


def test_a_terminal_in_ascii_gets_an_ascii_chart():
    drawn = charts.loss_chart(rows(4, 3, 2.5, 2.2) + validations(3.5, 2.6), 30, 8, unicode=False).plain
    assert drawn.isascii()
    assert drawn.split("\n") == [
        ".. train   o validation",
        "+--------------------------+",
        "|      ..                  | 4",
        "|        ....o             |",
        "|            ........     o| 3",
        "|                    ......|",
        "+--------------------------+",
        " 0    10     20    30",
    ]


@pytest.mark.parametrize(("width", "height"), [(24, 6), (40, 9), (80, 24), (119, 40)])
def test_more_values_than_columns_fit_the_size_given(width, height):
    many = rows(*(3 + math.sin(index / 50) for index in range(5000)))
    drawn = charts.loss_chart(many + validations(*[3.0] * 300), width, height).plain.split("\n")
    assert len(drawn) <= height
    assert max(map(len, drawn)) <= width


def test_a_spike_survives_the_thinning():
    points = [(float(index), 1.0) for index in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    kept = charts.thin(points, 80)
    assert (54_321.0, 9.0) in kept
    assert len(kept) <= 160
    assert kept == sorted(kept)


def test_a_loss_that_was_not_finite_is_a_gap_and_counted():
    with_gap = rows(2, 2, 2, 2, None, None, None, math.nan, 2, 2, 2, 2)
    top, *body = charts.loss_chart(with_gap, 40, 7).plain.split("\n")
    drawn = next(line for line in body if "⠤" in line or "⠒" in line or "⠉" in line or "⣀" in line)
    inside = drawn.split("│")[1].strip()
    assert top == "⠤⠤ train   4 not finite"
    assert " " in inside


def test_a_curve_of_nothing_but_nan_is_no_curve():
    assert charts.loss_chart(rows(None, math.nan, math.inf), 60, 10).plain == "no losses yet"


def test_rows_in_any_order_draw_the_same_chart():
    many = rows(4, 3, 2.5, 2.2) + validations(3.5, 2.6)
    assert charts.loss_chart(many[::-1], 40, 8) == charts.loss_chart(many, 40, 8)


@pytest.mark.parametrize("loss", [0.0, 2.0, -1.0, 1e-300, 1e-11, 3.4e38])
def test_a_flat_line_of_any_size_can_be_drawn(loss):
    assert len(charts.loss_chart(rows(loss, loss, loss), 24, 8).plain.split("\n")) in (7, 8)


def test_a_logarithmic_scale_is_labelled_with_losses():
    drawn = charts.loss_chart(rows(100, 10, 1, 0.1), 40, 12, log=True).plain
    assert "10^" not in drawn
    assert [line.split("│")[2] for line in drawn.split("\n")[2:10]] == [" 100", "", "", "", "", " 1", "", ""]


def test_a_loss_of_zero_keeps_the_linear_scale():
    flat = rows(1.0, 0.0)
    assert charts.loss_chart(flat, 40, 8, log=True) == charts.loss_chart(flat, 40, 8)


def test_where_there_is_no_room_the_last_losses_are_words():
    assert charts.loss_chart(rows(4, 3) + validations(3.5), 20, 3).plain == "train loss 3.000  validation loss 3.500"


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(None, "──────────"), (0.0, "──────────"), (0.55, "━━━━━─────"), (1.0, "━━━━━━━━━━"), (7.0, "━━━━━━━━━━")],
)
def test_a_bar_reads_without_colour(share, drawn):
    assert lines.bar(share, 10).plain == drawn


def test_a_bar_in_ascii():
    assert lines.bar(0.5, 10, unicode=False).plain == "#####....."


def test_no_pairs_are_no_lines():
    assert lines.pairs([], 80) == []


def test_pairs_stand_in_as_many_columns_as_fit():
    values = [("train", "2.345"), ("best", "2.1"), ("tokens/s", "1,234"), ("epoch", "2")]
    assert [line.plain for line in lines.pairs(values, 30)] == [
        "train    2.345  best  2.1",
        "tokens/s 1,234  epoch 2",
    ]
    assert lines.pairs(values, 16)[0].plain == "train    2.345"


@pytest.mark.parametrize(
    ("losses", "word"),
    [([], ""), ([2.0], ""), ([2.0, 1.9], "falling"), ([2.0, 2.1], "rising"), ([2.0, 2.0, 2.001], "flat")],
)
def test_a_trend_compares_the_last_loss_with_the_few_before(losses, word):
    assert lines.trend(losses) == word
