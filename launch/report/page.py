"""The HTML of the report: every text is escaped here or in `charts.label`, and nothing is loaded from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launch.report.style import CSS, LOADER

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Section:
    """A part of the page; `body` is HTML."""

    anchor: str
    title: str
    body: str


@dataclass(frozen=True)
class Figure:
    """A key figure of the header."""

    value: str
    name: str
    note: str = ""


def text(value: object) -> str:
    """Escaped text, without control characters that HTML forbids."""
    plain = str(value)
    return html.escape("".join(c if c >= " " or c in "\n\t" else "�" for c in plain))


def chart(shown: go.Figure | None, title: str, note: str = "", missing: str = "") -> str:
    """A chart in a card; without a figure, the reason why there is none."""
    head = f"<h4>{text(title)}</h4>" + (f"<p class=note>{text(note)}</p>" if note else "")
    if shown is None:
        return f"<figure class=card>{head}{absent(missing)}</figure>"
    data = shown.to_json().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    height = int(shown.layout.height)
    return (
        f'<figure class=card>{head}<div class=chart style="height:{height}px">'
        f'<script type="application/json">{data}</script></div>{_legend(shown)}</figure>'
    )


def _legend(shown: go.Figure) -> str:
    """Names and colours of a chart's series, where there are several; names are escaped already."""
    named = [trace for trace in shown.data if trace.name and trace.showlegend is not False]
    if len(named) < 2:
        return ""
    items = []
    for trace in named:
        line = trace.type == "scatter"
        colour = trace.line.color if line else trace.marker.color
        faint = f";opacity:{trace.opacity}" if trace.opacity else ""
        kind = " class=line" if line else ""
        items.append(f'<li><span{kind} style="background:{colour}{faint}"></span>{trace.name}</li>')
    return f"<ul class=legend>{''.join(items)}</ul>"


def absent(why: str) -> str:
    """A sentence where a part cannot be shown."""
    return f"<p class=absent>{text(why)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], numeric_from: int = 1) -> str:
    """A table; columns from `numeric_from` on are aligned as numbers."""

    def cells(values: Sequence[object], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if i >= numeric_from else ''}>{text(v)}</{tag}>" for i, v in enumerate(values)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if any(head) else ""
    return f"<div class=scroll><table>{top}<tbody>{body}</tbody></table></div>"


def details(summary: str, body: str, opened: bool = False) -> str:
    """A part that opens on a click; `body` is HTML."""
    return f"<details{' open' if opened else ''}><summary>{text(summary)}</summary>{body}</details>"


def grid(*cards: str) -> str:
    """Cards side by side where there is room."""
    return f"<div class=grid>{''.join(c for c in cards if c)}</div>"


def page(
    title: str,
    subtitle: str,
    figures: Sequence[Figure],
    sections: Sequence[Section],
    plotly_js: str,
    kind: str = "run report",
) -> str:
    """The whole document.

    A content security policy forbids every request to a network, so the page shows the same everywhere.
    """
    tiles = "".join(
        f"<li><b>{text(f.value)}</b><span>{text(f.name)}</span>{f'<i>{text(f.note)}</i>' if f.note else ''}</li>"
        for f in figures
    )
    parts = " · ".join(f"<span>{text(part)}</span>" for part in subtitle.split(" · "))
    contents = "".join(f'<li><a href="#{s.anchor}">{text(s.title)}</a></li>' for s in sections)
    body = "".join(f'<section id="{s.anchor}"><h2>{text(s.title)}</h2>{s.body}</section>' for s in sections)
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{text(title)} · arriero</title>
<style>{CSS}</style>
</head>
<body>
<header>
<p class=brand>arriero <span>{text(kind)}</span></p>
<h1>{text(title)}</h1>
<p class=subtitle>{parts}</p>
<ul class=figures>{tiles}</ul>
</header>
<div class=columns>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
<main>{body}</main>
</div>
<script>{plotly_js}</script>
<script>{LOADER}</script>
</body>
</html>
"""
