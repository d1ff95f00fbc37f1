"""Pages in a real Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from toyrun import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

MEASURE = """<!doctype html><body style="margin:0"><iframe src="%s" style="width:%dpx;height:14000px;border:0"></iframe>
<script>
addEventListener("load", () => setTimeout(() => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, root = page.documentElement;
  const wide = [...page.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, svg, pre, .chart") &&
    e.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.outerHTML.slice(0, 120));
  // What does not scroll must hold its content; labels of charts must lie inside their charts.
  const cut = [...page.querySelectorAll("body *")].filter((e) => !e.closest("svg, .chart, script, style") &&
    e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 &&
    frame.contentWindow.getComputedStyle(e).overflowX === "hidden").map((e) => e.outerHTML.slice(0, 120));
  for (const chart of page.querySelectorAll(".chart")) {
    const box = chart.getBoundingClientRect();
    for (const label of chart.querySelectorAll("svg text")) {
      const r = label.getBoundingClientRect();
      if (r.width && (r.left < box.left - 2 || r.right > box.right + 2)) cut.push(label.textContent);
    }
  }
  const found = {
    width: root.clientWidth, scrolls: root.scrollWidth, wide, cut, hacked: "hacked" in frame.contentWindow,
    charts: page.querySelectorAll(".chart").length,
    drawn: [...page.querySelectorAll(".chart")].filter((c) => c.querySelector(".main-svg")).length,
    empty: [...page.querySelectorAll(".chart")].filter((c) => ![...c.querySelectorAll(".point, .js-line, .bars path")]
      .some((mark) => mark.getBoundingClientRect().width + mark.getBoundingClientRect().height > 1)).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map((r) => r.name),
    sections: [...page.querySelectorAll("section")].map((s) => [s.id, s.querySelector("h2").textContent]),
    links: [...page.querySelectorAll("nav a")].every((a) => page.querySelector(a.hash)),
  };
  const form = page.querySelector(".controls"), loss = page.querySelector(".chart");
  if (form) {
    const look = () => ({ title: loss.layout.xaxis.title.text, type: loss._fullLayout.xaxis.type,
      y: loss._fullLayout.yaxis.type, x: [...loss.data[0].x].slice(-1)[0], x0: loss.data[0].x[0] });
    const click = (name, value) => form.querySelector(`[name=${name}]${value ? `[value=${value}]` : ""}`).click();
    found.axes = { step: look() };
    for (const value of ["tokens", "seconds"]) { click("x", value); found.axes[value] = look(); }
    click("logx"); click("logy"); found.axes.log = look();
    click("logx"); click("logy"); click("x", "step"); found.axes.back = look();
  }
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    dumped = re.search(r"FOUND(.*)END", done.stdout, re.DOTALL)
    assert dumped, done.stdout[-2000:] + done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    return json.loads(html.unescape(dumped[1]))


def assert_sound(found: dict[str, Any], width: int, sections: dict[str, str], charts_at_least: int) -> None:
    """Every chart is drawn, nothing overflows, nothing is asked of a network."""
    assert found["sections"] == [[anchor, title] for anchor, title in sections.items()] and found["links"]
    assert found["charts"] >= charts_at_least and found["drawn"] == found["charts"] and found["empty"] == 0
    assert found["width"] == width and found["scrolls"] == width and found["wide"] == []
    assert found["cut"] == []
    assert found["requests"] == [] and not found["hacked"]
