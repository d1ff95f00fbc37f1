"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: object, digits: int = 0) -> str:
    """A number for people: thousands separated; an em dash where there is none, `not finite` where it is not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "—"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return f"{value:,.{digits}f}"


def short(value: object) -> str:
    """A number with three significant digits and a unit prefix: 12.3 M."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "—"
    for limit, prefix in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{prefix}"
    return f"{value:.3g}"


def size(value: object) -> str:
    """Bytes with three significant digits and a decimal prefix: 12.3 GB."""
    shown = short(value)
    if shown == "—":
        return shown
    return shown.replace(" B", " G") + "B" if " " in shown else shown + " B"


def duration(seconds: object) -> str:
    """Seconds for people: 3 h 12 min."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return "—"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours} h {minutes} min"


def share(part: float, whole: float) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.1f} %" if whole else "—"
