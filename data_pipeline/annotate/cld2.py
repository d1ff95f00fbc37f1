"""CLD2, the model of languages that `pycld2` brings along: scores of each language, as a fastText classifier gives them.

Compact Language Detector 2 (Chromium) counts characters, syllables and groups of four letters, and answers with up to
three languages, the share of the text in each, how well that text fits the language, and whether it trusts that. Two of
its habits are undone here: it takes source code for English, and languages that it does not know for the nearest it does.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from data_pipeline.annotate import codes
from data_pipeline.classify.fasttext import excerpt

NAME = "cld2"
"""What `languages.model` calls it."""
DISTRIBUTION = "pycld2"
_HALF = 5
"""Bytes of letters at which an answer is as often wrong as right. The shares of right answers on 55,544 sentences of 75
languages follow n / (n + 5): .70 of those of 12-20 bytes, .88 of 30-45, .96 of 100-200, .98 beyond."""
_UNTRUSTED = 0.3
"""Share of right answers among those that CLD2 itself does not trust."""
_FIT = 300
"""CLD2's score of a kilobyte, below which a text is not in the language. Text of the 160 languages that it knows has 480 to
1,600 (Spanish, Croatian and Occitan down to 325), pages of the web 437 at least; text in languages that it does not know, 24
to 290 for the nearest. 0 is no score: the script alone said the language."""
_FEW = 100
"""Bytes of letters at which half of that is enough: the scores of single sentences vary."""
_MOSTLY = 0.5
_SYMBOLS = re.compile(r"[{}()\[\];=<>_\\*&#$+]")
_SYMBOL_SHARE = 0.05
_CODE = re.compile(
    r"[{};]\s*$|\)\s*:\s*$|^\s*(?:[}\])@]|//|/\*|#\w|</?[a-z!])|\s(?:=|==|!=|:=|=>|->|&&|\|\||[-+]=)\s"
    r"|\w(?:\.\w+)*\((?:[^()\s]*|[^()]*[=,\"'][^()]*)\)|\w(?:::|->|_)\w|\w=[\w\"']|</?[a-z]+[^<>]*>"
)
"""What stands in lines of code, and with many symbols nowhere else."""
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters for which CLD2 refuses a whole text."""


def available() -> bool:
    """Whether the package is installed and loads: a wheel for another system is found, but cannot be imported."""
    try:
        importlib.import_module(DISTRIBUTION)
    except ImportError:
        return False
    return True


def _language(code: str) -> str:
    """One scheme; scripts without language (`xx-Goth`), jokes (`zzb`) and `un` are no languages."""
    if code in ("un", "xxx", "tlh") or code.startswith(("xx-", "zz")):
        return codes.UNKNOWN
    return codes.normal(code)[0]


@functools.cache
def _labels() -> tuple[tuple[str, ...], dict[str, int]]:
    """Languages, and the number of the language of each of CLD2's codes."""
    import pycld2

    languages = {code: _language(code) for _, code in pycld2.LANGUAGES} | {"un": codes.UNKNOWN}
    languages |= {codes.NONE: codes.NONE}
    names = tuple(sorted(set(languages.values())))
    return names, {code: names.index(language) for code, language in languages.items()}


class Cld2:
    """The model behind the two members of `fasttext.Classifier` that identification uses.

    Raises:
        ModuleNotFoundError: pycld2 is not installed.
    """

    def __init__(self, max_characters: int) -> None:
        self.labels, self._numbers = _labels()
        self.max_characters = max_characters

    def scores(self, texts: Iterable[str] | pa.Array) -> np.ndarray:
        """float64 [n, labels], rows sum to 1; what CLD2 leaves open is the share of `und`."""
        found = texts.to_pylist() if isinstance(texts, pa.Array) else list(texts)
        scores = np.zeros((len(found), len(self.labels)))
        unknown = self._numbers["un"]
        for row, text in enumerate(found):
            prose, code = without_code(excerpt(text, self.max_characters))
            # A page about code is in the language of its prose; code with some words is code.
            scores[row, self._numbers[codes.NONE]] = code if code > _MOSTLY else 0
            for number, share in self._shares(prose):
                scores[row, number] += share * (1 - code if code > _MOSTLY else 1)
            scores[row, unknown] += 1 - scores[row].sum()
        return scores

    def _shares(self, text: str) -> list[tuple[int, float]]:
        import pycld2

        # CLD2 knows small letters of every script, capitals of some (not the Georgian ones).
        line = _REFUSED.sub(" ", text).lower()
        try:
            trusted, size, details = pycld2.detect(line, isPlainText=True, bestEffort=True)
        except pycld2.error:  # a character beyond those: the text has no known language
            return []
        percent = sum(d[2] for d in details)
        sure = size / (size + _HALF) * (1 if trusted else _UNTRUSTED)
        return [
            (self._numbers[code], sure * share / percent)
            for _, code, share, fit in details
            if share and (fit >= _FIT * size / (size + _FEW) or fit == 0)
        ]


def without_code(text: str) -> tuple[str, float]:
    """A text without its lines of source code, and their share of its characters."""
    if not _SYMBOLS.search(text):
        return text, 0.0
    prose, size, code = [], 0, 0
    for line in text.split("\n"):
        n = len(line.strip())
        size += n
        if n and len(_SYMBOLS.findall(line)) > _SYMBOL_SHARE * n and _CODE.search(line):
            code += n
        else:
            prose.append(line)
    return "\n".join(prose), code / size if size else 0.0
