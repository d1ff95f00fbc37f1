"""Templates of Wikipedia's editions whose text is what they are given, by name, and how it is put together.

A form has places `{1}`, `{2}`, … for positional parameters, `{-1}` for the last, `{*}` for all with commas, `{+}` for
all joined; forms between `|` are alternatives, of which the first counts whose parameters are all there. Names begin
with a small letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

REFERENCE = re.compile(
    r"(?:r|rp|ref|refn|refs?|sfnp?m?|efn|cn|fact|when|who|which|by whom|where|clarify|vague|dubious|according to whom|why"
    r"|page|webarchive|harv\w*|cit(?:e|ation)\b.*|dead link|нет аи|источник|référence \w+|refnec|note|notetag|fn)",
    re.I,
)
"""Names of templates that refer to something, or ask for it: a sentence is whole without them."""
LANGUAGE = re.compile(r"(?:lang|vol|k)-[a-z-]+|[a-z]{2,3}S", re.I)
PHONETIC = re.compile(r"ipa-[a-z]+", re.I)
"""Names of templates for a word of a language, which end in its code; for its sounds."""
QUOTATION = re.compile(r"quot|zitat|\bcitat|\bcita\b|цитата|引用|sitat|citaat|cytat|idézet", re.I)
"""Names of templates that hold a quotation: their longest parameter is the text."""

CHARACTERS: Mapping[str, str] = {
    "!": "\x02", "=": "=", "ndash": "–", "mdash": "—", "spaced ndash": " – ", "snd": " – ", "spnd": " – ",
    "spaced en dash": " – ", "dash": " – ", "nbsp": " ", "pi": "π", "euro": "€", "pound sign": "£", "shy": "",
    "zwsp": "", "wbr": "", "clear": "", "ellipsis": "…", "'": "'", '"': '"', "–": " – ", "—": " — ", "bull": "•",
    "middot": "·", "·": " · ", "hyphen": "-", "times": "×", "minus": "−", "°": "°", "'s": "'s",
}  # fmt: skip
"""Templates that stand for a character."""

_FORMS = {
    "{1}": """nowrap nobr nobreak small smaller big bigger larger sc smallcaps math mvar var code kbd samp
        mono strong em bold italic underline strike resize center no italic noitalic abbr abbreviation tooltip
        ill interlanguage link red link illm tq number nombre formatnum num nts ntsh plainlist flatlist
        blockindent dfn visible anchor anchor unicode polytonic hebrew rtl-lang music quote inline guillemets
        « okina overline""",
    "{2}": "lang langue lng lingua transl transliteration translit color colour font color farbe couleur script wikt-lang",
    "{1}|{1}": "flag flaga TA vr szám ألمانية پرچمک Прапорець equationNote date-",
    "⟨{1}⟩": "angbr angle bracket",
    "ISBN {1}": "isbn",
    "« {1} »": "citation",
    "– {1} –": "incise",
    "{1}, {2}": "kardeş şehir",
    "{1} h {2}|{1} h": "heure",
    "{2}|{1}": "link wikt sort sortkey",
    "{1} {2}|{1}": "convert cvt convertir unité unit unidad val sortname nombre-unité tmp km",
    "{1}/{2}|1/{1}": "frac sfrac bruch fraction vulgar fraction fração fracción tfrac",
    "c. {1}": "circa",
    "c.": "c. ca ca.",
    "as of {1}": "as of",
    "{1} ({2}, {3})|{1} ({2})|{1}": "nihongo nihongo foot",
    "{1}（{2}）|{1}": "読み仮名 ruby ルビ",
    "{*}": "hlist ubl unbulleted list plain list flat list comma separated entries bulleted list cslist",
    "{3}/{2}/{1}|{1}": "birth date birth date and age death date start date end date film date",
    "{1} {2} {3}|{1} {2}|{1}": "date de date dts fecha data",
    "{1}e siècle": "s siècle s-",
    "século {1}": "séc",
    "segle {1}": "segle",
    "{1}º": "ordinal ord",
    "[{1}]": "ipa api lautschrift afi",
    "<sup>{1}</sup>": "sup",
    "<sub>{1}</sub>": "sub",
    "×10<sup>{1}</sup>": "e",
    "10<sup>{1}</sup>": "10^ e10",
    "$\\ce{{+}}$": "chem chem2 ce",
    "$\\sqrt{{1}}$|{1}": "sqrt radic",
    "{-1}": "仮リンク нп нп3 нп5 не переведено",
}
_SEVERAL_WORDS = (
    "no italic", "angle bracket", "kardeş şehir", "interlanguage link", "red link", "visible anchor", "font color",
    "vulgar fraction", "as of", "nihongo foot", "quote inline", "unbulleted list", "plain list", "flat list",
    "comma separated entries", "bulleted list", "birth date", "birth date and age", "death date", "start date",
    "end date", "film date", "date de", "не переведено",
)  # fmt: skip


def _forms() -> dict[str, str]:
    found = {}
    for form, names in _FORMS.items():
        text = f" {' '.join(names.split())} "
        for several in sorted(_SEVERAL_WORDS, key=len, reverse=True):
            if f" {several} " in text:
                found[several] = form
                text = text.replace(f" {several} ", " ")
        found |= dict.fromkeys(text.split(), form)
    return {name[:1].lower() + name[1:]: form for name, form in found.items()}


FORMATS: Mapping[str, str] = _forms()
"""Form by name of the template."""
