"""Reports: the files that are written, pages that need nothing else, and what strangers wrote as text."""

from __future__ import annotations

import json
import re
import resource
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import known_registry
import pytest
from known_runs import begin, new_run, report, settings, train
from report_pages import AXES, LINE, VALIDATIONS, Page, drawn, gathered, shown, size_of

from mlxops import registry
from mlxops.config import ReportConfig
from mlxops.jobs.run import report as material
from mlxops.jobs.run.show import RunDetails
from mlxops.registry import Registry
from mlxops.ui.charts import figures, svg
from mlxops.ui.report import phrases

Typed = Callable[[str], tuple[int, str, str]]


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
    for name in ("heron", "otter"):
        train(db, name)

    written = json.loads(mlxops("run.report heron,otter --png both.png --json")[1])

    assert [each["kind"] for each in written] == ["html", "png"]
    assert [Path(each["file"]).name for each in written] == ["heron-otter.html", "both.png"]
    assert [each["bytes"] for each in written] == [Path(each["file"]).stat().st_size for each in written]


@pytest.mark.slow
def test_a_file_of_that_name_is_replaced_where_that_is_meant_and_a_missing_folder_made(
    mlxops: Typed, db: Registry
) -> None:
    train(db, "heron")
    Path("old.html").write_text("old")

    refused = mlxops("run.report latest --output old.html")
    codes = [mlxops(f"run.report latest --output {name}")[0] for name in ("old.html --yes", "'new folder/heron.HTM'")]

    assert refused[2] == "'old.html' is there already\nhint: `--yes` replaces it, `--output` names another\n"
    assert (refused[0], codes) == (3, [0, 0])
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
            "run.report takes 1 to 8 runs, not 9\nhint: `mlx-toolkit run.report 1,2`\n",
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
    train(db, "heron")
    Path("heron.html").write_text("old")
    Path("file").write_text("no folder")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    full = mlxops("run.report heron --yes")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    code, _, err = mlxops("run.report heron --output file/heron.html")

    assert (full[0], code) == (1, 1)
    assert "heron.html' cannot be written: File too large" in full[2]
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
    return drawn(*runs, by=AXES)["html"].decode()


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
        "inv lora --new --ignore-invoke-yaml --model models/small",
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
    assert "64 prompt tokens, 32 made gpu made 90.000 ± 0.000 - -" in compared.text
    assert [label.split(". ")[0] for label in compared.charts()[::2]] == [
        "Train and validation losses of 3 runs by iterations",
        "Train and validation losses of 3 runs by time at work",
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
def test_colours_follow_the_page_and_runs_are_told_apart_without_them() -> None:
    text = known_text("heron", "otter", "wren")
    charts = text.partition("<main>")[2]

    assert "prefers-color-scheme: dark" in text
    assert set(re.findall(r"#[0-9a-f]{6}\b", charts)) <= set(svg.LIGHT.values())
    assert all(f"var({match}," in charts for match in ("--series-0", "--series-1", "--series-2", "--ink"))
    assert len(set(re.findall(r"stroke-dasharray: ([^;\"]+)", charts))) >= 2


def test_a_small_chart_alone_is_as_large_as_beside_others(db: Registry) -> None:
    train(db, "heron")

    style = drawn("heron")["html"].decode().partition("<style>")[2].partition("</style>")[0]

    assert re.search(r"^\.charts \{[^}]*repeat\(auto-fill,", style, re.MULTILINE)
    assert re.search(r"^\.charts \.chart \{ max-width: \d+rem; \}", style, re.MULTILINE)


# what strangers wrote -------------------------------------------------------------------------------------------------


HOSTILE = "</title><script>alert(1)</script> \"q\" 'q' & {{ 7 * 7 }} $x_1$ \x1b[31m \u202egnp.exe \x07 日本 😀"


@pytest.fixture
def hostile(db: Registry) -> str:
    """A run in which every text is of the worst kind; its name is what a name may be."""
    name = "a&b 'q' $x_1$ 日本 😀 #%;`"
    run = train(
        db, name, LINE, VALIDATIONS, note=HOSTILE, tags=["<b>{{ 7 * 7 }}"], model=HOSTILE, data=HOSTILE,
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

    one, both = gathered(hostile).run, (gathered(hostile, "_plain").comparisons or {})["iterations"]
    pictures = [figures.png(one, None), figures.png(None, both)]

    assert list(map(size_of, pictures)) == [(1600, 800)] * 2


def test_the_file_of_a_run_with_an_odd_name_lies_in_the_current_folder() -> None:
    written = material.write(settings(), ReportConfig(runs=["a"]), ["../up/a b", "b" * 300], {"html": b"x"})

    (file,) = [path for path in Path().iterdir() if path.suffix == ".html"]
    assert file.name.startswith(".._up_a b-bbb")
    assert written[0].file == str(Path.cwd() / file)


def test_a_very_long_answer_is_cut_and_that_is_said() -> None:
    assert phrases.lines("x" * 5_000).endswith("x… (1,000 characters more)")


# what is said -------------------------------------------------------------------------------------------------------


def details(name: str) -> RunDetails:
    """What is known of a run."""
    found = gathered(name).run
    assert found
    return found.details


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

    assert phrases.how_it_went(details("heron")).startswith(said)


def test_a_run_at_work_is_said_to_be(db: Registry) -> None:
    run = new_run(db, "heron")
    report(db, run, begin(db, run), [(10, 3.0), (20, 2.5)])
    db.connection.execute("UPDATE attempts SET expected_end_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 hour')")

    assert re.search(
        r"Still running, as of 20\d\d-.* UTC: iteration 20 of 100, .* left; train loss",
        phrases.how_it_went(details("heron")),
    )


@pytest.mark.slow
def test_equal_runs_share_the_lowest_loss(db: Registry) -> None:
    for name in ("heron", "otter"):
        train(db, name, LINE, VALIDATIONS)
    train(db, "wren", LINE, [(100, 3.0, 0.1)])

    equal = shown("heron", "otter").text
    with_another = (gathered("heron", "otter", "wren").comparisons or {})["iterations"]

    assert "heron and otter share the lowest validation loss, 2.200 ± 0.100. The settings are the same" in equal
    assert "chance" not in equal.partition("Losses")[0]
    assert phrases.which_is_lowest(with_another) == (
        "heron and otter share the lowest validation loss, 2.200 ± 0.100; wren is significantly worse."
    )


@pytest.mark.slow
def test_what_is_not_known_of_one_run_is_not_said_to_be_the_same(db: Registry) -> None:
    for name, version in (("heron", None), ("otter", "0.32.4")):
        begin(db, new_run(db, name), mlx=version)

    text = shown("heron", "otter").text

    assert "Not known of all: 1 setting A B mlx - 0.32.4 The same in all: " in text
    assert "mlx " not in text.partition("The same in all: ")[2].partition("Speed and memory")[0]


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


def test_the_target_of_an_imported_run_stands_there_where_it_is_known(db: Registry) -> None:
    imported(db, "heron")

    assert phrases.how_it_went(details("heron")).startswith("Interrupted at iteration 20 of 20; train loss")
