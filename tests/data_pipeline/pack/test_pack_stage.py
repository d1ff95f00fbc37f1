"""The packed dataset against the documents it was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from packing_example import Example, make_config, write_run

from data_pipeline.mixture import token_table
from data_pipeline.pack import heldout_groups, pack
from data_pipeline.packed import PADDING, MixtureError, PackedDataset
from data_pipeline.packed.files import is_temporary
from data_pipeline.tokenize import load_tokenizer


def rebuild(packed: PackedDataset) -> dict[str, tuple[str, list[int]]]:
    """id → (stream, tokens put together from every sequence that holds a piece); checks `next` against them."""
    found: dict[str, tuple[str, list[int]]] = {}
    for name, info in packed.manifest.streams.items():
        documents = packed.documents(name)
        pieces = [np.full(int(n), -1) for n in documents["tokens"]]
        continued: list[tuple[int, int, int]] = []
        for index in range(info.sequences):
            sequence = packed.read(name, index)
            ends = np.append(sequence.segments["start"][1:], packed.sequence_length)
            for (document, start, offset), end in zip(sequence.segments.tolist(), ends.tolist(), strict=True):
                if document == PADDING:
                    assert packed.manifest.method == "best_fit" or index == info.sequences - 1
                    continue
                piece = pieces[document][offset : offset + end - start]
                assert (piece == -1).all(), "a token stands twice"
                piece[:] = sequence.tokens[start:end]
                after = offset + end - start
                if after < documents["tokens"][document]:
                    assert end == packed.sequence_length
                    continued.append((document, after, sequence.next))
                elif end == packed.sequence_length:
                    assert sequence.next == -1
        assert all(pieces[document][after] == following for document, after, following in continued)
        for row, tokens in zip(documents, pieces, strict=True):
            assert row["id"].tobytes().hex() not in found
            found[row["id"].tobytes().hex()] = (name, tokens.tolist())
    return found


@pytest.mark.parametrize("method", ["concat", "best_fit"])
def test_every_token_of_every_kept_document_stands_once(example: Example, method: str) -> None:
    config = replace(example.config, pack=replace(example.config.pack, method=method))
    pack(example.run_dir, config)
    packed = PackedDataset(example.run_dir / "packed")
    packed.verify()
    loaded = load_tokenizer(packed.tokenizer_path)
    found = rebuild(packed)
    assert found.keys() == example.kept.keys()
    for identifier, document in example.kept.items():
        stream, tokens = found[identifier]
        assert tokens[0] == loaded.info.special["bos"] and tokens[-1] == loaded.info.special["eos"]
        assert loaded.tokenizer.decode(tokens[1:-1], skip_special_tokens=False) == document.text
        assert packed.stream(stream).source == document.source


def test_documents_record_bytes_and_url(example: Example) -> None:
    pack(example.run_dir, example.config)
    packed = PackedDataset(example.run_dir / "packed")
    for name in packed.manifest.streams:
        for row in packed.documents(name):
            document = example.kept[row["id"].tobytes().hex()]
            assert row["bytes"] == len(document.text.encode())
            assert row["url_hash"] == xxhash.xxh3_64_intdigest(document.url.encode())
    kept_bytes = sum(len(d.text.encode()) for d in example.kept.values())
    assert sum(s.bytes for s in packed.manifest.streams.values()) == kept_bytes
    assert packed.covered_bytes("train/guide") == packed.stream("train/guide").bytes
    part = packed.covered_bytes("train/guide", packed.stream("train/guide").sequences // 2)
    assert 0.3 < part / packed.stream("train/guide").bytes < 0.7


def test_output_does_not_depend_on_sharding(tmp_path: Path) -> None:
    contents = []
    for shards in (1, 4):
        run_dir = tmp_path / str(shards)
        example = write_run(run_dir, make_config(run_dir), shards)
        pack(run_dir, example.config)
        files = sorted(p for p in (run_dir / "packed").rglob("*") if p.is_file())
        contents.append({str(p.relative_to(run_dir)): p.read_bytes() for p in files})
    assert contents[0] == contents[1]


def test_a_group_is_never_divided_between_splits(example: Example) -> None:
    pack(example.run_dir, example.config)
    packed = PackedDataset(example.run_dir / "packed")
    splits: dict[str, set[str]] = {}
    for name, info in packed.manifest.streams.items():
        for row in packed.documents(name):
            group = example.kept[row["id"].tobytes().hex()].group
            splits.setdefault(group, set()).add(info.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "heldout"} == set().union(*splits.values())


def test_heldout_grows_to_min_bytes_only_where_there_is_twice_as_much() -> None:
    sizes = {"big": {f"g{i}": 100 for i in range(100)}, "small": {f"s{i}": 100 for i in range(10)}}
    held = heldout_groups(sizes, 0.01, 2000, seed=1)
    assert 20 <= sum(g.startswith("g") for g in held) <= 21
    assert 1 <= sum(g.startswith("s") for g in held) <= 2
    assert heldout_groups(sizes, 0.01, 2000, seed=2) != held
    assert heldout_groups({"one": {"only": 5}}, 0.5, 2, seed=0) == set()


def test_by_language_makes_a_stream_of_each(example: Example) -> None:
    config = replace(example.config, pack=replace(example.config.pack, by_language=True))
    manifest = pack(example.run_dir, config)
    assert {"train/guide.de", "train/guide.en"} <= manifest.streams.keys()
    assert set(manifest.mixture["weights"]) == {"guide", "reference"}


def test_manifest_records_mixture_cutoff_and_origin(example: Example) -> None:
    manifest = pack(example.run_dir, example.config, fingerprint="abc")
    assert sum(manifest.mixture["weights"].values()) == pytest.approx(1)
    assert manifest.cutoff["guide"].startswith("2024-01-")
    assert manifest.recipe_fingerprint == "abc"
    assert manifest.data_run == ".."
    assert "train/guide" in token_table(manifest)
    assert PackedDataset(example.run_dir / "packed").manifest == manifest


def test_mixture_of_an_unknown_source_leaves_nothing_half_written(example: Example) -> None:
    mixture = replace(example.config.mixture, weights={"guid": 1.0})
    with pytest.raises(MixtureError, match="did you mean `guide`"):
        pack(example.run_dir, replace(example.config, mixture=mixture))
    assert not (example.run_dir / "packed").exists()
    assert not [path for path in example.run_dir.iterdir() if is_temporary(path)]


def test_token_shards_of_another_tokenizer_are_refused(example: Example) -> None:
    path = example.run_dir / "tokenizer/tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match="tokenize again"):
        pack(example.run_dir, example.config)


def test_truncated_token_shard_is_named(example: Example) -> None:
    path = example.run_dir / "tokens/00001.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"00001\.arrow is not a whole token shard"):
        pack(example.run_dir, example.config)


def test_nothing_kept_is_an_error(tmp_path: Path, example: Example) -> None:
    for path in (example.run_dir / "tokens").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no document was kept"):
        pack(example.run_dir, example.config)
