"""The packed format on disk: what is written is read, and no damage passes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from data_pipeline.packed import (
    PADDING,
    SEGMENT_DTYPE,
    PackedDataset,
    PackedError,
    PackedWriter,
    TokenizerInfo,
    token_dtype,
)

LENGTH, VOCAB, SEQUENCES = 16, 300, 10


def write_tokenizer(folder: Path) -> TokenizerInfo:
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(b"{}")
    return TokenizerInfo(hashlib.sha256(b"{}").hexdigest(), VOCAB, {"bos": 1, "eos": 2, "pad": 2})


def write(path: Path, shard_sequences: int = 4, fail: bool = False) -> list[tuple]:
    """Ten sequences of one long document and, in the last, a short one and padding."""
    info = write_tokenizer(path.with_name(path.name + "-tokenizer"))
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, VOCAB, SEQUENCES * LENGTH)
    written = []
    with PackedWriter(path, info, LENGTH, shard_sequences) as writer:
        stream = writer.stream("train", "web")
        long, short = SEQUENCES * LENGTH - 10, 6
        assert stream.document(bytes(range(16)), 77, long, 500) == 0
        assert stream.document(bytes(range(1, 17)), 0, short, 20) == 1
        for i in range(SEQUENCES):
            piece = tokens[i * LENGTH : (i + 1) * LENGTH]
            last = i == SEQUENCES - 1
            segments = [(0, 0, i * LENGTH)] + ([(1, 6, 0), (PADDING, 12, 0)] if last else [])
            following = -1 if last else int(tokens[(i + 1) * LENGTH])
            written.append((piece, following, np.array(segments, SEGMENT_DTYPE)))
            stream.sequence(*written[-1])
            if fail and i == 6:
                raise RuntimeError("killed")
        heldout = writer.stream("heldout", "web")
        heldout.document(bytes(16), 0, LENGTH, 9)
        heldout.sequence(tokens[:LENGTH], -1, np.array([(0, 0, 0)], SEGMENT_DTYPE))
        writer.finish(
            path.with_name(path.name + "-tokenizer"),
            {"weights": {"web": 1.0}, "max_epochs": {}},
            {"web": "2024-01-01"},
        )
    return written


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write(tmp_path / "packed")
    packed = PackedDataset(tmp_path / "packed")
    assert list(packed.streams("train")) == ["train/web"] and list(packed.streams("heldout")) == [
        "heldout/web"
    ]
    assert packed.vocab_size == VOCAB and packed.sequence_length == LENGTH
    info = packed.stream("train/web")
    assert (info.sequences, info.documents, info.tokens, info.bytes) == (10, 2, 156, 520)
    assert [s.sequences for s in info.shards] == [4, 4, 2]
    for index in reversed(range(SEQUENCES)):
        sequence, (tokens, following, segments) = packed.read("train/web", index), written[index]
        np.testing.assert_array_equal(sequence.tokens, tokens)
        np.testing.assert_array_equal(sequence.segments, segments)
        assert sequence.next == following and sequence.tokens.dtype == np.uint16
    documents = packed.documents("train/web")
    assert documents["id"][0].tobytes() == bytes(range(16)) and documents["url_hash"].tolist() == [77, 0]
    assert packed.locations("train/web", 1) == [(9, 6, 6, 0)]
    assert [p[0] for p in packed.locations("train/web", 0)] == list(range(10))
    packed.verify()


def test_smallest_dtype_that_holds_the_vocabulary() -> None:
    assert token_dtype(65_536) == np.uint16 and token_dtype(65_537) == np.uint32


def read_everything(path: Path) -> None:
    packed = PackedDataset(path)
    for name, info in packed.manifest.streams.items():
        packed.documents(name)
        for index in range(info.sequences):
            packed.read(name, index)


@pytest.mark.parametrize(
    "file", ["tokens-00001.bin", "next-00001.npy", "crc-00001.npy", "segments-00001.npy", "offsets-00001.npy"]
)
def test_one_flipped_byte_is_found_on_read(tmp_path: Path, file: str) -> None:
    write(tmp_path / "packed")
    path = tmp_path / "packed/train/web" / file
    content = bytearray(path.read_bytes())
    # The header of an .npy file is checked by NumPy; what follows it is the data.
    begin = 0 if file.endswith("bin") else content.index(b"\n") + 1
    read_everything(tmp_path / "packed")
    for position in range(begin, len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 0x40
        path.write_bytes(flipped)
        with pytest.raises(PackedError, match=r"tokens-0000\d.bin: sequence \d of the shard .* is damaged"):
            read_everything(tmp_path / "packed")


def test_a_flipped_byte_names_its_shard_and_sequence(tmp_path: Path) -> None:
    write(tmp_path / "packed")
    path = tmp_path / "packed/train/web/tokens-00001.bin"
    content = bytearray(path.read_bytes())
    content[LENGTH * 2 * 2 + 3] ^= 1
    path.write_bytes(content)
    packed = PackedDataset(tmp_path / "packed")
    packed.read("train/web", 5)
    with pytest.raises(
        PackedError, match=r"tokens-00001\.bin: sequence 2 of the shard \(sequence 6 of train/web\)"
    ):
        packed.read("train/web", 6)
    PackedDataset(tmp_path / "packed", verify=False).read("train/web", 6)
    with pytest.raises(PackedError, match=r"tokens-00001\.bin is damaged"):
        packed.verify()


def test_flipped_bytes_of_documents_and_manifest_are_found(tmp_path: Path) -> None:
    write(tmp_path / "packed")
    for name in ("train/web/documents.npy", "manifest.json"):
        path = tmp_path / "packed" / name
        content = path.read_bytes()
        for position in range(0, len(content), 7):
            flipped = bytearray(content)
            flipped[position] ^= 0x10
            path.write_bytes(flipped)
            with pytest.raises(PackedError, match=str(path)):
                read_everything(tmp_path / "packed")
        path.write_bytes(content)
    read_everything(tmp_path / "packed")


@pytest.mark.parametrize("size", [0, 10])
def test_empty_and_truncated_files_are_named_with_their_sizes(tmp_path: Path, size: int) -> None:
    write(tmp_path / "packed")
    for path in sorted((tmp_path / "packed/train/web").iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:size])
        expected = (
            f"{path.name} has {size} bytes, expected {len(content)}: it is {'truncated' if size else 'empty'}"
        )
        with pytest.raises(PackedError, match=expected):
            PackedDataset(tmp_path / "packed")
        path.write_bytes(content)
    (tmp_path / "packed/train/web/crc-00000.npy").unlink()
    with pytest.raises(PackedError, match=r"crc-00000\.npy is missing"):
        PackedDataset(tmp_path / "packed")


def test_a_shard_that_is_cut_off_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    """A memory map would end the process with SIGBUS."""
    write(tmp_path / "packed", shard_sequences=4)
    dataset = PackedDataset(tmp_path / "packed")
    name = next(name for name, info in dataset.streams("train").items() if info.sequences > 1)
    last = dataset.stream(name).shards[0].sequences - 1
    dataset.read(name, last)
    path = tmp_path / "packed" / name / "tokens-00000.bin"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(PackedError, match=rf"{path.name} was cut off while it was open: sequence {last} "):
        dataset.read(name, last)


def test_few_files_are_open_however_many_shards_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write(tmp_path / "packed", shard_sequences=1)
    monkeypatch.setattr("data_pipeline.packed.reader.OPEN_SHARDS", 2)
    before = len(list(Path("/dev/fd").iterdir()))
    packed = PackedDataset(tmp_path / "packed")
    for index in [*range(SEQUENCES), *range(SEQUENCES)]:
        assert packed.read("train/web", index).tokens.tolist() == written[index][0].tolist()
        assert len(list(Path("/dev/fd").iterdir())) <= before + 2 * 5


def test_a_failed_write_leaves_nothing_and_the_old_dataset_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write(tmp_path / "packed", fail=True)
    assert [path.name for path in tmp_path.iterdir()] == ["packed-tokenizer"]
    info = write_tokenizer(tmp_path / "tok")
    for _ in range(2):
        with PackedWriter(tmp_path / "packed", info, LENGTH) as writer:
            writer.finish(tmp_path / "tok", {"weights": {}, "max_epochs": {}}, {})
    with pytest.raises(RuntimeError), PackedWriter(tmp_path / "packed", info, LENGTH) as writer:
        raise RuntimeError("killed")
    assert PackedDataset(tmp_path / "packed").manifest.streams == {}


def test_a_write_that_fails_names_the_dataset_and_keeps_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write itself fails in the same way."""
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from data_pipeline.packed import PackedWriter, SEGMENT_DTYPE, TokenizerInfo
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with PackedWriter(Path(sys.argv[1]) / "packed", TokenizerInfo("", 9, {}), 1024) as writer:
    stream = writer.stream("train", "web")
    stream.document(bytes(16), 0, 1024 * 1000, 1)
    for i in range(1000):
        segments = np.array([(0, 0, 1024 * i)], SEGMENT_DTYPE)
        stream.sequence(np.ones(1024, np.uint16), 1 if i < 999 else -1, segments)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"PackedError: {tmp_path / 'packed'} could not be written: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.full(LENGTH, VOCAB)}, "outside the vocabulary of 300"),
        ({"tokens": np.zeros(LENGTH + 1, int)}, "expected \\(16,\\)"),
        ({"next_token": VOCAB}, "next token 300"),
        ({"segments": [(0, 1, 0)]}, "begin at position 0"),
        ({"segments": [(0, 0, 0), (0, 0, 0)]}, "must rise"),
        ({"segments": [(3, 0, 0)]}, "documents already added"),
        ({"segments": [(PADDING, 0, 0), (0, 4, 0)]}, "padding comes last"),
        ({"segments": [(0, 0, 0), (PADDING, 4, 0)], "next_token": 5}, "expected -1"),
    ],
)
def test_the_writer_refuses_what_breaks_the_format(tmp_path: Path, change: dict, message: str) -> None:
    info = write_tokenizer(tmp_path / "tok")
    good = {"tokens": np.zeros(LENGTH, int), "next_token": -1, "segments": [(0, 0, 0)]}
    arguments = {**good, **change}
    with pytest.raises(PackedError, match=message), PackedWriter(tmp_path / "p", info, LENGTH) as writer:
        stream = writer.stream("train", "web")
        stream.document(bytes(16), 0, LENGTH, 1)
        stream.sequence(
            arguments["tokens"], arguments["next_token"], np.array(arguments["segments"], SEGMENT_DTYPE)
        )


def test_every_token_of_the_documents_must_be_written(tmp_path: Path) -> None:
    info = write_tokenizer(tmp_path / "tok")
    with (
        pytest.raises(PackedError, match="exactly one sequence"),
        PackedWriter(tmp_path / "p", info, LENGTH) as w,
    ):
        w.stream("train", "web").document(bytes(16), 0, LENGTH, 1)
        w.finish(tmp_path / "tok", {"weights": {}, "max_epochs": {}}, {})


def test_names_versions_and_wrong_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(PackedError, match="does not exist"):
        PackedDataset(tmp_path / "nothing")
    with pytest.raises(PackedError, match=r"holds no manifest\.json"):
        PackedDataset(tmp_path)
    write(tmp_path / "packed")
    with pytest.raises(PackedError, match=r"did you mean .*/packed"):
        PackedDataset(tmp_path)
    packed = PackedDataset(tmp_path / "packed")
    with pytest.raises(PackedError, match="no stream 'train/wed'; it has: heldout/web, train/web"):
        packed.read("train/wed", 0)
    with pytest.raises(IndexError, match="has 10 sequences"):
        packed.read("train/web", 10)
    body = orjson.loads((tmp_path / "packed/manifest.json").read_bytes())
    (tmp_path / "packed/manifest.json").write_bytes(orjson.dumps(body | {"format_version": 9}))
    with pytest.raises(PackedError, match="format version 9, this release reads 1"):
        PackedDataset(tmp_path / "packed")


def test_stream_names_must_be_folder_names(tmp_path: Path) -> None:
    info = write_tokenizer(tmp_path / "tok")
    with (
        pytest.raises(PackedError, match=r"source name '\.\./x'"),
        PackedWriter(tmp_path / "p", info, LENGTH) as w,
    ):
        w.stream("train", "../x")


def test_reading_needs_numpy_and_orjson_only() -> None:
    code = (
        "import sys, data_pipeline.packed; "
        "print(sorted(m for m in ('torch', 'pyarrow', 'xxhash', 'tokenizers', 'datatrove', 'hydra') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
