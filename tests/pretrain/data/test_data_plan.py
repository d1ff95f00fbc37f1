"""The data plan is exact, complete and pure."""

from __future__ import annotations

from collections import Counter

import pytest

from configs.schema.train import PhaseConfig
from pretrain.data import DataPlan, PlanError
from pretrain.data.permutation import permute

SOURCES = {"web": 400, "code": 90, "books": 30}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_the_keyed_permutation_is_one(size: int) -> None:
    images = [permute(i, size, key=12345) for i in range(size)]
    assert sorted(images) == list(range(size))
    if size > 60:
        assert images != [permute(i, size, key=12346) for i in range(size)]
        assert sum(a == b for a, b in enumerate(images)) < 10


def test_permutation_reaches_any_size_without_a_table() -> None:
    size = 10**15 + 7
    images = [permute(i, size, key=1) for i in range(1000)]
    assert len(set(images)) == 1000 and all(0 <= i < size for i in images)


def counted(plan: DataPlan, stop: int, start: int = 0) -> Counter[str]:
    return Counter(plan.locate(n)[0] for n in range(start, stop))


def test_proportions_are_exact_at_every_block(three_sources) -> None:
    weights = {"web": 0.7, "code": 0.23, "books": 0.07}
    plan = DataPlan(three_sources.manifest, [PhaseConfig(weights=weights)], seed=1)
    seen: Counter[str] = Counter()
    for block in range(12):
        seen += counted(plan, (block + 1) * 256, block * 256)
        for source, weight in weights.items():
            assert abs(seen[f"train/{source}"] - weight * 256 * (block + 1)) < 1


def test_nothing_comes_twice_before_everything_came_once(three_sources) -> None:
    plan = DataPlan(three_sources.manifest, [PhaseConfig()], seed=1)
    by_stream: dict[str, list[int]] = {}
    for n in range(2000):
        name, index = plan.locate(n)
        by_stream.setdefault(name, []).append(index)
    orders = []
    for name, indices in by_stream.items():
        size = three_sources.stream(name).sequences
        for epoch in range(0, len(indices), size):
            part = indices[epoch : epoch + size]
            assert len(set(part)) == len(part)
            if len(part) == size and name == "train/web":
                orders.append(part)
    assert len(orders) >= 2 and orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_every_location_is_independent_of_the_order_of_asking(three_sources) -> None:
    manifest = three_sources.manifest
    phases = [PhaseConfig(sequences=300), PhaseConfig(weights={"books": 0.5}, max_epochs={"books": 4})]
    forward = [DataPlan(manifest, phases, 5).locate(n) for n in range(1000)]
    plan = DataPlan(manifest, phases, 5)
    assert [plan.locate(n) for n in reversed(range(1000))] == forward[::-1]
    assert [DataPlan(manifest, phases, 6).locate(n) for n in range(1000)] != forward


def test_a_capped_source_stops_and_the_others_share(three_sources) -> None:
    weights = {"web": 0.4, "code": 0.4, "books": 0.2}
    plan = DataPlan(
        three_sources.manifest, [PhaseConfig(weights=weights, max_epochs={"books": 2, "code": 1.5})], seed=2
    )
    books, code = (three_sources.stream(f"train/{s}").sequences for s in ("books", "code"))
    seen = counted(plan, 3000)
    assert seen["train/books"] == 2 * books and seen["train/code"] == int(1.5 * code)
    assert seen["train/web"] == 3000 - 2 * books - int(1.5 * code)
    assert plan.weights(0) == pytest.approx({"books": 0.2, "code": 0.4, "web": 0.4})
    assert plan.weights(2999) == {"books": 0, "code": 0, "web": 1}
    # In between, the two that are left share in the proportion of their weights.
    assert min(plan.weights(n)["books"] for n in range(0, 2000, 50) if plan.weights(n)["code"] > 0) == 0
    middle = next(n for n in range(2000) if plan.weights(n)["books"] == 0)
    assert plan.weights(middle)["code"] == pytest.approx(0.5)
    assert "books" in plan.table(3000) and "2.00" in plan.table(3000)


def test_an_exhausted_plan_says_what_it_has_and_what_to_do(three_sources) -> None:
    plan = DataPlan(three_sources.manifest, [PhaseConfig(max_epochs=dict.fromkeys(SOURCES, 1.0))], seed=0)
    total = sum(s.sequences for s in three_sources.streams("train").values())
    assert plan.length == total
    assert len({plan.locate(n) for n in range(total)}) == total, "one epoch of everything: each sequence once"
    plan.check(total)
    for act in (lambda: plan.locate(total), lambda: plan.check(total + 1)):
        with pytest.raises(
            PlanError, match=f"has {total:,} sequences.*`books` .* at most 1 epochs.*max_epochs"
        ):
            act()
    assert f"{three_sources.stream('train/web').sequences:,}" in plan.table()


def test_phases_follow_one_another_and_count_epochs_together(three_sources) -> None:
    books = three_sources.stream("train/books").sequences
    phases = [
        PhaseConfig(sequences=2 * books, weights={"books": 0.5}),
        PhaseConfig(weights={"books": 0.9, "web": 0.1, "code": 0}, max_epochs={"books": 2}),
    ]
    plan = DataPlan(three_sources.manifest, phases, seed=0)
    assert counted(plan, 2 * books)["train/books"] == books
    assert counted(plan, 2 * books + 1000)["train/books"] == 2 * books
    assert counted(plan, 3 * books, 2 * books)["train/code"] == 0


def test_the_manifest_mixture_is_the_default(write_packed) -> None:
    packed = write_packed(SOURCES, weights={"web": 0.0, "code": 0.5, "books": 0.5}, max_epochs={"books": 1.0})
    plan = DataPlan(packed.manifest, [PhaseConfig()], seed=0)
    seen = counted(plan, 500)
    assert set(seen) == {"train/code", "train/books"}
    assert seen["train/books"] == packed.stream("train/books").sequences


def test_a_skipped_window_moves_only_what_comes_after(three_sources) -> None:
    plan = DataPlan(three_sources.manifest, [PhaseConfig()], seed=0)
    skipped = plan.skip(100, 16).skip(200, 8)
    assert [skipped.locate(n) for n in range(100)] == [plan.locate(n) for n in range(100)]
    assert [skipped.locate(n) for n in range(100, 200)] == [plan.locate(n + 16) for n in range(100, 200)]
    assert [skipped.locate(n) for n in range(200, 300)] == [plan.locate(n + 24) for n in range(200, 300)]
    assert skipped.hash == plan.hash
    restored = plan.with_state(skipped.state())
    assert restored.amendments == skipped.amendments and restored.locate(250) == skipped.locate(250)
    with pytest.raises(PlanError, match="only affect what comes later"):
        skipped.skip(50, 1)


@pytest.mark.parametrize(
    "now",
    [
        [PhaseConfig(sequences=300), PhaseConfig(weights={"books": 1.0})],
        [PhaseConfig(sequences=300), PhaseConfig(sequences=900, max_epochs={"web": 9}), PhaseConfig()],
        [PhaseConfig(sequences=700), PhaseConfig(weights={"code": 0.5})],
        [PhaseConfig()],
    ],
)
def test_phases_that_are_added_change_nothing_before_them(three_sources, now: list[PhaseConfig]) -> None:
    before = [PhaseConfig(sequences=300), PhaseConfig(sequences=100, weights={"code": 1.0})]
    plan = DataPlan(three_sources.manifest, before, seed=3)
    extended = DataPlan(three_sources.manifest, now, seed=3).with_state(plan.state(), 300, before)
    assert [extended.locate(n) for n in range(300)] == [plan.locate(n) for n in range(300)]
    assert extended.locate(999)
    with pytest.raises(PlanError, match="are consumed"):
        DataPlan(three_sources.manifest, now, seed=3).with_state(plan.state(), 301, before)
    with pytest.raises(PlanError, match="followed data plan"):
        DataPlan(three_sources.manifest, now, seed=4).with_state(plan.state(), 300, before)


def test_consumed_counts_what_locate_names(three_sources) -> None:
    plan = (
        DataPlan(three_sources.manifest, [PhaseConfig(max_epochs={"books": 1})], seed=0)
        .skip(100, 300)
        .skip(400, 8)
    )
    for n in (0, 99, 101, 257, 700):
        seen = counted(plan, n)
        assert plan.consumed(n) == {s: seen[f"train/{s}"] for s in sorted(SOURCES)}


def test_the_hash_is_of_what_decides_locations(three_sources) -> None:

    def plan(seed: int = 0, **phase) -> DataPlan:
        return DataPlan(three_sources.manifest, [PhaseConfig(**phase)], seed)

    assert plan().hash == plan(weights={}).hash
    others = [plan(seed=1), plan(weights={"web": 0.1}), plan(max_epochs={"web": 2.0})]
    assert len({p.hash for p in [plan(), *others]}) == 4
    with pytest.raises(PlanError, match="followed data plan"):
        plan().with_state(others[0].state())


def test_rare_sources_come_as_often_as_their_weight_says(three_sources) -> None:
    phase = PhaseConfig(weights={"books": 0.001, "web": 0.5, "code": 0.499})
    plan = DataPlan(three_sources.manifest, [phase], seed=0)
    seen: Counter[str] = Counter()
    for block in range(16):
        seen += counted(plan, (block + 1) * 256, block * 256)
        assert abs(seen["train/books"] - 0.256 * (block + 1)) < 1
        assert abs(seen["train/web"] - 128 * (block + 1)) < 2
    tiny = DataPlan(
        three_sources.manifest, [PhaseConfig(weights={"books": 1e-12, "web": 0.5, "code": 0.5})], 0
    )
    assert counted(tiny, 2000)["train/books"] <= 1
    assert tiny.locate(10**15) == tiny.locate(10**15)


def test_many_rare_streams_keep_their_shares_and_lose_nothing(write_packed) -> None:
    sizes = {"big": 600} | {f"small{i}": 1 + i % 3 for i in range(40)}
    packed = write_packed(sizes)
    plan = DataPlan(packed.manifest, [PhaseConfig(max_epochs=dict.fromkeys(sizes, 1.0))], seed=3)
    total = sum(s.sequences for s in packed.streams("train").values())
    assert plan.length == total == len({plan.locate(n) for n in range(total)})
    endless = DataPlan(packed.manifest, [PhaseConfig()], seed=3)
    seen = counted(endless, 4 * total)
    assert all(
        abs(seen[name] - 4 * info.sequences) < 3
        for name, info in packed.streams("train").items()
        if name != "train/big"
    )


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "data.phases is empty"),
        ([PhaseConfig(), PhaseConfig()], r"data\.phases\[0\] has no `sequences`"),
        ([PhaseConfig(sequences=0)], "expected at least 1"),
        ([PhaseConfig(weights={"wep": 1})], r"data\.phases\[0\].*did you mean `web`"),
    ],
)
def test_impossible_phases_are_explained(three_sources, phases: list[PhaseConfig], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        DataPlan(three_sources.manifest, phases, seed=0)
