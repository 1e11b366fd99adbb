"""Reports: pages that need nothing else and show what strangers wrote as text, pictures, and shapes of runs."""

from __future__ import annotations

import json
import math
import re
import shlex
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import known_registry
import matplotlib
import pytest
from commands import run_python
from known_runs import begin, new_run, report, settings, train

from mlxops import registry
from mlxops.config import LoraConfig, ReportConfig
from mlxops.jobs.run import report as material
from mlxops.registry import Registry
from mlxops.ui.charts import svg
from mlxops.ui.report import page, phrases

Typed = Callable[[str], tuple[int, str, str]]
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
LINE = [(step, 4.0 - step / 50) for step in range(2, 101, 2)]
VALIDATIONS = [(0, 4.1, 0.1), (50, 3.1, 0.1), (100, 2.2, 0.1)]
NO_CONTENT = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in NO_CONTENT:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]

    def charts(self) -> list[str]:
        return [attributes["aria-label"] or "" for tag, attributes in self.elements if tag == "svg"]


@pytest.fixture
def db() -> Iterator[Registry]:
    with registry.open_registry(settings().project.registry_path) as opened:
        yield opened


def drawn(*runs: str, png: bool = False) -> dict[str, bytes]:
    found = material.gather(settings(), ReportConfig(runs=list(runs)), LoraConfig())
    return page.draw(found.run, found.comparisons, NOW, png=png)


def shown(*runs: str) -> Page:
    return Page(drawn(*runs)["html"].decode())


def size_of(picture: bytes) -> tuple[int, int]:
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


# what is written, and where ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_is_a_page_named_after_its_run_with_a_picture_beside_it(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE, VALIDATIONS)

    code, out, err = mlxops("run.report heron --png heron.png")

    files = [Path("heron.html"), Path("heron.png")]
    assert (code, err) == (0, "")
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(file.absolute()) for file in files]
    assert "Completed: 100 iterations" in Page(files[0].read_text(encoding="utf-8")).text
    assert size_of(files[1].read_bytes()) == (1600, 800)


@pytest.mark.slow
def test_what_was_written_is_told_as_json(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE)
    train(db, "otter", LINE)

    written = json.loads(mlxops("run.report heron,otter --png both.png --json")[1])

    assert [each["kind"] for each in written] == ["html", "png"]
    assert [Path(each["file"]).name for each in written] == ["heron-otter.html", "both.png"]
    assert [each["bytes"] for each in written] == [Path(each["file"]).stat().st_size for each in written]


@pytest.mark.slow
def test_a_file_of_that_name_is_replaced_and_a_missing_folder_made(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE)
    Path("old.html").write_text("old")

    codes = [mlxops(f"run.report latest --output {name}")[0] for name in ("old.html", "'new folder/heron.HTM'")]

    assert codes == [0, 0]
    assert Path("old.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [file.name for file in Path("new folder").iterdir()] == ["heron.HTM"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("run.report heron --output runs.db", "--output takes a file that ends in .html, not 'runs.db'"),
        ("run.report heron --output -", "--output takes a file that ends in .html, not '-'"),
        ("run.report heron --png heron.svg", "--png takes a file that ends in .png, not 'heron.svg'"),
        ("run.report herom", "no run 'herom'"),
        ("run.report heron,heron", "the run 'heron' stands there twice"),
        (
            f"run.report {','.join('abcdefghi')}",
            "run.report takes 1 to 8 runs, not 9\nhint: `mlx-toolkit run.report heron,otter`\n",
        ),
    ],
)
def test_a_report_that_cannot_be_is_refused_in_a_sentence(mlxops: Typed, db: Registry, typed: str, said: str) -> None:
    train(db, "heron", LINE)
    before = {path.name for path in Path().iterdir()}

    code, out, err = mlxops(typed)

    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert {path.name for path in Path().iterdir()} == before


@pytest.mark.slow
def test_a_page_that_cannot_be_written_leaves_the_old_one_whole(mlxops: Typed, db: Registry) -> None:
    train(db, "heron", LINE)
    Path("heron.html").write_text("old")
    Path("file").write_text("no folder")
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)); sys.argv = ['mlx-toolkit', 'run.report', 'heron']; "
        "from mlxops.__main__ import main; main()"
    )

    ended = subprocess.run([sys.executable, "-c", limit], capture_output=True, text=True)
    code, _, err = mlxops("run.report heron --output file/heron.html")

    assert (ended.returncode, code) == (1, 1)
    assert "heron.html' cannot be written: File too large" in ended.stderr
    assert "heron.html' cannot be written: " in err
    assert Path("heron.html").read_text() == "old"
    assert not list(Path().glob(".*.partial"))


def test_without_matplotlib_it_is_said_what_to_type_and_nothing_is_written(
    mlxops: Typed, db: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(db, "heron", LINE)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    code, out, err = mlxops("run.report heron --png heron.png")

    assert (code, out) == (2, "")
    assert err.startswith("a report is drawn by the library matplotlib, which is not installed\n")
    assert re.search(
        rf"{re.escape(shlex.quote(sys.executable))} -m pip install '(mlxops\[report\]|matplotlib>=[\d.]+)' adds it", err
    )
    assert not list(Path().glob("heron*"))


# the page ------------------------------------------------------------------------------------------------------------


def known(*runs: str) -> Page:
    return Page(known_text(*runs))


@cache
def known_text(*runs: str) -> str:
    """The page of runs of the known registry, drawn once for all tests."""
    settings().project.registry_path.write_bytes(known_registry.content())
    return drawn(*runs)["html"].decode()


@pytest.mark.slow
def test_the_page_of_a_run_tells_all_of_it() -> None:
    text = known("heron").text

    for expected in (
        "Completed: 100 iterations in 2 m 50 s; validation loss from 2.600 to 1.800 ± 0.040, its lowest.",
        "the first one",
        "identity of models/small",
        "resumes from iteration 50",
        "perplexity 6.000 ± 0.250 14.000",
        "64 prompt tokens, 32 made tokens/s made 3 90.000 ± 0.000 90.000 90.000",
        "base model I do not know.",
        "swift from iteration 50, interrupted at 60 of 100",
        "inv lora --new --model models/small",
        "iters 100 1000",
        "M4",
        "2 exact 50 100 2026-03-01 10:02:20 UTC",
    ):
        assert expected in text


@pytest.mark.slow
def test_the_page_of_several_runs_sets_them_side_by_side() -> None:
    compared = known("heron", "otter", "wren")

    assert "otter has the lowest validation loss, 1.700 ± 0.030" in compared.text
    assert "Take care: val_batches, batch_size or seed differ" in compared.text
    assert "learning_rate 1e-05 1e-05 0.001" in compared.text
    assert "0.100 ± 0.050 *" in compared.text
    assert [label.split(". ")[0] for label in compared.charts()[::2]] == [
        "Train and validation losses of 3 runs by iterations",
        "Train and validation losses of 3 runs by time at work",
    ]


@pytest.mark.slow
def test_curves_lie_over_each_other_by_iterations_tokens_and_time(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, LINE, VALIDATIONS)

    charts = shown("heron", "otter").charts()

    assert [re.findall("by ([a-z ]+)", label)[0] for label in charts[::2]] == [
        "iterations",
        "trained tokens",
        "time at work",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("runs", [["heron"], ["heron", "otter", "wren", "swift", "crane", "kestrel"]])
def test_a_page_needs_no_network_and_no_script(runs: list[str]) -> None:
    found = known(*runs)

    assert {tag for tag, _ in found.elements} & {"script", "link", "img", "iframe", "object", "base", "form"} == set()
    assert {value for name in ("href", "src") for value in found.values(name) if not value.startswith("#")} == set()
    assert not re.search(r"url\((?!#)|@import|https?:", known_text(*runs).partition("</style>")[0])
    assert "default-src 'none'; style-src 'unsafe-inline'" in found.values("content")


@pytest.mark.slow
@pytest.mark.parametrize("runs", [["heron"], ["heron", "otter", "wren"]])
def test_every_id_of_a_page_stands_there_once_and_every_reference_has_one(runs: list[str]) -> None:
    found = known(*runs)
    ids = Counter(found.values("id"))
    referred = {value[1:] for value in found.values("href")}
    referred |= {value for each in found.values("clip-path") for value in re.findall(r"url\(#(.+)\)", each)}

    assert [name for name, count in ids.items() if count > 1] == []
    assert referred
    assert referred == set(ids)


@pytest.mark.slow
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


@pytest.mark.slow
def test_colours_follow_the_page_and_runs_are_told_apart_without_them() -> None:
    text = known_text("heron", "otter", "wren")
    charts = text.partition("<main>")[2]

    assert "prefers-color-scheme: dark" in text
    assert set(re.findall(r"#[0-9a-f]{6}\b", charts)) <= set(svg.LIGHT.values())
    assert all(f"var({match}," in charts for match in ("--series-0", "--series-1", "--series-2", "--ink"))
    assert len(set(re.findall(r"stroke-dasharray: ([^;\"]+)", charts))) >= 2


@pytest.mark.slow
def test_the_same_rows_make_the_same_bytes(db: Registry) -> None:
    train(db, "heron", LINE, VALIDATIONS)
    train(db, "otter", LINE, VALIDATIONS)

    for runs in ONE_AND_BOTH:
        assert drawn(*runs, png=True) == drawn(*runs, png=True)


@pytest.mark.slow
def test_drawing_leaves_matplotlib_as_it_was(db: Registry) -> None:
    train(db, "heron", LINE, VALIDATIONS)
    before = dict(matplotlib.rcParams)
    matplotlib.rcParams["lines.linewidth"] = 9.0

    ours = drawn("heron", png=True)

    changed = dict(matplotlib.rcParams)
    matplotlib.rcParams["lines.linewidth"] = before["lines.linewidth"]
    assert changed == before | {"lines.linewidth": 9.0}
    assert ours == drawn("heron", png=True)


@pytest.mark.slow
def test_settings_of_matplotlib_that_cannot_be_read_change_nothing(db: Registry) -> None:
    train(db, "heron", LINE, VALIDATIONS)
    Path("matplotlibrc").write_bytes(b"\xff\xfe lines.linewidth: 9")
    Path("wrong").write_text("lines.linewidth: nonsense\n", encoding="utf-8")
    environment = {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": "wrong"}

    code, _, err = run_python("-m", "mlxops", "run.report", "heron", "--png", "a.png", environment=environment)

    assert (code, err) == (0, "")
    assert Path("a.png").read_bytes() == drawn("heron", png=True)["png"]


@pytest.mark.slow
def test_drawing_leaves_the_folder_and_the_environment_as_they_were(db: Registry) -> None:
    train(db, "heron", LINE)
    program = (
        "import os; from mlxops.ui.charts import figures; before = os.getcwd(); figures.require(); "
        "print(os.getcwd() == before, os.environ['MPLBACKEND'])"
    )

    assert run_python("-c", program, environment={"MPLBACKEND": "svg"}) == (0, "True svg\n", "")


# what strangers wrote -------------------------------------------------------------------------------------------------


HOSTILE = "</title><script>alert(1)</script> \"q\" 'q' & {{ 7 * 7 }} $x_1$ \x1b[31m \u202egnp.exe \x07 日本 😀"


@pytest.fixture
def hostile(db: Registry) -> str:
    """A run in which every text is of the worst kind; its name is what a name may be."""
    name = "a&b 'q' $x_1$ \u202e日本 😀 #%;`"
    run = train(
        db, name, LINE, VALIDATIONS, note=HOSTILE, tags=[HOSTILE], model=HOSTILE, data=HOSTILE,
        config={"adapter_path": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}, "lora_keys": [HOSTILE]},
    )  # fmt: skip
    registry.add_event(db, run.id, None, kind=HOSTILE, message=HOSTILE, level="error", iteration=10)
    answer = registry.Answer(row=1, prompt=HOSTILE, expected=f"two\nlines\t{HOSTILE}", answer=HOSTILE)
    registry.record_evaluation(
        db, run_id=run.id, model=HOSTILE, adapter_path=None, data=HOSTILE, data_sha256="x", kind=HOSTILE, config={},
        answers=[answer],
    )  # fmt: skip
    return name


@pytest.mark.slow
def test_what_strangers_wrote_is_text_and_nothing_else(hostile: str, db: Registry) -> None:
    train(db, "plain", LINE)

    for found in (shown(hostile), shown(hostile, "plain")):
        assert {"script", "title"} & {tag for tag, _ in found.elements} == {"title"}
        assert "{{ 7 * 7 }}" in found.text
        assert "</title><script>alert(1)</script> \"q\" 'q' &" in found.text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", " ".join(found.words))
        assert "\\u202egnp.exe" in found.text


@pytest.mark.slow
def test_a_picture_shows_names_that_its_font_lacks_letters_for(hostile: str, db: Registry) -> None:
    train(db, "_plain", LINE)

    pictures = [drawn(hostile, png=True)["png"], drawn(hostile, "_plain", png=True)["png"]]

    assert list(map(size_of, pictures)) == [(1600, 800)] * 2


def test_the_file_of_a_run_with_an_odd_name_lies_in_the_current_folder() -> None:
    written = material.write(settings(), ReportConfig(runs=["a"]), ["../up/a b", "b" * 300], {"html": b"x"})

    (file,) = [path for path in Path().iterdir() if path.suffix == ".html"]
    assert file.name.startswith(".._up_a b-bbb")
    assert written[0].file == str(Path.cwd() / file)


def test_a_very_long_answer_is_cut_and_that_is_said() -> None:
    assert phrases.lines("x" * 5_000).endswith("x… (1,000 characters more)")


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


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_run_has_a_page_and_a_picture(db: Registry, shape: str) -> None:
    make, said = SHAPES[shape]
    make(db, "heron")
    make(db, "otter")

    one, both = drawn("heron", png=True), drawn("heron", "otter", png=True)

    assert said in Page(one["html"].decode()).text
    assert "2 training runs compared" in Page(both["html"].decode()).text
    assert size_of(one["png"]) == size_of(both["png"]) == (1600, 800)


@pytest.mark.slow
def test_eight_runs_of_long_names_share_a_page(db: Registry) -> None:
    names = [f"{'very ' * 12}long {number}" for number in range(8)]
    for name in names:
        train(db, name, LINE, VALIDATIONS)

    found = drawn(*names, png=True)

    assert all(name in Page(found["html"].decode()).text for name in names)
    assert size_of(found["png"]) == (1600, 800)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("status = 'failed', iteration = 40", "Failed at iteration 40 of 100 (error): no disk; "),
        ("status = 'interrupted', iteration = 40", "Interrupted at iteration 40 of 100 (error); "),
        ("status = 'running', iteration = 40", "Lost at iteration 40 of 100: its process ended without a word; "),
    ],
)
def test_how_it_went_is_said_in_a_sentence(db: Registry, change: str, said: str) -> None:
    run = train(db, "heron", LINE)
    with db.transaction() as connection:
        connection.execute(f"UPDATE runs SET {change} WHERE id = ?", (run.id,))
        connection.execute("UPDATE attempts SET end_reason = 'error', error = 'no disk', heartbeat_at = '2026-01-01'")

    assert said in shown("heron").text


@pytest.mark.slow
def test_a_run_at_work_is_said_to_be(db: Registry) -> None:
    run = new_run(db, "heron")
    report(db, run, begin(db, run), [(10, 3.0), (20, 2.5)])

    assert re.search(
        r"Still running, as of 20\d\d-.* UTC: iteration 20 of 100, .* left; train loss", shown("heron").text
    )


@pytest.mark.slow
def test_a_spike_of_one_step_stays_in_the_chart(db: Registry) -> None:
    spike(db, "heron")

    chart = drawn("heron")["html"].decode().partition("<svg")[2].partition("</svg>")[0]

    # 500 beside 2 makes the scale logarithmic and reach that far
    assert "logarithmic" in chart
    assert ">200<" in chart
    assert ">1000<" not in chart


@pytest.mark.slow
def test_later_attempts_stand_in_the_chart_by_their_number(db: Registry) -> None:
    run = train(db, "heron", LINE)
    for iteration in (30, 60):
        report(db, run, begin(db, run, from_iteration=iteration), [each for each in LINE if each[0] > iteration])

    chart = drawn("heron")["html"].decode().partition("<svg")[2].partition("</svg>")[0]

    assert re.findall(r">(\d)</text>", chart)[-2:] == ["2", "3"]
    assert "an attempt begins" in chart


def first_chart(name: str) -> str:
    """The drawing of a run's losses, without what it is told in words."""
    chart = drawn(name)["html"].decode().partition("<svg")[2].partition("</svg>")[0]
    return re.sub(r'aria-label="[^"]*"', "", chart)


def labels(chart: str) -> list[str]:
    """The texts of a chart that are numbers."""
    return re.findall(r">([\d,.]+)</text>", chart)


@pytest.mark.slow
@pytest.mark.parametrize("losses", [[(100, 3.0), (200, 2.5), (300, 2.0)], [(100, 3.0)]])
def test_attempts_that_begin_outside_the_chart_change_nothing_in_it(
    db: Registry, losses: list[tuple[int, float]]
) -> None:
    once, thrice = new_run(db, "heron"), new_run(db, "otter")
    report(db, once, begin(db, once), losses)
    report(db, thrice, [begin(db, thrice) for _ in range(3)][-1], losses)

    assert first_chart("otter") == first_chart("heron")
    assert "Later attempts begin at iteration 0, 0." in shown("otter").charts()[0]


@pytest.mark.slow
def test_the_number_of_an_attempt_takes_no_room_from_the_chart(db: Registry) -> None:
    for name, iteration in (("heron", 10), ("otter", 101)):
        run = new_run(db, name)
        report(db, run, begin(db, run), LINE)
        report(db, run, begin(db, run, from_iteration=iteration), [each for each in LINE if each[0] > iteration])

    frames = [re.findall(r"M ([\d.]+) ([\d.]+)\s+L ([\d.]+) ", first_chart(name))[1] for name in ("heron", "otter")]

    assert frames[0] == frames[1]


@pytest.mark.slow
def test_an_attempt_that_begins_a_little_beyond_the_last_loss_stands_in_the_chart(db: Registry) -> None:
    run = train(db, "heron", LINE)
    begin(db, run, from_iteration=105)

    assert "an attempt begins" in first_chart("heron")


@pytest.mark.slow
def test_one_point_has_one_label_below_it(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, [(7, 2.5)])

    one, both = (re.findall(r"<svg.*?</svg>", drawn(*names)["html"].decode(), re.DOTALL) for names in ONE_AND_BOTH)

    assert [labels(chart).count("7") for chart in one] == [1] * len(one)
    assert [labels(chart).count("7") for chart in both[:2]] == [1, 1]


ONE_AND_BOTH = (["heron"], ["heron", "otter"])


@pytest.mark.slow
def test_times_below_a_chart_that_lie_close_together_differ(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, LINE)

    by_time = re.findall(r"<svg.*?</svg>", drawn("heron", "otter")["html"].decode(), re.DOTALL)[-2]
    found = labels(by_time.partition("seconds at work")[0])

    assert found
    assert len(set(found)) == len(found)


@pytest.mark.slow
def test_a_small_chart_is_told_by_its_first_and_its_last_iteration(db: Registry) -> None:
    run = new_run(db, "heron")
    attempt = begin(db, run)
    for step in range(1, 1001):
        report(db, run, attempt, [(step, 2.0)], speed=5000.0 - step)

    assert shown("heron").charts()[2] == "Speed from iteration 1 to 1,000, between 4,000 and 4,999."


@pytest.mark.slow
def test_a_small_chart_alone_is_as_large_as_beside_others(db: Registry) -> None:
    train(db, "heron", LINE)

    style = drawn("heron")["html"].decode().partition("<style>")[2].partition("</style>")[0]

    assert re.search(r"^\.charts \{[^}]*repeat\(auto-fill,", style, re.MULTILINE)
    assert re.search(r"^\.charts \.chart \{ max-width: \d+rem; \}", style, re.MULTILINE)


@pytest.mark.slow
def test_equal_runs_share_the_lowest_loss(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, LINE, VALIDATIONS)
    train(db, "wren", LINE, [(100, 3.0, 0.1)])

    equal, with_another = shown("heron", "otter").text, shown("heron", "otter", "wren").text

    assert "heron and otter share the lowest validation loss, 2.200 ± 0.100. The settings are the same" in equal
    assert "chance" not in equal.partition("Losses")[0]
    assert "share the lowest validation loss, 2.200 ± 0.100; wren is significantly worse." in with_another


@pytest.mark.slow
def test_what_is_not_known_of_one_run_is_not_said_to_be_the_same(db: Registry) -> None:
    for name, version in (("heron", None), ("otter", "0.32.4")):
        run = new_run(db, name)
        report(db, run, begin(db, run, mlx=version), LINE)

    text = shown("heron", "otter").text

    assert "Not known of all: 1 setting A B mlx - 0.32.4 The same in all: " in text
    assert "mlx " not in text.partition("The same in all: ")[2].partition("Speed and memory")[0]


@pytest.mark.slow
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

    text = drawn("heron")["html"].decode()

    assert [each for each in there if each not in text] == []
    assert [each for each in absent if each in text] == []


def imported(db: Registry, name: str, **facts: Any) -> None:
    """A run as an import leaves one that ended for a reason nobody knows."""
    run = train(db, name, LINE, config={"imported": {"from": "old.log", **facts}})
    with db.transaction() as connection:
        connection.execute(
            "UPDATE runs SET imported_from = 'old.log', status = 'interrupted', iteration = 20, target_iterations = 20,"
            " fingerprint = 'imported:1', model_identity = 'named models/tiny' WHERE id = ?", (run.id,)
        )  # fmt: skip
        connection.execute("UPDATE attempts SET end_reason = 'unknown', command = '' WHERE run_id = ?", (run.id,))


@pytest.mark.slow
def test_an_imported_run_is_said_to_be_imported_and_no_more_is_claimed_than_is_known(db: Registry) -> None:
    imported(db, "heron", is_target_known=False)

    text = shown("heron").text

    assert "A training run, interrupted, imported" in text
    assert "Interrupted at iteration 20; train loss" in text
    assert "iterations 20 trained tokens" in text
    assert "imported from old.log" in text
    for unknown in ("fingerprint imported", "identity of the model", "What was typed"):
        assert unknown not in text


@pytest.mark.slow
def test_the_target_of_an_imported_run_stands_there_where_it_is_known(db: Registry) -> None:
    imported(db, "heron")

    assert "Interrupted at iteration 20 of 20; train loss" in shown("heron").text


@pytest.mark.slow
def test_a_million_points_are_a_page_of_a_few_hundred_kilobytes(db: Registry) -> None:
    run = train(db, "heron")
    with db.transaction() as connection:
        connection.execute(
            """
            INSERT INTO metrics
            WITH RECURSIVE step (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM step WHERE number < 1000000)
            SELECT ?, 1, number, iif(number = 777777, 900.0, 2.0 + number % 7 / 10.0), number FROM step
            """,
            (run.id,),
        )
        connection.execute(
            "INSERT INTO series VALUES (?, 1, 1000000, 0, 1, 1000000, 2.0, 0, 2.0, 1, 900, 777777)", (run.id,)
        )

    text = drawn("heron")["html"].decode()

    assert len(text) < 400_000
    assert "logarithmic" in text
