"""`arriero remove`: documents leave a packed dataset, everything else stays where it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyrun
from packing_example import Example, make_config, write_run

from configs import edge
from configs.schema.data_verbs import PackedPath, RemoveRun, TraceRun
from configs.schema.train import PhaseConfig, TrainRun
from data_pipeline import lineage, remove
from data_pipeline.pack import pack
from data_pipeline.packed import PADDING, PackedDataset, Sequence
from data_pipeline.packed import files as packed_files
from launch.cli import main as arriero
from launch.remove import _ranges, run
from pretrain.data.batch import IGNORE, collate
from pretrain.data.plan import DataPlan

DATE = "2026-01-31"


@pytest.fixture(params=["concat", "best_fit"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    made = write_run(tmp_path / "run", make_config(tmp_path / "run", method=request.param), shards=3)
    pack(made.run_dir, made.config)
    return made


def _phases() -> tuple[PhaseConfig, ...]:
    return (PhaseConfig(),)


def sequences(packed: PackedDataset) -> Iterator[tuple[str, int, Sequence]]:
    for name, info in packed.manifest.streams.items():
        for index in range(info.sequences):
            yield name, index, packed.read(name, index)


def contents(packed: PackedDataset) -> dict[str, list[int]]:
    """Id → tokens, put together from the sequences."""
    parts: dict[str, list[tuple[int, list[int]]]] = {}
    for name, _, sequence in sequences(packed):
        ends = np.append(sequence.segments["start"][1:], packed.sequence_length)
        for segment, end in zip(sequence.segments, ends, strict=True):
            if segment["document"] != PADDING:
                identifier = packed.documents(name)[segment["document"]]["id"].tobytes().hex()
                tokens = sequence.tokens[segment["start"] : end].tolist()
                parts.setdefault(identifier, []).append((int(segment["offset"]), tokens))
    return {i: [t for _, tokens in sorted(found) for t in tokens] for i, found in parts.items()}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def take_out(path: Path, ids: list[str], **more: Any) -> int:
    return run(RemoveRun(PackedPath(str(path)), ids=tuple(ids), date=DATE, **more))


def chosen(example: Example) -> list[str]:
    """A long document, a short one and one that is held out."""
    packed = PackedDataset(example.run_dir / "packed")
    by_length = sorted(example.kept.values(), key=lambda d: len(d.text))
    held = next(p for n in packed.streams("heldout") for p in packed.documents(n)["id"])
    return [by_length[-1].id, by_length[0].id, held.tobytes().hex()]


def test_the_documents_are_gone_and_every_other_token_is_where_it_was(example: Example) -> None:
    path = example.run_dir / "packed"
    before = PackedDataset(path)
    old = {(n, i): (s.tokens.copy(), s.next, s.segments.copy()) for n, i, s in sequences(before)}
    documents, ids, inodes = contents(before), chosen(example), {p: p.stat().st_ino for p in path.rglob("*")}
    places = {(p.stream, s) for p in remove.find(before, ids) for s in p.sequences}
    assert take_out(path, ids, reason="asked") == 0
    after = PackedDataset(path)
    after.verify()
    assert contents(after) == {i: tokens for i, tokens in documents.items() if i not in ids}
    pad = after.manifest.tokenizer.special["pad"]
    for name, index, sequence in sequences(after):
        tokens, following, segments = old[name, index]
        now = np.repeat(
            sequence.segments["document"],
            np.diff(np.append(sequence.segments["start"].astype(int), after.sequence_length)),
        )
        gone = now == PADDING
        np.testing.assert_array_equal(sequence.tokens[~gone], tokens[~gone])
        assert (sequence.tokens[gone] == pad).all()
        np.testing.assert_array_equal(sequence.segments["start"], segments["start"])
        assert sequence.next == (-1 if gone[-1] else following)
        if (name, index) not in places:
            assert sequence.next == following and sequence.segments.tobytes() == segments.tobytes()
    # Nothing of them is left in any file, and files that held nothing of them are the same files.
    for name, data in files(path).items():
        if name != "manifest.json":
            assert not any(bytes.fromhex(i) in data for i in ids)
    touched = {
        p.relative_to(path).parts[:2]
        for p, inode in inodes.items()
        if p.is_file() and p.stat().st_ino != inode
    }
    assert touched == {tuple(s.split("/")) for s, _ in places} | {("manifest.json",)}


def test_the_plan_and_its_places_stay(example: Example) -> None:
    path = example.run_dir / "packed"
    before = DataPlan(PackedDataset(path).manifest, _phases(), 0)
    take_out(path, chosen(example))
    after = DataPlan(PackedDataset(path).manifest, _phases(), 0)
    assert after.hash == before.hash
    assert [after.locate(n) for n in range(200)] == [before.locate(n) for n in range(200)]
    take_out(path, [next(i for i in example.kept if i not in chosen(example))])
    assert DataPlan(PackedDataset(path).manifest, _phases(), 0).hash == before.hash


def test_padding_inside_a_sequence_is_not_trained_on(example: Example) -> None:
    path = example.run_dir / "packed"
    whole = {(n, i): collate([s], 600) for n, i, s in sequences(PackedDataset(path))}
    take_out(path, chosen(example))
    packed = PackedDataset(path)
    inside = 0
    for name, index, sequence in sequences(packed):
        batch, before = collate([sequence], 600), whole[name, index]
        lengths = np.diff(np.append(sequence.segments["start"].astype(int), packed.sequence_length))
        padding = np.repeat(sequence.segments["document"] == PADDING, lengths)
        inside += int(padding[: -lengths[-1]].sum()) if len(lengths) > 1 else 0
        labels = batch.labels[0].numpy()
        assert (labels[padding] == IGNORE).all()
        np.testing.assert_array_equal(labels[~padding], before.labels[0].numpy()[~padding])
    assert inside > 0


def test_packing_again_gives_the_room_back_and_leaves_them_out(example: Example) -> None:
    path, ids = example.run_dir / "packed", chosen(example)
    whole = contents(PackedDataset(path))
    splits = {i: n for n, _, _ in sequences(PackedDataset(path)) for i in _ids(PackedDataset(path), n)}
    take_out(path, ids, reason="asked")
    removed = contents(PackedDataset(path))
    shutil.rmtree(path)
    pack(example.run_dir, example.config)
    again = PackedDataset(path)
    assert contents(again) == removed == {i: t for i, t in whole.items() if i not in ids}
    assert {i: n for n, _, _ in sequences(again) for i in _ids(again, n)} == {
        i: n for i, n in splits.items() if i not in ids
    }
    assert sorted(again.manifest.removals[0].documents) == sorted(ids)


def _ids(packed: PackedDataset, stream: str) -> list[str]:
    return [i.tobytes().hex() for i in packed.documents(stream)["id"]]


def test_a_dry_run_and_an_unknown_id_change_nothing(
    example: Example, capsys: pytest.CaptureFixture[str]
) -> None:
    path, ids = example.run_dir / "packed", chosen(example)
    before = files(path)
    assert take_out(path, ids, dry_run=True) == 0
    assert "would remove 3 documents" in capsys.readouterr().out
    assert take_out(path, [*ids, "0" * 31 + "1"]) == 1
    assert "0" * 31 + "1" in capsys.readouterr().err
    assert files(path) == before
    assert arriero(["remove", "ids=[xyz]", f"data.path={path}"]) == 2
    assert take_out(path, [*ids, "0" * 31 + "1"], ignore_missing=True) == 0
    assert take_out(path, ids) == 0
    assert f"removed already, on {DATE}" in capsys.readouterr().out


def test_trace_says_when_and_why(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    path, ids = example.run_dir / "packed", chosen(example)
    document = example.kept[ids[0]]
    take_out(path, ids, reason="asked")
    alone = example.run_dir.parent / "alone"
    shutil.copytree(path, alone)
    capsys.readouterr()
    for where in (path, alone):
        for what in ({"id": document.id}, {"url": document.url}):
            assert lineage.run(TraceRun(PackedPath(str(where)), **what)) == 0
            assert f"removed on {DATE} (asked)" in capsys.readouterr().out


@pytest.fixture
def small(tmp_path: Path) -> Example:
    made = write_run(tmp_path / "run", make_config(tmp_path / "run"), shards=1)
    pack(made.run_dir, made.config)
    return made


def test_a_kill_at_any_time_leaves_the_old_or_the_new_dataset(small: Example) -> None:
    path, ids = small.run_dir / "packed", chosen(small)
    spare = small.run_dir / "spare"
    shutil.copytree(path, spare)
    before = files(path)
    take_out(path, ids)
    after = files(path)
    outcomes = set()
    killed = True
    point = 0
    while killed:
        shutil.rmtree(path)
        shutil.copytree(spare, path)
        child = os.fork()
        if child == 0:
            _die_at(point)
            try:
                take_out(path, ids)
            finally:
                os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        found = files(path)
        assert found in (before, after), f"neither old nor new at point {point}"
        PackedDataset(path).verify()
        outcomes.add(found == after)
        assert take_out(path, ids) == 0
        assert files(path) == after
        point += 1
    assert point > 15 and outcomes == {False, True}


def _die_at(point: int) -> None:
    """Kill this process at its so-manieth call that changes the disk."""
    left = point

    def dying(call):  # type: ignore[no-untyped-def]
        def wrapped(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), 9)
            left -= 1
            return call(*args, **kwargs)

        return wrapped

    for module, name in (
        (os, "fsync"),
        (os, "link"),
        (packed_files, "exchange"),
        (packed_files, "sync_directory"),
        (shutil, "rmtree"),
    ):
        setattr(module, name, dying(getattr(module, name)))


def test_without_an_exchange_a_kill_is_recovered_from(small: Example) -> None:
    path = small.run_dir / "packed"
    before, ids = files(path), chosen(small)
    path.rename(path.with_name("packed.old"))
    assert take_out(path, ids, dry_run=True) == 0
    assert files(path) == before


def test_steps_that_consumed_a_document_are_named_and_training_goes_on(
    toy_packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "packed"
    shutil.copytree(toy_packed, path)
    packed = PackedDataset(path)
    run_dir = tmp_path / "run"

    def train(steps: int) -> None:
        status, output = toyrun.train(
            toyrun.overrides(path, run_dir, f"train.steps={steps}", "checkpoint.every=3")
        )
        assert status == 0, output

    train(6)
    plan = DataPlan(packed.manifest, _phases(), edge.read(run_dir / "config.yaml", TrainRun).seed)
    stream, sequence = plan.locate(9)  # step 3 of 4 sequences a step
    row = int(packed.read(stream, sequence).segments["document"][0])
    identifier = packed.documents(stream)[row]["id"].tobytes().hex()
    place = remove.find(packed, [identifier])[0]
    expected = sorted(
        {n // 4 + 1 for n in range(24) if plan.locate(n) in {(stream, s) for s in place.sequences}}
    )
    assert 3 in expected
    for more in ({"dry_run": True}, {}, {}):  # the second time it is removed already
        assert take_out(path, [identifier], runs=(str(run_dir),), **more) == 0
        shown = _ranges(expected)
        out = capsys.readouterr().out
        assert f"{len(expected)} steps of 6 trained consumed them: {shown}" in out
    train(9)
    other = tmp_path / "other"
    toyrun.make_packed(other, sequence_length=32)
    assert arriero(["remove", f"ids=[{identifier}]", f"data.path={other}", f"runs=[{run_dir}]"]) == 2
    assert "another dataset" in capsys.readouterr().err


def test_the_config_is_read_strictly() -> None:
    assert edge.load("remove", RemoveRun, ["data.path=x"]).data.path == "x"
