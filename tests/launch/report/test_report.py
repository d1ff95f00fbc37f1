"""The report in a real browser, with hostile documents, with parts missing, and with very long runs."""

from __future__ import annotations

import html
import json
import pydoc_data.topics
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_report import HOSTILE, lines, metrics_row, write_run

from configs.edge import ConfigError
from launch import report
from launch.report import charts
from launch.report.data import _quote, by_stage, histograms
from launch.report.read import read
from launch.report.sections import latest
from launch.report.words import duration, short

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECTIONS = {
    "training": "Training",
    "heldout": "Held-out loss",
    "samples": "Text samples",
    "data": "Data",
    "thresholds": "Thresholds",
    "mixture": "Mixture",
    "reliability": "Reliability",
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


MEASURE = """<!doctype html><body style="margin:0"><iframe src="%s" style="width:%dpx;height:14000px;border:0"></iframe>
<script>
addEventListener("load", () => setTimeout(() => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, root = page.documentElement;
  const wide = [...page.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, svg, pre, .chart") &&
    e.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.outerHTML.slice(0, 120));
  const found = {
    width: root.clientWidth, scrolls: root.scrollWidth, wide, hacked: "hacked" in frame.contentWindow,
    charts: page.querySelectorAll(".chart").length,
    drawn: [...page.querySelectorAll(".chart")].filter((c) => c.querySelector(".main-svg")).length,
    empty: [...page.querySelectorAll(".chart")].filter((c) => !c.querySelector(".point, .js-line, .bars path")).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map((r) => r.name),
    sections: [...page.querySelectorAll("section")].map((s) => [s.id, s.querySelector("h2").textContent]),
    links: [...page.querySelectorAll("nav a")].every((a) => page.querySelector(a.hash)),
  };
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
}, 6000));
</script>"""


def in_browser(page: Path, width: int, scratch: Path) -> dict[str, Any]:
    """What real Chromium makes of a page; it must log no error."""
    frame = scratch / "frame.html"
    frame.write_text(MEASURE % (page.as_uri(), width))
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        f"--user-data-dir={scratch / 'profile'}",
        "--window-size=1700,14100",
        "--dump-dom",
        frame.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dumped = re.search(r"FOUND(.*)END", done.stdout, re.DOTALL)
    assert dumped, done.stdout[-2000:] + done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return json.loads(html.unescape(dumped[1]))


def assert_sound(found: dict[str, Any], width: int, sections: dict[str, str], charts_at_least: int) -> None:
    """Every chart is drawn, nothing overflows, nothing is asked of a network."""
    assert found["sections"] == [[anchor, title] for anchor, title in sections.items()] and found["links"]
    assert found["charts"] >= charts_at_least and found["drawn"] == found["charts"] and found["empty"] == 0
    assert found["width"] == width and found["scrolls"] == width and found["wide"] == []
    assert found["requests"] == [] and not found["hacked"]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: run tests/install_browser.sh")
@pytest.mark.parametrize("width", [1600, 420])
def test_the_page_in_a_browser(run_dir: Path, width: int, tmp_path: Path) -> None:
    assert_sound(in_browser(run_dir / "report.html", width, tmp_path), width, SECTIONS, 14)


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
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / "out"


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
    sections = {k: v for k, v in SECTIONS.items() if k in ("data", "thresholds", "mixture", "configuration")}
    assert_sound(in_browser(tmp_path / "page.html", 1200, tmp_path), 1200, sections, 5)


def test_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give run\.dir=DIR of a run"):
        report.main([])
    with pytest.raises(ConfigError, match="there is no packed dataset and no data run"):
        report.main([f"data.path={tmp_path / 'nowhere/packed'}"])


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


def test_every_missing_part_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
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
    with pytest.raises(ConfigError, match="is not a directory"):
        report.main([f"run.dir={tmp_path / 'nowhere'}"])


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


def test_a_long_run_is_thinned_without_losing_its_spikes(tmp_path: Path) -> None:
    run = write_run(tmp_path, steps=5)
    rows = [metrics_row(step) for step in range(1, 100_001)]
    rows[54_321]["grad_norm"] = 777.0
    lines(run / "metrics.jsonl", [*rows, rows[10] | {"loss": 3.25}])
    began = time.monotonic()
    content = report.render(run)
    assert time.monotonic() - began < 20
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
