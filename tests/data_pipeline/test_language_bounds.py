"""Bounds of a policy by language."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from configs import edge
from configs.edge import ConfigError
from configs.schema.pipeline import FilterConfig
from data_pipeline import policy
from data_pipeline.annotate import codes, language
from data_pipeline.document import shard_path, write_table
from data_pipeline.heuristics import annotate as heuristics

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


def test_the_web_policy_has_settings_for_many_languages() -> None:
    config = edge.load_group("filter", "web", FilterConfig)
    policy.check(config)
    assert len(config.bounds) > 60 and config.bounds["en"] == {}
    assert [code for code in config.bounds if codes.normal(code)[0] != code and code != policy.OTHER] == []
    assert all(config.bounds[code]["c4.sentences"] is None for code in ("zh", "ja", "hi", "th", "am", "hy"))


# English settings drop every one of them.
PAGES = {
    "de": "Die Stadt hat im vergangenen Jahr drei neue Brücken gebaut. Zwei davon führen über den Fluss, die dritte über "
    "die Bahn. Viele Bürger waren zuerst dagegen, weil die Arbeiten laut und teuer waren. Inzwischen fährt kaum noch jemand "
    "den alten Weg. Der Bürgermeister sagt, dass sich die Kosten bald rechnen werden. Im nächsten Sommer soll auch der "
    "Radweg am Ufer fertig sein.",
    "zh": "去年这座城市修建了三座新桥。其中两座跨越河流，另一座跨越铁路。起初很多居民反对，因为施工又吵又贵。"
    "现在几乎没有人走老路了。市长说，费用很快就会收回来。明年夏天，河边的自行车道也会完工。到时候，人们可以从火车站一直骑到老城区。",
    "ja": "この町では昨年、新しい橋が三つ造られました。二つは川に、もう一つは線路の上に架かっています。"
    "工事の音と費用のために、初めは反対する住民も多くいました。今では古い道を通る人はほとんどいません。来年の夏には、川沿いの自転車道も完成する予定です。",
    "hi": "पिछले साल इस शहर में तीन नए पुल बनाए गए। उनमें से दो नदी पर हैं और तीसरा रेल की पटरी के ऊपर है। शुरू में बहुत से लोग इसके "
    "खिलाफ थे, क्योंकि काम में शोर होता था और खर्च भी अधिक था। अब शायद ही कोई पुराने रास्ते से जाता है। नगर प्रमुख का कहना है कि "
    "यह खर्च जल्दी ही निकल आएगा। अगली गर्मियों में नदी के किनारे साइकिल का रास्ता भी तैयार हो जाएगा।",
    "th": "ปีที่แล้วเมืองนี้สร้างสะพานใหม่สามแห่ง สองแห่งข้ามแม่น้ำ อีกแห่งหนึ่งข้ามทางรถไฟ ตอนแรกชาวบ้านหลายคนไม่เห็นด้วย เพราะการก่อสร้าง"
    "เสียงดังและใช้เงินมาก แต่ตอนนี้แทบไม่มีใครใช้ถนนเก่าแล้ว นายกเทศมนตรีบอกว่าจะได้ทุนคืนในไม่ช้า",
    "ru": "В прошлом году в городе построили три новых моста. Два из них ведут через реку, а третий через железную дорогу. "
    "Сначала многие жители были против, потому что работы были шумными и дорогими. Теперь по старой дороге почти никто не "
    "ездит. Мэр говорит, что расходы скоро окупятся. Следующим летом будет готова и велосипедная дорожка на берегу, и тогда "
    "можно будет доехать от вокзала до самого центра.",
}


def dropped_by(text: str, spoken: str | None) -> list[str]:
    config = edge.load_group("filter", "web", FilterConfig)
    texts = pa.chunked_array([[text]], pa.large_string())
    columns, _ = heuristics.annotate_texts(texts, [spoken])
    columns["language"] = language.Identifier(None, 2000).table(texts).to_pydict()
    found = []
    for name, rule in config.rules.items():
        sidecar, column = rule.signal.split(".")
        if sidecar in columns and rule.allow is None:
            values = pa.chunked_array([pa.array(columns[sidecar][column])])
            if policy.judge(name, policy.with_bounds(config, name, rule), values, [spoken]).failed[0]:
                found.append(name)
    return found


@pytest.mark.parametrize("code", PAGES)
def test_a_good_page_is_kept_by_the_settings_of_its_language(code: str) -> None:
    assert dropped_by(PAGES[code], code) == []
    assert "gopher.stop_words" in dropped_by(PAGES[code], "en")


@pytest.mark.parametrize("name", ["gopher", "fineweb"])
def test_published_policies_try_rules_in_the_order_of_datatrove(name: str) -> None:
    repetition = ["dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac"]
    repetition += [f"top_{n}_gram" for n in (2, 3, 4)] + [f"dup_{n}_gram" for n in range(5, 11)]
    quality = ["n_words", "n_words", "mean_word_length", "mean_word_length", "hash_ratio", "ellipsis_ratio"]
    quality += ["bullet_lines", "ellipsis_lines", "alpha_words", "n_stop_words"]
    rules = edge.load_group("filter", name, FilterConfig).rules.values()
    signals = [rule.signal for rule in rules if rule is not None and rule.signal.startswith("gopher.")]
    assert signals == [f"gopher.{column}" for column in repetition + quality]
