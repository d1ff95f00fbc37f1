"""Character sets of pages: byte-order mark, HTTP header, `meta` element, then detection."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]+)", re.I)
# What browsers read under these labels (WHATWG encoding standard, section 4.2).
_LABELS = {
    "iso-8859-1": "windows-1252",
    "iso8859-1": "windows-1252",
    "latin1": "windows-1252",
    "latin-1": "windows-1252",
    "us-ascii": "windows-1252",
    "ascii": "windows-1252",
    "iso-8859-9": "windows-1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "x-sjis": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "x-mac-roman": "mac-roman",
    "unicode": "utf-8",
    "utf8": "utf-8",
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
DETECT_BYTES = 32 * 1024
"""Bytes that detection looks at; more changes hardly any verdict and costs linearly."""


def decode(data: bytes, declared: str | None, html: bool) -> tuple[str, int]:
    """Text of a page and the number of its characters that had to be replaced.

    UTF-8 wins over any declared single-byte set where the bytes are valid UTF-8: text in another encoding practically
    never is, and wrong declarations are common.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _replace(data[len(mark) :], encoding)
    try:
        return data.decode("utf-8"), 0
    except UnicodeDecodeError:
        pass
    candidates = [declared]
    if html:
        head = data[:4096]
        candidates += [m.group(1).decode("ascii", "replace") for p in (_META, _XML) if (m := p.search(head))]
    names = [name for c in candidates if c and (name := _codec(c)) is not None]
    for name in names:
        if name == "utf-8":
            continue
        try:
            return data.decode(name), 0
        except (UnicodeDecodeError, UnicodeError):
            continue
    if "utf-8" in names:
        # Declared UTF-8 with a few broken bytes: keep it unless so much is broken that the label must be wrong.
        text, replaced = _replace(data, "utf-8")
        if replaced * 50 <= len(text):
            return text, replaced
    best = from_bytes(data[:DETECT_BYTES]).best()
    return _replace(data, best.encoding if best is not None else (names or ["utf-8"])[0])


def _codec(label: str) -> str | None:
    label = label.strip().lower()
    label = _LABELS.get(label, label)
    try:
        info = codecs.lookup(label)
    except LookupError:
        return None
    return label if info._is_text_encoding else None


def _replace(data: bytes, name: str) -> tuple[str, int]:
    text = data.decode(name, "replace")
    return text, text.count("\ufffd")
