"""Dates of records, as people write them, in one form: `2024-05-01`, or `2024-05-01T10:00:00Z` with a time of day."""

from __future__ import annotations

import datetime
import re
from email.utils import parsedate_to_datetime
from typing import Any

_ISO = re.compile(
    r"(\d{4})([-/])(\d{2})\2(\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:[.,]\d+)?\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?",
    re.I | re.ASCII,
)
_COMPACT = re.compile(r"((?:1[89]|20|21)\d{2})(\d{2})(\d{2})(?:T?(\d{2})(\d{2})(\d{2})Z?)?", re.ASCII)
_YEAR = re.compile(r"(?:1[89]|20|21)\d{2}", re.ASCII)
_NOON = re.compile(r"\b[ap]\.?m\b", re.I)
"""Times of twelve hours, whose half the library reads past."""
_EPOCH_UNITS = (1, 10**3, 10**6, 10**9)
"""Seconds, milliseconds, microseconds and nanoseconds since 1970: no two of them give years of the same century."""
_EARLIEST, _LATEST = 0, 4_102_444_800  # 1970 and 2100 as seconds


def iso_date(value: Any) -> str | None:
    """The date of a value, in UTC where it names a time zone.

    Args:
        value: a date or time object, a text (ISO 8601, RFC 2822, `20240501`, `20240501100000`) or a number of seconds,
            milliseconds, microseconds or nanoseconds since 1970.

    Returns:
        `YYYY-MM-DD`, with `THH:MM:SSZ` where there is a time of day; None where the value is no date.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, datetime.datetime):
        return _of(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (int, float)):
        whole = str(int(value)) if -1e15 < value < 1e15 and value == int(value) else ""
        # A year, or a day in digits: as seconds since 1970 they would be days of that year.
        return (
            _of_text(whole)
            if _YEAR.fullmatch(whole) or _COMPACT.fullmatch(whole)
            else _of_epoch(float(value))
        )
    return _of_text(value.strip()) if isinstance(value, str) else None


def _of_text(text: str) -> str | None:
    try:
        if match := _ISO.fullmatch(text):
            year, _, month, day, time, zone = match.groups()
            date = f"{year}-{month}-{day}"
            if time is None:
                return datetime.date.fromisoformat(date).isoformat()
            offset = "+00:00" if zone is None or zone.upper() in ("Z", "UTC", "GMT") else zone
            return _of(datetime.datetime.fromisoformat(f"{date}T{time}{offset}"))
        if match := _COMPACT.fullmatch(text):
            numbers = [int(part) for part in match.groups() if part is not None]
            return _of(datetime.datetime(*numbers))  # type: ignore[arg-type]
        if _YEAR.fullmatch(text) or _NOON.search(text):
            return None
        if text.replace(".", "", 1).isdigit():
            return _of_epoch(float(text))
        return _of(parsedate_to_datetime(text))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _of_epoch(number: float) -> str | None:
    for unit in _EPOCH_UNITS:
        if _EARLIEST < number / unit < _LATEST:
            return _of(datetime.datetime.fromtimestamp(number / unit, datetime.UTC))
    return None


def _of(moment: datetime.datetime) -> str:
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC)
    if moment.time() == datetime.time():
        return moment.date().isoformat()
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
