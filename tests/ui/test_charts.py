import math

import pytest

from mlxops.jobs.train.monitor import OtherRun, Snapshot
from mlxops.ui.charts import losses as charts
from mlxops.ui.charts import plot
from mlxops.ui.terminal import lines


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
        " 0       10      20",
    ]


def test_the_two_losses_are_told_apart_without_colour():
    drawn = charts.loss_chart(rows(4, 3, 2.5, 2.2) + validations(3.5, 2.6), 40, 8).plain
    assert drawn.split("\n") == [
        "⠤⠤ train   o validation",
        "┌────────────────────────────────────┐",
        "│         ⠑⠢⢄⣀                       │ 4",
        "│             ⠉⠒⠤⣀ o                 │",
        "│                 ⠉⠑⠒⠢⠤⢄⣀⣀           │ 3",
        "│                         ⠉⠉⠒⠒⠒⠢⠤⠤⠤⣀o│",
        "└────────────────────────────────────┘",
        " 0       10       20       30      40",
    ]


def test_a_terminal_in_ascii_gets_an_ascii_chart():
    drawn = charts.loss_chart(rows(4, 3, 2.5, 2.2) + validations(3.5, 2.6), 30, 8, unicode=False).plain
    assert drawn.isascii()
    assert drawn.split("\n") == [
        ".. train   o validation",
        "+--------------------------+",
        "|      ...                 | 4",
        "|         ... o            |",
        "|            ......        | 3",
        "|                  .......o|",
        "+--------------------------+",
        " 0           20          40",
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
    assert [line.split("│")[2] for line in drawn.split("\n")[2:10]] == [" 100", "", " 10", "", "", " 1", "", " 0.1"]


def test_a_loss_of_zero_keeps_the_linear_scale():
    flat = rows(1.0, 0.0)
    assert charts.loss_chart(flat, 40, 8, log=True) == charts.loss_chart(flat, 40, 8)


def labels_of(lines):
    """The number beside each line of the plot that has one, by its place from below, 0 to 1."""
    plot_lines = [line.split("│") for line in lines if "│" in line]
    count = len(plot_lines)
    return {
        (count - index - 0.5) / count: parts[2].strip() for index, parts in enumerate(plot_lines) if parts[2].strip()
    }


@pytest.mark.parametrize(
    "values",
    [(1e-5, 1e-5), (0.0005, 0.0005), (0.0001, 0.0005), (1.8, 2.6), (1e-13, 3e-13), (0, 3e9), (2.0000001, 2.00001)],
    ids=str,
)
@pytest.mark.parametrize("height", [6, 12, 25])
def test_every_number_beside_a_chart_is_the_value_of_its_line(values, height):
    lines = [line.plain for line in charts.level_chart(curve(*values), 60, height)]
    found = labels_of(lines)
    low, high = plot._bounds(values, False)
    off = [text for place, text in found.items()
           if abs((float(text.replace(",", "")) - low) / (high - low) - place) > 0.51 / (height - 3)]  # fmt: skip
    assert len(set(found.values())) == len(found) >= 1
    assert off == []


def test_a_constant_learning_rate_is_labelled_with_itself():
    drawn = [line.plain for line in charts.level_chart(curve(1e-5, 1e-5), 40, 7)]
    assert "1e-05" in labels_of(drawn).values()


def test_iterations_are_whole_numbers():
    assert charts.loss_chart(rows(2.0, every=0), 60, 10).plain.split("\n")[-1].split() == ["0", "1"]


def curve(*values):
    """A curve in ranges of one point."""
    return spread(*values, width=0)


def test_where_there_is_no_room_the_last_losses_are_words():
    assert charts.loss_chart(rows(4, 3) + validations(3.5), 20, 3).plain == "train loss 3.000  validation loss 3.500"


# the monitor's chart --------------------------------------------------------------------------------------------------


def spread(*values, every=10, width=1):
    """A curve in ranges, each from its value to its value and `width`."""
    return [
        {
            "iteration": (index + 1) * every,
            "mean": None if value is None else value + width / 2,
            "low": value,
            "low_iteration": (index + 1) * every,
            "high": None if value is None else value + width,
            "high_iteration": (index + 1) * every + bool(width),
            "finite": 0 if value is None else 2,
            "count": 2,
        }
        for index, value in enumerate(values)
    ]


def shot(train=(), validation=(), **values):
    known = {
        "run": {"name": "heron"},
        "gone": [],
        "runs": ["heron"],
        "index": 0,
        "at_work": [],
        "latest": {},
        "events": [],
        "best_at": None,
        "trend": None,
        "last": None,
        "is_laid_over": False,
        "place": 0,
        "curves": {"train_loss": list(train), "validation_loss": list(validation)},
        "others": [],
        "attempts": [],
        "warnings": [],
        "checkpoints": [],
        "since": 0,
    }
    return Snapshot(**{**known, **values})


def drawn(snapshot, width=60, height=12, **options):
    return [line.plain for line in charts.run_chart(snapshot, width, height, **options)]


def test_a_chart_of_nothing_is_a_sentence():
    assert drawn(shot()) == ["no losses yet"]


def test_few_ranges_are_joined_and_not_smoothed():
    assert drawn(shot(spread(4, 3, 2, width=0)))[0] == "loss   ⠤⠤ train"


def test_smoothed_and_raw_are_told_apart_without_colour():
    both = drawn(shot(spread(*(3 + index % 2 for index in range(40)))))
    assert both[0] == "loss   · train   ⠤⠤ smoothed"
    assert any("·" in line and "⠤" not in line for line in both[2:])
    assert "·" not in "".join(drawn(shot(spread(*(3 + index % 2 for index in range(40)))), shown="smoothed"))


def test_in_ascii_smoothed_and_raw_are_told_apart():
    lines = drawn(shot(spread(*(3 + index % 2 for index in range(40)))), unicode=False)
    assert all(line.isascii() for line in lines)
    assert lines[0] == "loss   . train   == smoothed"


def test_the_best_validation_has_a_mark_of_its_own():
    lines = drawn(shot(spread(4, 3, 2, 2, 2), spread(3, 2, 2.5, width=0, every=15)))
    assert lines[0] == "loss   ⠤⠤ train   o validation   * best"
    assert sum(line.count("*") for line in lines[1:]) == 1
    assert sum(line.count("o") for line in lines[1:]) == 2


def test_many_validations_leave_the_line_below_them_to_be_seen():
    validation = spread(*([2.0] * 39), 9.0, *([2.0] * 40), width=0, every=5)
    lines = drawn(shot(spread(*([2.0] * 80), width=0, every=5), validation), 80, 12)
    assert sum(line.count("o") for line in lines[1:]) <= 20
    assert "o" in lines[2]


def test_attempts_warnings_and_checkpoints_stand_on_the_frame():
    marks = {
        "attempts": [{"number": 1, "from_iteration": 0}, {"number": 2, "from_iteration": 200}],
        "warnings": [100],
        "checkpoints": [{"iteration": 400, "status": "whole"}, {"iteration": 50, "status": "pruned"}],
    }
    lines = drawn(shot(spread(*range(40, 0, -1)), **marks))
    top, bottom = lines[1], next(line for line in lines if line.startswith("└"))
    assert lines[0].endswith("2 attempt   ! warning   ^ checkpoint")
    assert top.strip("┌─┐").replace("─", "") == "!2"
    assert top.index("2") == pytest.approx((len(top) - 2) / 2, abs=1)
    assert sum("┊" in line for line in lines[2:10]) == 6  # the curve and its points take the others
    assert bottom.count("^") == 1


def test_several_runs_have_letters_and_capitals_for_their_validations():
    curves = {"train_loss": spread(*[5] * 40), "validation_loss": spread(6, 6, every=200)}
    other = OtherRun(name="otter", place=1, curves=curves)
    lines = drawn(shot(spread(*[2] * 40), spread(1, 1, every=200), others=[other]), 70)
    body = "".join(lines[1:])
    assert lines[0] == "a heron   b otter   capitals: validation"
    assert {letter for letter in "aAbBcC" if letter in body} == set("aAbB")


def test_a_run_keeps_its_letter_whichever_is_looked_at():
    heron = OtherRun(name="heron", place=0, curves={"train_loss": spread(2, 1)})
    otter = OtherRun(name="otter", place=1, curves={"train_loss": spread(3, 2)})
    first = drawn(shot(spread(2, 1), others=[otter]))[0]
    second = drawn(shot(spread(3, 2), run={"name": "otter"}, place=1, others=[heron]))[0]
    assert first == second == "a heron   b otter"


def test_nine_runs_have_a_colour_and_letters_each_of_their_own():
    others = [
        OtherRun(name=f"run-{index}", place=index, curves={"train_loss": curve(*[index] * 40)}) for index in range(1, 9)
    ]  # fmt: skip
    legend, *body = charts.run_chart(shot(curve(*[0] * 40), run={"name": "run-0"}, others=others), 80, 40)
    colours = [str(span.style) for span in legend.spans]
    lines = [{cell for cell in line.plain if cell in "abcdefghi"} for line in body]

    assert len(colours) == len(set(colours)) == 9
    assert [line for line in lines if line] == [{letter} for letter in "ihgfedcba"]


def test_the_zoomed_chart_begins_where_the_zoom_does():
    near = [{**row, **dict.fromkeys(("low_iteration", "high_iteration", "iteration"), 900 + index)}
            for index, row in enumerate(spread(*[2] * 20))]  # fmt: skip
    labels = drawn(shot(near, since=900))[-1]
    assert labels.split()[0] == "900"


def test_a_range_with_a_spike_shows_it():
    row = spread(*[2.0] * 200, width=0)
    row[99]["high"] = 9.0
    top = drawn(shot(row), 60, 14)[2]
    assert "·" in top


def test_points_that_were_not_finite_are_counted():
    assert drawn(shot(spread(2, None, 2)))[0].endswith("2 not finite")


def test_a_smoothed_curve_follows_a_straight_line_without_lag():
    points = charts.smooth_points(spread(*range(100), width=0))
    assert points[50] == (510, pytest.approx(50))


def test_a_smoothed_curve_of_one_point_is_that_point():
    assert charts.smooth_points(spread(2, width=0)) == [(10, 2.0)]


def test_a_small_curve_takes_one_line():
    assert len(charts.spark(spread(1, 2, 3, width=0), 12).plain) == 12


def test_a_small_curve_of_nothing_is_nothing():
    assert (charts.spark([], 12).plain, charts.level_chart(spread(None), 40, 8)) == ("", [])


def test_of_two_lines_in_one_cell_no_dot_is_lost():
    layers = [plot.Layer(points=[(0, 1), (10, 1)], style="a"), plot.Layer(points=[(0, 1.2), (10, 1)], style="b")]
    one, two = ([row.plain for row in plot.draw(each, 20, 1, unicode=True)] for each in (layers[:1], layers))
    first, both = (sum(bin(ord(cell) - 0x2800).count("1") for cell in lines[1] if "⠀" <= cell <= "⣿")
                   for lines in (one, two))  # fmt: skip
    assert both > first > 0


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
