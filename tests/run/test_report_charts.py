"""Charts of reports: every shape of a run, what stands in them, and that nothing but the rows decides their bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_python
from known_runs import begin, new_run, report, train
from report_pages import AXES, LINE, VALIDATIONS, Page, drawn, gathered, shown, size_of

from mlxops import registry
from mlxops.registry import Registry
from mlxops.ui.charts import figures
from mlxops.ui.report import phrases

pytestmark = pytest.mark.slow

ONE_AND_BOTH = (["heron"], ["heron", "otter"])


def first_chart(name: str) -> str:
    """The drawing of a run's losses, without what it is told in words."""
    found = gathered(name).run
    assert found
    return figures.loss(found, "loss", figures.WIDE, "")


def picture(name: str) -> bytes:
    """The picture of a run."""
    return figures.png(gathered(name).run, None)


def labels(chart: str) -> list[str]:
    """The texts of a chart that are numbers."""
    return re.findall(r">([\d,.]+)</text>", chart)


def charts_of(*names: str, by: tuple[str, ...] = ("iterations",)) -> list[str]:
    """The drawings of a page."""
    return re.findall(r"<svg.*?</svg>", drawn(*names, by=by)["html"].decode(), re.DOTALL)


# bytes ---------------------------------------------------------------------------------------------------------------


def test_the_same_rows_make_the_same_bytes(db: Registry) -> None:
    train(db, "heron", LINE, VALIDATIONS)
    train(db, "otter", LINE, VALIDATIONS)

    for runs in ONE_AND_BOTH:
        assert drawn(*runs, png=True) == drawn(*runs, png=True)


def test_drawing_leaves_matplotlib_as_it_was(db: Registry) -> None:
    import matplotlib  # which the quick tests of this module do without

    train(db, "heron", LINE, VALIDATIONS)
    before = dict(matplotlib.rcParams)
    matplotlib.rcParams["lines.linewidth"] = 9.0

    ours = first_chart("heron"), picture("heron")

    changed = dict(matplotlib.rcParams)
    matplotlib.rcParams["lines.linewidth"] = before["lines.linewidth"]
    assert changed == before | {"lines.linewidth": 9.0}
    assert ours == (first_chart("heron"), picture("heron"))


def test_settings_of_matplotlib_that_cannot_be_read_change_nothing_and_stay(db: Registry) -> None:
    train(db, "heron", LINE, VALIDATIONS)
    Path("matplotlibrc").write_bytes(b"\xff\xfe lines.linewidth: 9")
    Path("wrong").write_text("lines.linewidth: nonsense\n", encoding="utf-8")
    environment = {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": "wrong"}
    command = ["mlx-toolkit", "run.report", "heron", "--png", "a.png"]
    script = "import os; from mlxops.__main__ import program; before = os.getcwd(); "
    script += f"program.run({command!r}); print(os.getcwd() == before, os.environ['MPLBACKEND'])"

    code, out, err = run_python("-c", script, environment=environment)

    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "True nonsense"
    assert Path("a.png").read_bytes() == picture("heron")


# what stands in a chart ----------------------------------------------------------------------------------------------


def test_curves_lie_over_each_other_by_iterations_tokens_and_time(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, LINE, VALIDATIONS)

    charts = shown("heron", "otter", by=AXES).charts()

    assert [re.findall("by ([a-z ]+)", label)[0] for label in charts[::2]] == [
        "iterations",
        "trained tokens",
        "time at work",
    ]


def test_every_chart_is_told_in_words(db: Registry) -> None:
    run = new_run(db, "heron")
    report(db, run, begin(db, run), LINE[:20])
    again = begin(db, run, from_iteration=40)
    report(db, run, again, LINE[20:])
    for iteration, loss, error in VALIDATIONS:
        registry.record_validation(db, run.id, again, iteration=iteration, loss=loss, standard_error=error)

    charts = shown("heron").charts()

    assert charts[0] == (
        "Loss over 100 iterations. Train loss from 3.960 at iteration 2 to 2.000 at iteration 100. "
        "Validation loss from 4.100 at iteration 0 to 2.200 at iteration 100. "
        "The lowest validation loss is 2.200 at iteration 100. Later attempts begin at iteration 40."
    )
    assert charts[2:] == [
        "Speed from iteration 2 to 100, between 100 and 100.",
        "Memory from iteration 2 to 100, between 1.0 GB and 1.0 GB.",
    ]


# shapes of runs -------------------------------------------------------------------------------------------------------


def spike(db: Registry, name: str) -> None:
    train(db, name, [(step, 500.0 if step == 777 else 2.0) for step in range(1, 2001)])


SHAPES: dict[str, tuple[Callable[[Registry, str], Any], str]] = {
    "created": (lambda db, name: new_run(db, name), "Created, not begun; no losses yet."),
    "without any metric": (lambda db, name: train(db, name), "Completed: 100 iterations"),
    "one point": (lambda db, name: train(db, name, [(10, 2.0)]), "train loss 2.000, no validation."),
    "not finite": (
        lambda db, name: train(db, name, [(step, math.nan) for step in range(1, 30)]),
        "No loss was recorded that could be drawn.",
    ),
    "partly finite": (
        lambda db, name: train(db, name, [(step, math.nan if step % 3 else 2.0) for step in range(1, 90)]),
        "train loss from 2.000 to 2.000, no validation.",
    ),
    "one validation": (
        lambda db, name: train(db, name, [], [(0, 2.5, 0.1)]),
        "validation loss 2.500 ± 0.100 at iteration 0.",
    ),
    "many validations": (
        lambda db, name: train(db, name, LINE, [(step, 3.0 - step / 200, 0.1) for step in range(100)]),
        "validation loss from 3.000 to 2.505 ± 0.100, its lowest.",
    ),
    "wide": (
        lambda db, name: train(db, name, [(1, 1.7e308), (2, 1e-310), (3, 5.0)], [(1, 1e300, 1e299), (3, 0.0, 0.0)]),
        "validation loss from 1e+300 to 0.000 ± 0.000, its lowest.",
    ),
    "spike": (spike, "train loss from 2.000 to 2.000, no validation."),
    "far": (lambda db, name: train(db, name, [(10**15, 2.0), (10**15 + 3, 1.0)]), "train loss from 2.000 to 1.000"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_run_has_a_page_and_a_picture(db: Registry, shape: str) -> None:
    make, said = SHAPES[shape]
    make(db, "heron")
    make(db, "otter")

    one, both = drawn("heron", png=True), drawn("heron", "otter", png=True)

    assert said in Page(one["html"].decode()).text
    assert "2 training runs compared" in Page(both["html"].decode()).text
    assert size_of(one["png"]) == size_of(both["png"]) == (1600, 800)


def test_eight_runs_of_long_names_share_a_page(db: Registry) -> None:
    names = [f"{'very ' * 12}long {number}" for number in range(8)]
    for name in names:
        train(db, name, LINE, VALIDATIONS)

    found = drawn(*names, png=True)

    assert all(name in Page(found["html"].decode()).text for name in names)
    assert size_of(found["png"]) == (1600, 800)


def test_a_spike_of_one_step_stays_in_the_chart(db: Registry) -> None:
    spike(db, "heron")

    chart = first_chart("heron")

    # 500 beside 2 makes the scale logarithmic and reach that far
    assert "logarithmic" in chart
    assert ">200<" in chart
    assert ">1000<" not in chart


def test_later_attempts_stand_in_the_chart_by_their_number(db: Registry) -> None:
    run = train(db, "heron", LINE)
    for iteration in (30, 60):
        report(db, run, begin(db, run, from_iteration=iteration), [each for each in LINE if each[0] > iteration])

    chart = first_chart("heron")

    assert re.findall(r">(\d)</text>", chart)[-2:] == ["2", "3"]
    assert "an attempt begins" in chart


@pytest.mark.parametrize("losses", [[(100, 3.0), (200, 2.5), (300, 2.0)], [(100, 3.0)]])
def test_attempts_that_begin_outside_the_chart_change_nothing_in_it(
    db: Registry, losses: list[tuple[int, float]]
) -> None:
    once, thrice = new_run(db, "heron"), new_run(db, "otter")
    report(db, once, begin(db, once), losses)
    report(db, thrice, [begin(db, thrice) for _ in range(3)][-1], losses)

    assert first_chart("otter") == first_chart("heron")
    otter = gathered("otter").run
    assert otter
    assert "Later attempts begin at iteration 0, 0." in phrases.chart_of_losses(otter.details)


def test_the_number_of_an_attempt_takes_no_room_from_the_chart(db: Registry) -> None:
    for name, iteration in (("heron", 10), ("otter", 101)):
        run = new_run(db, name)
        report(db, run, begin(db, run), LINE)
        report(db, run, begin(db, run, from_iteration=iteration), [each for each in LINE if each[0] > iteration])

    frames = [re.findall(r"M ([\d.]+) ([\d.]+)\s+L ([\d.]+) ", first_chart(name))[1] for name in ("heron", "otter")]

    assert frames[0] == frames[1]


def test_an_attempt_that_begins_a_little_beyond_the_last_loss_stands_in_the_chart(db: Registry) -> None:
    run = train(db, "heron", LINE)
    begin(db, run, from_iteration=105)

    assert "an attempt begins" in first_chart("heron")


def test_one_point_has_one_label_below_it(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, [(7, 2.5)])

    one, both = (charts_of(*names) for names in ONE_AND_BOTH)

    assert [labels(chart).count("7") for chart in one] == [1] * len(one)
    assert [labels(chart).count("7") for chart in both[:2]] == [1, 1]


def test_times_below_a_chart_that_lie_close_together_differ(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, LINE)

    by_time = charts_of("heron", "otter", by=("iterations", "time"))[-2]
    found = labels(by_time.partition("seconds at work")[0])

    assert found
    assert len(set(found)) == len(found)


def test_a_small_chart_is_told_by_its_first_and_its_last_iteration(db: Registry) -> None:
    run = new_run(db, "heron")
    attempt = begin(db, run)
    for step in range(1, 1001):
        report(db, run, attempt, [(step, 2.0)], speed=5000.0 - step)

    assert shown("heron").charts()[2] == "Speed from iteration 1 to 1,000, between 4,000 and 4,999."


@pytest.mark.parametrize(
    ("losses", "validations", "there", "absent"),
    [
        (LINE, [(50, 3.0, None)], [">validation<"], ["standard error<"]),
        (LINE, [(50, 3.0, 0.1)], [">validation ± standard error<"], []),
        ([(1, 2.0)], [(1, 1e300, 0.1)], [">best: 1e+300<", "Loss over 1 iteration."], ["best: 1e+12"]),
        (LINE[:3], [], ["Train losses as reported.<"], ["their mean"]),
        (LINE, [], ["Train losses as reported, and their mean around each point.<"], ["stretch"]),
        ([(step, 2.0) for step in range(1, 1001)], [], ["; of each stretch the lowest and the highest.<"], []),
        ([], [(50, 3.0, 0.1)], [], ["Train losses as reported"]),
        ([(1, math.inf)], [], ["; no loss was finite."], ["no losses"]),
    ],
)
def test_a_page_says_of_a_chart_what_stands_in_it(
    db: Registry, losses: list[Any], validations: list[Any], there: list[str], absent: list[str]
) -> None:
    run = train(db, "heron", losses, validations)
    with db.transaction() as connection:
        connection.execute("UPDATE runs SET iteration = ? WHERE id = ?", (max([*losses, *validations])[0], run.id))

    found = gathered("heron").run
    assert found
    captions = [phrases.caption(found, is_smoothed=figures.is_smoothed(found)), phrases.how_it_went(found.details)]
    text = first_chart("heron") + "".join(f"{each}<" for each in [*captions, phrases.chart_of_losses(found.details)])

    assert [each for each in there if each not in text] == []
    assert [each for each in absent if each in text] == []


def test_a_hundred_thousand_points_are_a_page_of_a_few_hundred_kilobytes(db: Registry) -> None:
    run = train(db, "heron")
    with db.transaction() as connection:
        connection.execute(
            """
            INSERT INTO metrics
            WITH RECURSIVE step (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM step WHERE number < 100000)
            SELECT ?, 1, number, iif(number = 77777, 900.0, 2.0 + number % 7 / 10.0), number FROM step
            """,
            (run.id,),
        )
        connection.execute(
            "INSERT INTO series VALUES (?, 1, 100000, 0, 1, 100000, 2.0, 0, 2.0, 1, 900, 77777)", (run.id,)
        )

    text = drawn("heron")["html"].decode()

    assert len(text) < 400_000
    assert "logarithmic" in text
