"""Character sets of pages: byte-order mark, declaration in the HTTP header or the page, then detection.

Labels and their codecs are those of the WHATWG encoding standard, section 4.2 (library webencodings), as browsers read
them; detection is chardet's.
"""

from __future__ import annotations

import codecs
import itertools
import re

import chardet
import webencodings

_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]+)", re.I)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Escapes that shift to two-byte characters: JIS X 0208 of 1978 and 1983 (RFC 1468).
_ISO_2022_JP = re.compile(rb"\x1b\$[@B].{2,}?\x1b\([BJ]", re.DOTALL)
# WHATWG replaces these by U+FFFD for reasons of security; an archive wants their text.
_SEVEN_BIT = {"hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr"}
MAX_METAS = 20
"""Declarations that are looked at; comments hold a few."""
DETECT_BYTES = 32 * 1024
"""Bytes that detection looks at; more changes hardly any verdict and costs linearly."""
UTF_16_NULS = 0.2
"""Share of NUL bytes at even or odd positions from which text is UTF-16: its ASCII characters have one each."""
MAX_UNDEFINED = 0.05
"""Share of the bytes above 127 that a declared character set may leave undefined; a wrong one leaves more."""


def decode(data: bytes, declared: str | None, html: bool) -> tuple[str, int]:
    """Decode a page.

    UTF-8 wins over any declared single-byte set where the bytes are valid UTF-8: text in another encoding practically
    never is, and wrong declarations are common. Sets of seven-bit escapes and UTF-16 are valid UTF-8 by accident, and win
    over it where the bytes look like them.

    Args:
        declared: label of the HTTP header.
        html: look for a declaration in the page too.

    Returns:
        The text, and how many of its characters had to be replaced.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _replace(data[len(mark) :], encoding)
    labels = [declared] if declared else []
    if html:
        head = data[:4096]
        found = (_in_meta(head), _XML.search(head))
        labels += [m.group(1).decode("ascii", "replace") for m in found if m]
    escaped = _escaped_or_wide(data, declared, labels)
    if escaped is not None:
        return _replace(data, escaped)
    try:
        return data.decode("utf-8"), 0
    except UnicodeDecodeError:
        pass
    names = [name for label in labels if (name := _codec(label)) is not None]
    for name in names:
        if name == "utf-8":
            continue
        text, replaced = _replace(data, name)
        high = len(data) - len(data.translate(None, _HIGH))
        if replaced <= max(1, MAX_UNDEFINED * high):
            return text, replaced
    if "utf-8" in names:
        # Declared UTF-8 with a few broken bytes: keep it unless so much is broken that the label must be wrong.
        text, replaced = _replace(data, "utf-8")
        if replaced * 50 <= len(text):
            return text, replaced
    return _replace(data, _detect(data) or (names or ["utf-8"])[0])


def _in_meta(head: bytes) -> re.Match[bytes] | None:
    """The first declaration by a `meta` element that no comment encloses."""
    for match in itertools.islice(_META.finditer(head), MAX_METAS):
        if head.rfind(b"<!--", 0, match.start()) <= head.rfind(b"-->", 0, match.start()):
            return match
    return None


_HIGH = bytes(range(128, 256))


def _escaped_or_wide(data: bytes, declared: str | None, labels: list[str]) -> str | None:
    """Codec of text in seven-bit escapes or in UTF-16 without a mark; None for any other."""
    if 0x1B in data and _ISO_2022_JP.search(data):
        return "iso2022_jp_ext"
    for label in labels:
        codec = _SEVEN_BIT.get(label.strip().lower())
        if codec is not None and (b"~{" in data or b"\x0e" in data):
            return codec
    sample = data[:DETECT_BYTES]
    half = max(1, len(sample) // 2)
    even, odd = (sample[::2].count(0) / half, sample[1::2].count(0) / half) if 0 in sample else (0.0, 0.0)
    if max(even, odd) >= UTF_16_NULS and min(even, odd) < UTF_16_NULS / 4:
        return "utf-16-le" if odd > even else "utf-16-be"
    # Text without ASCII has no NUL: then the header decides, unless the bytes are valid UTF-8. In a page itself, a
    # declaration that could be read as ASCII is wrong.
    if declared is not None and (_codec(declared) or "").startswith("utf-16"):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return "utf-16-be" if declared.strip().lower().endswith("be") else "utf-16-le"
    return None


def _codec(label: str) -> str | None:
    """Python's name of the codec that browsers use for a label; None where there is none."""
    label = label.strip()
    encoding = webencodings.lookup(label)
    if encoding is not None:
        name = encoding.codec_info.name
        return None if name in ("replacement", "x-user-defined") else name
    try:
        info = codecs.lookup(label)
    except (LookupError, ValueError):
        return None
    return info.name if info._is_text_encoding else None


def _detect(data: bytes) -> str | None:
    """Codec that the text is probably in: judged by the lines that are not ASCII, which a long head may precede."""
    lines: list[bytes] = []
    size = 0
    for line in data.splitlines():
        if not line.isascii():
            lines.append(line[:DETECT_BYTES])
            size += len(lines[-1])
            if size >= DETECT_BYTES:
                break
    name = chardet.detect(b"\n".join(lines))["encoding"]
    return _codec(name) if name else None


def _replace(data: bytes, name: str) -> tuple[str, int]:
    text = data.decode(name, "replace")
    return text, text.count("\ufffd")
