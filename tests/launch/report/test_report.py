"""The report in a real browser, with hostile documents, with parts missing, and with very long runs."""

from __future__ import annotations

import json
import pydoc_data.topics
import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, assert_sound, in_browser
from example_report import HOSTILE, lines, metrics_row, write_run
from toyrun import PATIENCE

from launch import report
from launch.cli import guarded
from launch.report import charts
from launch.report.data import _quote, by_stage, histograms
from launch.report.read import read
from launch.report.sections import latest, mixture
from launch.report.words import duration, short

SECTIONS = {
    "training": "Training",
    "heldout": "Held-out loss",
    "samples": "Text samples",
    "data": "Data",
    "thresholds": "Thresholds",
    "mixture": "Mixture",
    "reliability": "Reliability",
    "environment": "Environment",
    "configuration": "Configuration",
}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = 0
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("report"))
    assert report.main([f"run.dir={run}"]) == 0
    return run


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: run tests/install_browser.sh")
@pytest.mark.parametrize("width", [1600, 390])
def test_the_page_in_a_browser(run_dir: Path, width: int, tmp_path: Path) -> None:
    found = in_browser(run_dir / "report.html", width, tmp_path)
    assert_sound(found, width, SECTIONS, 14)
    shown = found["axes"]
    assert shown["step"] == shown["back"]
    assert [shown[k]["title"] for k in ("step", "tokens", "seconds")] == [
        *("step", "tokens trained on", "seconds of training")
    ]
    # 400 steps of 8,160 tokens and 0.8 s.
    assert [shown[k]["x"] for k in ("step", "tokens", "seconds")] == pytest.approx([400, 400 * 8160, 320])
    assert [shown[k]["x0"] for k in ("step", "tokens", "seconds")] == pytest.approx([1, 8160, 0.8])
    assert (shown["log"]["type"], shown["log"]["y"]) == ("log", "log")
    assert (shown["step"]["type"], shown["step"]["y"]) == ("linear", "linear")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real data run: pages of two sites in two lengths, duplicates, a hostile address."""
    folder = tmp_path_factory.mktemp("data")
    topics = [" ".join(text.split()) for _, text in sorted(pydoc_data.topics.topics.items())][:60]
    rows = [{"url": f"http://site{i % 2}.org/{i}", "text": t} for i, t in enumerate(topics)]
    rows += [{"url": f"http://copy.org/{HOSTILE}{i}", "text": topics[3]} for i in range(5)]
    rows += [{"url": f"http://short.org/{i}", "text": f"{HOSTILE} number {i}"} for i in range(9)]
    (folder / "in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = ["recipe=web", f"input={folder / 'in.jsonl'}", f"output={folder / 'out'}", "executor.workers=1"]
    command = [sys.executable, "-m", "data_pipeline.run", *words, "stop_after=final"]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    return folder / "out"


LOADED = """
import json, sys
from launch import cli
assert cli.main(sys.argv[1:]) == 0
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "words",
    [
        ("report", "data.path={run}", "output={run}/../page.html"),
        ("whatif", "data.path={run}"),
    ],
    ids=lambda words: words[0],
)
def test_verbs_that_look_at_a_data_run_load_nothing_that_computes(
    data_dir: Path, words: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", LOADED, *(word.format(run=data_dir) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"torch", "pandas", "numba", "scipy", "datatrove", "huggingface_hub", "transformers", "sklearn"}
    assert modules & heavy == set()


def test_a_page_about_a_data_run_alone(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([f"data.path={data_dir}"]) == 0
    content = (data_dir / "report.html").read_text()
    text = Page(content).text
    funnel = json.loads((data_dir / "funnel.json").read_text())
    row = funnel["sources"]["web"]
    assert HOSTILE not in content and "number 3" in text
    assert f"{row['read_documents']} set aside" not in text and "74" in text and "documents read" in text
    assert "site0.org" in text and "Sizes of clusters" in text and "exact: 5 dropped" in text
    # The curve's present point is what the run itself decided before deduplication.
    kept = (
        sum(n for rule, n in row["dropped_documents"].items() if rule in ("exact", "minhash", "url"))
        + row["kept_documents"]
    )
    assert f"web: {100 * kept / 74:.1f} % of 74 documents with text" in text


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: run tests/install_browser.sh")
def test_the_page_about_data_in_a_browser(data_dir: Path, tmp_path: Path) -> None:
    assert report.main([f"data.path={data_dir}", f"output={tmp_path / 'page.html'}"]) == 0
    sections = {
        k: v for k, v in SECTIONS.items() if k not in ("training", "heldout", "samples", "reliability")
    }
    assert_sound(in_browser(tmp_path / "page.html", 1200, tmp_path), 1200, sections, 5)


def test_nothing_to_report_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(partial(report.main, [])) == 2
    shown = capsys.readouterr()
    assert "give run.dir=DIR of a run" in shown.err and shown.out == ""
    (tmp_path / "notes").mkdir()
    assert guarded(partial(report.main, [f"run.dir={tmp_path / 'notes'}"])) == 2
    assert "notes` is no run directory" in capsys.readouterr().err
    assert not list((tmp_path / "notes").iterdir())
    for name in ("config.yaml", "units.json"):
        (tmp_path / "notes" / name).touch()
    assert guarded(partial(report.main, [f"run.dir={tmp_path / 'notes'}"])) == 2
    assert f"is a data run; write data.path={tmp_path / 'notes'}" in capsys.readouterr().err
    run = write_run(tmp_path, steps=2)
    for given in ([], [f"run.dir={run}"]):
        words = [*given, f"data.path={tmp_path / 'nowhere/packed'}"]
        assert guarded(partial(report.main, words)) == 2
        assert "there is no packed dataset" in capsys.readouterr().err


def test_the_page_is_one_file_with_everything_in_it(run_dir: Path) -> None:
    content = (run_dir / "report.html").read_text()
    page = Page(content)
    for tag, attributes in page.tags:
        assert "src" not in attributes, (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if "href" in attributes:
            assert re.match(r"#|data:", attributes["href"] or ""), attributes
    assert content.count("plotly.js v") == 1, "the library is embedded once"
    assert "default-src 'none'" in content
    for title in SECTIONS.values():
        assert title in page.text


def test_hostile_text_is_shown_and_never_run(run_dir: Path) -> None:
    content = (run_dir / "report.html").read_text()
    assert HOSTILE not in content
    assert not any(tag == "img" for tag, _ in Page(content).tags)
    assert Page(content).text.count(HOSTILE) >= 6, (
        "in samples, URLs, excerpts, reasons, events, configuration"
    )
    assert "\x00" not in content and "\x1b" not in content


def test_the_numbers_of_the_run_stand_in_the_page(run_dir: Path) -> None:
    text = Page((run_dir / "report.html").read_text()).text
    for expected in (
        "3.26 M",
        "72.9 %",
        "1 restart",
        "9,000",
        "gopher.n_words: 2,100 dropped",
        "of these flagged by privacy.pages",
        "nsfw classifier",
    ):
        assert expected in text, expected
    record = read(run_dir, None)
    pooled = latest(record.evals)[-1]
    assert pooled["source"] == "all" and pooled["bits_per_byte"] == pytest.approx(
        (2.0 + 2.4) / 2 + 2 * np.exp(-4)
    )
    assert f"{pooled['bits_per_byte']:.4f}" in text


def test_an_evaluation_of_the_whole_split_is_no_step_of_the_curve_over_a_part_of_it() -> None:
    def row(step: int, tokens: int, bits: float, source: str = "code") -> dict[str, object]:
        return {"step": step, "source": source, "tokens": tokens, "bytes": tokens, "bits_per_byte": bits}

    part = [row(step, 100, 3 - step / 10) for step in (1, 2, 3)]
    whole = row(3, 900, 2.95)
    shown = charts.heldout_by_source([*part, whole])
    assert shown is not None and list(shown.data[0].y) == pytest.approx([2.9, 2.8, 2.7])
    assert latest([*part, whole])[0]["bits_per_byte"] == 2.95  # the table has the newest
    other = [row(1, 50, 2.0, "prose"), row(2, 70, 1.9, "prose")]
    assert charts.comparable([*part, whole, *other]) == [*part, *other]


def test_every_missing_part_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/environment.jsonl").touch()  # of a run that has begun
    assert report.main([f"run.dir={tmp_path / 'empty'}", f"output={tmp_path / 'out/page.html'}"]) == 0
    text = Page((tmp_path / "out/page.html").read_text()).text
    for reason in (
        "metrics.jsonl does not exist: no step has been finished",
        "eval.jsonl does not exist: no held-out evaluation has been made",
        "samples.jsonl does not exist: no text has been sampled: run `arriero generate`",
        "ledger.jsonl does not exist",
        "names no packed dataset; give data.path=DIR/packed",
        "config.yaml does not exist",
    ):
        assert reason in text, reason
    assert guarded(partial(report.main, [f"run.dir={tmp_path / 'nowhere'}"])) == 2


def test_a_dataset_that_was_moved_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, steps=5)
    moved = tmp_path / "elsewhere"
    (tmp_path / "data").rename(moved)
    assert "data/packed/manifest.json does not exist" in Page(report.render(run)).text
    assert "gopher.n_words: 2,100 dropped" in Page(report.render(run, moved / "packed")).text


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path, steps=30)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "lo')
    (run / "samples.jsonl").write_text("[1]\n")
    (tmp_path / "data/funnel.json").write_text("{")
    text = Page(report.render(run)).text
    assert "1 unreadable line(s) of" in text and "funnel.json cannot be read" in text
    assert "Throughput" in text and "30" in text


def test_what_is_not_finite_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path, steps=40)
    rows = [metrics_row(step) for step in range(1, 41)]
    rows[6]["loss"], rows[7]["loss"], rows[8]["loss"] = float("inf"), float("nan"), None
    rows[9] = dict.fromkeys(rows[9], float("-inf"))
    rows[39]["loss"] = float("inf")
    for key in ("tokens_per_second", "mfu", "memory_peak_bytes", "tokens", "grad_norm", "step_seconds"):
        rows[10][key] = float("inf")
    lines(run / "metrics.jsonl", rows)
    odd = {"source": "code", "split": "heldout", "tokens": 10, "bytes": 40}
    evals = [odd | {"step": 40, "nats_per_token": float("nan"), "bits_per_byte": float("inf")}]
    lines(run / "eval.jsonl", [*evals, odd | {"step": float("inf")}])
    with (run / "ledger.jsonl").open("a") as file:
        file.write('{"event": "saved", "time": Infinity, "step": NaN, "seconds": Infinity}\n')
    text = Page(report.render(run)).text
    assert "The loss of 4 steps is not finite: 7, 8, 9, 40" in text
    assert "the last step's is not finite" in text and "infinite" in text and "not a number" in text


def test_a_value_that_stands_alone_is_a_point() -> None:
    rows = [
        {"step": s, "x": 1.0 if s in (3, 7, 8) else None, "y": 1.0 if s == 5 else None} for s in range(1, 11)
    ]
    assert charts.isolated(charts.column(rows, "x")).tolist() == [s == 3 for s in range(1, 11)]
    one = charts.series(rows, "y", "")
    assert one is not None and len(one.data[0].x) == 1 and "markers" in one.data[0].mode
    assert one.data[0].marker.size > 0
    three = charts.several_series(rows, {"x": "x"}, "")
    assert three is not None and "markers" in three.data[0].mode
    assert [size > 0 for size in three.data[0].marker.size] == [s == 3 for s in range(1, 11)]


def test_a_rule_that_ran_is_not_among_those_that_did_not(run_dir: Path) -> None:
    content = (run_dir / "report.html").read_text()
    not_run, _, partial = content.partition("<b>Run in part.</b>")
    assert "nsfw classifier" in not_run.partition("<b>Not run.</b>")[2] and "c4.words" not in not_run
    assert "its signal has no value for 3 of 1,300 documents" in Page(partial[:2000]).text


def test_the_mixture_of_data_alone(run_dir: Path, data_dir: Path) -> None:
    packed = run_dir.parent / "data" / "packed"
    record = read(None, packed)
    shown = Page(mixture(record).body)
    assert (
        "60.0 %" in shown.text and "planned" in mixture(record).body and "in the data" in mixture(record).body
    )
    # Nothing was packed: shares of what was kept.
    kept = mixture(read(None, data_dir))
    assert "kept text" in kept.body and "100.0 %" in Page(kept.body).text


def test_the_environment_says_what_the_run_ran_with(run_dir: Path) -> None:
    text = Page((run_dir / "report.html").read_text()).text
    for expected in (
        "0.1.0, commit 0123456789ab with changes",
        "2.13.0",
        "17.2 GB",
        "model=debug run.dir='my runs/a'",
        "The run was started 3 times.",
        "Where the time of a step goes",
        "forward and backward 87.5 %",
        "Traced: step-20",
    ):
        assert expected in text, expected


def test_a_long_run_is_thinned_without_losing_its_spikes(tmp_path: Path) -> None:
    run = write_run(tmp_path, steps=5)
    rows = [metrics_row(step) for step in range(1, 100_001)]
    rows[54_321]["grad_norm"] = 777.0
    lines(run / "metrics.jsonl", [*rows, rows[10] | {"loss": 3.25}])
    content = report.render(run)
    assert len(content) < 7e6
    record = read(run, None)
    assert len(record.metrics) == 100_000 and record.metrics[10]["loss"] == 3.25, (
        "the last row of a step wins"
    )
    norms = charts.series(record.metrics, "grad_norm", "")
    assert norms is not None and len(norms.data[0].x) <= charts.MAX_POINTS and max(norms.data[0].y) == 777.0


def test_thinning_keeps_order_ends_and_gaps() -> None:
    x = np.arange(10_000.0)
    y = np.sin(x)
    y[4000:5000] = np.nan
    thin_x, thin_y = charts.thin(x, y, 400)
    assert len(thin_x) <= 400 and thin_x[0] == 0 and thin_x[-1] == 9999 and (np.diff(thin_x) > 0).all()
    assert np.isnan(thin_y).any() and np.array_equal(thin_y, y[thin_x.astype(int)], equal_nan=True)
    same_x, _ = charts.thin(x[:400], y[:400], 400)
    assert len(same_x) == 400


def test_smoothing_is_a_centred_mean_of_finite_values() -> None:
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    assert charts.smooth(y, 3).tolist() == [1.5, 1.5, 3.0, 4.5, 4.5]


def test_a_single_step_and_numbers_for_people(tmp_path: Path) -> None:
    assert "Loss" in Page(report.render(write_run(tmp_path, steps=1))).text
    assert [short(v) for v in (8.03e9, 1234, 0.5, None, float("nan"))] == [
        "8.03 B",
        "1.23 k",
        "0.5",
        "—",
        "—",
    ]
    assert [duration(v) for v in (3.14159, 600, 7260, 200_000)] == [
        "3.14 s",
        "10 min",
        "2 h 1 min",
        "2 d 7 h",
    ]
    row = {
        "kept_documents": 5,
        "set_aside_documents": 2,
        "dropped_documents": {"extract.empty": 1, "gopher.n_words": 3, "minhash": 4},
    }
    assert by_stage(row) == {
        "kept": 5,
        "set aside at reading": 2,
        "extraction": 1,
        "policy": 3,
        "near-duplicates": 4,
    }


def test_rare_languages_are_added_up() -> None:
    page = histograms({}, {"prose": {f"l{i:02}": 100 - i for i in range(15)} | {"zxx": 500}})
    assert "The 10 most frequent of 16 · zxx: no language, such as code" in page
    assert "others" in page and "l08" in page and "l09" not in page


def test_a_dropped_duplicate_names_the_document_that_was_kept() -> None:
    shown = _quote({"id": "a", "kept_id": "0" * 32, "similarity": 0.92, "excerpt": ""})
    assert "kept_id: " + "0" * 32 in shown and "similarity: 0.92" in shown and "no text" in shown
