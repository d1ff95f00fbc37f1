"""Dates of records, as people write them, in one form: `2024-05-01`, or `2024-05-01T10:00:00Z` with a time of day."""

from __future__ import annotations

import datetime
import re
from email.utils import parsedate_to_datetime
from typing import Any

_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:[.,]\d+)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?)?", re.I
)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(\d{2}))?")
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
        return _of_epoch(float(value))
    if not isinstance(value, str):
        return None
    text = value.strip()
    try:
        if match := _ISO.fullmatch(text):
            day, time, zone = match.groups()
            if time is None:
                return datetime.date.fromisoformat(day).isoformat()
            offset = "+00:00" if zone is None or zone.upper() in ("Z", "UTC") else zone
            return _of(datetime.datetime.fromisoformat(f"{day}T{time}{offset}"))
        if match := _COMPACT.fullmatch(text):
            numbers = [int(part) for part in match.groups() if part is not None]
            return _of(datetime.datetime(*numbers))  # type: ignore[arg-type]
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
