"""Scripts of a text: how many of its letters belong to each, counted over UTF-8 bytes.

Names are those of ISO 15924. Japanese is one script here, `Jpan`: hiragana, katakana, and the ideographs of a text that
holds kana. The ranges are those of Unicode's property Script, letters and marks; what several scripts share (digits,
punctuation, combining accents) counts for none.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
import pyarrow as pa

from data_pipeline.compiled import kernel

_RANGES = """
    Latn 41-5a,61-7a,aa,ba,c0-d6,d8-f6,f8-2b8,2e0-2e4,1d00-1d25,1d2c-1d5c,1d62-1d65,1d6b-1d77,1d79-1dbe,
    1e00-1eff,2071-207f,2090-209c,212a-212b,2132,214e,2183-2184,2c60-2c7f,a722-a787,a78b-a7d9,a7f2-a7ff,
    ab30-ab64,ab66-ab69,fb00-fb06,ff21-ff5a,10780-107ba,1df00-1df1e
    Grek 370-373,376-3e1,3f0-3ff,1d26-1d2a,1d5d-1d61,1d66-1d6a,1dbf,1f00-1ffc,2126,ab65,1d242-1d244
    Cyrl 400-484,487-52f,1c80-1c88,1d2b,1d78,2de0-2dff,a640-a69f,fe2e-fe2f
    Armn 531-588,fb13-fb17
    Hebr 591-5f2,fb1d-fb4f
    Arab 610-63f,641-64a,656-66f,671-6ff,750-77f,870-8ff,fb50-fbb1,fbd3-fd3d,fd50-fdc7,fdf0-fdfb,fe70-fefc,
    1ee00-1eebb
    Syrc 710-74f,860-86a
    Thaa 780-7b1
    Nkoo 7ca-7fd
    Deva 900-950,955-97f,a8e0-a8ff
    Beng 980-9fe
    Guru a01-a5e,a70-a75
    Gujr a81-ae3,af9-aff
    Orya b01-b71
    Taml b82-bd7
    Telu c00-c63
    Knda c80-cf2
    Mlym d00-d63,d7a-d7f
    Sinh d81-ddf,df2-df3
    Thai e01-e4e
    Laoo e81-edf
    Tibt f00,f18-f19,f35-fc6
    Mymr 1000-103f,1050-109d,a9e0-a9fe,aa60-aa7f
    Geor 10a0-10ff,1c90-1cbf,2d00-2d2d
    Hang 1100-11ff,302e-302f,3131-318e,a960-a97c,ac00-d7fb,ffa0-ffdc
    Ethi 1200-135f,1380-138f,2d80-2dde,ab01-ab2e,1e7e0-1e7fe
    Cher 13a0-13fd,ab70-abbf
    Cans 1401-167f,18b0-18f5,11ab0-11abf
    Khmr 1780-17dd
    Mong 180b-180f,1820-18aa
    Hira 3041-3096,309d-309f,1b001-1b11f,1b150-1b152
    Kana 30a1-30fa,30fd-30ff,31f0-31ff,ff66-ff6f,ff71-ff9d,1aff0-1b000,1b120-1b122,1b164-1b167
    Bopo 3105-312f,31a0-31bf
    Hani 3005,303b,3400-4dbf,4e00-9fff,f900-fad9,16fe3,16ff0-16ff1,20000-2a6df,2a700-2ebe0,2f800-2fa1d,
    30000-3134a
    Yiii a000-a48c
    Tfng 2d30-2d7f
    Olck 1c5a-1c7d
    Vaii a500-a62b
    Java a980-a9c0
    Bali 1b00-1b4c,1b6b-1b73
    Sund 1b80-1bbf
    Bugi 1a00-1a1b
    Cham aa00-aa4d
    Mtei aae0-aaf6,abc0-abed
    Adlm 1e900-1e94b
    Lisu a4d0-a4fd,11fb0
    Talu 1980-19c9
    Lana 1a20-1a7f,1aa7
    Copt 3e2-3ef,2c80-2cf3
    Goth 10330-10349
    Glag 2c00-2c5f,1e000-1e02a
    Samr 800-82d
    Mand 840-85b
    Limb 1900-193b
    Tale 1950-1974
    Batk 1bc0-1bf3
    Lepc 1c00-1c37,1c4d-1c4f
    Bamu a6a0-a6f1,16800-16a38
    Sylo a800-a82c
    Saur a880-a8c5
    Kali a90a-a92d
    Rjng a930-a953
    Cakm 11100-11147
    Gran 11300-11339,1133c-11374
    Osge 104b0-104fb
    Hmnp 1e100-1e13d,1e14e
    Rohg 10d00-10d27
    Runr 16a0-16f8
    Ogam 1681-169a
"""
_PARSED: dict[str, str] = dict(
    entry.split() for entry in _RANGES.replace(",\n    ", ",").strip().splitlines()
)
NAMES: tuple[str, ...] = (*_PARSED, "Jpan")
"""Scripts, in the order of the columns of `count`."""
INDEX = {name: i for i, name in enumerate(NAMES)}
KANA_SHARE = 0.05
"""Share of kana among kana and ideographs from which the ideographs are Japanese; Chinese pages hold odd kana."""
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_STARTS = numba.types.Array(numba.int64, 1, "C", readonly=True)


@functools.cache
def table() -> np.ndarray:
    """Number of the script of each code point plus one, 0 where it has none: uint8 [0x110000]."""
    found = np.zeros(0x110000, np.uint8)
    for number, ranges in enumerate(_PARSED.values(), 1):
        for piece in ranges.split(","):
            first, _, last = piece.partition("-")
            found[int(first, 16) : int(last or first, 16) + 1] = number
    return found


def count(texts: pa.Array) -> np.ndarray:
    """Letters of each script in each text, int64 [n, len(NAMES)].

    Args:
        texts: large strings without nulls.
    """
    out = np.zeros((len(texts), len(NAMES)), np.int64)
    if len(texts) == 0:
        return out
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data is None or data.size == 0:
        return out
    _count(np.frombuffer(data, np.uint8), starts, table(), out)
    kana = out[:, INDEX["Hira"]] + out[:, INDEX["Kana"]]
    han = out[:, INDEX["Hani"]]
    japanese = (kana > 0) & (kana >= KANA_SHARE * (kana + han))
    out[:, INDEX["Jpan"]] = np.where(japanese, kana + han, 0)
    for name in ("Hira", "Kana", "Hani"):
        out[japanese, INDEX[name]] = 0
    return out


@kernel(numba.void(_BYTES, _STARTS, numba.uint8[::1], numba.int64[:, ::1]))
def _count(data, starts, table, out):  # type: ignore[no-untyped-def]
    counts = np.zeros(256, np.int64)
    for row in range(len(starts) - 1):
        counts[:] = 0
        i, end = starts[row], starts[row + 1]
        while i < end:
            byte = data[i]
            if byte < 0x80:
                counts[table[byte]] += 1
                i += 1
            elif byte < 0xE0:
                if i + 1 < end:
                    counts[table[(np.int64(byte) & 31) << 6 | (np.int64(data[i + 1]) & 63)]] += 1
                i += 2
            elif byte < 0xF0:
                if i + 2 < end:
                    code = (np.int64(byte) & 15) << 12 | (np.int64(data[i + 1]) & 63) << 6
                    counts[table[code | (np.int64(data[i + 2]) & 63)]] += 1
                i += 3
            else:
                if i + 3 < end:
                    code = (np.int64(byte) & 7) << 18 | (np.int64(data[i + 1]) & 63) << 12
                    code |= (np.int64(data[i + 2]) & 63) << 6 | (np.int64(data[i + 3]) & 63)
                    if code < len(table):
                        counts[table[code]] += 1
                i += 4
        for script in range(out.shape[1] - 1):
            out[row, script] = counts[script + 1]
