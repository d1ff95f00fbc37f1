"""Token files of other frameworks: round trips are exact, the frameworks' own readers agree, damage is named."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from configs.schema.pipeline import TokenizerConfig
from data_pipeline import convert
from data_pipeline.convert import documents_of
from data_pipeline.pack import concat
from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedDataset, PackedWriter
from data_pipeline.tokenize import load_tokenizer, train_tokenizer

FORMATS = ("datatrove", "megatron", "olmo", "parquet")
TEXTS = [f"document {i} of the river and its hills, " * (1 + i % 7) for i in range(40)]
LENGTH = 64


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    return make_packed(tmp_path_factory.mktemp("convert"), 400)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """Its ids are uint32."""
    return make_packed(tmp_path_factory.mktemp("wide"), 66_000)


def make_packed(root: Path, vocab_size: int) -> PackedDataset:
    config = TokenizerConfig(vocab_size=vocab_size, n_special=12, min_frequency=1)
    train_tokenizer([(str(i), t) for i, t in enumerate(TEXTS)], config, 0, root / "tok")
    loaded = load_tokenizer(root / "tok")
    with PackedWriter(root / "packed", loaded.info, LENGTH, shard_sequences=7) as writer:
        for split, source, texts in (
            ("train", "web", TEXTS),
            ("train", "books", TEXTS[:5]),
            ("heldout", "web", TEXTS[5:9]),
        ):
            stream = writer.stream(split, source)
            ids = [[*loaded.info.begin, *i, *loaded.info.end] for i in loaded.encode(texts)]
            for row, tokens in enumerate(ids):
                stream.document(bytes([row] * 16), 0, len(tokens), len(texts[row].encode()))
            for layout in concat(map(len, ids), LENGTH):
                parts = [t for d, o, n in layout for t in ids[d][o : o + n]]
                starts = np.cumsum([0, *(n for _, _, n in layout)])[:-1].tolist()
                segments = [(d, s, o) for (d, o, _), s in zip(layout, starts, strict=True)]
                document, offset, taken = layout[-1]
                following = ids[document][offset + taken] if offset + taken < len(ids[document]) else -1
                if len(parts) < LENGTH:
                    segments.append((PADDING, len(parts), 0))
                    parts += [loaded.info.special["pad"]] * (LENGTH - len(parts))
                stream.sequence(np.array(parts), following, np.array(segments, SEGMENT_DTYPE))
        writer.finish(root / "tok", {"weights": {"web": 1.0}, "max_epochs": {}}, {})
    return PackedDataset(root / "packed")


def tokens_of(packed: PackedDataset, stream: str) -> list[list[int]]:
    return [ids.tolist() for _, ids in documents_of(packed, stream)]


def exported(packed: PackedDataset, folder: Path, kind: str) -> Path:
    assert convert.main([f"input={packed.path}", f"output={folder}", f"format={kind}"]) == 0
    return folder


def test_every_spelling_of_a_dataset_is_exported(packed: PackedDataset, tmp_path: Path) -> None:
    spellings = (packed.path.parent, packed.path, packed.path / "manifest.json")
    for n, spelling in enumerate(spellings):
        assert convert.main([f"input={spelling}", f"output={tmp_path / str(n)}", "format=olmo"]) == 0
    first, *others = (sorted(p.name for p in (tmp_path / str(n)).rglob("*")) for n in range(len(spellings)))
    assert first and others == [first] * 2


def imported(folder: Path, output: Path, packed: PackedDataset, kind: str, *more: str) -> PackedDataset:
    words = [
        f"input={folder}",
        f"output={output}",
        f"format={kind}",
        f"tokenizer_path={packed.tokenizer_path}",
    ]
    assert convert.main([*words, "pack.sequence_length=48", *more]) == 0
    found = PackedDataset(output)
    found.verify()
    return found


@pytest.mark.parametrize(
    ("fixture", "method"), [("packed", "concat"), ("packed", "best_fit"), ("wide", "concat")]
)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_round_trip_keeps_every_document(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, fixture: str, method: str
) -> None:
    packed = request.getfixturevalue(fixture)
    there = exported(packed, tmp_path / "there", kind)
    back = imported(there, tmp_path / "back", packed, kind, f"pack.method={method}")
    assert back.manifest.streams.keys() == packed.manifest.streams.keys()
    assert back.manifest.tokenizer == packed.manifest.tokenizer
    for name, info in packed.manifest.streams.items():
        assert tokens_of(back, name) == tokens_of(packed, name)
        assert back.stream(name).bytes == info.bytes
    again = exported(back, tmp_path / "again", kind)
    for path in sorted(p for p in there.rglob("*") if p.is_file()):
        other = again / path.relative_to(there)
        if path.suffix in (".gz", ".parquet"):  # ids of documents are not kept by the other formats
            continue
        if path.suffix == ".metadata":
            assert other.read_text().split("|")[1] == path.read_text().split("|")[1]
            continue
        assert other.read_bytes() == path.read_bytes(), path.name


def test_datatrove_reads_it(packed: PackedDataset, tmp_path: Path) -> None:
    dataset = pytest.importorskip("datatrove.utils.dataset", reason="datatrove is not installed")
    folder = exported(packed, tmp_path / "there", "datatrove")
    width = np.dtype(packed.manifest.dtype).itemsize
    theirs = dataset.DatatroveFileDataset(
        str(folder / "train/web.ds"), 15, token_size=width, return_positions=True
    )
    expected = [t for ids in tokens_of(packed, "train/web") for t in ids]
    places = [p for ids in tokens_of(packed, "train/web") for p in range(len(ids))]
    for number in range(len(theirs)):
        row = theirs[number]
        part = slice(number * 16, number * 16 + 16)
        assert row["input_ids"].tolist() == expected[part]
        # A document that began before the window counts from the window.
        assert row["positions"].tolist() == [min(p, i) for i, p in enumerate(places[part])]


def test_megatron_reads_it(packed: PackedDataset, tmp_path: Path) -> None:
    megatron = pytest.importorskip(
        "megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed"
    )
    folder = exported(packed, tmp_path / "there", "megatron")
    theirs = megatron.IndexedDataset(str(folder / "train/web"))
    assert [theirs[i].tolist() for i in range(len(theirs))] == tokens_of(packed, "train/web")
    assert theirs.document_indices.tolist() == list(range(len(theirs) + 1))


def test_megatron_writes_it(packed: PackedDataset, tmp_path: Path) -> None:
    megatron = pytest.importorskip(
        "megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed"
    )
    torch = pytest.importorskip("torch")
    expected = tokens_of(packed, "train/web")
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "x.bin"), dtype=np.int32)
    for ids in expected:
        half = len(ids) // 2  # a document of two sequences
        builder.add_document(torch.tensor(ids), [half, len(ids) - half])
    builder.finalize(str(tmp_path / "x.idx"))
    back = imported(tmp_path / "x.bin", tmp_path / "back", packed, "megatron")
    assert tokens_of(back, "train/imported") == expected


def test_olmo_core_reads_it(packed: PackedDataset, tmp_path: Path) -> None:
    utils = pytest.importorskip("olmo_core.data.utils", reason="ai2-olmo-core is not installed")
    folder = exported(packed, tmp_path / "there", "olmo")
    expected, dtype = tokens_of(packed, "train/web"), np.dtype(packed.manifest.dtype)
    eos = packed.manifest.tokenizer.end[0]
    ids = np.memmap(folder / "train/web.npy", dtype, "r")
    bounds = list(utils.iter_document_indices(folder / "train/web.npy", eos_token_id=eos, dtype=dtype.type))
    assert [ids[start:stop].tolist() for start, stop in bounds] == expected


def test_hugging_face_datasets_read_it(packed: PackedDataset, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    folder = exported(packed, tmp_path / "there", "parquet")
    theirs = datasets.Dataset.from_parquet(
        str(folder / "train/web.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert theirs["input_ids"][:] == tokens_of(packed, "train/web")
    assert theirs["id"][0] == "00" * 16


def test_without_a_table_documents_end_at_eos(packed: PackedDataset, tmp_path: Path) -> None:
    folder = exported(packed, tmp_path / "there", "olmo")
    (folder / "train/web.csv.gz").unlink()
    back = imported(folder / "train/web.npy", tmp_path / "back", packed, "olmo", "source_name=plain")
    assert tokens_of(back, "train/plain") == tokens_of(packed, "train/web")


def test_documents_without_the_tokenizers_ids_around_them_say_so(
    packed: PackedDataset, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    ids = np.array([5, 6, 7, 8, 9], packed.manifest.dtype)
    (tmp_path / "bare/x.ds").write_bytes(ids.tobytes())
    (tmp_path / "bare/x.ds.index").write_bytes(np.array([2, 5], "<u8").tobytes())
    back = imported(tmp_path / "bare", tmp_path / "back", packed, "datatrove")
    assert (back.manifest.tokenizer.begin, back.manifest.tokenizer.end) == ((), ())
    assert tokens_of(back, "train/imported-x") == [[5, 6], [7, 8, 9]]


DAMAGE = {
    "datatrove": [".ds", ".ds.index"],
    "megatron": [".bin", ".idx"],
    "olmo": [".npy", ".csv.gz"],
    "parquet": [".parquet"],
}


@pytest.mark.parametrize(("kind", "suffix"), [(k, s) for k, found in DAMAGE.items() for s in found])
def test_files_that_are_cut_off_are_named(
    packed: PackedDataset, tmp_path: Path, kind: str, suffix: str
) -> None:
    folder = exported(packed, tmp_path / "there", kind)
    path = folder / f"train/web{suffix}"
    for size in (path.stat().st_size - 8, path.stat().st_size // 2 + 1, 0):
        path.write_bytes(path.read_bytes()[:size])
        words = [f"input={folder}", f"output={tmp_path / 'back'}", f"format={kind}"]
        with pytest.raises(ValueError, match=re.escape("train/web.")) as error:
            convert.main([*words, f"tokenizer_path={packed.tokenizer_path}"])
        assert "train/web" in str(error.value)
        assert not (tmp_path / "back").exists()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]


def test_ids_of_another_tokenizer_are_refused(packed: PackedDataset, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/x.ds").write_bytes(np.array([5, packed.vocab_size], packed.manifest.dtype).tobytes())
    (tmp_path / "bare/x.ds.index").write_bytes(np.array([2], "<u8").tobytes())
    with pytest.raises(ValueError, match=rf"holds id {packed.vocab_size}, but the tokenizer has"):
        imported(tmp_path / "bare", tmp_path / "back", packed, "datatrove")


def test_a_table_with_a_gap_is_refused(packed: PackedDataset, tmp_path: Path) -> None:
    folder = exported(packed, tmp_path / "there", "olmo")
    with gzip.open(folder / "train/web.csv.gz", "wt") as file:
        file.write("0,3,a,web,0\n4,9,b,web,1\n")
    with pytest.raises(ValueError, match=r"web\.csv\.gz is damaged.*line 2 begins at 4"):
        imported(folder, tmp_path / "back", packed, "olmo")


def test_what_is_missing_is_said(packed: PackedDataset, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([f"input={tmp_path / 'no'}"], "does not exist"),
        ([f"input={tmp_path / 'empty'}"], "`tokenizer_path` is missing"),
        ([f"input={tmp_path / 'empty'}", f"tokenizer_path={packed.tokenizer_path}"], r"holds no \*\.ds file"),
        ([f"input={packed.path}", f"output={packed.path}"], "is not an empty folder"),
    ):
        with pytest.raises(ValueError, match=message):
            convert.main([f"output={tmp_path / 'out'}", "format=datatrove", *words])
