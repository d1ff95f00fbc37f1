from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from configs.schema.pipeline import ClassifierConfig, NsfwConfig
from data_pipeline.annotate import language, nsfw, quality
from data_pipeline.classify import fasttext

CONFIG = ClassifierConfig(buckets=1000)


def documents(
    *texts: str | None, urls: list[str | None] | None = None, languages: list[str | None] | None = None
):
    n = len(texts)
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(n)],
            "url": pa.array(urls or [None] * n, pa.string()),
            "language": pa.array(languages or [None] * n, pa.string()),
            "text": pa.array(texts, pa.string()),
        }
    )


def test_without_models_and_lists_every_signal_is_null() -> None:
    table = documents("one", "two", urls=["http://a.b", None])
    of_page = nsfw.annotate(table, NsfwConfig(), None)
    for found in (
        language.annotate(table, CONFIG, None, None),
        of_page,
        quality.annotate(table, CONFIG, None),
    ):
        assert found["id"].equals(table["id"])
        alone = ("script", "script_share", "n_sentences", "adult", "reference")
        alone += ("score",) if found is of_page else ()
        of_model = [name for name in found.column_names[1:] if name not in alone]
        assert all(found[name].null_count == 2 for name in of_model)


def test_a_known_language_is_believed() -> None:
    found = language.annotate(documents("hola", None), CONFIG, None, "es").to_pydict()
    assert found["language"] == ["es", "es"]
    assert found["score"] == [1.0, 1.0]


def test_models_annotate_row_by_row(tmp_path: Path) -> None:
    for name, labels in (("lid", ("en", "de")), ("nsfw", ("nsfw", "safe")), ("quality", ("good", "poor"))):
        rows = [("the of and to", labels[0]), ("der die und das", labels[1])] * 50
        fasttext.train(rows, CONFIG, tmp_path / f"{name}.bin", 0)
    table = documents("of the and", None, "und der die", "")
    found = language.annotate(table, CONFIG, tmp_path / "lid.bin", None).to_pydict()
    assert found["language"] == ["en", None, "de", None]
    assert found["score"][1] is None
    score = nsfw.annotate(table, NsfwConfig(classifier=CONFIG), tmp_path / "nsfw.bin").to_pydict()[
        "classifier"
    ]
    assert score[0] > 0.9 > 0.1 > score[2]
    assert score[1] is None
    score = quality.annotate(table, CONFIG, tmp_path / "quality.bin").to_pydict()["score"]
    assert score[0] > 0.9 > 0.1 > score[2]
    with pytest.raises(ValueError, match="no label 'good'; its labels are: de, en"):
        quality.annotate(table, CONFIG, tmp_path / "lid.bin")
    empty = table.slice(0, 0)
    assert len(language.annotate(empty, CONFIG, tmp_path / "lid.bin", None)) == 0
    assert len(nsfw.annotate(empty, NsfwConfig(classifier=CONFIG), tmp_path / "nsfw.bin")) == 0


@pytest.fixture
def words(tmp_path: Path) -> NsfwConfig:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "en.txt").write_text("darn\nbloody hell\nbloody\n🖕\n")
    (folder / "de.txt").write_text("Scheiße\nmist\n")
    (folder / "zh.txt").write_text("坏蛋\n")
    (folder / "no").write_text("faen\n")
    return NsfwConfig(word_lists=(str(folder),))


@pytest.mark.parametrize(
    ("text", "lang", "density"),
    [
        ("Darn it, darn", "en", 2 / 3),
        ("darned darnit", "en", 0),
        ("bloody   Hell, bloody cold", "en", 3 / 4),
        ("what the hell", "en", 0),
        ("SCHEISSE und mist", "de", 2 / 3),
        ("mist in the morning", "en", 0),
        ("mist in the morning", None, 1 / 4),
        ("mist that was to be in the air of the morning with and of it", None, 0),
        ("你是坏蛋吗", "zh", 2 / 5),
        ("faen ta deg", "nb", 1 / 3),
        ("hello 🖕", "en", 1 / 2),
        ("", "en", 0),
        ("darn it", "fr", 0),
    ],
)
def test_density_of_listed_words(words: NsfwConfig, text: str, lang: str | None, density: float) -> None:
    found = nsfw.annotate(documents(text, languages=[lang]), words, None)["word_density"].to_pylist()
    assert found == [pytest.approx(density)]


def test_an_edited_list_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("first\n")
    config = NsfwConfig(word_lists=(str(path),))
    assert nsfw.annotate(documents("second"), config, None)["word_density"].to_pylist() == [0]
    path.write_text("first\nsecond\n")
    assert nsfw.annotate(documents("second"), config, None)["word_density"].to_pylist() == [1]


def test_bad_lists_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes.txt").write_bytes(b"ok\n\xff\xfe\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"words\n" * 100)[:20])
    for name, message in (
        ("absent", "does not exist"),
        ("empty", "holds no list"),
        ("bytes.txt", "is not UTF-8"),
        ("cut.gz", "damaged gzip"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            nsfw.annotate(documents("x"), NsfwConfig(word_lists=(str(tmp_path / name),)), None)
