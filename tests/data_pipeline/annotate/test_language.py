"""Language, script, and what they have to say about each other."""

from __future__ import annotations

import importlib.abc
import random
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
import regex

from configs import edge
from configs.schema.pipeline import ClassifierConfig, DataRun
from data_pipeline.annotate import cld2, codes, language, scripts, sentences, stopwords
from data_pipeline.classify import fasttext
from data_pipeline.flow.context import language_config

CONFIG = ClassifierConfig(buckets=2000, min_char_ngram=1, max_char_ngram=2)
WRITTEN = {
    "zh": "委员会决定新桥将建在旧火车站旁边，工程将于明年开始。",
    "ja": "委員会は新しい橋を古い駅の隣に建設することを決定しました。",
    "ko": "위원회는 새로운 다리를 오래된 기차역 옆에 건설하기로 결정했다.",
    "th": "คณะกรรมการได้ตัดสินใจว่าสะพานใหม่จะสร้างขึ้นข้างสถานีรถไฟเก่า",
    "el": "Η επιτροπή αποφάσισε ότι η νέα γέφυρα θα κατασκευαστεί δίπλα στον παλιό σταθμό.",
    "ka": "კომიტეტმა გადაწყვიტა, რომ ახალი ხიდი ძველი სადგურის გვერდით აშენდება.",
    "hy": "Հանձնաժողովը որոշեց, որ նոր կամուրջը կկառուցվի հին կայարանի կողքին։",
    "he": "הוועדה החליטה כי הגשר החדש ייבנה ליד תחנת הרכבת הישנה.",
    "ta": "புதிய பாலம் பழைய ரயில் நிலையத்திற்கு அருகில் கட்டப்படும் என்று குழு முடிவு செய்தது.",
    "am": "ኮሚቴው አዲሱ ድልድይ ከአሮጌው ጣቢያ አጠገብ እንዲገነባ ወስኗል።",
}
GERMAN = "der Ausschuss hat beschlossen dass die neue Brücke neben dem alten Bahnhof gebaut werden soll"
ENGLISH = "the committee has decided that the new bridge will be built next to the old railway station"
RUSSIAN = "комитет решил что новый мост будет построен рядом со старым железнодорожным вокзалом"


def rows(labels: dict[str, str]) -> list[tuple[str, str]]:
    draw = random.Random(0)
    return [
        (" ".join(draw.choices(text.split(), k=8)), label)
        for label, text in labels.items()
        for _ in range(60)
    ]


def annotate(texts: list[str | None], model: Path | None = None, known: str | None = None) -> dict[str, list]:
    table = pa.table({"id": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.string())})
    return language.annotate(table, CONFIG, model, known).to_pydict()


@pytest.fixture(scope="module")
def western(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows German, English, Russian and code, with the labels of GlotLID."""
    path = tmp_path_factory.mktemp("lid") / "lid.bin"
    code = "for i in range ( n ) : x [ i ] += f ( y ) return None"
    named = {"deu_Latn": GERMAN, "eng_Latn": ENGLISH, "rus_Cyrl": RUSSIAN, "zxx": code}
    fasttext.train(rows(named), CONFIG, path, 0)
    return path


@pytest.mark.parametrize("lang", WRITTEN)
def test_a_script_of_one_language_names_it_with_and_without_a_model(lang: str, western: Path) -> None:
    for model in (None, western):
        found = annotate([WRITTEN[lang], f"{WRITTEN[lang]} (UNESCO, 2019)"], model)
        assert found["language"] == [lang, lang]
        assert found["score"][0] == 1.0 and found["score"][1] > 0.5
        assert found["script_ok"][0] == 1.0


def test_labels_of_all_models_become_one_scheme(western: Path) -> None:
    found = annotate([GERMAN, ENGLISH, RUSSIAN, None, ""], western)
    assert found["language"] == ["de", "en", "ru", None, None]
    assert found["script"] == ["Latn", "Latn", "Cyrl", None, None]
    assert found["second"][:2] == ["en", "de"] or set(found["second"][:2]) <= {"en", "de", "zxx"}
    assert found["second"][2] == "zxx", "a second language in another script"
    assert found["score"][3] is None and found["script_ok"][4] is None
    for label, expected in {
        "eng_Latn": ("en", "Latn"), "en": ("en", None), "de-1996": ("de", None), "cmn_Hani": ("zh", "Hani"),
        "no": ("nb", None), "als": ("gsw", None), "als_Latn": ("sq", "Latn"), "sr-cyrl": ("sr", "Cyrl"),
        "zxx": ("zxx", None), "gsw": ("gsw", None), "spam?": ("spam?", None),
    }.items():  # fmt: skip
        assert codes.normal(label) == expected


PACKAGED = Path(cld2.NAME)


@pytest.mark.skipif(not cld2.available(), reason="pycld2 is not installed")
def test_the_packaged_model_tells_languages_in_any_case_and_their_second() -> None:
    expected = {"de": GERMAN, "en": ENGLISH, "ru": RUSSIAN, "ka": WRITTEN["ka"], "he": WRITTEN["he"]}
    for change in (str, str.upper, lambda text: f"<b>\x01{text}\x85\ufffe"):
        found = annotate([change(text) for text in expected.values()], PACKAGED)
        assert found["language"] == list(expected)
        assert all(0.8 < score < 1 for score in found["score"])
    mixed = annotate([f"{GERMAN}. {GERMAN}. {ENGLISH}."], PACKAGED)
    assert (mixed["language"], mixed["second"]) == (["de"], ["en"])
    assert 0.5 < mixed["score"][0] < 0.8 and 0.2 < mixed["second_score"][0] < 0.5
    assert annotate(["", "12 345"], PACKAGED)["language"] == [None, codes.NONE]
    short = annotate(["Brücke"], PACKAGED)
    assert short["score"][0] < annotate([GERMAN], PACKAGED)["score"][0], "a word is no sentence"


CODE = """import os
def total(rows, weight=None):
    if weight is None: return sum(row.value for row in rows)
    return weight * sum(row.value for row in rows[:-1])
for (int i = 0; i < rows.size(); i++) { total += rows[i].value; }
const names = rows.map((row) => row.name);
"""
CIRCASSIAN = "къэ гъуэ щӏы хуэ дзы мыхъу кӏуэ хьэл зэщӏэ унагъуэ цӏыху лъэныкъуэ ӏуэху псоми я щхьэ"
"""Words in an orthography that CLD2 does not know."""


@pytest.mark.skipif(not cld2.available(), reason="pycld2 is not installed")
def test_code_is_no_english_and_no_unknown_language_the_nearest() -> None:
    prose = f"{GERMAN}. Die Kosten (rund 3 Mio. Euro; siehe Anlage) trägt die Stadt [1]."
    lists = "\n".join(f"* {line} (2019)" for line in (GERMAN, ENGLISH, GERMAN))
    assert cld2.without_code(f"{prose}\n{lists}") == (f"{prose}\n{lists}", 0.0)
    unknown = " ".join(random.Random(0).choices(CIRCASSIAN.split(), k=80))
    found = annotate([CODE, f"{prose}\n{CODE}{prose}\n{prose}", unknown], PACKAGED)
    assert found["language"][:2] == [codes.NONE, "de"] and found["score"][1] > 0.8
    assert found["language"][2] == codes.UNKNOWN


@pytest.mark.parametrize("how", ["absent", "broken"])
def test_a_model_that_cannot_be_imported_is_not_there(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == cld2.DISTRIBUTION:
                raise ImportError("wrong ELF class")

    monkeypatch.delitem(sys.modules, cld2.DISTRIBUTION, raising=False)
    if how == "absent":
        monkeypatch.setitem(sys.modules, cld2.DISTRIBUTION, None)
    else:
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert not cld2.available()


def test_capitals_are_read_as_small_letters(western: Path) -> None:
    small, capitals = (annotate([f(t) for t in (GERMAN, RUSSIAN)], western) for f in (str.lower, str.upper))
    assert capitals["language"] == small["language"] == ["de", "ru"]
    assert capitals["score"] == small["score"]


def test_the_packaged_model_gives_way_to_training_and_to_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(*changes: str) -> tuple[str | None, str | None]:
        config = language_config(edge.load("data", DataRun, [f"output={tmp_path}/o", *changes]))
        return config.model, config.train

    if cld2.available():
        assert chosen() == (cld2.NAME, None)
    assert chosen("languages.train=offline") == (None, "offline")
    assert chosen("languages.model=null") == (None, None)
    monkeypatch.setattr(cld2, "available", lambda: False)
    assert chosen() == (None, "offline")


def test_a_label_of_another_script_is_out_of_the_question(tmp_path: Path) -> None:
    # Digits and punctuation make this model answer German to everything.
    path = tmp_path / "lid.bin"
    fasttext.train(rows({"de": "1 2 3 4 5 6 7 8", "uk": "9", "zh": "的 不"}), CONFIG, path, 0)
    text = "1 2 3 4 5 6 7 8 1 2 3 4 委员会 1 2 3 4"
    assert fasttext.Classifier(path).best([text])[0] == ["de"]
    assert annotate([text], path)["language"] == ["zh"]
    assert annotate([f"1 2 3 {RUSSIAN} 1 2 3"], path)["language"] == ["uk"]


def test_text_that_no_label_fits_is_undetermined(tmp_path: Path) -> None:
    path = tmp_path / "lid.bin"
    fasttext.train(rows({"de": GERMAN, "en": ENGLISH}), CONFIG, path, 0)
    found = annotate([RUSSIAN, "12 345 - 6", GERMAN], path)
    assert found["language"] == [codes.UNKNOWN, codes.NONE, "de"]
    assert found["score"][0] == 0.0


def test_labels_of_one_language_add_up(tmp_path: Path) -> None:
    path = tmp_path / "lid.bin"
    fasttext.train(rows({"sr-Latn": GERMAN, "sr_Cyrl": RUSSIAN, "en": ENGLISH}), CONFIG, path, 0)
    both = annotate([GERMAN, RUSSIAN], path)
    assert both["language"] == ["sr", "sr"]
    half = annotate([f"{GERMAN} {RUSSIAN}"], path)
    assert half["language"] == ["sr"] and half["score"][0] > 0.9


def test_a_stated_language_is_believed_and_its_script_checked() -> None:
    found = annotate([GERMAN, RUSSIAN], known="deu")
    assert found["language"] == ["de", "de"] and found["score"] == [1.0, 1.0]
    assert found["script_ok"] == [1.0, 0.0]


def test_scripts_are_those_of_unicode() -> None:
    draw = random.Random(1)
    places = [draw.randrange(0x20, 0x30000) for _ in range(4000)] + list(range(0x20, 0x600))
    text = "".join(
        chr(c) for c in places if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c))[0] in "LM"
    )
    found = scripts.count(pa.array([text, text[:7]], pa.large_string()))[0]
    for name in ("Latn", "Cyrl", "Grek", "Arab", "Deva", "Hang", "Ethi", "Thai"):
        expected = len(regex.findall(rf"(?=[\p{{L}}\p{{M}}])\p{{Script={name}}}", text))
        assert abs(found[scripts.INDEX[name]] - expected) <= 0.01 * expected + 2, name


def test_ideographs_are_japanese_where_there_is_kana() -> None:
    texts = pa.array([WRITTEN["zh"], WRITTEN["ja"], WRITTEN["zh"] * 10 + "の"], pa.large_string())
    counts = scripts.count(texts)
    assert [scripts.NAMES[k] for k in counts.argmax(axis=1)] == ["Hani", "Jpan", "Hani"]
    np_total = counts.sum(axis=1)
    assert np_total.tolist() == [sum(c.isalpha() for c in t) for t in texts.to_pylist()]


def test_stop_words_are_found_in_running_text() -> None:
    texts = {**{lang: WRITTEN[lang] for lang in ("ja", "ko", "th", "el")}, "de": GERMAN}
    for lang, text in texts.items():
        count = stopwords.count(text, text.split(), lang)
        assert count is not None and count >= 2, lang
    assert stopwords.count(GERMAN, GERMAN.split(), "en") == 0
    for lang in (None, "en"):
        assert stopwords.count(ENGLISH, ENGLISH.split(), lang) == 4
    assert stopwords.count("x", ["x"], "tlh") is None
    assert len(stopwords.STOP_WORDS) >= 100
    assert all(len(words) >= 8 for words in stopwords.STOP_WORDS.values())
    for lang, words in stopwords.STOP_WORDS.items():
        wanted = codes.SCRIPTS.get(lang)
        if wanted and not (lang == "ja" or "Latn" in wanted):
            counted = scripts.count(pa.array([" ".join(words)], pa.large_string()))[0]
            assert counted.sum() == sum(counted[scripts.INDEX[s]] for s in wanted), lang


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two? Three", 2),
        ("Version 3.14 of a.b.c is out...", 1),
        ("“Really?!” he said. (Yes.)", 3),
        ("一。二！三？四", 3),
        ("यह एक है। वह दो है॥ और?", 3),
        ("هذا واحد؟ وهذا اثنان.", 2),
        ("ይህ አንድ ነው። ሁለት፧", 2),
        ("ይህ፡አንድ፡ነው፡፡ ሁለት፡፡", 2),
        ("no end at all", 0),
        ("", 0),
        ("。。。 ...", 1),
    ],
)
def test_sentences_end_with_the_marks_of_every_script(text: str, count: int) -> None:
    assert sentences.count(pa.array(["", text, text[:0]], pa.large_string())).tolist() == [0, count, 0]
