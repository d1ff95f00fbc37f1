"""Bounds of a policy by language."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from configs import edge
from configs.edge import ConfigError
from configs.schema.pipeline import FilterConfig
from data_pipeline import policy
from data_pipeline.document import shard_path, write_table

SPOKEN = ["en", "de", "zh", "fr", None, "und"]


def failed(content: dict, values: list[float | None]) -> list[bool]:
    config = edge.build(FilterConfig, {"name": "x"} | content)
    policy.check(config)
    rule = policy.with_bounds(config, "long", config.rules["long"])
    found = policy.judge("long", rule, pa.chunked_array([values], pa.float64()), SPOKEN)
    return found.failed.tolist()


LONG = {"signal": "gopher.mean_word_length", "max": 10}


def test_bounds_of_a_language_replace_those_of_the_rule() -> None:
    eleven = [11.0] * len(SPOKEN)
    assert failed({"rules": {"long": LONG}}, eleven) == [True] * 6
    bounds = {"de": {"long": {"max": 12}}, "zh": {"long": None}, "fr": {}, "other": {"long": {"max": 14}}}
    # en is not listed and known: other. fr is listed: the rule. No language: the rule. und: other.
    expected = [False, False, False, True, True, False]
    assert failed({"rules": {"long": LONG}, "bounds": bounds}, eleven) == expected
    assert failed({"rules": {"long": LONG}, "bounds": bounds}, [13.0] * 6) == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
    assert failed({"rules": {"long": LONG}, "bounds": bounds}, [None] * 6) == [False] * 6


def test_a_bound_that_is_not_named_stays_that_of_the_rule() -> None:
    rule = LONG | {"min": 3}
    assert failed({"rules": {"long": rule}, "bounds": {"de": {"long": {"max": 12}}}}, [2.0] * 6) == [True] * 6
    assert failed({"rules": {"long": rule}, "bounds": {"de": {"long": {"min": 1}}}}, [2.0] * 6)[1] is False


def test_what_a_rule_says_itself_comes_first() -> None:
    rule = LONG | {"by_language": {"de": {"max": 20}}}
    assert failed({"rules": {"long": rule}, "bounds": {"de": {"long": {"max": 12}}}}, [15.0] * 6)[:2] == [
        True,
        False,
    ]


def test_a_null_signal_of_a_language_without_the_rule_is_not_reported() -> None:
    config = edge.build(
        FilterConfig, {"name": "x", "rules": {"long": LONG}, "bounds": {"zh": {"long": None}}}
    )
    rule = policy.with_bounds(config, "long", config.rules["long"])
    found = policy.judge("long", rule, pa.chunked_array([[None] * 6], pa.float64()), SPOKEN)
    assert found.null.tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rules": {"long": LONG}, "bounds": {"de": {"lnog": {"max": 1}}}}, "did you mean `long`"),
        (
            {"rules": {"long": LONG | {"min": 3}}, "bounds": {"de": {"long": {"max": 2}}}},
            "language `de`: min 3",
        ),
        (
            {
                "rules": {
                    "l": {"signal": "language.language", "allow": ["de"], "by_language": {"de": {"min": 1}}}
                }
            },
            "can only be null",
        ),
    ],
)
def test_bounds_that_cannot_be_meant_are_refused(content: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy.check(edge.build(FilterConfig, {"name": "x"} | content))


def test_a_language_that_is_less_likely_than_not_counts_as_undetermined(tmp_path: Path) -> None:
    found = {"language": ["de", "de", None, "zxx"], "score": [0.9, 0.4, None, 0.2]}
    write_table(pa.table(found), shard_path(tmp_path, "signals/language", 0))
    stated = pa.table({"id": list("abcd"), "language": pa.array([None, None, None, "fr"], pa.string())})
    assert policy.languages(tmp_path, 0, stated).to_pylist() == ["de", "und", None, "fr"]
