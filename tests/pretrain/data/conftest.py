from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.pack import concat
from data_pipeline.packed import PADDING, SEGMENT_DTYPE, PackedDataset, PackedWriter, TokenizerInfo

LENGTH, VOCAB = 32, 500

WritePacked = Callable[..., PackedDataset]


def make_packed(
    path: Path, sources: dict[str, int], heldout: int = 7, **mixture: dict[str, float]
) -> PackedDataset:
    """A packed dataset of random documents: sources and their number of documents; heldout of the first source."""
    folder = path / "tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(b"{}")
    info = TokenizerInfo(hashlib.sha256(b"{}").hexdigest(), VOCAB, {"bos": 1, "eos": 2, "pad": 2})
    rng = np.random.default_rng(3)
    with PackedWriter(path / "packed", info, LENGTH, shard_sequences=64) as writer:
        for split, source, count in [
            *(("train", source, count) for source, count in sources.items()),
            ("heldout", next(iter(sources)), heldout),
        ]:
            stream = writer.stream(split, source)
            documents = [
                np.concatenate([[1], rng.integers(3, VOCAB, rng.integers(0, 60)), [2]]) for _ in range(count)
            ]
            for number, tokens in enumerate(documents):
                stream.document(number.to_bytes(16, "little"), 0, len(tokens), 2 * len(tokens))
            for layout in concat([len(d) for d in documents], LENGTH):
                tokens = np.concatenate([documents[d][o : o + n] for d, o, n in layout])
                starts = np.cumsum([0, *(n for _, _, n in layout)])
                segments = [(d, s, o) for (d, o, _), s in zip(layout, starts, strict=False)]
                last, offset, taken = layout[-1]
                rest = documents[last][offset + taken :]
                if len(tokens) < LENGTH:
                    segments.append((PADDING, len(tokens), 0))
                    tokens = np.append(tokens, np.full(LENGTH - len(tokens), 2))
                following = int(rest[0]) if len(rest) else -1
                stream.sequence(tokens, following, np.array(segments, SEGMENT_DTYPE))
        plan = {"weights": {}, "max_epochs": {}} | mixture
        writer.finish(folder, plan, {})
    return PackedDataset(path / "packed")


@pytest.fixture
def write_packed(tmp_path: Path) -> WritePacked:
    """write_packed({source: documents}, …) → a packed dataset of this test."""
    return functools.partial(make_packed, tmp_path)


@pytest.fixture(scope="session")
def three_sources(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """A packed dataset of web, code and books; tests must not change it."""
    return make_packed(tmp_path_factory.mktemp("three"), {"web": 400, "code": 90, "books": 30})
