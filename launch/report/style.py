"""Style sheet and chart loader of the report."""

CSS = """
:root { --ink: #22262e; --muted: #6d7480; --line: #e6e1d8; --ground: #f8f6f2; --card: #fff; --accent: #b4532a; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 15px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1, h2 { font-family: "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, "DejaVu Serif", serif;
  font-weight: 600; letter-spacing: -.01em; }
h1 { font-size: 2.3rem; line-height: 1.15; margin: .1em 0 .15em; }
h2 { font-size: 1.55rem; margin: 0 0 .8rem; padding-top: .4rem; }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .6rem; }
h4 { font-size: .93rem; margin: 0; font-weight: 600; }
header { background: var(--card); border-bottom: 1px solid var(--line); border-top: 4px solid var(--accent);
  padding: 1.8rem max(1.25rem, calc(50vw - 720px)) 1.6rem; }
.brand { margin: 0; font-weight: 650; color: var(--accent); letter-spacing: .01em; }
.brand span { color: var(--muted); font-weight: 400; margin-left: .35em; }
.subtitle { margin: 0 0 1.3rem; color: var(--muted); max-width: 110ch; }
.subtitle span { display: inline-block; }  /* a part breaks only where it is longer than the line */
.figures { list-style: none; margin: 0; padding: 0; display: grid; gap: 1px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.figures li { box-shadow: 0 0 0 1px var(--line); padding: .8rem 1rem .75rem; display: flex; flex-direction: column; }
.figures b { font-size: 1.45rem; font-weight: 620; line-height: 1.2; font-variant-numeric: tabular-nums; }
.figures span { font-size: .84rem; color: var(--muted); }
.figures i { font-style: normal; font-size: .78rem; color: var(--muted); opacity: .85; }
.columns { display: grid; grid-template-columns: 190px minmax(0, 1fr); gap: 2.5rem; max-width: 1440px; margin: 0 auto;
  padding: 1.8rem 1.25rem 4rem; }
@media (min-width: 1480px) { .columns { padding-left: 0; padding-right: 0; } }
nav ol { list-style: none; margin: 0; padding: .3rem 0 0; position: sticky; top: 1.2rem; }
nav a { display: block; color: var(--muted); text-decoration: none; padding: .28rem .7rem;
  border-left: 2px solid var(--line); font-size: .92rem; }
nav a:hover, nav a:focus-visible, nav a.here { color: var(--accent); border-color: var(--accent); }
main { min-width: 0; }
section { margin-bottom: 3rem; }
section > p, .note { color: var(--muted); }
section > p { max-width: 100ch; margin: -.4rem 0 1rem; }
.note { font-size: .83rem; margin: .1rem 0 0; }
.card { margin: 0 0 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1rem .7rem; min-width: 0; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  margin-bottom: 1rem; }
.grid .card { margin: 0; }
.chart { width: 100%; min-width: 0; overflow: hidden; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin: .35rem 0 .2rem; padding: 0;
  font-size: .82rem; }
.legend li { display: flex; align-items: center; gap: .42rem; }
.legend span { width: 11px; height: 11px; border-radius: 2px; flex: none; }
.legend span.line { width: 18px; height: 3px; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.4rem; margin: 0 0 1rem; }
.controls fieldset { display: flex; flex-wrap: wrap; gap: .2rem .9rem; align-items: center; border: 1px solid var(--line);
  border-radius: 10px; background: var(--card); padding: .3rem .8rem; margin: 0; font-size: .88rem; min-width: 0; }
.controls legend { float: left; color: var(--muted); padding: 0 .4rem 0 0; }
.controls label { display: flex; gap: .35rem; align-items: center; cursor: pointer; }
.controls input { accent-color: var(--accent); margin: 0; }
.absent { background: #f4f1eb; border-radius: 8px; padding: .7rem .9rem; margin: .6rem 0; color: var(--muted);
  font-size: .92rem; }
.warn, .hint { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .75rem 1rem;
  margin: 0 0 1rem; }
.warn { background: #fdf3e7; border-color: #efd9bd; }
.warn ul, .hint ul { margin: .3rem 0 0; padding-left: 1.2rem; }
/* A shadow at the edge behind which a wide table goes on. */
.scroll { overflow-x: auto; margin: 0 0 1rem; border: 1px solid var(--line); border-radius: 10px;
  background: linear-gradient(to right, var(--card) 30%, transparent) left / 2rem 100% no-repeat local,
    linear-gradient(to left, var(--card) 30%, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to right, #0003, transparent) left / .7rem 100% no-repeat scroll,
    linear-gradient(to left, #0003, transparent) right / .7rem 100% no-repeat scroll, var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .42rem .9rem; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
th { color: var(--muted); font-weight: 550; font-size: .8rem; white-space: nowrap; background: #0000000a; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: #0000000a; }
.n { text-align: right; white-space: nowrap; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin-bottom: .5rem; }
summary { cursor: pointer; padding: .5rem .95rem; font-size: .93rem; }
summary:hover { color: var(--accent); }
details > :not(summary) { margin: 0 .95rem .85rem; }
details .scroll { max-height: 480px; overflow: auto; }
blockquote { margin: 0 0 .6rem; padding: .1rem 0 .1rem .9rem; border-left: 3px solid var(--line); }
blockquote cite { display: block; font-style: normal; font-size: .78rem; color: var(--muted); }
blockquote p { margin: .15rem 0 0; font-size: .87rem; white-space: pre-wrap; max-height: 15em; overflow: auto; }
pre { font: .84rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; margin: 0;
  white-space: pre-wrap; }
details > pre { max-height: 560px; overflow: auto; }
.sample pre mark { background: #f6e7dc; color: inherit; border-radius: 3px; }
.sample .note { margin-bottom: .45rem; }
@media (max-width: 860px) {
  .columns { grid-template-columns: minmax(0, 1fr); gap: 1rem; padding-top: 1rem; }
  nav ol { position: static; display: flex; flex-wrap: wrap; gap: .35rem; }
  nav a { border: 1px solid var(--line); border-radius: 99px; background: var(--card); padding: .2rem .75rem; }
  h1 { font-size: 1.8rem; }
  header { padding-top: 1.2rem; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .figures b { font-size: 1.2rem; }
  .card { padding: .8rem .6rem .5rem; }
  th, td { padding: .35rem .55rem; }
  .scroll table { font-size: .82rem; }
}
@media print { nav { display: none; } .columns { display: block; } .card { break-inside: avoid; } }
"""

# Charts are drawn one by one from the top, so that the page can be read and scrolled while the rest follow.
LOADER = """
(() => {
  const charts = [...document.querySelectorAll(".chart")];
  const drawNext = () => {
    const node = charts.shift();
    if (!node) return;
    const { data, layout } = JSON.parse(node.firstElementChild.textContent);
    node.replaceChildren();
    Plotly.newPlot(node, data, layout, { displayModeBar: false, responsive: true });
    if (layout.meta?.switch) {
      node.steps = data.map((trace) => trace.x);
      node.first = { type: layout.yaxis.type ?? "linear", range: layout.yaxis.range?.slice() };
      if (form) arrange(node);
    }
    setTimeout(drawNext);
  };
  // Puts steps, tokens or time on the x-axis, with what lies between two known steps on the line between them.
  const form = document.querySelector(".controls");
  const runs = form ? JSON.parse(document.getElementById("axes").textContent) : [];
  const at = (known, values, step) => {
    let low = 0, high = known.length - 1;
    if (!(step > known[low])) return values[low];
    if (step >= known[high]) return values[high];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (known[middle] <= step) low = middle; else high = middle;
    }
    return values[low] + (values[high] - values[low]) * (step - known[low]) / (known[high] - known[low]);
  };
  const longest = Math.max(0, ...runs.map((run) => run.seconds[run.seconds.length - 1] ?? 0));
  const [unit, size] = longest < 600 ? ["seconds", 1] : longest < 36000 ? ["minutes", 60] : ["hours", 3600];
  const titles = { step: "step", tokens: "tokens trained on", seconds: `${unit} of training` };
  const arrange = (node) => {
    const chosen = form.elements.x.value, divisor = chosen === "seconds" ? size : 1;
    const x = node.steps.map((steps, i) => {
      const run = runs[node.data[i].meta?.run ?? 0];
      return chosen === "step" || !run ? steps : steps.map((s) => at(run.step, run[chosen], s) / divisor);
    });
    const type = form.elements.logy.checked ? "log" : node.first.type;
    const same = type === node.first.type;
    Plotly.update(node, { x }, {
      "xaxis.title.text": titles[chosen], "xaxis.type": form.elements.logx.checked ? "log" : "linear",
      "xaxis.autorange": true, "yaxis.type": type,
      ...(same && node.first.range ? { "yaxis.range": node.first.range.slice() } : { "yaxis.autorange": true }),
    });
  };
  form?.addEventListener("change", () => {
    for (const node of document.querySelectorAll(".chart")) if (node.steps) arrange(node);
  });
  drawNext();
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const marker = new IntersectionObserver((entries) => {
    for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
  }, { rootMargin: "-20% 0px -70%" });
  document.querySelectorAll("section").forEach((section) => marker.observe(section));
})();
"""
