"""CLD2, the model of languages that `pycld2` brings along: scores of each language, as a fastText classifier gives them.

Compact Language Detector 2 (Chromium) counts characters, syllables and groups of four letters, and answers with up to
three languages, the share of the text in each, and whether it trusts that.
"""

from __future__ import annotations

import functools
import importlib.util
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
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters for which CLD2 refuses a whole text."""


def available() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec(DISTRIBUTION) is not None


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
            for number, share in self._shares(text):
                scores[row, number] += share
            scores[row, unknown] += 1 - scores[row].sum()
        return scores

    def _shares(self, text: str) -> list[tuple[int, float]]:
        import pycld2

        # CLD2 knows small letters of every script, capitals of some (not the Georgian ones).
        line = _REFUSED.sub(" ", excerpt(text, self.max_characters)).lower()
        try:
            trusted, size, details = pycld2.detect(line, isPlainText=True, bestEffort=True)
        except pycld2.error:  # a character beyond those: the text has no known language
            return []
        percent = sum(d[2] for d in details)
        sure = size / (size + _HALF) * (1 if trusted else _UNTRUSTED)
        return [(self._numbers[code], sure * share / percent) for _, code, share, _ in details if share]
