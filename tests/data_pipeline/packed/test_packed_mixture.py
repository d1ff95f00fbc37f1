"""Weights of sources."""

from __future__ import annotations

import pytest

from data_pipeline.packed import MixtureError, resolve_epochs, resolve_weights

SIZES = {"web": 600, "code": 300, "books": 100}


def test_no_weights_is_by_size() -> None:
    assert resolve_weights({}, SIZES) == pytest.approx({"web": 0.6, "code": 0.3, "books": 0.1})


def test_sources_left_out_share_the_rest_by_size() -> None:
    assert resolve_weights({"books": 0.2}, SIZES) == pytest.approx(
        {"books": 0.2, "web": 0.8 * 2 / 3, "code": 0.8 / 3}
    )


def test_weights_of_all_sources_are_scaled_to_one() -> None:
    weights = resolve_weights({"web": 2, "code": 1, "books": 1}, SIZES)
    assert weights == pytest.approx({"web": 0.5, "code": 0.25, "books": 0.25})
    assert resolve_weights({"web": 1, "code": 0, "books": 0}, SIZES)["code"] == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"wep": 1.0}, "did you mean `web`"),
        ({"web": -1.0}, "at least 0"),
        ({"web": float("nan")}, "at least 0"),
        ({"web": 1.5}, "less than nothing to `books`, `code`"),
        ({"web": 0, "code": 0, "books": 0}, "all weights are 0"),
    ],
)
def test_impossible_weights_are_explained(weights: dict[str, float], message: str) -> None:
    with pytest.raises(MixtureError, match=message):
        resolve_weights(weights, SIZES)


def test_epoch_caps_are_checked() -> None:
    assert resolve_epochs({"web": 2}, SIZES) == {"web": 2.0}
    with pytest.raises(MixtureError, match="above 0"):
        resolve_epochs({"web": 0}, SIZES)
    with pytest.raises(MixtureError, match="names the source `x`"):
        resolve_epochs({"x": 1}, SIZES)
