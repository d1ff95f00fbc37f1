"""Title, date, author and language that a page states."""

# ruff: noqa: E501
from __future__ import annotations

import pytest

from data_pipeline.extract.html import main_text
from data_pipeline.extract.metadata import iso_day


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("2019-10-19T08:00:00+02:00", "2019-10-19"),
        ("20191019", "2019-10-19"),
        ("Sat, 19 Oct 2019 06:00:00 GMT", "2019-10-19"),
        ("October 19, 2019", "2019-10-19"),
        ("19.10.2019, 08:00 Uhr", "2019-10-19"),
        ("2019-13-45", ""),
        ("yesterday", ""),
        ("1234567890", ""),
    ],
)
def test_dates_become_iso_days(said: str, day: str) -> None:
    assert iso_day(said) == day


@pytest.mark.parametrize(
    ("page", "key", "value"),
    [
        ("<title>A &amp; B\n C</title>", "title", "A & B C"),
        ("<meta content='Ü' property='og:title'><title>x</title>", "title", "Ü"),
        ('<script type="application/ld+json">{"headline": "H\\u00e9"}</script>', "title", "Hé"),
        ('<script type="application/ld+json">{"author": [{"@type": "Person", "name": "N. N."}]}</script>', "author", "N. N."),
        ("<meta name=author content=https://example.org/me>", "author", None),
        ("<meta http-equiv=content-language content=pt-BR>", "language_hint", "pt"),
        ("<html xml:lang='de' lang='de'>", "language_hint", "de"),
        ("<html lang='{{ lang }}'>", "language_hint", None),
        ("<time datetime=2020-02-03>", "published", "2020-02-03"),
        ("<meta name=last-modified content=2021-01-01><time datetime=2020-02-03>", "published", "2020-02-03"),
    ],
)  # fmt: skip
def test_places_that_state_it(page: str, key: str, value: str | None) -> None:
    assert main_text(page.encode()).metadata.get(key) == value


def test_the_address_dates_a_page_that_does_not_say() -> None:
    assert main_text(b"<p>x", "https://example.org/2018/09/07/story").metadata["published"] == "2018-09-07"
    assert "published" not in main_text(b"<p>x", "https://example.org/2018/99/07/story").metadata
